"""The scene's features, captured from the backbone's own vision pass instead of being computed again.

Planned by the processor, captured by hooks on the vision tower and the projector that exist for one call, like the
splice.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, SupportsFloat

import torch
from torch import nn

from ..contracts.adapter import AdapterSpec
from ..contracts.backbone import BackboneSpec, GridsHw, NativeCall, Scene, ShownMedium
from ..contracts.encoded import FeatureGrids
from ..conversation.sample import ReadSample
from ..errors import PluginError, SpliceError, shown
from ..media.video import Video
from ..plugins import count_of, in_plugin, require_result
from ..regions.mask import FloatBox
from .layouts import PlannedRegion, SceneGrids, SceneLayout


def scene_readings(regions: Iterable[PlannedRegion]) -> frozenset[bool]:
    """How regions read the scene: whole (False), tiled (True), both, or not at all."""
    views = (view for region in regions for view in region.plan.views if view is not None and view.reads_scene)
    return frozenset(bool(getattr(view, "tiled", False)) for view in views)


def plan_scene(
    samples: Sequence[ReadSample],
    spec: BackboneSpec,
    adapter: AdapterSpec,
    call: NativeCall,
    *,
    readings: frozenset[bool],
) -> SceneLayout:
    """Where the backbone's own pass will show each picture of a batch.

    Args:
        samples: the batch's samples, all of whose pictures the backbone is shown.
        spec: the backbone plugin's spec.
        adapter: the adapter's, which says what it reads of the scene.
        call: what the backbone will be given.
        readings: of `scene_readings`.

    Raises:
        PluginError: the plugin does not say how the backbone sees videos, or what its projector makes of the scene; or
            it has more or fewer grids than pictures; or a grid is not whole cells.
    """
    call = replace(call, shown=tuple(_shown(sample) for sample in samples))
    return _ScenePlan(samples, spec, adapter, call).layout(readings)


def _shown(sample: ReadSample) -> tuple[ShownMedium, ...]:
    """A sample's pictures and videos, in the order of its messages."""
    images, videos = iter(sample.images), iter(sample.videos)
    contents = (each["content"] for each in sample.messages if not isinstance(each["content"], str))
    shown = []
    for part in (part for content in contents for part in content):
        if part["type"] == "image":
            image = next(images)
            shown.append(ShownMedium("image", (image.height, image.width)))
        elif part["type"] == "video":
            video = next(videos)
            shown.append(ShownMedium("video", video.image_hw, len(video)))
    return tuple(shown)


