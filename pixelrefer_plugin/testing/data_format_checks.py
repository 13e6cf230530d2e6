"""Checks of a data format. Each raises `AssertionError` and says what is wrong.

They read an example file: the one that the format's `tiny` writes, or one that is given.
"""

from __future__ import annotations

import json
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ..contracts.data_format import DataFormatSpec
from ..contracts.samples import RecordPlace, RegionSample
from ..data.checks import defects_of
from ..data.dataset import RegionDataset
from ..data.records import peek
from ..data.schema import read_sample, write_record
from ..errors import DataError, PixelReferError, PluginCodeError, SampleError, shown, text_of
from ..plugins import get_data_format, in_plugin, list_data_formats
from .running import require_strict_config, run_check

_JUNK: tuple[Any, ...] = (None, True, -1, 2.5, "", "text", [], {}, [None], [[]], {"a": None}, [{"0": None}])
_MOST_ITEMS = 2  # of a list that is gone through, to put junk in


@dataclass(frozen=True, eq=False)
class FormatCase:
    """A data format and an example file of it.

    Attributes:
        spec: the format.
        path: of the file; its media are beside it.
        options: of the format.
    """

    spec: DataFormatSpec
    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, path: Path | None = None) -> RegionDataset:
        """The samples of the example, or of another file with the same media."""
        media_root = self.path.parent
        return RegionDataset.open(path or self.path, format=self.spec.name, options=self.options, media_root=media_root)


def check_data_format(name: str, *, path: str | Path | None = None, **options: Any) -> list[str]:
    """Run every check of a data format.

    Args:
        name: the data format, installed.
        path: an example file, with its media beside it; by default the format's `tiny` writes one. Give a small one,
            with two samples or more: it is read some hundred times.
        options: of the format.

    Returns:
        The names of the checks, all passed.

    Raises:
        AssertionError: the first check that fails, and what is wrong.
    """
    spec = get_data_format(name)
    with tempfile.TemporaryDirectory() as folder:
        example = _tiny(spec, Path(folder)) if path is None else Path(path)
        case = FormatCase(spec, example, options)
        return [run_check(check, case) for check in DATA_FORMAT_CHECKS]


def _tiny(spec: DataFormatSpec, folder: Path) -> Path:
    if spec.tiny is None:
        raise AssertionError(f"{spec.name}: there is no file to read: set DataFormatSpec.tiny, or give path=...")
    return spec.tiny(folder)


def options_are_strict(case: FormatCase) -> None:
    """The config is a frozen dataclass whose defaults keep its own rules; unknown options are refused by name."""
    require_strict_config(case.spec)


def its_own_file_is_recognised(case: FormatCase) -> None:
    """`recognises` says yes to the example, and those of no other installed format do; but for pickles and folders,
    whose format is not guessed."""
    first = _first_record(case.path)
    if first is None:
        return
    assert _says(case.spec, first), f"{case.spec.name}: recognises says no to its own file, {_short(first)}"
    others = [each.name for each in list_data_formats() if each.name != case.spec.name and _other_says(each, first)]
    assert not others, f"{case.spec.name}: its file is recognised by {', '.join(others)} as well"


def nothing_else_is_recognised(case: FormatCase) -> None:
    """`recognises` says no to an empty record and to the examples of all other installed formats. It says yes or no,
    and raises nothing, whatever stands in a record."""
    assert not _says(case.spec, {}), f"{case.spec.name}: recognises says yes to an empty record"
    for other in list_data_formats():
        if other.name != case.spec.name and other.tiny is not None:
            foreign = _record_of_other(other)
            recognised = foreign is not None and _says(case.spec, foreign)
            assert not recognised, f"{case.spec.name}: recognises says yes to a file of format '{other.name}'"
    for _, record in _with_junk(_first_record(case.path) or {}):
        _says(case.spec, record)


def reading_is_the_same_in_a_worker(case: FormatCase) -> None:
    """A dataset can be pickled, as data loaders do for their workers, before it is read as after; each copy gives the
    same samples."""
    dataset = case.open()
    fresh = pickle.loads(pickle.dumps(dataset))
    samples = _samples(dataset)
    for what, copied in (("before", fresh), ("after", pickle.loads(pickle.dumps(dataset)))):
        for index, (sample, again) in enumerate(zip(samples, _samples(copied), strict=True)):
            same = _parts(sample) == _parts(again)
            assert same, f"{case.spec.name}: sample {index} is another when pickled {what} it is read"


