"""A VideoLLaMA3 of a few hundred thousand parameters: the real classes, small numbers.

Used by the tests with random weights and by `scripts/pretrain_tiny.py`, which trains the quickstart's base.
"""

from collections.abc import Iterable
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
)
from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil

from pixelrefer_plugin.testing import CHATML_TEMPLATE, CHATML_TOKENS, TINY_CORPUS, tiny_tokenizer

_PATCH_PX = 14
_IMAGE_AREA_PX = {"shortest_edge": (2 * _PATCH_PX) ** 2, "longest_edge": 336 * 336}
_VIDEO_AREA_PX = {
    "shortest_edge": (4 * _PATCH_PX) ** 2,
    "longest_edge": 16 * 168 * 168,
}  # of all frames together
_SPARE_ROWS = 16
_START: dict[str, Any] = {"initializer_range": 0.08}  # the usual 0.02 leaves so narrow a model at a standstill


def tiny_processor(corpus: Iterable[str] = TINY_CORPUS) -> VideoLlama3Processor:
    """The real processor around a tokenizer trained on `corpus`; images go through PIL, not torchvision."""
    tokenizer = tiny_tokenizer(corpus, CHATML_TOKENS, CHATML_TEMPLATE)
    return VideoLlama3Processor(
        image_processor=VideoLlama3ImageProcessorPil(patch_size=_PATCH_PX, merge_size=1, size=_IMAGE_AREA_PX),
        video_processor=VideoLlama3VideoProcessor(patch_size=_PATCH_PX, merge_size=2, size=_VIDEO_AREA_PX),
        tokenizer=tokenizer,
        chat_template=CHATML_TEMPLATE,
    )


def tiny_config(
    tokenizer: PreTrainedTokenizerFast,
    *,
    vision_hidden: int = 96,
    vision_layers: int = 4,
    text_hidden: int = 96,
    text_layers: int = 3,
    heads: int = 4,
) -> VideoLlama3Config:
    """The real config with small numbers; the embedding table is padded and keeps at least 16 spare rows."""
    eos, pad, token_ids = tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.get_vocab()
    return VideoLlama3Config(
        vision_config={
            "hidden_size": vision_hidden,
            "intermediate_size": 3 * vision_hidden,
            "num_hidden_layers": vision_layers,
            "num_attention_heads": heads,
            "patch_size": _PATCH_PX,
            **_START,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": -(-(len(tokenizer) + _SPARE_ROWS) // 64) * 64,
            "hidden_size": text_hidden,
            "intermediate_size": 3 * text_hidden,
            "num_hidden_layers": text_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
            **_START,
            "bos_token_id": None,
            "eos_token_id": eos,
            "pad_token_id": pad,
        },
        image_token_id=token_ids["<|image_pad|>"],
        video_token_id=token_ids["<|video_pad|>"],
        tie_word_embeddings=True,
        **_START,
    )


def tiny(seed: int) -> tuple[VideoLlama3ForConditionalGeneration, VideoLlama3Processor]:
    """The real model with random weights, and its processor, made in memory."""
    processor = tiny_processor()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = VideoLlama3ForConditionalGeneration(tiny_config(processor.tokenizer))
    return model.eval(), processor
