"""Object tokens attend to whole grids of patches: many regions, many grids, no padding.

What counts is which tokens read which grid, not which region they come from. A grid that many tokens read is projected
to keys and values once, however many regions they are of. One that few read is not projected at all: attention is
linear in keys and values, so that the tokens can take the projections upon themselves (`ReadGrids`).

Shape letters: T tokens of a grid, G grids that are read, S patches of a grid, H heads, E width of a head, C = H·E.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import accumulate, groupby
from typing import Any

import numpy as np
import torch
from pixelrefer_saot.linear import Linear
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from pixelrefer_plugin.authoring import EncodedView, FeatureGrids, PixelReferError

FLASH = "flash_attention_2"


class GridAttention(nn.Module):
    """`Attn(LN(T), F, F)` of Algorithm 1: each token attends to the patches of its region's grid.

    Args:
        width: width C of tokens and patches.
        num_heads: heads; must divide `width`.

    Attributes:
        attn_implementation: `sdpa`, `eager`, or `flash_attention_2`.
    """

    def __init__(self, width: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_implementation = "sdpa"
        self.norm = nn.LayerNorm(width)
        self.q = Linear(width, width)
        self.k = Linear(width, width, bias=False)  # softmax would not see a bias of the keys
        self.v = Linear(width, width)
        self.out = Linear(width, width)
        self.read = ReadGrids()

    def compile(self, *args: Any, **options: Any) -> None:
        """Compile what works on tensors alone, with the arguments of `torch.compile`."""
        self.read.compile(*args, **options)

    @torch.compiler.disable
    def forward(self, tokens: Tensor, counts: tuple[int, ...], view: EncodedView) -> Tensor:
        """What each token takes from its grid.

        Args:
            tokens: `(T, C)`, region by region.
            counts: tokens of each region.
            view: the grids, all of one size, and which of them each region reads.

        Returns:
            `(T, C)`, to be added to the tokens.
        """
        rows_of_grid = _token_rows_of_grid(counts, view.grid_of_region)
        # Grids that equally many tokens read lie side by side: a run of them is one batched attention.
        grids = sorted(rows_of_grid, key=lambda grid: len(rows_of_grid[grid]))
        tokens_per_grid = [len(rows_of_grid[grid]) for grid in grids]
        rows = np.concatenate([rows_of_grid[grid] for grid in grids])
        there, back, of_grids = (
            torch.from_numpy(each).to(tokens.device, non_blocking=True)
            for each in (rows, rows.argsort(), np.array(grids))
        )
        queries = self._heads(self.q(self.norm(tokens))[there])
        patches = _stacked(view.grids)[of_grids].to(tokens.dtype)
        attend = self._flash if self.attn_implementation == FLASH else self._in_runs
        return self.out(attend(queries, patches, tokens_per_grid).flatten(1)[back])

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.num_heads, -1))

    def _in_runs(self, queries: Tensor, patches: Tensor, tokens_per_grid: list[int]) -> Tensor:
        """Once per run of grids with equally many tokens; each run is a slice, nothing is copied."""
        attended = []
        grid = row = 0
        for num_tokens, run in groupby(tokens_per_grid):
            next_grid = grid + len(list(run))
            next_row = row + (next_grid - grid) * num_tokens
            of_run = queries[row:next_row].unflatten(0, (-1, num_tokens)), patches[grid:next_grid]
            attended.append(self._attend(*of_run).flatten(0, 1))
            grid, row = next_grid, next_row
        return torch.cat(attended)

    def _attend(self, queries: Tensor, patches: Tensor) -> Tensor:
        """`(G, T, H, E)` from queries of that shape and `(G, S, C)` patches, in the way that costs less."""
        attend = ATTEND[self.attn_implementation]
        num_tokens, (num_patches, width) = queries.shape[1], patches.shape[1:]
        cheaper = absorbing_is_cheaper(num_tokens, num_patches=num_patches, width=width, num_heads=self.num_heads)
        if cheaper and _is_its_weight(self.k) and _is_its_weight(self.v):
            return self.read(queries, patches, self.k.weight, self.v.weight, self.v.bias, attend)
        keys, values = (self._heads(project(patches)).transpose(1, 2) for project in (self.k, self.v))
        return attend(queries.transpose(1, 2), keys, values, scale=queries.shape[-1] ** -0.5).transpose(1, 2)

    def _flash(self, queries: Tensor, patches: Tensor, tokens_per_grid: list[int]) -> Tensor:
        keys, values = self._heads(self.k(patches)), self._heads(self.v(patches))
        return _flash(queries, keys, values, queries_per_grid=tokens_per_grid)


def _is_its_weight(layer: nn.Module) -> bool:
    """Whether a layer's weight says all about it: not where the layer was replaced (LoRA, quantised), is sharded or
    offloaded by itself, or where somebody listens to its calls."""
    hooks = (layer._forward_pre_hooks, layer._forward_hooks, layer._backward_pre_hooks, layer._backward_hooks)
    return type(layer) is Linear and "forward" not in vars(layer) and not any(hooks)


def absorbing_is_cheaper(num_tokens: int, *, num_patches: int, width: int, num_heads: int) -> bool:
    """Whether T tokens of a grid save multiplications by taking its two projections upon themselves.

    Both ways cost twice as much for keys and values together: `S·C² + T·S·C` where the S patches are projected,
    `T·C² + T·H·S·C` where the tokens absorb that. A multiplication of the latter takes about a third longer, since its
    matrices are smaller.
    """
    absorbed = num_tokens * (width + num_heads * num_patches)
    projected = num_patches * (width + num_tokens)
    return 3 * absorbed < 2 * projected


class ReadGrids(nn.Module):
    """Attention to patches that are not projected; no parameters, a module so that it can be compiled.

    For each head `q·(W_k f) = (W_kᵀ q)·f`, and the weighted mean of `W_v f + b` is `W_v` of the weighted mean of f,
    plus b: weights of attention add up to 1.
    """

    def forward(
        self,
        queries: Tensor,
        patches: Tensor,
        key_weight: Tensor,
        value_weight: Tensor,
        value_bias: Tensor,
        attend: Callable[..., Tensor],
    ) -> Tensor:
        """What each token takes from its grid.

        Args:
            queries: `(G, T, H, E)`.
            patches: `(G, S, C)`.
            key_weight: `(C, C)`, as `value_weight`; `value_bias` is `(C,)`.
            attend: one of `ATTEND`.

        Returns:
            `(G, T, H, E)`.
        """
        num_heads, head_width = queries.shape[2:]
        of_head = (num_heads, head_width)
        keyed = torch.einsum("gthe,hec->gthc", queries, key_weight.unflatten(0, of_head)).flatten(1, 2)
        patches = patches[:, None]
        taken = attend(keyed[:, None], patches, patches, scale=head_width**-0.5)[:, 0].unflatten(1, (-1, num_heads))
        return torch.einsum("gthc,hec->gthe", taken, value_weight.unflatten(0, of_head)) + value_bias.view(of_head)


def _token_rows_of_grid(counts: Sequence[int], grid_of_region: Sequence[int]) -> dict[int, np.ndarray]:
    """For each grid that is read, the rows of the tokens that read it."""
    regions_of_grid: dict[int, list[np.ndarray]] = defaultdict(list)
    ends = accumulate(counts)
    for grid, count, end in zip(grid_of_region, counts, ends, strict=True):
        regions_of_grid[grid].append(np.arange(end - count, end))
    return {grid: np.concatenate(rows) for grid, rows in regions_of_grid.items()}


def _stacked(grids: FeatureGrids) -> Tensor:
    """`(grids, S, C)`."""
    assert len(set(grids.grids_hw)) == 1, f"grids of one view must be of one size, got {set(grids.grids_hw)}"
    return grids.features.unflatten(0, (len(grids), -1))


def _eager(q: Tensor, k: Tensor, v: Tensor, *, scale: float) -> Tensor:
    """The formula as it stands, weights and all in memory: q `(G, H, T, E)`, k and v `(G, H, S, E)`."""
    return (q @ k.mT * scale).softmax(-1) @ v


ATTEND: dict[str, Callable[..., Tensor]] = {"sdpa": scaled_dot_product_attention, "eager": _eager}


def _flash(q: Tensor, k: Tensor, v: Tensor, *, queries_per_grid: list[int]) -> Tensor:
    """All grids in one call of flash-attn's kernel, which knows half precision only: others go through bfloat16.

    Args:
        q: `(tokens of all grids, H, E)`, grid after grid.
        k: `(G, S, H, E)`, as `v`.
        queries_per_grid: how many of the queries read each grid.
    """
    kernel = _flash_kernel(q.device)
    num_grids, num_patches = k.shape[:2]
    half = q.dtype if q.dtype in (torch.float16, torch.bfloat16) else torch.bfloat16
    attended = kernel(
        q.to(half),
        k.flatten(0, 1).to(half),
        v.flatten(0, 1).to(half),
        cu_seqlens_q=torch.tensor([0, *accumulate(queries_per_grid)], dtype=torch.int32, device=q.device),
        cu_seqlens_k=torch.arange(num_grids + 1, dtype=torch.int32, device=q.device) * num_patches,
        max_seqlen_q=max(queries_per_grid),
        max_seqlen_k=num_patches,
    )
    return attended.to(q.dtype)


def _flash_kernel(device: torch.device) -> Callable[..., Tensor]:
    """flash-attn's `flash_attn_varlen_func`.

    Raises:
        PixelReferError: the package is not installed, or the tensors are not on a GPU.
    """
    if device.type != "cuda":
        raise PixelReferError(
            f"attn_implementation='flash_attention_2' needs a GPU, got tensors on '{device.type}'. "
            "Load the backbone with attn_implementation='sdpa'."
        )
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError as error:
        raise PixelReferError(
            "attn_implementation='flash_attention_2' needs the package flash-attn, which cannot be imported: "
            f"{error}. Install it (pip install flash-attn --no-build-isolation), or load the backbone with "
            "attn_implementation='sdpa'."
        ) from error
    return flash_attn_varlen_func
