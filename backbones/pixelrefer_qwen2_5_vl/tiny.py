"""A Qwen2.5-VL of a few hundred thousand parameters: the real classes, small numbers, random weights."""

from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pixelrefer_plugin.testing import CHATML_TEMPLATE, CHATML_TOKENS, TINY_CORPUS, tiny_tokenizer

_PATCH_PX = 14
_MERGE = 2
_IMAGE_AREA_PX = {"shortest_edge": (_MERGE * _PATCH_PX) ** 2, "longest_edge": 336 * 336}
_FRAME_AREA_PX = {"shortest_edge": (_MERGE * _PATCH_PX) ** 2, "longest_edge": 168 * 168}
_SPARE_ROWS = 16
_HIDDEN = 64
_HEADS = 4


def tiny_processor() -> Qwen2_5_VLProcessor:
    """The real processor around a tiny tokenizer; images go through PIL, not torchvision."""
    patches: dict[str, Any] = {"patch_size": _PATCH_PX, "merge_size": _MERGE}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(size=_IMAGE_AREA_PX, **patches),
        video_processor=Qwen2VLVideoProcessor(size=_FRAME_AREA_PX, cap_pixels_per_frame=True, **patches),
        tokenizer=tiny_tokenizer(TINY_CORPUS, CHATML_TOKENS, CHATML_TEMPLATE),
        chat_template=CHATML_TEMPLATE,
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2_5_VLConfig:
    """The real config with small numbers; windows of 4x4 cells, as the real ones, and both attentions."""
    token_ids = tokenizer.get_vocab()
    return Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "fullatt_block_indexes": [1],
            "hidden_size": _HIDDEN,
            "intermediate_size": 3 * _HIDDEN,
            "num_heads": _HEADS,
            "out_hidden_size": _HIDDEN,
            "patch_size": _PATCH_PX,
            "spatial_merge_size": _MERGE,
            "window_size": 112,
        },
        text_config={
            "vocab_size": -(-(len(tokenizer) + _SPARE_ROWS) // 64) * 64,
            "hidden_size": _HIDDEN,
            "intermediate_size": 3 * _HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": _HEADS,
            "num_key_value_heads": _HEADS // 2,
            "max_position_embeddings": 8192,
            # Frequencies of time, rows and columns: half of a head's width.
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_id=token_ids["<|image_pad|>"],
        video_token_id=token_ids["<|video_pad|>"],
        vision_start_token_id=token_ids["<|vision_start|>"],
        vision_end_token_id=token_ids["<|vision_end|>"],
        tie_word_embeddings=False,  # as in the 7B model
    )


def tiny(seed: int) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor]:
    """The real model with random weights, and its processor, made in memory."""
    processor = tiny_processor()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2_5_VLForConditionalGeneration(tiny_config(processor.tokenizer))
    return model.eval(), processor
