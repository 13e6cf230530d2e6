"""Qwen3-VLs of a few hundred thousand parameters: the real classes, small numbers, random weights."""

from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pixelrefer_plugin.testing import CHATML_TEMPLATE, CHATML_TOKENS, TINY_CORPUS, tiny_tokenizer

_PATCH_PX = 16
_MERGE = 2
_HALF = [0.5, 0.5, 0.5]
_IMAGE_AREA_PX = {"shortest_edge": (_MERGE * _PATCH_PX) ** 2, "longest_edge": 320 * 320}
_VIDEO_VOLUME_PX = {"shortest_edge": 4 * (_MERGE * _PATCH_PX) ** 2, "longest_edge": 16 * 160 * 160}
_SPARE_ROWS = 16
_HIDDEN = 64
_HEADS = 4
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}


def tiny_processor() -> Qwen3VLProcessor:
    """The real processor around a tiny tokenizer; images go through PIL, not torchvision."""
    patches: dict[str, Any] = {"patch_size": _PATCH_PX, "merge_size": _MERGE, "image_mean": _HALF, "image_std": _HALF}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(size=_IMAGE_AREA_PX, **patches),
        video_processor=Qwen3VLVideoProcessor(size=_VIDEO_VOLUME_PX, cap_pixels_per_frame=False, **patches),
        tokenizer=tiny_tokenizer(TINY_CORPUS, CHATML_TOKENS, CHATML_TEMPLATE),
        chat_template=CHATML_TEMPLATE,
    )


def tiny_vision() -> dict[str, Any]:
    """The tower: deepstack features of its first layers, a table of positions smaller than its grids."""
    return {
        "depth": 3,
        "deepstack_visual_indexes": [0, 1],
        "hidden_size": _HIDDEN,
        "intermediate_size": 2 * _HIDDEN,
        "num_heads": _HEADS,
        "num_position_embeddings": 64,
        "out_hidden_size": _HIDDEN,
        "patch_size": _PATCH_PX,
        "spatial_merge_size": _MERGE,
    }


def tiny_text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The decoder, dense; three layers, the first two of which are given deepstack features."""
    return {
        "vocab_size": -(-(len(tokenizer) + _SPARE_ROWS) // 64) * 64,
        "hidden_size": _HIDDEN,
        "intermediate_size": 2 * _HIDDEN,
        "num_hidden_layers": 3,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS // 2,
        "head_dim": _HIDDEN // _HEADS,
        "max_position_embeddings": 8192,
        # Frequencies of time, rows and columns, by turns: half of a head's width.
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5e6,
            "mrope_section": [4, 2, 2],
            "mrope_interleaved": True,
        },
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def tiny_tokens(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Ids of the tokens that a config names."""
    ids = tokenizer.get_vocab()
    return {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }


def tiny(seed: int) -> tuple[Qwen3VLForConditionalGeneration, Qwen3VLProcessor]:
    """The real dense model with random weights, and its processor, made in memory."""
    processor = tiny_processor()
    config = Qwen3VLConfig(
        vision_config=tiny_vision(),
        text_config=tiny_text(processor.tokenizer),
        tie_word_embeddings=True,  # as in the 2B and 4B models
        **tiny_tokens(processor.tokenizer),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config)
    return model.eval(), processor


def tiny_moe(seed: int) -> tuple[Qwen3VLMoeForConditionalGeneration, Qwen3VLProcessor]:
    """The real mixture of experts with random weights, and its processor, made in memory."""
    processor = tiny_processor()
    config = Qwen3VLMoeConfig(
        vision_config=tiny_vision(),
        text_config={**tiny_text(processor.tokenizer), **_EXPERTS},
        tie_word_embeddings=False,
        **tiny_tokens(processor.tokenizer),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen3VLMoeForConditionalGeneration(config)
        for name, parameter in model.named_parameters():
            if name.endswith("mlp.gate.weight"):  # else zeros: the same experts for every token
                torch.nn.init.normal_(parameter, std=1.0)
    return model.eval(), processor
