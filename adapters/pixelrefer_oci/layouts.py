"""The checkpoints of PixelRefer-Lite that its authors published: what OCI's weights are called in them.

It knows names and shapes of tensors only.
"""

from collections.abc import Collection, Mapping

from pixelrefer_saot.layouts import PREFIX, REGION_TOKEN, options, our_name, unknown_weight
from torch import Tensor

from pixelrefer_plugin.authoring import AdapterLayout, CheckpointError

# Made by the official code and never called in it.
_DEAD = ("mask_embedding.", "mm_projector.")

_FUSION = "fusion_attention_"
_NORM = "ln_"


def weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OCI's weights under our names, in float32.

    `torch.nn.MultiheadAttention` keeps queries, keys and values in one weight, which is cut in three. The keys' bias
    adds the same to every score of a query, which softmax does not see: our attention has none, and it is left out.

    Raises:
        CheckpointError: a weight is not OCI's, or cannot be cut.
    """
    ours: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if not key.startswith(_DEAD):
            ours.update(_ours(key, tensor.float()))
    return ours


def _ours(key: str, tensor: Tensor) -> dict[str, Tensor]:
    """What one weight becomes."""
    of_saot = our_name(key)
    if of_saot is not None:
        return {f"saot.{of_saot}": tensor}
    module, _, rest = key.partition(".")
    if not module.startswith((_FUSION, _NORM)):
        raise unknown_weight(key)
    return _attention_weights(module, rest, tensor)


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


def _recognises(keys: Collection[str]) -> bool:
    """The attentions are what tells it from PixelRefer, whose tokenizer it has too."""
    return any(key.startswith(_FUSION) for key in keys)


LAYOUTS = {
    "pixelreferlite_qwen2": AdapterLayout(
        model="PixelRefer-Lite",
        prefix=PREFIX,
        recognises=_recognises,
        weights=weights,
        options=options,
        preset="official",
        region_token=REGION_TOKEN,
        is_greedy=True,
    )
}
