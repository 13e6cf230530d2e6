"""`pixelrefer chat`: questions about one picture or video in a terminal, its objects called by number.

A line is a question, or a command that begins with a slash. What goes wrong is said, and the chat goes on.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import PixelReferError, PromptError, RegionError, counted, shown
from .options import (
    CheckedCommand,
    clip_option,
    device_option,
    frames_options,
    loading_options,
    model_option,
    read_masks,
)
from .reporting import Failure, plain, told
from .segmenting import REQUEST
from .typed import Typed, as_path, help_of, id_of, path_of, words_of
from .values import MOST_TEXT, READ

if TYPE_CHECKING:
    from ..chat import Chat, Reply
    from ..conversation.memory import MemoryObject, ObjectMemory
    from ..media.video import Video
    from ..regions.region import Region, VideoRegion
    from .asking import LoadedModel
    from .subject import Request


@click.command(cls=CheckedCommand, short_help="Talk about a picture or video, in a terminal or by lines.")
@click.argument("path", metavar="IMAGE|VIDEO", type=READ)
@model_option
@click.option(
    "--memory",
    metavar="FILE.json",
    type=READ,
    help="Objects to begin with: what /save wrote, or the objects.json of `pixelrefer segment`. Of a video, the frames "
    "that they lie on are sampled too.",
)
@click.option("--force-mask", is_flag=True, help="Let /segment give a mask though the model would not.")
@click.option("--list-objects", is_flag=True, help="List all objects before the first question, if trained so.")
@clip_option
@frames_options
@loading_options
@device_option
def chat(
    path: Path,
    model: str,
    memory: Path | None,
    force_mask: bool,
    list_objects: bool,
    clip: bool,
    frames: int | None,
    fps: float | None,
    frame_rate: float | None,
    backbone: str | None,
    adapter: str | None,
    adapter_options: tuple[tuple[str, Any], ...],
    max_new_tokens: int,
    device: str,
) -> None:
    """Talk about a picture, a video, or a folder of its frames: in a terminal, or by lines on stdin.

    A line is a question. /click, /box, /polygon, /scribble and /mask make objects, which questions call by number;
    what the model gives masks of becomes an object too. /help lists the commands. A plain backbone is asked with the
    adapter without training that suits it; --adapter names another.

    \b
    Example:
      pixelrefer chat street.jpg --model runs/street/model
      printf '/click 80 100 car\\nWhat is [1]?\\n' | pixelrefer chat street.jpg --model runs/street/model
    """
    from ..chat import Chat
    from ..conversation.memory import ObjectMemory
    from .asking import LoadedModel, require_adapter, require_model
    from .subject import Request, prepare

    request = Request(
        path=path,
        given=(),
        prompt="",
        model=model,
        frames=frames,
        fps=fps,
        frame_rate=frame_rate,
        clip=clip,
        named_frames=() if memory is None else ObjectMemory.saved_frames(memory),
    )
    require_model(model)
    require_adapter(model, adapter)
    subject = prepare(request)
    known = ObjectMemory(subject.media) if memory is None else ObjectMemory.load(memory, subject.media)
    loaded = LoadedModel.open(
        model,
        backbone=backbone,
        adapter=adapter,
        adapter_options=dict(adapter_options),
        device=device,
        max_new_tokens=max_new_tokens,
    )
    talk = Chat(loaded.model, loaded.processor, subject.media, memory=known, list_objects=list_objects)
    terminal = Terminal(talk, loaded, request, times_s=subject.times_s, force_mask=force_mask)
    for line in _lines():
        try:
            if not terminal.take(line):
                return
        except KeyboardInterrupt:
            if not sys.stdin.isatty():
                raise
            click.echo("\nStopped; nothing of it is remembered.", err=True)


def _lines() -> Iterator[str]:
    """What is typed or piped in, to its end."""
    if sys.stdin is None:  # it was closed
        return
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes of another encoding stop no chat
    if not sys.stdin.isatty():
        while line := sys.stdin.readline(MOST_TEXT + 1):
            if len(line) > MOST_TEXT:
                raise Failure(f"A line on stdin is longer than {MOST_TEXT:,} characters, which is no question. Cut it.")
            yield line
        return
    with suppress(ImportError):  # where there is none, `input` goes without editing
        import readline  # noqa: F401
    click.echo("Ask about it. /help lists the commands, /quit ends.")
    while True:
        try:
            line = input("> ")
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:  # often meant for an answer that has just ended, and not for all that was said
            click.echo("\n/quit or Ctrl-D ends.")
            continue
        yield line


class Terminal:
    """Takes lines, one after another.

    Args:
        chat: the conversation.
        loaded: its model.
        request: what it is about.
        times_s: when each frame of a video is shown.
        force_mask: of `/segment`.
    """

    def __init__(
        self, chat: Chat, loaded: LoadedModel, request: Request, *, times_s: Sequence[float], force_mask: bool
    ) -> None:
        self._chat = chat
        self._loaded = loaded
        self._request = request
        self._times_s = times_s
        self._force_mask = force_mask
        self._gives_masks = loaded.model.adapter_spec.masks is not None
        self._commands: dict[str, Callable[[str], None]] = {
            "/click": self._click,
            "/box": self._box,
            "/polygon": self._polygon,
            "/scribble": self._scribble,
            "/mask": self._mask,
            "/segment": self._segment,
            "/objects": self._list,
            "/rename": self._rename,
            "/drop": self._drop,
            "/draw": self._draw,
            "/save": self._save,
            "/load": self._load,
            "/undo": self._undo,
            "/clear": self._clear,
            "/help": lambda text: click.echo(help_of(shutil.get_terminal_size().columns)),
        }
        self._steps: list[ObjectMemory | None] = []  # of what can be undone: the objects before it; None: a question

    def take(self, line: str) -> bool:
        """Do what a line says; whether to go on."""
        command, _, rest = line.strip().partition(" ")
        if command == "/quit":
            return False
        before, num_turns = self._memory.copy(), len(self._chat.history)
        try:
            if command.startswith("/"):
                self._command(command)(rest.strip())
            elif command:
                self._ask(line.strip(), force_mask=False)
        except PixelReferError as error:
            click.echo(f"Error: {told(error)}", err=True)
        if len(self._chat.history) > num_turns:
            self._steps.append(None)
        elif command != "/undo" and list(before) != list(self._memory):
            self._steps.append(before)
        return True

    def _command(self, name: str) -> Callable[[str], None]:
        if name not in self._commands:
            raise PromptError(f"There is no command {name}. /help lists the commands.")
        return self._commands[name]

    # -- questions -----------------------------------------------------------------------------------------

    def _ask(self, question: str, *, force_mask: bool) -> Reply:
        from .asking import printing

        if "<region>" in question:
            raise PromptError("Call an object by its number, such as [1]. /click, /box and /mask make objects.")
        reply = self._chat.ask(
            question,
            segment=self._gives_masks,
            force_mask=force_mask,
            max_new_tokens=self._loaded.max_new_tokens,
            num_beams=1,
            streamer=printing(self._loaded.processor.tokenizer),
        )
        for each in reply.objects:
            if each.id is not None and each.region is not None:
                _say(f"{_title(self._memory[each.id], self._memory)}, score {each.score:.2f}")
            else:
                _say("What the answer gives a mask of is seen nowhere.")
        return reply

    def _segment(self, text: str) -> None:
        if not text:
            raise PromptError("Say what to segment: /segment the tallest giraffe.")
        if not self._gives_masks:
            raise PromptError("This model gives no masks: its adapter has no mask head.")
        reply = self._ask(REQUEST.format(text.rstrip(".")), force_mask=self._force_mask)
        if not reply.objects:
            _say("The answer gives no mask. With --force-mask, /segment always gives one.")

    def _undo(self, text: str) -> None:
        before = self._steps[-1] if self._steps else None
        if before is None:
            (question, _) = self._chat.history[-1] if self._chat.history else ("", "")
            self._chat.undo()
            _say(f"Forgotten: {question}")
        else:
            self._restore(before)
            _say("Taken back.")
            self._list("")
        self._steps = self._steps[:-1]

    def _restore(self, before: ObjectMemory) -> None:
        """Go back to earlier objects, on the frames of a video that are sampled now and theirs."""
        from ..regions.region import VideoRegion

        regions = [each.region for each in before if isinstance(each.region, VideoRegion)]
        if regions:
            self._chat.resample(self._sampled([frame for region in regions for frame in region.frames]))
        before.media = self._memory.media
        self._chat.memory = before

    def _clear(self, text: str) -> None:
        if text not in ("", "all"):
            raise PromptError(f"Expected /clear, or /clear all to forget the objects too, got {shown(text)}.")
        self._chat.clear()
        self._steps = [each for each in self._steps if each is not None]
        if text:
            self._memory.clear()
        _say("Forgotten: all that was said" + (", and all objects." if text else "."))

    # -- objects -------------------------------------------------------------------------------------------

    @property
    def _memory(self) -> ObjectMemory:
        return self._chat.memory

    def _click(self, text: str) -> None:
        from ..regions.region import Region

        first, *others = re.split(r"\s*;\s*(?=[-+.\d])", text)
        usage = "/click X Y [NAME] [@FRAME]"
        given = [Typed.numbers(each, 2, usage=usage) for each in (first, *others)]
        if any(each.name or each.is_placed for each in given[:-1]):
            raise PromptError(f"Expected /click X Y; X Y [NAME] [@FRAME], got {shown(text)}.")
        self._add(Region.from_points([each.values for each in given]), given[-1])

    def _box(self, text: str) -> None:
        from ..regions.region import Region

        given = Typed.numbers(text, 4, usage="/box X1 Y1 X2 Y2 [NAME] [@FRAME]")
        self._add(Region.from_box(given.values), given)

    def _polygon(self, text: str) -> None:
        from ..regions.region import Region

        given = Typed.pairs(text, 3, usage="/polygon X Y X Y X Y [NAME] [@FRAME]")
        self._add(Region.from_polygon(given.values), given)

    def _scribble(self, text: str) -> None:
        from ..regions.region import Region

        given = Typed.pairs(text, 2, usage="/scribble X Y X Y [NAME] [@FRAME]")
        self._add(Region.from_scribble(list(zip(given.values[::2], given.values[1::2], strict=True))), given)

    def _mask(self, text: str) -> None:
        from ..regions.region import Region

        path, *rest = words_of(text) or [""]
        if not path:
            raise PromptError("Expected /mask FILE.png [NAME] [@FRAME].")
        given = Typed.of((), rest)
        file = as_path(path, reads=True)
        if not file.is_dir():
            self._add(Region.from_png(file), given)
        elif given.is_placed:
            raise PromptError("The names of masks in a folder say on which frames they lie: leave @FRAME out.")
        else:
            self._add(read_masks(file), given)

    def _add(self, shape: Region | VideoRegion, given: Typed) -> None:
        """A new object; or, where its number stands in place of a name, more of an object."""
        from ..media.video import Video
        from ..regions.region import VideoRegion

        called = re.fullmatch(r"\[(\d{1,9})\]", given.name or "")
        known = self._memory[int(called[1])] if called else None
        shape = self._fitted(shape)
        added: Region | VideoRegion = shape
        if isinstance(self._memory.media, Video):
            placed_shape = shape if isinstance(shape, VideoRegion) else VideoRegion({self._frame(given, known): shape})
            added = placed_shape if known is None else _more_over_time(known, placed_shape)
            self._chat.resample(self._sampled(list(added.frames)))
        elif given.is_placed:
            raise PromptError("This is a picture: it has no frames.")
        elif isinstance(shape, VideoRegion):
            raise PromptError("This is a picture: a folder of masks is for videos.")
        elif known is not None:
            added = _more(known, known.region, shape)
        if known is None:
            id = self._memory.add(added, name=given.name)
        else:
            from ..chat import give_region

            id = known.id
            give_region(self._memory, id, self._memory.checked(added))
        _say(_title(self._memory[id], self._memory))

    def _fitted(self, shape: Region | VideoRegion) -> Region | VideoRegion:
        """A region, cut off where that is asked for; it is refused before a frame is read for it."""
        from .subject import fitting_hint

        image_hw = self._memory.image_hw
        try:
            fitted = shape.clipped(image_hw) if self._request.clip else shape
            fitted.require_on(image_hw)
        except RegionError as error:
            error.message += fitting_hint(shape, self._request, image_hw)
            raise
        return fitted

    def _frame(self, given: Typed, known: MemoryObject | None) -> int:
        """The frame of the video that is meant, sampled or not; where none is said the object's first, or the first
        sampled one."""
        from ..media.video import frame_at

        if given.time_s is not None:
            return frame_at(self._times_s, given.time_s)
        if given.frame is not None:
            return given.frame
        media: Any = self._memory.media
        return media.frame_indices[0] if known is None else min(known.region.frames)  # type: ignore[union-attr]

    def _sampled(self, frames: Sequence[int]) -> Video:
        """The video with these frames among the sampled ones, and all that the chat needs."""
        from .subject import read_frames

        media: Any = self._memory.media
        if set(frames) <= set(media.frame_indices):
            return media
        return read_frames(self._request, [*self._chat.frames, *frames])

    def _list(self, text: str) -> None:
        for each in self._memory:
            _say(_title(each, self._memory))
        if not len(self._memory):
            _say("No objects yet. /click, /box, /mask and /segment make some.")

    def _rename(self, text: str) -> None:
        id, *name = words_of(text) or [""]
        self._memory.rename(id_of(id), " ".join(name) or None)
        _say(_title(self._memory[id_of(id)], self._memory))

    def _drop(self, text: str) -> None:
        self._memory.drop(id_of(text))
        _say(f"Dropped [{id_of(text)}].")

    # -- files ---------------------------------------------------------------------------------------------

    def _draw(self, text: str) -> None:
        from ..overlay import save_overlay

        path = self._target(text, "/draw FILE")
        objects = list(self._memory)
        save_overlay(
            path, self._memory.media, [each.region for each in objects], labels=[str(each.id) for each in objects]
        )
        _say(f"Drawn: {path}")

    def _save(self, text: str) -> None:
        path = self._target(text, "/save FILE.json")
        if path.suffix.lower() != ".json":  # it replaces what is there, which may be a picture
            raise PromptError(f"Objects are saved in a file of type .json, got '{path}'.")
        self._memory.save(path)
        _say(f"Saved {counted(len(self._memory), 'object')}: {path}")

    def _load(self, text: str) -> None:
        from ..conversation.memory import ObjectMemory
        from ..media.video import Video

        path, media = path_of(text, "/load FILE.json", reads=True), self._memory.media
        if isinstance(media, Video):
            frames = [each for each in ObjectMemory.saved_frames(path) if each < media.num_source_frames]
            media = self._sampled(frames)
        memory = ObjectMemory.load(path, media)
        if isinstance(media, Video):
            self._chat.resample(media)
        self._chat.memory = memory
        self._list("")

    def _target(self, text: str, usage: str) -> Path:
        path = path_of(text, usage)
        if path.resolve() == self._request.path.resolve():
            raise PromptError(f"'{path}' is what the chat is about, and is not replaced. Name another file.")
        return path


def _more_over_time(known: MemoryObject, added: VideoRegion) -> VideoRegion:
    """An object of a video on further frames, or with more clicks on one of its own."""
    from ..regions.region import VideoRegion

    assert isinstance(known.region, VideoRegion), "it lies on a video"
    frames = dict(known.region.frames)
    for frame, shape in added.frames.items():
        frames[frame] = _more(known, frames[frame], shape, on=f" on frame {frame}") if frame in frames else shape
    absent = {*known.region.absent, *added.absent} - set(frames)
    return VideoRegion(frames, absent=tuple(absent))


def _more(known: MemoryObject, before: Region | VideoRegion, added: Region, on: str = "") -> Region:
    """An object with more clicks."""
    from ..regions.region import Region

    assert isinstance(before, Region), "it lies on a picture, or on this frame"
    if {before.kind, added.kind} != {"points"}:
        raise PromptError(
            f"Object {known.id} has a {_noun(before)}{on} already, and only clicks are added to clicks. /drop "
            f"{known.id} forgets it."
        )
    points, radius_px = before.data
    return Region.from_points([*points, *added.data[0]], radius_px=radius_px)


def _noun(region: Region) -> str:
    return {"points": "click", "rle": "mask"}.get(region.kind, region.kind)


def _say(text: str) -> None:
    """A line that may hold names from files, and of files."""
    click.echo(plain(text))


def _title(each: MemoryObject, memory: ObjectMemory) -> str:
    """An object in a line: `[2] car: click at 80, 100`."""
    name = f" {each.name}" if each.name else ""
    return f"[{each.id}]{name}: {_what(each.region, memory)}"


def _what(region: Region | VideoRegion, memory: ObjectMemory) -> str:
    from ..regions.region import Region

    if isinstance(region, Region):
        return _shape(region, memory)
    (frame, shape), *others = region.frames.items()
    where = f"on {len(others) + 1} frames, the first of them {frame}" if others else f"on frame {frame}"
    return f"{_shape(shape, memory)} {where}"


def _shape(region: Region, memory: ObjectMemory) -> str:
    if region.kind == "points":
        return "click at " + "; ".join(f"{x:g}, {y:g}" for x, y in region.data[0])
    if region.kind == "box":
        return "box " + ", ".join(f"{side:g}" for side in region.data)
    return f"mask of {region.to_mask(memory.image_hw).area} pixels"
