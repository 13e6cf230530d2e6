"""Vision towers that take pictures of any size packed: their patches in one row, cell by cell, with each grid's size.

The way of Qwen's towers since Qwen2-VL, which others took over. `PackedTower` gives a spec's functions for one; it
knows how patches are ordered, no family.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from einops import repeat
from torch import Tensor

from .backbone import Cells, Crops, GridsHw, NativeCall, Scene
from .checks import require_callables, require_kinds
from .encoded import FeatureGrids
from .views import PatchGeometry


def cell_by_cell(vision: Any, grid_hw: tuple[int, int]) -> Tensor:
    """The patches of a grid, numbered in raster order, as a packed tower is fed them: cell by cell.

    Args:
        vision: the tower's config.
        grid_hw: rows and columns, in patches.

    Returns:
        `(h * w,)` int64.
    """
    h, w = grid_hw
    side = vision.spatial_merge_size
    return torch.arange(h * w).view(h // side, side, w // side, side).transpose(1, 2).flatten()


@dataclass(frozen=True, kw_only=True)
class PackedTower:
    """A tower that is called with `(P, C * T * p * p)` patches and `grid_thw`, and joins cells of patches at its end.

    Its config, `config.vision_config`, has `hidden_size`, `patch_size`, `spatial_merge_size` and `temporal_patch_size`.
    A still image is its frame, repeated; each grid of a video stands for `temporal_patch_size` frames.

    Attributes:
        path: the tower in the model.
        norm: path of the norm that patches go through before they are joined; features are taken behind it. None: as
            the tower returns them in `last_hidden_state`.
        order: `order(vision_config, grid_hw)`, which patch of a grid, numbered in raster order, each row of the tower's
            output is, `(h * w,)` int64; the patches of a cell are neighbours.
    """

    path: str
    norm: str | None = None
    order: Callable[[Any, tuple[int, int]], Tensor] = cell_by_cell

    def __post_init__(self) -> None:
        require_kinds(self, path=str, norm=(str, type(None)))
        require_callables(self, "order")

    @property
    def crops(self) -> Crops:
        """How crops go through the tower: all in one call."""
        return Crops(geometry=_geometry, width=_width, encode=self._encode)

    @property
    def cells(self) -> Cells:
        """What the projector reads."""
        return Cells(side=_side)

    @property
    def images(self) -> Scene:
        """How pictures are seen, from the native tensor `image_grid_thw`; the tower's first call is theirs."""
        return self._scene("image_grid_thw", 0)

    @property
    def videos(self) -> Scene:
        """How videos are seen, from the native tensor `video_grid_thw`; the tower's last call is theirs."""
        return self._scene("video_grid_thw", -1)

    def _scene(self, sizes: str, which: int) -> Scene:
        return Scene(
            grids_hw=partial(_grids_hw, sizes),
            grids=lambda call, outputs: self._patches(call.model, outputs[which], _grids_hw(sizes, call)),
            projected=partial(self._projected, sizes, which),
            frames_per_grid=lambda config: int(config.vision_config.temporal_patch_size),
        )

    def _encode(self, model: Any, crops: list[Tensor]) -> FeatureGrids:
        vision = model.config.vision_config
        patch, side = vision.patch_size, vision.spatial_merge_size
        grids_hw = tuple((crop.shape[1] // patch, crop.shape[2] // patch) for crop in crops)
        order = "c (h mh ph) (w mw pw) -> (h w mh mw) (c t ph pw)"
        sides = {"t": vision.temporal_patch_size, "mh": side, "mw": side, "ph": patch, "pw": patch}
        patches = torch.cat([repeat(crop, order, **sides) for crop in crops])
        grid_thw = torch.tensor([(1, h, w) for h, w in grids_hw], device=patches.device)
        return self._patches(model, model.get_submodule(self.path)(patches, grid_thw=grid_thw), grids_hw)

    def _patches(self, model: Any, output: Any, grids_hw: GridsHw) -> FeatureGrids:
        """The tower's patches as grids in raster order."""
        features = output.last_hidden_state
        if self.norm is not None:
            features = model.get_submodule(self.norm)(features)
        return FeatureGrids(features[self._rows(model, grids_hw).to(features.device)], grids_hw)

    def _projected(self, sizes: str, which: int, call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
        """What the projector made of each cell, as grids of cells in raster order."""
        merged, grids_hw, side = outputs[which], _grids_hw(sizes, call), _side(call.config)
        of_grids = self._rows(call.model, grids_hw).split([h * w for h, w in grids_hw])
        first_patches = [rows.view(hw)[::side, ::side].flatten() for rows, hw in zip(of_grids, grids_hw, strict=True)]
        cells = torch.cat(first_patches).to(merged.device) // side**2
        return FeatureGrids(merged[cells], tuple((h // side, w // side) for h, w in grids_hw))

    def _rows(self, model: Any, grids_hw: GridsHw) -> Tensor:
        """For each patch, grid after grid in raster order, the row of the tower's output that holds it: `(P,)`."""
        rows, first = [], 0
        for h, w in grids_hw:
            rows.append(first + self.order(model.config.vision_config, (h, w)).argsort())
            first += h * w
        return torch.cat(rows)


def _grids_hw(sizes: str, call: NativeCall) -> GridsHw:
    """The patch grids of pictures or runs of frames, before their cells are joined."""
    return tuple((h, w) for t, h, w in call.inputs[sizes].tolist() for _ in range(t))


def _geometry(config: Any) -> PatchGeometry:
    vision = config.vision_config
    return PatchGeometry(patch_size=vision.patch_size, grid_multiple=vision.spatial_merge_size)


def _width(config: Any) -> int:
    return int(config.vision_config.hidden_size)


def _side(config: Any) -> int:
    return int(config.vision_config.spatial_merge_size)
