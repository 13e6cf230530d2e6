"""Qwen3.5s of a few hundred thousand parameters: the real classes, small numbers, random weights."""

from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerFast,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pixelrefer_plugin.testing import CHATML_TOKENS, TINY_CORPUS, tiny_tokenizer

# ChatML, where an answer to the last question opens with what was thought about it, and a prompt with an open thought
# unless it is asked for none: as in the 4B and larger models.
TEMPLATE = """\
{%- set last = namespace(question=-1) %}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}
        {%- set last.question = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- if last.question < 0 %}
    {{- raise_exception('No user query found in messages.') }}
{%- endif %}
{%- macro content_of(message) %}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for part in message['content'] %}
            {%- if part['type'] == 'image' %}
                {{- '<|vision_start|><|image_pad|><|vision_end|>' }}
            {%- elif part['type'] == 'video' %}
                {{- '<|vision_start|><|video_pad|><|vision_end|>' }}
            {%- else %}
                {{- part['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{%- for message in messages %}
    {%- if message['role'] == 'system' and not loop.first %}
        {{- raise_exception('System message must be at the beginning.') }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['role'] == 'assistant' and loop.index0 > last.question %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
    {{- content_of(message) | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- else %}
        {{- '<think>\\n' }}
    {%- endif %}
{%- endif %}"""

_PATCH_PX = 16
_MERGE = 2
_HALF = [0.5, 0.5, 0.5]
_IMAGE_AREA_PX = {"shortest_edge": (_MERGE * _PATCH_PX) ** 2, "longest_edge": 320 * 320}
_VIDEO_VOLUME_PX = {"shortest_edge": 4 * (_MERGE * _PATCH_PX) ** 2, "longest_edge": 16 * 160 * 160}
_SPARE_ROWS = 16
_HIDDEN = 64
_HEADS = 4
_EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "shared_expert_intermediate_size": 48,
}


def tiny_processor() -> Qwen3VLProcessor:
    """The real processor around a tiny tokenizer; images go through PIL, not torchvision."""
    patches: dict[str, Any] = {"patch_size": _PATCH_PX, "merge_size": _MERGE, "image_mean": _HALF, "image_std": _HALF}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(size=_IMAGE_AREA_PX, **patches),
        video_processor=Qwen3VLVideoProcessor(size=_VIDEO_VOLUME_PX, cap_pixels_per_frame=False, **patches),
        tokenizer=tiny_tokenizer(TINY_CORPUS, CHATML_TOKENS, TEMPLATE),
        chat_template=TEMPLATE,
    )


def tiny_vision() -> dict[str, Any]:
    """The tower, with a table of positions smaller than its grids."""
    return {
        "depth": 2,
        "hidden_size": _HIDDEN,
        "intermediate_size": 2 * _HIDDEN,
        "num_heads": _HEADS,
        "num_position_embeddings": 64,
        "out_hidden_size": _HIDDEN,
        "patch_size": _PATCH_PX,
        "spatial_merge_size": _MERGE,
    }


def tiny_text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The decoder without its MLPs: three layers of linear attention and one of full attention."""
    return {
        "vocab_size": -(-(len(tokenizer) + _SPARE_ROWS) // 64) * 64,
        "hidden_size": _HIDDEN,
        "num_hidden_layers": 4,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _HEADS // 2,
        "head_dim": 32,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "max_position_embeddings": 8192,
        # A quarter of a head's width turns: frequencies of time, rows and columns, by turns, are half of that.
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e7,
            "partial_rotary_factor": 0.25,
            "mrope_section": [2, 1, 1],
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


def tiny(seed: int) -> tuple[Qwen3_5ForConditionalGeneration, Qwen3VLProcessor]:
    """The real dense model with random weights, and its processor, made in memory."""
    processor = tiny_processor()
    config = Qwen3_5Config(
        vision_config=tiny_vision(),
        text_config={**tiny_text(processor.tokenizer), "intermediate_size": 2 * _HIDDEN},
        tie_word_embeddings=True,  # as in the smaller models
        **tiny_tokens(processor.tokenizer),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen3_5ForConditionalGeneration(config)
    return model.eval(), processor


def tiny_moe(seed: int) -> tuple[Qwen3_5MoeForConditionalGeneration, Qwen3VLProcessor]:
    """The real mixture of experts with random weights, and its processor, made in memory."""
    processor = tiny_processor()
    config = Qwen3_5MoeConfig(
        vision_config=tiny_vision(),
        text_config={**tiny_text(processor.tokenizer), **_EXPERTS},
        tie_word_embeddings=False,
        **tiny_tokens(processor.tokenizer),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen3_5MoeForConditionalGeneration(config)
    return model.eval(), processor
