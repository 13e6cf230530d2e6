"""Both tokenizers against the official region encoder: the same features, masks, weights and random draws in, the same
tokens out."""

import json
import re

import pytest
import torch
from pixelrefer_saot.kmeans import KMeans, groups_of
from pixelrefer_saot.module import relative_positions
from safetensors.torch import load_file

from pixelrefer_plugin import get_adapter
from pixelrefer_plugin.authoring import EncodedView, FeatureGrids, Shapes
from pixelrefer_plugin.contracts.encoded import PatchRows

from .conftest import cases

WIDTH, DECODER_WIDTH, NUM_TOKENS = 48, 64, 8
SAMPLES = [case for kind in ("full", "lite") for case in cases(f"region_encoder/{kind}_*.safetensors")]
SAMPLES = [case for case in SAMPLES if not case.id.endswith("state_dict")]


def numbered(tensors, name):
    """`name_0`, `name_1`, .. in their order."""
    found = {int(match[1]): key for key in tensors if (match := re.fullmatch(rf"{name}_(\d+)", key))}
    return [tensors[found[index]] for index in sorted(found)]


def view_of(grids, masks, boxes_xyxy, images_hw):
    """Region k reads grid k: all of it, or what its mask says."""
    features = torch.cat([grid.flatten(0, 1) for grid in grids])
    firsts = torch.tensor([0, *(grid[..., 0].numel() for grid in grids)]).cumsum(0).tolist()
    inside = [mask.nonzero() if mask is not None else torch.empty(0, 2, dtype=torch.long) for mask in masks]
    rows = [
        first + each[:, 0] * grid.shape[1] + each[:, 1]
        for first, each, grid in zip(firsts[:-1], inside, grids, strict=True)
    ]
    counts = tuple(map(len, inside))
    return EncodedView(
        regions=tuple(range(len(grids))),
        grids=FeatureGrids(features, tuple(tuple(grid.shape[:2]) for grid in grids)),
        grid_of_region=tuple(range(len(grids))),
        patch_weights=torch.ones(sum(counts)),
        patch_ij=torch.cat(inside).float(),
        region_of_patch=torch.repeat_interleave(torch.arange(len(grids)), torch.tensor(counts)),
        patches_per_region=counts,
        boxes_xyxy=torch.tensor(boxes_xyxy, dtype=torch.float32),
        region_boxes_xyxy=torch.tensor(boxes_xyxy, dtype=torch.float32),
        images_hw=torch.tensor(images_hw, dtype=torch.float32),
        rows=PatchRows(torch.cat(rows)),
    )


def crop_box_xyxy(official_box, *, lite):
    """Ours from the official (row, column, row, column); Lite's ends a pixel before its crop does."""
    top, left, bottom, right = official_box
    return (left, top, right + lite, bottom + lite)


class Case:
    """One recorded call of the official region encoder, and our module with its weights."""

    def __init__(self, path, parity):
        self.lite = path.stem.startswith("lite")
        self.tensors = load_file(path)
        adapter = get_adapter("oci" if self.lite else "saot")
        config = adapter.make_config({"preset": "official", "num_tokens": NUM_TOKENS})
        self.module = adapter.module.build(config, Shapes(crop=WIDTH, scene=WIDTH, decoder=DECODER_WIDTH)).eval()
        state = load_file(parity / f"region_encoder/{'lite' if self.lite else 'full'}_state_dict.safetensors")
        (layout,) = adapter.layouts.values()
        self.module.load_state_dict(layout.weights(state))
        meta = json.loads((parity / "region_encoder/meta.json").read_text())["cases"][path.stem]
        regions = [region for sample in meta["samples"] for region in sample]
        boxes = [crop_box_xyxy(region["bbox"], lite=self.lite) for region in regions]
        images_hw = [region["raw_hw"] for region in regions]
        whole = [None] * len(regions)
        views = [("feat", numbered(self.tensors, "mask"))]
        if self.lite:
            views += [("local_feat", whole), ("global_feat", whole)]
        self.views = tuple(view_of(numbered(self.tensors, name), masks, boxes, images_hw) for name, masks in views)
        patches = self.views[0].patches_per_region
        self.counts = tuple(NUM_TOKENS if self.lite else min(NUM_TOKENS, each) for each in patches)

    @property
    def tokenizer(self):
        return self.module.saot if self.lite else self.module


@pytest.fixture
def case(request, parity, monkeypatch):
    made = Case(request.param, parity)
    draws = iter(numbered(made.tensors, "randperm"))
    monkeypatch.setattr(torch, "randperm", lambda length: next(draws))
    yield made
    assert next(draws, None) is None, "as many draws as the official code makes"


of_each_case = pytest.mark.parametrize("case", SAMPLES, indirect=True)


@of_each_case
@torch.inference_mode()
def test_the_tokens_are_the_official_ones(case):
    delivered = case.module(case.views, case.counts)
    torch.testing.assert_close(delivered, case.tensors["out"], atol=1e-5, rtol=0)


@of_each_case
@torch.inference_mode()
def test_so_are_those_before_infusion_and_mlp(case):
    delivered = case.tokenizer.object_features(case.views[0], case.counts).split(case.counts)
    for tokens, expected in zip(delivered, numbered(case.tensors, "pooled"), strict=True):
        torch.testing.assert_close(tokens[: len(expected)], expected, atol=1e-5, rtol=0)
        assert not tokens[len(expected) :].any(), "padding is zeros"


@pytest.mark.parametrize("case", [case for case in SAMPLES if case.id.startswith("full")], indirect=True)
@torch.inference_mode()
def test_so_are_the_features_with_their_positions(case):
    placed = case.tokenizer.placed_features(case.views[0]).split(case.views[0].patches_per_region)
    case.module(case.views, case.counts)  # which makes the draws
    masks = numbered(case.tensors, "mask")
    for tokens, mask, expected in zip(placed, masks, numbered(case.tensors, "feat_plus_pos"), strict=True):
        torch.testing.assert_close(tokens, expected[mask > 0], atol=1e-5, rtol=0)


def test_positions_are_the_official_ones(parity):
    tensors = numbered(load_file(parity / "region_encoder/position_tensors.safetensors"), "pos")
    cases = json.loads((parity / "region_encoder/meta.json").read_text())["positions"]
    for expected, case in zip(tensors, cases, strict=True):
        for lite in (False, True):
            box, image_hw = crop_box_xyxy(case["box"], lite=lite), (case["raw_h"], case["raw_w"])
            view = view_of([expected], [torch.ones(expected.shape[:2])], [box], [image_hw])
            delivered = relative_positions(view, swap_axes=True, inclusive_box=lite)
            torch.testing.assert_close(delivered, expected.flatten(0, 1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("iterations", "name"), [(5, "full_it5"), (3, "lite_it3")])
@pytest.mark.parametrize("path", cases("region_encoder/kmeans_*.safetensors"))
def test_k_means_from_a_recorded_start(path, iterations, name, parity, monkeypatch):
    tensors = load_file(path)
    monkeypatch.setattr(torch, "randperm", lambda length: tensors["randperm"])
    num_clusters, device = len(tensors[name]), torch.device("cpu")
    (group,) = groups_of([len(tensors["tokens"])], num_clusters=num_clusters, start="random", device=device)
    kmeans = KMeans.started("random", iterations=iterations)
    (means,) = kmeans(tensors["tokens"], *map(torch.from_numpy, group.arrays))
    torch.testing.assert_close(means, tensors[name], atol=1e-5, rtol=0)