@dataclass(frozen=True, eq=False)
class _ScenePlan:
    """How the scene of one batch is planned."""

    samples: Sequence[ReadSample]
    spec: BackboneSpec
    adapter: AdapterSpec
    call: NativeCall

    def layout(self, readings: frozenset[bool]) -> SceneLayout:
        images = [image for sample in self.samples for image in sample.images]
        videos = [video for sample in self.samples for video in sample.videos]
        together = self._frames_per_grid() if videos else 1
        grid_of_picture = list(range(len(images)))
        for video in videos:
            first = grid_of_picture[-1] + 1 if grid_of_picture else 0
            grid_of_picture += [first + position // together for position in range(len(video))]
        sizes_hw = [(image.height, image.width) for image in images]
        return SceneLayout(
            whole=self._grids(False, sizes_hw, videos, together) if False in readings else None,
            tiled=self._grids(True, sizes_hw, videos, together) if True in readings else None,
            grid_of_picture=tuple(grid_of_picture),
            image_grids_per_sample=tuple(len(sample.images) for sample in self.samples),
            video_grids_per_sample=tuple(
                sum(-(-len(video) // together) for video in sample.videos) for sample in self.samples
            ),
            features=self.adapter.scene,
            cell_side=self._cell_side,
            shown=self.call.shown,
        )

    @property
    def _cell_side(self) -> int:
        if not self.adapter.on_scene_tokens:
            return 1
        return count_of("backbone", self.spec.name, "cells.side", self.spec.cell_side, self.call.config)

    def _frames_per_grid(self) -> int:
        frames_per_grid = videos_of(self.spec).frames_per_grid
        return count_of("backbone", self.spec.name, "videos.frames_per_grid", frames_per_grid, self.call.config)

    def _grids(
        self, tiled: bool, sizes_hw: Sequence[tuple[int, int]], videos: Sequence[Video], together: int
    ) -> SceneGrids:
        field, images = images_of(self.spec, tiled=tiled)
        grids_hw: GridsHw = ()
        boxes: list[FloatBox] = []
        if sizes_hw:
            grids_hw += self._planned(f"{field}.grids_hw", images, len(sizes_hw), "images")
            boxes += self._boxes(f"{field}.boxes_xyxy", images, sizes_hw)
        if videos:
            scene, expected = videos_of(self.spec), sum(-(-len(video) // together) for video in videos)
            grids_hw += self._planned("videos.grids_hw", scene, expected, "grids of frames")
            of_videos = self._boxes("videos.boxes_xyxy", scene, [video.image_hw for video in videos])
            boxes += [box for video, box in zip(videos, of_videos, strict=True) for _ in range(len(video))]
        return SceneGrids(tuple(_cells_hw(self.spec, each, self._cell_side) for each in grids_hw), tuple(boxes))

    def _planned(self, field: str, scene: Scene, expected: int, what: str) -> GridsHw:
        self._require_projected(field.partition(".")[0], scene)
        with in_plugin("backbone", self.spec.name, field):
            grids_hw = tuple(scene.grids_hw(self.call))
            _require_one_each(self.spec, field, len(grids_hw), expected, what)
            for grid_hw in grids_hw:
                _require_numbers(self.spec, field, grid_hw, "rows and columns", length=2, least=1)
        return grids_hw

    def _boxes(self, field: str, scene: Scene, sizes_hw: Sequence[tuple[int, int]]) -> list[FloatBox]:
        if scene.boxes_xyxy is None:
            return [(0, 0, width, height) for height, width in sizes_hw]
        with in_plugin("backbone", self.spec.name, field):
            boxes = list(scene.boxes_xyxy(self.call, sizes_hw))
            _require_one_each(self.spec, field, len(boxes), len(sizes_hw), "pictures")
            for box in boxes:
                _require_numbers(self.spec, field, box, "x0, y0, x1, y1", length=4)
        return boxes

    def _require_projected(self, field: str, scene: Scene) -> None:
        if self.adapter.scene == "projected" and scene.projected is None:
            raise PluginError(
                f"Adapter '{self.adapter.name}' reads projected scene tokens, but backbone plugin '{self.spec.name}' "
                f"does not say what its projector makes of {field} (BackboneSpec.{field}, Scene.projected)."
            )


def images_of(spec: BackboneSpec, *, tiled: bool) -> tuple[str, Scene]:
    """How images are seen, whole or as their tiles, and the spec's field that says so."""
    return ("tiles", spec.tiles) if tiled and spec.tiles is not None else ("images", spec.images)


def videos_of(spec: BackboneSpec) -> Scene:
    """How videos are seen.

    Raises:
        PluginError: the plugin does not say so.
    """
    if spec.videos is None:
        raise PluginError(
            f"Backbone plugin '{spec.name}' does not say how its own pass sees videos (BackboneSpec.videos), "
            "whose features this adapter reads. An adapter that reads crops alone works."
        )
    return spec.videos


def _require_one_each(spec: BackboneSpec, field: str, got: int, expected: int, what: str) -> None:
    """A picture more or less than there are would have regions read the grid of another."""
    if got != expected:
        raise PluginError(
            f"Backbone plugin '{spec.name}': {field} gives {got} for the batch's {expected} {what}; there must be one "
            "each. Does the processor cut a picture into several?"
        )


def _require_numbers(
    spec: BackboneSpec, field: str, value: Any, what: str, *, length: int, least: float = -math.inf
) -> None:
    numbers = tuple(value) if isinstance(value, Iterable) else ()
    sound = len(numbers) == length and all(isinstance(each, SupportsFloat) for each in numbers)
    if not sound or not all(math.isfinite(each) and each >= least for each in numbers):
        raise PluginError(f"Backbone plugin '{spec.name}': {field} must give {what} of each, got {shown(value)}.")


def _cells_hw(spec: BackboneSpec, grid_hw: tuple[int, int], side: int) -> tuple[int, int]:
    height, width = grid_hw
    if height % side or width % side:
        raise PluginError(
            f"Backbone plugin '{spec.name}' says that its projector reads cells of {side}x{side} patches "
            f"(BackboneSpec.cells), but a grid of its own pass has {height}x{width} patches."
        )
    return height // side, width // side


@contextmanager
def captured_scene(
    backbone: Any, spec: BackboneSpec, layout: SceneLayout | None, call: NativeCall
) -> Iterator[Callable[[], Mapping[bool, FeatureGrids]]]:
    """Keep what the vision tower, or the projector, returns within this context, where regions read it.

    Args:
        backbone: the model that will be called.
        spec: its plugin's spec.
        layout: what was planned; None where no view wants the scene.
        call: what the model is given.

    Yields:
        A function that returns the planned grids by whether they are tiled, once the tower has run.
    """
    if layout is None:
        yield dict
        return
    capture = _SceneCapture(backbone, spec, layout, call)
    hooks = (
        backbone.register_forward_pre_hook(capture.see_call, with_kwargs=True),
        backbone.get_submodule(capture.path).register_forward_hook(capture.see_output),
    )
    try:
        yield capture.grids
    finally:
        for hook in hooks:
            hook.remove()


class _SceneCapture:
    """What one call of the backbone shows of its vision pass; calls of other threads are not looked at."""

    def __init__(self, backbone: Any, spec: BackboneSpec, layout: SceneLayout, call: NativeCall) -> None:
        self._spec = spec
        self._layout = layout
        self._call = call
        self._backbone = backbone
        self._caller = threading.get_ident()
        # Some versions of transformers' beam search repeat the images before the tower sees them, others after.
        self._inputs_of_call = call.inputs
        self._outputs: list[Any] = []
        self._is_read = False

    @property
    def path(self) -> str:
        """The module whose outputs are kept."""
        parts = self._spec.parts
        return parts.projector if self._layout.features == "projected" else parts.scene_source

    def see_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        """A pre-hook on the backbone."""
        if threading.get_ident() == self._caller and kwargs is not None and not self._outputs:
            self._inputs_of_call = kwargs

    def see_output(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        """A hook on the module; without a cache it is called again for the same pictures, once they have been read."""
        if threading.get_ident() == self._caller and not self._is_read:
            self._outputs.append(output)

    def grids(self) -> dict[bool, FeatureGrids]:
        """The planned grids; the module must have run."""
        self._is_read = True
        if not self._outputs:
            raise SpliceError(
                f"Backbone '{self._spec.name}' reached its decoder without calling its '{self.path}', whose features "
                "the adapter reads. Were the pictures' tensors left out?"
            )
        readings = {False: self._layout.whole, True: self._layout.tiled}
        return {tiled: self._read(tiled) for tiled, planned in readings.items() if planned is not None}

    def _read(self, tiled: bool) -> FeatureGrids:
        field, images = images_of(self._spec, tiled=tiled)
        parts = []
        if any(per_sample := self._layout.image_grids_per_sample):
            parts.append(_first_copies(self._seen(field, images, per_sample), per_sample))
        if any(per_sample := self._layout.video_grids_per_sample):
            parts.append(_first_copies(self._seen("videos", videos_of(self._spec), per_sample), per_sample))
        grids = FeatureGrids.joined(parts)
        return merged_cells(self._backbone, self._spec, grids) if self._layout.features == "cells" else grids

    def _seen(self, field: str, scene: Scene, grids_per_sample: Sequence[int]) -> FeatureGrids:
        projects = self._layout.features == "projected"
        read = scene.projected if projects else scene.grids
        assert read is not None, "that it says so was seen when the scene was planned"
        call = replace(self._call, inputs=self._inputs_of_call, model=self._backbone, shown=self._layout.shown)
        field = f"{field}.{'projected' if projects else 'grids'}"
        with in_plugin("backbone", self._spec.name, field):
            grids = read(call, tuple(self._outputs))
            require_result("backbone", self._spec.name, field, FeatureGrids, grids)
            if not len(grids) or len(grids) % sum(grids_per_sample):  # beam search may repeat them
                raise PluginError(
                    f"Backbone plugin '{self._spec.name}': {field} gives {len(grids)} grids, where "
                    f"{sum(grids_per_sample)} were planned."
                )
        return grids


def merged_cells(backbone: Any, spec: BackboneSpec, grids: FeatureGrids) -> FeatureGrids:
    """The scene's patches as cells, as the projector's first layer reads them; patches where it reads these."""
    if spec.cells is None:
        return grids
    side = count_of("backbone", spec.name, "cells.side", spec.cells.side, backbone.config)
    cells = grids.pooled(side) if spec.cells.pooled else grids.merged(side)
    if spec.cells.norm is None:
        return cells
    return FeatureGrids(backbone.get_submodule(spec.cells.norm)(cells.features), cells.grids_hw)


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
