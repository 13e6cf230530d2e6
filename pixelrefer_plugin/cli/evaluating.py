"""`pixelrefer evaluate`, `score` and `benchmarks`: a model, or answers that are there, measured and reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import EvaluationError, counted, did_you_mean
from ..evaluation.predicting.processes import is_first_process, join_the_others, leave_the_others
from ..files import require_writable_folder
from .judging import NAMED_FILE, NamedFile, judge_options, open_scorer
from .options import CheckedCommand, adapter_name_option, adapter_option, device_option, dtype_option, setting_option
from .reporting import INTERRUPTED, Failure, json_of, quiet_libraries
from .values import COUNT, MODEL, READ, TEXT, WRITTEN, WholeType

if TYPE_CHECKING:
    from ..contracts.questions import Answer
    from ..evaluation.asking.engine import ModelEngine
    from ..evaluation.reports.report import BenchmarkReport, Report
    from ..evaluation.scoring.opening import OpenBenchmark
    from ..evaluation.scoring.ways import Way
    from .asking import LoadedModel

_ARGUMENTS = f"{__name__}.arguments"
JUDGE_CACHE = "judge.jsonl"

Settings = tuple[tuple[str, Any], ...]


class RecordedCommand(CheckedCommand):
    """Keeps what was typed, for the report."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click has it."""
        ctx.meta[_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


data_option = click.option(
    "--data",
    metavar="DIR",
    type=READ,
    help="Folder that holds a folder for each benchmark, called by its name. [default: $PIXELREFER_BENCHMARKS]",
)
benchmark_setting_option = setting_option(
    "--option", "settings", help="An option of the benchmarks, of one alone NAME.KEY=VALUE."
)
gallery_option = click.option(
    "--gallery",
    type=WholeType(0, 100),
    default=8,
    show_default=True,
    help="How many of the best and of the worst answers the page shows.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON instead of a table.")


# -- evaluate ----------------------------------------------------------------------------------------------


@click.command(cls=RecordedCommand, short_help="Measure a model on benchmarks.")
@click.argument("model", metavar="MODEL", type=MODEL)
@click.argument("benchmarks", metavar="BENCHMARK...", type=TEXT, nargs=-1, required=True)
@click.option(
    "--out",
    metavar="DIR",
    type=WRITTEN,
    required=True,
    help="Folder of answers and report. What is answered there is not asked again.",
)
@data_option
@benchmark_setting_option
@click.option("--limit", type=COUNT, help="Ask only so many questions of each, the first: for a quick look.")
@click.option("--batch-size", type=COUNT, default=8, show_default=True, help="Questions asked at once, at most.")
@click.option("--max-new-tokens", type=COUNT, help="Of an answer. [as each benchmark has it]")
@click.option(
    "--on-bad-sample",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="Stop at a question that cannot be asked, or note it and go on.",
)
@click.option(
    "--adapters",
    metavar="WAYS",
    type=TEXT,
    help="Compare ways of pointing at regions on a plain backbone, with commas between them: adapters that need no "
    "training, NAME or NAME[OPTION=VALUE,...], and NAME=DIR of models that were trained on it.",
)
@click.option("--answers-only", is_flag=True, help="Make the answers; score them later with pixelrefer score.")
@click.option("--base", is_flag=True, help="Ask the backbone without LoRA too, where a benchmark shows no regions.")
@click.option("--overwrite", is_flag=True, help="Replace answers of another model or with other options.")
@judge_options
@gallery_option
@json_option
@click.option("--backbone", metavar="DIR_OR_ID", type=MODEL, help="Where the backbone is, if it has moved.")
@adapter_name_option
@adapter_option
@dtype_option()
@device_option
def evaluate(
    model: str,
    benchmarks: tuple[str, ...],
    out: Path,
    data: Path | None,
    settings: Settings,
    limit: int | None,
    batch_size: int,
    max_new_tokens: int | None,
    on_bad_sample: Any,
    adapters: str | None,
    answers_only: bool,
    base: bool,
    overwrite: bool,
    gallery: int,
    as_json: bool,
    backbone: str | None,
    adapter: str | None,
    adapter_options: Settings,
    dtype: str,
    device: str,
    judge_cache: Path | None,
    **judge: Any,
) -> None:
    """Ask a model the questions of benchmarks, score its answers, and report.

    A BENCHMARK is a name that `pixelrefer benchmarks` lists, NAME=DIR where its files are elsewhere, or a data file of
    your own. A plain backbone is asked with the adapter without training that suits it; --adapter names another. OUT
    gets the answers as they are made, report.json and report.html. The same command goes on where an
    earlier one was stopped; `accelerate launch -m pixelrefer_plugin evaluate ...` shares the questions. See
    docs/benchmarks.md.

    With --adapters MODEL is a plain backbone, which is loaded once and asked the same questions in each way: the table
    has the best first, and says whether its lead is decided.

    \b
    Example:
      pixelrefer evaluate runs/street/model lvis paco --data benchmarks --out runs/street/scores
      pixelrefer evaluate runs/street/model held_out.jsonl --out runs/street/held_out
      pixelrefer evaluate OWNER/BACKBONE held_out.jsonl --out runs/ways \\
          --adapters coordinates,marks,saot=runs/street/model
    """
    from ..evaluation.scoring.measuring import missing_tools, require_needs
    from .asking import require_adapter, require_mask_head, require_model

    require_writable_folder(out)
    require_model(model)
    ways = None if adapters is None else _ways(adapters)
    if ways is None:
        require_adapter(model, adapter)
    else:
        given = {"--adapter": adapter, "--adapter-option": adapter_options, "--base": base, "--backbone": backbone}
        _require_none_given(given)
    quiet_libraries()
    opened = _opened(benchmarks, data, settings, limit)
    if ways is None and any("masks" in each.spec.needs for each in opened):
        require_mask_head(model, adapter)
    out.mkdir(parents=True, exist_ok=True)
    scorer = None if answers_only else open_scorer(judge_cache=judge_cache or out / JUDGE_CACHE, **judge)
    require_needs(opened, scorer)
    for missing in missing_tools(opened) if scorer is not None and is_first_process() else []:
        click.echo(f"Warning: {missing}", err=True)
    if ways is not None:
        from ..evaluation.scoring.comparing import HowCompared
        from .comparing import compare

        how = HowCompared(
            out=out,
            limit=limit,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            on_bad_sample=on_bad_sample,
            overwrite=overwrite,
            progress=True,
        )
        if reports := compare(model, ways, opened, how, scorer, device=device, dtype=dtype):
            _tell(reports, out, gallery=gallery, as_json=as_json)
        return
    for_base = _for_base(model, opened) if base else []
    asking = _Asking(
        source=model,
        loading={"backbone": backbone, "adapter": adapter, "adapter_options": dict(adapter_options), "dtype": dtype},
        device=device,
        out=out,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        on_bad_sample=on_bad_sample,
        overwrite=overwrite,
    )
    try:
        join_the_others(device)
        own = [asking.answers(each, limit) for each in opened]
        of_base = {each.spec.name: asking.answers(each, limit, of_base=True) for each in for_base}
    except KeyboardInterrupt:
        click.echo("\nStopped. What is answered is kept: the same command goes on from there.", err=True)
        raise SystemExit(INTERRUPTED) from None
    finally:
        leave_the_others()
    if not is_first_process():
        return
    if scorer is None:
        click.echo(f"answers: {', '.join(str(asking.path(each, limit)) for each in opened)}")
        return
    reports = []
    for each, answers in zip(opened, own, strict=True):
        sets = [(_label(model), model, answers or [])]
        if found := of_base.get(each.spec.name):
            sets.insert(0, ("base", "the backbone without LoRA", found))
        reports.append(scorer.report(each, sets, asked_of=each.asked_of, why_fewer=f"--limit {limit}"))
    _tell(reports, out, gallery=gallery, as_json=as_json)


def _ways(written: str) -> list[Way]:
    from ..evaluation.scoring.ways import read_ways

    return read_ways(written)


def _require_none_given(options: Mapping[str, Any]) -> None:
    """Refuse what says how one model is loaded, where several ways are compared."""
    if given := [name for name, value in options.items() if value]:
        raise click.UsageError(
            f"{given[0]} and --adapters exclude each other: each way says its own adapter and options, and all are "
            "asked on MODEL."
        )


@dataclass(frozen=True, kw_only=True)
class _Asking:
    """A model that is asked, loaded once a question is to be asked, and where its answers go."""

    source: str
    loading: Mapping[str, Any]
    device: str
    out: Path
    batch_size: int
    max_new_tokens: int | None
    on_bad_sample: Any
    overwrite: bool

    def path(self, opened: OpenBenchmark, limit: int | None, *, of_base: bool = False) -> Path:
        """Of the answers."""
        from ..evaluation.scoring.measuring import answers_path

        return answers_path(self.out, opened, limit, of_base=of_base)

    def answers(self, opened: OpenBenchmark, limit: int | None, *, of_base: bool = False) -> list[Answer] | None:
        """Those of the model, or of its backbone without LoRA, which it does not get back; None in every process but
        the first."""
        from ..evaluation.predicting.progress import Silent, on_stderr
        from ..evaluation.scoring.measuring import answers_of

        tokens = self.max_new_tokens or opened.spec.max_new_tokens
        if is_first_process():
            of = " to the backbone without LoRA" if of_base else ""
            click.echo(f"{opened.spec.name}: {counted(len(opened.questions), 'question')}{of}", err=True)
        return answers_of(
            opened,
            lambda: self._engine(opened, tokens, of_base=of_base),
            self.path(opened, limit, of_base=of_base),
            model={**self._fingerprint, "base": of_base, "max_new_tokens": tokens},
            batch_size=self.batch_size,
            on_bad_sample=self.on_bad_sample,
            overwrite=self.overwrite,
            progress=on_stderr() if is_first_process() else Silent(),
        )

    def _engine(self, opened: OpenBenchmark, max_new_tokens: int, *, of_base: bool) -> ModelEngine:
        from ..evaluation.asking.engine import ModelEngine
        from ..evaluation.scoring.measuring import require_needs

        model, processor = self._loaded.model, self._loaded.processor
        require_needs([opened], None, gives_masks=model.adapter_spec.masks is not None)
        if of_base:
            model.remove_lora()
        return ModelEngine(model, processor, max_new_tokens=max_new_tokens)

    @cached_property
    def _loaded(self) -> LoadedModel:
        from .asking import LoadedModel

        return LoadedModel.open(self.source, device=self.device, max_new_tokens=0, **self.loading)

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        """Which model it is: of a folder here a digest of its files."""
        from ..evaluation.predicting.fingerprints import digest_of_path
        from .asking import choose_adapter

        is_here = Path(self.source).is_dir()
        chosen = choose_adapter(self.source, self.loading["adapter"])
        return {
            "model": digest_of_path(self.source) if is_here else self.source,
            **self.loading,
            "adapter": chosen.name,
        }


def _label(source: str) -> str:
    """What a report calls a model: `street` for `runs/street/model`."""
    path = Path(source)
    named = [part for part in path.parts if part not in ("model", "..", ".", path.anchor)]
    return named[-1] if path.exists() and named else source


def _for_base(model: str, opened: Sequence[OpenBenchmark]) -> list[OpenBenchmark]:
    """The benchmarks that show no regions, once it is known that there is a plain backbone to ask."""
    from ..weights.hub import find_model_folder
    from ..weights.model_folder import BACKBONE_FOLDER, read_manifest

    folder = find_model_folder(model, {})
    if folder is None:
        raise click.UsageError(f"--base is for model folders: '{model}' is a plain backbone itself.")
    manifest = read_manifest(folder)
    if manifest.backbone_id == BACKBONE_FOLDER:
        raise Failure(
            f"--base: '{model}' holds a backbone of its own, trained or merged, so the plain one is not in it. "
            "Evaluate that by its id, and put both files of answers side by side with pixelrefer score."
        )
    if not manifest.lora:
        raise Failure(f"--base: '{model}' has no LoRA, so without regions it says what its backbone says.")
    found = [each for each in opened if not any(question.asked.regions for question in each.questions)]
    if not found:
        raise Failure("--base: each of these benchmarks shows regions, which a plain backbone does not know.")
    return found


# -- score -------------------------------------------------------------------------------------------------


@click.command(cls=RecordedCommand, short_help="Score answers that are there.")
@click.argument("benchmark", metavar="BENCHMARK", type=TEXT)
@click.argument("answers", metavar="[LABEL=]ANSWERS...", type=NAMED_FILE, nargs=-1, required=True)
@click.option(
    "--answers-format",
    metavar="NAME",
    type=TEXT,
    help="How another system wrote them; pixelrefer benchmarks NAME lists the formats.",
)
@click.option("--partial", is_flag=True, help="Score the questions that all files answer, where answers are missing.")
@click.option("--out", metavar="DIR", type=WRITTEN, help="Folder for report.json and report.html.")
@click.option(
    "--export",
    metavar="DIR",
    type=WRITTEN,
    help="Write the answers into a new folder as the benchmark's server wants them, and score nothing.",
)
@data_option
@benchmark_setting_option
@judge_options
@gallery_option
@json_option
def score(
    benchmark: str,
    answers: tuple[NamedFile, ...],
    answers_format: str | None,
    partial: bool,
    out: Path | None,
    export: Path | None,
    data: Path | None,
    settings: Settings,
    gallery: int,
    as_json: bool,
    judge_cache: Path | None,
    **judge: Any,
) -> None:
    """Score answers to a benchmark that a model or another system has given. Several files stand side by side.

    The first file is what the others are compared with. BENCHMARK is as for pixelrefer evaluate.

    \b
    Example:
      pixelrefer score lvis runs/street/scores/lvis/answers.jsonl --data benchmarks
      pixelrefer score lvis before=a.jsonl after=b.jsonl --data benchmarks --out runs/compared
      pixelrefer score ref_youtube_vos a.jsonl --data benchmarks --export runs/submission
    """
    from ..evaluation.scoring.measuring import AnswerFile, export_files, missing_tools, require_needs, score_files

    if out is not None:
        require_writable_folder(out)
    quiet_libraries()
    [opened] = _opened([benchmark], data, settings, None)
    files = [
        AnswerFile(label, file.path, answers_format or "")
        for label, file in zip(_labels(answers), answers, strict=True)
    ]
    if export is not None:
        export_files(opened, files, export)
        click.echo(f"answers: {export}")
        return
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    scorer = open_scorer(judge_cache=judge_cache or (out / JUDGE_CACHE if out else None), **judge)
    require_needs([opened], scorer)
    for each in missing_tools([opened]):
        click.echo(f"Warning: {each}", err=True)
    report = score_files(opened, files, scorer, partial=partial)
    _tell([report], out, gallery=gallery, as_json=as_json)


def _labels(files: Sequence[NamedFile]) -> list[str]:
    """What to call files: as the user does, else by what tells them apart."""
    stems = [file.name or file.path.stem for file in files]
    if len(set(stems)) == len(stems):
        return stems
    return [file.name or str(file.path) for file in files]


# -- benchmarks --------------------------------------------------------------------------------------------


@click.command(cls=CheckedCommand, short_help="List the installed benchmarks.")
@click.argument("name", required=False, type=TEXT)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def benchmarks(name: str | None, as_json: bool) -> None:
    """List the installed benchmarks; of one its files, options, formats and published figures.

    \b
    Example:
      pixelrefer benchmarks
      pixelrefer benchmarks lvis
    """
    from ..evaluation.scoring.listing import described, told, told_in_short
    from ..plugins import get_benchmark, host

    if name is not None:
        spec = get_benchmark(name)
        click.echo(json.dumps(described(spec), indent=2, ensure_ascii=False) if as_json else told(spec, width=_width()))
        return
    specs = [get_benchmark(each) for each in host().names("benchmark")]
    if as_json:
        click.echo(json.dumps([described(spec) for spec in specs], indent=2, ensure_ascii=False))
        return
    click.echo(told_in_short(specs, width=_width()) or "No benchmark is installed.")


# -- common ------------------------------------------------------------------------------------------------


def _opened(names: Sequence[str], data: Path | None, settings: Settings, limit: int | None) -> list[OpenBenchmark]:
    """The benchmarks, all opened before one is asked."""
    from ..evaluation.scoring.opening import open_benchmark

    options = [_options_of(name, settings) for name in names]
    _require_known(settings, names)
    opened = [open_benchmark(name, data, own, limit=limit) for name, own in zip(names, options, strict=True)]
    called = [each.spec.name for each in opened]
    if twice := next((name for name in called if called.count(name) > 1), ""):
        raise EvaluationError(f"Two benchmarks are called '{twice}', but each has a folder of its own. Rename a file.")
    return opened


def _options_of(name: str, settings: Settings) -> dict[str, Any]:
    """The options for one benchmark: those for all, and those that begin with its name."""
    prefix = f"{_called(name)}."
    return {key.removeprefix(prefix): value for key, value in settings if key.startswith(prefix) or "." not in key}


def _called(name: str) -> str:
    """What `--option NAME.KEY=VALUE` calls a benchmark, or a file of one's own."""
    from ..evaluation.scoring.opening import is_own_file

    return Path(name).stem if is_own_file(name) else name.partition("=")[0]


def _require_known(settings: Settings, names: Sequence[str]) -> None:
    known = [_called(name) for name in names]
    for key, _ in settings:
        if "." in key and not any(key.startswith(f"{name}.") for name in known):
            near = did_you_mean(key.rpartition(".")[0], known)
            raise click.UsageError(f"--option {key}: there is no such benchmark here.{near} Here: {', '.join(known)}.")


def _tell(reports: Sequence[BenchmarkReport], out: Path | None, *, gallery: int, as_json: bool) -> None:
    """Print the report, and write it where a folder is given."""
    from ..evaluation.reports.page import save_page
    from ..evaluation.reports.report import Report
    from ..evaluation.reports.table import table_of

    report: Report = Report(benchmarks=reports, command=_command())
    if out is not None:
        report.save_json(out / "report.json")
        save_page(report, out / "report.html", gallery=gallery)
    if as_json:
        click.echo(json_of(report.as_json()))
        return
    click.echo(table_of(report, width=_width()))
    if out is not None:
        click.echo(f"\nreport: {out / 'report.html'}")


def _command() -> str:
    """What was typed, without passwords."""
    from ..evaluation.reports.text import without_secrets

    ctx = click.get_current_context()
    return without_secrets([*ctx.command_path.split(), *ctx.meta.get(_ARGUMENTS, [])])


def _width() -> int:
    return min(120, shutil.get_terminal_size().columns)
