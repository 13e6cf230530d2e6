"""Samples from expressions about objects in videos: Ref-YouTube-VOS, Ref-DAVIS17, MeViS, ReVOS.

`meta_expressions.json` is `{"videos": {video: {"expressions": {id: {"exp", "obj_id"}}, "frames": [names]}}}`. Frames
are at `JPEGImages/<video>/<frame>.jpg`. Masks are label maps at `Annotations/<video>/<frame>.png`, in which an object
is its `obj_id`, or run lengths in `mask_dict.json`, where an expression's `anno_id` names its objects' keys.
Sources: https://youtube-vos.org/dataset/rvos, https://github.com/henghuiding/MeViS, https://github.com/cilinyan/ReVOS-api.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixelrefer_plugin.authoring import (
    DataError,
    Defect,
    ImageError,
    PixelReferError,
    RecordPlace,
    RegionSample,
    VideoRegion,
    choose,
    read_json,
    read_sample,
    shown,
)

from .config import RefVosConfig
from .masks import Known, LabelMaps, Masks, RunLengths

_MASK_FILE = "mask_dict.json"


def is_refvos(record: Mapping[str, Any]) -> bool:
    """Videos with expressions."""
    videos = record.get("videos")
    first = next(iter(videos.values()), None) if isinstance(videos, Mapping) else None
    return isinstance(first, Mapping) and isinstance(first.get("expressions"), Mapping)


class _Expression(NamedTuple):
    """Where one stands: its video, and its key there."""

    video: str
    id: str


@dataclass(frozen=True, eq=False)
class ExpressionSamples:
    """The samples of one file. The expressions are in memory; masks are read when a sample is asked for.

    Attributes:
        path: of the file.
        media_root: folder that frames and masks are below.
        config: what is asked.
        videos: what the file holds.
        masks: where they are kept.
        turns: for each sample its expressions, all of one video.
        left_out: see `SampleFile`.
    """

    path: Path
    media_root: Path
    config: RefVosConfig
    videos: Mapping[str, Any]
    masks: Masks
    turns: Sequence[Sequence[_Expression]]
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.turns)

    def __getitem__(self, index: int) -> RegionSample:
        turns = self.turns[index]
        video, id = turns[0]
        place = RecordPlace(f"{self.path.name} video '{video[:60]}' expression {id[:60]}", index, self.media_root)
        defects: list[Defect] = []
        names = self._names(video, defects)
        messages = []
        for turn in turns:
            messages += self._question_and_answer(turn, defects)
        translated = {
            "id": f"{video}-{id}",
            "video": {"path": [str(self._picture(video, name)) for name in names] or "?", "fps": self.config.fps},
            "messages": messages,
        }
        return read_sample(translated, place, regions=self._targets(turns, names, defects), defects=defects)

    def media(self, index: int) -> list[str]:
        """The frames of a sample, of which masks are not read."""
        video = self.turns[index][0].video
        return [str(self.media_root / self._picture(video, name)) for name in self._names(video, [])]

    def _names(self, video: str, defects: list[Defect]) -> list[str]:
        """Of its frames."""
        names = self.videos[video].get("frames")
        if isinstance(names, list) and names and all(isinstance(name, str) and name for name in names):
            return names
        defects.append(Defect("format", f"its 'frames' must be a list of their names, got {shown(names)}."))
        return []

    def _picture(self, video: str, name: str) -> Path:
        return Path(self.config.frames) / video / f"{name}.jpg"

    def _question_and_answer(self, turn: _Expression, defects: list[Defect]) -> list[dict[str, str]]:
        text = self._expression(turn).get("exp")
        if not isinstance(text, str) or not text.strip():
            defects.append(Defect("format", f"expression {turn.id}: its 'exp' must be a text, got {shown(text)}."))
            text = "?"
        question = choose(self.config.question, f"{turn.video}-{turn.id}")
        return [
            {"role": "user", "content": question.replace("{phrase}", text.strip().rstrip("."))},
            {"role": "assistant", "content": self.config.answer},
        ]

    def _expression(self, turn: _Expression) -> Mapping[str, Any]:
        expression: Mapping[str, Any] = self.videos[turn.video]["expressions"][turn.id]
        return expression

    def _targets(
        self, turns: Sequence[_Expression], names: Sequence[str], defects: list[Defect]
    ) -> list[VideoRegion | None]:
        """The objects of each expression on the frames whose masks are read; None where that fails."""
        if not names:
            return [None] * len(turns)
        try:
            keys = [self.masks.key(self._expression(turn)) for turn in turns]
            known = self._known(turns[0].video, names, keys)
        except PixelReferError as error:
            defects.append(Defect("media" if isinstance(error, ImageError) else "region", f"its masks: {error}"))
            return [None] * len(turns)
        return [_target(turn, of_turn, defects) for turn, of_turn in zip(turns, known, strict=True)]

    def _known(self, video: str, names: Sequence[str], keys: Sequence[tuple[str, ...]]) -> list[Known]:
        """What is known of each expression's objects; where they are on none of the frames to read, on all others."""
        spread = np.linspace(0, len(names) - 1, min(len(names), self.config.max_frames or len(names)))
        chosen = dict.fromkeys(spread.round().astype(int).tolist())
        known = self.masks.read(video, {frame: names[frame] for frame in chosen}, keys)
        missed = [number for number, of_key in enumerate(known) if not any(of_key.values())]
        rest = {frame: name for frame, name in enumerate(names) if frame not in chosen}
        if missed and rest:
            found = self.masks.read(video, rest, [keys[number] for number in missed])
            for number, of_key in zip(missed, found, strict=True):
                known[number] |= of_key
        return known


