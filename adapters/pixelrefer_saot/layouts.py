"""What the region encoder's weights are called in an official checkpoint, and in our adapters.

It knows names and shapes of tensors only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

REGION_ENCODER = "model.region_encoder."
"""What stands before their keys in a whole checkpoint."""

_TOKENIZER = {"pos_linear": "position", "feat_linear": "mlp"}

# Made by the official code and never called in it.
_DEAD = ("mask_embedding.", "mm_projector.")

_FUSION = "fusion_attention_"
_NORM = "ln_"


def adapter_of(state: Mapping[str, Tensor]) -> str:
    """The adapter that a region encoder's weights are for: `oci` where they infuse context, else `saot`."""
    return "oci" if any(key.startswith(_FUSION) for key in state) else "saot"


def adapter_weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official region encoder's weights under our adapter's names, in float32.

    `torch.nn.MultiheadAttention` keeps queries, keys and values in one weight, which is cut in three. The keys' bias
    adds the same to every score of a query, which softmax does not see: our adapter has none, and it is left out.

    Args:
        state: the weights under their own names, without `model.region_encoder.`. Those of the full and of the Lite
            model are told apart by their names.

    Returns:
        The state dict of `saot` or `oci`.

    Raises:
        CheckpointError: a key is of neither, or a weight cannot be cut.
    """
    lite = adapter_of(state) == "oci"
    ours: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if lite and key.startswith(_DEAD):
            continue
        module, _, rest = key.partition(".")
        if module in _TOKENIZER:
            ours[f"{'saot.' if lite else ''}{_TOKENIZER[module]}.{rest}"] = tensor.float()
        elif lite and module.startswith((_FUSION, _NORM)):
            ours.update(_attention_weights(module, rest, tensor.float()))
        else:
            raise CheckpointError(
                f"The region encoder has a weight '{key}', which is of neither the full model nor of Lite. "
                "Is the checkpoint an official one?"
            )
    return ours


def _attention_weights(module: str, rest: str, tensor: Tensor) -> dict[str, Tensor]:
    """What one weight of an attention, or of the norm of its queries, becomes."""
    if module.startswith(_NORM):
        return {f"attentions.{module.removeprefix(_NORM)}.norm.{rest}": tensor}
    name = f"attentions.{module.removeprefix(_FUSION)}"
    if not rest.startswith("in_proj_"):
        return {f"{name}.{rest.replace('out_proj', 'out')}": tensor}
    if not tensor.ndim or len(tensor) % 3:
        raise CheckpointError(f"The weight '{module}.{rest}' must be of three parts, got shape {tuple(tensor.shape)}.")
    kind = rest.removeprefix("in_proj_")
    query, key, value = tensor.chunk(3)
    parts = {"q": query, "k": key, "v": value}
    if kind == "bias":
        del parts["k"]
    return {f"{name}.{part}.{kind}": weight for part, weight in parts.items()}
