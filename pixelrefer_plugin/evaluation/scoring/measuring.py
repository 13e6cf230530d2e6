"""Measures a model on benchmarks, or answers that are there. What is needed is checked before anything is asked.

It knows benchmarks by name, engines, answers and judges; no command line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ...contracts.questions import Answer
from ...errors import DataError, EvaluationError, PluginError, counted, did_you_mean, shown
from ...plugins import in_plugin
from ..predicting.answer_file import asked_otherwise, in_order, read_answers
from ..predicting.answering import answer_questions
from ..predicting.fingerprints import digest_of_questions
from ..predicting.processes import is_first_process
from ..predicting.progress import Progress
from ..reports.report import BenchmarkReport, Column, plain_options
from .opening import OpenBenchmark
from .scoring import score

if TYPE_CHECKING:
    from ..asking.engine import Engine
    from ..judging import Judge, ScoringTools

OnBadSample = Literal["error", "skip"]
ANSWERS_FILE = "answers.jsonl"


@dataclass(frozen=True)
class JudgedFile:
    """Published answers of a judge.

    Attributes:
        path: of the file or folder.
        format: one of the benchmark's `judged_formats`; empty where it has one alone.
    """

    path: Path
    format: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scorer:
    """What answers are scored with.

    Attributes:
        judge: None where there is none.
        tools: what benchmarks are lent; they have that judge.
        judged: published answers of that judge, which are taken before it is asked.
    """

    judge: Judge | None
    tools: ScoringTools
    judged: Sequence[JudgedFile] = ()

    def report(
        self,
        opened: OpenBenchmark,
        sets: Sequence[tuple[str, str, Sequence[Answer]]],
        *,
        why_fewer: str = "",
        asked_of: int | None = None,
        notes: Sequence[str] = (),
    ) -> BenchmarkReport:
        """Score sets of answers to the same questions.

        Args:
            opened: the benchmark; its questions are those that are answered.
            sets: label, source and answers of each, in the order of the questions.
            why_fewer: why these are not all questions of the benchmark.
            asked_of: how many that are.
            notes: what a reader of the figures must know.

        Raises:
            EvaluationError: the answers do not fit, or something is missing that the score needs.
        """
        spec, config, questions = opened
        self._take_judged(opened, [answers for _, _, answers in sets])
        told, encodes = len(self.tools.notes), "sentences" in spec.needs
        columns = [
            Column(label, source, answers, score(spec, config, questions, answers, self.tools))
            for label, source, answers in sets
        ]
        return BenchmarkReport(
            spec=spec,
            config=config,
            questions=questions,
            columns=columns,
            asked_of=asked_of,
            why_fewer=why_fewer,
            judge=self.tools.judge if any(each.figure.judge for c in columns for each in c.result.figures) else "",
            encoder=self.tools.encoder if encodes else "",
            notes=[*notes, *self.tools.notes[told:], *(self.tools.encoder_notes if encodes else ())],
        )

    def _take_judged(self, opened: OpenBenchmark, sets: Sequence[Sequence[Answer]]) -> None:
        """Import the published judgements, each file for the answers that it is about."""
        for file in self.judged:
            refusals = [refusal for answers in sets if (refusal := self._refusal(opened, file, answers))]
            if len(refusals) == len(sets):
                raise refusals[0]

    def _refusal(
        self, opened: OpenBenchmark, file: JudgedFile, answers: Sequence[Answer]
    ) -> DataError | EvaluationError | None:
        """Import what a file says of some answers; or why it says nothing of them."""
        if self.judge is None:
            raise EvaluationError("Published answers of a judge need its name: give --judge-model.")
        name = _chosen("judged format", file.format, opened.spec.judged_formats, opened.spec.name)
        try:
            with in_plugin("benchmark", opened.spec.name, f"judged format {name}"):
                read = list(opened.spec.judged_formats[name](opened.config, file.path, opened.questions, answers))
        except (DataError, EvaluationError) as error:
            return error
        self.judge.import_answers(read, origin=file.path.name)
        return None


def require_needs(opened: Iterable[OpenBenchmark], scorer: Scorer | None, *, gives_masks: bool = True) -> None:
    """Refuse what could not be scored, before hours go into answers.

    Args:
        opened: the benchmarks.
        scorer: None where answers are made alone.
        gives_masks: whether the model does.

    Raises:
        EvaluationError: a model without masks is to be asked for them, or a judge or sentence encoder is missing.
    """
    for spec, _, questions in opened:
        if not gives_masks and ("masks" in spec.needs or any(question.segment for question in questions)):
            raise EvaluationError(
                f"Benchmark '{spec.name}' asks for masks, and this model gives none: its adapter has no mask head. "
                "Take a model whose adapter has one, or leave the benchmark out."
            )
        if scorer is None:
            continue
        if "judge" in spec.needs and scorer.judge is None:
            raise EvaluationError(
                f"Benchmark '{spec.name}' needs a judge, and there is none. Give --judge-url and --judge-model; or "
                "--judge-model alone with answers that it has given: --judge-cache or --judged. Without a judge, "
                "pixelrefer evaluate --answers-only makes the answers, to be scored later."
            )
        if "sentences" in spec.needs:
            scorer.tools.encode(["a cat"])


def missing_tools(opened: Iterable[OpenBenchmark]) -> list[str]:
    """What a benchmark would be measured by and is not here, a sentence each; the other figures do without."""
    from ..metrics.java import find_java

    needy = [spec.name for spec, _, _ in opened if "java" in spec.needs]
    if not needy or find_java() is not None:
        return []
    return [f"{', '.join(needy)}: there is no Java here, so that figures that need it, such as METEOR, are left out."]


def answers_path(folder: Path, opened: OpenBenchmark, limit: int | None, *, of_base: bool = False) -> Path:
    """Where the answers to a benchmark are kept; those to its first questions alone have a file of their own.

    Args:
        folder: of all benchmarks.
        opened: the benchmark.
        limit: how many questions are asked at most; None: all.
        of_base: whether the backbone without LoRA is asked.
    """
    kind = ("base-" if of_base else "") + ("" if limit is None else f"first-{limit}-")
    return folder / opened.spec.name / f"{kind}{ANSWERS_FILE}"


def answers_of(
    opened: OpenBenchmark,
    engine: Engine | Callable[[], Engine],
    path: Path,
    *,
    model: Mapping[str, Any],
    batch_size: int,
    on_bad_sample: OnBadSample = "error",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Answer] | None:
    """A model's answers to a benchmark's questions, kept in a file as they are made and gone on with from there.

    Args:
        opened: the benchmark.
        engine: asks the model; or gives what does, and is not called where all answers are there.
        path: of the file; its folder is made.
        model: what the answers depend on besides the questions: the model and how it is asked, as plain values.
        batch_size: questions asked at once, at most.
        on_bad_sample: stop at a question that cannot be asked, or note it and go on.
        overwrite: replace answers of another model or with other options.
        progress: is told of it.

    Returns:
        The answers in the order of the questions; None in every process but the first.

    Raises:
        EvaluationError: the file holds answers of another model, or of other options.
        PixelReferError: a question cannot be asked, and shall not be passed over.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fingerprint = {
        **model,
        "benchmark": opened.spec.name,
        "options": plain_options(opened.config),
        "what is asked": digest_of_questions(opened.questions),
    }
    answer_questions(
        engine,
        opened.questions,
        path,
        batch_size=batch_size,
        fingerprint=fingerprint,
        on_bad_sample=on_bad_sample,
        overwrite=overwrite,
        progress=progress,
    )
    return read_answers(path, opened.questions) if is_first_process() else None


