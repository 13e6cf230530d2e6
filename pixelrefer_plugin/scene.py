"""The scene's features, captured from the backbone's own vision pass instead of being computed again.

A hook on the vision tower that exists for one call, like the splice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .contracts import BackboneSpec, FeatureGrids
from .errors import SpliceError
from .region_batch import RegionBatch


@contextmanager
def captured_scene(
    backbone: Any, spec: BackboneSpec, regions: RegionBatch, inputs: Mapping[str, Any]
) -> Iterator[Callable[[], FeatureGrids | None]]:
    """Keep what the vision tower returns within this context, where the regions' adapter reads it.

    Args:
        backbone: the model that will be called.
        spec: its plugin's spec.
        regions: the regions of the call.
        inputs: the native tensors of the call.

    Yields:
        A function that returns one grid per image, once the tower has run; None where no view wants the scene.
    """
    if not regions.wants_scene:
        yield lambda: None
        return
    # Some versions of transformers' beam search repeat the images before the tower sees them, others after.
    calls: list[Mapping[str, Any]] = [inputs]
    outputs: list[tuple[Mapping[str, Any], Any]] = []

    caller = threading.get_ident()

    def see_call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        if threading.get_ident() == caller and kwargs is not None:
            calls[0] = inputs if outputs else kwargs

    def see_tower(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        # The images' pass is the tower's first call; a video's would be the second.
        if not outputs and threading.get_ident() == caller:
            outputs.append((calls[0], output))

    def scene() -> FeatureGrids:
        if not outputs:
            raise SpliceError(
                f"Backbone '{spec.name}' reached its decoder without calling its vision tower '{spec.vision_tower}', "
                "whose features the adapter reads. Were the pictures' tensors left out?"
            )
        return _first_copies(spec.scene_grids(backbone, *outputs[0]), regions.images_per_sample)

    tower = backbone.get_submodule(spec.vision_tower)
    hooks = (
        backbone.register_forward_pre_hook(see_call, with_kwargs=True),
        tower.register_forward_hook(see_tower),
    )
    try:
        yield scene
    finally:
        for hook in hooks:
            hook.remove()


def _first_copies(grids: FeatureGrids, images_per_sample: tuple[int, ...]) -> FeatureGrids:
    """One grid per image, where the images of each sample may be there several times (beam search)."""
    copies = len(grids) // sum(images_per_sample)
    if copies == 1:
        return grids
    kept: list[int] = []
    start = 0
    for count in images_per_sample:
        kept += range(start, start + count)
        start += copies * count
    features = torch.cat([grids[index].flatten(0, 1) for index in kept])
    return FeatureGrids(features, tuple(grids.grids_hw[index] for index in kept))
