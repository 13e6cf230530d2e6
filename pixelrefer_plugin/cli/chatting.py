"""`pixelrefer chat`: questions about one picture or video in a terminal, its objects called by number.

A line is a question, or a command that begins with a slash. What goes wrong is said, and the chat goes on.
"""

from __future__ import annotations

import io
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import PixelReferError, PromptError
from .options import CheckedCommand, device_option, frames_options, loading_options, model_option
from .reporting import plain, told
from .segmenting import REQUEST
from .values import READ

if TYPE_CHECKING:
    from ..chat import Chat, Reply
    from ..conversation.memory import MemoryObject, ObjectMemory
    from ..media.video import Video
    from ..regions.region import Region, VideoRegion
    from .asking import LoadedModel
    from .subject import Request

_HELP = """\
A line is a question; [2] in it calls object 2. Commands:
  /click X Y [NAME] [@FRAME]         add an object by a click; in a video on frame @12, or at @3.5s
  /box X1 Y1 X2 Y2 [NAME] [@FRAME]   by a box
  /mask FILE.png [NAME] [@FRAME]     by a mask picture
  /segment TEXT                      ask for a mask of what TEXT names, which becomes an object
  /objects                           list the objects
  /rename ID NAME, /drop ID          rename or forget one
  /draw FILE                         draw them: .png or .jpg, of a video .mp4 or .gif
  /save FILE.json, /load FILE.json   write them, or read them in place of these
  /undo                              forget the last question and its answer
  /help, /quit"""


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
@frames_options
@loading_options
@device_option
def chat(
    path: Path,
    model: str,
    memory: Path | None,
    force_mask: bool,
    list_objects: bool,
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

    A line is a question. /click, /box and /mask make objects, which questions call by number; what the model gives
    masks of becomes an object too. /help lists the commands.

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
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes of another encoding stop no chat
    if not sys.stdin.isatty():
        yield from sys.stdin
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
            "/mask": self._mask,
            "/segment": self._segment,
            "/objects": self._list,
            "/rename": self._rename,
            "/drop": self._drop,
            "/draw": self._draw,
            "/save": self._save,
            "/load": self._load,
            "/undo": self._undo,
            "/help": lambda text: click.echo(_HELP),
        }

    def take(self, line: str) -> bool:
        """Do what a line says; whether to go on."""
        command, _, rest = line.strip().partition(" ")
        if command == "/quit":
            return False
        try:
            if command.startswith("/"):
                self._command(command)(rest.strip())
            elif command:
                self._ask(line.strip(), force_mask=False)
        except PixelReferError as error:
            click.echo(f"Error: {told(error)}", err=True)
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
        (question, _) = self._chat.history[-1] if self._chat.history else ("", "")
        self._chat.undo()
        _say(f"Forgotten: {question}")

    # -- objects -------------------------------------------------------------------------------------------

    @property
    def _memory(self) -> ObjectMemory:
        return self._chat.memory

    def _click(self, text: str) -> None:
        from ..regions.region import Region

        given = _Given.numbers(text, 2, usage="/click X Y [NAME] [@FRAME]")
        self._add(Region.from_points([given.values]), given)

    def _box(self, text: str) -> None:
        from ..regions.region import Region

        given = _Given.numbers(text, 4, usage="/box X1 Y1 X2 Y2 [NAME] [@FRAME]")
        self._add(Region.from_box(given.values), given)

    def _mask(self, text: str) -> None:
        from ..regions.region import Region

        path, *rest = _words(text) or [""]
        if not path:
            raise PromptError("Expected /mask FILE.png [NAME] [@FRAME].")
        self._add(Region.from_png(Path(path).expanduser()), _Given.of((), rest))

    def _add(self, region: Region, given: _Given) -> None:
        from ..media.video import Video

        added: Any = region
        region.require_on(self._memory.image_hw)  # raises where it does not fit, before a frame is read for it
        if isinstance(self._memory.media, Video):
            frame = self._frame(given)
            self._chat.resample(self._sampled([frame]))
            added = {frame: region}
        elif given.is_placed:
            raise PromptError("This is a picture: it has no frames.")
        id = self._memory.add(added, name=given.name)
        _say(_title(self._memory[id], self._memory))

    def _frame(self, given: _Given) -> int:
        """The frame of the video that is meant, sampled or not; the first sampled one where none is said."""
        from ..media.video import frame_at

        if given.time_s is not None:
            return frame_at(self._times_s, given.time_s)
        media: Any = self._memory.media
        return media.frame_indices[0] if given.frame is None else given.frame

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
        id, *name = _words(text) or [""]
        self._memory.rename(_id(id), " ".join(name) or None)
        _say(_title(self._memory[_id(id)], self._memory))

    def _drop(self, text: str) -> None:
        self._memory.drop(_id(text))
        _say(f"Dropped [{_id(text)}].")

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
        _say(f"Saved {len(self._memory)} objects: {path}")

    def _load(self, text: str) -> None:
        from ..conversation.memory import ObjectMemory
        from ..media.video import Video

        path, media = _path(text, "/load FILE.json"), self._memory.media
        if isinstance(media, Video):
            frames = [each for each in ObjectMemory.saved_frames(path) if each < media.num_source_frames]
            media = self._sampled(frames)
        memory = ObjectMemory.load(path, media)
        if isinstance(media, Video):
            self._chat.resample(media)
        self._chat.memory = memory
        self._list("")

    def _target(self, text: str, usage: str) -> Path:
        path = _path(text, usage)
        if path.resolve() == self._request.path.resolve():
            raise PromptError(f"'{path}' is what the chat is about, and is not replaced. Name another file.")
        return path


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


# -- what is typed -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """Coordinates, and what follows them: a name, and the frame of a video or the time when it is on screen."""

    values: tuple[float, ...]
    name: str | None
    frame: int | None
    time_s: float | None

    @property
    def is_placed(self) -> bool:
        return self.frame is not None or self.time_s is not None

    @classmethod
    def numbers(cls, text: str, count: int, *, usage: str) -> _Given:
        """So many numbers, apart by spaces or commas, and the rest."""
        words = re.split(r"[\s,]+", text.strip(), maxsplit=count)
        try:
            values = tuple(float(word) for word in words[:count])
        except ValueError:
            values = ()
        if len(values) != count:
            raise PromptError(f"Expected {usage}, got '{text}'.")
        return cls.of(values, _words(" ".join(words[count:])))

    @classmethod
    def of(cls, values: tuple[float, ...], rest: Sequence[str]) -> _Given:
        """The rest: words of a name, and `@12` or `@3.5s` at the end."""
        *name, last = rest or [""]
        if not last.startswith("@"):
            return cls(values, " ".join(rest) or None, None, None)
        frame = re.fullmatch(r"@(\d{1,9})", last)
        time = re.fullmatch(r"@(\d{1,9}(?:\.\d*)?)s", last)
        if not frame and not time:
            raise PromptError(f"Expected a frame such as @12, or seconds such as @3.5s, got '{last}'.")
        return cls(values, " ".join(name) or None, int(frame[1]) if frame else None, float(time[1]) if time else None)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise PromptError(f"'{text}' cannot be read: {error}. Quotes come in pairs.") from error


def _id(text: str) -> int:
    if not re.fullmatch(r"\[?\d{1,9}\]?", text):
        raise PromptError(f"Expected the number of an object, got '{text}'. /objects lists them.")
    return int(text.strip("[]"))


def _path(text: str, usage: str) -> Path:
    words = _words(text)
    if len(words) != 1:
        raise PromptError(f"Expected {usage}, got '{text}'.")
    return Path(words[0]).expanduser()  # no shell has read it
