"""An InternVL of a hundred thousand parameters: the real classes, small numbers, random weights."""

from typing import Any

import torch
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from pixelrefer_plugin.testing import TINY_CORPUS, tiny_tokenizer

NAMED_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *NAMED_TOKENS.values(),
    *("<ref>", "</ref>", "<box>", "</box>"),
)

# After the checkpoints' own: pictures and videos stand where they are in a message.
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for part in message['content'] %}
            {%- if part['type'] == 'image' %}
                {{- '<IMG_CONTEXT>\\n' }}
            {%- elif part['type'] == 'video' %}
                {{- '<video>\\n' }}
            {%- elif part['type'] == 'text' %}
                {{- part['text'] }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

_CORPUS = (*TINY_CORPUS, "Frame: [[, ]]")
_TILE_PX = 56
_PATCH_PX = 14
_DOWNSAMPLE = 0.5
_TOKENS_PER_TILE = int((_TILE_PX // _PATCH_PX * _DOWNSAMPLE) ** 2)
_PIXELS: dict[str, Any] = {
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "size": {"height": _TILE_PX, "width": _TILE_PX},
}
_SPARE_ROWS = 16
_HIDDEN = 64
_HEADS = 4


def tiny_processor() -> InternVLProcessor:
    """The real processor around a tiny tokenizer; images go through PIL, not torchvision."""
    return InternVLProcessor(
        image_processor=GotOcr2ImageProcessorPil(max_patches=6, **_PIXELS),
        video_processor=InternVLVideoProcessor(**_PIXELS),
        tokenizer=tiny_tokenizer(_CORPUS, SPECIAL_TOKENS, CHAT_TEMPLATE, named_tokens=NAMED_TOKENS),
        image_seq_length=_TOKENS_PER_TILE,
        chat_template=CHAT_TEMPLATE,
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> InternVLConfig:
    """The real config with small numbers; the embedding table is padded and keeps at least 16 spare rows."""
    return InternVLConfig(
        vision_config={
            "hidden_size": _HIDDEN,
            "intermediate_size": 3 * _HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": _HEADS,
            "attention_bias": True,
            "image_size": [_TILE_PX, _TILE_PX],
            "patch_size": [_PATCH_PX, _PATCH_PX],
        },
        text_config={
            "model_type": "qwen3",
            "vocab_size": -(-(len(tokenizer) + _SPARE_ROWS) // 64) * 64,
            "hidden_size": _HIDDEN,
            "intermediate_size": 3 * _HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": _HEADS,
            "num_key_value_heads": _HEADS // 2,
            "head_dim": _HIDDEN // _HEADS,
            "max_position_embeddings": 8192,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_id=tokenizer.context_image_token_id,
        image_seq_length=_TOKENS_PER_TILE,
        downsample_ratio=_DOWNSAMPLE,
        tie_word_embeddings=False,
    )


def tiny(seed: int) -> tuple[InternVLForConditionalGeneration, InternVLProcessor]:
    """The real model with random weights, and its processor, made in memory."""
    processor = tiny_processor()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = InternVLForConditionalGeneration(tiny_config(processor.tokenizer))
        embeddings = model.model.vision_tower.embeddings
        for learnt in (embeddings.cls_token, embeddings.position_embeddings):  # else zeros
            torch.nn.init.normal_(learnt, std=0.02)
    return model.eval(), processor
