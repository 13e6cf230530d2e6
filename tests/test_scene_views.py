"""What an adapter is given of the backbone's own pass: patches, cells or projected tokens, of wholes or of tiles."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from conftest import install_plugin, picture, user
from PIL import Image
from torch import nn

from pixelrefer_plugin import PluginError, Region, VideoRegion, attach, get_backbone
from pixelrefer_plugin.authoring import AdapterModule, AdapterSpec, Planner, RegionPlan, SceneView, hookimpl
from pixelrefer_plugin.testing import make_pair

PLUGIN_API = 1

BACKBONES = ["videollama3", "qwen2_5_vl", "llava_onevision"]
ONE_TOKEN_PER_CELL = ["videollama3", "qwen2_5_vl"]
BOX = Region.from_box((8, 8, 60, 50))
BEAMS = {"num_beams": 3, "num_return_sequences": 2}
GENERATION = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}

# -- an adapter that keeps what it is given ------------------------------------------------------------------


@dataclass(frozen=True)
class ReaderConfig:
    """`views`: of each whether it is tiled."""

    views: tuple[bool, ...] = (False,)


class ReaderPlanner(Planner[ReaderConfig]):
    def plan(self, mask, geometry):
        return RegionPlan(1, tuple(SceneView(tiled=tiled) for tiled in self.config.views))


class Reader(AdapterModule):
    """One token a region, of weights alone; `given` are the views of each call."""

    def __init__(self, width):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(width))
        self.given = []

    @classmethod
    def build(cls, config, shapes):
        return cls(shapes.decoder)

    def forward(self, views, counts):
        self.given.append(views)
        return self.token.expand(len(counts), -1)


@hookimpl
def register_adapters(register):
    for scene in ("patches", "cells", "projected"):
        register(
            AdapterSpec(name=f"reader-{scene}", config=ReaderConfig, planner=ReaderPlanner, module=Reader, scene=scene)
        )


@pytest.fixture
def reader(monkeypatch):
    """Attaches it to a backbone's tiny model: `reader(scene, backbone, *views)`."""
    install_plugin(monkeypatch, "reader", __name__)
    made = []

    def make(scene, backbone, *views):
        bare, native = get_backbone(backbone).tiny(0)
        options = {"views": views or (False,)}
        made.append(attach(bare, native, adapter=f"reader-{scene}", adapter_config=options))
        made[-1][0].eval()
        return made[-1]

    yield make
    for model, _ in made:
        model.detach()


def conversations():
    """Samples of one picture, of none, of two and of one again, of several sizes; regions on most of them."""
    pictures = [picture(70, 120), picture(110, 60, seed=1), picture(84, 168, seed=2), picture(150, 90, seed=3)]
    texts = [
        [user(pictures[0], "what is <region>?")],
        [user("just text")],
        [user(pictures[1], pictures[2], "is <region> like <region>?")],
        [user(pictures[3], "describe <region>")],
    ]
    regions = [[BOX], [], [Region.from_box((5, 5, 55, 100)), BOX.on_image(1)], [Region.from_box((5, 5, 85, 140))]]
    return texts, regions


def media_ids(model):
    ids = (getattr(model.backbone.config, name, None) for name in ("image_token_id", "video_token_id"))
    return [each for each in ids if each is not None]


