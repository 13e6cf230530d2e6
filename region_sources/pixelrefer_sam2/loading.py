"""How a checkpoint that cannot be loaded is reported, whichever engine it was for."""

import pickle
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten

from safetensors import SafetensorError

from pixelrefer_plugin.authoring import SourceError

# What the hub, transformers, torch and safetensors raise for files that are missing, damaged or foreign.
_LOADING_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    pickle.UnpicklingError,
    struct.error,
    SafetensorError,
)
_REASON_CHARACTERS = 150  # libraries list every key of a model, or every place they looked


def cannot_load(checkpoint: str, reason: str, *, expected: str) -> SourceError:
    """The error for a checkpoint: why it cannot be loaded, and what would do."""
    short = shorten(reason, _REASON_CHARACTERS, placeholder=" ...").rstrip(". ")
    return SourceError(f"SAM 2 checkpoint '{checkpoint}' cannot be loaded: {short}. Expected {expected}.")


@contextmanager
def reported(checkpoint: str, *, expected: str) -> Iterator[None]:
    """Turns what libraries raise while loading into a `SourceError` that names the checkpoint."""
    try:
        yield
    except _LOADING_ERRORS as error:
        raise cannot_load(checkpoint, f"{type(error).__name__}: {error}", expected=expected) from error
