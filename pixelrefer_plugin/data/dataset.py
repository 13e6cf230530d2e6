"""`RegionDataset` and `MixedDataset`: training samples by number, read when they are asked for.

They know data formats by name only, and neither pictures nor models.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from .. import plugins
from ..contracts.data_format import DataFormatSpec, SampleFile, told_left_out
from ..contracts.samples import (
    MEDIA_KINDS,
    SAMPLE_FAULTS,
    RecordPlace,
    RecordUse,
    RegionSample,
    files_of,
    require_below,
)
from ..errors import DataError, Defect, ImageError, PixelReferError, PluginError, SampleError, shown
from ..files import require_path
from .records import JsonRecords, peek

_MOST_KEYS = 20  # of a record that a message has


class _SamplesByIndex:
    """What a data loader asks of a map-style dataset. Subclasses say `__len__` and `_sample`."""

    name: str

    def __len__(self) -> int:
        raise NotImplementedError

    def _sample(self, index: int) -> RegionSample:
        raise NotImplementedError

    def media(self, index: int) -> list[str | os.PathLike[str]]:
        """The files that sample `index` shows, without reading more of it than that takes.

        Raises:
            SampleError: it cannot be used.
        """
        return self[index].paths

    def __getitem__(self, index: int) -> RegionSample:
        """Sample `index`.

        Raises:
            SampleError: it cannot be used.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples: there is no sample {index}.")
        return self._sample(int(index) % len(self))

    def __iter__(self) -> Iterator[RegionSample]:
        return (self[index] for index in range(len(self)))

    def __getitems__(self, indices: Sequence[int]) -> list[RegionSample | SampleError]:
        """Several samples at once, as torch's data loader asks for a batch; one that cannot be used is its error."""
        return [self._sample_or_error(index) for index in indices]

    def _sample_or_error(self, index: int) -> RegionSample | SampleError:
        try:
            return self[index]
        except SampleError as error:
            return error


def files_shown(dataset: Any, index: int) -> list[str | os.PathLike[str]]:
    """The files of a sample of any dataset: as its `media` says, or by reading the sample where it has none."""
    known = getattr(dataset, "media", None)
    return dataset[index].paths if known is None else list(known(index))


