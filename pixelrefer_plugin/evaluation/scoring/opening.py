"""Opens a benchmark by its name, or a user's own file by its path: its files found, its options made, its questions
checked.

It knows the contract of benchmarks and where users keep their files; no benchmark and no model.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

from ...contracts.benchmark import BenchmarkFile, BenchmarkSpec
from ...contracts.questions import Question
from ...errors import DataError, EvaluationError, PluginError, counted, shown
from ...files import require_path
from ...plugins import Kind, get_benchmark, host, in_plugin
from .own_file import own_benchmark

FOLDER_VARIABLE = "PIXELREFER_BENCHMARKS"
"""Environment variable: the folder with a folder for each benchmark, where no other is given."""

_KIND: Kind = "benchmark"
_FILE_SUFFIXES = (".json", ".jsonl", ".ndjson")
_PICTURES = "images"  # the option that says where pictures are, where a benchmark has it


class OpenBenchmark(NamedTuple):
    """A benchmark that can be asked.

    Attributes:
        spec: the benchmark, or what stands for a user's own file.
        config: its options.
        questions: what it asks; read when they are looked at.
    """

    spec: BenchmarkSpec
    config: Any
    questions: Sequence[Question]

    @property
    def asked_of(self) -> int | None:
        """How many questions the benchmark has, where only the first of them are asked; else None."""
        every = self.questions.every if isinstance(self.questions, _Questions) else len(self.questions)
        return every if every > len(self.questions) else None


def open_benchmark(
    name: str,
    data_root: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    limit: int | None = None,
) -> OpenBenchmark:
    """A benchmark with its questions.

    Args:
        name: of an installed benchmark; `NAME=DIR` where its folder is called otherwise; or the path of a data file of
            one's own.
        data_root: the folder with a folder for each benchmark, called by its name; by default that of the environment
            variable `PIXELREFER_BENCHMARKS`.
        options: of the benchmark.
        limit: only so many questions, the first.

    Raises:
        PluginError: no benchmark is called so; the message has the nearest name.
        DataError: files are missing, all of them named, or one cannot be read; two questions have one id.
        EvaluationError: it has no questions, or it is not known where its files are.
    """
    if is_own_file(name):
        require_path(name, DataError)
        if not Path(name).exists():
            raise DataError(f"There is no data file '{name}'. A benchmark is given by its name alone.")
        spec, config, own = own_benchmark(Path(name), options)
        return OpenBenchmark(spec, config, _Questions(spec.name, own, limit))
    called, _, folder = name.partition("=")
    spec = get_benchmark(called)
    with in_plugin(_KIND, spec.name, "config"):
        config = spec.make_config(options)
    where = Path(folder) if folder else _folder(spec, data_root)
    _require_files(spec, config, where)
    with in_plugin(_KIND, spec.name, "open"):
        found = spec.open(config, where)
    if not isinstance(found, Sequence) or isinstance(found, str | bytes):
        raise PluginError(
            f"Benchmark '{spec.name}' must return a sequence of questions from open, got {shown(found)}. Report it to "
            "its author."
        )
    return OpenBenchmark(spec, config, _Questions(spec.name, found, limit))


def is_own_file(name: str) -> bool:
    """Whether a name means a file of the user's; one that a benchmark has means that benchmark."""
    if name.partition("=")[0] in host().names(_KIND):
        return False
    is_written_as_path = os.sep in name or name.endswith(_FILE_SUFFIXES)
    return "=" not in name and (is_written_as_path or os.path.exists(name))


# -- files -------------------------------------------------------------------------------------------------


def _folder(spec: BenchmarkSpec, data_root: str | os.PathLike[str] | None) -> Path:
    root = data_root or os.environ.get(FOLDER_VARIABLE)
    if not root:
        raise EvaluationError(
            f"It is not known where the files of benchmark '{spec.name}' are. Give --data DIR, the folder that holds a "
            f"folder '{spec.name}'; or {spec.name}=DIR; or set {FOLDER_VARIABLE}. It reads:{_listed(spec.files)}"
        )
    return Path(root) / spec.name


def _require_files(spec: BenchmarkSpec, config: Any, folder: Path) -> None:
    """Refuse a folder without the files that a benchmark reads, all of them named."""
    require_path(folder, DataError)
    missing = [
        file
        for file in spec.files
        if not file.optional and not (folder / file.path).exists() and not _is_elsewhere(file, config)
    ]
    if not missing:
        return
    there = "" if folder.is_dir() else " There is no such folder."
    raise DataError(
        f"Benchmark '{spec.name}' lacks {len(missing)} of {counted(len(spec.files), 'file')} in '{folder}'.{there} "
        f"Missing:{_listed(missing)} Put them there, or say where they are: --data DIR, or {spec.name}=DIR."
    )


def _is_elsewhere(file: BenchmarkFile, config: Any) -> bool:
    """Whether it is a folder of pictures, and an option says where these are."""
    default = {field.name: field.default for field in dataclasses.fields(config)}.get(_PICTURES)
    return not Path(file.path).suffix and getattr(config, _PICTURES, default) != default


def _listed(files: Sequence[BenchmarkFile]) -> str:
    return "".join(f" '{file.path}' ({file.about.rstrip('.')})." for file in files) or " none."


# -- questions ---------------------------------------------------------------------------------------------


class _Questions(Sequence[Question]):
    """The questions of a benchmark, each read when it is looked at, whatever the benchmark's code does.

    Args:
        name: of the benchmark.
        questions: as the benchmark gives them.
        limit: only so many, the first.

    Raises:
        DataError: two have one id.
        EvaluationError: there are none.

    Attributes:
        every: how many there are without the limit.
    """

    def __init__(self, name: str, questions: Sequence[Question], limit: int | None) -> None:
        self._name = name
        self._questions = questions
        with in_plugin(_KIND, name, "len"):
            found = len(questions)
        self.every = found
        self._count = found if limit is None else min(limit, found)
        if not self._count:
            raise EvaluationError(f"Benchmark '{name}' has no questions. Check its files and options.")
        self._require_own_ids()

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Question: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Question]: ...
    def __getitem__(self, index: int | slice) -> Question | Sequence[Question]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(f"there are {self._count} questions, no question {index}")
        with in_plugin(_KIND, self._name, f"question {index % self._count}"):
            question = self._questions[index % self._count]
        if not isinstance(question, Question) or not isinstance(question.id, str) or not question.id:
            raise PluginError(
                f"Benchmark '{self._name}' must give Questions with an id, got {shown(question)} for question "
                f"{index % self._count}. Report it to its author."
            )
        return question

    def __iter__(self) -> Iterator[Question]:
        return (self[index] for index in range(self._count))

    def _require_own_ids(self) -> None:
        first: dict[str, int] = {}
        for index, question in enumerate(self):
            if question.id in first:
                raise DataError(
                    f"Benchmark '{self._name}': questions {first[question.id]} and {index} both have the id "
                    f"{shown(question.id)}{_place(question)}, so that no answer could be told for which of them it is."
                )
            first[question.id] = index


def _place(question: Question) -> str:
    return f" ({question.asked.where})" if question.asked.where else ""
