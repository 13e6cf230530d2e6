"""`pixelrefer predict`: a model's answers to the questions of data files, tens of thousands of them overnight."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..evaluation.predicting.processes import is_first_process, join_the_others, leave_the_others
from .data import MAX_LINES, data_options, limit_option, progress_bar, quiet, require_other_file
from .options import CheckedCommand, device_option, dtype_option, loading_options, sampling_options
from .reporting import INTERRUPTED, json_of, plain, quiet_libraries
from .values import COUNT, MODEL, READ, TEXT, WRITTEN

if TYPE_CHECKING:
    from ..evaluation.asking.engine import ModelEngine
    from ..evaluation.asking.question_file import Asking, FileQuestions
    from ..evaluation.predicting.answering import Prediction
    from ..media.video import FrameSampling


@click.command(cls=CheckedCommand, short_help="Answer all questions of data files.")
@click.argument("model", metavar="MODEL", type=MODEL)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=READ)
@click.option("--out", required=True, metavar="FILE.jsonl", type=WRITTEN, help="The answers, a JSON object a line.")
@click.option(
    "--prompt",
    type=TEXT,
    help="Ask this, with one <region>, about each region of each sample, in place of the files' own questions.",
)
@click.option("--segment", is_flag=True, help="Ask for masks with every question.")
@data_options
@click.option("--batch-size", type=COUNT, default=8, show_default=True, help="Questions asked at once.")
@click.option(
    "--on-bad-sample",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="Stop at a sample that cannot be used, or note why in its line and go on.",
)
@limit_option
@sampling_options
@loading_options
@dtype_option()
@click.option("--overwrite", is_flag=True, help="Replace answers of another model, of other files or settings.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
@device_option
def predict(model: str, files: tuple[Path, ...], out: Path, as_json: bool, **how: Any) -> None:
    """Answer all questions of data files with MODEL: a model folder, or a plain backbone's id or path. The latter is
    asked with the adapter without training that suits it, which is told; --adapter names another.

    A FILE is of any data format, or a folder of such. Samples may end without an answer. Each answer is kept as soon as
    it is made: after an interruption, the same command goes on from there. docs/predict.md has the format of --out.

    \b
    Example:
      pixelrefer predict runs/street/model street.jsonl --out answers.jsonl
      pixelrefer predict runs/street/model regions.jsonl --out answers.jsonl \\
          --prompt "Describe <region>." --on-bad-sample skip --batch-size 32
      accelerate launch --num_processes 8 -m pixelrefer_plugin predict \\
          runs/street/model street.jsonl --out answers.jsonl
    """
    for file in files:
        require_other_file("--out", out, file)
    if how["frames"] and how["fps"]:
        raise click.UsageError("--fps and --frames exclude each other.")
    try:
        with quiet():
            result = _predict(model, files, out, **how)
    except KeyboardInterrupt:
        click.echo("\nStopped. What is answered is kept: the same command goes on from there.", err=True)
        raise SystemExit(INTERRUPTED) from None
    finally:
        leave_the_others()
    if is_first_process():
        click.echo(json_of(_as_json(result)) if as_json else _as_text(result))


def _predict(
    model: str,
    files: tuple[Path, ...],
    out: Path,
    *,
    prompt: str | None,
    segment: bool,
    format_name: str,
    options: tuple[tuple[str, Any], ...],
    media_root: Path | None,
    strict_media: bool,
    limit: int | None,
    on_bad_sample: Any,
    batch_size: int,
    overwrite: bool,
    **loading: Any,
) -> Prediction:
    from ..evaluation.asking.question_file import Asking, data_files, open_files
    from ..evaluation.predicting.answering import answer_questions
    from ..evaluation.predicting.fingerprints import digest_of_path
    from ..evaluation.predicting.progress import Silent, on_stderr
    from .asking import choose_adapter, require_adapter, require_mask_head, require_model

    require_model(model)
    (require_mask_head if segment else require_adapter)(model, loading["adapter"])
    asking, found = Asking(prompt, segment), data_files(files)
    datasets = open_files(
        found,
        format=format_name,
        media_root=media_root,
        strict_media=strict_media,
        options=dict(options),
        use=asking.use,
    )
    quiet_libraries()
    join_the_others(loading["device"])
    questions = _read(datasets, asking, on_bad_sample, limit)
    chosen = choose_adapter(model, loading["adapter"])
    fingerprint = {
        "model": _told(model),
        "files": [f"{path.name} {digest_of_path(path)}" for path in found],
        "prompt": prompt,
        "segment": segment,
        "format": f"{format_name} {dict(options)}",
        "limit": limit,
        **{name: value for name, value in loading.items() if name != "device"},
        "adapter": chosen.name,
    }
    return answer_questions(
        lambda: _engine(model, **loading),
        questions,
        out,
        batch_size=batch_size,
        fingerprint=fingerprint,
        on_bad_sample=on_bad_sample,
        overwrite=overwrite,
        progress=on_stderr() if is_first_process() else Silent(),
    )


def _read(datasets: Any, asking: Asking, on_bad_sample: Any, limit: int | None) -> FileQuestions:
    from ..evaluation.asking.question_file import FileQuestions

    total = sum(map(len, datasets))
    with progress_bar(min(limit or total, total), "Reading", hidden=not is_first_process()) as advance:
        return FileQuestions(datasets, asking, on_bad_sample=on_bad_sample, limit=limit, progress=advance)


def _engine(
    model: str,
    *,
    backbone: str | None,
    adapter: str | None,
    adapter_options: tuple[tuple[str, Any], ...],
    device: str,
    dtype: str,
    max_new_tokens: int,
    frames: int | None,
    fps: float | None,
) -> ModelEngine:
    from ..evaluation.asking.engine import ModelEngine
    from .asking import LoadedModel

    loaded = LoadedModel.open(
        model,
        backbone=backbone,
        adapter=adapter,
        adapter_options=dict(adapter_options),
        device=device,
        dtype=dtype,
        max_new_tokens=max_new_tokens,
    )
    if frames or fps:
        loaded.processor.sampling = _sampling(frames, fps)
    return ModelEngine(loaded.model, loaded.processor, max_new_tokens=max_new_tokens)


def _sampling(frames: int | None, fps: float | None) -> FrameSampling:
    from ..media.video import FrameSampling

    return FrameSampling(num_frames=frames, fps=fps, max_frames=max(frames or 0, FrameSampling.max_frames))


def _told(model: str) -> str:
    """A model's name, and where it is a folder here, a digest of its files."""
    from ..evaluation.predicting.fingerprints import digest_of_path

    return f"{Path(model).resolve().name} {digest_of_path(model)}" if Path(model).is_dir() else model


# -- results -----------------------------------------------------------------------------------------------


def _as_text(result: Prediction) -> str:
    failures = result.failures
    lines = [f"Not asked: {plain(f'{id}: {why}')}" for id, why in [*failures.reasons.items()][:MAX_LINES]]
    if failures.number > len(lines):
        lines.append(f"... and {failures.number - len(lines):,} more.")
    if result.was_finished:
        return f"'{result.path}' has all {result.questions:,} answers already; nothing was asked."
    told = f"Wrote {result.questions:,} answers to '{result.path}'"
    return "\n".join([*lines, told + (f", {failures.number:,} of them without words." if failures.number else ".")])


def _as_json(result: Prediction) -> dict[str, Any]:
    return {
        "out": str(result.path),
        "questions": result.questions,
        "asked": result.asked,
        "failed": result.failures.number,
        "failures": dict(result.failures.reasons),
        "seconds": round(result.seconds, 3),
    }
