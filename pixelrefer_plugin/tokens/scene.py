"""The scene's features, captured from the backbone's own vision pass instead of being computed again.

Planned by the processor, captured by a hook on the vision tower that exists for one call, like the splice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..contracts.backbone import BackboneSpec, VideoScene
from ..contracts.views import FeatureGrids
from ..conversation.sample import Sample
from ..errors import PluginError, SpliceError
from ..regions.mask import FloatBox
from .layouts import SceneLayout


def plan_scene(
    samples: Sequence[Sample],
    spec: BackboneSpec,
    config: Any,
    inputs: Mapping[str, Any],
    *,
    merged_side: int = 1,
) -> SceneLayout:
    """Where the backbone's own pass will show each picture of a batch.

    Args:
        samples: the batch's samples, all of whose pictures the backbone is shown.
        spec: the backbone plugin's spec.
        config: the backbone's config.
        inputs: the native tensors.
        merged_side: rows and columns of patches that a cell of the grids joins, where the adapter reads them so.

    Raises:
        PluginError: there are videos, and the plugin does not say how the backbone sees them; or it has more or fewer
            grids than pictures; or a grid is not whole cells.
    """
    images = [image for sample in samples for image in sample.images]
    videos = [video for sample in samples for video in sample.videos]
    scene = _video_scene(spec) if videos else None
    grids_hw = tuple(spec.scene_grids_hw(config, inputs))
    _require_one_each(spec, "scene_grids_hw", len(grids_hw), len(images))
    grid_of_picture = list(range(len(images)))
    boxes: list[FloatBox] = [(0, 0, *image.size) for image in images]
    if spec.scene_boxes_xyxy and images:
        boxes = list(spec.scene_boxes_xyxy(config, inputs))
        _require_one_each(spec, "scene_boxes_xyxy", len(boxes), len(images))
    frames_per_grid = 1
    if scene is not None:
        frames_per_grid = scene.frames_per_grid(config)
        for video in videos:
            first = grid_of_picture[-1] + 1 if grid_of_picture else 0
            grid_of_picture += [first + position // frames_per_grid for position in range(len(video))]
            height, width = video.image_hw
            box = scene.box_xyxy(config, video.image_hw) if scene.box_xyxy else (0, 0, width, height)
            boxes += [box] * len(video)
        of_videos = tuple(scene.grids_hw(config, inputs))
        expected = sum(-(-len(video) // frames_per_grid) for video in videos)
        _require_one_each(spec, "video_scene.grids_hw", len(of_videos), expected, "grids of frames")
        grids_hw += of_videos
    return SceneLayout(
        grids_hw=tuple(_cells_hw(spec, grid_hw, merged_side) for grid_hw in grids_hw),
        grid_of_picture=tuple(grid_of_picture),
        boxes_xyxy=tuple(boxes),
        image_grids_per_sample=tuple(len(sample.images) for sample in samples),
        video_grids_per_sample=tuple(
            sum(-(-len(video) // frames_per_grid) for video in sample.videos) for sample in samples
        ),
        merged_side=merged_side,
    )


def _require_one_each(spec: BackboneSpec, field: str, got: int, expected: int, what: str = "images") -> None:
    """A picture more or less than there are would have regions read the grid of another."""
    if got != expected:
        raise PluginError(
            f"Backbone plugin '{spec.name}': {field} gives {got} for the batch's {expected} {what}; there must be one "
            "each. Does the processor cut a picture into several?"
        )


def _cells_hw(spec: BackboneSpec, grid_hw: tuple[int, int], side: int) -> tuple[int, int]:
    height, width = grid_hw
    if height % side or width % side:
        raise PluginError(
            f"Backbone plugin '{spec.name}' says that its projector reads cells of {side}x{side} patches "
            f"(BackboneSpec.merged_side), but a grid of its own pass has {height}x{width} patches."
        )
    return height // side, width // side


def _video_scene(spec: BackboneSpec) -> VideoScene:
    if spec.video_scene is None:
        raise PluginError(
            f"Backbone plugin '{spec.name}' does not say how its own pass sees videos (BackboneSpec.video_scene), "
            "whose features this adapter reads. An adapter that reads crops, such as 'saot', works."
        )
    return spec.video_scene


@contextmanager
def captured_scene(
    backbone: Any, spec: BackboneSpec, layout: SceneLayout | None, inputs: Mapping[str, Any]
) -> Iterator[Callable[[], FeatureGrids | None]]:
    """Keep what the vision tower returns within this context, where the regions' adapter reads it.

    Args:
        backbone: the model that will be called.
        spec: its plugin's spec.
        layout: what was planned; None where no view wants the scene.
        inputs: the native tensors of the call.

    Yields:
        A function that returns the planned grids, once the tower has run.
    """
    if layout is None:
        yield lambda: None
        return
    capture = _SceneCapture(backbone, spec, layout, inputs)
    hooks = (
        backbone.register_forward_pre_hook(capture.see_call, with_kwargs=True),
        backbone.get_submodule(spec.vision_tower).register_forward_hook(capture.see_tower),
    )
    try:
        yield capture.grids
    finally:
        for hook in hooks:
            hook.remove()


@dataclass(eq=False)
class _SceneCapture:
    """What one call of the backbone shows of its vision pass; calls of other threads are not looked at."""

    backbone: Any
    spec: BackboneSpec
    layout: SceneLayout
    inputs: Mapping[str, Any]

    def __post_init__(self) -> None:
        self._caller = threading.get_ident()
        # Some versions of transformers' beam search repeat the images before the tower sees them, others after.
        self._inputs_of_call = self.inputs
        self._outputs: list[tuple[Mapping[str, Any], Any]] = []
        self._kinds = [any(self.layout.image_grids_per_sample), any(self.layout.video_grids_per_sample)]

    def see_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        """A pre-hook on the backbone."""
        if threading.get_ident() == self._caller and kwargs is not None:
            self._inputs_of_call = self.inputs if self._outputs else kwargs

    def see_tower(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A hook on the tower: its first call is the images', the next the videos'; without a cache there are more
        of the same."""
        if len(self._outputs) < sum(self._kinds) and threading.get_ident() == self._caller:
            self._outputs.append((self._inputs_of_call, output))

    def grids(self) -> FeatureGrids:
        """The planned grids; the tower must have run."""
        if len(self._outputs) < sum(self._kinds):
            raise SpliceError(
                f"Backbone '{self.spec.name}' reached its decoder without calling its vision tower "
                f"'{self.spec.vision_tower}', whose features the adapter reads. Were the pictures' tensors left out?"
            )
        has_images, has_videos = self._kinds
        parts, outputs = [], iter(self._outputs)
        if has_images:
            grids = self.spec.scene_grids(self.backbone, *next(outputs))
            parts.append(_first_copies(grids, self.layout.image_grids_per_sample))
        if has_videos:
            grids = _video_scene(self.spec).grids(self.backbone, *next(outputs))
            parts.append(_first_copies(grids, self.layout.video_grids_per_sample))
        return merged_cells(self.backbone, self.spec, FeatureGrids.joined(parts), self.layout.merged_side)


def merged_cells(backbone: Any, spec: BackboneSpec, grids: FeatureGrids, side: int) -> FeatureGrids:
    """The scene's patches as cells of `side * side`, as the projector's first layer reads them; patches where `side`
    is 1."""
    cells = grids.merged(side)
    if side == 1 or spec.cell_norm is None:
        return cells
    return FeatureGrids(backbone.get_submodule(spec.cell_norm)(cells.features), cells.grids_hw)


def _first_copies(grids: FeatureGrids, grids_per_sample: tuple[int, ...]) -> FeatureGrids:
    """Each grid once, where those of each sample may be there several times (beam search)."""
    copies = len(grids) // sum(grids_per_sample)
    if copies == 1:
        return grids
    kept: list[int] = []
    start = 0
    for count in grids_per_sample:
        kept += range(start, start + count)
        start += copies * count
    features = torch.cat([grids[index].flatten(0, 1) for index in kept])
    return FeatureGrids(features, tuple(grids.grids_hw[index] for index in kept))
