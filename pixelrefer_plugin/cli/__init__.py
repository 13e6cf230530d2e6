"""The command line: `pixelrefer plugins`, `describe` and `quickstart`; from modules beside it `segment`, `chat`,
`predict`, `evaluate`, `score`, `benchmarks`, `validate`, `convert`, `preview`, `import-official`, `train`, `ablate`,
`merge` and `samples`.

It parses, prints and reports errors. Torch and transformers are imported by the commands that need them, so
that help and listings are instant.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .chatting import chat
from .checking import validate
from .data import convert
from .evaluating import benchmarks, evaluate, score
from .importing import import_official
from .listing import Listed, table_of, training_free_of
from .options import (
    GivenRegion,
    Moment,
    OrderedCommand,
    device_option,
    dtype_option,
    frames_options,
    loading_options,
    model_option,
    region_options,
    regions_in_order,
    seed_option,
    setting_option,
)
from .predicting import predict
from .previewing import preview
from .reporting import Failure, ReportingGroup, json_of, plain, quiet_libraries
from .sampling import samples
from .segmenting import segment
from .training import ablate, merge, train
from .values import COUNT, MODEL, READ, TEXT, WRITTEN

if TYPE_CHECKING:
    from .asking import LoadedModel
    from .subject import Request, Subject

_DEFAULT_QUESTION = "Describe <region>."
_EXTRA_MODULES = ("matplotlib", "skimage", "sklearn")


@click.group(cls=ReportingGroup, context_settings={"max_content_width": 100})
@click.version_option(package_name="pixelrefer-plugin", prog_name="pixelrefer")
def main() -> None:
    """Region referring for the multimodal LLM you already have.

    \b
    Example:
      pixelrefer quickstart
      pixelrefer samples
      pixelrefer describe street.jpg --box 120,40,260,310 --model runs/quickstart/model
    """


@main.command(short_help="List the installed plugins.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@click.option("--check", is_flag=True, help="Import and try each plugin; exit with 1 if any is broken.")
def plugins(as_json: bool, check: bool) -> None:
    """List the installed adapters, backbones, region sources, data formats and benchmarks. Without --check none is
    imported.

    Below the table stand the adapters that need no training: with them a model answers about regions as it is.

    With --check whatever else a plugin registers follows it, under its own name. Each is tried: its options, and the
    small model or file that it makes for tests.

    \b
    Example:
      pixelrefer plugins --check
    """
    from ..plugins import list_plugins

    found = [Listed(plugin) for plugin in list_plugins(check=check)]
    if check:
        quiet_libraries()
        for each in found:
            each.try_it()
    if as_json:
        click.echo(json.dumps([each.as_json() for each in found], indent=2))
    else:
        click.echo(f"{table_of(found)}\n\n{training_free_of(found)}")
    if check and any(each.fails for each in found):
        raise SystemExit(1)


@main.command(cls=OrderedCommand, short_help="Ask a model about regions of a picture or video.")
@click.argument("path", metavar="IMAGE|VIDEO", type=READ)
@model_option
@region_options
@click.option(
    "--prompt",
    type=TEXT,
    help="What to ask, with a <region> for each region; with one alone, it is asked of each. By default each is "
    "described.",
)
@click.option("--track", is_flag=True, help="Follow each region through the sampled frames.")
@click.option(
    "--source",
    metavar="NAME",
    type=TEXT,
    help="Region source of the objects' masks. [with --track the only one installed]",
)
@setting_option(
    "--source-option",
    "source_options",
    help="An option of the region source, such as checkpoint=DIR_OR_ID.",
)
@frames_options
@click.option(
    "--save-overlay",
    "overlay",
    metavar="FILE",
    type=WRITTEN,
    help="Draw what was asked about, numbered in the order given: .png or .jpg; of a video .mp4 or .gif.",
)
@loading_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of streaming.")
@device_option
def describe(
    path: Path,
    model: str,
    prompt: str | None,
    track: bool,
    source: str | None,
    source_options: tuple[tuple[str, Any], ...],
    frames: int | None,
    fps: float | None,
    frame_rate: float | None,
    overlay: Path | None,
    backbone: str | None,
    adapter: str | None,
    adapter_options: tuple[tuple[str, Any], ...],
    max_new_tokens: int,
    as_json: bool,
    device: str,
    at: tuple[Moment, ...],
    same: int,
    clip: bool,
    **by_kind: tuple[GivenRegion, ...],
) -> None:
    """Ask a model about regions of a picture, a video, or a folder of its frames.

    Region options may be repeated and mixed; the first <region> of the prompt is the first one given. Without
    --prompt, or where its one <region> stands for several, each region is asked about in a conversation of its own, in
    a video on the frames sampled for all.

    A plain backbone is asked with the adapter without training that suits it, which is told; --adapter names another.

    \b
    Example:
      pixelrefer describe street.jpg --model runs/quickstart/model --box 40,30,120,180
      pixelrefer describe street.jpg --model OWNER/BACKBONE \\
          --points 80,100 --mask car.png --prompt "Is <region> left of <region>?"
      pixelrefer describe street.mp4 --model runs/street/model --track \\
          --box 40,30,120,180 --at 3.5s --points 80,100 --at 12 \\
          --prompt "Does <region> pass <region>?" --save-overlay asked.mp4
      pixelrefer describe street.mp4 --model runs/street/model --mask masks/object-1 \\
          --box 40,30,120,180 --at 12 --same --box 60,30,140,180 --at 20
    """
    from .asking import LoadedModel, require_adapter, require_model
    from .subject import Request, prepare

    started = time.perf_counter()
    request = Request(
        path=path,
        given=regions_in_order(click.get_current_context(), by_kind, at),
        prompt=prompt,
        model=model,
        track=track,
        source=source,
        source_options=dict(source_options),
        device=device,
        frames=frames,
        fps=fps,
        frame_rate=frame_rate,
        clip=clip,
        overlay=overlay,
    )
    require_model(model)
    require_adapter(model, adapter)
    subject = prepare(request)
    loaded = LoadedModel.open(
        model,
        backbone=backbone,
        adapter=adapter,
        adapter_options=dict(adapter_options),
        device=device,
        max_new_tokens=max_new_tokens,
    )
    answers, tokens = _ask(loaded, request, subject, stream=not as_json)
    if as_json:
        result = _as_json(request, subject, answers, tokens)
        result |= {"adapter": loaded.model.adapter_spec.name, "seconds": round(time.perf_counter() - started, 3)}
        click.echo(json_of(result))


def _ask(loaded: LoadedModel, request: Request, subject: Subject, *, stream: bool) -> tuple[list[str], list[int]]:
    """The answers, to the prompt or about each region, and each region's object tokens."""
    question = _DEFAULT_QUESTION if request.prompt is None else request.prompt
    if not request.is_about_each:
        answer, tokens = loaded.ask(question, subject.part, subject.regions, stream=stream)
        return [answer], list(tokens)
    answers: list[str] = []
    counts: list[int] = []
    for given, region in zip(request.given, subject.regions, strict=True):
        if stream and len(request.given) > 1:
            click.secho(plain(given.title), bold=True)
        answer, tokens = loaded.ask(question, subject.part, [region], stream=stream)
        answers.append(answer)
        counts.extend(tokens)
    return answers, counts