def the_length_is_true(case: FormatCase) -> None:
    """`__len__` is the number of samples, one or more: each below it can be read, from either end and again, and no
    other."""
    dataset = case.open()
    length = len(dataset)
    assert length >= 1, f"{case.spec.name}: the example has no samples"
    for index in range(length):
        one, again, other = (_parts(dataset[each]) for each in (index, index, index - length))
        assert one == again, f"{case.spec.name}: sample {index} is another when it is read again"
        assert one == other, f"{case.spec.name}: sample {index - length} is another than sample {index}"
    for index in (length, -length - 1):
        try:
            dataset[index]
        except IndexError:
            continue
        raise AssertionError(f"{case.spec.name}: of {length} samples there is a sample {index}")


def samples_can_be_learnt_from(case: FormatCase) -> None:
    """Every sample of the example is sound: its markers stand for its regions, its media can be opened and are of the
    size it says, its regions lie on them, its answers are not empty. It says where it was read, and can be written in
    this package's own schema."""
    for index, sample in enumerate(_samples(case.open())):
        about = f"{case.spec.name}: sample {index}"
        assert isinstance(sample, RegionSample), f"{about}: a {type(sample).__name__}, expected a RegionSample"
        assert sample.id, f"{about}: it has no id"
        assert sample.where, f"{about}: it does not say where it was read (RecordPlace.where)"
        defects = [defect.message for defect in defects_of(sample)]
        assert not defects, f"{about}, {sample.name}: {' '.join(defects)}"
        record = json.loads(json.dumps(write_record(sample, case.path.parent)))
        again = read_sample(record, RecordPlace(sample.where, index, case.path.parent))
        same = len(again.messages) == len(sample.messages) and len(again.regions) == len(sample.regions)
        assert same, f"{about}: it has other messages or regions when it is written in this package's schema"


def a_broken_record_harms_no_other(case: FormatCase) -> None:
    """Whatever stands in the place of any value of the file, opening it gives a `DataError`, or each sample is read or
    gives a `SampleError` with its id, its place and what is wrong; the samples that are not about that value are read.
    Files of JSON are broken, others are not tried."""
    content = _json_of(case.path)
    if content is None:
        return
    num_errors, num_survivors = 0, 0
    with _beside(case.path) as folder:
        for what, broken in _with_junk(content):
            path = folder / f"broken{case.path.suffix}"
            path.write_text(_as_text(broken, as_lines=_is_lines(case.path)), encoding="utf-8")
            errors, survivors = _outcomes(case, path, what)
            num_errors += errors * ("][" in what)  # one that is no record at all is the host's to refuse
            num_survivors += survivors * bool(errors)
    assert num_errors, f"{case.spec.name}: whatever stands in a record, there is never a SampleError"
    alone = len(case.open()) == 1
    assert num_survivors or alone, f"{case.spec.name}: one broken record keeps all others from being read"


def what_is_not_there_is_a_data_error(case: FormatCase) -> None:
    """A file that is not there is refused with a `DataError`; so is an empty folder, unless the format takes it."""
    with tempfile.TemporaryDirectory() as folder:
        for path in (Path(folder) / f"gone{case.path.suffix}", Path(folder)):
            try:
                case.open(path)
            except DataError:
                continue
            except Exception as error:
                raise AssertionError(f"{case.spec.name}: {_shown(error)} for '{path}', expected a DataError") from error
            assert path.is_dir(), f"{case.spec.name}: a file that is not there is opened"


DATA_FORMAT_CHECKS: tuple[Callable[[FormatCase], None], ...] = (
    options_are_strict,
    its_own_file_is_recognised,
    nothing_else_is_recognised,
    reading_is_the_same_in_a_worker,
    the_length_is_true,
    samples_can_be_learnt_from,
    a_broken_record_harms_no_other,
    what_is_not_there_is_a_data_error,
)


def _says(spec: DataFormatSpec, record: Mapping[str, Any]) -> bool:
    """What `recognises` says of a record."""
    try:
        said = spec.recognises(record)
    except Exception as error:
        raise AssertionError(f"{spec.name}: recognises raises {_shown(error)} for {_short(record)}") from error
    assert isinstance(said, bool), (
        f"{spec.name}: recognises says {shown(said)}, expected True or False, of {_short(record)}"
    )
    return said


