"""Region referring for the multimodal LLM you already have.

Attach an adapter to an unmodified Hugging Face model, fine-tune it on your regions, save one small folder:

    model = RegionModel.attach(backbone, adapter="saot")
    processor = model.make_processor(native_processor)
    inputs = processor(messages, regions=[Region.from_box((10, 20, 60, 90))])
    answer = processor.decode(model.generate(**inputs, max_new_tokens=64), inputs)

Names are imported when they are first used, so importing this package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    AttachError,
    CheckpointError,
    ConfigError,
    DataError,
    ImageError,
    PixelReferError,
    PluginError,
    PromptError,
    RegionError,
    SampleError,
    SourceError,
    SpliceError,
    TrainingError,
    VideoError,
)
from .hookspecs import hookimpl

if TYPE_CHECKING:
    from .contracts import (
        AdapterSpec,
        BackboneSpec,
        CheckpointLayout,
        CropView,
        DataFormatSpec,
        EncodedView,
        FeatureGrids,
        PatchGeometry,
        RegionPlan,
        RegionSource,
        RegionSourceSpec,
        SceneView,
        VideoScene,
        check_field,
    )
    from .data.dataset import MixedDataset, RegionDataset
    from .data.sample import RegionSample
    from .images import load_image
    from .model import RegionModel
    from .official import import_official
    from .overlay import draw_regions, save_overlay
    from .plugins import get_adapter, get_backbone, list_plugins
    from .processor import RegionProcessor
    from .regions import Box, Region, RegionMask, VideoRegion
    from .sources import load_region_source
    from .training.collator import RegionCollator
    from .training.trainer import RegionTrainer
    from .video import FrameSampling, Video, load_video

__version__ = "0.1.0"

_HOME = {
    "AdapterSpec": "contracts",
    "BackboneSpec": "contracts",
    "Box": "regions",
    "CheckpointLayout": "contracts",
    "CropView": "contracts",
    "DataFormatSpec": "contracts",
    "EncodedView": "contracts",
    "FeatureGrids": "contracts",
    "FrameSampling": "video",
    "MixedDataset": "data.dataset",
    "PatchGeometry": "contracts",
    "Region": "regions",
    "RegionCollator": "training.collator",
    "RegionDataset": "data.dataset",
    "RegionMask": "regions",
    "RegionModel": "model",
    "RegionPlan": "contracts",
    "RegionProcessor": "processor",
    "RegionSample": "data.sample",
    "RegionSource": "contracts",
    "RegionSourceSpec": "contracts",
    "RegionTrainer": "training.trainer",
    "SceneView": "contracts",
    "Video": "video",
    "VideoRegion": "regions",
    "VideoScene": "contracts",
    "check_field": "contracts",
    "draw_regions": "overlay",
    "get_adapter": "plugins",
    "get_backbone": "plugins",
    "import_official": "official",
    "list_plugins": "plugins",
    "load_image": "images",
    "load_region_source": "sources",
    "load_video": "video",
    "save_overlay": "overlay",
}

__all__ = [
    "AdapterSpec",
    "AttachError",
    "BackboneSpec",
    "Box",
    "CheckpointError",
    "CheckpointLayout",
    "ConfigError",
    "CropView",
    "DataError",
    "DataFormatSpec",
    "EncodedView",
    "FeatureGrids",
    "FrameSampling",
    "ImageError",
    "MixedDataset",
    "PatchGeometry",
    "PixelReferError",
    "PluginError",
    "PromptError",
    "Region",
    "RegionCollator",
    "RegionDataset",
    "RegionError",
    "RegionMask",
    "RegionModel",
    "RegionPlan",
    "RegionProcessor",
    "RegionSample",
    "RegionSource",
    "RegionSourceSpec",
    "RegionTrainer",
    "SampleError",
    "SceneView",
    "SourceError",
    "SpliceError",
    "TrainingError",
    "Video",
    "VideoError",
    "VideoRegion",
    "VideoScene",
    "check_field",
    "draw_regions",
    "get_adapter",
    "get_backbone",
    "hookimpl",
    "import_official",
    "list_plugins",
    "load_image",
    "load_region_source",
    "load_video",
    "save_overlay",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
