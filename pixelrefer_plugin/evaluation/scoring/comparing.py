"""`compare_adapters`: which way of pointing at regions is best for one backbone, on the same questions.

The backbone is loaded once. Each way is attached, asked and detached again; a way that cannot be asked is reported by
its name, and the others go on.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...contracts.questions import Answer
from ...entry import attach, load
from ...errors import EvaluationError, PixelReferError, counted
from ...weights import hub
from ...weights.loading import load_backbone, load_config, load_native_processor
from ...weights.model_folder import portable_backbone_id, resolved
from ...weights.opening import require_backbone
from ..asking.engine import ModelEngine
from ..judging import ScoringTools
from ..predicting.fingerprints import digest_of_model, digest_of_path
from ..predicting.processes import is_first_process, told_by_all
from ..predicting.progress import Silent, on_stderr
from ..reports.page import save_page
from ..reports.report import BenchmarkReport, Report
from .evaluate import Benchmarks, open_benchmarks
from .measuring import OnBadSample, Scorer, answers_of, answers_path, require_needs
from .opening import OpenBenchmark
from .standing import ordered
from .ways import Way, read_ways, require_same_backbone

if TYPE_CHECKING:
    from ...model import RegionModel
    from ...processor import RegionProcessor
    from ..judging import Judge

logger = logging.getLogger(__name__)


def compare_adapters(
    model: str | os.PathLike[str] | Any,
    adapters: str | Sequence[str],
    benchmarks: Benchmarks,
    out: str | os.PathLike[str],
    *,
    native_processor: Any = None,
    device: str | None = None,
    data_root: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    max_new_tokens: int | None = None,
    on_bad_sample: OnBadSample = "error",
    overwrite: bool = False,
    judge: Judge | None = None,
    sentences: str | None = None,
    progress: bool = False,
    **backbone_options: Any,
) -> Report | None:
    """Ask one backbone the same questions in several ways of pointing at regions; write and return what that shows.

        ways = "coordinates,marks,saot=runs/mine/model"
        report = compare_adapters("OWNER/BACKBONE", ways, "held_out.jsonl", "runs/ways")
        print(report.benchmarks[0].standing.best)

    Args:
        model: id or path of a plain backbone, or one that is loaded, which is given back as it was.
        adapters: the ways: names of adapters that need no training, with options in brackets (`marks[style=box]`), and
            `NAME=FOLDER` of models that were trained on this backbone; one text with commas between them, or several.
        benchmarks: names of benchmarks or paths of data files; a mapping gives options with each.
        out: folder of answers, of each way in a folder of its own, and of `report.json` and `report.html`. What is
            answered there is not asked again.
        native_processor: of a backbone that is loaded; `adapters` do not change it.
        device: where a backbone that is loaded here is moved to; None: it stays where it is.
        data_root: folder that holds a folder for each benchmark.
        limit: only so many questions of each, the first.
        batch_size: questions asked at once, at most.
        max_new_tokens: of an answer; by default as each benchmark has it.
        on_bad_sample: whether a question that cannot be asked in a way ends that way, or is noted. Figures are of the
            questions that could be asked in every way.
        overwrite: replace answers of other ways of the same name.
        judge: of benchmarks that need one.
        sentences: the sentence encoder's folder or hub id.
        progress: show a bar or lines on stderr.
        **backbone_options: options of the backbone's `from_pretrained`, such as `dtype`.

    Returns:
        The report, with the best way first; None in every process but the first.

    Raises:
        EvaluationError: a way is none, no way can be asked, or `out` has other answers.
        CheckpointError: the backbone cannot be loaded, or a trained model was made for another one.
        PixelReferError: a benchmark cannot be opened.
    """
    ways = read_ways(adapters)
    backbone = ComparedBackbone(model, native_processor, device, backbone_options)
    backbone.require_ways(ways)
    opened = open_benchmarks(benchmarks, data_root, limit)
    scorer = Scorer(judge=judge, tools=ScoringTools(judge, sentences))
    require_needs(opened, scorer)
    how = HowCompared(
        out=Path(out),
        limit=limit,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        on_bad_sample=on_bad_sample,
        overwrite=overwrite,
        progress=progress,
    )
    found = ask_in_ways(backbone, ways, opened, how)
    if not is_first_process():
        return None
    report = Report(benchmarks=reports_of(found, opened, ways, backbone, scorer, why_fewer=f"limit={limit}"))
    report.save_json(Path(out) / "report.json")
    save_page(report, Path(out) / "report.html")
    return report


@dataclass(frozen=True, kw_only=True)
class HowCompared:
    """How the ways are asked, each alike: as `compare_adapters` has it."""

    out: Path
    limit: int | None = None
    batch_size: int = 8
    max_new_tokens: int | None = None
    on_bad_sample: OnBadSample = "error"
    overwrite: bool = False
    progress: bool = False

    def path(self, way: Way, opened: OpenBenchmark) -> Path:
        """Of a way's answers to a benchmark."""
        return answers_path(self.out / way.name_of_folder, opened, self.limit)


# -- the backbone ------------------------------------------------------------------------------------------


