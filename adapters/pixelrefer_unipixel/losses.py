"""The loss of SAM 2 for an object: the mask's pixels and overlap, the predicted IoU, and whether the object is there.

After `MultiStepMultiMasksAndIous` of https://github.com/facebookresearch/sam2 with the options of UniPixel's authors:
of several candidate masks the best one learns, and all learn to predict their IoU. Knows masks, no model.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate
from torch.utils.checkpoint import checkpoint

from pixelrefer_plugin.authoring import MaskTargets, PredictedMasks

from .tracking import MaskCandidates

_FOCAL_ALPHA, _FOCAL_GAMMA = 0.25, 2
_PAIRS_AT_ONCE = 4  # at the targets' resolution: a published picture's three masks take 7 MB, and some copies


def mask_losses(
    predicted: PredictedMasks,
    targets: MaskTargets,
    frames_per_object: Sequence[int],
    *,
    weights: Mapping[str, float],
) -> dict[str, Tensor]:
    """What each object's masks cost: a mean over the pictures where something is known of it.

    Where it is absent, or its mask has no pixel, only `presence` counts; where nothing is known, nothing does.

    Args:
        predicted: of K (object, picture) pairs.
        targets: of the same pairs.
        frames_per_object: pictures of each of the S objects; they add up to K.
        weights: of `mask` (focal), `dice`, `iou` (L1) and `presence` (cross-entropy).

    Returns:
        Each `(S,)` float32 and weighted, under the names of the weights.
    """
    rows, device = targets.row_of_pair.tolist(), predicted.presence.device
    known = [pair for pair, row in enumerate(rows) if row != MaskTargets.UNKNOWN]
    drawn = [index for index, pair in enumerate(known) if rows[pair] >= 0]
    owners = [number for number, count in enumerate(frames_per_object) for _ in range(count)]
    known_pairs, drawn_known, owner = (
        torch.tensor(each, dtype=torch.long).to(device) for each in (known, drawn, [owners[pair] for pair in known])
    )
    drawn_pairs = known_pairs[drawn_known]
    masks = targets.masks[targets.row_of_pair[drawn_pairs]]
    seen = torch.zeros(len(known), device=device).index_copy(0, drawn_known, masks.flatten(1).any(dim=1).float())
    costs = torch.zeros(len(known), len(_OF_MASK), device=device)
    costs = costs.index_copy(0, drawn_known, _mask_costs(predicted, drawn_pairs, masks, weights)) * seen[:, None]
    presence = binary_cross_entropy_with_logits(predicted.presence[known_pairs].float(), seen, reduction="none")
    sums = torch.zeros(len(frames_per_object), len(_OF_MASK) + 1, device=device)
    sums = sums.index_add(0, owner, torch.cat([costs, presence[:, None]], dim=1))
    means = sums / torch.bincount(owner, minlength=len(frames_per_object)).clamp(min=1)[:, None]
    return {name: weights[name] * mean for name, mean in zip((*_OF_MASK, "presence"), means.unbind(dim=1), strict=True)}


_OF_MASK = ("mask", "dice", "iou")


def _mask_costs(predicted: PredictedMasks, pairs: Tensor, masks: Tensor, weights: Mapping[str, float]) -> Tensor:
    """The three costs of the masks of some pairs, `(pairs, 3)`, a few at a time and computed again for the gradient."""
    if isinstance(predicted, MaskCandidates):
        logits, iou = predicted.candidate_logits[pairs], predicted.candidate_iou[pairs]
    else:
        logits, iou = predicted.logits[pairs, None], predicted.iou[pairs, None]
    choice = weights["mask"], weights["dice"]
    parts = [
        checkpoint(_costs, *some, choice, use_reentrant=False, preserve_rng_state=False)
        for some in zip(*(each.split(_PAIRS_AT_ONCE) for each in (logits.float(), iou.float(), masks)), strict=True)
    ]
    return torch.cat(parts)


def _costs(logits: Tensor, iou: Tensor, masks: Tensor, choice: tuple[float, float]) -> Tensor:
    """Focal, dice and IoU cost of N masks `(N, h, w)` by M candidates each, `(N, 3)`."""
    logits = interpolate(logits, size=masks.shape[1:], mode="bilinear", align_corners=False)
    masks = masks[:, None]
    inside = logits > 0
    overlap = (inside & masks).sum(dim=(2, 3)) / (inside | masks).sum(dim=(2, 3)).clamp(min=1)
    target = masks.float().expand_as(logits)
    probability = logits.sigmoid()
    entropy = binary_cross_entropy_with_logits(logits, target, reduction="none")
    doubt = (probability - target).abs() ** _FOCAL_GAMMA * torch.where(masks, _FOCAL_ALPHA, 1 - _FOCAL_ALPHA)
    focal = (doubt * entropy).mean(dim=(2, 3))
    shared, total = (probability * target).sum(dim=(2, 3)), (probability + target).sum(dim=(2, 3))
    dice = 1 - (2 * shared + 1) / (total + 1)
    best = (choice[0] * focal + choice[1] * dice).argmin(dim=1, keepdim=True)
    error = (iou - overlap).abs().mean(dim=1, keepdim=True)
    return torch.cat([focal.gather(1, best), dice.gather(1, best), error], dim=1)
