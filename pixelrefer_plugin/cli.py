"""The command line: `pixelrefer plugins`, `pixelrefer describe`, `pixelrefer quickstart`.

It parses, prints and reports errors. Torch and transformers are imported by the commands that need them, so
that help and listings are instant.
"""

from __future__ import annotations

import dataclasses
import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from . import __version__
from .errors import CheckpointError, PixelReferError, PromptError, RegionError

if TYPE_CHECKING:
    from .model import RegionModel
    from .processor import RegionProcessor
    from .regions import Region

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_EXTRA_MODULES = ("matplotlib", "skimage", "sklearn")
_ORDER_KEY = f"{__name__}.option_order"


class Failure(click.ClickException):
    """An error of the user's: one line on stderr, exit code 2."""

    exit_code = 2

    def __init__(self, error: Exception | str) -> None:
        super().__init__(" ".join(str(error).split()))


class ReportingGroup(click.Group):
    """Reports `PixelReferError` as one line instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PixelReferError as error:
            raise Failure(error) from error


class OrderedCommand(click.Command):
    """Keeps the order in which options were given, across options, which click forgets."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        order = self.make_parser(ctx).parse_args(args=list(args))[2]
        ctx.meta[_ORDER_KEY] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


@click.group(cls=ReportingGroup, context_settings={"max_content_width": 100})
@click.version_option(__version__, prog_name="pixelrefer")
def main() -> None:
    """Region referring for the multimodal LLM you already have.

    \b
    Example:
      pixelrefer quickstart
      pixelrefer describe cat.png --box 10,20,200,180 --model runs/quickstart/model
    """


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of a table.")
@click.option("--check", is_flag=True, help="Import each plugin; exit with 1 if any is broken.")
def plugins(as_json: bool, check: bool) -> None:
    """List the installed adapters and backbones. Without --check none is imported.

    \b
    Example:
      pixelrefer plugins --check
    """
    from .plugins import list_plugins

    found = list_plugins(check=check)
    rows = [dataclasses.asdict(plugin) for plugin in found]
    click.echo(json.dumps(rows, indent=2) if as_json else _table(rows))
    if check and any(plugin.is_broken for plugin in found):
        raise SystemExit(1)