class RegionDataset(_SamplesByIndex):
    """The samples of one file, or of rows in memory, in their order. Made by `open` or `from_rows`.

    Attributes:
        format: name of the data format.
        name: what to call it in messages and reports.
    """

    def __init__(self, samples: SampleFile, *, format: str, name: str) -> None:
        self._samples = samples
        self.format = format
        self.name = name

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        *,
        format: str = "auto",
        media_root: str | os.PathLike[str] | None = None,
        strict_media: bool = False,
        options: Mapping[str, Any] | Any | None = None,
        use: RecordUse = "learn",
    ) -> RegionDataset:
        """The samples of a file. Nothing is parsed until it is asked for, unless the format needs the whole file.

        Args:
            path: of the file.
            format: name of a data format; `auto` asks the installed ones which of them recognises the file.
            media_root: folder that relative media paths are below; by default the file's own.
            strict_media: refuse samples whose media paths lead out of that folder: absolute ones, and those that do so
                by `..` or a symbolic link. Give it for files of people whom you do not trust.
            options: of the format.
            use: what the samples are for: `learn`, `ask` (samples may end with a message of the user) or `regions`
                (messages are passed over). Formats that read whole files make answers themselves, and do not ask.

        Raises:
            DataError: the file cannot be read, or its format is not known for certain.
            PluginError: no data format is called so.
        """
        require_path(path, DataError)
        path = Path(path)
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise DataError(f"'{path}' is no regular file, so it is read once only. Write it to one first.")
        first = peek(path) if format == "auto" else {}
        spec = _recognised(first, f"'{path}'") if format == "auto" else plugins.get_data_format(format)
        config = _config_of(spec, options)
        root = _media_root(path.parent if media_root is None else media_root)
        if spec.open_file is not None:
            with _in_format(spec.name, "open_file"):
                file = spec.open_file(config, path, root)
                _require_readable(file, spec.name)
            checked = _CheckedFile(file, spec.name, path.name, root if strict_media else None)
            dataset = cls(checked, format=spec.name, name=path.name)
            dataset._require_samples()
            return dataset
        records = _Records(JsonRecords(path), spec, config, root, strict_media=strict_media, use=use)
        return cls(records, format=spec.name, name=path.name)

    @classmethod
    def from_rows(
        cls,
        rows: Any,
        *,
        format: str = "regions",
        media_root: str | os.PathLike[str] = ".",
        strict_media: bool = False,
        options: Mapping[str, Any] | Any | None = None,
        name: str = "row",
    ) -> RegionDataset:
        """The samples of rows in memory: a list of dicts, or one split of a Hugging Face dataset.

        Args:
            rows: anything with a length whose items are mappings.
            format: as for `open`; one that reads its file as a whole cannot read rows.
            media_root: folder that relative media paths are below.
            strict_media: as for `open`.
            options: of the format.
            name: what a row is called in messages, before its index.

        Raises:
            DataError: these are no such rows, or not of this format.
            PluginError: no data format is called so.
        """
        if isinstance(rows, Mapping | str | bytes) or not (hasattr(rows, "__getitem__") and hasattr(rows, "__len__")):
            splits = f" Take one of its splits: {', '.join(map(str, rows))}." if isinstance(rows, Mapping) else ""
            raise DataError(
                f"Rows must have a length and be read by index, as a list or a datasets.Dataset, "
                f"got {type(rows).__name__}.{splits}"
            )
        if not len(rows):
            raise DataError("There are no rows: expected one or more.")
        spec = _recognised(rows[0], "rows") if format == "auto" else plugins.get_data_format(format)
        if spec.read_record is None:
            raise DataError(f"Data format '{spec.name}' reads whole files, not rows. Use RegionDataset.open.")
        config, root = _config_of(spec, options), _media_root(media_root)
        records = _Records(_Rows(rows, name), spec, config, root, strict_media=strict_media)
        return cls(records, format=spec.name, name=f"{name}s")

    def __len__(self) -> int:
        return len(self._samples)

    @property
    def left_out(self) -> Mapping[str, int]:
        """How many entries of the file make no sample, by the reason; the reason names the option that keeps them.

        Empty where the format leaves out nothing, or does not say.
        """
        return _left_out(self._samples)

    @property
    def left_out_text(self) -> str:
        """That for people, `2 left out, iscrowd (skip_crowd=false keeps them)`; empty where nothing is left out."""
        return told_left_out(self.left_out)

    def _sample(self, index: int) -> RegionSample:
        return self._samples[index]

    def media(self, index: int) -> list[str | os.PathLike[str]]:
        """As of any dataset; a format may know them before it reads the sample."""
        return files_shown(self._samples, index)

    def _require_samples(self) -> None:
        if not len(self) and self.left_out:
            raise DataError(
                f"{self.name} has no samples: {self.left_out_text}. Check the options of format '{self.format}'."
            )


def _left_out(file: SampleFile) -> dict[str, int]:
    """What a format says that it left out, as far as it can be understood."""
    said = getattr(file, "left_out", None)
    counts = said.items() if isinstance(said, Mapping) else ()
    return {str(reason): int(count) for reason, count in counts if isinstance(count, int | np.integer) and count > 0}


