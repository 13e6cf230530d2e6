"""Benchmarks that a training asks its model: opened and checked before the first step, asked while it trains and at the
end, reported with the run.

It knows benchmarks, processes and judges; no trainer and no configuration file.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from accelerate.utils import broadcast_object_list

from ..contracts.questions import Answer, Question
from ..errors import ConfigError, PixelReferError, text_of
from ..evaluation.asking.engine import ModelEngine, require_askable
from ..evaluation.asking.shares import ask_in_shares, ready_to_answer
from ..evaluation.judging import Judge, ScoringTools
from ..evaluation.predicting.answer_file import answer_line
from ..evaluation.predicting.processes import is_first_process
from ..evaluation.reports.page import save_page
from ..evaluation.reports.report import BenchmarkReport, Report
from ..evaluation.reports.text import without_secrets
from ..evaluation.scoring.measuring import ANSWERS_FILE, Scorer, require_needs
from ..evaluation.scoring.opening import OpenBenchmark, open_benchmark
from .report import write_lines

if TYPE_CHECKING:
    from ..model import RegionModel
    from ..processor import RegionProcessor
    from .config import BenchmarkSection, EvaluationSection

_logger = logging.getLogger(__name__)

FOLDER = "evaluation"
"""Of a run: the answers and the report."""

JUDGE_CACHE = "judge.jsonl"


@dataclass(frozen=True, eq=False)
class AskedBenchmark:
    """A benchmark of a run.

    Attributes:
        opened: the benchmark, its questions limited.
        max_new_tokens: of an answer.
        limit: how many questions are asked at most; None: all.
    """

    opened: OpenBenchmark
    max_new_tokens: int
    limit: int | None

    @property
    def name(self) -> str:
        """What it is called in figures and folders."""
        return self.opened.spec.name


def open_benchmarks(section: EvaluationSection, *, gives_masks: bool) -> list[AskedBenchmark]:
    """The benchmarks of a configuration, once it is known that the model can be asked them and the answers scored.

    Args:
        section: the configuration.
        gives_masks: whether the model does.

    Raises:
        PixelReferError: there is no such benchmark, its files are missing, or something that it needs is.
    """
    asked = [_opened(each) for each in section.benchmarks]
    names = [each.name for each in asked]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise ConfigError(
            f"evaluation.benchmarks: two are called '{twice}', so their figures would have one name. Rename a file, or "
            "leave one out."
        )
    for each in asked:
        if "judge" in each.opened.spec.needs and section.judge is None:
            raise ConfigError(
                f"evaluation.judge: benchmark '{each.name}' needs a judge. Give evaluation.judge with url and model, "
                "or leave the benchmark out."
            )
        if any(question.segment for question in each.opened.questions):
            require_needs([_asking_for_masks(each.opened)], None, gives_masks=gives_masks)
    return asked


def _opened(section: BenchmarkSection) -> AskedBenchmark:
    opened = open_benchmark(section.name, section.data, section.options, limit=section.limit)
    for question in opened.questions:
        require_askable(question)
    return AskedBenchmark(opened, section.max_new_tokens or opened.spec.max_new_tokens, section.limit)


def _asking_for_masks(opened: OpenBenchmark) -> OpenBenchmark:
    """It with what its questions show that it needs."""
    return opened._replace(spec=replace(opened.spec, needs=("masks",)))


def check_scorer(section: EvaluationSection, benchmarks: Sequence[AskedBenchmark]) -> None:
    """Refuse what answers cannot be scored with, before the first step; nothing is asked and nothing written.

    Raises:
        PixelReferError: the judge's settings cannot be used, or a sentence encoder is missing.
    """
    own_cache = section.judge is not None and section.judge.cache
    _require_tools(_scorer(section, Path(own_cache) if own_cache else None), benchmarks)


def _scorer(section: EvaluationSection, cache: Path | None) -> Scorer:
    judge = None
    if section.judge is not None:
        settings = section.judge
        server: dict[str, Any] = {"key_variable": settings.key_env, "options": settings.options}
        judge = Judge.open(settings.model, url=settings.url, cache=cache, **(server if settings.url else {}))
    return Scorer(judge=judge, tools=ScoringTools(judge, section.sentences))


def _require_tools(scorer: Scorer, benchmarks: Sequence[AskedBenchmark]) -> None:
    require_needs([each.opened for each in benchmarks], scorer)


class RunBenchmarks:
    """Asks a run's benchmarks; called with a model, returns the figures, on every process.

    Answers that cannot be scored, as where a judge does not answer, end no training: they are kept and can be scored
    later, and `problems` tells why.

    Args:
        benchmarks: what to ask.
        processor: prepares questions.
        section: the configuration.
        out: folder of the run; answers, report and the judge's answers are kept below it.
        on_bad_sample: stop at a question that cannot be asked, or count it as not answered.

    Attributes:
        problems: why benchmarks could not be scored in the latest call, a sentence each.
        judges: the judge of each figure that is a judge's opinion.
    """

    def __init__(
        self,
        benchmarks: Sequence[AskedBenchmark],
        processor: RegionProcessor,
        section: EvaluationSection,
        out: Path,
        *,
        on_bad_sample: Literal["error", "skip"] = "error",
    ) -> None:
        self._benchmarks = benchmarks
        self._processor = processor
        self._section = section
        self._out = out / FOLDER
        self._passes_over = on_bad_sample == "skip"
        self._answers: dict[str, list[Answer]] = {}
        self._reports: list[BenchmarkReport] = []
        self._made_scorer: Scorer | None = None
        self.problems: list[str] = []
        self.judges: dict[str, str] = {}

    def __call__(self, model: RegionModel) -> dict[str, float]:
        """Ask and score everything.

        Returns:
            Each figure, as `lvis_siou`, or `pope_accuracy_official` for a reading of its own; what no question has a
            value of is left out.

        Raises:
            PixelReferError: a question cannot be asked, and shall not be passed over.
        """
        with ready_to_answer(model):
            for each in self._benchmarks:
                self._answers[each.name] = self._asked(model, each)
        figures: dict[str, float] = self._scored() if is_first_process() else {}
        told: list[Any] = [figures, self.problems, self.judges]
        figures, self.problems, self.judges = broadcast_object_list(told)
        return figures

    def write(self) -> None:
        """Leave the answers of the latest call in the run's folder, and the report of what could be scored."""
        for each in self._benchmarks:
            folder = self._out / each.name
            folder.mkdir(parents=True, exist_ok=True)
            pairs = zip(each.opened.questions, self._answers[each.name], strict=True)
            write_lines(folder / ANSWERS_FILE, (answer_line(question, answer) for question, answer in pairs))
        if self._reports:
            report = Report(benchmarks=self._reports, command=without_secrets(sys.argv))
            report.save_json(self._out / "report.json")
            save_page(report, self._out / "report.html")

    def _asked(self, model: RegionModel, benchmark: AskedBenchmark) -> list[Answer]:
        engine = ModelEngine(model, self._processor, max_new_tokens=benchmark.max_new_tokens)
        return ask_in_shares(
            benchmark.opened.questions,
            engine.answer,
            batch_size=self._section.batch_size,
            instead=_not_answered if self._passes_over else None,
        )

    def _scored(self) -> dict[str, float]:
        self.problems, self.judges, self._reports = [], {}, []
        figures: dict[str, float] = {}
        for each in self._benchmarks:
            try:
                report = self._report(each)
            except PixelReferError as error:
                self.problems.append(f"benchmark '{each.name}' could not be scored: {text_of(error, 500)}")
                _logger.warning(self.problems[-1])
                continue
            self._reports.append(report)
            for found in report.columns[0].result.figures:
                name = "_".join(filter(None, (each.name, found.figure.name, found.figure.reading)))
                if found.overall.is_known:
                    figures[name] = found.overall.value
                if found.overall.is_known and found.figure.judge:
                    self.judges[name] = found.figure.judge
        return figures

    def _report(self, benchmark: AskedBenchmark) -> BenchmarkReport:
        opened = benchmark.opened
        answers = self._answers[benchmark.name]
        sets = [(self._out.parent.name or "model", str(self._out.parent), answers)]
        return self._scorer.report(opened, sets, asked_of=opened.asked_of, why_fewer=f"limit: {benchmark.limit}")

    @property
    def _scorer(self) -> Scorer:
        """Made when it is first used: the judge's answers are a file in the run's folder, which is there by then."""
        if self._made_scorer is None:
            settings = self._section.judge
            cache = Path(settings.cache) if settings is not None and settings.cache else self._out / JUDGE_CACHE
            cache.parent.mkdir(parents=True, exist_ok=True)
            self._made_scorer = _scorer(self._section, cache)
        return self._made_scorer


def _not_answered(question: Question, error: PixelReferError) -> Answer:
    return Answer(id=question.id, text="", failure=text_of(error, 500))