@torch.no_grad()
def embeddings(model, inputs):
    """`(batch, length, D)`: what the decoder is given."""
    kept = []
    decoder = model.backbone.get_submodule(model.backbone_spec.parts.decoder)
    handle = decoder.register_forward_pre_hook(
        lambda module, args, kwargs: kept.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    try:
        model(**inputs)
    finally:
        handle.remove()
    return kept[0]


def given_by(model, inputs, **options):
    """The views of the adapter's first call in a generation."""
    model.adapter.given.clear()
    model.generate(**inputs, **GENERATION, suppress_tokens=media_ids(model), **options)
    return model.adapter.given[0]


@torch.no_grad()
def given(model, inputs):
    """The views of the adapter's call in a forward."""
    model.adapter.given.clear()
    model(**inputs)
    (views,) = model.adapter.given
    return views


HOW = {
    "forward": given,
    "greedy": given_by,
    "no cache": lambda model, inputs: given_by(model, inputs, use_cache=False),
    "beams": lambda model, inputs: given_by(model, inputs, **BEAMS),
}


# -- projected scenes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("backbone", ONE_TOKEN_PER_CELL)
def test_projected_images_are_the_decoders_scene_tokens(reader, backbone, how):
    model, processor = reader("projected", backbone)
    inputs = processor(*conversations())
    tokens = embeddings(model, inputs)[inputs["input_ids"] == model.backbone.config.image_token_id]
    (view,) = how(model, inputs)
    assert len(view.grids) == 4
    assert view.regions == (0, 1, 2, 3)
    assert view.grid_of_region == (0, 1, 2, 3)
    assert inputs["regions"].scene.whole.grids_hw == view.grids.grids_hw
    torch.testing.assert_close(view.grids.features, tokens)


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_projected_videos_are_the_decoders_scene_tokens(reader, how):
    """Of Qwen2.5-VL, which has a token for each cell of two frames; pictures stand beside them."""
    model, processor = reader("projected", "qwen2_5_vl")
    frames = np.stack([picture(56, 84, seed=index) for index in range(5)])
    video = {"type": "video", "video": frames, "fps": 2.0}
    texts, regions = conversations()
    inputs = processor([[user(video, "what is <region>?")], *texts], [[VideoRegion({0: BOX, 4: BOX})], *regions])
    tokens = embeddings(model, inputs)
    image_id, video_id = media_ids(model)
    (view,) = how(model, inputs)
    assert view.grid_of_region == (4, 6, 0, 1, 2, 3)
    expected = torch.cat([tokens[inputs["input_ids"] == each] for each in (image_id, video_id)])
    torch.testing.assert_close(view.grids.features, expected)


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_a_projected_whole_is_the_first_tokens_of_an_image_in_tiles(reader, how):
    """LLaVA-OneVision shows the whole before its tiles; these are cut to the picture, and lines end in a token."""
    model, processor = reader("projected", "llava_onevision")
    texts, regions = conversations()
    inputs = processor([texts[0], texts[1], texts[3]], [regions[0], regions[1], regions[3]])
    is_image = inputs["input_ids"] == model.backbone.config.image_token_id
    tokens = embeddings(model, inputs)
    (view,) = how(model, inputs)
    assert view.grids.grids_hw == ((6, 6),) * 2
    for grid, row in zip((0, 1), (0, 2), strict=True):
        torch.testing.assert_close(view.grids[grid].flatten(0, 1), tokens[row][is_image[row]][: 6 * 6])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_projected_scenes_are_what_the_projector_makes_of_cells(reader, backbone):
    """Images and videos, on grids of cells."""
    frames = np.stack([picture(56, 84, seed=index) for index in range(4)])
    video = {"type": "video", "video": frames, "fps": 2.0}
    texts, regions = conversations()
    texts, regions = [*texts, [user(video, "what is <region>?")]], [*regions, [VideoRegion({0: BOX, 3: BOX})]]
    views = {}
    for scene in ("cells", "projected"):
        model, processor = reader(scene, backbone)
        (views[scene],) = given(model, processor(texts, regions))
    layers = [model.backbone.get_submodule(path) for path in model.backbone_spec.parts.projector_layers]
    cells, projected = views["cells"], views["projected"]
    assert cells.grids.grids_hw == projected.grids.grids_hw
    assert torch.equal(cells.patch_ij, projected.patch_ij)
    assert torch.equal(cells.patch_weights, projected.patch_weights)
    with torch.no_grad():
        expected = layers[1](nn.functional.gelu(layers[0](cells.grids.features)))
    torch.testing.assert_close(projected.grids.features, expected)


def test_a_backbone_that_does_not_say_what_it_projects_is_refused(reader, monkeypatch):
    _, processor = reader("projected", "qwen2_5_vl")
    spec = processor._backbone
    processor._backbone = replace(spec, images=replace(spec.images, projected=None))
    refusal = (
        r"'reader-projected' reads projected scene tokens, but backbone plugin 'qwen2_5_vl' does not say what its "
        r"projector makes of images \(BackboneSpec.images, Scene.projected\)"
    )
    with pytest.raises(PluginError, match=refusal):
        processor([user(picture(70, 120), "what is <region>?")], [BOX])


def test_gradients_reach_the_projector_through_a_projected_scene(reader):
    model, processor = reader("projected", "qwen2_5_vl")
    model.backbone.requires_grad_(True)
    model(**processor([user(picture(70, 120), "what is <region>?")], [BOX]))
    ((view,),) = model.adapter.given
    view.pooled().square().sum().backward()
    for path in (*model.backbone_spec.parts.projector_layers, model.backbone_spec.parts.vision_tower):
        assert any(
            each.grad is not None and each.grad.any() for each in model.backbone.get_submodule(path).parameters()
        )


# -- tiles ---------------------------------------------------------------------------------------------------

TILINGS = {(70, 120): (1, 2), (110, 60): (2, 1), (150, 140): (2, 2), (80, 80): (1, 1)}


def tiles_of(model, inputs, number, tiling):
    """`(down * 6, across * 6, C)`: an image's tiles, each put through the tower alone, laid side by side."""
    features = []
    for tile in inputs["pixel_values"][number, 1 : 1 + tiling[0] * tiling[1]]:
        output = model.backbone.model.vision_tower(tile[None], output_hidden_states=True)
        layer = model.backbone.config.vision_feature_layer
        features.append(output.hidden_states[layer][0].view(6, 6, -1))
    across = tiling[1]
    rows = [torch.cat(features[start : start + across], dim=1) for start in range(0, len(features), across)]
    return torch.cat(rows)


def asked_about(*sizes):
    texts = [[user(picture(*hw, seed=seed), "what is <region>?")] for seed, hw in enumerate(sizes)]
    return texts, [[Region.from_box((8, 8, width - 8, height - 8))] for height, width in sizes]


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("scene", ["patches", "cells", "projected"])
@torch.no_grad()
def test_tiles_are_the_native_ones_side_by_side(reader, scene, how):
    model, processor = reader(scene, "llava_onevision", True)
    sizes = list(TILINGS)
    inputs = processor(*asked_about(*sizes))
    (view,) = how(model, inputs)
    assert view.grids.grids_hw == tuple((6 * down, 6 * across) for down, across in TILINGS.values())
    assert view.grid_of_region == (0, 1, 2, 3)
    layers = [model.backbone.get_submodule(path) for path in model.backbone_spec.parts.projector_layers]
    for number, tiling in enumerate(TILINGS.values()):
        expected = tiles_of(model, inputs, number, tiling)
        if scene == "projected":
            expected = layers[1](nn.functional.gelu(layers[0](expected)))
        torch.testing.assert_close(view.grids[number], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_one_of_several_images_has_no_tiles(reader, how):
    """Nor has a frame of a video: all of it is the whole, twice."""
    model, processor = reader("patches", "llava_onevision", True, False)
    frames = np.stack([picture(70, 120, seed=index) for index in range(3)])
    video = {"type": "video", "video": frames, "fps": 2.0}
    texts, regions = conversations()
    inputs = processor([texts[2], [user(video, "what is <region>?")]], [regions[2], [VideoRegion({0: BOX, 2: BOX})]])
    tiled, whole = how(model, inputs)
    assert whole.grids.grids_hw == tiled.grids.grids_hw == ((6, 6),) * 5
    assert tiled.grid_of_region == whole.grid_of_region == (0, 1, 2, 4)
    assert torch.equal(tiled.grids.features, whole.grids.features)
    assert torch.equal(tiled.boxes_xyxy, whole.boxes_xyxy)


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
def test_the_whole_and_its_tiles_are_read_in_one_pass(reader, how):
    texts, regions = asked_about(*TILINGS)
    alone = {}
    for tiled in (False, True):
        model, processor = reader("patches", "llava_onevision", tiled)
        (alone[tiled],) = how(model, processor(texts, regions))
    model, processor = reader("patches", "llava_onevision", True, False)
    calls = []
    model.backbone.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    tiled, whole = how(model, processor(texts, regions))
    assert len(calls) == 1 or how is HOW["no cache"]
    for view, expected in ((tiled, alone[True]), (whole, alone[False])):
        assert view.grids.grids_hw == expected.grids.grids_hw
        torch.testing.assert_close(view.grids.features, expected.grids.features)
        assert torch.equal(view.patch_weights, expected.patch_weights)
        assert torch.equal(view.boxes_xyxy, expected.boxes_xyxy)
        assert torch.equal(view.region_boxes_xyxy, expected.region_boxes_xyxy)


@pytest.mark.parametrize("scene", ["patches", "cells", "projected"])
@pytest.mark.parametrize("backbone", ONE_TOKEN_PER_CELL)
def test_what_is_not_cut_is_its_own_tile(reader, backbone, scene):
    views = {}
    for tiled in (False, True):
        model, processor = reader(scene, backbone, tiled)
        (views[tiled],) = given(model, processor(*conversations()))
    assert torch.equal(views[True].grids.features, views[False].grids.features)
    assert views[True].grids.grids_hw == views[False].grids.grids_hw
    assert torch.equal(views[True].patch_weights, views[False].patch_weights)


GREY, BRIGHT = 110, 250


@pytest.mark.parametrize("hw", [(70, 120), (110, 60), (150, 140), (180, 180), (100, 300), (61, 59)], ids=str)
@torch.no_grad()
def test_a_cell_of_the_tiles_shows_its_part_of_the_picture(reader, hw):
    """A bright spot in the middle of where the box says that a cell lies lights up that cell.

    In the middle, since the pixels that the tower leaves out at the end of each tile are taken to be spread over it.
    """
    model, processor = reader("patches", "llava_onevision", True)
    plain = Image.new("RGB", hw[::-1], (GREY,) * 3)
    before, box = shown(model, processor, plain)
    rows, columns = before.shape[:2]
    height, width = (box[3] - box[1]) / rows, (box[2] - box[0]) / columns
    for i, j in [(rows // 2, columns // 2 - 1), (rows // 2 - 1, columns // 2), (rows // 3, columns // 3)]:
        x, y = box[0] + (j + 0.5) * width, box[1] + (i + 0.5) * height
        bright = plain.copy()
        spot = (x - width / 5, y - height / 5, x + width / 5, y + height / 5)
        bright.paste((BRIGHT,) * 3, tuple(map(round, spot)))
        after, _ = shown(model, processor, bright)
        difference = (after - before).norm(dim=-1)
        assert divmod(int(difference.argmax()), columns) == (i, j)


def shown(model, processor, image):
    inputs = processor([user(image, "what is <region>?")], [Region.from_box((0, 0, *image.size))])
    (view,) = given(model, inputs)
    return view.grids[0], view.boxes_xyxy[0].tolist()


# -- where a region lies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["saot", "oci", "maskpool"])
def test_every_view_has_the_regions_own_box(adapter):
    pair = make_pair(adapter, "qwen2_5_vl")
    dense = np.zeros((70, 120), bool)
    dense[11:30, 20:21] = dense[50, 44:91] = True
    frames = {0: Region.from_box((8, 8, 30, 40)), 2: Region.from_mask(np.eye(56, 84, dtype=bool))}
    video = {"type": "video", "video": np.stack([picture(56, 84, seed=index) for index in range(3)]), "fps": 2.0}
    texts = [[user(picture(70, 120), "<region>, <region>?")], [user(video, "what is <region>?")]]
    regions = [[Region.from_mask(dense), Region.from_points([(100, 40)], radius_px=3)], [VideoRegion(frames)]]
    batch = pair.processor(texts, regions)["regions"]
    expected = [
        *(region.to_mask((70, 120)).box_xyxy for region in regions[0]),
        *(region.to_mask((56, 84)).box_xyxy for region in frames.values()),
    ]
    assert expected[0] == (20, 11, 91, 51)
    for view in batch.views:
        assert view.region_boxes_xyxy.dtype == torch.float32
        assert view.region_boxes_xyxy.tolist() == [list(map(float, box)) for box in expected]
        assert view.images_hw.tolist() == [[70, 120], [70, 120], [56, 84], [56, 84]]
    assert batch.images_hw == ((70, 120), (70, 120), (56, 84), (56, 84))
    pair.model.detach()
