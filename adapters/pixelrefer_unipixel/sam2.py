"""SAM 2.1 of every size: its configurations, and its weights from transformers' files or from Meta's.

The architectures are those of Meta's `configs/sam2.1/*.yaml`. Knows no decoder and no training.
"""

import pickle
import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import Sam2VideoConfig, Sam2VideoModel

from pixelrefer_plugin.authoring import SourceError


@dataclass(frozen=True)
class _Hiera:
    """What the image encoders of SAM 2.1 differ in."""

    width: int
    heads: int
    blocks: tuple[int, int, int, int]
    global_blocks: tuple[int, ...]
    windows: tuple[int, int, int, int]
    background: int
    expansion: float = 4.0


_HIERA = {
    "tiny": _Hiera(96, 1, (1, 2, 7, 2), (5, 7, 9), (8, 4, 14, 7), 7),
    "small": _Hiera(96, 1, (1, 2, 11, 2), (7, 10, 13), (8, 4, 14, 7), 7),
    "base_plus": _Hiera(112, 2, (2, 3, 16, 3), (12, 16, 20), (8, 4, 14, 7), 14),
    "large": _Hiera(144, 2, (2, 6, 36, 4), (23, 33, 43), (8, 4, 16, 8), 7),
    "micro": _Hiera(8, 1, (1, 1, 2, 1), (3,), (8, 4, 4, 2), 4, expansion=2.0),
}

# For `micro`, where the published sizes have transformers' defaults. Its memories must be 64 wide, since transformers'
# memory attention takes no others, and an object pointer must fill one.
_MICRO_WIDTH = 64
_MICRO_START: dict[str, Any] = {"initializer_range": 0.1}  # of 0.02 in so narrow layers hardly any signal would be left
_MICRO: dict[str, Any] = _MICRO_START | {
    "memory_attention_hidden_size": _MICRO_WIDTH,
    "memory_attention_num_layers": 1,
    "memory_attention_feed_forward_hidden_size": _MICRO_WIDTH,
    "memory_encoder_hidden_size": _MICRO_WIDTH,
    "memory_encoder_output_channels": _MICRO_WIDTH,
    "mask_downsampler_embed_dim": _MICRO_WIDTH,
    "mask_downsampler_stride": 4,
    "memory_fuser_num_layers": 1,
    "memory_fuser_embed_dim": _MICRO_WIDTH,
    "memory_fuser_intermediate_dim": _MICRO_WIDTH,
}
_MICRO_VISION = _MICRO_START | {"fpn_hidden_size": _MICRO_WIDTH}
_MICRO_PROMPTS = {"hidden_size": _MICRO_WIDTH}
_MICRO_MASKS = {"mlp_dim": _MICRO_WIDTH, "num_attention_heads": 2, "iou_head_hidden_dim": _MICRO_WIDTH} | _MICRO_PROMPTS