# -- answers that are there --------------------------------------------------------------------------------


@dataclass(frozen=True)
class AnswerFile:
    """Answers to score.

    Attributes:
        label: what to call them.
        path: of the file or folder.
        format: one of the benchmark's `answer_formats`; empty for files of `pixelrefer predict`.
    """

    label: str
    path: Path
    format: str = ""


def read_answer_file(opened: OpenBenchmark, file: AnswerFile, *, partial: bool = False) -> list[Answer]:
    """The answers of a file, in the order of the questions.

    Args:
        opened: the benchmark.
        file: which.
        partial: whether questions may lack an answer; those are left out.

    Raises:
        EvaluationError: the file cannot be read; an id is there twice, or is that of no question; answers are missing
            or there is none.
    """
    if not file.format:
        answers = read_answers(file.path, opened.questions, partial=partial)
    else:
        name = _chosen("format of answers", file.format, opened.spec.answer_formats, opened.spec.name)
        with in_plugin("benchmark", opened.spec.name, f"answer format {name}"):
            read = list(opened.spec.answer_formats[name](opened.config, file.path, opened.questions))
        if wrong := [each for each in read if not isinstance(each, Answer)]:
            raise PluginError(
                f"Benchmark '{opened.spec.name}' must read Answers in its format '{name}', got {shown(wrong[0])}. "
                "Report it to its author."
            )
        answers = in_order(file.path, read, opened.questions, partial=partial)
    if not answers:
        raise EvaluationError(f"'{file.path}' has no answer to a question of benchmark '{opened.spec.name}'.")
    return answers