class ComparedBackbone:
    """A plain backbone that ways of pointing are attached to, one after another. It is loaded when one is asked.

    Args:
        source: its id or path, or the model itself.
        native: its own processor, where the model itself is given.
        device: where what is loaded is moved to.
        options: of its `from_pretrained`.

    Raises:
        EvaluationError: a model without its processor.
        CheckpointError: no plain backbone is there.
        PluginError: no plugin serves it.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | Any,
        native: Any = None,
        device: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._model: Any = None
        if isinstance(source, str | os.PathLike):
            self.name = os.fspath(source)
        elif native is None:
            raise EvaluationError("A backbone that is loaded needs its own processor: native_processor=.")
        else:
            self.name, self._model = source.name_or_path or type(source).__name__, source
        self._native = native
        self._device = device
        self._options = dict(options or {})
        self.config = self._config()

    def _config(self) -> Any:
        if self._model is not None:
            return self._model.config
        if hub.find_model_folder(self.name, dict(self._options)) is not None:
            raise EvaluationError(
                f"'{self.name}' is the folder of a trained model, and adapters are compared on a plain backbone. Name "
                f"its backbone, and the folder among the adapters: NAME={self.name}."
            )
        require_backbone(self.name, options=self._options)
        return load_config(self.name, **self._options)

    def require_ways(self, ways: Sequence[Way]) -> None:
        """Refuse trained models that were made for another backbone; raises as `require_same_backbone`."""
        for way in ways:
            require_same_backbone(way, self.name, self.config)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The backbone and its own processor."""
        if self._model is not None:
            return self._model, self._native
        native, _ = load_native_processor(self.name, **hub.where_options(self._options))
        return self._moved(load_backbone(self.name, **self._options)), native

    def release(self) -> None:
        """Let go of what was loaded here."""
        self.__dict__.pop("_loaded", None)

    @contextmanager
    def asked(self, way: Way) -> Iterator[tuple[RegionModel, RegionProcessor]]:
        """A model and its processor that point in one way, while the block runs."""
        if way.has_own_backbone:
            if is_first_process():
                logger.warning(
                    "%s: '%s' holds a backbone of its own, which is loaded by itself.", way.label, way.folder
                )
            model, processor = load(way.folder, **self._options)
            self._moved(model)
        elif way.folder:
            model, processor = load(way.folder, backbone=self._loaded[0])
        else:
            backbone, native = self._loaded
            model, processor = attach(backbone, native, adapter=way.adapter, adapter_config=dict(way.options))
        try:
            yield model.eval(), processor
        finally:
            model.detach()

    def _moved(self, model: Any) -> Any:
        return model if self._device is None else model.to(self._device)

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """Which model it is: of a folder here a digest of its files."""
        if self._model is not None:
            return {"model": digest_of_model(self._model)}
        told = digest_of_path(self.name) if Path(self.name).is_dir() else self.name
        return {"model": told, "options": {name: str(each) for name, each in self._options.items()}}


def _fingerprint(way: Way) -> dict[str, Any]:
    if way.folder:
        is_here = Path(way.folder).is_dir()
        return {"way": f"{way.adapter} of {digest_of_path(way.folder) if is_here else way.folder}"}
    return {"way": f"{way.adapter} {way.spec.make_config(dict(way.options))}"}


# -- asking ------------------------------------------------------------------------------------------------

Outcome = list[Answer] | str
"""A way's answers to a benchmark, or why it could not be asked."""


def ask_in_ways(
    backbone: ComparedBackbone, ways: Sequence[Way], opened: Sequence[OpenBenchmark], how: HowCompared
) -> dict[tuple[str, str], Outcome]:
    """Ask the questions of benchmarks in every way, those on the shared backbone first.

    Returns:
        The outcomes, by the label of the way and the name of the benchmark; the answers are known to the first process.

    Raises:
        EvaluationError: answers that are there are of another run.
    """
    found: dict[tuple[str, str], Outcome] = {}
    for way in sorted(ways, key=lambda way: way.has_own_backbone):
        if way.has_own_backbone:
            backbone.release()
        with ExitStack() as stack:
            entered: list[tuple[RegionModel, RegionProcessor]] = []

            def model_of(
                way: Way = way, stack: ExitStack = stack, entered: list[Any] = entered
            ) -> tuple[RegionModel, RegionProcessor]:
                if not entered:
                    entered.append(stack.enter_context(backbone.asked(way)))
                return entered[0]

            for each in opened:
                found[way.label, each.spec.name] = _outcome(way, each, backbone, how, model_of)
    return found