def _other_says(spec: DataFormatSpec, record: Mapping[str, Any]) -> bool:
    """What another format than the checked one says; no, where its code fails: that is not the checked one's fault."""
    try:
        with in_plugin("data format", spec.name, "recognises"):
            return bool(spec.recognises(record))
    except PixelReferError:
        return False


def _record_of_other(spec: DataFormatSpec) -> Mapping[str, Any] | None:
    """The first record of another format's example; None where it has none, or its code fails."""
    assert spec.tiny is not None
    try:
        with tempfile.TemporaryDirectory() as folder, in_plugin("data format", spec.name, "tiny"):
            return _first_record(spec.tiny(Path(folder)))
    except PixelReferError:
        return None


def _first_record(path: Path) -> Mapping[str, Any] | None:
    """What tells a file's format; None of a pickle or a folder."""
    try:
        return peek(path)
    except DataError:
        return None


def _samples(dataset: RegionDataset) -> list[RegionSample]:
    return [dataset[index] for index in range(len(dataset))]


def _parts(sample: RegionSample) -> tuple[Any, ...]:
    """What two readings of a sample have in common."""
    return sample.id, sample.messages, sample.regions, sample.where, sample.media_hw


def _outcomes(case: FormatCase, path: Path, what: str) -> tuple[int, int]:
    """How many samples of a broken file cannot be used, and how many can."""
    try:
        dataset = case.open(path)
        outcomes = [_outcome(dataset, index) for index in range(len(dataset))]
    except SampleError as error:
        raise AssertionError(f"{case.spec.name}: {what}: no sample can be read, for one is broken: {error}") from error
    except DataError:
        return 0, 0
    except Exception as error:
        raise AssertionError(f"{case.spec.name}: {what}: {_shown(error)}, expected a SampleError") from error
    errors = [each for each in outcomes if isinstance(each, SampleError)]
    for each in errors:
        cause = each.__cause__
        if isinstance(cause, PluginCodeError):
            raise AssertionError(f"{case.spec.name}: {what}: {cause.cause}, expected a SampleError") from cause
        has_place = bool(each.where and each.sample_id and each.defects)
        assert has_place, f"{case.spec.name}: {what}: the error does not say its id, place and defects: {each}"
    return len(errors), len(outcomes) - len(errors)


def _outcome(dataset: RegionDataset, index: int) -> RegionSample | SampleError:
    try:
        return dataset[index]
    except SampleError as error:
        return error


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A folder with all that lies beside a file, where others like it can be written."""
    with tempfile.TemporaryDirectory() as folder:
        for each in path.parent.iterdir():
            (Path(folder) / each.name).symlink_to(each.absolute())
        yield Path(folder)


def _json_of(path: Path) -> Any:
    """What a file of JSON or JSON Lines holds; None of another, or of a folder."""
    try:
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()] if _is_lines(path) else json.loads(text)
    except (OSError, ValueError):
        return None


def _is_lines(path: Path) -> bool:
    """Whether there is a value on each line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return all(isinstance(json.loads(line), dict) for line in lines)
    except ValueError:
        return False


def _as_text(content: Any, *, as_lines: bool) -> str:
    return "".join(f"{json.dumps(each)}\n" for each in content) if as_lines else json.dumps(content)


def _with_junk(value: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Copies of a value with junk in place of one of those in it, and which that is."""
    inside: Mapping[Any, Any] = value if isinstance(value, Mapping) else dict(enumerate(value))
    for key, each in islice(inside.items(), None if isinstance(value, Mapping) else _MOST_ITEMS):
        for junk in _JUNK:
            yield f"{where}[{key!r}] = {junk!r}", _replaced(value, key, junk)
        if isinstance(each, dict | list):
            for what, changed in _with_junk(each, f"{where}[{key!r}]"):
                yield what, _replaced(value, key, changed)


def _replaced(value: Any, key: Any, new: Any) -> Any:
    return {**value, key: new} if isinstance(value, Mapping) else [*value[:key], new, *value[key + 1 :]]


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {text_of(error)}"


def _short(record: Mapping[str, Any]) -> str:
    return shown(dict(record), 200)
