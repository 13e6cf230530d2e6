"""The kinds of hostile input, a module for each thing that takes them."""

from .. import faulty, known  # noqa: F401
from . import answers, commands, conversations, media, memories, models, plugins, recipes, records, regions, runs  # noqa: F401
