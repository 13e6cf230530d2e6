"""Object tokens attend to whole grids of patches: many regions, many grids, no padding.

A grid is projected to keys and values once, however many regions read it: what counts is which tokens read
which grid, not which region they come from.

Shape letters: T tokens of all regions, G grids that are read, S patches of a grid, H heads, E width of a head.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, groupby, pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from pixelrefer_plugin import EncodedView, FeatureGrids, PixelReferError


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
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width, bias=False)  # softmax would not see a bias of the keys
        self.v = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

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
        rows = torch.tensor([row for grid in grids for row in rows_of_grid[grid]], device=tokens.device)
        patches = _stacked(view.grids)[torch.tensor(grids, device=tokens.device)].to(self.k.weight.dtype)
        attended = ATTEND[self.attn_implementation](
            self._heads(self.q(self.norm(tokens))[rows]),
            self._heads(self.k(patches)),
            self._heads(self.v(patches)),
            queries_per_grid=[len(rows_of_grid[grid]) for grid in grids],
        )
        return self.out(attended.flatten(1)[rows.argsort()])

    def _heads(self, projected: Tensor) -> Tensor:
        return projected.unflatten(-1, (self.num_heads, -1))


def _token_rows_of_grid(counts: Sequence[int], grid_of_region: Sequence[int]) -> dict[int, list[int]]:
    """For each grid that is read, the rows of the tokens that read it."""
    rows_of_grid: dict[int, list[int]] = defaultdict(list)
    bounds = pairwise(accumulate(counts, initial=0))
    for grid, (start, end) in zip(grid_of_region, bounds, strict=True):
        rows_of_grid[grid].extend(range(start, end))
    return rows_of_grid


def _stacked(grids: FeatureGrids) -> Tensor:
    """`(grids, S, C)`."""
    assert len(set(grids.grids_hw)) == 1, f"grids of one view must be of one size, got {set(grids.grids_hw)}"
    return grids.features.unflatten(0, (len(grids), -1))


# Each way to attend takes q `(T, H, E)`, grid after grid, k and v `(G, S, H, E)`, and how many of the queries read
# each grid, ascending; it returns `(T, H, E)`.


def _in_runs(
    attend: Callable[[Tensor, Tensor, Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor, *, queries_per_grid: list[int]
) -> Tensor:
    """`attend` once per run of grids with equally many queries; each run is a slice, nothing is copied."""
    attended = []
    grid = row = 0
    for num_queries, run in groupby(queries_per_grid):
        next_grid = grid + len(list(run))
        next_row = row + (next_grid - grid) * num_queries
        queries = q[row:next_row].unflatten(0, (-1, num_queries))
        heads_first = [each.transpose(1, 2) for each in (queries, k[grid:next_grid], v[grid:next_grid])]
        attended.append(attend(*heads_first).transpose(1, 2).flatten(0, 1))
        grid, row = next_grid, next_row
    return torch.cat(attended)


def _eager(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The formula as it stands, weights and all in memory."""
    return (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1) @ v


def _flash(q: Tensor, k: Tensor, v: Tensor, *, queries_per_grid: list[int]) -> Tensor:
    """All grids in one call of flash-attn's kernel, which knows half precision only: others go through bfloat16."""
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


ATTEND: dict[str, Callable[..., Tensor]] = {
    "sdpa": partial(_in_runs, scaled_dot_product_attention),
    "eager": partial(_in_runs, _eager),
    "flash_attention_2": _flash,
}
