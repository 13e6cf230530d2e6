"""A Qwen2-VL of a few hundred thousand parameters: the real classes, small numbers, random weights."""

import torch
from transformers import (
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pixelrefer_plugin.testing import CHATML_TEMPLATE, CHATML_TOKENS, tiny_tokenizer


def tiny(seed: int) -> tuple[Qwen2VLForConditionalGeneration, Qwen2VLProcessor]:
    tokenizer = tiny_tokenizer(["what is this?"], CHATML_TOKENS, CHATML_TEMPLATE)
    processor = Qwen2VLProcessor(
        image_processor=Qwen2VLImageProcessorPil(size={"shortest_edge": 28**2, "longest_edge": 336**2}),
        video_processor=Qwen2VLVideoProcessor(),
        tokenizer=tokenizer,
        chat_template=CHATML_TEMPLATE,
    )
    token_ids = tokenizer.get_vocab()
    config = Qwen2VLConfig(
        vision_config={"depth": 2, "embed_dim": 64, "hidden_size": 64, "num_heads": 4},
        text_config={
            "vocab_size": len(tokenizer) + 16,  # real embedding tables have spare rows, too
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_id=token_ids["<|image_pad|>"],
        video_token_id=token_ids["<|video_pad|>"],
        vision_start_token_id=token_ids["<|vision_start|>"],
        vision_end_token_id=token_ids["<|vision_end|>"],
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen2VLForConditionalGeneration(config).eval(), processor
