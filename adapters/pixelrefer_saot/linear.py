"""A linear layer that takes the faster of torch's two libraries for float32 on a CPU. Knows nothing of regions.

torch multiplies float32 matrices on a CPU by MKL, which on AMD's processors takes about twice as long as oneDNN, which
torch has on board as well and uses for compiled models.
"""

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

_MULTIPLICATIONS = 2**22  # below that either takes less than a tenth of a millisecond


class Linear(nn.Linear):
    """`nn.Linear` with the same weights and, to float32 rounding, the same result.

    oneDNN's operation has no derivative: with gradients on, the layer is torch's own.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`(..., in_features)` to `(..., out_features)`."""
        if not onednn_is_faster(input, self.weight):
            return super().forward(input)
        # A weight with gaps in memory takes a thousand times as long, a bias with gaps is taken for one without.
        bias = None if self.bias is None else self.bias.contiguous()
        rows = input.flatten(0, -2).contiguous()
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight.contiguous(), bias, "none", [], "")
        return product.unflatten(0, input.shape[:-1])


def onednn_is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether `x @ weight.T` is for oneDNN: large, plain float32 on a CPU, and nothing but numbers is wanted of it."""
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and _is_plain(x)
        and _is_plain(weight)
        and x.dim() > 1
        and x.shape[-1] == weight.shape[1]
        and x.numel() * len(weight) >= _MULTIPLICATIONS
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
        and not is_in_torch_dispatch_mode()  # such as one that counts operations
    )


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and tensor.dtype == torch.float32
