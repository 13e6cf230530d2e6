"""A Gemma 3 of a few hundred thousand parameters: the real classes, small numbers, random weights."""

import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration, Gemma3Processor, PreTrainedTokenizerFast
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

from pixelrefer_plugin.testing import TINY_CORPUS, tiny_tokenizer

# What the processor writes around an image's tokens.
_CORPUS = (*TINY_CORPUS, "model\nHere is the original image and here are some crops to help you see better")

_NAMED = {"boi_token": "<start_of_image>", "image_token": "<image_soft_token>", "eoi_token": "<end_of_image>"}
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", *_NAMED.values())

# After the real one: it begins with <bos>, the system's text goes into the user's turn, and turns must alternate.
CHAT_TEMPLATE = """\
{{- bos_token }}
{%- macro shown(content) %}
    {%- if content is string %}
        {{- content | trim }}
    {%- else %}
        {%- for part in content %}
            {%- if part['type'] == 'image' %}
                {{- '<start_of_image>' }}
            {%- else %}
                {{- part['text'] | trim }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{%- if messages[0]['role'] == 'system' %}
    {%- set prefix = shown(messages[0]['content']) + '\\n\\n' %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set prefix = '' %}
    {%- set turns = messages %}
{%- endif %}
{%- for message in turns %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}
    {{- (prefix if loop.first else '') + shown(message['content']) + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<start_of_turn>model\\n' }}
{%- endif %}"""

# The projector takes the mean of 4x4 patches, as the real one does of 64x64.
_IMAGE_PX = 112
_PATCH_PX = 14
_TOKENS_PER_IMAGE = 4
_SPARE_ROWS = 16
_HIDDEN = 64
_HEADS = 4


def tiny_processor() -> Gemma3Processor:
    """The real processor around a tiny tokenizer; images go through PIL, not torchvision."""
    half = [0.5] * 3
    return Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(
            size={"height": _IMAGE_PX, "width": _IMAGE_PX}, image_mean=half, image_std=half
        ),
        tokenizer=tiny_tokenizer(
            _CORPUS,
            SPECIAL_TOKENS,
            CHAT_TEMPLATE,
            eos_token="<eos>",
            pad_token="<pad>",
            bos_token="<bos>",
            named_tokens=_NAMED,
        ),
        chat_template=CHAT_TEMPLATE,
        image_seq_length=_TOKENS_PER_IMAGE,
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> Gemma3Config:
    """The real config with small numbers; the embedding table is padded and keeps at least 16 spare rows."""
    ids = tokenizer.get_vocab()
    return Gemma3Config(
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
            "vocab_size": -(-(len(tokenizer) + _SPARE_ROWS) // 64) * 64,
            "hidden_size": _HIDDEN,
            "intermediate_size": 3 * _HIDDEN,
            "num_hidden_layers": 3,
            "num_attention_heads": _HEADS,
            "num_key_value_heads": _HEADS // 2,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "sliding_window": 16,
            "max_position_embeddings": 8192,
            "bos_token_id": ids["<bos>"],
            "eos_token_id": [ids["<eos>"], ids["<end_of_turn>"]],
            "pad_token_id": ids["<pad>"],
        },
        mm_tokens_per_image=_TOKENS_PER_IMAGE,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
    )


def tiny(seed: int) -> tuple[Gemma3ForConditionalGeneration, Gemma3Processor]:
    """The real model with random weights, and its processor, made in memory."""
    processor = tiny_processor()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Gemma3ForConditionalGeneration(tiny_config(processor.tokenizer))
        weight = model.model.multi_modal_projector.mm_input_projection_weight
        torch.nn.init.normal_(weight, std=0.2)  # zeros otherwise
        # A patch is what it shows more than what it attends to, as in a trained tower, so that the means of 4x4 patches
        # tell pictures apart that differ in one place.
        for layer in model.model.vision_tower.encoder.layers:
            layer.self_attn.out_proj.weight.data.mul_(0.1)
    return model.eval(), processor
