"""`pixelrefer segment`: masks of what a text names, as pictures, as a memory for `pixelrefer chat`, as an overlay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import placed
from ..files import require_writable_folder, written_folder
from ..json_text import read_json
from .options import (
    GivenRegion,
    Moment,
    OrderedCommand,
    device_option,
    frames_options,
    loading_options,
    model_option,
    region_options,
    regions_in_order,
)
from .reporting import EMPTY, Failure, for_terminal, json_of, plain
from .values import READ, TEXT, WRITTEN, text_problem

if TYPE_CHECKING:
    from ..chat import Reply
    from ..contracts.masks import SegmentedObject
    from ..regions.mask import RegionMask
    from .asking import LoadedModel
    from .subject import Request, Subject

REQUEST = "Please segment {}."
"""What is asked, of what the user names."""

_OBJECTS_FILE = "objects.json"
_WRITTEN = re.compile(r"objects\.json|object-[0-9]+(\.png)?")
_MOST_OBJECTS = 999  # of an answer
_USUAL_OBJECTS = 32  # what a memory may hold that a chat goes on with


class NoMask(Failure):
    """There is no mask to write: no mistake of the user's, so exit code 1."""

    exit_code = 1


@click.command(cls=OrderedCommand, short_help="Make masks of what a text names in a picture or video.")
@click.argument("path", metavar="IMAGE|VIDEO", type=READ)
@click.argument("text", required=False)
@model_option
@click.option(
    "--out",
    required=True,
    metavar="DIR",
    type=WRITTEN,
    help="Folder for the masks: object-1.png, or of a video object-1/00012.png for frame 12; and objects.json.",
)
@region_options
@click.option("--prompt", type=TEXT, help="What to ask, word by word, in place of 'Please segment TEXT.'.")
@click.option("--force-mask", is_flag=True, help="Let the model give a mask though it would not.")
@frames_options
@click.option(
    "--overlay",
    metavar="FILE",
    type=WRITTEN,
    help="Draw the objects, numbered: .png or .jpg; of a video .mp4 or .gif.",
)
@click.option("--overwrite", is_flag=True, help="Replace the results of an earlier call in --out.")
@loading_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@device_option
def segment(
    path: Path,
    text: str | None,
    model: str,
    out: Path,
    prompt: str | None,
    force_mask: bool,
    frames: int | None,
    fps: float | None,
    frame_rate: float | None,
    overlay: Path | None,
    overwrite: bool,
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
    """Make masks of what TEXT names in a picture, a video, or a folder of its frames.

    The model is asked 'Please segment TEXT.', or --prompt. <region> in either stands for the next region given; one
    alone is asked of each, in a conversation of its own; without both it is asked to segment the regions. A mask is a
    PNG of the picture's size, 255 inside; objects.json has them as run lengths, with scores, and is a memory that
    `pixelrefer chat --memory` reads. Where the model gives no mask, or what it means is seen nowhere, nothing is
    written and the exit code is 1.

    \b
    Example:
      pixelrefer segment street.jpg "the red car" --model runs/street/model --out masks
      pixelrefer segment street.mp4 "what <region> follows" --points 320,180 --at 3s \\
          --model runs/street/model --out masks --overlay masks.mp4 --force-mask
    """
    from .asking import LoadedModel, require_mask_head, require_model
    from .subject import Request, prepare

    given = regions_in_order(click.get_current_context(), by_kind, at)
    question = _question(text, prompt, len(given))
    request = Request(
        path=path,
        given=given,
        prompt=question,
        model=model,
        device=device,
        frames=frames,
        fps=fps,
        frame_rate=frame_rate,
        clip=clip,
    )
    _require_known_numbers(question)
    require_model(model)
    require_mask_head(model, adapter)
    _require_free(out, overwrite=overwrite)
    _require_overlay(overlay, request)
    subject = prepare(request)
    loaded = LoadedModel.open(
        model,
        backbone=backbone,
        adapter=adapter,
        adapter_options=dict(adapter_options),
        device=device,
        max_new_tokens=max_new_tokens,
    )
    result = _Result(request, subject, _ask(loaded, request, subject, force_mask=force_mask))
    result.write(out)
    if overlay is not None:
        result.draw(overlay)
    click.echo(result.as_json(out, overlay) if as_json else result.as_text(out))


def _ask(loaded: LoadedModel, request: Request, subject: Subject, *, force_mask: bool) -> list[Reply]:
    """The answers, one or one about each region. All of their objects have ids of their own."""
    from ..chat import Chat
    from ..conversation.memory import ObjectMemory

    assert request.prompt is not None, "there is always a question"
    replies: list[Reply] = []
    num_objects = 0
    for regions in [[each] for each in subject.regions] if request.is_about_each else [subject.regions]:
        memory = ObjectMemory(subject.media, max_objects=_MOST_OBJECTS)
        reply = Chat(loaded.model, loaded.processor, subject.media, memory=memory).ask(
            request.prompt,
            regions,
            segment=True,
            force_mask=force_mask,
            max_new_tokens=loaded.max_new_tokens,
            num_beams=1,
        )
        if replies:
            reply = reply.numbered_after(num_objects)
        num_objects = max([num_objects, *(each.id for each in reply.objects if each.id is not None)])
        replies.append(reply)
    _require_masks(replies, force_mask=force_mask)
    return replies


def _require_masks(replies: Sequence[Reply], *, force_mask: bool) -> None:
    objects = [each for reply in replies for each in reply.objects]
    if any(each.region is not None for each in objects):
        return
    which = "The answer" if len(replies) == 1 else "No answer"
    if objects:
        why = "The answer's objects are seen nowhere" if len(replies) == 1 else "The answers' objects are seen nowhere"
    else:
        why = f"{which} gives {'no' if len(replies) == 1 else 'a'} mask"
    hint = "Ask otherwise." if objects or force_mask else "Ask otherwise, or give --force-mask."
    said = ", ".join(f"'{reply.text}'" if reply.text.strip() else EMPTY for reply in replies)
    raise NoMask(f"{why}, so nothing is written: {said}. {hint}")


def _question(text: str | None, prompt: str | None, num_regions: int) -> str:
    if text is not None and prompt is not None:
        raise click.UsageError("TEXT and --prompt exclude each other: --prompt is asked word by word.")
    if prompt is not None:
        return prompt
    if not (text or "").strip() and (text is not None or not num_regions):
        raise click.UsageError("Say what to segment: a TEXT such as 'the tallest giraffe', a --prompt, or a region.")
    if text is not None and (problem := text_problem(text)):
        raise click.UsageError(f"TEXT: {problem}")
    if text is None:
        text = " and ".join(["<region>"] * num_regions)
    return REQUEST.format(text.strip().rstrip("."))


def _require_known_numbers(question: str) -> None:
    """Refuse `[2]` where no `[2] <region>` says what that is: there is no memory yet."""
    from ..contracts.messages import CALLED_ID, MARKER, meant_itself

    known = {marker["id"] for marker in MARKER.finditer(question)}
    for called in CALLED_ID.findall(question):
        if called not in known:
            raise click.UsageError(f"[{called}] calls an object, but none has a number yet. {meant_itself(called)}")


def _require_free(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that cannot be made, or with anything in it but, where that may be replaced, earlier results."""
    with placed(subject="--out"):
        require_writable_folder(out)
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not overwrite:
        raise click.UsageError(f"--out '{out}' is not empty. Name another folder, or give --overwrite.")
    if not (out / _OBJECTS_FILE).is_file():
        raise click.UsageError(
            f"--out '{out}' holds files but no {_OBJECTS_FILE}, so they are not this command's and are not replaced. "
            "Name another folder."
        )
    others = sorted(each.name for each in out.iterdir() if not _WRITTEN.fullmatch(each.name))
    if others:
        raise click.UsageError(
            f"--out '{out}' holds '{others[0]}', which is not this command's and would be lost. Name another folder."
        )


def _require_overlay(overlay: Path | None, request: Request) -> None:
    from ..overlay import require_overlay_path

    if overlay is None:
        return
    require_overlay_path(overlay, is_video=request.is_video)
    if overlay.resolve() == request.path.resolve():
        raise click.UsageError(f"--overlay would replace '{overlay}', which is read. Rename it.")


# -- results -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Result:
    """What was asked about what, and the answers."""

    request: Request
    subject: Subject
    replies: Sequence[Reply]

    @property
    def objects(self) -> list[SegmentedObject]:
        """What the answers mean, seen or not."""
        return [each for reply in self.replies for each in reply.objects]

    @property
    def seen(self) -> list[SegmentedObject]:
        """The objects that have masks."""
        return [each for each in self.objects if each.region is not None]

    @property
    def record(self) -> dict[str, Any]:
        """What `objects.json` and `--json` say beside the objects that have masks."""
        return {
            self.subject.kind: str(self.request.path),
            "model": self.request.model,
            "prompt": self.request.prompt,
            "answer": "\n".join(reply.text for reply in self.replies),
            "answers": [reply.text for reply in self.replies],
            "unseen": [_scores(each) for each in self.objects if each.region is None],
        }

    def write(self, out: Path) -> None:
        """A picture for each mask, and `objects.json`: a memory, with what else is known."""
        from ..conversation.memory import ObjectMemory

        memory = ObjectMemory(self.subject.media, max_objects=max(len(self.seen), _USUAL_OBJECTS))
        memory.add_answer(self.seen)
        with written_folder(out) as folder:
            for each in self.seen:
                for name, mask in self._pictures(each, memory.image_hw):
                    target = folder / name
                    target.parent.mkdir(exist_ok=True)
                    _save_mask(target, mask, memory.image_hw)
            path = folder / _OBJECTS_FILE
            memory.save(path)
            saved = read_json(path, file_names=True)
            scores = {each.id: _scores(each) for each in self.seen}
            saved["objects"] = [each | scores[each["id"]] for each in saved["objects"]]
            path.write_text(json.dumps(saved | self.record), encoding="utf-8")

    def draw(self, overlay: Path) -> None:
        """The objects on the picture or video, each with its id."""
        from ..overlay import save_overlay

        regions = [each.region for each in self.seen if each.region is not None]
        save_overlay(overlay, self.subject.media, regions, labels=[str(each.id) for each in self.seen])

    def _pictures(self, each: SegmentedObject, image_hw: tuple[int, int]) -> Iterator[tuple[str, RegionMask | None]]:
        """Name and mask of each picture of an object; None on a frame where it is not seen."""
        from ..regions.region import Region, VideoRegion

        if isinstance(each.region, Region):
            yield f"{_name(each)}.png", each.region.to_mask(image_hw)
        if isinstance(each.region, VideoRegion):
            for frame in self.subject.frames:
                region = each.region.frames.get(frame)
                yield f"{_name(each)}/{frame:05d}.png", None if region is None else region.to_mask(image_hw)

    def as_json(self, out: Path, overlay: Path | None) -> str:
        """For `--json`."""
        objects = [{"id": each.id, **_scores(each), "masks": self._place(each, out)} for each in self.seen]
        drawn = {} if overlay is None else {"overlay": str(overlay)}
        return json_of({**self.record, **drawn, "objects": objects})

    def as_text(self, out: Path) -> str:
        """For people: each answer, then a line for each object."""
        titles = [each.title for each in self.request.given] if len(self.replies) > 1 else [""]
        lines = []
        for title, reply in zip(titles, self.replies, strict=True):
            lines += [plain(title)] if title else []
            lines.append(for_terminal(reply.text) if reply.text.strip() else EMPTY)
        lines += [f"object {each.id}: score {each.score:.2f}, {self._place(each, out)}" for each in self.seen]
        if unseen := len(self.objects) - len(self.seen):
            lines.append(f"Objects that are seen nowhere, and have no masks: {unseen}.")
        return "\n".join(lines)

    def _place(self, each: SegmentedObject, out: Path) -> str:
        return str(out / (_name(each) if self.subject.frames else f"{_name(each)}.png"))


def _name(each: SegmentedObject) -> str:
    return f"object-{each.id}"


def _scores(each: SegmentedObject) -> dict[str, Any]:
    presence = {str(frame): round(probability, 4) for frame, probability in each.presence.items()}
    return {"score": round(each.score, 4), "presence": presence}


def _save_mask(path: Path, mask: RegionMask | None, image_hw: tuple[int, int]) -> None:
    import numpy as np
    from PIL import Image

    pixels = np.zeros(image_hw, dtype=np.uint8) if mask is None else mask.dense().astype(np.uint8) * 255
    Image.fromarray(pixels).save(path)
