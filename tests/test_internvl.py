"""InternVL: tiles and thumbnails, videos beside pictures in one call of the tower, decoders and towers of all sizes."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from conftest import assistant, picture, user
from PIL import Image
from test_scene_views import HOW, embeddings, given, reader  # noqa: F401
from torch import nn
from transformers import InternVLConfig, InternVLForConditionalGeneration
from transformers.models.got_ocr2.image_processing_got_ocr2 import GotOcr2ImageProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from pixelrefer_plugin import PixelReferError, PromptError, Region, VideoRegion, attach, get_backbone
from pixelrefer_plugin.authoring import NativeCall, ShownMedium
from pixelrefer_plugin.testing import BACKBONE_CHECKS

BOX = Region.from_box((8, 8, 50, 50))
SIDE = 4  # patches of a tile, of 14 px each
TILE_PX = 56
# Rows and columns of tiles, beside the thumbnail where there are several; the tiny processor makes up to six.
TILINGS = {
    (70, 150): (1, 2),
    (150, 70): (2, 1),
    (150, 140): (2, 2),
    (80, 250): (1, 3),
    (112, 168): (2, 3),
    (60, 57): (1, 1),
}


@pytest.fixture(scope="module")
def spec():
    return get_backbone("internvl")


def asked_about(*sizes, **kinds):
    texts = [[user(picture(*hw, seed=seed), "what is <region>?")] for seed, hw in enumerate(sizes)]
    return texts, [[Region.from_box((8, 8, width - 8, height - 8))] for height, width in sizes]


def clip(seed=0, frames=3, hw=(70, 120)):
    """A video's content part."""
    frames = np.stack([picture(*hw, seed=100 * seed + index) for index in range(frames)])
    return {"type": "video", "video": frames, "fps": 2.0}


# -- tiles ---------------------------------------------------------------------------------------------------


