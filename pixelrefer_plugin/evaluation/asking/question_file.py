"""`FileQuestions`: what is asked of the samples of data files, read when it is asked for.

It knows data formats by name only, and no model.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

from ...contracts.messages import MASK_MARKER, REGION_MARKER, asked, marker_kinds
from ...contracts.questions import Question
from ...contracts.samples import RecordUse, RegionSample
from ...data.dataset import RegionDataset
from ...errors import DataError, EvaluationError, PixelReferError, SampleError, counted, shown
from .engine import require_askable
from .questions import UniqueIds, questions_of, region_questions

_SUFFIXES = (".json", ".jsonl")


@dataclass(frozen=True)
class Asking:
    """What is asked about a sample.

    Attributes:
        prompt: a text with one `<region>`, asked about each region of each sample in place of the file's own questions;
            None: those are asked.
        segment: whether every question asks for masks; else those whose answer in the file has masks do.

    Raises:
        EvaluationError: the prompt has not one `<region>`.
    """

    prompt: str | None = None
    segment: bool = False

    def __post_init__(self) -> None:
        if self.prompt is not None and marker_kinds([asked(self.prompt)]) != [REGION_MARKER]:
            raise EvaluationError(
                f"The prompt must have one {REGION_MARKER} and no {MASK_MARKER}: it is asked about each region alone. "
                f"Got {shown(self.prompt)}."
            )

    @property
    def use(self) -> RecordUse:
        """What samples are read for."""
        return "ask" if self.prompt is None else "regions"

    def of(self, sample: RegionSample) -> Iterator[Question]:
        """The questions about a sample.

        Raises:
            PromptError: one asks for masks, but not clearly of which picture or video.
        """
        if self.prompt is not None:
            found = region_questions(sample, self.prompt, segment=self.segment)
        else:
            found = (replace(each, segment=True) if self.segment else each for each in questions_of(sample))
        for question in found:
            require_askable(question)
            yield question


class FileQuestions(Sequence[Question]):
    """The questions of several datasets, one after another, under unique ids.

    Every sample is read once when this is made, to count its questions; afterwards only when its questions are asked
    for. A sample that cannot be used is an error at once, or counts as one question, whose reading raises its error.

    Args:
        datasets: their samples.
        asking: what is asked about each.
        on_bad_sample: whether a sample that cannot be used is an error at once.
        limit: so many samples at most, the first.
        progress: called after each sample that was read.

    Raises:
        SampleError: a sample cannot be used, and `on_bad_sample` is `error`.
        EvaluationError: there is no question.

    Attributes:
        names: of the datasets.
    """

    def __init__(
        self,
        datasets: Sequence[RegionDataset],
        asking: Asking | None = None,
        *,
        on_bad_sample: Literal["error", "skip"] = "error",
        limit: int | None = None,
        progress: Callable[[], None] = lambda: None,
    ) -> None:
        self._datasets = datasets
        self._asking = Asking() if asking is None else asking
        self._starts = [0, *accumulate(map(len, datasets))]
        self._new_ids: dict[int, str] = {}
        self._latest: tuple[int, list[Question]] = (-1, [])
        self.names = tuple(dataset.name for dataset in datasets)
        number = self._starts[-1] if limit is None else min(limit, self._starts[-1])
        self._ends = list(accumulate(self._counted(number, on_bad_sample, progress)))
        if not len(self):
            raise EvaluationError(self._why_none())

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        """Question `index`.

        Raises:
            SampleError: its sample cannot be used; the error has the question's id.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"There are {len(self)} questions: there is no question {index}.")
        index = int(index) % len(self)
        sample = bisect_right(self._ends, index)
        first = self._ends[sample - 1] if sample else 0
        try:
            question = self._questions(sample)[index - first]
        except SampleError as error:
            raise SampleError(self._new_ids.get(index, error.sample_id), error.where, error.defects) from error
        return replace(question, id=self._new_ids[index]) if index in self._new_ids else question

    def _counted(
        self, number: int, on_bad_sample: Literal["error", "skip"], progress: Callable[[], None]
    ) -> Iterator[int]:
        """How many questions each sample has; notes new ids where others have theirs."""
        unique, position = UniqueIds(), 0
        for sample in range(number):
            try:
                ids = [question.id for question in self._questions(sample)]
            except SampleError as error:
                if on_bad_sample == "error":
                    raise
                ids = [error.sample_id]
            for id in ids:
                if (new := unique.of(id)) != id:
                    self._new_ids[position] = new
                position += 1
            progress()
            yield len(ids)

    def _questions(self, sample: int) -> list[Question]:
        """Those about a sample, by its number among all; the latest are kept."""
        if self._latest[0] != sample:
            part = bisect_right(self._starts, sample) - 1
            read = self._datasets[part][sample - self._starts[part]]
            try:
                self._latest = sample, list(self._asking.of(read))
            except PixelReferError as error:
                raise read.blamed(error) from error
        return self._latest[1]

    def _why_none(self) -> str:
        what = "no region to ask about" if self._asking.prompt is not None else "no question that a text answers"
        return f"{', '.join(map(shown, self.names))}: {counted(len(self._ends), 'sample')}, but {what}."


# -- files -------------------------------------------------------------------------------------------------


def data_files(paths: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The paths, in place of each folder the JSON files directly in it, by name.

    Raises:
        DataError: a folder has none, or a file is named twice.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(each for each in path.iterdir() if each.suffix in _SUFFIXES and each.is_file())
        if not inside:
            raise DataError(f"Folder '{path}' has no data file: expected names that end in {' or '.join(_SUFFIXES)}.")
        found += inside
    repeated = [path for path, times in Counter(each.resolve() for each in found).items() if times > 1]
    if repeated:
        raise DataError(f"'{repeated[0]}' is named more than once. Its questions would be asked twice: name it once.")
    return found


def open_files(
    paths: Sequence[str | os.PathLike[str]],
    *,
    format: str = "auto",
    media_root: str | os.PathLike[str] | None = None,
    strict_media: bool = False,
    options: Mapping[str, Any] | Any | None = None,
    use: RecordUse = "ask",
) -> list[RegionDataset]:
    """The samples of files, and of the data files in folders. The arguments are those of `RegionDataset.open`.

    Raises:
        DataError: a file cannot be read, or its format is not known for certain.
    """
    opened = []
    for path in data_files(paths):
        try:
            opened.append(
                RegionDataset.open(
                    path, format=format, media_root=media_root, strict_media=strict_media, options=options, use=use
                )
            )
        except DataError as error:
            if path in map(Path, paths):
                raise
            raise DataError(
                f"Folder '{path.parent}' was named, but not all of it can be read. Name the data files in it. {error}"
            ) from error
    return opened