def _outcome(
    way: Way,
    opened: OpenBenchmark,
    backbone: ComparedBackbone,
    how: HowCompared,
    model_of: Callable[[], tuple[RegionModel, RegionProcessor]],
) -> Outcome:
    if way.spec.masks is None and any(question.segment for question in opened.questions):
        return f"adapter '{way.adapter}' gives no masks, which are asked for"
    tokens = how.max_new_tokens or opened.spec.max_new_tokens
    answers: list[Answer] = []
    failure, stopping = "", None
    try:
        answers = (
            answers_of(
                opened,
                lambda: ModelEngine(*model_of(), max_new_tokens=tokens),
                how.path(way, opened),
                model={**backbone.fingerprint, **_fingerprint(way), "max_new_tokens": tokens},
                batch_size=how.batch_size,
                on_bad_sample=how.on_bad_sample,
                overwrite=how.overwrite,
                progress=on_stderr() if how.progress and is_first_process() else Silent(),
            )
            or []
        )
    except EvaluationError as error:  # of the answers that are there, or of another process
        stopping = error
    except PixelReferError as error:
        failure = str(error)
    failure = next(filter(None, told_by_all(failure)), "")
    if stopping is not None and not failure:
        raise stopping
    return failure or answers


# -- what it shows -----------------------------------------------------------------------------------------


def reports_of(
    found: Mapping[tuple[str, str], Outcome],
    opened: Sequence[OpenBenchmark],
    ways: Sequence[Way],
    backbone: ComparedBackbone,
    scorer: Scorer,
    *,
    why_fewer: str = "",
) -> list[BenchmarkReport]:
    """What each benchmark shows, with the best way first. Of a benchmark that no way could be asked there is none.

    Raises:
        EvaluationError: no way could be asked of any.
    """
    reports, refusals = [], []
    for each in opened:
        outcomes = {way.label: _usable(found[way.label, each.spec.name]) for way in ways}
        if any(not isinstance(outcome, str) for outcome in outcomes.values()):
            reports.append(_report(each, outcomes, ways, backbone, scorer, why_fewer=why_fewer))
        else:
            alike: dict[str, list[str]] = {}
            for label, outcome in outcomes.items():
                alike.setdefault(str(outcome), []).append(label)
            told = " ".join(f"{', '.join(labels)}: {outcome}" for outcome, labels in alike.items())
            refusals.append(f"'{each.spec.name}' could not be asked in any of {counted(len(ways), 'way')}. {told}")
    if not reports:
        raise EvaluationError(" ".join(refusals))
    for refusal in refusals:
        logger.warning("%s", refusal)
    return reports


def _usable(outcome: Outcome) -> Outcome:
    """Answers, or why there are none: where each question was noted as one that cannot be asked, the first reason."""
    if isinstance(outcome, str) or not all(answer.failure for answer in outcome):
        return outcome
    return outcome[0].failure


def _report(
    opened: OpenBenchmark,
    outcomes: Mapping[str, Outcome],
    ways: Sequence[Way],
    backbone: ComparedBackbone,
    scorer: Scorer,
    *,
    why_fewer: str,
) -> BenchmarkReport:
    sets = {label: outcome for label, outcome in outcomes.items() if not isinstance(outcome, str)}
    asked, kept, note = _asked_in_all(opened, sets)
    sources = {way.label: _source(way, backbone) for way in ways}
    report = scorer.report(
        asked,
        [(label, sources[label], answers) for label, answers in kept.items()],
        asked_of=opened.asked_of,
        why_fewer=why_fewer,
        notes=[*note, *_notes_of(ways, backbone)],
    )
    columns = {column.label: column for column in report.columns}
    order = ordered({label: column.result for label, column in columns.items()})
    return replace(
        report,
        columns=[columns[label] for label in order],
        is_ranked=True,
        not_asked={label: outcome for label, outcome in outcomes.items() if isinstance(outcome, str)},
    )


def _asked_in_all(
    opened: OpenBenchmark, sets: Mapping[str, Sequence[Answer]]
) -> tuple[OpenBenchmark, dict[str, Sequence[Answer]], list[str]]:
    """The questions that could be asked in every way, with the answers to those, and a note where they are fewer."""
    failed = {answer.id for answers in sets.values() for answer in answers if answer.failure}
    total = len(opened.questions)
    if not failed:
        return opened, dict(sets), []
    if len(failed) == total:
        return opened, dict(sets), ["No question could be asked in every way: each figure is of other questions."]
    questions = [question for question in opened.questions if question.id not in failed]
    kept: dict[str, Sequence[Answer]] = {
        label: [each for each in answers if each.id not in failed] for label, answers in sets.items()
    }
    counts = {label: sum(bool(each.failure) for each in answers) for label, answers in sets.items()}
    told = ", ".join(f"{label} {count:,}" for label, count in counts.items() if count)
    note = (
        f"Figures are of the {len(questions):,} questions of {total:,} that could be asked in every way. Not asked: "
        f"{told}."
    )
    return opened._replace(questions=questions), kept, [note]


def _source(way: Way, backbone: ComparedBackbone) -> str:
    return way.folder or f"{backbone.name} with adapter {way.adapter}"


def _notes_of(ways: Sequence[Way], backbone: ComparedBackbone) -> Iterator[str]:
    name = portable_backbone_id(resolved(backbone.name))
    for way in ways:
        if way.has_own_backbone:
            yield f"{way.label}: asked on the backbone in its own folder, which was trained too or merged."
        elif way.manifest is not None and way.manifest.backbone_id not in ("", name):
            yield f"{way.label}: trained on '{way.manifest.backbone_id}', asked on '{backbone.name}'."
