"""`MaskBatch`: the pictures that a batch's masks are made on, and, to learn from, what the masks should be.

Built on the CPU by the processor, read by the model. It knows pictures and masks; no model, and of text only which
tokens can tell an object's number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ..contracts.masks import Clips, Masks, MaskTargets
from ..contracts.messages import MASK_MARKER
from ..contracts.samples import MediaKind, Medium, medium_of
from ..conversation.sample import ReadSample
from ..errors import Place, PromptError, placed, shown
from ..media.video import Video
from ..plugins import count_of
from ..regions.mask import RegionMask
from ..regions.region import Region, VideoRegion


@dataclass(frozen=True, eq=False)
class MaskBatch:
    """The pictures for the masks of a batch. A clip is what the masks of one sample are made on.

    Attributes:
        adapter: name of the adapter whose head makes the masks.
        token_id: id of the token that stands for a mask.
        clips: the pictures, each clip once, however many masks are made on it.
        clip_of_sample: which clip each row's masks are made on; None for a row that gets none.
        images_hw: per clip the original size of its pictures.
        frame_indices: per clip the indices of its frames in their video; None for an image.
        media_index: per clip which image, or which video, of its sample it is.
        objects_per_sample: how many masks each row's text stands for, in a batch to learn from; zeros without targets.
        id_texts: the text of each token that is made of digits, square brackets and spaces alone, by its id: what an
            answer writes an object's number with.
        targets: what the masks should be, sample by sample; None where masks are asked for and not learnt.
    """

    adapter: str
    token_id: int
    clips: Clips
    clip_of_sample: tuple[int | None, ...]
    images_hw: tuple[tuple[int, int], ...]
    frame_indices: tuple[tuple[int, ...] | None, ...]
    media_index: tuple[int, ...]
    objects_per_sample: tuple[int, ...]
    id_texts: Mapping[int, str]
    targets: MaskTargets | None = None

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> MaskBatch:
        """The same batch with its tensors on `device`."""
        clips = replace(self.clips, pixels=self.clips.pixels.to(device, non_blocking=non_blocking))
        targets = self.targets
        if targets is not None:
            masks = targets.masks.to(device, non_blocking=non_blocking)
            targets = MaskTargets(masks, targets.row_of_pair.to(device, non_blocking=non_blocking))
        return replace(self, clips=clips, targets=targets)

    def pin_memory(self) -> MaskBatch:
        """The same batch in pinned memory, as torch's data loader asks for."""
        clips = replace(self.clips, pixels=self.clips.pixels.pin_memory())
        targets = self.targets
        if targets is not None:
            targets = MaskTargets(targets.masks.pin_memory(), targets.row_of_pair.pin_memory())
        return replace(self, clips=clips, targets=targets)


def make_mask_batch(
    samples: Sequence[ReadSample],
    *,
    adapter: str,
    head: Masks,
    config: Any,
    token_id: int,
    id_texts: Mapping[int, str],
    learn: bool,
) -> MaskBatch:
    """Squeeze the pictures and, to learn from, the masks that the answers stand for.

    Args:
        samples: of the batch; to learn from, those without an `<seg>` get no clip.
        adapter: name of the adapter whose head makes the masks.
        head: that head.
        config: the adapter's config.
        token_id: id of the head's token.
        id_texts: see `MaskBatch`.
        learn: give targets. Otherwise each sample must have one image or one video, on which masks are asked for.

    Raises:
        PromptError: a sample has more objects than the head takes, has them on several pictures or videos, names no
            sampled frame of one, or shows more or fewer than one where masks are asked for.
        RegionError: a target does not fit its picture.
    """
    clips = _ClipBuilder(count_of("adapter", adapter, "masks.picture_px", head.picture_px, config))
    clip_of_sample = []
    for index, sample in enumerate(samples):
        with placed(sample=index):
            if learn:
                most = count_of("adapter", adapter, "masks.max_objects", head.max_objects, config)
                _require_few_enough(sample, most, adapter)
            medium = _medium_of_targets(sample) if learn else _only_medium(sample)
        clip_of_sample.append(None if medium is None else clips.index_of(sample, *medium))
    return MaskBatch(
        adapter=adapter,
        token_id=token_id,
        clips=clips.squeezed(),
        clip_of_sample=tuple(clip_of_sample),
        images_hw=tuple(clip.image_hw for clip in clips.found),
        frame_indices=tuple(clip.frame_indices for clip in clips.found),
        media_index=tuple(clip.media_index for clip in clips.found),
        objects_per_sample=tuple(len(sample.targets) if learn else 0 for sample in samples),
        id_texts=id_texts,
        targets=_targets(samples, clip_of_sample, clips) if learn else None,
    )


def _require_few_enough(sample: ReadSample, most: int, adapter: str) -> None:
    if len(sample.targets) > most:
        raise PromptError(
            f"its answers have {len(sample.targets)} {MASK_MARKER}, more objects than adapter '{adapter}' takes of one "
            f"sample, {most}. Split the sample, or raise max_objects."
        )