def sam2_config(size: str, *, picture_px: int) -> Sam2VideoConfig:
    """SAM 2.1 for square pictures.

    Args:
        size: `tiny`, `small`, `base_plus`, `large`, or `micro`, which nobody has published.
        picture_px: their side, a multiple of 32.
    """
    micro = size == "micro"
    hiera = _HIERA[size]
    widths = [hiera.width * 2**stage for stage in range(4)]
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": hiera.width,
        "num_attention_heads": hiera.heads,
        "image_size": [picture_px, picture_px],
        "window_positional_embedding_background_size": [hiera.background, hiera.background],
        "blocks_per_stage": list(hiera.blocks),
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [hiera.heads * 2**stage for stage in range(4)],
        "window_size_per_stage": list(hiera.windows),
        "global_attention_blocks": list(hiera.global_blocks),
        "mlp_ratio": hiera.expansion,
        **(_MICRO_START if micro else {}),
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": widths[::-1],
        "backbone_feature_sizes": [[picture_px // stride] * 2 for stride in (4, 8, 16)],
    }
    return Sam2VideoConfig(
        vision_config=vision | (_MICRO_VISION if micro else {}),
        prompt_encoder_config={"image_size": picture_px} | (_MICRO_PROMPTS if micro else {}),
        mask_decoder_config=_MICRO_MASKS if micro else {},
        image_size=picture_px,
        memory_attention_rope_feat_sizes=[picture_px // 16] * 2,
        **(_MICRO if micro else {}),
    )


def load_sam2_weights(model: Sam2VideoModel, checkpoint: str, *, size: str) -> None:
    """Give a model the weights of a checkpoint, in place. They suit pictures of any size.

    Args:
        model: built from `sam2_config`.
        checkpoint: a hub name or a folder of transformers, or a `.pt` file as Meta publishes them.
        size: the model's.

    Raises:
        SourceError: there is no such checkpoint, it is damaged, or it is no SAM 2.1 of this size with its memory.
    """
    from_meta = Path(checkpoint).is_file() or Path(checkpoint).suffix in (".pt", ".pth")
    weights = _meta_weights(checkpoint) if from_meta else _transformers_weights(checkpoint)
    seems = _size_of(weights)
    if seems is None:
        raise _cannot_load(checkpoint, "its weights are of another model")
    if seems != size:
        raise SourceError(f"SAM 2 checkpoint '{checkpoint}' is SAM 2.1 '{seems}', not '{size}'; say sam2='{seems}'.")
    weights[_POINT_TABLE] = weights[_IMAGE_TABLE]  # one table with two readers, which some files hold once
    wanted = model.state_dict()
    lacking = sorted(wanted.keys() - weights.keys())
    if _NEW_IN_2_1 & {*lacking}:
        raise _cannot_load(checkpoint, f"it is SAM 2.0 or a SAM 2.1 without memory, since it has no '{lacking[0]}'")
    if lacking:
        raise _cannot_load(checkpoint, f"it has no '{lacking[0]}'")
    strange = [name for name in weights if name not in wanted or weights[name].shape != wanted[name].shape]
    if strange:
        raise _cannot_load(checkpoint, f"'{strange[0]}' {tuple(weights[strange[0]].shape)} is not one of SAM 2.1's")
    model.load_state_dict(weights)


def from_meta_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Meta's weights of SAM 2.1, or those of UniPixel's authors, under transformers' names."""
    renamed = {_renamed(name): value for name, value in weights.items()}
    corners = [f"prompt_encoder.point_embeddings.{kind}.weight" for kind in range(4)]
    if renamed.keys() >= {_POINT_TABLE, *corners}:
        renamed[_IMAGE_TABLE] = renamed[_POINT_TABLE]
        renamed["prompt_encoder.point_embed.weight"] = torch.cat([renamed.pop(corner) for corner in corners])
    return renamed


_IMAGE_TABLE = "shared_image_embedding.positional_embedding"
_POINT_TABLE = "prompt_encoder.shared_embedding.positional_embedding"
_NEW_IN_2_1 = {"occlusion_spatial_embedding_parameter", "temporal_positional_encoding_projection_layer.weight"}

# Meta's name for a part, and transformers'. All are tried, one after another.
_RENAMED = (
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
    (r"^sam_(prompt_encoder|mask_decoder)\.", r"\1."),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    *((rf"\.mask_downsampler\.encoder\.{3 * n}\.", f".mask_downsampler.layers.{n}.conv.") for n in range(4)),
    *((rf"\.mask_downsampler\.encoder\.{3 * n + 1}\.", f".mask_downsampler.layers.{n}.layer_norm.") for n in range(4)),
    (r"\.mask_downsampler\.encoder\.12\.", ".mask_downsampler.final_conv."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.pix_feat_proj\.", ".feature_projection."),
    (r"\.fuser\.", ".memory_fuser."),
    (r"(\.memory_fuser\.layers\.\d)\.(gamma|weight)$", r"\1.scale"),  # `weight` is the authors' of UniPixel
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv(\d)\.", r".pointwise_conv\1."),
    (r"\.norm", ".layer_norm"),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"(_head|_mlps\.\d|^obj_ptr_proj)\.layers\.0\.", r"\1.proj_in."),
    (r"(_head|_mlps\.\d|^obj_ptr_proj)\.layers\.1\.", r"\1.layers.0."),
    (r"(_head|_mlps\.\d|^obj_ptr_proj)\.layers\.2\.", r"\1.proj_out."),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
)


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _size_of(weights: Mapping[str, Tensor]) -> str | None:
    """The size whose image encoder has as many blocks, as wide; None where there is none."""
    kernel = weights.get("vision_encoder.backbone.patch_embed.projection.weight")
    if kernel is None or _IMAGE_TABLE not in weights:
        return None
    blocks = {name.split(".")[3] for name in weights if name.startswith("vision_encoder.backbone.blocks.")}
    shape = (len(kernel), len(blocks))
    return next((size for size, hiera in _HIERA.items() if (hiera.width, sum(hiera.blocks)) == shape), None)


def _meta_weights(checkpoint: str) -> dict[str, Tensor]:
    with _reported(checkpoint):
        return from_meta_names(torch.load(checkpoint, map_location="cpu", weights_only=True)["model"])


def _transformers_weights(checkpoint: str) -> dict[str, Tensor]:
    with _reported(checkpoint):
        # `output_loading_info` makes a pair of what is annotated as the model alone.
        loaded: Any = Sam2VideoModel.from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True)
    model, report = loaded
    invented = report["missing_keys"]
    return {name: value for name, value in model.state_dict().items() if name not in invented}


# What the hub, transformers, torch and safetensors raise for files that are missing, damaged or foreign.
_LOADING_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
    struct.error,
    SafetensorError,
)
_REASON_CHARACTERS = 150  # libraries list every key of a model, or every place they looked


@contextmanager
def _reported(checkpoint: str) -> Iterator[None]:
    try:
        yield
    except _LOADING_ERRORS as error:
        raise _cannot_load(checkpoint, f"{type(error).__name__}: {error}") from error


def _cannot_load(checkpoint: str, reason: str) -> SourceError:
    short = shorten(reason, _REASON_CHARACTERS, placeholder=" ...").rstrip(". ")
    return SourceError(
        f"SAM 2 checkpoint '{checkpoint}' cannot be loaded: {short}. Expected a hub name or a folder with a model of "
        "type 'sam2_video', or a .pt file of SAM 2.1 as Meta publishes it."
    )
