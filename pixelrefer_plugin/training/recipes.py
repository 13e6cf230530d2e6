"""Recipes: which parameter groups train, and how fast; and a model made ready to train by one.

Rates and schedule of `stage1` and `stage2` are PixelRefer's (§6.1 and its scripts/train/pixelrefer/stage*.sh:
`region_encoder_lr` 1e-3, then 1e-5, `llm_lr` and `mm_projector_lr` 1e-5). The vision tower is frozen in both: the
official scripts say `vision_encoder_lr 0`, which keeps its weights as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import TrainingError

if TYPE_CHECKING:
    from ..contracts import BackboneSpec
    from ..model import RegionModel

BACKBONE_GROUPS = ("decoder", "projector", "vision_tower")
"""The backbone's own weights."""


@dataclass(frozen=True)
class Recipe:
    """What trains.

    Attributes:
        name: what users call it.
        about: what it is for, in a line.
        rates: learning rate of each group that trains, by `groups.parameter_groups`' names.
    """

    name: str
    about: str
    rates: Mapping[str, float]

    @property
    def trains_backbone(self) -> bool:
        """Whether any of the backbone's own weights change."""
        return any(group in self.rates for group in BACKBONE_GROUPS)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "lora",
            "LoRA on the decoder and the whole adapter; the backbone stays as it is. The default.",
            {"adapter": 1e-3, "lora": 2e-4, "token_rows": 2e-4},
        ),
        Recipe(
            "stage1",
            "PixelRefer's first stage: a new adapter fast, decoder and projector slowly.",
            {"adapter": 1e-3, "decoder": 1e-5, "projector": 1e-5},
        ),
        Recipe(
            "stage2",
            "PixelRefer's second stage: adapter, decoder and projector, all slowly.",
            {"adapter": 1e-5, "decoder": 1e-5, "projector": 1e-5},
        ),
        Recipe("adapter_only", "The adapter alone: the cheapest.", {"adapter": 1e-3}),
        Recipe(
            "full",
            "As stage1, and the vision tower too.",
            {"adapter": 1e-3, "decoder": 1e-5, "projector": 1e-5, "vision_tower": 2e-6},
        ),
    )
}


def apply_recipe(
    model: RegionModel, recipe: Recipe, overrides: Mapping[str, float]
) -> tuple[dict[str, float], list[str]]:
    """Make exactly the recipe's groups trainable, those of them that the model has.

    Args:
        model: with its LoRA, if any.
        recipe: says which.
        overrides: learning rates in place of the recipe's, by group.

    Returns:
        The learning rate of each group that trains; and what the user should know about groups left out.

    Raises:
        TrainingError: a rate is given for a group that does not train here.
    """
    from .groups import parameter_groups

    groups = parameter_groups(model)
    rates = {group: rate for group, rate in recipe.rates.items() if groups.get(group)}
    notes = []
    if "projector" in rates and model.adapter_spec.framework == "object-only":
        del rates["projector"]
        notes.append(
            f"projector: left out, since adapter '{model.adapter_spec.name}' is Object-Only and never runs it."
        )
    idle = sorted(set(overrides) - set(rates))
    if idle:
        raise TrainingError(
            f"learning_rates names {_listed(idle)}, which do not train here. Groups that train: {_listed(rates)}."
        )
    rates.update(overrides)
    for group, parameters in groups.items():
        for _, parameter in parameters:
            if parameter.is_floating_point():  # packed 4-bit weights are integers and cannot train
                parameter.requires_grad_(group in rates)
    return rates, notes


def _listed(names: Sequence[str] | Mapping[str, Any]) -> str:
    return ", ".join(names)


# -- QLoRA -------------------------------------------------------------------------------------------------


def quantization_options(spec: BackboneSpec, config: Any, kind: str, compute_dtype: Any) -> dict[str, Any]:
    """Options of `from_pretrained` that quantise the decoder's linear layers and nothing else.

    The vision tower and the projector read pictures at full precision, so regions are encoded as the plain backbone
    encodes them, and the head keeps its weights.

    Args:
        spec: the backbone's plugin.
        config: the backbone's config.
        kind: `nf4` or `int8`.
        compute_dtype: what nf4 weights are unpacked to.

    Raises:
        TrainingError: bitsandbytes is missing.
    """
    from transformers import BitsAndBytesConfig
    from transformers.utils.import_utils import is_bitsandbytes_available

    if not is_bitsandbytes_available():
        raise TrainingError("model.quantize needs bitsandbytes: pip install 'pixelrefer-plugin[qlora]'.")
    kept = linear_layers_outside_decoder(spec, config)
    if kind == "int8":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)}
    quantized = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=kept,  # of 4-bit too, whatever its name
    )
    return {"quantization_config": quantized}


def keep_quantized_weights(backbone: Any) -> None:
    """Keep evaluation from changing 4-bit weights: on CPUs with AVX512-BF16, bitsandbytes packs those of a layer anew
    when it is first used in evaluation mode, rounds their scales, and does not take all widths."""
    for module in backbone.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def linear_layers_outside_decoder(spec: BackboneSpec, config: Any) -> list[str]:
    """The dotted paths of a backbone's linear layers that are not its decoder's; no weights are made."""
    import torch
    from torch import nn

    with torch.device("meta"):
        model = spec.model_class._from_config(config)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(f"{spec.decoder}.")
    ]