def _medium_of_targets(sample: ReadSample) -> Medium | None:
    media = sorted({medium_of(region) for region in sample.targets.values()})
    if len(media) > 1:
        names = " and ".join(f"{kind} {index}" for kind, index in media)
        raise PromptError(
            f"its {MASK_MARKER} lie on {names}; all of one conversation must lie on one image or video. Split it."
        )
    return media[0] if media else None


def _only_medium(sample: ReadSample) -> Medium:
    if len(sample.images) + len(sample.videos) != 1:
        raise PromptError(
            "masks are made on the conversation's only image or video, but it has "
            f"{len(sample.images)} images and {len(sample.videos)} videos."
        )
    return ("image", 0) if sample.images else ("video", 0)


@dataclass(frozen=True, eq=False)
class _Clip:
    """One image, or the sampled frames of one video, and which of its sample's it is."""

    source: Image.Image | Video
    media_index: int

    @property
    def image_hw(self) -> tuple[int, int]:
        return self.source.image_hw if isinstance(self.source, Video) else (self.source.height, self.source.width)

    @property
    def frame_indices(self) -> tuple[int, ...] | None:
        return self.source.frame_indices if isinstance(self.source, Video) else None

    def __len__(self) -> int:
        return len(self.source) if isinstance(self.source, Video) else 1

    def pictures_hwc(self) -> Iterator[np.ndarray]:
        """Copies of its pictures, `(H, W, 3)` uint8: torch wants what it may write to."""
        if isinstance(self.source, Video):
            yield from map(np.array, self.source.frames_nhwc)
        else:
            yield np.array(self.source)


class _ClipBuilder:
    """The clips of a batch, each once, squeezed to squares of `side_px`."""

    def __init__(self, side_px: int) -> None:
        self.side_px = side_px
        self.found: list[_Clip] = []
        self._index_of: dict[tuple[int, int], int] = {}

    def index_of(self, sample: ReadSample, kind: MediaKind, media_index: int) -> int:
        source = sample.images[media_index] if kind == "image" else sample.videos[media_index]
        key = (id(source), media_index)
        if key not in self._index_of:
            self._index_of[key] = len(self.found)
            self.found.append(_Clip(source, media_index))
        return self._index_of[key]

    def squeezed(self) -> Clips:
        """Their pictures, by antialiased bilinear resizing."""
        square = (self.side_px, self.side_px)
        pixels = torch.empty((sum(map(len, self.found)), 3, *square), dtype=torch.uint8)
        pictures = (picture for clip in self.found for picture in clip.pictures_hwc())
        for index, picture in enumerate(pictures):
            batch = torch.from_numpy(picture).permute(2, 0, 1)[None]
            pixels[index] = interpolate(batch, square, mode="bilinear", antialias=True)[0]
        return Clips(pixels, tuple(map(len, self.found)))


def _targets(samples: Sequence[ReadSample], clip_of_sample: Sequence[int | None], clips: _ClipBuilder) -> MaskTargets:
    masks: list[np.ndarray] = []
    row_of_pair: list[int] = []
    for index, (sample, at) in enumerate(zip(samples, clip_of_sample, strict=True)):
        if at is None:
            continue
        for number, region in sample.targets.items():
            for known in _on_pictures(region, clips.found[at], Place(sample=index, region=number)):
                if isinstance(known, RegionMask):
                    masks.append(squeezed_mask(known, clips.side_px))
                    row_of_pair.append(len(masks) - 1)
                else:
                    row_of_pair.append(known)
    stacked = np.stack(masks) if masks else np.zeros((0, clips.side_px, clips.side_px), dtype=bool)
    return MaskTargets(torch.from_numpy(stacked), torch.tensor(row_of_pair, dtype=torch.int64))


def _on_pictures(region: Region | VideoRegion, clip: _Clip, place: Place) -> list[RegionMask | int]:
    """What is known of an object on each picture of a clip: its mask, `ABSENT` or `UNKNOWN`."""
    if isinstance(region, Region):
        with placed(**place):
            return [region.to_mask(clip.image_hw)]
    frames = clip.frame_indices or ()
    named = sorted({*region.frames, *region.absent})
    if not set(named).intersection(frames):
        raise PromptError(
            f"it names the frames {shown(named)}, none of which is among the sampled ones, "
            f"{shown(list(frames))}: there is nothing to learn. Name one in load_video(..., frames=...)."
        ).set_place(**place)
    known: list[RegionMask | int] = []
    for frame in frames:
        if frame in region.frames:
            with placed(**place), placed(frame=frame):
                known.append(region.frames[frame].to_mask(clip.image_hw))
        else:
            known.append(MaskTargets.ABSENT if frame in region.absent else MaskTargets.UNKNOWN)
    return known


_HALF = 0.5 - 1e-6  # a cell half of which is covered may come out a little below


def squeezed_mask(mask: RegionMask, side_px: int) -> np.ndarray:
    """A mask squeezed to a square as its picture is.

    Returns:
        `(side_px, side_px)` bool: the cells of which it covers at least half, or else those that it covers most.
    """
    height, width = mask.image_hw
    coverage = mask.coverage((0, 0, width, height), (side_px, side_px))
    inside: np.ndarray = coverage >= min(_HALF, float(coverage.max()))
    return inside
