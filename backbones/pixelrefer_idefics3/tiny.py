"""Idefics3 and SmolVLM2 of a few hundred thousand parameters: the real classes, small numbers, random weights.

Their layout is that of SmolVLM-256M-Instruct and SmolVLM2-256M-Video-Instruct: tiles, cells of 4x4 patches of 16 px, an
untied head, the real processors, tokens and chat template.
"""

from typing import Any

import torch
from transformers import (
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3Processor,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from pixelrefer_plugin.testing import TINY_CORPUS, tiny_tokenizer

# SmolVLM's own: no line break behind the role, and no space behind it where a picture follows.
CHAT_TEMPLATE = """\
{{- '<|im_start|>' }}
{%- for message in messages %}
    {{- message['role'] | capitalize }}
    {%- if message['content'] is string %}
        {{- ': ' + message['content'] }}
    {%- else %}
        {{- ':' if message['content'][0]['type'] == 'image' else ': ' }}
        {%- for part in message['content'] %}
            {%- if part['type'] == 'text' %}
                {{- part['text'] }}
            {%- else %}
                {{- '<' + part['type'] + '>' }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<end_of_utterance>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- 'Assistant:' }}
{%- endif %}"""

SPECIAL_TOKENS = (
    "<|im_start|>",
    "<|im_end|>",
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
)
_CORPUS = (*TINY_CORPUS, "User: Assistant: which digit is this? Frame from 00:00:\n\n")

_PATCH_PX = 16
_CELL_SIDE = 4
_TILE_PX = 128  # 512 in the real ones
_TILE_TOKENS = (_TILE_PX // _PATCH_PX // _CELL_SIDE) ** 2
_PICTURES: dict[str, Any] = {
    "size": {"longest_edge": 2 * _TILE_PX},  # of 4 tiles in the real ones
    "max_image_size": {"longest_edge": _TILE_PX},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
_SPARE_ROWS = 16
_HIDDEN = 64
_HEADS = 4


def _tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer(
        _CORPUS, SPECIAL_TOKENS, CHAT_TEMPLATE, eos_token="<end_of_utterance>", pad_token="<|im_end|>"
    )


def tiny_idefics3_processor() -> Idefics3Processor:
    """The real processor around a tiny tokenizer; images go through PIL, not torchvision."""
    return Idefics3Processor(
        image_processor=Idefics3ImageProcessorPil(**_PICTURES),
        tokenizer=_tokenizer(),
        image_seq_len=_TILE_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


def tiny_smolvlm_processor() -> SmolVLMProcessor:
    """The real processor around a tiny tokenizer; images go through PIL, not torchvision."""
    size = {"longest_edge": _TILE_PX}
    frames: dict[str, Any] = {"video_sampling": {"fps": 1, "max_frames": 64, "video_size": size}, "size": size}
    return SmolVLMProcessor(
        image_processor=SmolVLMImageProcessorPil(**_PICTURES),
        video_processor=SmolVLMVideoProcessor(**{**_PICTURES, **frames}),
        tokenizer=_tokenizer(),
        image_seq_len=_TILE_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


def _numbers(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Both configs' fields; the embedding table is padded and keeps at least 16 spare rows."""
    return {
        "vision_config": {
            "hidden_size": _HIDDEN,
            "intermediate_size": 3 * _HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": _HEADS,
            "image_size": _TILE_PX,
            "patch_size": _PATCH_PX,
        },
        "text_config": {
            "model_type": "llama",
            "vocab_size": -(-(len(tokenizer) + _SPARE_ROWS) // 64) * 64,
            "hidden_size": _HIDDEN,
            "intermediate_size": 3 * _HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": _HEADS,
            "num_key_value_heads": _HEADS // 2,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "bos_token_id": tokenizer.convert_tokens_to_ids("<|im_start|>"),
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "scale_factor": _CELL_SIDE,
        "tie_word_embeddings": False,
    }


def tiny_idefics3(seed: int) -> tuple[Idefics3ForConditionalGeneration, Idefics3Processor]:
    """The real model with random weights, and its processor, made in memory."""
    processor = tiny_idefics3_processor()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Idefics3ForConditionalGeneration(Idefics3Config(**_numbers(processor.tokenizer)))
    return model.eval(), processor


def tiny_smolvlm(seed: int) -> tuple[SmolVLMForConditionalGeneration, SmolVLMProcessor]:
    """The real model with random weights, and its processor, made in memory."""
    processor = tiny_smolvlm_processor()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SmolVLMForConditionalGeneration(SmolVLMConfig(**_numbers(processor.tokenizer)))
    return model.eval(), processor