def _table(rows: Sequence[dict[str, str]]) -> str:
    columns = ("name", "kind", "distribution", "version", "status")
    lines = [columns, *(tuple(row[column] for column in columns) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


@dataclass(frozen=True)
class GivenRegion:
    """A region as the command line has it, and read."""

    kind: str
    text: str
    region: Region


class RegionType(click.ParamType[GivenRegion]):
    """Reads the text of one region option."""

    def __init__(self, kind: str) -> None:
        self.name = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> GivenRegion:
        """Parse `value`; what is wrong with it is reported under the option's name."""
        try:
            return GivenRegion(self.name, value, _read_region(self.name, value))
        except PixelReferError as error:
            self.fail(str(error), param, ctx)


def _read_region(kind: str, text: str) -> Region:
    from .regions import Region

    match kind:
        case "box":
            return Region.from_box(_numbers(text))
        case "mask":
            return Region.from_png(text)
        case "polygon":
            return Region.from_polygon(_numbers(text))
        case "points":
            return Region.from_points([_numbers(point) for point in text.split(";")])
        case "scribble":
            return Region.from_scribble([_numbers(point) for point in text.split(";")])
        case _:
            return Region.from_rle(_read_rle(text))


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise RegionError(f"Expected numbers separated by commas, got '{text}'.") from error


def _read_rle(text: str) -> Any:
    try:
        return json.loads(text if text.lstrip().startswith("{") else Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        raise RegionError(
            f"Expected JSON or a JSON file, got '{text}', which cannot be read: {error.strerror}."
        ) from error
    except ValueError as error:
        raise RegionError(f"Expected JSON {{'size': [height, width], 'counts': ...}}: {error}.") from error


def _region_option(kind: str, metavar: str, text: str) -> Callable[[FunctionT], FunctionT]:
    return click.option(f"--{kind}", metavar=metavar, type=RegionType(kind), multiple=True, help=text)


@main.command(cls=OrderedCommand)
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--model", required=True, metavar="DIR_OR_ID", help="Model folder, or a plain backbone's id or path.")
@_region_option("box", "X1,Y1,X2,Y2", "A box in pixels of the original image.")
@_region_option("mask", "FILE.png", "A mask picture of the image's size.")
@_region_option("polygon", "X0,Y0,X1,Y1,...", "An outline of three or more points.")
@_region_option("points", "X,Y[;X,Y...]", "Clicks, together one region.")
@_region_option("rle", "JSON_OR_FILE", "COCO run-length encoding.")
@_region_option("scribble", "X,Y;X,Y[;...]", "A freehand line.")
@click.option("--prompt", help="What to ask, with one <region> for each region. By default each is described.")
@click.option("--adapter", help="Adapter for a plain backbone [saot]; a model folder names its own.")
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of streaming.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
def describe(
    image: Path,
    model: str,
    prompt: str | None,
    adapter: str | None,
    max_new_tokens: int,
    as_json: bool,
    device: str,
    **by_kind: tuple[GivenRegion, ...],
) -> None:
    """Ask a model about regions of IMAGE.

    Region options may be repeated and mixed; the first <region> of the prompt is the first one given. Without
    --prompt each region is asked about on its own.

    \b
    Example:
      pixelrefer describe street.jpg --model runs/quickstart/model --box 40,30,120,180
      pixelrefer describe street.jpg --model Qwen/Qwen2.5-VL-3B-Instruct --adapter saot \\
          --points 80,100 --mask car.png --prompt "Is <region> left of <region>?"
    """
    regions = _in_order(click.get_current_context().meta[_ORDER_KEY], by_kind)
    if not regions and prompt is None:
        raise click.UsageError("Give a region (--box, --mask, --polygon, ...), or a --prompt.")
    started = time.perf_counter()
    picture = _read_picture(image, regions, prompt)
    loaded = _LoadedModel.open(picture, model, adapter=adapter, device=device, max_new_tokens=max_new_tokens)
    groups = [regions] if prompt is not None else [[region] for region in regions]
    question = "Describe <region>." if prompt is None else prompt
    answers: list[str] = []
    tokens: list[int] = []
    for group in groups:
        if len(groups) > 1 and not as_json:
            click.secho(f"{group[0].kind} {group[0].text}", bold=True)
        answer, counts = loaded.ask(question, [given.region for given in group], stream=not as_json)
        answers.append(answer)
        tokens.extend(counts)
    if as_json:
        result = {
            "image": str(image),
            "model": model,
            "prompt": question,
            "regions": [
                {"kind": given.kind, "given": given.text, "tokens": count}
                for given, count in zip(regions, tokens, strict=True)
            ],
            "answers": answers,
            "seconds": round(time.perf_counter() - started, 3),
        }
        click.echo(json.dumps(result, ensure_ascii=False))


def _in_order(order: Sequence[str | None], by_kind: dict[str, tuple[GivenRegion, ...]]) -> list[GivenRegion]:
    """The regions as they stand on the command line, from the options' order and each option's values."""
    values = {kind: iter(given) for kind, given in by_kind.items()}
    return [next(values[name]) for name in order if name in values]


def _read_picture(image: Path, regions: Sequence[GivenRegion], prompt: str | None) -> Any:
    """The picture, once it is known that prompt and regions fit: before minutes go into loading a model."""
    from .images import load_image

    picture = load_image(image)
    for given in regions:
        try:
            given.region.to_mask((picture.height, picture.width))
        except RegionError as error:
            raise RegionError(f"--{given.kind} {given.text}: {error}") from error
    if prompt is not None and prompt.count("<region>") != len(regions):
        raise PromptError(
            f"The prompt has {prompt.count('<region>')} <region> but {len(regions)} regions were given. "
            "Each <region> stands for one region, in order."
        )
    return picture


@dataclass(frozen=True)
class _LoadedModel:
    """A loaded model and one picture."""

    picture: Any
    model: RegionModel
    processor: RegionProcessor
    max_new_tokens: int

    @classmethod
    def open(cls, picture: Any, source: str, *, adapter: str | None, device: str, max_new_tokens: int) -> _LoadedModel:
        """Load the model, with a warning where its adapter has never been trained."""
        from .checkpoint import is_model_folder
        from .plugins import get_adapter

        is_path = source.startswith(("/", ".", "~")) or source.count("/") > 1  # a hub id is NAME or OWNER/NAME
        if is_path and not Path(source).is_dir():
            raise CheckpointError(f"Expected a model folder at '{source}', found none.")
        if not is_model_folder(source):
            name = get_adapter(adapter or "saot").name
            click.echo(
                f"Warning: '{source}' is a plain backbone; its adapter '{name}' is untrained, so what it says "
                "about regions means nothing yet.",
                err=True,
            )
        _quiet_libraries()
        place = _torch_device(device)
        model, processor = _load(source, adapter)
        return cls(picture, model.to(place), processor, max_new_tokens)

    def ask(self, question: str, regions: list[Region], *, stream: bool) -> tuple[str, Sequence[int]]:
        """The answer, printed as it comes where `stream`, and the object tokens of each region."""
        from transformers import TextStreamer

        content = [{"type": "image", "image": self.picture}, {"type": "text", "text": question}]
        inputs = self.processor([{"role": "user", "content": content}], regions)
        inputs = inputs.to(self.model.device, dtype=self.model.backbone.dtype)
        streamer = TextStreamer(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        generated = self.model.generate(
            **inputs,
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            num_beams=1,
            streamer=streamer if stream else None,
        )
        counts = inputs["regions"].counts if regions else ()
        return self.processor.decode(generated, inputs)[0], counts


def _quiet_libraries() -> None:
    """Keep the libraries' progress bars and notes to developers out of what the user reads."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


def _load(source: str, adapter: str | None) -> tuple[RegionModel, RegionProcessor]:
    from .model import RegionModel
    from .processor import RegionProcessor

    try:
        model = RegionModel.from_pretrained(source, adapter=adapter)
        return model.eval(), RegionProcessor.from_pretrained(source, adapter=adapter)
    except OSError as error:  # what the hub's client and transformers raise for networks and missing files
        raise Failure(f"'{source}' cannot be loaded: {error}") from error


def _torch_device(device: str) -> str:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise Failure("--device cuda: torch finds no CUDA device here. Use --device cpu.")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


@main.command()
@click.option("--backbone", default="videollama3", show_default=True, help="Backbone plugin.")
@click.option("--adapter", default="saot", show_default=True, help="Adapter plugin.")
@click.option("--from-scratch", is_flag=True, help="Start from random weights; everything trains.")
@click.option("--steps", type=click.IntRange(min=1), help="Training steps, in place of the default number.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of data, weights and order.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs/quickstart"),
    show_default=True,
    help="Folder for model, metrics and pictures.",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier run.")
def quickstart(**options: Any) -> None:
    """Attach an adapter to a tiny backbone, train it on the CPU, ask about regions. Needs no network.

    \b
    Example:
      pixelrefer quickstart --adapter maskpool --out runs/maskpool
    """
    try:
        from .quickstart.run import QuickstartOptions, run_quickstart

        _quiet_libraries()
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
