"""How VideoLLaMA3 is read and fed.

Its tower (SigLIP-NaViT) takes any number of images of any size in one packed call and downsamples by
`merge_sizes` itself, so crops use 1. Features are taken after its last norm, as the projector reads them.
"""

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from transformers import VideoLlama3ForConditionalGeneration
from transformers.models.video_llama_3.video_processing_video_llama_3 import smart_resize

from pixelrefer_plugin import BackboneSpec, FeatureGrids, PatchGeometry, VideoScene

from .layouts import LAYOUTS
from .tiny import tiny


def geometry(config):
    return PatchGeometry(patch_size=config.vision_config.patch_size)


def vision_width(config):
    return config.vision_config.hidden_size


def encode_crops(model, crops):
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


def scene_grids_hw(config, inputs):
    return _merged_grids_hw(inputs, "image")


def scene_grids(model, inputs, tower_output):
    """The tower's output is in raster order after its own downsampling."""
    return FeatureGrids(tower_output.last_hidden_state, scene_grids_hw(model.config, inputs))


def video_grids_hw(config, inputs):
    return _merged_grids_hw(inputs, "video")


def video_grids(model, inputs, tower_output):
    """Every frame's grid, also of those whose tokens the native pass then drops as repetitions."""
    return FeatureGrids(tower_output.last_hidden_state, video_grids_hw(model.config, inputs))


def _merged_grids_hw(inputs, kind):
    """One grid per image or frame, after the tower's downsampling."""
    if f"{kind}_grid_thw" not in inputs:
        return ()
    merged = zip(inputs[f"{kind}_grid_thw"].tolist(), inputs[f"{kind}_merge_sizes"].tolist(), strict=True)
    return tuple((h // merge, w // merge) for (t, h, w), merge in merged for _ in range(t))


def resize_frames(video_processor, frames_nhwc):
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
    vision_tower="model.vision_model",
    projector="model.projector",
    decoder="model.language_model",
    token_embedding="model.language_model.embed_tokens",
    geometry=geometry,
    vision_width=vision_width,
    encode_crops=encode_crops,
    scene_grids=scene_grids,
    scene_grids_hw=scene_grids_hw,
    lora_targets={
        "decoder": r"model\.language_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)",
        "projector": r"model\.projector\.readout\.[02]",
        "vision_tower": r"model\.vision_model\.encoder\.layers\.\d+\.(self_attn\.([qkv]|out)_proj|mlp\.fc\d)",
    },
    tiny=tiny,
    video_scene=VideoScene(grids=video_grids, grids_hw=video_grids_hw, frames_per_grid=lambda config: 1),
    layouts=LAYOUTS,
    resize_frames=resize_frames,
    projector_layers=("model.projector.readout.0", "model.projector.readout.2"),
)
