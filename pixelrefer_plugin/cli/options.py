"""Options that need reading: regions and the frames they lie on, for `describe` and `segment`; `key=value`, for those
that ask a model (an adapter's, for `describe` a region source's too), for `validate` (an adapter's) and for `validate`,
`convert` and `preview` (a data format's). And what the commands that ask a model have in common.

Reads text and masks only. Whether a region fits its picture is known when the picture is; see `subject`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import iter_params_for_processing

from ..errors import PixelReferError, RegionError, shown
from ..json_text import parse_json, read_json
from .help import HelpContext
from .values import COUNT, MODEL, TEXT, WholeType, path_problem

if TYPE_CHECKING:
    from ..regions.region import Region, VideoRegion

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_ORDER_KEY = f"{__name__}.order"
_MASK_OF_FRAME = re.compile(r"(\d{1,9})\.png", re.IGNORECASE)


class CheckedCommand(click.Command):
    """Tells all values that are wrong at once; click itself stops at the first."""

    context_class = HelpContext

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            problems = self._problems(ctx, given)
            if len(problems) < 2:
                raise
            require_none(problems, ctx)
            raise AssertionError("there are problems") from error

    def _problems(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What is wrong with each value; nothing where the options themselves cannot be told apart."""
        try:
            values, _, order = self.make_parser(ctx).parse_args(args=args)
        except click.UsageError:
            return []
        problems = []
        for parameter in iter_params_for_processing(order, self.get_params(ctx)):
            given = values.get(parameter.name or "")
            is_list = parameter.multiple and isinstance(given, list | tuple)
            for value in given if is_list and given else [given]:
                one = {parameter.name: [value] if is_list and given else value}
                try:
                    parameter.handle_parse_result(ctx, {**values, **one}, [])
                except click.UsageError as error:
                    problems.append(error.format_message())
        return problems


def require_none(problems: Sequence[str], ctx: click.Context | None = None) -> None:
    """Refuse what the user wrote if anything is wrong with it: each problem on a line of its own."""
    if problems:
        raise click.UsageError("\nError: ".join(problems), ctx)


class OrderedCommand(CheckedCommand):
    """Keeps the order in which options were given, across options, which click forgets."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        rest = super().parse_args(ctx, args)
        order = self.make_parser(ctx).parse_args(args=given)[2]
        ctx.meta[_ORDER_KEY] = [parameter.name for parameter in order]
        return rest


# -- regions -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    """Which frame of a video a region lies on: by its index, or by the time when it is on screen."""

    text: str
    index: int | None = None
    time_s: float = 0.0


@dataclass(frozen=True)
class GivenRegion:
    """A region as the command line has it, and read.

    Attributes:
        kind: its option, without dashes.
        text: the option's value.
        region: what that is; of a folder of masks an object on several frames.
        at: None where no `--at` followed it.
        others: the same object on other frames: what `--same` joined to it, in order.
    """

    kind: str
    text: str
    region: Region | VideoRegion
    at: Moment | None = None
    others: tuple[GivenRegion, ...] = ()

    @property
    def shapes(self) -> tuple[GivenRegion, ...]:
        """It on each of its frames: itself alone, and the others alone."""
        return (replace(self, others=()), *self.others)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of masks, a frame's each."""
        return not hasattr(self.region, "kind")

    @property
    def title(self) -> str:
        """What to print above its answer."""
        return ", ".join(
            f"{each.kind} {each.text}" + (f" at {each.at.text}" if each.at else "") for each in self.shapes
        )

    @property
    def option(self) -> str:
        """As it stands on the command line, for messages."""
        return " --same ".join(
            f"--{each.kind} {each.text}" + (f" --at {each.at.text}" if each.at else "") for each in self.shapes
        )


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


def _read_region(kind: str, text: str) -> Region | VideoRegion:
    from ..regions.region import Region

    match kind:
        case "box":
            return Region.from_box(_numbers(text))
        case "mask":
            _require_path(text)
            return read_masks(Path(text)) if Path(text).is_dir() else Region.from_png(text)
        case "polygon":
            return Region.from_polygon(_numbers(text))
        case "points":
            return Region.from_points([_numbers(point) for point in text.split(";")])
        case "scribble":
            return Region.from_scribble([_numbers(point) for point in text.split(";")])
        case _:
            return Region.from_rle(_read_rle(text))


