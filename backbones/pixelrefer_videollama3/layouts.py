"""The layouts in which VideoLLaMA3 was published and is trained by its authors' code: names, sizes, processor.

    model.vision_encoder.*                  as published, with code beside the weights (`videollama3_qwen2`)
    model.vision_encoder.vision_encoder.*   as trained, by the code of VideoLLaMA3 and of PixelRefer; the tower's
                                            config, and perhaps its weights, lie in a folder of its own

Facts are from https://github.com/DAMO-NLP-SG/VideoLLaMA3 and https://github.com/alibaba-damo-academy/PixelRefer.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import (
    PreTrainedConfig,
    Qwen2Config,
    Qwen2Tokenizer,
    VideoLlama3Config,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
    VideoLlama3VisionConfig,
)
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from pixelrefer_plugin.authoring import CheckpointError, CheckpointLayout, shown

KEY_MAPPING = (
    (r"model\.vision_encoder\.(vision_encoder\.)?", "model.vision_model."),
    (r"model\.mm_projector\.", "model.projector."),
    (r"model\.(?=(embed_tokens|layers|norm)\.)", "model.language_model."),
    (r"lm_head\.", "lm_head."),
)
TOWER = "model.vision_model"
DECODER = "model.language_model"
EMBEDDING = f"{DECODER}.embed_tokens.weight"

# Attention heads, which no weight's shape tells, by the tower's width: SigLIP so400m's.
HEADS_OF_WIDTH = {1152: 16}

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of the weights, by their native keys."""

MEDIA_TOKEN = "<image>"
"""What these layouts write for pictures and for the frames of a video alike."""

TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
QWEN2_MEDIA_TOKENS = ("<|image_pad|>", "<|video_pad|>")

# The strings that the authors' templates make, for one `{"type": ...}` part a picture or video: transformers' processor
# writes the times of a video's frames itself.
CHAT_TEMPLATE = (
    "{%% for message in messages %%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{%% if message['content'] is string %%}{{ message['content'] }}"
    "{%% else %%}{%% for part in message['content'] %%}"
    "{%% if part['type'] == 'image' %%}{{ '%s\\n' }}"
    "{%% elif part['type'] == 'video' %%}{{ '%s\\n' }}"
    "{%% else %%}{{ part['text'] }}{%% endif %%}"
    "{%% endfor %%}{%% endif %%}"
    "{{ '<|im_end|>\\n' }}"
    "{%% endfor %%}"
    "{%% if add_generation_prompt %%}{{ '<|im_start|>assistant\\n' }}{%% endif %%}"
)

PUBLISHED = "videollama3_qwen2"

# Of the authors' image processors, where neither their file nor `config.json` says otherwise.
MIN_PIXELS = 56 * 56
MAX_TOKENS = 16384
MAX_PATCHES_IN_TRAINING = 9477
VIDEO_MERGE = 2
MEAN_AND_STD = [0.5, 0.5, 0.5]


def vision_tower(data: Mapping[str, Any]) -> str | None:
    """The training layout names it, the published one holds its config."""
    if data.get("vision_encoder_config"):
        return None
    named = data.get("mm_vision_encoder") or data.get("vision_encoder")
    _require(named is None or isinstance(named, str), "mm_vision_encoder", "a folder or hub id", named)
    return named


def make_config(
    data: Mapping[str, Any], shapes: Shapes, tower: Mapping[str, Any] | None, processor: VideoLlama3Processor
) -> VideoLlama3Config:
    """The native config: sizes are read from the weights, the rest from `config.json` and the tower's own."""
    rows, used = _shape(shapes, EMBEDDING)[0], len(processor.tokenizer)
    if used > rows:
        raise CheckpointError(
            f"The tokenizer has {used} tokens, but the embedding has {rows} rows. Are the tokenizer's files those that "
            "belong to the weights?"
        )
    tower = tower or data.get("vision_encoder_config") or {}
    _require_fitting(data, shapes)
    text = _known(Qwen2Config, data) | {
        "model_type": "qwen2",
        "vocab_size": rows,
        "rope_parameters": data.get("rope_parameters") or _rope_parameters(data),
    }
    return VideoLlama3Config(
        text_config=text,
        vision_config=_tower_config(tower, shapes, patch_px=processor.image_processor.patch_size),
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
    )


def _require_fitting(data: Mapping[str, Any], shapes: Shapes) -> None:
    """Refuse a decoder larger than its weights, which would be built before they are compared with it."""
    held = {"hidden_size": _shape(shapes, EMBEDDING)[-1], "num_hidden_layers": len(_layers(shapes, DECODER))}
    for name, value in held.items():
        said = data.get(name)
        if type(said) is not int or said > value:
            raise CheckpointError(
                f"config.json says that {name} is {shown(said)}, but the decoder's weights have {value}. Is the "
                "checkpoint complete, and are its files those of one checkpoint?"
            )


def _layers(shapes: Shapes, part: str) -> set[str]:
    """The numbers of the layers that there are weights of."""
    return {number.group(1) for key in shapes if (number := re.match(rf"{re.escape(part)}\.layers\.(\d+)\.", key))}


