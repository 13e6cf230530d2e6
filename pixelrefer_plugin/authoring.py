"""What writers of plugins import."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    AttachError,
    CheckpointError,
    DataError,
    PixelReferError,
    PluginError,
    RegionError,
    SampleError,
    SourceError,
)
from .hookspecs import hookimpl

if TYPE_CHECKING:
    pass

_NAMES = {
    "contracts.adapter": ("AdapterLayout", "AdapterRecipe", "AdapterSpec", "Planner"),
    "contracts.backbone": ("BackboneSpec", "Cells", "CheckpointLayout", "Crops", "NativeCall", "Parts", "Scene"),
    "contracts.encoded": ("EncodedPrompts", "EncodedView", "FeatureGrids"),
    "contracts.masks": ("Clips", "MaskTargets", "Masks", "PredictedMasks"),
    "contracts.module": ("AdapterModule", "MaskModule", "Shapes"),
    "contracts.options": ("check_field",),
    "contracts.views": (
        "CropView",
        "PatchGeometry",
        "PromptView",
        "RegionPlan",
        "Resample",
        "SceneView",
        "View",
    ),
    "regions.mask": ("Box", "FloatBox", "RegionMask"),
    "regions.region": ("Region", "VideoRegion"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "AttachError",
    "CheckpointError",
    "DataError",
    "PixelReferError",
    "PluginError",
    "RegionError",
    "SampleError",
    "SourceError",
    "hookimpl",
    *_HOME,
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __package__), name)
