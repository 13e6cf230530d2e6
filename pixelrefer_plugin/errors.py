"""The errors users meet. All are `ValueError`s, so callers may catch broadly or precisely.

A message says what, what was expected, what was got, and what to do next. Where it happened is kept apart from it:
sample, region, frame, plugin and step are attributes, and the text is made of the place and the message.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypedDict, Unpack

_MOST_DEFECTS = 50  # that the text of a sample's error tells
_MOST_CHARACTERS = 200  # of the text of another library's exception


def shown(value: Any, most: int = 80) -> str:
    """A value as a message shows it: on one line, at most `most` characters, whatever it is and however deep.

    Arrays, tensors and pictures are told by their size, long texts and bytes by their two ends.
    """
    return _shortened(_written(value, _SHOWN.repr), most)


def text_of(value: Any, most: int = _MOST_CHARACTERS) -> str:
    """What `str` makes of an object of somebody else's, such as an exception: one line of at most `most` characters."""
    return _shortened(_written(value, str), most)


def nearest(value: Any, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The name that was probably meant; empty where none is like it."""
    return next(iter(difflib.get_close_matches(text_of(value, 100), known, n=1, cutoff=cutoff)), "")


def did_you_mean(value: Any, known: Iterable[str], cutoff: float = 0.6) -> str:
    """What a message about a wrong name goes on with: ` Did you mean 'box'?`, or nothing."""
    near = nearest(value, known, cutoff)
    return f" Did you mean '{near}'?" if near else ""


def counted(number: int, noun: str, several: str = "") -> str:
    """A number of things: `1 object`, `2,000 objects`; of those that are not called so, what `several` are called."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {several or f'{noun}s'}"


def _written(value: Any, write: Callable[[Any], str]) -> str:
    """A value as text on one line, whatever its own `__str__` or `__repr__` does."""
    try:
        return " ".join(write(value).split())
    except BaseException as error:
        if type(error) is KeyboardInterrupt:  # the user's
            raise
        return f"({type(value).__name__}, which cannot be shown)"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxtuple, self.maxdict = 4, 20, 20, 8
        self.maxset = self.maxfrozenset = self.maxdeque = self.maxarray = 20
        self.maxstring = self.maxother = 60

    def repr1(self, x: Any, level: int) -> str:
        size = next((size for name in ("shape", "size") if isinstance(size := _attribute(x, name), tuple)), None)
        if size is not None and size != ():
            dtype = _attribute(x, "dtype") or _attribute(x, "mode")
            return f"{type(x).__name__} of {' '.join(str(each) for each in (dtype, tuple(size)) if each)}"
        return super().repr1(x, level)

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python writes out no more than 4300 digits
            return f"an integer of {x.bit_length()} bits"

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """In its own order; that of `reprlib` is sorted."""
        if x and level <= 0:
            return "{...}"
        pairs = [f"{self.repr1(key, level - 1)}: {self.repr1(x[key], level - 1)}" for key in islice(x, self.maxdict)]
        return "{" + ", ".join([*pairs, *["..."] * (len(x) > self.maxdict)]) + "}"

    def repr_instance(self, x: Any, level: int) -> str:
        return _shortened(_written(x, repr), self.maxother)

    def repr_bytes(self, x: bytes, level: int) -> str:
        return self.repr_str(x, level)  # type: ignore[arg-type]  # it cuts, and takes repr of what is left

    def repr_bytearray(self, x: bytearray, level: int) -> str:
        return self.repr_bytes(bytes(x[: self.maxstring + 1]), level)


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception:  # of an object of somebody else's
        return None


_SHOWN = _Shown()


class Place(TypedDict, total=False):
    """Where an error happened. All of it is optional, and None says nothing.

    Attributes:
        sample: see `PixelReferError`, as the next three.
        region: index of the region.
        object_id: number of the object.
        frame: index of the frame.
        subject: what the text calls the sample, region or object given with it, in place of its index; without one,
            what stands in front of the text. Such as an option of a command.
    """

    sample: int | None
    region: int | None
    object_id: int | None
    frame: int | None
    subject: str | None


class PixelReferError(ValueError):
    """Base of every error this package raises for its users.

    Its text is the place and the message: `Sample 0, region 2, frame 5: The box ...`.

    Attributes:
        message: what is wrong, without the place.
        sample: index of the sample in its batch; None, as all of the following, where it is not known.
        region: index among the regions that were given with that sample.
        object_id: number of an object of an `ObjectMemory`, where the region is one.
        frame: index of a frame in its video.
        plugin: the plugin whose code it comes from, such as `adapter 'NAME'`.
        step: what that plugin was asked to do, such as `plan`.
        distribution: name and version of what that plugin is from, such as `pixelrefer-plugin 0.1.0`.
    """

    _names_frame: ClassVar[bool] = False  # whether messages do so themselves

    def __init__(
        self,
        message: str = "",
        *,
        sample: int | None = None,
        region: int | None = None,
        object_id: int | None = None,
        frame: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = _of_worker(message, type(self))
        if self.message != message:
            self.add_note(message)
        self.sample, self.region, self.object_id, self.frame = sample, region, object_id, frame
        self.plugin: str | None = None
        self.step: str | None = None
        self.distribution: str | None = None
        self._names: dict[str, str] = {}  # of places that are not called by their index

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message

    @property
    def place(self) -> str:
        """What the text says of where it happened: `Sample 0, region 2, frame 5`; may be empty."""
        parts = self._parts()
        if parts and parts[0] not in self._names.values():
            parts[0] = parts[0].capitalize()
        return ", ".join(parts)

    @property
    def place_in_sample(self) -> str:
        """The place without the sample: `region 2, frame 5`; may be empty."""
        return ", ".join(self._parts(of_sample=False))

    @property
    def in_sample(self) -> str:
        """The text as it reads on behind the name of the sample: `region 2, frame 5: The box ...`."""
        return f"{self.place_in_sample}: {self.message}" if self.place_in_sample else self.message

    @property
    def origin(self) -> str:
        """Which distribution the plugin is from; empty where that is not known."""
        return f"The {self.plugin} is from {self.distribution}." if self.distribution else ""

    def set_place(self, **place: Unpack[Place]) -> Self:
        """Say where it happened, as far as the error does not know already; returns the error."""
        told = {name: value for name, value in place.items() if value is not None}
        subject = told.pop("subject", None)
        named = next((name for name in _NAMED if name in told), "subject")
        if subject is not None and getattr(self, named, None) in (None, told.get(named)):
            self._names.setdefault(named, str(subject))
        for name, value in told.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        return self

    def _parts(self, *, of_sample: bool = True) -> list[str]:
        """What the text says of the place, from the outside in."""
        of_memory = " of the memory" if of_sample and self.sample is not None else ""
        words = {
            "subject": "",
            "sample": f"sample {self.sample}",
            "region": f"region {self.region}",
            "object_id": f"object {self.object_id}{of_memory}",
            "frame": "" if self._names_frame else f"frame {self.frame}",
        }
        told = [name for name in words if name in self._names or getattr(self, name, None) is not None]
        parts = [self._names.get(name, words[name]) for name in told if of_sample or name != "sample"]
        return [part for part in parts if part]

    def __reduce__(self) -> tuple[Any, ...]:  # errors travel between processes, whatever their class takes
        return _remade, (type(self), self.args), self.__dict__


_NAMED = ("sample", "region", "object_id")


def _remade(kind: type[PixelReferError], args: tuple[Any, ...]) -> PixelReferError:
    """An error without its attributes."""
    return kind.__new__(kind, *args)


def _of_worker(message: str, kind: type[PixelReferError]) -> str:
    """The text of an error whose traceback torch's data loader gives for a message: it makes a worker's error anew."""
    is_traceback = message.startswith("Caught ") and "\nOriginal Traceback" in message
    return message.rsplit(f"{kind.__name__}: ", 1)[-1].strip() if is_traceback else message


@contextmanager
def placed(**place: Unpack[Place]) -> Iterator[None]:
    """Says where an error of this package happened. What it knows already stays: the inner place counts."""
    try:
        yield
    except PixelReferError as error:
        error.set_place(**place)
        raise


@contextmanager
def refusing(kind: type[PixelReferError], what: str, note: str = "") -> Iterator[None]:
    """Says of whatever another library raises on data of others what it means: `what: the library's own words. note`.

    Errors of this package stay what they are, and so does what no data can be blamed for: too little memory, of the
    machine or of its accelerator, and an interruption by the user.

    Raises:
        kind: in place of the library's exception, which is its cause.
    """
    try:
        yield
    except (PixelReferError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # tokenizers' own panics are no Exceptions
        if type(error).__name__ == "OutOfMemoryError":
            raise
        text = text_of(error)
        said = text if isinstance(error, OSError | ValueError) and text else f"{type(error).__name__}: {text}"
        raise kind(f"{what}: {said.rstrip('.: ')}.{note}") from error


class PluginError(PixelReferError):
    """A plugin is unknown, broken, misspelt, claims a name that another one has, or does what it must not."""


class PluginCodeError(PluginError):
    """An exception of a plugin's code, other than an error of this package. `plugins.in_plugin` makes it.

    Attributes:
        cause: type and text of that exception, shortened.
    """

    cause = ""

    @classmethod
    def of(cls, exception: BaseException, plugin: str, step: str) -> PluginCodeError:
        """The error that says which plugin raised an exception in which step."""
        text = text_of(exception)
        cause = f"{type(exception).__name__}: {text}" if text else type(exception).__name__
        error = cls(f"{plugin[:1].upper()}{plugin[1:]} failed in {step}: {cause.rstrip('.')}.")
        error.plugin, error.step, error.cause = plugin, step, cause
        return error


class RegionError(PixelReferError):
    """A region is malformed, empty, or does not fit its image."""


class ImageError(PixelReferError):
    """A picture cannot be read."""


class VideoError(PixelReferError):
    """A video cannot be read, or a frame of it is not there."""


class FrameError(VideoError):
    """A video does not have a frame, or it was not sampled. The message names that frame itself, where it is known."""

    _names_frame = True


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
        if defects:
            rest = f" And {len(defects) - _MOST_DEFECTS:,} defects more." if len(defects) > _MOST_DEFECTS else ""
            told = " ".join(defect.message for defect in defects[:_MOST_DEFECTS])
            super().__init__(f"{sample_name(sample_id, where)}: {told}{rest}")
        else:  # torch's data loader makes a worker's error anew, from its traceback alone
            super().__init__(sample_id)
            sample_id = ""
        self.sample_id = sample_id
        self.where = where
        self.defects = tuple(defects)


def sample_name(sample_id: str, where: str) -> str:
    """What to call a sample at the start of a message: `train.jsonl line 12, sample 'street-1'`."""
    name = f"sample '{sample_id}'" if len(sample_id) <= _MOST_CHARACTERS else f"sample {shown(sample_id)}"
    return f"{where}, {name}" if where else name


class ConfigError(PixelReferError):
    """A training configuration has an unknown key, or a value that breaks a rule."""


class TrainingError(PixelReferError):
    """Training cannot start, or had to be stopped: the message names groups or samples."""


class EvaluationError(PixelReferError):
    """A measurement cannot be made: answers that do not fit their questions, or a tool that is missing."""


class JudgeError(EvaluationError):
    """A judge is missing, refuses, or does not answer; the message says how many answers are missing."""


DefectKind = Literal["format", "media", "size", "markers", "region", "answer", "too long", "plugin"]
"""What may be wrong with a sample: its record; a picture or video that cannot be read; one of another size than
the file says; more or fewer `<region>` and `<seg>` than regions, or a `<seg>` outside an answer; a region that is
empty, malformed or outside; no answer to learn from; more tokens than allowed; a plugin's code that fails on it."""


class Defect(NamedTuple):
    """One thing that is wrong with a sample; `message` reads on from `sample 'x': `."""

    kind: DefectKind
    message: str