def _as_json(request: Request, subject: Subject, answers: Sequence[str], tokens: Sequence[int]) -> dict[str, Any]:
    kind = subject.part["type"]
    result: dict[str, Any] = {
        kind: str(request.path),
        "model": request.model,
        "prompt": request.prompt if request.prompt is not None else _DEFAULT_QUESTION,
        "regions": [
            {"kind": given.kind, "given": given.text, **_same(given), "tokens": count}
            for given, count in zip(request.given, tokens, strict=True)
        ],
        "answers": answers,
    }
    if kind == "video":
        video: Any = subject.media
        result["frames"] = {"indices": video.frame_indices, "times_s": video.times_s}
        for entry, frames in zip(result["regions"], subject.frames_of_regions, strict=True):
            entry["frames"] = frames
    if request.overlay is not None:
        result["overlay"] = str(request.overlay)
    return result


def _same(given: GivenRegion) -> dict[str, Any]:
    """What was given for the same object on other frames, if anything was."""
    others = [{"kind": each.kind, "given": each.text} for each in given.others]
    return {"same": others} if others else {}


@main.command(short_help="Train a tiny model on the CPU and ask it about regions.")
@click.option(
    "--backbone", type=TEXT, help="Backbone plugin; by default the one whose pre-trained tiny model suits the adapter."
)
@click.option("--adapter", type=TEXT, default="saot", show_default=True, help="Adapter plugin.")
@click.option("--video", is_flag=True, help="Ask about digits that move through clips, instead of pictures.")
@click.option("--from-scratch", is_flag=True, help="Start from random weights; everything trains.")
@click.option(
    "--model",
    metavar="DIR_OR_ID",
    type=MODEL,
    help="A real backbone: asked with every adapter that needs no training, then taught the digits.",
)
@click.option("--steps", type=COUNT, help="Training steps, in place of the default number.")
@click.option(
    "--batch", "pictures_per_step", type=COUNT, help="Pictures in a training step. [default: 8; with --model 4]"
)
@dtype_option("Of a real backbone's weights; auto is bfloat16 on a GPU and float32 on a CPU.")
@device_option
@seed_option("Of data, weights and order.")
@click.option(
    "--out",
    type=WRITTEN,
    default=Path("runs/quickstart"),
    show_default=True,
    help="Folder for model, metrics and pictures.",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run.")
def quickstart(**options: Any) -> None:
    """Attach an adapter to a tiny backbone, train it on the CPU, ask about regions. Needs no network.

    With --model the same on a real backbone, which must be here or on the hub. It is first asked about regions of some
    pictures with every adapter that needs no training; without_training.png shows the answers.

    \b
    Example:
      pixelrefer quickstart --model HuggingFaceTB/SmolVLM-256M-Instruct --out runs/smolvlm
      pixelrefer quickstart --adapter maskpool --out runs/maskpool
      pixelrefer quickstart --video --adapter oci --out runs/clips
      pixelrefer quickstart --adapter unipixel --out runs/masks
    """
    try:
        from ..quickstart.run import QuickstartOptions, run_quickstart

        quiet_libraries()
        run_quickstart(QuickstartOptions(**{name: value for name, value in options.items() if value is not None}))
    except ImportError as error:
        _explain_missing_extra(error)


def _explain_missing_extra(error: ImportError) -> NoReturn:
    missing = (error.name or "").partition(".")[0]
    if missing not in _EXTRA_MODULES:
        raise error
    raise Failure(
        f"The quickstart needs {missing}, which is missing: pip install 'pixelrefer-plugin[quickstart]'."
    ) from error


main.add_command(segment)
main.add_command(chat)
main.add_command(predict)
main.add_command(import_official)
main.add_command(train)
main.add_command(ablate)
main.add_command(merge)
main.add_command(validate)
main.add_command(convert)
main.add_command(preview)
main.add_command(evaluate)
main.add_command(score)
main.add_command(benchmarks)
main.add_command(samples)
