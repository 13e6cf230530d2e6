"""A real model for the quickstart: reckoned before it is loaded, loaded once, and given one adapter after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..conversation.native_options import known_to
from ..entry import attach
from ..errors import CheckpointError, PixelReferError
from ..model import RegionModel
from ..processor import RegionProcessor
from ..training.report import size_of
from ..weights.hub import find_model_folder
from ..weights.loading import load_backbone, load_native_processor
from ..weights.model_folder import resolved
from ..weights.opening import require_backbone
from ..weights.tensors import open_weights

_WHOLE_PICTURES = {"do_image_splitting": False, "crop_to_patches": False, "do_pan_and_scan": False}
"""Options of transformers' image processors that cut pictures into tiles: small pictures need none, which cost most."""


@dataclass(frozen=True)
class RealModel:
    """A backbone that is loaded, its own processor, and where it runs."""

    name: str
    backbone: Any
    native: Any
    device: torch.device

    @property
    def options(self) -> dict[str, Any]:
        """Of the processor, for small pictures."""
        known = known_to(self.native, "images_kwargs")
        return {name: value for name, value in _WHOLE_PICTURES.items() if name in known}

    def with_adapter(self, adapter: str, config: Mapping[str, Any] | None) -> tuple[RegionModel, RegionProcessor]:
        """It with an adapter, which `detach` takes off again."""
        model, processor = attach(self.backbone, self.native, adapter=adapter, adapter_config=config)
        return model.to(self.device).eval(), processor


@dataclass(frozen=True)
class Reckoned:
    """What a checkpoint's weights take.

    Attributes:
        values: how many there are.
        dtype: that they are loaded in.
        free: bytes that the device has free; None where it does not tell.
    """

    values: int
    dtype: torch.dtype
    free: int | None

    @property
    def needed(self) -> int:
        """Bytes of the weights, once they are loaded."""
        return self.values * self.dtype.itemsize

    def require_room(self, name: str, device: torch.device) -> None:
        """Refuse a model whose weights alone do not fit.

        Raises:
            CheckpointError: says how much there is, and what to do.
        """
        if self.free is not None and self.needed > self.free:
            smaller = "" if self.dtype.itemsize <= 2 else ", --dtype bfloat16"
            alone = f"{size_of(self.needed)} in {dtype_name(self.dtype)}"
            raise CheckpointError(
                f"The weights of '{name}' alone take {alone}, but {device} has {size_of(self.free)} free. Take a "
                f"smaller model{smaller}, or another --device."
            )

    def told(self, name: str, device: torch.device) -> str:
        """A line for the user."""
        free = "" if self.free is None else f"; {device} has {size_of(self.free)} free"
        return f"{name}: {self.values:,} weights, {size_of(self.needed)} in {dtype_name(self.dtype)}{free}"


def dtype_name(dtype: torch.dtype) -> str:
    """As users write it."""
    return str(dtype).removeprefix("torch.")


def chosen_device(device: str) -> torch.device:
    """What `--device` means here.

    Raises:
        PixelReferError: there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise PixelReferError("--device cuda: torch finds no CUDA device here. Use --device cpu.")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def chosen_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """What `--dtype` means there: auto is bfloat16 on a GPU, and float32 on a CPU, where most are slower in others."""
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    made: torch.dtype = getattr(torch, dtype)
    return made


def open_real_model(name: str, *, device: str, dtype: str, tell: Callable[[str], None]) -> RealModel:
    """Load a backbone, once it is known that its weights fit.

    Args:
        name: hub id or folder of a plain backbone that a plugin serves.
        device: `auto`, `cpu` or `cuda`.
        dtype: `auto` or the name of one.
        tell: told how large it is, before it is loaded.

    Raises:
        CheckpointError: there is none, it cannot be fetched, or does not fit the memory; says what to do.
        PluginError: no plugin serves it.
    """
    place = chosen_device(device)
    wanted = chosen_dtype(dtype, place)
    with _helping(name):
        if find_model_folder(name, {}) is not None:
            raise CheckpointError(
                f"'{name}' has an adapter already. Ask it with `pixelrefer describe`, or name a plain backbone."
            )
        require_backbone(name)
        values = count_weights(name)
        if values is not None:
            reckoned = Reckoned(values, wanted, free_memory(place))
            reckoned.require_room(name, place)
            tell(reckoned.told(name, place))
        native, _ = load_native_processor(name)
        backbone = load_backbone(name, dtype=wanted).to(place)
    return RealModel(name, backbone, native, place)


def count_weights(name: str) -> int | None:
    """How many values a checkpoint's safetensors have, from their headers; None where those cannot be read yet."""
    folder = Path(resolved(name))
    if not folder.is_dir():
        return _count_on_hub(name)
    try:
        return sum(tensor.numel() for tensor in open_weights(folder).values())
    except PixelReferError:  # loading says what is the matter
        return None


def _count_on_hub(name: str) -> int | None:
    from huggingface_hub import get_safetensors_metadata, try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    if isinstance(config, str) and any(Path(config).parent.glob("*.safetensors")):
        return count_weights(str(Path(config).parent))
    try:
        return sum(get_safetensors_metadata(name).parameter_count.values())
    except Exception:  # of networks and of repositories without safetensors: loading says what is the matter
        return None


def free_memory(device: torch.device) -> int | None:
    """Bytes that the device has free."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        import psutil
    except ImportError:  # accelerate brings it along
        return None
    return int(psutil.virtual_memory().available)


def peak_memory(device: torch.device) -> int | None:
    """Bytes that were in use at most: of the GPU what torch took, else what this process did."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return None
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


# -- what is the matter with a model that cannot be loaded ------------------------------------------------------


@contextmanager
def _helping(name: str) -> Iterator[None]:
    """Says of a model that cannot be had what to do.

    Raises:
        CheckpointError: in place of the hub's errors and of those that tell of them.
    """
    try:
        yield
    except (CheckpointError, OSError, ImportError) as error:
        raise CheckpointError(f"{str(error).rstrip('. ')}.{_help(name, error)}") from error


def _help(name: str, error: BaseException) -> str:
    """What to do about an error, by the hub's own errors among its causes."""
    from huggingface_hub import errors

    causes = list(_causes(error))
    if any(isinstance(each, errors.GatedRepoError) for each in causes):
        return f" Accept its terms at https://huggingface.co/{name}, then run `hf auth login`."
    if any(isinstance(each, errors.RepositoryNotFoundError) for each in causes):
        return " Is the id right, and if the model is private, are you logged in (`hf auth login`)?"
    if any(isinstance(each, ImportError) for each in causes):
        return " Install what it needs with pip, in the same environment."
    unreached = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError)
    if any(isinstance(each, unreached) for each in causes):
        return (
            f" Where there is a network, run `hf download {name}`; its files lie in ~/.cache/huggingface, which may be "
            "copied here. With HF_HUB_OFFLINE=1 nothing is looked up. `pixelrefer quickstart` without --model needs no "
            "network."
        )
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
