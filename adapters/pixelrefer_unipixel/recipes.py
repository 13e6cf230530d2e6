"""The three published stages of training, with what the authors' code left out.

Rates, LoRA and what trains are those of https://github.com/PolyU-ChenLab/UniPixel (scripts/launch_3b.sh).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pixelrefer_plugin.authoring import AdapterRecipe

# The attention's layers, as decoders and vision towers name them; a backbone has some of these.
_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj", "out_proj", "qkv", "proj")

_LORA: Mapping[str, Any] = MappingProxyType(
    {"r": 128, "alpha": 256, "dropout": 0.1, "scopes": ("decoder", "vision_tower"), "targets": _ATTENTION}
)

RECIPES: Mapping[str, AdapterRecipe] = MappingProxyType(
    {
        "unipixel_stage1": AdapterRecipe(
            about="UniPixel's first stage: clicks and boxes, on captions of regions.",
            rates={
                "adapter.prompt_encoder": 1e-3,
                "adapter.prompt_encoder.kind": None,  # SAM 2's own vectors, which train in the third stage
                "adapter.prompt_encoder.padding": None,
            },
        ),
        # The published stage trains the head alone: the frozen decoder then never says <seg> when it is asked for
        # masks. The token's own rows are the least that teaches it. PEFT trains them beside LoRA, which is the third
        # stage's already, so that that one can go on from here, and does not train yet.
        "unipixel_stage2": AdapterRecipe(
            about="UniPixel's second stage: the mask head and the rows of <seg>, on masks of objects.",
            rates={"adapter.mask_head": 1e-3, "token_rows": 1e-3},
            lora=_LORA,
        ),
        "unipixel_stage3": AdapterRecipe(
            about="UniPixel's third stage: all of it but the backbone's own weights, SAM 2 slowly.",
            rates={
                "lora": 2e-5,
                "token_rows": 2e-5,
                "adapter.prompt_encoder": 2e-5,
                "adapter.memory": 2e-5,
                "adapter.mask_head": 2e-5,
                "adapter.mask_decoder": 5e-6,
            },
            lora=_LORA,
        ),
    }
)
