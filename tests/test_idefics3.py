"""Idefics3, SmolVLM and SmolVLM2: how images are split and joined again, videos, where answers begin, their folders."""

import copy
import json

import numpy as np
import pytest
import test_scene_views
import torch
from click.testing import CliRunner
from conftest import assistant, picture, user
from PIL import Image
from safetensors.torch import save_file

from pixelrefer_plugin import PromptError, Region, VideoRegion, attach, get_adapter, get_backbone, load
from pixelrefer_plugin.authoring import PixelReferError
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.testing import TINY_CORPUS, tiny_tokenizer
from pixelrefer_plugin.testing.backbone_checks import native_call

reader = test_scene_views.reader  # a fixture
BOTH = ["idefics3", "smolvlm"]
both = pytest.mark.parametrize("name", BOTH)
TILE = 128
# One, two and four tiles, in either direction; small, large and thin ones.
SIZES = {"square": (90, 90), "wide": (60, 200), "tall": (210, 70), "large": (400, 300), "thin": (4, 300), "dot": (1, 1)}
DEFAULT = {}
UNSPLIT = {"do_image_splitting": False}
FINE = {"size": {"longest_edge": 4 * TILE}}


def photo(height, width, seed=0):
    return Image.fromarray(picture(height, width, seed=seed))


def tiny(name):
    return (*get_backbone(name).tiny(0), get_backbone(name))


def prompt_of(native, *parts):
    return native.apply_chat_template([user(*parts)], add_generation_prompt=True, tokenize=False)


def batch_of(native, samples, **options):
    """Native inputs of samples of images."""
    texts = [prompt_of(native, *images, "what is it?") for images in samples]
    media = {"images": samples} if any(samples) else {}
    return native(text=texts, **media, padding=True, return_tensors="pt", **options)


@torch.no_grad()
def outputs_of(model, inputs, path):
    kept = []
    handle = model.get_submodule(path).register_forward_hook(lambda module, args, output: kept.append(output))
    model(**inputs)
    handle.remove()
    return kept


def scene_grids(model, native, spec, scene, inputs):
    outputs = outputs_of(model, inputs, spec.parts.vision_tower)
    assert len(outputs) == 1, "images and frames share a tower call"
    return scene.grids(native_call(model, native, inputs), outputs)


@torch.no_grad()
def joined_by_hand(model, native, spec, image, options):
    """The tiles of one image, each encoded as a crop, side by side; and its whole."""
    told = native.image_processor([[image]], return_row_col_info=True, return_tensors="pt", **options)
    pixels, (((rows,),), ((columns,),)) = told["pixel_values"][0], (told["rows"], told["cols"])
    grids = spec.crops.encode(model, list(pixels))
    pictures = [grids[index] for index in range(len(grids))]
    whole, tiles = pictures[-1], pictures[:-1] or pictures
    across = columns or 1
    lines = [torch.cat(tiles[row * across : (row + 1) * across], dim=1) for row in range(rows or 1)]
    return torch.cat(lines), whole


# -- images ----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("options", [DEFAULT, UNSPLIT, FINE], ids=["tiles", "unsplit", "more tiles"])
@pytest.mark.parametrize("hw", SIZES.values(), ids=SIZES)
def test_an_images_tiles_and_whole_are_where_its_processor_put_them(name, hw, options):
    model, native, spec = tiny(name)
    image = photo(*hw)
    inputs = batch_of(native, [[image]], **options)
    expected = joined_by_hand(model, native, spec, image, options)
    call = native_call(model, native, inputs)
    for scene, wanted in zip((spec.tiles, spec.images), expected, strict=True):
        (grid_hw,) = scene.grids_hw(call)
        assert grid_hw == tuple(wanted.shape[:2])
        assert scene.boxes_xyxy(call, [hw]) == [(0, 0, hw[1], hw[0])]
        torch.testing.assert_close(scene_grids(model, native, spec, scene, inputs)[0], wanted, atol=1e-4, rtol=1e-4)


@both
def test_images_of_a_batch_have_different_numbers_of_tiles(name):
    """Samples are filled up with empty tiles, which the tower is not given."""
    model, native, spec = tiny(name)
    images = [photo(*hw, seed=seed) for seed, hw in enumerate(SIZES.values())]
    samples = [images[:1], [], [images[1], images[2]], images[3:]]
    inputs = batch_of(native, samples)
    assert inputs["pixel_values"].shape[:2] == (4, 5 + 3 + 5)
    by_hand = [joined_by_hand(model, native, spec, image, DEFAULT) for image in images]
    for place, scene in enumerate((spec.tiles, spec.images)):
        grids = scene_grids(model, native, spec, scene, inputs)
        assert grids.grids_hw == scene.grids_hw(native_call(model, native, inputs))
        assert len(grids) == len(images)
        for index, expected in enumerate(by_hand):
            torch.testing.assert_close(grids[index], expected[place], atol=1e-4, rtol=1e-4)


