"""What comes back beside an answer's text: the objects that it names, their masks at original size.

From the tokens of answers to the objects that they stand for, and from an adapter's predicted masks to regions. It
knows tokens and masks; no model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from transformers import LogitsProcessor

from ..contracts.masks import Clips, PredictedMasks, SegmentedObject
from ..errors import SpliceError
from ..regions.region import Region, VideoRegion
from .mask_batch import MaskBatch

_NUMBER = re.compile(r"\[ *(\d{1,9}) *\] *$")


@dataclass(frozen=True, eq=False)
class GeneratedMasks:
    """Answers with masks, as `RegionModel.generate` returns them. `RegionProcessor.decode` gives their texts.

    Attributes:
        sequences: `(rows, length)`, prompts and answers.
        objects: for each row those that its answer names, in their order.
        generated: what the backbone's `generate` returned, where `return_dict_in_generate` was asked for.
    """

    sequences: Tensor
    objects: list[list[SegmentedObject]]
    generated: Any = None


@dataclass(frozen=True)
class Mention:
    """A place in an answer where a mask is given.

    Attributes:
        row: of the sequences.
        column: position of the token.
        id: the number in brackets before it.
    """

    row: int
    column: int
    id: int | None


def find_mentions(sequences: Tensor, masks: MaskBatch, *, start: int) -> list[Mention]:
    """Where the answers of a batch give masks, row by row.

    Args:
        sequences: `(rows, length)`.
        masks: which token stands for one.
        start: position at which the answers begin; what stands in the prompts does not count.
    """
    answers = sequences[:, start:].tolist()
    return [
        Mention(row, start + at, _number_before(answer[:at], masks.id_texts))
        for row, answer in enumerate(answers)
        for at, token in enumerate(answer)
        if token == masks.token_id
    ]


def _number_before(tokens: Sequence[int], texts: Mapping[int, str]) -> int | None:
    """The number in brackets that the tokens end with."""
    text = ""
    for token in reversed(tokens):
        if token not in texts:
            break
        text = texts[token] + text
    found = _NUMBER.search(text)
    return int(found[1]) if found else None


def used_clips(clips: Clips, clip_of_object: Sequence[int]) -> tuple[Clips, list[int]]:
    """The clips that have objects, and which of those each object is on: pictures that no mask is made on are not
    encoded."""
    used = sorted(set(clip_of_object))
    if len(used) == len(clips.lengths):
        return clips, list(clip_of_object)
    starts = np.cumsum([0, *clips.lengths])
    pixels = torch.cat([clips.pixels[starts[clip] : starts[clip + 1]] for clip in used])
    return Clips(pixels, tuple(clips.lengths[clip] for clip in used)), [used.index(clip) for clip in clip_of_object]


def segmented_objects(
    predicted: PredictedMasks, masks: MaskBatch, *, ids: Sequence[int | None], clip_of_object: Sequence[int]
) -> list[SegmentedObject]:
    """The objects of predicted masks.

    An object is on a picture where the head says so with more than one half, and where its mask has a pixel.

    Args:
        predicted: the masks, object by object, each on the pictures of its clip.
        masks: the pictures' sizes and places in their samples.
        ids: of the objects.
        clip_of_object: which of `masks.clips` each object is on.

    Raises:
        SpliceError: there are not as many masks as objects on pictures.
    """
    lengths = [masks.clips.lengths[clip] for clip in clip_of_object]
    _require_as_many(predicted, sum(lengths), adapter=masks.adapter)
    probabilities = predicted.presence.float().sigmoid().tolist()
    ious = predicted.iou.float().tolist()
    objects = []
    for number, (first, end) in enumerate(pairwise(np.cumsum([0, *lengths]).tolist())):
        clip = clip_of_object[number]
        frames = masks.frame_indices[clip] or (0,)
        seen: dict[int, Region] = {}
        believed = []
        for frame, pair in zip(frames, range(first, end), strict=True):
            # One picture at a time: at its original size a mask may be large.
            mask = _at_size(predicted.logits[pair], masks.images_hw[clip]) if probabilities[pair] > 0.5 else None
            if mask is not None and mask.any():
                seen[frame] = Region.from_mask(mask)
                believed.append(ious[pair])
        score = min(max(sum(believed) / len(believed), 0.0), 1.0) if believed else 0.0
        presence = dict(zip(frames, probabilities[first:end], strict=True))
        objects.append(SegmentedObject(ids[number], _placed(seen, masks, clip), score, presence))
    return objects


def _require_as_many(predicted: PredictedMasks, pairs: int, *, adapter: str) -> None:
    shapes = [tuple(each.shape) for each in (predicted.logits, predicted.iou, predicted.presence)]
    if len(shapes[0]) != 3 or shapes[0][0] != pairs or shapes[1:] != [(pairs,), (pairs,)]:
        raise SpliceError(
            f"Adapter '{adapter}' must predict {pairs} masks, one for each object on each picture: logits "
            f"({pairs}, h, w), iou and presence ({pairs},), got {shapes[0]}, {shapes[1]} and {shapes[2]}."
        )


def _at_size(logits: Tensor, image_hw: tuple[int, int]) -> np.ndarray:
    """`(H, W)` bool of `(h, w)` logits."""
    resized = interpolate(logits[None, None].float(), image_hw, mode="bilinear", align_corners=False)
    inside: np.ndarray = (resized[0, 0] > 0).cpu().numpy()
    return inside


def _placed(seen: Mapping[int, Region], masks: MaskBatch, clip: int) -> Region | VideoRegion | None:
    """An object's masks on its image or its video."""
    if not seen:
        return None
    if masks.frame_indices[clip] is None:
        return seen[0].on_image(masks.media_index[clip])
    return VideoRegion(seen, masks.media_index[clip])


class ForcedMask(LogitsProcessor):
    """Lets no answer end before it has given a mask.

    While an answer has none, the mask's token is as likely as its end, which it takes the place of; where the answer
    may have one token more, it is that one.

    Args:
        token_id: of the mask's token.
        end_ids: of the tokens that end an answer.
        start: position at which the answers begin.
        max_length: of a sequence.
        wanted: for each sample whether it is asked for masks.
    """

    def __init__(
        self, token_id: int, *, end_ids: Sequence[int], start: int, max_length: int, wanted: Sequence[bool]
    ) -> None:
        self._token_id = token_id
        self._end_ids = list(end_ids)
        self._start = start
        self._max_length = max_length
        self._wanted = torch.tensor(wanted)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        wanted = self._wanted.repeat_interleave(len(input_ids) // len(self._wanted)).to(input_ids.device)
        lacking = wanted & ~(input_ids[:, self._start :] == self._token_id).any(dim=1)
        changed = scores.clone()
        if input_ids.shape[1] + 1 >= self._max_length:
            changed[:] = -torch.inf
            changed[:, self._token_id] = 0
        elif self._end_ids:
            likelier = scores[:, [self._token_id, *self._end_ids]].amax(dim=1)
            changed[:, self._end_ids] = -torch.inf
            changed[:, self._token_id] = likelier
        return torch.where(lacking[:, None], changed, scores)
