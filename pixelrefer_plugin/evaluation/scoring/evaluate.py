"""`evaluate` and `score_answers`: for Python users what the commands `pixelrefer evaluate` and `score` do."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..asking.engine import ModelEngine
from ..asking.shares import ready_to_answer
from ..judging import ScoringTools
from ..predicting.fingerprints import digest_of_model
from ..predicting.processes import is_first_process
from ..predicting.progress import Silent, on_stderr
from ..reports.page import save_page
from ..reports.report import Report
from .measuring import (
    AnswerFile,
    OnBadSample,
    Scorer,
    answers_of,
    answers_path,
    require_needs,
    score_files,
)
from .opening import OpenBenchmark, open_benchmark

if TYPE_CHECKING:
    from ...model import RegionModel
    from ...processor import RegionProcessor
    from ..judging import Judge

Benchmarks = str | Sequence[str] | Mapping[str, Mapping[str, Any]]
"""A name or path as `open_benchmark` takes it, several, or each with its options."""


def evaluate(
    model: RegionModel,
    processor: RegionProcessor,
    benchmarks: Benchmarks,
    out: str | os.PathLike[str],
    *,
    data_root: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_new_tokens: int | None = None,
    on_bad_sample: OnBadSample = "error",
    overwrite: bool = False,
    judge: Judge | None = None,
    sentences: str | None = None,
    progress: bool = False,
) -> Report | None:
    """Ask a model the questions of benchmarks, score its answers, and write `report.json` and `report.html`.

        model, processor = load("runs/street/model")
        report = evaluate(model, processor, ["lvis", "held_out.jsonl"], "runs/street/scores", data_root="benchmarks")

    Args:
        model: a copy of it in each process.
        processor: its processor.
        benchmarks: names of benchmarks or paths of data files; a mapping gives options with each.
        out: folder of answers and report. What is answered there is not asked again.
        data_root: folder that holds a folder for each benchmark.
        limit: only so many questions of each, the first.
        batch_size: questions asked at once, at most.
        max_new_tokens: of an answer; by default as each benchmark has it.
        on_bad_sample: stop at a question that cannot be asked, or note it and go on.
        overwrite: replace answers of another model or with other options.
        judge: of benchmarks that need one.
        sentences: the sentence encoder's folder or hub id.
        progress: show a bar or lines on stderr.

    Returns:
        The report; None in every process but the first.

    Raises:
        DataError: files of a benchmark are missing, or cannot be read.
        EvaluationError: something that a benchmark needs is missing, or `out` has other answers.
        PixelReferError: a question cannot be asked.
    """
    folder = Path(out)
    opened = open_benchmarks(benchmarks, data_root, limit)
    scorer = Scorer(judge=judge, tools=ScoringTools(judge, sentences))
    require_needs(opened, scorer, gives_masks=model.adapter_spec.masks is not None)
    told = {"model": digest_of_model(model), "adapter": f"{model.adapter_spec.name} {model.adapter_config}"}
    found = []
    with ready_to_answer(model):
        for each in opened:
            tokens = max_new_tokens or each.spec.max_new_tokens
            answers = answers_of(
                each,
                ModelEngine(model, processor, max_new_tokens=tokens),
                answers_path(folder, each, limit),
                model={**told, "max_new_tokens": tokens, "sampling": str(processor.sampling)},
                batch_size=batch_size,
                on_bad_sample=on_bad_sample,
                overwrite=overwrite,
                progress=on_stderr() if progress and is_first_process() else Silent(),
            )
            found.append(answers or [])
    if not is_first_process():
        return None
    reports = [
        scorer.report(each, [("model", "", answers)], asked_of=each.asked_of, why_fewer=f"limit={limit}")
        for each, answers in zip(opened, found, strict=True)
    ]
    report = Report(benchmarks=reports)
    report.save_json(folder / "report.json")
    save_page(report, folder / "report.html")
    return report


def score_answers(
    benchmark: str,
    answers: Mapping[str, str | os.PathLike[str]],
    *,
    answers_format: str = "",
    partial: bool = False,
    data_root: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
    judge: Judge | None = None,
    sentences: str | None = None,
) -> Report:
    """Score answers to a benchmark that models or other systems have given.

    Args:
        benchmark: its name, or the path of a data file.
        answers: files, by what to call them; the first is what the others are compared with.
        answers_format: one of the benchmark's `answer_formats`; empty for files of `predict` and `evaluate`.
        partial: score the questions that all files answer, where answers are missing.
        data_root: folder that holds a folder for each benchmark.
        options: of the benchmark.
        judge: of a benchmark that needs one.
        sentences: the sentence encoder's folder or hub id.

    Raises:
        DataError: files of the benchmark are missing, or cannot be read.
        EvaluationError: the answers do not fit the questions, or something that the benchmark needs is missing.
    """
    opened = open_benchmark(benchmark, data_root, options)
    scorer = Scorer(judge=judge, tools=ScoringTools(judge, sentences))
    require_needs([opened], scorer)
    files = [AnswerFile(label, Path(path), answers_format) for label, path in answers.items()]
    return Report(benchmarks=[score_files(opened, files, scorer, partial=partial)])


def open_benchmarks(
    benchmarks: Benchmarks, data_root: str | os.PathLike[str] | None, limit: int | None
) -> list[OpenBenchmark]:
    """Benchmarks as `evaluate` takes them, all opened before one is asked; raises as `open_benchmark`."""
    named = [benchmarks] if isinstance(benchmarks, str) else benchmarks
    options = named if isinstance(named, Mapping) else dict.fromkeys(named)
    return [open_benchmark(name, data_root, own, limit=limit) for name, own in options.items()]