def padded_with(native, patch_px, tile_px):
    """The processor of a tower whose tiles are not whole patches, as those of 384 px and 14 px are not."""
    native = copy.deepcopy(native)
    native.image_processor.max_image_size = {"longest_edge": tile_px}
    native.image_processor.size = {"longest_edge": 2 * tile_px}
    native.image_seq_len = (tile_px // patch_px // 3) ** 2
    return native


@both
def test_what_the_tower_leaves_out_of_a_tile_is_left_out_of_its_box(name):
    """Tiles of 90 px and patches of 14 px, in cells of 3x3: 84 px are seen."""
    tiny_model, native, spec = tiny(name)
    config = copy.deepcopy(tiny_model.config)
    config.vision_config.patch_size, config.vision_config.image_size, config.scale_factor = 14, 90, 3
    torch.manual_seed(0)
    model, native = spec.model_class(config).eval(), padded_with(native, 14, 90)
    image = photo(60, 200)
    for options, tiles, box in ((DEFAULT, (6, 12), (0, 0, 200, 60)), (UNSPLIT, (6, 6), (0, 0, 200 * 84 / 90, 56))):
        inputs = batch_of(native, [[image]], **options)
        call = native_call(model, native, inputs)
        assert spec.tiles.grids_hw(call) == (tiles,)
        assert spec.tiles.boxes_xyxy(call, [(60, 200)]) == [pytest.approx(box)]
        assert spec.images.grids_hw(call) == ((6, 6),)
        assert spec.images.boxes_xyxy(call, [(60, 200)]) == [pytest.approx((0, 0, 200 * 84 / 90, 56))]
        expected = joined_by_hand(model, native, spec, image, options)
        for scene, wanted in zip((spec.tiles, spec.images), expected, strict=True):
            torch.testing.assert_close(scene_grids(model, native, spec, scene, inputs)[0], wanted, atol=1e-4, rtol=1e-4)


@both
@pytest.mark.parametrize("hw", [(240, 240), (120, 400), (330, 110)], ids=str)
def test_a_bright_spot_lights_up_the_patch_that_lies_on_it(name, hw):
    model, native, spec = tiny(name)
    plain = np.full((*hw, 3), 110, dtype=np.uint8)
    for x, y in ((6, 6), (hw[1] - 7, 6), (hw[1] // 3, hw[0] // 2), (hw[1] - 7, hw[0] - 7)):
        spotted = plain.copy()
        spotted[y - 5 : y + 6, x - 5 : x + 6] = 250
        inputs = batch_of(native, [[Image.fromarray(plain)], [Image.fromarray(spotted)]])
        call = native_call(model, native, inputs)
        for scene in (spec.tiles, spec.images):
            grids = scene_grids(model, native, spec, scene, inputs)
            change = (grids[1] - grids[0]).norm(dim=-1)
            row, column = divmod(int(change.argmax()), change.shape[1])
            x0, y0, x1, y1 = scene.boxes_xyxy(call, [hw, hw])[1]
            height, width = (y1 - y0) / change.shape[0], (x1 - x0) / change.shape[1]
            assert abs(x0 + (column + 0.5) * width - x) <= width
            assert abs(y0 + (row + 0.5) * height - y) <= height


@both
def test_projected_tokens_are_those_that_the_decoder_gets(name):
    model, native, spec = tiny(name)
    images = [photo(*hw, seed=seed) for seed, hw in enumerate(((90, 90), (60, 200), (210, 70)))]
    inputs = batch_of(native, [images[:2], images[2:]])
    (projected,) = outputs_of(model, inputs, spec.parts.projector)
    kept = []
    handle = model.model.text_model.register_forward_pre_hook(
        lambda module, args, kwargs: kept.append(kwargs["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    shown = kept[0][inputs["input_ids"] == model.config.image_token_id].view(-1, 4, kept[0].shape[-1])
    call = native_call(model, native, inputs)
    wholes, tiles = (scene.projected(call, [projected]) for scene in (spec.images, spec.tiles))
    last = [4, 4 + 3, 4 + 3 + 3]  # of each image's pictures: four tiles and a whole, two and one, two and one
    assert torch.equal(wholes.features, shown[last].flatten(0, 1))
    assert wholes.grids_hw == ((2, 2),) * 3
    assert tiles.grids_hw == ((4, 4), (2, 4), (4, 2))
    top_left, top_right = tiles[0][:2, :2], tiles[0][:2, 2:]
    assert torch.equal(top_left.flatten(0, 1), shown[0])
    assert torch.equal(top_right.flatten(0, 1), shown[1])
    assert torch.equal(tiles[1][:, 2:].flatten(0, 1), shown[6])
    assert torch.equal(tiles[2][2:].flatten(0, 1), shown[9])


@both
@pytest.mark.parametrize("scene", ["patches", "projected"])
@pytest.mark.parametrize("how", test_scene_views.HOW.values(), ids=test_scene_views.HOW)
def test_the_whole_and_its_tiles_are_read_in_any_kind_of_call(reader, name, scene, how):
    """Beams repeat the pictures of each sample, and its prompt with them."""
    model, processor = reader(scene, name, True, False)
    images = [photo(*hw, seed=seed) for seed, hw in enumerate(((90, 90), (60, 200), (210, 70)))]
    texts = [[user(images[0], "what is <region>?")], [user("what?")], [user(*images[1:], "<region> or <region>?")]]
    box = Region.from_box((8, 8, 60, 50))
    inputs = processor(texts, [[box], [], [box, box.on_image(1)]])
    spec, side = get_backbone(name), 1 if scene == "patches" else 4
    path = spec.parts.vision_tower if scene == "patches" else spec.parts.projector
    outputs = outputs_of(model.backbone, inputs_of_backbone(inputs), path)
    call = native_call(model.backbone, processor.native, inputs)
    for view, wanted in zip(how(model, inputs), (spec.tiles, spec.images), strict=True):
        expected = (wanted.grids if scene == "patches" else wanted.projected)(call, outputs)
        assert view.grids.grids_hw == expected.grids_hw
        assert expected.grids_hw[1] == ((8 // side, (16 if wanted is spec.tiles else 8) // side))
        torch.testing.assert_close(view.grids.features, expected.features, atol=1e-5, rtol=1e-5)


def inputs_of_backbone(inputs):
    """Without what only a RegionModel reads; placeholders are ids beyond the table."""
    native = {name: value for name, value in inputs.items() if name != "regions"}
    return native | {
        "input_ids": native["input_ids"].masked_fill(native["input_ids"] == inputs["regions"].placeholder_id, 0)
    }


# -- prompts ---------------------------------------------------------------------------------------------------


def tokenizer_without_places():
    """As that of Idefics3-8B-Llama3: places of tiles are written in several tokens."""
    whole = ("<|begin_of_text|>", "<|eot|>", "<fake_token_around_image>", "<image>", "<end_of_utterance>")
    template = get_backbone("idefics3").tiny(0)[1].chat_template
    return tiny_tokenizer(TINY_CORPUS, whole, template, eos_token="<end_of_utterance>", pad_token="<|eot|>")


def test_tiles_are_counted_where_their_places_are_several_tokens():
    model, native, spec = tiny("idefics3")
    inputs_of_tiny = batch_of(native, [[photo(90, 90), photo(60, 200)], [photo(210, 70)]])
    expected = spec.tiles.grids_hw(native_call(model, native, inputs_of_tiny))
    spelt = type(native)(native.image_processor, tokenizer_without_places(), image_seq_len=native.image_seq_len)
    spelt.chat_template = native.chat_template
    inputs = batch_of(spelt, [[photo(90, 90), photo(60, 200)], [photo(210, 70)]])
    assert inputs["input_ids"].shape[1] > inputs_of_tiny["input_ids"].shape[1] + 8
    assert spec.tiles.grids_hw(native_call(model, spelt, inputs)) == expected == ((16, 16), (8, 16), (16, 8))


@both
@pytest.mark.parametrize(
    "text",
    ["{0}{1}", "{0}\n{1}\n", "<fake_token_around_image>{0}<fake_token_around_image>\n{1}\n<row_1_col_1>\n\n"],
    ids=["side by side", "lines between", "tokens of pictures in the text"],
)
def test_tiles_are_counted_whatever_stands_around_images(name, text):
    model, native, spec = tiny(name)
    for side in ("left", "right"):
        inputs = native(
            text=["what?", text.format("<image>", "<image>")],
            images=[[], [photo(60, 200), photo(90, 90)]],
            padding=True,
            padding_side=side,
            return_tensors="pt",
        )
        assert spec.tiles.grids_hw(native_call(model, native, inputs)) == ((8, 16), (16, 16))


@both
def test_answers_are_learnt_as_they_are_generated(name):
    """A prompt ends with `Assistant:`; the space behind it is the answer's, and part of its first word."""
    model, native, _ = tiny(name)
    _, processor = attach(model, native, adapter="saot")
    asked, image = "which digit is red?", photo(60, 90)
    turns = [user(image, asked), assistant("red"), user(asked), assistant("a digit")]
    learnt = processor(turns, labels=True)
    text = native.apply_chat_template(turns, tokenize=False)
    alone = native(text=[text], images=[[image]], return_tensors="pt")["input_ids"]
    assert torch.equal(learnt["input_ids"], alone), "the tokenizer itself writes the conversation otherwise"
    labels = learnt["labels"][0]
    taught = processor.tokenizer.convert_ids_to_tokens(labels[labels != -100].tolist())
    assert taught == ["Ġred", "<end_of_utterance>", "Ġa", "Ġdigit", "<end_of_utterance>"]
    for turn, first in ((1, "Ġred"), (3, "Ġa")):
        prompt = processor(turns[:turn])["input_ids"][0]
        after = learnt["input_ids"][0, len(prompt)]
        assert torch.equal(prompt, learnt["input_ids"][0, : len(prompt)]), "what is learnt goes on after another prompt"
        assert processor.tokenizer.convert_ids_to_tokens([int(after)]) == [first]


@pytest.mark.parametrize("name", ["videollama3", "qwen2_5_vl"])
def test_answers_behind_a_line_break_are_as_they_were(name):
    model, native, _ = tiny(name)
    _, processor = attach(model, native, adapter="saot")
    learnt, prompt = (
        processor([user("which digit?"), assistant("red")], labels=True),
        processor([user("which digit?")]),
    )
    assert torch.equal(learnt["input_ids"][:, : prompt["input_ids"].shape[1]], prompt["input_ids"])
    assert learnt["labels"][0, prompt["input_ids"].shape[1]] == processor.tokenizer.convert_tokens_to_ids("red")


@both
def test_a_tokenizer_without_the_image_token_is_told(name):
    model, native, spec = tiny(name)
    inputs = batch_of(native, [[photo(60, 90)]])
    call = native_call(model, native, inputs)
    without = {key: value for key, value in call.token_ids.items() if key != "fake_image_token"}
    with pytest.raises(PixelReferError, match=r"does not have the token that its processor calls fake_image_token"):
        spec.images.grids_hw(type(call)(call.config, call.inputs, without))


@both
def test_a_full_table_gives_masks_a_token_that_its_makers_reserved(name, tmp_path):
    """Every row of SmolVLM's table of embeddings is a token's: there is none to spare for `<seg>`."""
    model, native, _ = tiny(name)
    rows = model.config.text_config.vocab_size
    assert len(native.tokenizer) == rows
    options = get_adapter("unipixel").tiny
    model, processor = attach(model, native, adapter="unipixel", adapter_config=options)
    reserved = native.tokenizer.convert_tokens_to_ids("<|reserved_special_token_0|>")
    assert processor.tokens.mask == model.tokens.mask == reserved < rows
    box = Region.from_box((5, 5, 40, 30))
    turns = [user(photo(60, 90), "where is it?"), assistant("it is here <seg>.")]
    labels = processor(turns, [box], labels=True)["labels"]
    assert (labels == reserved).sum() == 1
    learnt = labels[labels >= 0][None]
    assert processor.decode(learnt, {"input_ids": learnt[:, :0]}) == ["it is here <seg>."]
    with pytest.raises(
        PromptError, match=r"no room for 1 new tokens.* in reserve, such as '<\|reserved_special_token_1"
    ):
        processor.add_tokens(["<defect>"])
    with pytest.raises(PromptError, match=r"'<\|reserved_special_token_0\|>' stands for masks already"):
        processor.add_tokens(["<|reserved_special_token_0|>"])
    model.add_lora()
    model.save_pretrained(tmp_path / "model", processor, include_backbone=True)
    assert load(tmp_path / "model")[1].tokens == processor.tokens


# -- videos ----------------------------------------------------------------------------------------------------


def clip(num_frames, hw=(70, 130), seed=0):
    return np.stack([picture(*hw, seed=seed + index) for index in range(num_frames)])


def test_frames_of_videos_are_each_a_whole():
    """Videos of different lengths: the shorter is filled up with empty frames, which the tower is not given."""
    model, native, spec = tiny("smolvlm")
    _, processor = attach(model, native, adapter="saot")
    lengths = (3, 5, 2)
    parts = [{"type": "video", "video": clip(length, seed=10 * length), "fps": 2.0} for length in lengths]
    inputs = processor([[user(*parts[:2], "what moves?")], [user(parts[2], "what moves?")]])
    assert inputs["pixel_values"].shape[:2] == (3, 5)
    grids = scene_grids(model, native, spec, spec.videos, inputs)
    assert grids.grids_hw == spec.videos.grids_hw(native_call(model, native, inputs)) == ((8, 8),) * sum(lengths)
    frames = [
        video[index] for video, count in zip(inputs["pixel_values"], lengths, strict=True) for index in range(count)
    ]
    with torch.no_grad():
        expected = spec.crops.encode(model, frames)
    torch.testing.assert_close(grids.features, expected.features, atol=1e-4, rtol=1e-4)
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    assert "Frame from 00:01:<fake_token_around_image><global-img><image>" in text


def test_a_video_is_not_shown_beside_a_picture():
    model, native, _ = tiny("smolvlm")
    _, processor = attach(model, native, adapter="saot")
    video = {"type": "video", "video": clip(2), "fps": 2.0}
    with pytest.raises(PromptError, match=r"Backbone 'smolvlm' does not mix pictures and videos"):
        processor([user(video, photo(60, 90), "what moves?")])


def test_a_model_without_videos_says_so():
    model, native, _ = tiny("idefics3")
    _, processor = attach(model, native, adapter="saot")
    with pytest.raises(PromptError, match=r"Backbone 'idefics3' takes no videos"):
        processor([user({"type": "video", "video": clip(2), "fps": 2.0}, "what moves?")])


# -- folders ---------------------------------------------------------------------------------------------------

PICTURES = {
    "do_convert_rgb": True,
    "do_image_splitting": True,
    "do_normalize": True,
    "do_pad": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "max_image_size": {"longest_edge": TILE},
    "resample": 1,
    "rescale_factor": 0.00392156862745098,
    "size": {"longest_edge": 2 * TILE},
}
CLASSES = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}


def published_folder(name, folder):
    """A tiny model in the files that SmolVLM-256M-Instruct, or SmolVLM2-256M-Video-Instruct, has on the hub."""
    model, native, _ = tiny(name)
    folder.mkdir()
    native.tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink()
    kind, stop = CLASSES[name], native.tokenizer.eos_token_id
    named = {"processor_class": f"{kind}Processor", "image_processor_type": f"{kind}ImageProcessor"}
    frames = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": TILE}}
    sampled = {"video_sampling": frames} if name == "smolvlm" else {}
    files = {
        "config": {**model.config.to_dict(), "architectures": [type(model).__name__]},
        "generation_config": {"_from_model_config": True, "bos_token_id": 0, "eos_token_id": stop, "pad_token_id": 2},
        "preprocessor_config": {**PICTURES, **named, **sampled},
        "processor_config": {"image_seq_len": native.image_seq_len, "processor_class": f"{kind}Processor"},
        "chat_template": {"chat_template": native.chat_template},
    }
    for file, data in files.items():
        (folder / f"{file}.json").write_text(json.dumps(data, indent=2))
    save_file(dict(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    return folder, model


@both
def test_a_folder_as_it_is_published_loads(name, tmp_path):
    folder, made = published_folder(name, tmp_path / "SmolVLM-256M-Instruct")
    model, processor = load(folder, adapter="saot")
    assert type(processor.native).__name__ == f"{CLASSES[name]}Processor"
    for key, value in made.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[key], value), key
    inputs = processor([user(photo(60, 200), "what is <region>?")], [Region.from_box((5, 5, 40, 30))])
    assert model.generate(**inputs, max_new_tokens=2).shape == (1, inputs["input_ids"].shape[1] + 2)
    assert model.backbone.generation_config.eos_token_id == processor.tokenizer.convert_tokens_to_ids(
        "<end_of_utterance>"
    )
    if name == "smolvlm":
        asked = [user({"type": "video", "video": clip(3), "fps": 2.0}, "what does <region> do?")]
        inputs = processor(asked, [VideoRegion({1: Region.from_box((5, 5, 40, 30))})])
        assert inputs["pixel_values"].shape == (1, 3, 3, TILE, TILE)
        model.generate(**inputs, max_new_tokens=2)


@both
def test_describe_answers_with_a_folder_as_it_is_published(name, tmp_path):
    folder, _ = published_folder(name, tmp_path / "SmolVLM-256M-Instruct")
    photo(60, 200).save(tmp_path / "photo.png")
    command = ["describe", tmp_path / "photo.png", "--model", folder, "--box", "5,5,40,30", "--max-new-tokens", 2]
    result = CliRunner().invoke(main, [*map(str, command), "--adapter", "saot", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["answers"]