def read_masks(folder: Path) -> VideoRegion:
    """An object on several frames: a mask each, called by the frame's number. Where one is empty, it is not seen."""
    from ..regions.region import Region, VideoRegion

    regions: dict[int, Region] = {}
    absent: list[int] = []
    for path in _masks_in(folder):
        frame = int(path.stem)
        if frame in regions or frame in absent:
            raise RegionError(f"Folder '{folder}' has two masks of frame {frame}. Keep one.")
        if _is_empty(path):
            absent.append(frame)
        else:
            regions[frame] = Region.from_png(path)
    if not regions:
        raise RegionError(f"Folder '{folder}' has no mask that is not empty. 00012.png is the mask of frame 12.")
    return VideoRegion(regions, absent=tuple(absent))


def _masks_in(folder: Path) -> list[Path]:
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise RegionError(f"Folder '{folder}' cannot be read: {error.strerror or error}.") from error
    others = [path for path in paths if not _MASK_OF_FRAME.fullmatch(path.name) or not path.is_file()]
    objects = [path for path in others if path.is_dir()]
    if objects and len(objects) + 1 >= len(paths):  # what `segment` writes of a video
        raise RegionError(f"Folder '{folder}' holds folders of masks. Name one of them: '{objects[0]}'.")
    if others:
        raise RegionError(f"'{others[0]}' is no mask that is called by the number of a frame, as 00012.png is.")
    return paths


def _is_empty(path: Path) -> bool:
    from ..media.images import read_picture

    return read_picture(path, name=f"Mask '{path}'").getbbox() is None


def _require_path(text: str) -> None:
    if problem := path_problem(text, reads=True):
        raise RegionError(problem)


