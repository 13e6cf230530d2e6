"""Gemma 4 with a few hundred thousand parameters: the real classes, small numbers, random weights.

`tiny` is laid out as E2B and E4B: embeddings for each layer, the last layers with the keys and values of earlier ones.
`tiny_unified` is laid out as 12B: no tower, keys for values, pictures that see themselves whole.
"""

from typing import Any

import torch
from transformers import (
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4Processor,
    Gemma4UnifiedAudioFeatureExtractor,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    Gemma4UnifiedImageProcessor,
    Gemma4UnifiedProcessor,
    Gemma4UnifiedVideoProcessor,
    Gemma4VideoProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

from pixelrefer_plugin.testing import TINY_CORPUS, tiny_tokenizer

_NAMED = {
    "sot_token": "<|turn>",
    "eot_token": "<turn|>",
    "boi_token": "<|image>",
    "image_token": "<|image|>",
    "eoi_token": "<image|>",
    "boa_token": "<|audio>",
    "audio_token": "<|audio|>",
    "eoa_token": "<audio|>",
}
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", *_NAMED.values(), "<|video|>")

# After the real one, without its tools and thoughts: it begins with <bos>, and a system's turn is one of its own.
CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] | trim }}
    {%- else %}
        {%- for part in message['content'] %}
            {%- if part['type'] == 'image' %}
                {{- '<|image|>' }}
            {%- elif part['type'] == 'video' %}
                {{- '<|video|>' }}
            {%- else %}
                {{- part['text'] | trim }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<turn|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|turn>model\\n' }}
{%- endif %}"""

_LEAST_TOKENS = 70  # that the processors can be asked for
_SPARE_ROWS = 16
_HIDDEN = 64
_HEADS = 4


def _tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer(
        TINY_CORPUS,
        SPECIAL_TOKENS,
        CHAT_TEMPLATE,
        eos_token="<eos>",
        pad_token="<pad>",
        bos_token="<bos>",
        named_tokens=_NAMED,
    )


def tiny_processor() -> Gemma4Processor:
    """The real processor around a tiny tokenizer; images go through PIL, not torchvision."""
    size: dict[str, Any] = {"max_soft_tokens": _LEAST_TOKENS}
    return Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessorPil(**size),
        video_processor=Gemma4VideoProcessor(**size),
        tokenizer=_tokenizer(),
        chat_template=CHAT_TEMPLATE,
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> Gemma4Config:
    """The real config with small numbers; the embedding tables are padded and keep at least 16 spare rows."""
    return Gemma4Config(
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "position_embedding_size": 256,
            "use_clipped_linears": True,
        },
        text_config={
            **_text(tokenizer),
            "num_key_value_heads": 1,
            "num_kv_shared_layers": 2,
            "use_double_wide_mlp": True,
            "vocab_size_per_layer_input": _rows(tokenizer),
            "hidden_size_per_layer_input": 8,
        },
        audio_config={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "output_proj_dims": 32},
        **_token_ids(tokenizer),
    )


def _rows(tokenizer: PreTrainedTokenizerFast) -> int:
    return -(-(len(tokenizer) + _SPARE_ROWS) // 64) * 64


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Of a decoder's config what all sizes have."""
    ids = tokenizer.get_vocab()
    return {
        "vocab_size": _rows(tokenizer),
        "hidden_size": _HIDDEN,
        "intermediate_size": 2 * _HIDDEN,
        "num_hidden_layers": 4,
        "num_attention_heads": _HEADS,
        "head_dim": 16,
        "global_head_dim": 32,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "sliding_window": 32,
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 8192,
        "bos_token_id": ids["<bos>"],
        "eos_token_id": [ids["<eos>"], ids["<turn|>"]],
        "pad_token_id": ids["<pad>"],
    }


def _token_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    ids = tokenizer.get_vocab()
    return {
        "boi_token_id": ids["<|image>"],
        "eoi_token_id": ids["<image|>"],
        "image_token_id": ids["<|image|>"],
        "video_token_id": ids["<|video|>"],
        "boa_token_id": ids["<|audio>"],
        "eoa_token_index": ids["<audio|>"],
        "audio_token_id": ids["<|audio|>"],
    }


def tiny(seed: int) -> tuple[Gemma4ForConditionalGeneration, Gemma4Processor]:
    """The real model with random weights, and its processor, made in memory."""
    processor = tiny_processor()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Gemma4ForConditionalGeneration(tiny_config(processor.tokenizer))
    return model.eval(), processor


def tiny_unified(seed: int) -> tuple[Gemma4UnifiedForConditionalGeneration, Gemma4UnifiedProcessor]:
    """As `tiny`, of the model without a tower, whose processor resizes with torchvision alone."""
    size: dict[str, Any] = {"max_soft_tokens": _LEAST_TOKENS}
    tokenizer = _tokenizer()
    processor = Gemma4UnifiedProcessor(
        feature_extractor=Gemma4UnifiedAudioFeatureExtractor(),
        image_processor=Gemma4UnifiedImageProcessor(**size),
        video_processor=Gemma4UnifiedVideoProcessor(**size),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE,
    )
    config = Gemma4UnifiedConfig(
        vision_config={"mm_embed_dim": 48, "mm_posemb_size": 256, "output_proj_dims": 48},
        text_config={
            **_text(tokenizer),
            "num_key_value_heads": 2,
            "num_global_key_value_heads": 1,
            "attention_k_eq_v": True,
        },
        audio_config={},
        **_token_ids(tokenizer),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Gemma4UnifiedForConditionalGeneration(config)
        torch.nn.init.normal_(model.model.embed_vision.pos_embedding, std=0.2)  # zeros otherwise
    return model.eval(), processor
