"""Recipes: which parameter groups train, and how fast; and a model made ready to train by one.

Rates and schedule of `stage1` and `stage2` are PixelRefer's (§6.1 and its scripts/train/pixelrefer/stage*.sh:
`region_encoder_lr` 1e-3, then 1e-5, `llm_lr` and `mm_projector_lr` 1e-5). The vision tower is frozen in both: the
official scripts say `vision_encoder_lr 0`, which keeps its weights as they are. Recipes of other systems come with
their adapters (`AdapterSpec.recipes`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import PluginError, TrainingError

if TYPE_CHECKING:
    from ..contracts.adapter import AdapterSpec
    from ..contracts.backbone import BackboneSpec

GROUPS = ("adapter", "lora", "token_rows", "vision_tower", "projector", "decoder")
"""Parameter groups. `lora` is LoRA wherever it lies; `token_rows` the trained rows of the embedding and the head;
`decoder` all of the backbone that is neither vision tower nor projector, embedding and head included."""

PART_OF_ADAPTER = "adapter."
"""What the name of a group begins with that is a part of the adapter's module, by its dotted path there, such as
`adapter.mask_head`."""

BACKBONE_GROUPS = ("decoder", "projector", "vision_tower")
"""The backbone's own weights."""

LORA_GROUPS = ("lora", "token_rows")
"""What there is only where LoRA is on the backbone."""

LORA_DEFAULTS: Mapping[str, Any] = {"r": 16, "alpha": 32, "dropout": 0.0, "scopes": ("decoder",), "targets": None}
"""Options of `RegionModel.add_lora` where neither the recipe nor the user says otherwise."""


@dataclass(frozen=True)
class Recipe:
    """What trains.

    Attributes:
        name: what users call it.
        about: what it is for, in a line.
        rates: learning rate of each group that trains, by `groups.parameter_groups`' names; None of a part of one that
            stays as it is.
        lora: options that its LoRA has in place of `LORA_DEFAULTS`; None: it adds none.
    """

    name: str
    about: str
    rates: Mapping[str, float | None]
    lora: Mapping[str, Any] | None = None

    @property
    def trains_backbone(self) -> bool:
        """Whether any of the backbone's own weights change."""
        return any(self.trains(group) for group in BACKBONE_GROUPS)

    @property
    def trained(self) -> list[str]:
        """The groups that it names and that train."""
        return [group for group in self.rates if self.trains(group)]

    def trains(self, group: str) -> bool:
        """Whether a group has a rate."""
        return self.rate_of(group) is not None

    def rate_of(self, group: str) -> float | None:
        """The rate of a group, or else of the smallest whole that it is a part of and that is named."""
        while group not in self.rates and group:
            group = group.rpartition(".")[0]
        return self.rates.get(group)


def coarse_group(name: str) -> str:
    """Which of `GROUPS` a group is, or is a part of."""
    return "adapter" if name.startswith(PART_OF_ADAPTER) else name


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "lora",
            "LoRA on the decoder and the whole adapter; the backbone stays as it is. The default.",
            {"adapter": 1e-3, "lora": 2e-4, "token_rows": 2e-4},
            lora={},
        ),
        Recipe(
            "stage1",
            "The first of two stages: a new adapter fast, decoder and projector slowly.",
            {"adapter": 1e-3, "decoder": 1e-5, "projector": 1e-5},
        ),
        Recipe(
            "stage2",
            "The second of two stages: adapter, decoder and projector, all slowly.",
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


def recipes_for(adapter: AdapterSpec) -> dict[str, Recipe]:
    """All recipes that a model with this adapter can be trained by, by name.

    Raises:
        PluginError: one of the adapter's own has a name that is taken, names what there is not, or trains LoRA
            without adding it.
    """
    own = {
        name: Recipe(name, recipe.about, dict(recipe.rates), recipe.lora) for name, recipe in adapter.recipes.items()
    }
    for recipe in own.values():
        _require_sound(recipe, adapter.name)
    return {**RECIPES, **own}


def _require_sound(recipe: Recipe, adapter: str) -> None:
    which = f"Recipe '{recipe.name}' of adapter '{adapter}'"
    if recipe.name in RECIPES:
        raise PluginError(f"Adapter '{adapter}' brings a recipe '{recipe.name}', which there is already. Rename it.")
    for group in recipe.rates:
        if coarse_group(group) not in GROUPS:
            raise PluginError(
                f"{which} has a rate for '{group}'; parameter groups are {listed(GROUPS)}, and {PART_OF_ADAPTER}PART "
                "for a part of the adapter's module."
            )
    unknown = sorted(set(recipe.lora or ()) - set(LORA_DEFAULTS))
    if unknown:
        raise PluginError(f"LoRA of {which} has no option '{unknown[0]}'. Its options: {listed(LORA_DEFAULTS)}.")
    needs_lora = [group for group in LORA_GROUPS if recipe.trains(group)]
    if needs_lora and recipe.lora is None:
        raise PluginError(
            f"{which} trains {listed(needs_lora)}, but adds no LoRA, which has them. Give its AdapterRecipe lora={{}}."
        )


def listed(names: Sequence[str] | Mapping[str, Any]) -> str:
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
        if isinstance(module, nn.Linear) and not name.startswith(f"{spec.parts.decoder}.")
    ]
