"""A user's own file as a benchmark: any data format, scored by the metrics that they choose.

It knows data formats and metrics; no model and no judge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...contracts.benchmark import BenchmarkSpec, Need, Prompt, Tools
from ...contracts.figures import Figure, Scores
from ...contracts.options import check_field, make_config
from ...contracts.questions import Answer, Question
from ...data.dataset import RegionDataset
from ...errors import DataError, EvaluationError, did_you_mean, shown
from ...files import open_regular
from ..answers import normalized
from ..asking.question_file import FileQuestions
from .object_masks import mask_figures

METRICS = ("exact", "siou", "ssim", "captions", "masks", "judge")
_MOST_RUBRIC_BYTES = 100_000


@dataclass(frozen=True)
class OwnFileConfig:
    """How a file of one's own is read and scored.

    Attributes:
        metrics: by which, the main one first, a list or a text with commas: `exact`, the same words apart from case,
            space and punctuation; `siou` and `ssim`, how near labels are in words and in meaning; `captions`, METEOR,
            CIDEr, BLEU and ROUGE-L; `masks`, gIoU, cIoU and of videos J&F; `judge`, a judge with a rubric. None:
            `exact`, and `masks` where answers have masks.
        rubric: text file that says what a good answer is, for `judge`.
        best: the best score that the judge can give; the worst is 0.
        format: name of the data format.
        format_options: its options.
        media_root: folder that relative media paths are below; None: the file's own.
    """

    metrics: tuple[str, ...] | None = None
    rubric: str | None = None
    best: float = 10.0
    format: str = "auto"
    format_options: Mapping[str, Any] = field(default_factory=dict)
    media_root: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.metrics, str):
            object.__setattr__(self, "metrics", tuple(each.strip() for each in self.metrics.split(",")))
        elif self.metrics is not None:
            object.__setattr__(self, "metrics", tuple(self.metrics))
        for name in self.metrics or ():
            if name not in METRICS:
                raise EvaluationError(
                    f"There is no metric {shown(name)}.{did_you_mean(name, METRICS)} Metrics: {', '.join(METRICS)}."
                )
        check_field(self.metrics != (), self, "metrics", f"one or more of {', '.join(METRICS)}")
        if "judge" in (self.metrics or ()) and not self.rubric:
            raise EvaluationError("The metric 'judge' needs a rubric: rubric=FILE, a text that says what is good.")
        check_field(
            isinstance(self.best, int | float) and 0 < self.best < float("inf"), self, "best", "a number above 0"
        )


def own_benchmark(
    path: Path, options: Mapping[str, Any] | None = None
) -> tuple[BenchmarkSpec, OwnFileConfig, Sequence[Question]]:
    """A file as a benchmark, called by its name without suffix.

    Raises:
        DataError: it cannot be read.
        EvaluationError: an option does not fit, or the file has no answers that a metric could compare with.
    """
    name = re.sub(r"[^a-z0-9_.-]+", "-", path.stem.lower()).strip("-._")[:100] or "file"
    config = make_config(OwnFileConfig, options, owner=f"file '{path.name}'")
    dataset = RegionDataset.open(
        path,
        format=config.format,
        options=dict(config.format_options) or None,
        media_root=config.media_root,
        use="ask",
    )
    questions = list(FileQuestions([dataset]))
    metrics = _metrics(config, questions)
    _require_known(path, metrics, questions)
    rubric = _read_rubric(config.rubric) if config.rubric and "judge" in metrics else ""
    spec = BenchmarkSpec(
        name=name,
        about=f"The file '{path}', by {', '.join(metrics)}.",
        config=OwnFileConfig,
        files=(),
        open=lambda config, folder: questions,
        score=lambda config, questions, answers, tools: _score(metrics, rubric, config, questions, answers, tools),
        needs=_needs(metrics, questions),
        prompts=lambda config: [Prompt("rubric", rubric, origin=f"the file '{config.rubric}'")] if rubric else [],
    )
    return spec, config, questions


def _metrics(config: OwnFileConfig, questions: Sequence[Question]) -> tuple[str, ...]:
    if config.metrics is not None:
        return tuple(dict.fromkeys(config.metrics))
    with_masks = sum(bool(question.targets) for question in questions)
    if not with_masks:
        return ("exact",)
    return ("masks", "exact") if with_masks == len(questions) else ("exact", "masks")


def _needs(metrics: Sequence[str], questions: Sequence[Question]) -> tuple[Need, ...]:
    needs: dict[Need, bool] = {
        "masks": any(question.segment for question in questions),
        "judge": "judge" in metrics,
        "sentences": "ssim" in metrics,
    }
    return tuple(need for need, is_needed in needs.items() if is_needed)


def _require_known(path: Path, metrics: Sequence[str], questions: Sequence[Question]) -> None:
    """Refuse a metric that no question has anything to compare with."""
    of_words = [name for name in metrics if name not in ("masks", "judge")]
    if of_words and not any(question.references for question in questions):
        raise EvaluationError(
            f"'{path}' has no right answers, which metric '{of_words[0]}' compares with. Add them as messages of the "
            "assistant, or choose metrics=judge with a rubric."
        )
    if "masks" in metrics and not any(question.targets for question in questions):
        raise EvaluationError(f"'{path}' has no answers with masks (<seg>), which metric 'masks' compares with.")


def _read_rubric(path: str) -> str:
    try:
        with open_regular(path) as file:
            text = file.read(_MOST_RUBRIC_BYTES + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"The rubric {shown(path)} cannot be read: {getattr(error, 'strerror', error)}.") from error
    if len(text) > _MOST_RUBRIC_BYTES:
        raise DataError(f"The rubric {shown(path)} has more than {_MOST_RUBRIC_BYTES:,} bytes. Shorten it.")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"The rubric {shown(path)} is no text in UTF-8: {error.reason}.") from error


# -- scores ------------------------------------------------------------------------------------------------


def _score(
    metrics: Sequence[str],
    rubric: str,
    config: OwnFileConfig,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    tools: Tools,
) -> Scores:
    """The scores of every metric, one after another."""
    found = [_by_metric(name, rubric, config, questions, answers, tools) for name in metrics]
    return Scores(
        figures=[figure for each in found for figure in each.figures],
        unread={id: why for each in found for id, why in each.unread.items()},
        notes=list(dict.fromkeys(note for each in found for note in each.notes)),
        details={id: text for each in found for id, text in each.details.items()},
    )


def _by_metric(
    name: str,
    rubric: str,
    config: OwnFileConfig,
    questions: Sequence[Question],
    answers: Sequence[Answer],
    tools: Tools,
) -> Scores:
    if name == "masks":
        return Scores(figures=mask_figures(questions, answers))
    if name == "captions":
        from ..metrics.captions import CaptionPair, caption_figures

        captions = zip(questions, answers, strict=True)
        figures, notes = caption_figures(
            [CaptionPair(None if answer.failure else answer.text, question.references) for question, answer in captions]
        )
        return Scores(figures=figures, notes=notes)
    if name == "judge":
        from ..judging.rubric import rubric_scores

        return rubric_scores(rubric, questions, answers, tools, most=config.best)
    pairs = zip(questions, answers, strict=True)
    chosen = [at for at, (question, answer) in enumerate(pairs) if question.references and not answer.failure]
    given, expected = [answers[at].text for at in chosen], [questions[at].references for at in chosen]
    values = np.full(len(answers), np.nan)
    values[chosen] = _words(name, given, expected, tools)
    return Scores(figures=[Figure(name=name, values=values)])


def _words(name: str, given: Sequence[str], expected: Sequence[Sequence[str]], tools: Tools) -> np.ndarray:
    """The value of each answer; of several right ones the best counts."""
    from ..metrics.labels import siou, ssim

    if name == "exact":
        return np.array(
            [normalized(text) in map(normalized, right) for text, right in zip(given, expected, strict=True)],
            dtype=float,
        )
    if name == "siou":
        return np.array([max(siou(text, each) for each in right) for text, right in zip(given, expected, strict=True)])
    both = [(text, each) for text, right in zip(given, expected, strict=True) for each in right]
    near = ssim([text for text, _ in both], [each for _, each in both], tools.encode)
    ends = np.cumsum([len(right) for right in expected])[:-1]
    return np.array([part.max() for part in np.split(near, ends)])