def call_of(spec, counts, shown):
    """A call of a sample with pictures of so many tiles."""
    config = spec.tiny(0)[0].config
    tokens = (SIDE // 2) ** 2
    ids = [id for count in counts for id in [*[config.image_token_id] * (tokens * count), 0]]
    return NativeCall(config, {"input_ids": torch.tensor([ids])}, shown=(tuple(shown),))


def test_arrangements_are_those_of_the_image_processor_with_any_bounds(spec):
    """Its number of tiles and the picture's shape tell the arrangement, whatever bounds it was given."""
    rng = np.random.default_rng(0)
    sizes = [(int(height), int(width)) for height, width in rng.integers(1, 900, (400, 2))]
    sizes += [(side * down, side * across) for side in (40, 56, 448) for down in range(1, 5) for across in range(1, 5)]
    expected, counts = [], []
    for number, hw in enumerate(sizes):
        least, most = sorted(int(each) for each in np.random.default_rng(number).integers(1, 13, 2))
        across, down = get_optimal_tiled_canvas(hw, (TILE_PX, TILE_PX), least, most)
        counts.append(down * across + (down * across > 1))
        expected.append((SIDE * down, SIDE * across))
    call = call_of(spec, counts, [ShownMedium("image", hw) for hw in sizes])
    assert spec.tiles.grids_hw(call) == tuple(expected)
    assert spec.images.grids_hw(call) == ((SIDE, SIDE),) * len(sizes)


def native_tiles(model, inputs):
    """The patches of each tile, `(h, w, C)`, put through the tower alone."""
    with torch.no_grad():
        outputs = [model.backbone.model.vision_tower(each[None]) for each in inputs["pixel_values"]]
    return [each.last_hidden_state[0, 1:].view(SIDE, SIDE, -1) for each in outputs]


def cells_of(model, grid):
    """What the projector's first layer reads of a grid, `(h, w, C)`."""
    h, w, width = grid.shape
    cells = grid.view(h // 2, 2, w // 2, 2, width).transpose(1, 2).reshape(h // 2, w // 2, 4 * width)
    return model.backbone.model.multi_modal_projector.layer_norm(cells)


def as_read(model, scene, grid):
    """A grid of patches as adapters of a scene's kind read it."""
    if scene == "patches":
        return grid
    cells, projector = cells_of(model, grid), model.backbone.model.multi_modal_projector
    return cells if scene == "cells" else projector.linear_2(nn.functional.gelu(projector.linear_1(cells)))


def laid_out(tiles, tiling):
    rows = [torch.cat(tiles[at : at + tiling[1]], dim=1) for at in range(0, tiling[0] * tiling[1], tiling[1])]
    return torch.cat(rows)


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@pytest.mark.parametrize("scene", ["patches", "cells", "projected"])
@torch.no_grad()
def test_tiles_are_side_by_side_and_the_whole_is_the_thumbnail(reader, scene, how):  # noqa: F811
    model, processor = reader(scene, "internvl", True, False)
    inputs = processor(*asked_about(*TILINGS))
    tiled, whole = how(model, inputs)
    tiles = native_tiles(model, inputs)
    for number, tiling in enumerate(TILINGS.values()):
        count = tiling[0] * tiling[1]
        own, tiles = tiles[: count + (count > 1)], tiles[count + (count > 1) :]
        expected = as_read(model, scene, laid_out(own, tiling))
        torch.testing.assert_close(tiled.grids[number], expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(whole.grids[number], as_read(model, scene, own[-1]), atol=1e-5, rtol=1e-5)
    assert not tiles
    sizes = torch.tensor([[0, 0, width, height] for height, width in TILINGS], dtype=torch.float32)
    assert torch.equal(tiled.boxes_xyxy.float(), sizes)
    assert torch.equal(whole.boxes_xyxy.float(), sizes)


@pytest.mark.parametrize("options", [{"crop_to_patches": False}, {"max_patches": 1}], ids=str)
def test_a_picture_that_is_not_cut_is_its_own_tile(reader, options):  # noqa: F811
    model, processor = reader("patches", "internvl", True, False)
    inputs = processor(*asked_about(*TILINGS), **options)
    assert len(inputs["pixel_values"]) == len(TILINGS)
    tiled, whole = given(model, inputs)
    assert tiled.grids.grids_hw == whole.grids.grids_hw == ((SIDE, SIDE),) * len(TILINGS)
    assert torch.equal(tiled.grids.features, whole.grids.features)


def test_the_torchvision_processor_of_checkpoints_makes_the_same_tiles(reader):  # noqa: F811
    model, processor = reader("patches", "internvl", True)
    (by_pil,) = given(model, processor(*asked_about(*TILINGS)))
    pil = processor.native.image_processor
    size, mean, std = dict(pil.size), pil.image_mean, pil.image_std
    processor.native.image_processor = GotOcr2ImageProcessor(max_patches=6, size=size, image_mean=mean, image_std=std)
    (by_torchvision,) = given(model, processor(*asked_about(*TILINGS)))
    assert by_torchvision.grids.grids_hw == by_pil.grids.grids_hw
    torch.testing.assert_close(by_torchvision.grids.features, by_pil.grids.features, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("tiled", [True, False], ids=["tiles", "thumbnail"])
@pytest.mark.parametrize("hw", TILINGS, ids=str)
@torch.no_grad()
def test_a_cell_shows_its_part_of_the_picture(reader, hw, tiled):  # noqa: F811
    """A picture is squashed to its tiles whole: a bright spot lights up the patch that lies on it, in raster order."""
    model, processor = reader("patches", "internvl", tiled)

    def shown(pixels):
        (view,) = given(model, processor([user(Image.fromarray(pixels), "<region>")], [BOX]))
        return view.grids[0]

    plain = np.full((*hw, 3), 110, dtype=np.uint8)
    before = shown(plain)
    rows, columns = before.shape[:2]
    for row, column in ((0, 0), (0, columns - 1), (rows // 2, columns // 3), (rows - 1, 0), (rows - 1, columns - 1)):
        bright = plain.copy()
        down = slice(*(round(at * hw[0] / rows) for at in (row, row + 1)))
        across = slice(*(round(at * hw[1] / columns) for at in (column, column + 1)))
        bright[down, across] = 250
        change = (shown(bright) - before).norm(dim=-1)
        assert divmod(int(change.argmax()), columns) == (row, column)


def test_tiles_of_a_picture_of_unknown_size_are_refused(spec):
    call = replace(call_of(spec, [1, 3, 7], []), shown=())
    assert spec.images.grids_hw(call) == ((SIDE, SIDE),) * 3
    with pytest.raises(PixelReferError, match="cut into 2 tiles and a thumbnail, but NativeCall.shown does not say"):
        spec.tiles.grids_hw(call)


# -- videos, and both ----------------------------------------------------------------------------------------


def mixed():
    """Pictures and videos in one conversation and in a batch, in any order; a text that looks like a frame's."""
    one, other = picture(150, 140, seed=1), picture(60, 57, seed=2)
    texts = [
        [user(clip(1), "then Frame1: ", other, "what is <region>, and <region>?")],
        [user(one, clip(2), other, "what are <region>, <region> and <region>?")],
        [user("just text")],
        [user(one, "what is <region>?")],
        [user(clip(3, hw=(60, 60)), "what is <region>?")],
    ]
    regions = [
        [VideoRegion({0: BOX, 2: BOX}), BOX],
        [VideoRegion({1: BOX}), BOX.on_image(1), BOX],
        [],
        [BOX],
        [VideoRegion({2: BOX})],
    ]
    return texts, regions


@pytest.mark.parametrize("how", HOW.values(), ids=HOW)
@torch.no_grad()
def test_pictures_and_videos_go_through_the_tower_in_one_call(reader, how):  # noqa: F811
    """Each region reads its own picture or frame, as in a batch of its sample alone."""
    model, processor = reader("patches", "internvl", True, False)
    texts, regions = mixed()
    calls = []
    model.backbone.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    together = how(model, processor(texts, regions))
    assert len(calls) == 1 or how is HOW["no cache"]
    for number, view in enumerate(together):
        alone = [
            own[number].grids[grid]
            for conversation, given_regions in zip(texts, regions, strict=True)
            if given_regions
            for own in [given(model, processor(conversation, given_regions))]
            for grid in own[number].grid_of_region
        ]
        assert len(view.grid_of_region) == len(alone) == 8
        for grid, expected in zip(view.grid_of_region, alone, strict=True):
            torch.testing.assert_close(view.grids[grid], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_projected_scenes_are_what_the_decoder_gets(reader):  # noqa: F811
    """Frames and pictures, in the order of the texts; of a picture in tiles the thumbnail, its last."""
    model, processor = reader("projected", "internvl", False)
    texts, regions = mixed()
    inputs = processor(texts[:2], regions[:2])
    tokens = embeddings(model, inputs)[inputs["input_ids"] == model.backbone.config.image_token_id]
    tiles = tokens.view(-1, (SIDE // 2) ** 2, tokens.shape[1])
    assert len(tiles) == 3 + 1 + 5 + 3 + 1
    (view,) = given(model, inputs)
    pictures, frames = [3, 3 + 1 + 4, 3 + 1 + 5 + 3], [0, 1, 2, 9, 10, 11]
    torch.testing.assert_close(view.grids.features, tiles[[*pictures, *frames]].flatten(0, 1))


@torch.no_grad()
def test_samples_with_videos_of_several_lengths_are_processed_alone_and_joined(reader):  # noqa: F811
    """The native processor stacks the videos of a call; a batch is what its samples are, one after another."""
    model, processor = reader("patches", "internvl", True)
    texts, regions = mixed()
    texts[0], regions[3] = [user(clip(1, frames=5), "what is <region> here?")], [BOX]
    regions[0] = [VideoRegion({0: BOX, 4: BOX})]
    inputs = processor(texts, regions)
    for number, (text, own) in enumerate(zip(texts, regions, strict=True)):
        alone = processor(text, own)
        ids = inputs["input_ids"][number][inputs["attention_mask"][number].bool()]
        assert torch.equal(ids, alone["input_ids"][0])
        logits = model(**alone).logits[0, -1]
        torch.testing.assert_close(model(**inputs).logits[number, -1], logits, atol=1e-4, rtol=1e-4)
    (view,) = given(model, inputs)
    assert len(view.grid_of_region) == 2 + 3 + 1 + 1
    labelled = processor([[*each, assistant("a dog")] for each in texts], regions, labels=True)
    assert (labelled["labels"] != -100).any(dim=1).all()


def test_two_videos_of_several_lengths_in_one_conversation_are_refused(reader):  # noqa: F811
    _, processor = reader("patches", "internvl", False)
    message = user(clip(1, frames=3), clip(2, frames=4), "<region>")
    with pytest.raises(PromptError, match=r"Its videos have \[3, 4\] frames: .* only if all have as many"):
        processor([message], [VideoRegion({0: BOX})])


def test_a_batch_that_is_joined_keeps_to_one_medium_where_the_backbone_does(reader, monkeypatch):  # noqa: F811
    _, processor = reader("patches", "internvl", False)
    monkeypatch.setattr(processor, "_backbone", replace(processor._backbone, mixes_media=False))
    videos = [[user(clip(seed, frames=frames), "what?")] for seed, frames in ((1, 3), (2, 4))]
    assert len(processor(videos)["input_ids"]) == 2
    with pytest.raises(PromptError, match="does not mix pictures and videos"):
        processor([*videos, [user(picture(60, 57), "what?")]])


def test_a_call_may_hold_its_samples_several_times(spec):
    """As some versions of transformers' beam search call the model."""
    shown = (ShownMedium("video", (70, 120), 2), ShownMedium("image", (70, 150)), ShownMedium("image", (60, 57)))
    call = call_of(spec, [1, 1, 3, 1], shown)
    twice = replace(call, inputs={"input_ids": call.inputs["input_ids"].repeat(2, 1)})
    for scene in (spec.images, spec.tiles, spec.videos):
        assert scene.grids_hw(twice) == 2 * scene.grids_hw(call)
        assert len(scene.grids_hw(call)) == 2


# -- decoders and towers -------------------------------------------------------------------------------------

MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
GPT_OSS = {
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"],
}
TOWERS = {
    "InternViT-6B": {"vision_config": {"use_qk_norm": True, "norm_type": "rms_norm", "attention_bias": False}},
    "a class token's norm": {"vision_config": {"use_mean_pooling": False}},
    "an earlier layer": {"vision_feature_layer": -2},
}
DECODERS = {
    "Qwen2.5": {"text_config": {"model_type": "qwen2"}},
    "InternLM3": {"text_config": {"model_type": "llama"}},
    "Qwen3 MoE": {"text_config": {"model_type": "qwen3_moe", **MOE}},
    "GPT-OSS": {"text_config": {"model_type": "gpt_oss", **GPT_OSS}},
}
OF_TOWERS = ["crops_do_not_see_each_other", "crops_and_scene_are_the_same_features", "projector_reads_the_scenes_cells"]
OF_DECODERS = ["final_norm_is_behind_the_last_layer"]
OF_BOTH = ["modules_are_where_the_spec_says", "lora_scopes_are_parts_of_the_model"]
CHECKS = {each.__name__: each for each in BACKBONE_CHECKS}


def variant(spec, name):
    """The spec with a tiny model of another tower or decoder."""
    changed = {**TOWERS, **DECODERS}[name]

    def tiny(seed):
        model, processor = spec.tiny(seed)
        config = model.config.to_dict()
        for key, value in changed.items():
            config[key] = {**config[key], **value} if isinstance(value, dict) else value
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return InternVLForConditionalGeneration(InternVLConfig(**config)).eval(), processor

    return replace(spec, tiny=tiny)


@pytest.mark.parametrize(
    ("name", "check"),
    [*product(TOWERS, [*OF_TOWERS, *OF_BOTH]), *product(DECODERS, [*OF_DECODERS, *OF_BOTH])],
)
def test_towers_and_decoders_of_other_sizes_conform(spec, name, check):
    CHECKS[check](variant(spec, name))


@pytest.mark.parametrize("name", ["Qwen3 MoE", "GPT-OSS"])
def test_lora_in_a_mixture_of_experts_is_in_its_attention(spec, name):
    """Its experts are single parameters, which LoRA's linear layers are not."""
    model, native = variant(spec, name).tiny(0)
    model, _ = attach(model, native, adapter="maskpool")
    model.add_lora(scopes=["decoder"], r=2)
    adapted = {name.split(".lora_")[0] for name, _ in model.backbone.named_parameters() if ".lora_" in name}
    assert {name.split(".")[-2] for name in adapted} == {"self_attn"}
    assert len(adapted) == 2 * 4


# -- coordinates ---------------------------------------------------------------------------------------------


def test_regions_are_told_in_thousandths_between_the_models_own_tokens(spec):
    bare, native = spec.tiny(0)
    model, processor = attach(bare, native, adapter="coordinates")
    box = Region.from_box((15, 35, 75, 70))
    words = "<ref>region</ref><box>[[100, 500, 500, 1000]]</box>"
    inputs = processor([user(picture(70, 150), "what is <region>?")], [box])
    assert f"what is {words}?" in processor.tokenizer.decode(inputs["input_ids"][0])
    named = processor.tokenizer.convert_tokens_to_ids(["<ref>", "</ref>", "<box>", "</box>"])
    assert [each for each in inputs["input_ids"][0].tolist() if each in named] == named
    inputs = processor([user(clip(hw=(70, 150)), "what is <region>?")], [VideoRegion({0: box, 2: box})])
    assert f"what is the object (Frame1: {words}; Frame3: {words})?" in processor.tokenizer.decode(
        inputs["input_ids"][0]
    )
    assert "regions" not in inputs
    model.detach()