def _target(turn: _Expression, known: Known, defects: list[Defect]) -> VideoRegion | None:
    frames = {frame: region for frame, region in known.items() if region is not None}
    if frames:
        return VideoRegion(frames, absent=tuple(frame for frame in known if frame not in frames))
    where = "on no frame" if known else "nowhere to be found: no frame has masks"
    defects.append(Defect("region", f"expression {turn.id}: its object is {where}."))
    return None


def open_refvos(config: RefVosConfig, path: Path, media_root: Path) -> ExpressionSamples:
    """A sample for each expression that means an object, or for several of one video.

    Raises:
        DataError: the file is not of this kind, or there are no masks.
    """
    path, media_root = Path(path), Path(media_root)
    videos = _read_videos(path)
    masks = _open_masks(config, path, media_root)
    expressions = [
        _Expression(video, id) for video, found in videos.items() for id in found["expressions"] if _means(found, id)
    ]
    if not expressions:
        raise DataError(
            f"'{path}' has no expression with an 'obj_id' or 'anno_id': there are no masks to learn. Is it a split for "
            "submissions?"
        )
    turns = [[each] for each in expressions]
    if config.per_video:
        turns = [
            of_video[start : start + config.max_turns]
            for of_video in (list(group) for _, group in groupby(expressions, key=lambda each: each.video))
            for start in range(0, len(of_video), config.max_turns)
        ]
    num_without = sum(len(found["expressions"]) for found in videos.values()) - len(expressions)
    left_out = (
        {"expressions without an 'obj_id' or 'anno_id', which mean no object": num_without} if num_without else {}
    )
    return ExpressionSamples(path, media_root, config, videos, masks, turns, left_out)


def _read_videos(path: Path) -> Mapping[str, Any]:
    try:
        found = read_json(path)
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"'{path}' is no JSON that can be read: {error}. Is the file complete?") from error
    videos = found.get("videos") if isinstance(found, Mapping) else None
    if not isinstance(videos, Mapping) or not videos or not all(map(_has_expressions, videos.values())):
        raise DataError(f"'{path}' must hold an object 'videos', with 'expressions' for each: an object of objects.")
    return videos


def _has_expressions(video: Any) -> bool:
    expressions = video.get("expressions") if isinstance(video, Mapping) else None
    return isinstance(expressions, Mapping) and all(isinstance(each, Mapping) for each in expressions.values())


def _means(video: Mapping[str, Any], id: str) -> bool:
    """Whether an expression means an object; MeViS and ReVOS have some that mean none, so that no mask is to learn."""
    expression = video["expressions"][id]
    return any(expression.get(key) not in (None, [], "") for key in ("obj_id", "anno_id"))


def _open_masks(config: RefVosConfig, path: Path, media_root: Path) -> Masks:
    beside = path.parent / _MASK_FILE
    place = media_root / (config.masks or "Annotations")
    if config.masks is None and beside.is_file():
        place = beside
    if place.is_file():
        return RunLengths.open(place)
    if not place.is_dir():
        raise DataError(
            f"'{path}' needs masks, expected '{_MASK_FILE}' beside it or the folder '{place}'. Say where they are: "
            "masks=... (--option masks=...), from the media root."
        )
    return LabelMaps(place)
