"""How VideoLLaMA3 is read and fed.

Its tower (SigLIP-NaViT) takes any number of images of any size in one packed call and downsamples by
`merge_sizes` itself, so crops use 1. Features are taken after its last norm, as the projector reads them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from transformers import VideoLlama3ForConditionalGeneration
from transformers.models.video_llama_3.video_processing_video_llama_3 import smart_resize

from pixelrefer_plugin.authoring import (
    BackboneSpec,
    Coordinates,
    Crops,
    FeatureGrids,
    GridsHw,
    NativeCall,
    Parts,
    PatchGeometry,
    PublishedModel,
    Scene,
)

from .layouts import LAYOUTS
from .tiny import tiny


def geometry(config: Any) -> PatchGeometry:
    return PatchGeometry(patch_size=config.vision_config.patch_size)


def width(config: Any) -> int:
    return int(config.vision_config.hidden_size)


def encode(model: Any, crops: list[Tensor]) -> FeatureGrids:
    """All crops in one packed tower call."""
    patch = model.config.vision_config.patch_size
    grids_hw = tuple((crop.shape[1] // patch, crop.shape[2] // patch) for crop in crops)
    patches = [rearrange(crop, "c (h ph) (w pw) -> (h w) (c ph pw)", ph=patch, pw=patch) for crop in crops]
    output = model.model.vision_model(
        pixel_values=torch.cat(patches),
        grid_thw=torch.tensor([(1, h, w) for h, w in grids_hw], device=crops[0].device),
        merge_sizes=torch.ones(len(crops), dtype=torch.int64, device=crops[0].device),
    )
    return FeatureGrids(output.last_hidden_state, grids_hw)


def image_grids_hw(call: NativeCall) -> GridsHw:
    return _merged_grids_hw(call, "image")


def image_grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    """The tower's output is in raster order after its own downsampling."""
    return FeatureGrids(outputs[0].last_hidden_state, image_grids_hw(call))


def projected_images(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
    return FeatureGrids(outputs[0], image_grids_hw(call))


def video_grids_hw(call: NativeCall) -> GridsHw:
    return _merged_grids_hw(call, "video")


def video_grids(call: NativeCall, outputs: Sequence[Any]) -> FeatureGrids:
    """Every frame's grid, also of those whose tokens the native pass then drops as repetitions."""
    return FeatureGrids(outputs[-1].last_hidden_state, video_grids_hw(call))


def projected_videos(call: NativeCall, outputs: Sequence[Tensor]) -> FeatureGrids:
    return FeatureGrids(outputs[-1], video_grids_hw(call))


def _merged_grids_hw(call: NativeCall, kind: str) -> GridsHw:
    """One grid per image or frame, after the tower's downsampling."""
    sizes, sides = call.inputs[f"{kind}_grid_thw"].tolist(), call.inputs[f"{kind}_merge_sizes"].tolist()
    merged = zip(sizes, sides, strict=True)
    return tuple((h // merge, w // merge) for (t, h, w), merge in merged for _ in range(t))


def resize_frames(video_processor: Any, frames_nhwc: np.ndarray) -> np.ndarray:
    """A video's frames as Pillow resizes them, which the authors' code uses, where the processor is one made for their
    weights: torchvision's bicubic, which transformers uses, differs by a grey level here and there."""
    if getattr(video_processor, "frame_backend", None) != "pil":
        return frames_nhwc
    num_frames, height, width, _ = frames_nhwc.shape
    height, width = smart_resize(
        height,
        width,
        factor=video_processor.patch_size * video_processor.merge_size,
        min_pixels=video_processor.size["shortest_edge"],
        max_pixels=video_processor.size["longest_edge"] // num_frames,
    )
    resized = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames_nhwc]
    return np.stack([np.asarray(frame) for frame in resized])


SPEC = BackboneSpec(
    name="videollama3",
    model_types=("video_llama_3",),
    model_class=VideoLlama3ForConditionalGeneration,
    parts=Parts(
        vision_tower="model.vision_model",
        projector="model.projector",
        decoder="model.language_model",
        token_embedding="model.language_model.embed_tokens",
        projector_layers=("model.projector.readout.0", "model.projector.readout.2"),
    ),
    crops=Crops(geometry=geometry, width=width, encode=encode),
    images=Scene(grids_hw=image_grids_hw, grids=image_grids, projected=projected_images),
    videos=Scene(grids_hw=video_grids_hw, grids=video_grids, projected=projected_videos, resize_frames=resize_frames),
    lora_targets={
        "decoder": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "projector": r"model\.projector\.readout\.[02]",
        "vision_tower": r"model\.vision_model\.encoder\.layers\.\d+\.(self_attn\.([qkv]|out)_proj|mlp\.fc\d)",
    },
    layouts=LAYOUTS,
    coordinates=Coordinates(
        unit="thousandths",
        rounding="down",
        box="[{x0}, {y0}, {x1}, {y1}]",
        point=None,
        frame=None,  # its notebook on videos asks about times alone
        source="https://github.com/DAMO-NLP-SG/VideoLLaMA3/blob/main/inference/notebooks/"
        "03_visual_referring_and_grounding.ipynb",
    ),
    models=(
        PublishedModel(id="DAMO-NLP-SG/VideoLLaMA3-2B", parameters="2B", licence="Apache-2.0"),
        PublishedModel(id="DAMO-NLP-SG/VideoLLaMA3-7B", parameters="7B", licence="Apache-2.0"),
    ),
    tiny=tiny,
)
