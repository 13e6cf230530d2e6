"""The checkpoints of PixelRefer that its authors published: what SAOT's weights are called in them, and its options.

It knows names of tensors and of values in `config.json` only.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from pixelrefer_plugin.authoring import AdapterLayout, CheckpointError

PREFIX = "model.region_encoder."

REGION_TOKEN = "<REGION>"
"""What the official prompts write for each object token."""

_OURS = {"pos_linear": "position", "feat_linear": "mlp"}

_OPTION_OF = {"mask_num": "num_tokens", "mm_max_length": "max_patches"}


def our_name(key: str) -> str | None:
    """Our name of a weight of the tokenizer; None where it is another part's."""
    module, _, rest = key.partition(".")
    return f"{_OURS[module]}.{rest}" if module in _OURS else None


def unknown_weight(key: str) -> CheckpointError:
    """For a weight that the official code does not have."""
    return CheckpointError(
        f"The region encoder has a weight '{key}', which is of neither the full model nor of Lite. "
        "Is the checkpoint an official one?"
    )


def options(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the checkpoint was trained with: the most tokens of an object, and the most patches of its crop."""
    return {option: data[name] for name, option in _OPTION_OF.items() if data.get(name) is not None}


def weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SAOT's weights under our names, in float32.

    Raises:
        CheckpointError: a weight is not SAOT's.
    """
    ours: dict[str, Tensor] = {}
    for key, tensor in state.items():
        name = our_name(key)
        if name is None:
            raise unknown_weight(key)
        ours[name] = tensor.float()
    return ours


def _recognises(keys: Collection[str]) -> bool:
    return all(our_name(key) for key in keys)


LAYOUTS = {
    "pixelrefer_qwen2": AdapterLayout(
        model="PixelRefer",
        prefix=PREFIX,
        recognises=_recognises,
        weights=weights,
        options=options,
        preset="official",
        region_token=REGION_TOKEN,
        is_greedy=True,
    )
}