def score_files(
    opened: OpenBenchmark, files: Sequence[AnswerFile], scorer: Scorer, *, partial: bool = False
) -> BenchmarkReport:
    """The score of files of answers, side by side.

    Args:
        opened: the benchmark.
        files: one or more; the first is what the others are compared with.
        scorer: what they are scored with.
        partial: score the questions that all files answer, where answers are missing.

    Raises:
        EvaluationError: as `read_answer_file`; or no question is answered in all files.
    """
    if not files:
        raise EvaluationError("There are no answers to score: give one file of them or more.")
    found, sets = _answered_by_all(opened, [read_answer_file(opened, file, partial=partial) for file in files])
    columns = [(file.label, str(file.path), answers) for file, answers in zip(files, sets, strict=True)]
    fewer = len(opened.questions) if len(found.questions) < len(opened.questions) else None
    return scorer.report(
        found,
        columns,
        asked_of=fewer,
        why_fewer="the others are not answered in every file",
        notes=[note for file in files if (note := _note_of_other_questions(opened, file))],
    )


def _note_of_other_questions(opened: OpenBenchmark, file: AnswerFile) -> str:
    """What to say where a file's answers are to questions in other words, as of another prompt or other data."""
    ids = [] if file.format else asked_otherwise(file.path, opened.questions)
    if not ids:
        return ""
    return (
        f"{file.label}: {counted(len(ids), 'answer')} to a question in other words than the benchmark's, such as "
        f"{shown(ids[0])}. Is it a file of other data, or of another prompt?"
    )


def export_files(opened: OpenBenchmark, files: Sequence[AnswerFile], folder: Path) -> None:
    """Write answers as the benchmark's server, or other code that scores it, wants them.

    Args:
        opened: the benchmark.
        files: one, with an answer to each question.
        folder: where to; it may be there if it is empty.

    Raises:
        EvaluationError: as `read_answer_file`; or the benchmark exports nothing, there are several files, or the folder
            is not empty.
    """
    name = opened.spec.name
    if opened.spec.export is None:
        raise EvaluationError(f"Benchmark '{name}' has no other form of answers to export. Leave --export out.")
    if len(files) != 1:
        raise EvaluationError(f"One file of answers can be exported, got {len(files)}. Give each a folder of its own.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise EvaluationError(f"'{folder}' is there and not empty. Export into a new folder.")
    answers = read_answer_file(opened, files[0])
    folder.mkdir(parents=True, exist_ok=True)
    with in_plugin("benchmark", name, "export"):
        opened.spec.export(opened.config, opened.questions, answers, folder)


def _answered_by_all(
    opened: OpenBenchmark, sets: Sequence[Sequence[Answer]]
) -> tuple[OpenBenchmark, list[list[Answer]]]:
    """The questions that every set of answers has one to, with those.

    Raises:
        EvaluationError: there is none.
    """
    common = set.intersection(*({answer.id for answer in answers} for answers in sets))
    if not common:
        raise EvaluationError(f"No question of benchmark '{opened.spec.name}' is answered in all of the files.")
    questions = opened.questions
    if len(common) < len(questions):
        questions = [question for question in opened.questions if question.id in common]
    kept = [[answer for answer in answers if answer.id in common] for answers in sets]
    return opened._replace(questions=questions), kept


def _chosen(kind: str, wanted: str, known: Mapping[str, Callable[..., Any]], benchmark: str) -> str:
    """The format of a name, or the only one."""
    if not wanted and len(known) == 1:
        return next(iter(known))
    if wanted in known:
        return wanted
    listed = ", ".join(known) or "none"
    asked = f"has no {kind} {shown(wanted)}.{did_you_mean(wanted, known)}" if wanted else f"has no single {kind}."
    raise EvaluationError(f"Benchmark '{benchmark}' {asked} It has: {listed}.")