class MixedDataset(_SamplesByIndex):
    """Several datasets as one, each so many times per epoch; one after another, in their own order.

    Args:
        parts: datasets and their weights, in passes per epoch: 2 has every sample twice; 0.25 a quarter of the samples,
            drawn by `seed` once and for all.
        seed: of that draw.

    Raises:
        DataError: no part, or a weight that is not a number > 0 or leaves nothing of its dataset.
    """

    format = "mixed"

    def __init__(self, parts: Sequence[tuple[Any, float]], *, seed: int = 0) -> None:
        if not parts:
            raise DataError("A mixture needs one dataset or more, got none.")
        self.datasets = tuple(dataset for dataset, _ in parts)
        self.weights = tuple(_checked_weight(weight, dataset) for dataset, weight in parts)
        self._drawn = [
            _drawn(len(dataset), weight % 1, np.random.default_rng([seed, number]))
            for number, (dataset, weight) in enumerate(parts)
        ]
        lengths = [
            math.floor(weight) * len(dataset) + len(drawn)
            for dataset, weight, drawn in zip(self.datasets, self.weights, self._drawn, strict=True)
        ]
        for dataset, weight, length in zip(self.datasets, self.weights, lengths, strict=True):
            if not length:
                raise DataError(f"Weight {weight:g} leaves no sample of {dataset.name}, which has {len(dataset)}.")
        self._ends = list(accumulate(lengths))

    @property
    def name(self) -> str:  # type: ignore[override]
        """The names of its parts with their weights."""
        pairs = zip(self.weights, self.datasets, strict=True)
        return " + ".join(f"{weight:g} x {dataset.name}" for weight, dataset in pairs)

    def __len__(self) -> int:
        return self._ends[-1]

    def _sample(self, index: int) -> RegionSample:
        dataset, chosen = self._place(index)
        sample: RegionSample = dataset[chosen]
        return sample

    def media(self, index: int) -> list[str | os.PathLike[str]]:
        """As of the dataset that has the sample."""
        dataset, chosen = self._place(index)
        return files_shown(dataset, chosen)

    def _place(self, index: int) -> tuple[Any, int]:
        """The dataset that has a sample, and its number there."""
        number = bisect_right(self._ends, index)
        dataset = self.datasets[number]
        within = index - (self._ends[number - 1] if number else 0)
        whole_passes = math.floor(self.weights[number]) * len(dataset)
        chosen = within % len(dataset) if within < whole_passes else self._drawn[number][within - whole_passes]
        return dataset, int(chosen)


def _checked_weight(weight: Any, dataset: Any) -> float:
    is_number = isinstance(weight, int | float | np.number) and not isinstance(weight, bool)
    if not is_number or not 0 < weight < math.inf:
        raise DataError(
            f"The weight of {dataset.name} must be a number > 0 of passes per epoch, got {shown(weight)}. "
            "Leave out what shall not be used."
        )
    return float(weight)


def _drawn(length: int, share: float, generator: np.random.Generator) -> np.ndarray:
    """A share of the numbers below `length`, ascending."""
    return np.sort(generator.choice(length, round(share * length), replace=False))


# -- records -----------------------------------------------------------------------------------------------


class _Rows:
    """Rows in memory, as `JsonRecords` is those of a file."""

    def __init__(self, rows: Any, name: str) -> None:
        self._rows = rows
        self._name = name

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        try:
            return self._rows[index]
        except (OSError, SyntaxError, ValueError) as error:  # Hugging Face decodes a row's pictures when it is read
            defect = Defect("media", f"it cannot be read: {error}.")
            raise SampleError(str(index), self.where(index), [defect]) from error

    def where(self, index: int) -> str:
        return f"{self._name} {index}"


class _Records:
    """A `SampleFile` of records that are read one by one."""

    def __init__(
        self,
        records: JsonRecords | _Rows,
        spec: DataFormatSpec,
        config: Any,
        media_root: Path,
        *,
        strict_media: bool,
        use: RecordUse = "learn",
    ) -> None:
        self._records = records
        self._spec = spec
        self._config = config
        self._media_root = media_root
        self._strict_media = strict_media
        self._use = use

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> RegionSample:
        place = RecordPlace(self._records.where(index), index, self._media_root, self._strict_media, self._use)
        record = self._records[index]
        if not isinstance(record, Mapping):
            kind = type(record).__name__
            raise place.error(str(index), [Defect("format", f"it must be a JSON object, got a {kind}.")])
        assert self._spec.read_record is not None
        with _as_defects(place, self._spec.name, "read_record"):
            sample = _checked_sample(self._spec.read_record(self._config, record, place), self._spec.name)
        return _required_below(sample, self._media_root) if self._strict_media else sample

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_spec": self._spec.name}  # a spec may hold functions that cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _spec=plugins.get_data_format(state["_spec"]))


class _CheckedFile:
    """A `SampleFile` of a data format, whatever its code raises.

    Args:
        file: that.
        format: the format's name.
        name: the file's.
        strict_root: folder that media must be below; None where they may be anywhere.
    """

    def __init__(self, file: SampleFile, format: str, name: str, strict_root: Path | None) -> None:
        self._file = file
        self._format = format
        self._name = name
        self._strict_root = strict_root

    def __len__(self) -> int:
        with _in_format(self._format, "__len__"):
            return len(self._file)

    @property
    def left_out(self) -> Mapping[str, int]:
        with _in_format(self._format, "left_out"):
            return _left_out(self._file)

    def media(self, index: int) -> list[str | os.PathLike[str]]:
        if not hasattr(self._file, "media") or self._strict_root is not None:  # to which a sample is held when read
            return self[index].paths
        with _as_defects(RecordPlace(self._name, index, Path()), self._format, "media"):
            return files_shown(self._file, index)

    def __getitem__(self, index: int) -> RegionSample:
        with _as_defects(RecordPlace(self._name, index, Path()), self._format, "__getitem__"):
            sample = _checked_sample(self._file[index], self._format)
        return sample if self._strict_root is None else _required_below(sample, self._strict_root)


