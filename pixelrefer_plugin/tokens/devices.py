"""Where the parts of a backbone run that accelerate has spread over devices, and their weights while they are away.

With a `device_map`, the weights of an offloaded module are on the meta device between its calls; a hook on the module
brings them for the length of each. Whoever calls the module need not know. Whoever reads its weights must.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

_META = torch.device("meta")


def device_of(module: nn.Module) -> torch.device:
    """Where a module takes its inputs: where its weights are, or where they are brought for a call."""
    here = next((each.device for each in _tensors(module) if each.device != _META), None)
    if here is not None:
        return here
    hooks = (hook for part in module.modules() for hook in _hooks(part))
    brought = next((hook.execution_device for hook in hooks if hook.execution_device is not None), None)
    return _META if brought is None else torch.device(brought)


def is_offloaded(module: nn.Module) -> bool:
    """Whether weights of a module, or of one inside it, are away between its calls."""
    return any(offloads(part) for part in module.modules())


def offloads(module: nn.Module) -> bool:
    """Whether a module's own weights are away between its calls."""
    return any(hook.offload for hook in _hooks(module))


@contextmanager
def with_weights(modules: Iterable[nn.Module]) -> Iterator[None]:
    """The weights of modules are there within this context; those that were away go again afterwards."""
    with ExitStack() as stack:
        for module in modules:
            if offloads(module):
                bring_weights(module)
                stack.callback(send_weights_away, module)
        yield


def bring_weights(module: nn.Module, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
    """What accelerate does before a call of an offloaded module; returns the call's arguments, where they are read."""
    hook: Any = module._hf_hook
    moved: tuple[Any, Any] = hook.pre_forward(module, *args, **kwargs)
    return moved


def send_weights_away(module: nn.Module, output: Any = None) -> Any:
    """What accelerate does after such a call; returns the call's output, where it is expected."""
    hook: Any = module._hf_hook
    return hook.post_forward(module, output)


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()
    weight = getattr(module, "weight", None)  # some wrappers of modules keep it elsewhere
    if isinstance(weight, torch.Tensor):
        yield weight


def _hooks(module: nn.Module) -> list[Any]:
    """Accelerate's hooks on a module that say where it runs."""
    hook = getattr(module, "_hf_hook", None)
    hooks = [hook, *getattr(hook, "hooks", ())]
    return [each for each in hooks if hasattr(each, "execution_device") and hasattr(each, "offload")]