def _numbers(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError as error:
        raise RegionError(f"Expected numbers separated by commas, got {shown(text)}.") from error


def _read_rle(text: str) -> Any:
    is_json = text.lstrip().startswith("{")
    if not is_json:
        _require_path(text)
    try:
        return parse_json(text) if is_json else read_json(text)
    except OSError as error:
        raise RegionError(
            f"Expected JSON or a JSON file, got {shown(text)}, which cannot be read: {error.strerror or error}."
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
            self.fail(f"Expected a frame such as 12, or seconds such as 3.5s, got {shown(value)}.", param, ctx)


clip_option = click.option("--clip", is_flag=True, help="Cut off what of a region lies outside the picture.")


def region_options(command: FunctionT) -> FunctionT:
    """Adds an option for each kind of region, `--at`, `--same` and `--clip`."""
    described = [
        ("box", "X1,Y1,X2,Y2", "A box in pixels of the original picture."),
        (
            "mask",
            "FILE.png|DIR",
            "A mask picture of the picture's size; in a video also a folder of them, 00012.png for frame 12.",
        ),
        ("polygon", "X0,Y0,X1,Y1,...", "An outline of three or more points."),
        ("points", "X,Y[;X,Y...]", "Clicks, together one region."),
        ("rle", "JSON_OR_FILE", "COCO run-length encoding."),
        ("scribble", "X,Y;X,Y[;...]", "A freehand line."),
    ]
    at_help = "Frame (12) or time (3.5s) that the region before it lies on, in a video. [default: 0]"
    command = clip_option(command)
    same_help = "Between two regions of a video: one object, on two frames. May join more."
    command = click.option("--same", count=True, help=same_help)(command)
    command = click.option("--at", metavar="FRAME|SECONDS", type=MomentType(), multiple=True, help=at_help)(command)
    for kind, metavar, text in reversed(described):  # decorators apply from the last to the first
        command = click.option(f"--{kind}", metavar=metavar, type=RegionType(kind), multiple=True, help=text)(command)
    return command


def regions_in_order(
    ctx: click.Context, by_kind: Mapping[str, Sequence[GivenRegion]], at: Iterable[Moment]
) -> list[GivenRegion]:
    """The regions as they stand on the command line, each with the `--at` that follows it, `--same` ones joined.

    Args:
        ctx: of the `OrderedCommand`.
        by_kind: the values of each region option.
        at: the values of `--at`.
    """
    values = {kind: iter(given) for kind, given in by_kind.items()}
    moments = iter(at)
    objects: list[list[GivenRegion]] = []
    joins = False
    for name in ctx.meta[_ORDER_KEY]:
        if name in values:
            shape = next(values[name])
            objects[-1:] = [[*objects[-1], shape]] if joins else [*objects[-1:], [shape]]
            joins = False
        elif name == "at":
            moment = next(moments)
            if joins or not objects or objects[-1][-1].at:
                raise click.UsageError(_misplaced(moment))
            objects[-1][-1] = _placed(objects[-1][-1], moment)
        elif name == "same":
            if joins or not objects:
                raise click.UsageError(_MISPLACED_SAME)
            joins = True
    if joins:
        raise click.UsageError(_MISPLACED_SAME)
    return [replace(first, others=tuple(others)) for first, *others in objects]


_MISPLACED_SAME = (
    "--same stands between two regions that are one object on two frames, such as --box 10,20,60,90 --at 12 --same "
    "--box 14,20,64,90 --at 15."
)


def _misplaced(moment: Moment) -> str:
    return (
        f"--at {moment.text} follows no region of its own: write each --at behind the region option that it belongs "
        "to, such as --box 10,20,60,90 --at 12."
    )


def _placed(shape: GivenRegion, moment: Moment) -> GivenRegion:
    if shape.is_folder:
        raise click.UsageError(
            f"--at {moment.text} follows {shape.option}, a folder of masks, whose names say on which frames they lie."
        )
    return replace(shape, at=moment)


# -- options of a plugin ------------------------------------------------------------------------------------


class SettingType(click.ParamType[tuple[str, Any]]):
    """Reads `key=value`, the value as JSON where it is JSON, else as it stands."""

    name = "setting"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Parse `value`."""
        key, equals, text = value.partition("=")
        if not key or not equals:
            self.fail(f"Expected key=value, got {shown(value)}.", param, ctx)
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


adapter_name_option = click.option(
    "--adapter",
    type=TEXT,
    help="Adapter of a plain backbone; a model folder names its own. [default: one that needs no training, where a "
    "command takes one]",
)


# -- options that several commands have ---------------------------------------------------------------------


model_option = click.option(
    "--model", required=True, metavar="DIR_OR_ID", type=MODEL, help="Model folder, or a plain backbone's id or path."
)

device_option = click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)


def dtype_option(help: str = "Of the weights; auto is the model's own.") -> Callable[[FunctionT], FunctionT]:
    """Adds `--dtype`."""
    choice = click.Choice(["auto", "bfloat16", "float16", "float32"])
    return click.option("--dtype", type=choice, default="auto", show_default=True, help=help)


def seed_option(help: str) -> Callable[[FunctionT], FunctionT]:
    """Adds `--seed`."""
    in_32_bits = WholeType(0, 2**32 - 1)  # what all generators of random numbers take
    return click.option("--seed", type=in_32_bits, default=0, show_default=True, help=help)


POSITIVE = click.FloatRange(min=0, min_open=True)


def frames_options(command: FunctionT) -> FunctionT:
    """Adds what says which frames of a video are read: `--frames`, `--fps` and `--frame-rate`."""
    option = click.option("--frame-rate", type=POSITIVE, help="Frames per second of a folder of frames. [default: 1]")
    return sampling_options(option(command))


def sampling_options(command: FunctionT) -> FunctionT:
    """Adds what says how frames are sampled: `--frames` and `--fps`."""
    for option in (
        click.option("--fps", type=POSITIVE, help="Sample so many per second, 128 at most."),
        click.option(
            "--frames",
            type=COUNT,
            help="Sample so many frames, spread evenly. [as the model, or 16]",
        ),
    ):
        command = option(command)
    return command


def loading_options(command: FunctionT) -> FunctionT:
    """Adds what says how a model is loaded and how long its answers may be."""
    for option in (
        click.option("--max-new-tokens", type=COUNT, default=128, show_default=True),
        adapter_option,
        adapter_name_option,
        click.option(
            "--backbone",
            metavar="DIR_OR_ID",
            type=MODEL,
            help="Where the backbone of a model folder is, if it has moved.",
        ),
    ):
        command = option(command)
    return command
