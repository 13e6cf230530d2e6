"""The errors users meet. All are `ValueError`s, so callers may catch broadly or precisely.

A message says what, what was expected, what was got, and what to do next.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class PixelReferError(ValueError):
    """Base of every error this package raises for its users."""


class PluginError(PixelReferError):
    """A plugin is unknown, broken, misspelt, or claims a name that another one has."""


class RegionError(PixelReferError):
    """A region is malformed, empty, or does not fit its image."""


class ImageError(PixelReferError):
    """A picture cannot be read."""


class VideoError(PixelReferError):
    """A video cannot be read, or a frame of it is not there."""


class FrameError(VideoError):
    """A video does not have a frame, or it was not sampled.

    Attributes:
        frame: index of that frame in the source, where known.
    """

    def __init__(self, message: str, *, frame: int | None = None) -> None:
        super().__init__(message)
        self.frame = frame


class SourceError(PixelReferError):
    """A region source is not installed, cannot be loaded, or finds nothing where it was asked to look."""


class PromptError(PixelReferError):
    """Text, media and regions of a sample do not belong together."""


class SpliceError(PixelReferError):
    """Placeholders in the sequence and object tokens for them do not match."""


class AttachError(PixelReferError):
    """A backbone cannot take an adapter, or already has one."""


class CheckpointError(PixelReferError):
    """A model folder is incomplete, foreign, damaged, or from a newer version."""


@contextmanager
def about(subject: str) -> Iterator[None]:
    """Says in front of an error of this package what it is about: `Sample 0`, `object 1`, an option."""
    try:
        yield
    except PixelReferError as error:
        error.args = (f"{subject}: {error}", *error.args[1:])
        raise
