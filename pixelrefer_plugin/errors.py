"""The errors users meet. All are `ValueError`s, so callers may catch broadly or precisely.

A message says what, what was expected, what was got, and what to do next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    pass


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


class DataError(PixelReferError):
    """A data file cannot be read, or is of no known format."""


class SampleError(DataError):
    """A sample cannot be used.

    Attributes:
        sample_id: its id.
        where: file and line or number; may be empty.
        defects: what is wrong with it, one or more. All three are empty where a data loader's worker raised it.
    """

    def __init__(self, sample_id: str, where: str = "", defects: Sequence[Defect] = ()) -> None:
        if not defects:  # torch's data loader makes a worker's error anew, from its traceback alone
            super().__init__(sample_id.rsplit("SampleError: ", 1)[-1].strip())
            sample_id = ""
        else:
            super().__init__(f"{sample_name(sample_id, where)}: {' '.join(defect.message for defect in defects)}")
        self.sample_id = sample_id
        self.where = where
        self.defects = tuple(defects)

    def __reduce__(self) -> tuple[type[SampleError], tuple[Any, ...]]:  # data loaders carry it between processes
        return SampleError, (self.sample_id, self.where, self.defects) if self.defects else (str(self),)


def sample_name(sample_id: str, where: str) -> str:
    """What to call a sample at the start of a message: `train.jsonl line 12, sample 'street-1'`."""
    return f"{where}, sample '{sample_id}'" if where else f"sample '{sample_id}'"


class ConfigError(PixelReferError):
    """A training configuration has an unknown key, or a value that breaks a rule."""


class TrainingError(PixelReferError):
    """Training cannot start, or had to be stopped: the message names groups or samples."""


@contextmanager
def about(subject: str) -> Iterator[None]:
    """Says in front of an error of this package what it is about: `Sample 0`, `object 1`, an option."""
    try:
        yield
    except PixelReferError as error:
        error.args = (f"{subject}: {error}", *error.args[1:])
        raise


DefectKind = Literal["format", "media", "size", "markers", "region", "answer", "too long"]
"""What may be wrong with a sample: its record; a picture or video that cannot be read; one of another size than
the file says; more or fewer `<region>` and `<seg>` than regions, or a `<seg>` outside an answer; a region that is
empty, malformed or outside; no answer to learn from; more tokens than allowed."""


class Defect(NamedTuple):
    """One thing that is wrong with a sample; `message` reads on from `sample 'x': `."""

    kind: DefectKind
    message: str


@contextmanager
def in_plugin(plugin: str, step: str) -> Iterator[None]:
    """Whatever plugin code raises within is reported with the plugin and what it was doing."""
    try:
        yield
    except PixelReferError:
        raise
    except Exception as error:
        raise PluginError(f"{plugin.capitalize()} failed in {step}: {type(error).__name__}: {error}.") from error
