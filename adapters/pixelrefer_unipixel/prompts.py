"""Clicks and boxes as object tokens (`<ref>`): SAM 2's prompt encoder, and when the frame is. Knows no backbone.

Shape letters: Q points of a batch, T tokens, S SAM 2's width, D decoder width.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoPromptEncoder

from pixelrefer_plugin.authoring import EncodedPrompts

from .layers import linear

_CLICK, _UPPER_LEFT, _LOWER_RIGHT = 1, 2, 3  # rows of SAM's table; 0 is a click on what is not the object
_TABLE_ROWS = 4
_TO_CENTRE_PX = 0.5  # SAM takes coordinates for those of whole pixels


class FourierFeatures(nn.Module):
    """Sines and cosines of random directions: how SAM writes a place in the unit square, or a time in [0, 1].

    Args:
        dimensions: coordinates of a place.
        width: how many features, half of them sines.
    """

    directions: Tensor

    def __init__(self, dimensions: int, width: int) -> None:
        super().__init__()
        self.register_buffer("directions", torch.randn(dimensions, width // 2))

    def forward(self, places: Tensor) -> Tensor:
        """`(..., width)` from `(..., dimensions)`, coordinates in [0, 1]."""
        # Not as a product of matrices, which autocast would take to half precision: pixels would be lost.
        along = ((2 * places - 1)[..., None] * self.directions.to(places.dtype)).sum(dim=-2)
        angles = 2 * math.pi * along
        return torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.directions.dtype)


class SparsePromptEncoder(nn.Module):
    """One token for each click and one for each box.

    A click is two vectors, itself and SAM's padding point; a box is its two corners and the padding point.

    Args:
        sam_width: width S of SAM 2's prompt tokens.
        decoder_width: width D of the tokens.
        picture_px: side of SAM 2's square picture.
    """

    def __init__(self, *, sam_width: int, decoder_width: int, picture_px: int) -> None:
        super().__init__()
        self.picture_px = picture_px
        self.place = FourierFeatures(2, sam_width)
        self.kind = nn.Embedding(_TABLE_ROWS, sam_width)
        self.padding = nn.Embedding(1, sam_width)
        self.click = linear(2 * sam_width, 3 * sam_width)
        self.box = linear(3 * sam_width, 3 * sam_width)
        self.time = FourierFeatures(1, sam_width)
        self.time_kind = nn.Embedding(1, sam_width)
        self.frame = linear(sam_width, 3 * sam_width)
        self.out = nn.Sequential(nn.GELU(), linear(6 * sam_width, decoder_width))

    def forward(self, prompts: EncodedPrompts, counts: Sequence[int]) -> Tensor:
        """The tokens of the regions that were drawn.

        Args:
            prompts: the regions of a batch that are read so.
            counts: tokens of each of them.

        Returns:
            `(T, D)`, region by region.
        """
        clicks, corners, row, region = (
            torch.from_numpy(each).to(prompts.points_xy.device, non_blocking=True) for each in _rows(prompts, counts)
        )
        points = self._placed(prompts)
        where = torch.cat([self.click(self._clicks(points[clicks])), self.box(self._boxes(points[corners]))])[row]
        return self.out(torch.cat([where, self.frame(self._times(prompts)[region])], dim=-1))

    @torch.no_grad()
    def start_from(self, prompt_encoder: Sam2VideoPromptEncoder) -> None:
        """Copy the weights of a SAM 2's prompt encoder."""
        self.place.directions.copy_(prompt_encoder.shared_embedding.positional_embedding)
        self.kind.weight.copy_(prompt_encoder.point_embed.weight)
        self.padding.weight.copy_(prompt_encoder.not_a_point_embed.weight)

    def _placed(self, prompts: EncodedPrompts) -> Tensor:
        """`(Q, S)`: where each point lies on SAM's square picture."""
        images_wh = prompts.images_hw.flip(1)[prompts.region_of_point]
        return self.place(prompts.points_xy / images_wh + _TO_CENTRE_PX / self.picture_px)

    def _clicks(self, points: Tensor) -> Tensor:
        """`(clicks, 2S)`."""
        return torch.cat([points + self.kind.weight[_CLICK], self.padding.weight.expand_as(points)], dim=-1)

    def _boxes(self, corners: Tensor) -> Tensor:
        """`(boxes, 3S)` from `(boxes, 2, S)`."""
        corners = corners + self.kind.weight[_UPPER_LEFT : _LOWER_RIGHT + 1]
        return torch.cat([corners.flatten(1), self.padding.weight.expand(len(corners), -1)], dim=-1)

    def _times(self, prompts: EncodedPrompts) -> Tensor:
        """`(R, S)`: which frame of its video each region lies on, from 0 for the first to 1 for the last."""
        share = prompts.frame_position / (prompts.num_frames - 1).clamp(min=1)
        return self.time(share[:, None]) + self.time_kind.weight


def _rows(prompts: EncodedPrompts, counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Which points are clicks, `(clicks,)`, and which the corners of a box, `(boxes, 2)`; which row each token has
    where the clicks' are followed by the boxes', `(T,)`; and its region, `(T,)`."""
    kinds = np.array(prompts.kinds)
    tokens = np.array(counts, dtype=np.int64)
    points = np.where(kinds == "box", 2, tokens)
    region = np.repeat(np.arange(len(kinds)), tokens)
    of_region = np.arange(len(region)) - (tokens.cumsum() - tokens)[region]
    point = (points.cumsum() - points)[region] + of_region
    is_box = kinds[region] == "box"
    return point[~is_box], point[is_box][:, None] + np.arange(2), rows_with_last(is_box), region


def rows_with_last(last: np.ndarray) -> np.ndarray:
    """For each item its row once those that are `last` are put behind the others, both in their order."""
    return last.argsort(kind="stable").argsort(kind="stable")
