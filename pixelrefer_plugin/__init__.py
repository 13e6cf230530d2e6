"""Region referring for the multimodal LLM you already have.

Attach an adapter to an unmodified Hugging Face model, fine-tune it on your regions, save one small folder:

    model, processor = attach(backbone, native_processor, adapter="saot")
    inputs = processor(messages, regions=[Region.from_box((10, 20, 60, 90))])
    answer = processor.decode(model.generate(**inputs, max_new_tokens=64), inputs)

Names are imported when they are first used, so importing this package costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
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
    from .chat import Chat, RememberError, pixel_qa
    from .contracts.adapter import AdapterRecipe, AdapterSpec
    from .contracts.backbone import BackboneSpec, CheckpointLayout, VideoScene
    from .contracts.data_format import DataFormatSpec
    from .contracts.masks import Clips, MaskHeadSpec, MaskTargets, PredictedMasks, SegmentedObject
    from .contracts.options import check_field
    from .contracts.region_source import RegionSource, RegionSourceSpec
    from .contracts.samples import RegionSample
    from .contracts.views import (
        CropView,
        EncodedPrompts,
        EncodedView,
        FeatureGrids,
        PatchGeometry,
        PromptView,
        RegionPlan,
        SceneView,
    )
    from .conversation.memory import MemoryObject, ObjectMemory
    from .conversation.token_ids import TokenIds
    from .data.dataset import MixedDataset, RegionDataset
    from .entry import attach, load
    from .evaluation.metrics import (
        MaskScores,
        PixelQAResult,
        boundary_accuracy,
        j_and_f,
        pixel_qa_score,
        region_similarity,
    )
    from .masks.objects import GeneratedMasks
    from .media.images import load_image
    from .media.video import FrameSampling, Video, load_video
    from .model import RegionModel
    from .official import import_official
    from .overlay import draw_regions, save_overlay
    from .plugins import get_adapter, get_backbone, list_plugins
    from .processor import RegionProcessor
    from .regions.mask import Box, RegionMask
    from .regions.region import Region, VideoRegion
    from .sources import load_region_source
    from .training.collator import RegionCollator
    from .training.trainer import RegionTrainer

_HOME = {
    "AdapterRecipe": "contracts.adapter",
    "AdapterSpec": "contracts.adapter",
    "BackboneSpec": "contracts.backbone",
    "Box": "regions.mask",
    "Chat": "chat",
    "CheckpointLayout": "contracts.backbone",
    "Clips": "contracts.masks",
    "CropView": "contracts.views",
    "DataFormatSpec": "contracts.data_format",
    "EncodedPrompts": "contracts.views",
    "EncodedView": "contracts.views",
    "FeatureGrids": "contracts.views",
    "FrameSampling": "media.video",
    "GeneratedMasks": "masks.objects",
    "MaskHeadSpec": "contracts.masks",
    "MaskScores": "evaluation.metrics",
    "MaskTargets": "contracts.masks",
    "MemoryObject": "conversation.memory",
    "MixedDataset": "data.dataset",
    "ObjectMemory": "conversation.memory",
    "PatchGeometry": "contracts.views",
    "PixelQAResult": "evaluation.metrics",
    "PredictedMasks": "contracts.masks",
    "PromptView": "contracts.views",
    "Region": "regions.region",
    "RegionCollator": "training.collator",
    "RegionDataset": "data.dataset",
    "RegionMask": "regions.mask",
    "RegionModel": "model",
    "RegionPlan": "contracts.views",
    "RegionProcessor": "processor",
    "RegionSample": "contracts.samples",
    "RegionSource": "contracts.region_source",
    "RegionSourceSpec": "contracts.region_source",
    "RegionTrainer": "training.trainer",
    "RememberError": "chat",
    "SceneView": "contracts.views",
    "SegmentedObject": "contracts.masks",
    "TokenIds": "conversation.token_ids",
    "Video": "media.video",
    "VideoRegion": "regions.region",
    "VideoScene": "contracts.backbone",
    "attach": "entry",
    "boundary_accuracy": "evaluation.metrics",
    "check_field": "contracts.options",
    "draw_regions": "overlay",
    "get_adapter": "plugins",
    "get_backbone": "plugins",
    "import_official": "official",
    "j_and_f": "evaluation.metrics",
    "list_plugins": "plugins",
    "load": "entry",
    "load_image": "media.images",
    "load_region_source": "sources",
    "load_video": "media.video",
    "pixel_qa": "chat",
    "pixel_qa_score": "evaluation.metrics",
    "region_similarity": "evaluation.metrics",
    "save_overlay": "overlay",
}

__all__ = [
    "AdapterRecipe",
    "AdapterSpec",
    "AttachError",
    "BackboneSpec",
    "Box",
    "Chat",
    "CheckpointError",
    "CheckpointLayout",
    "Clips",
    "ConfigError",
    "CropView",
    "DataError",
    "DataFormatSpec",
    "EncodedPrompts",
    "EncodedView",
    "FeatureGrids",
    "FrameSampling",
    "GeneratedMasks",
    "ImageError",
    "MaskHeadSpec",
    "MaskScores",
    "MaskTargets",
    "MemoryObject",
    "MixedDataset",
    "ObjectMemory",
    "PatchGeometry",
    "PixelQAResult",
    "PixelReferError",
    "PluginError",
    "PredictedMasks",
    "PromptError",
    "PromptView",
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
    "RememberError",
    "SampleError",
    "SceneView",
    "SegmentedObject",
    "SourceError",
    "SpliceError",
    "TokenIds",
    "TrainingError",
    "Video",
    "VideoError",
    "VideoRegion",
    "VideoScene",
    "attach",
    "boundary_accuracy",
    "check_field",
    "draw_regions",
    "get_adapter",
    "get_backbone",
    "hookimpl",
    "import_official",
    "j_and_f",
    "list_plugins",
    "load",
    "load_image",
    "load_region_source",
    "load_video",
    "pixel_qa",
    "pixel_qa_score",
    "region_similarity",
    "save_overlay",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("pixelrefer-plugin")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
