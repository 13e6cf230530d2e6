"""The kinds of hostile input, a module for each thing that takes them."""

from .. import faulty, known  # noqa: F401
from . import (  # noqa: F401
    answers,
    benchmarks,
    commands,
    conversations,
    judges,
    media,
    memories,
    models,
    plugins,
    recipes,
    records,
    regions,
    runs,
)
