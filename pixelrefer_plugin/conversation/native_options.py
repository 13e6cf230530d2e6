"""Options that users pass to a backbone's own processor: which may be given, and what decides the others.

Texts are rendered, tokenised and padded here, and frames sampled, so the processor's options for that would either be
passed over or break the batch. It knows native processors; no conversation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers.processing_utils import TextKwargs

from ..errors import PromptError, did_you_mean, shown

_MEDIA = {"images_kwargs": "image_processor", "videos_kwargs": "video_processor"}
_SAMPLED = "say sampling=FrameSampling(...)"
_SHOWN = "texts, pictures and videos are those of the conversations"
_TENSORS = "batches are always padded tensors"
_TOKENISED = "texts are rendered, tokenised and padded here"
_LEARNT = "labels=True asks for a batch to learn from, the default for a prompt"
_OWN = {
    **dict.fromkeys((*TextKwargs.__annotations__, "text_kwargs", "common_kwargs"), _TOKENISED),
    **dict.fromkeys(("chat_template", "tokenize", "return_dict", "tokenizer_kwargs", "processor_kwargs"), _TOKENISED),
    **dict.fromkeys(("add_generation_prompt", "continue_final_message"), _LEARNT),
    **dict.fromkeys(("num_frames", "fps", "do_sample_frames", "video_metadata", "return_metadata"), _SAMPLED),
    **dict.fromkeys(("text", "image", "images", "video", "videos", "audio", "conversation", "messages"), _SHOWN),
    **dict.fromkeys(("input_data_format", "data_format"), _SHOWN),
    **dict.fromkeys(("padding", "return_tensors", "return_attention_mask"), _TENSORS),
}


def require_allowed(native: Any, options: Mapping[str, Any]) -> None:
    """Refuse options that are decided here, and those that the native processor does not have.

    Raises:
        PromptError: names the option, and what decides it or the nearest name.
    """
    own: dict[str, set[str]] = {group: known_to(native, group) for group in _MEDIA}
    told = all(own[group] or getattr(native, part, None) is None for group, part in _MEDIA.items())
    _require_known(options, {*_MEDIA}.union(*own.values()) if told else None)
    for group in _MEDIA:
        given = options.get(group, {})
        if not isinstance(given, Mapping):
            raise PromptError(f"The option '{group}' must be a mapping of options, got {shown(given)}.")
        _require_known(given, own[group] or None, within=f" in {group}")


def _require_known(options: Mapping[str, Any], known: set[str] | None, *, within: str = "") -> None:
    for name in options:
        if name in _OWN:
            raise PromptError(f"The option '{name}'{within} of the native processor is not to be given: {_OWN[name]}.")
        if known is not None and name not in known:
            hint = did_you_mean(name, known)
            raise PromptError(f"The backbone's own processor has no option {shown(name)}{within}.{hint}")


def known_to(native: Any, group: str) -> set[str]:
    """The options that a part of the native processor says it takes; none where it says nothing."""
    kinds = getattr(getattr(native, "valid_processor_kwargs", None), "__annotations__", {})
    stated = (kinds.get(group), getattr(getattr(native, _MEDIA[group], None), "valid_kwargs", None))
    return {name for each in stated for name in getattr(each, "__annotations__", {})}


def with_area(options: Mapping[str, Any], asked: Sequence[Mapping[str, int]], native: Any) -> dict[str, Any]:
    """The native options, and what content parts ask of the image processor, which sizes all pictures of a batch alike.

    Raises:
        PromptError: the parts of a batch ask for different sizes, or the backbone does not size by area.
    """
    if not any(asked):
        return dict(options)
    area, name = asked[0] or next(filter(None, asked)), ", ".join(next(filter(None, asked)))
    if any(each != area for each in asked):
        raise PromptError(
            f"{name} of a content part holds for all pictures of a batch, but they ask for different ones. Give it to "
            "each picture alike, or put them in separate batches."
        )
    given = options.get("images_kwargs", {})
    if {*area, "size"} & {*options, *given}:
        raise PromptError(f"{name} is an option of the processor and of a content part as well. Leave one out.")
    if not {*area} <= known_to(native, "images_kwargs"):
        raise PromptError(
            f"a content part asks for {name}, but this backbone's {type(native.image_processor).__name__} does not "
            "size by area. Leave it out."
        )
    return {**options, "images_kwargs": {**given, "size": size_of_area(area, native)}}


def size_of_area(area: Mapping[str, int], native: Any) -> dict[str, int]:
    """The bounds of an area that a content part asks for, as the image processor has them.

    Raises:
        PromptError: they exclude each other.
    """
    size = native.image_processor.size
    least = area.get("min_pixels", min(size["shortest_edge"], area.get("max_pixels", size["shortest_edge"])))
    most = area.get("max_pixels", max(size["longest_edge"], least))
    if least > most:
        raise PromptError(
            f"a content part asks for at least {least} and at most {most} pixels, which exclude each other."
        )
    return {"shortest_edge": least, "longest_edge": most}
