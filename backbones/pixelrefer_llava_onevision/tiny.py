"""A LLaVA-OneVision of a few hundred thousand parameters: the real classes, small numbers, random weights."""

from typing import Any

import torch
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)

from pixelrefer_plugin.testing import TINY_CORPUS, tiny_tokenizer

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>")

# After the Qwen2 variant's own: in each turn pictures come before text.
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + ' ' }}
    {%- if message['content'] is string %}
        {{- '\\n' + message['content'] }}
    {%- else %}
        {%- for part in message['content'] | selectattr('type', 'equalto', 'image') %}
            {{- '<image>' }}
        {%- endfor %}
        {%- for part in message['content'] | selectattr('type', 'equalto', 'video') %}
            {{- '<video>' }}
        {%- endfor %}
        {{- '\\n' }}
        {%- for part in message['content'] | selectattr('type', 'equalto', 'text') %}
            {{- part['text'] }}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

# As with the real 384 and 14, the patches do not fill the square: 6 of them are 84 px.
_IMAGE_PX = 90
_PATCH_PX = 14
_GRID_SIDE = _IMAGE_PX // _PATCH_PX
_PINPOINTS = [[rows * _IMAGE_PX, columns * _IMAGE_PX] for rows in (1, 2) for columns in (1, 2)]
_SIGLIP: dict[str, Any] = {
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "size": {"height": _IMAGE_PX, "width": _IMAGE_PX},
}
_SPARE_ROWS = 16
_HIDDEN = 64
_HEADS = 4


def tiny_processor() -> LlavaOnevisionProcessor:
    """The real processor around a tiny tokenizer; images go through PIL, not torchvision."""
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(image_grid_pinpoints=_PINPOINTS, **_SIGLIP),
        video_processor=LlavaOnevisionVideoProcessor(**_SIGLIP),
        tokenizer=tiny_tokenizer(TINY_CORPUS, SPECIAL_TOKENS, CHAT_TEMPLATE),
        num_image_tokens=_GRID_SIDE**2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionConfig:
    """The real config with small numbers; the embedding table is padded and keeps at least 16 spare rows."""
    token_ids = tokenizer.get_vocab()
    return LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": _HIDDEN,
            "intermediate_size": 3 * _HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": _HEADS,
            "image_size": _IMAGE_PX,
            "patch_size": _PATCH_PX,
            "vision_use_head": False,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": -(-(len(tokenizer) + _SPARE_ROWS) // 64) * 64,
            "hidden_size": _HIDDEN,
            "intermediate_size": 3 * _HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": _HEADS,
            "num_key_value_heads": _HEADS // 2,
            "max_position_embeddings": 8192,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_index=token_ids["<image>"],
        video_token_index=token_ids["<video>"],
        image_grid_pinpoints=_PINPOINTS,
        tie_word_embeddings=False,
    )


def tiny(seed: int) -> tuple[LlavaOnevisionForConditionalGeneration, LlavaOnevisionProcessor]:
    """The real model with random weights, and its processor, made in memory."""
    processor = tiny_processor()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaOnevisionForConditionalGeneration(tiny_config(processor.tokenizer))
    return model.eval(), processor