def _required_below(sample: RegionSample, media_root: Path) -> RegionSample:
    """The sample, if all its pictures and videos are below the media root, whatever format has read it."""
    defects = []
    for kind in MEDIA_KINDS:
        for index, part in enumerate(sample.media(kind)):
            try:
                for path in files_of(part[kind]):
                    require_below(path, media_root)
            except ImageError as error:
                defects.append(Defect("media", f"{kind} {index}: {error}"))
    if defects:
        raise sample.error(*defects)
    return sample


def _config_of(spec: DataFormatSpec, options: Any) -> Any:
    with _in_format(spec.name, "config"):
        return spec.make_config(options)


def _require_readable(file: Any, format: str) -> None:
    """Refuse what a format gives in place of a `SampleFile`; within `in_plugin`."""
    missing = [method for method in ("__len__", "__getitem__") if not hasattr(type(file), method)]
    if missing or isinstance(file, str | bytes):
        raise PluginError(
            f"Data format '{format}' must return an object of samples with __len__ and __getitem__ from open_file, got "
            f"a {type(file).__name__}{f' without {missing[0]}' if missing else ''}. Report it to its author."
        )


def _in_format(name: str, step: str) -> AbstractContextManager[None]:
    return plugins.in_plugin("data format", name, step)


@contextmanager
def _as_defects(place: RecordPlace, format: str, step: str) -> Iterator[None]:
    """Makes a `SampleError` of what a data format says of one sample, and of an exception of its code."""
    try:
        with _in_format(format, step):
            yield
    except SAMPLE_FAULTS as fault:
        raise place.blamed(fault) from fault


def _checked_sample(sample: Any, format: str) -> RegionSample:
    if not isinstance(sample, RegionSample):
        raise PluginError(f"Data format '{format}' must read a RegionSample, got {shown(sample)}.")
    if problem := sample.problem:
        raise PluginError(f"Data format '{format}' reads a RegionSample whose {problem}. Report it to its author.")
    return sample


def _recognised(first: Any, subject: str) -> DataFormatSpec:
    """The one installed format that recognises a record."""
    installed = plugins.list_data_formats()
    failures: list[PixelReferError] = []
    found = [spec for spec in installed if isinstance(first, Mapping) and _recognises(spec, first, failures)]
    for failure in failures:
        told = " ".join(filter(None, [str(failure), failure.origin]))
        plugins.warn_once(f"{told} The format is passed over; to use it, name it.")
    if len(found) == 1:
        return found[0]
    names = ", ".join(spec.name for spec in found or installed) or "none"
    keys = ", ".join(map(shown, [*first][:_MOST_KEYS])) if isinstance(first, Mapping) else "none, it is no object"
    how_many = f"More than one data format recognises {subject}" if found else f"No data format recognises {subject}"
    raise DataError(
        f"{how_many}: {names}{'' if found else ' are installed'}. The keys of its first record: {keys}. "
        "Say which it is with format=... (--format), or write the format down in a plugin: docs/plugins.md."
        + "".join(f" {failure}" for failure in failures)
        + plugins.failure_notes()
    )


def _recognises(spec: DataFormatSpec, first: Mapping[str, Any], failures: list[PixelReferError]) -> bool:
    """Whether a format takes a record for its own; one whose code fails on it, which is noted, does not."""
    try:
        with _in_format(spec.name, "recognises"):
            return bool(spec.recognises(first))
    except PixelReferError as error:
        failures.append(error)
        return False


def _media_root(folder: str | os.PathLike[str]) -> Path:
    require_path(folder, DataError)
    path = Path(os.path.abspath(folder))
    if not path.is_dir():
        raise DataError(f"media_root must be a folder that is there, got '{folder}'.")
    return path
