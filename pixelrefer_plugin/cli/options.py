"""Options that need reading: regions and the frames they lie on, for `describe` and `segment`; `key=value`, for those
that ask a model (an adapter's, for `describe` a region source's too), for `validate` (an adapter's) and for `validate`,
`convert` and `preview` (a data format's). And what the commands that ask a model have in common.

Reads text only. Whether a region fits its picture is known when the picture is; see `subject`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import PixelReferError, RegionError
from ..json_text import parse_json, read_json

if TYPE_CHECKING:
    from ..regions.region import Region

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_ORDER_KEY = f"{__name__}.order"


class OrderedCommand(click.Command):
    """Keeps the order in which options were given, across options, which click forgets."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        order = self.make_parser(ctx).parse_args(args=list(args))[2]
        ctx.meta[_ORDER_KEY] = [parameter.name for parameter in order]
        return super().parse_args(ctx, args)


# -- regions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """Which frame of a video a region lies on: by its index, or by the time when it is on screen."""

    text: str
    index: int | None = None
    time_s: float = 0.0


@dataclass(frozen=True)
class GivenRegion:
    """A region as the command line has it, and read; `at` is None where no `--at` followed it."""

    kind: str
    text: str
    region: Region
    at: Moment | None = None

    @property
    def title(self) -> str:
        """What to print above its answer."""
        return f"{self.kind} {self.text}" + (f" at {self.at.text}" if self.at else "")

    @property
    def option(self) -> str:
        """As it stands on the command line, for messages."""
        return f"--{self.kind} {self.text}" + (f" --at {self.at.text}" if self.at else "")


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
    from ..regions.region import Region

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
        return parse_json(text) if text.lstrip().startswith("{") else read_json(text)
    except OSError as error:
        raise RegionError(
            f"Expected JSON or a JSON file, got '{text}', which cannot be read: {error.strerror or error}."
        ) from error
    except ValueError as error:
        raise RegionError(f"Expected JSON {{'size': [height, width], 'counts': ...}}: {error}.") from error


class MomentType(click.ParamType[Moment]):
    """Reads `12`, the index of a frame, or `3.5s`, a time."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Moment:
        """Parse `value`."""
        try:
            if value.endswith("s"):
                return Moment(value, time_s=float(value[:-1]))
            return Moment(value, index=int(value))
        except ValueError:
            self.fail(f"Expected a frame such as 12, or seconds such as 3.5s, got '{value}'.", param, ctx)


def region_options(command: FunctionT) -> FunctionT:
    """Adds an option for each kind of region, and `--at`."""
    described = [
        ("box", "X1,Y1,X2,Y2", "A box in pixels of the original picture."),
        ("mask", "FILE.png", "A mask picture of the picture's size."),
        ("polygon", "X0,Y0,X1,Y1,...", "An outline of three or more points."),
        ("points", "X,Y[;X,Y...]", "Clicks, together one region."),
        ("rle", "JSON_OR_FILE", "COCO run-length encoding."),
        ("scribble", "X,Y;X,Y[;...]", "A freehand line."),
    ]
    at_help = "Frame (12) or time (3.5s) that the region before it lies on, in a video. [default: 0]"
    command = click.option("--at", metavar="FRAME|SECONDS", type=MomentType(), multiple=True, help=at_help)(command)
    for kind, metavar, text in reversed(described):  # decorators apply from the last to the first
        command = click.option(f"--{kind}", metavar=metavar, type=RegionType(kind), multiple=True, help=text)(command)
    return command


def regions_in_order(
    ctx: click.Context, by_kind: Mapping[str, Sequence[GivenRegion]], at: Iterable[Moment]
) -> list[GivenRegion]:
    """The regions as they stand on the command line, each with the `--at` that follows it.

    Args:
        ctx: of the `OrderedCommand`.
        by_kind: the values of each region option.
        at: the values of `--at`.
    """
    values = {kind: iter(given) for kind, given in by_kind.items()}
    moments = iter(at)
    regions: list[GivenRegion] = []
    for name in ctx.meta[_ORDER_KEY]:
        if name in values:
            regions.append(next(values[name]))
        elif name == "at":
            moment = next(moments)
            if not regions or regions[-1].at:
                raise click.UsageError(
                    f"--at {moment.text} follows no region of its own: write each --at behind the region option "
                    "that it belongs to, such as --box 10,20,60,90 --at 12."
                )
            regions[-1] = replace(regions[-1], at=moment)
    return regions


# -- options of a plugin ------------------------------------------------------------------------------------


class SettingType(click.ParamType[tuple[str, Any]]):
    """Reads `key=value`, the value as JSON where it is JSON, else as it stands."""

    name = "setting"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Parse `value`."""
        key, equals, text = value.partition("=")
        if not key or not equals:
            self.fail(f"Expected key=value, got '{value}'.", param, ctx)
        try:
            return key, parse_json(text)
        except ValueError:
            return key, text


def setting_option(name: str, variable: str, *, help: str) -> Callable[[FunctionT], FunctionT]:
    """Adds an option `KEY=VALUE` that may be given several times."""
    return click.option(name, variable, metavar="KEY=VALUE", type=SettingType(), multiple=True, help=help)


adapter_option = setting_option(
    "--adapter-option",
    "adapter_options",
    help="An option of the adapter, or preset=NAME for a set of them; for a plain backbone.",
)


# -- options that several commands have ---------------------------------------------------------------------


model_option = click.option(
    "--model", required=True, metavar="DIR_OR_ID", help="Model folder, or a plain backbone's id or path."
)

device_option = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)


def frames_options(command: FunctionT) -> FunctionT:
    """Adds what says which frames of a video are read: `--frames`, `--fps` and `--frame-rate`."""
    positive = click.FloatRange(min=0, min_open=True)
    for option in (
        click.option("--frame-rate", type=positive, help="Frames per second of a folder of frames. [default: 1]"),
        click.option("--fps", type=positive, help="Sample so many per second, 128 at most."),
        click.option(
            "--frames",
            type=click.IntRange(min=1),
            help="Sample so many frames, spread evenly. [as the model, or 16]",
        ),
    ):
        command = option(command)
    return command


def loading_options(command: FunctionT) -> FunctionT:
    """Adds what says how a model is loaded and how long its answers may be."""
    for option in (
        click.option("--max-new-tokens", type=click.IntRange(min=1), default=128, show_default=True),
        adapter_option,
        click.option("--adapter", help="Adapter, which a plain backbone needs; a model folder names its own."),
        click.option(
            "--backbone", metavar="DIR_OR_ID", help="Where the backbone of a model folder is, if it has moved."
        ),
    ):
        command = option(command)
    return command
