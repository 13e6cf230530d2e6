"""The example `gar`: RoI-aligned replay of an image's tiles reads the region's own box, on every backbone."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import install_plugin, picture, user

from pixelrefer_plugin import Region, attach, get_backbone
from pixelrefer_plugin.testing import check_adapter

EXAMPLE = Path(__file__).parent.parent / "examples" / "pixelrefer-gar"
BACKBONES = ["videollama3", "qwen2_5_vl", "llava_onevision"]


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    install_plugin(monkeypatch, "gar", "pixelrefer_gar")
    yield
    for name in [name for name in sys.modules if name.startswith("pixelrefer_gar")]:
        del sys.modules[name]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_it_conforms(backbone):
    check_adapter("gar", backbone=backbone)


def replayed(backbone, image, region, **options):
    """The object tokens of one region, `(side, side, D)`, and what the adapter read."""
    bare, native = get_backbone(backbone).tiny(0)
    model, processor = attach(bare, native, adapter="gar", adapter_config=options)
    seen, made = [], []
    hooks = [
        model.adapter.register_forward_pre_hook(lambda module, args: seen.append(args[0][0])),
        model.adapter.register_forward_hook(lambda module, args, tokens: made.append(tokens)),
    ]
    with torch.no_grad():
        model.eval()(**processor([user(image, "what is <region>?")], [region]))
    for hook in hooks:
        hook.remove()
    model.detach()
    side = model.adapter.side
    return made[0].view(side, side, -1), seen[0]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_box_of_one_cell_replays_that_cell(backbone):
    """Whole cells at whole pixels: a region that is one cell of the grid reads the middle of that cell."""
    image = picture(112, 168)
    _, view = replayed(backbone, image, Region.from_box((0, 0, 168, 112)))
    (h, w), (x0, y0, x1, y1) = view.grids.grids_hw[0], view.boxes_xyxy[0].tolist()
    row, column = h // 2, w // 3
    box = (
        x0 + column * (x1 - x0) / w,
        y0 + row * (y1 - y0) / h,
        x0 + (column + 1) * (x1 - x0) / w,
        y0 + (row + 1) * (y1 - y0) / h,
    )
    tokens, view = replayed(backbone, image, Region.from_box(box), side=1)
    whole = [round(each) for each in view.region_boxes_xyxy[0].tolist()]
    assert np.allclose(whole, box, atol=1.0)
    own = view.grids[0][row, column]
    others = view.grids[0].flatten(0, 1)
    nearest = torch.cdist(tokens.view(1, -1), others).argmin().item()
    assert divmod(nearest, w) == (row, column)
    assert torch.nn.functional.cosine_similarity(tokens.flatten(), own, dim=0) > 0.7


def test_tiles_are_finer_than_the_whole():
    """LLaVA-OneVision cuts a single image into tiles: the replay sees more cells than the base view has."""
    tokens, view = replayed("llava_onevision", picture(180, 260), Region.from_box((20, 30, 200, 150)))
    config = get_backbone("llava_onevision").tiny(0)[0].config
    side = config.vision_config.image_size // config.vision_config.patch_size
    h, w = view.grids.grids_hw[0]
    assert h * w > side * side
    assert tokens.shape[:2] == (4, 4)