def _known(config_class: type[PreTrainedConfig], data: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that a config of this class has."""
    names = {field.name for field in dataclasses.fields(config_class)} - {
        "architectures",
        "transformers_version",
        "dtype",
    }
    return {name: value for name, value in data.items() if name in names}


def _rope_parameters(data: Mapping[str, Any]) -> dict[str, Any]:
    theta = data.get("rope_theta", 10000.0)
    _require(_is_number(theta) and theta > 0, "rope_theta", "a number > 0", theta)
    scaling = dict(data.get("rope_scaling") or {})
    kind = scaling.pop("type", None) or scaling.pop("rope_type", "default")
    return {**scaling, "rope_type": kind, "rope_theta": theta}


def _tower_config(tower: Mapping[str, Any], shapes: Shapes, *, patch_px: int) -> dict[str, Any]:
    width, channels, patch_size, _ = _shape(shapes, f"{TOWER}.embeddings.patch_embedding.weight")
    _require(patch_px == patch_size, "patch_size", f"that of the vision tower's weights, {patch_size}", patch_px)
    heads = tower.get("num_attention_heads") or HEADS_OF_WIDTH.get(width)
    if heads is None:
        raise CheckpointError(
            f"The vision tower has features of width {width}; how many attention heads it has cannot be told from its "
            "weights. Say where the tower's own folder is, with its config.json: --vision-tower PATH, in Python "
            "vision_tower=PATH."
        )
    return _known(VideoLlama3VisionConfig, tower) | {
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch_size,
        "num_hidden_layers": len(_layers(shapes, f"{TOWER}.encoder")),
        "intermediate_size": _shape(shapes, f"{TOWER}.encoder.layers.0.mlp.fc1.weight")[0],
        "num_attention_heads": heads,
    }


def _shape(shapes: Shapes, key: str) -> tuple[int, ...]:
    if key not in shapes:
        raise CheckpointError(f"The checkpoint holds no weights for '{key}'. Is it complete, vision tower included?")
    return shapes[key]


def make_processor(folder: Path, data: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> VideoLlama3Processor:
    """The native processor as the authors' code prepares pictures and videos."""
    tokenizer = _tokenizer(folder, *_media_tokens(folder, data))
    patch_px = _count(preprocessing, "patch_size", 14)
    mean, std = (preprocessing.get(name, MEAN_AND_STD) for name in ("image_mean", "image_std"))
    for name, values in (("image_mean", mean), ("image_std", std)):
        is_colour = isinstance(values, list) and len(values) == 3 and all(map(_is_number, values))
        _require(is_colour and (name == "image_mean" or min(values) > 0), name, "three numbers", values)
    shared: dict[str, Any] = {"patch_size": patch_px, "image_mean": mean, "image_std": std}
    min_pixels = _count(preprocessing, "min_pixels", MIN_PIXELS)
    max_tokens, merge = _budget(data, preprocessing)
    return VideoLlama3Processor(
        image_processor=VideoLlama3ImageProcessorPil(
            merge_size=1, size=_size(min_pixels, max_tokens * patch_px**2), **shared
        ),
        video_processor=VideoLlama3VideoProcessor(
            merge_size=merge,
            size=_size(min_pixels, max_tokens * (merge * patch_px) ** 2),
            use_token_compression=data.get("use_token_compression", True),
            **shared | {"frame_backend": "pil"},
        ),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE % (tokenizer.image_token, tokenizer.video_token),
    )


def _budget(data: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens that a picture, or a video in all, may have; patches on a side that make one token of a video.

    PixelRefer's code has both from `config.json`, whatever the tower's own file says.
    """
    if data["model_type"] == PUBLISHED:
        return _count(preprocessing, "max_tokens", MAX_TOKENS), VIDEO_MERGE
    merge = _count(data, "spatial_merge_size", VIDEO_MERGE)
    return _count(data, "mm_max_length", MAX_PATCHES_IN_TRAINING // merge**2), merge


def _count(values: Mapping[str, Any], name: str, default: int) -> int:
    value = default if values.get(name) is None else values[name]
    _require(type(value) is int and value >= 1, name, "an integer >= 1", value)
    return value


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _require(condition: bool, name: str, rule: str, got: Any) -> None:
    if not condition:
        raise CheckpointError(f"The checkpoint's '{name}' must be {rule}, got {shown(got)}. Are its files damaged?")


def _size(min_pixels: int, max_pixels: int) -> dict[str, int]:
    return {"shortest_edge": min_pixels, "longest_edge": max_pixels}


def _media_tokens(folder: Path, data: Mapping[str, Any]) -> tuple[str, str]:
    """PixelRefer's one, as its prompts have it; else Qwen2's own two, so that a batch may hold both kinds. No weight
    depends on it: what the decoder reads in their places is never their embedding."""
    if not any(all((folder / name).is_file() for name in names) for names in TOKENIZER_FILES):
        raise CheckpointError(
            f"'{folder}' holds no tokenizer: expected {' or '.join(map(' and '.join, TOKENIZER_FILES))}. "
            "Is the download complete?"
        )
    known = Qwen2Tokenizer.from_pretrained(folder).get_vocab()
    if data["model_type"] == PUBLISHED and all(token in known for token in QWEN2_MEDIA_TOKENS):
        return QWEN2_MEDIA_TOKENS
    if MEDIA_TOKEN not in known:
        raise CheckpointError(
            f"The tokenizer in '{folder}' does not know '{MEDIA_TOKEN}', which stands for pictures. Are its files "
            "those that belong to the weights?"
        )
    return MEDIA_TOKEN, MEDIA_TOKEN


def _tokenizer(folder: Path, image_token: str, video_token: str) -> Qwen2Tokenizer:
    return Qwen2Tokenizer.from_pretrained(folder, image_token=image_token, video_token=video_token)


LAYOUT = CheckpointLayout(
    key_mapping=KEY_MAPPING,
    make_processor=make_processor,
    make_config=make_config,
    vision_tower=vision_tower,
    tower_prefix="model.vision_encoder.",
)
LAYOUTS = dict.fromkeys((PUBLISHED, "pixelrefer_qwen2", "pixelreferlite_qwen2"), LAYOUT)
