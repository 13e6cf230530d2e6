"""Masks in conversations: what `<seg>` becomes, which pictures and targets a batch has, and what is refused."""

import pickle
import re

import numpy as np
import pytest
import sketch
import torch
from conftest import assistant, picture, user
from PIL import Image
from torch.nn.functional import interpolate

from pixelrefer_plugin import (
    FrameSampling,
    PromptError,
    Region,
    RegionError,
    RegionProcessor,
    VideoError,
    VideoRegion,
    get_backbone,
    load_video,
)
from pixelrefer_plugin.authoring import MaskTargets, RegionMask
from pixelrefer_plugin.masks.mask_batch import squeezed_mask
from pixelrefer_plugin.testing import make_pair

HEIGHT, WIDTH = 56, 84
IMAGE, SECOND = picture(HEIGHT, WIDTH), picture(30, 40, seed=1)
FRAMES = np.stack([picture(HEIGHT, WIDTH, seed=index) for index in range(20)])
BOX, OTHER, CLICK = Region.from_box((8, 8, 40, 30)), Region.from_box((50, 10, 80, 50)), Region.from_points([(20, 20)])
ABSENT, UNKNOWN = MaskTargets.ABSENT, MaskTargets.UNKNOWN


@pytest.fixture
def processor(monkeypatch):
    sketch.install(monkeypatch)
    return sketch.make_processor()


def film(**options):
    return {"type": "video", "video": FRAMES, "fps": 4.0, **options}


def clip(num_frames=4):
    """Frames 0, 6, 13 and 19 of the film."""
    video = load_video(FRAMES, fps=4.0, sampling=FrameSampling(num_frames=num_frames))
    return {"type": "video", "video": video}


def labelled(processor, inputs, row=0):
    """The text that a row teaches."""
    labels = inputs["labels"][row]
    return sketch.text_of(processor, labels[labels >= 0])


# -- the token ---------------------------------------------------------------------------------------------


def test_the_token_is_one_of_the_tokenizers_own(processor):
    (id,) = processor.tokenizer(sketch.TOKEN, add_special_tokens=False)["input_ids"]
    assert processor.tokens.mask == id
    assert id < processor._config.get_text_config().vocab_size
    for text in (f"it is{sketch.TOKEN}.", f"[1] {sketch.TOKEN}, [2] {sketch.TOKEN}"):
        ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        assert ids.count(id) == text.count(sketch.TOKEN)
        assert processor.tokenizer.decode(ids) == text


def test_an_adapter_without_masks_has_none():
    model, native = get_backbone("videollama3").tiny(0)
    processor = RegionProcessor(native, model.config, adapter="maskpool")
    assert processor.tokens.mask is None
    for message, error in [
        ([user(IMAGE, "segment it"), assistant("<seg>")], "Sample 0: adapter 'maskpool' gives no masks, but an answer"),
        ([user(IMAGE, "<seg>")], "Sample 0: the user's text holds <seg>, which stands for a mask in an assistant's"),
    ]:
        with pytest.raises(PromptError, match=error):
            processor(message, [BOX])
    with pytest.raises(PromptError, match="segment=True, but adapter 'maskpool' gives no masks. Take an adapter with"):
        processor([user(IMAGE, "segment it")], segment=True)


def test_an_answers_seg_is_learnt_as_the_heads_token(processor):
    conversation = [user(IMAGE, "segment both"), assistant("[1] <seg>, and [2]<seg>.")]
    inputs = processor(conversation, [BOX, OTHER], labels=True)
    end = processor.tokenizer.eos_token
    assert labelled(processor, inputs) == f"[1] {sketch.TOKEN}, and [2]{sketch.TOKEN}.{end}"
    assert int((inputs["labels"] == processor.tokens.mask).sum()) == 2
    assert "regions" not in inputs
    assert inputs["masks"].token_id == processor.tokens.mask
    assert inputs["masks"].adapter == "sketch"
    assert inputs["masks"].objects_per_sample == (2,)


def test_regions_are_given_in_the_order_of_all_markers(processor):
    conversation = [
        user(IMAGE, "segment <region>"),
        assistant("it is <seg>."),
        user("and <region>?"),
        assistant("<seg>, beside <region>"),
    ]
    click, box = CLICK, Region.from_box((60, 20, 70, 30))
    inputs = processor(conversation, [click, BOX, box, OTHER, CLICK], labels=True)
    assert sketch.read_as(inputs) == ("mask", "points", "box")
    expected = np.stack([squeezed_mask(each.to_mask((HEIGHT, WIDTH)), 16) for each in (BOX, OTHER)])
    assert np.array_equal(inputs["masks"].targets.masks, expected)
    assert labelled(processor, inputs).startswith(f"it is {sketch.TOKEN}.")
    assert "beside [1]" in labelled(processor, inputs)


def test_decoding_writes_the_marker(processor):
    question = processor([user(IMAGE, "segment it")], segment=True)
    answer = processor.tokenizer(f"[1] {sketch.TOKEN}.<|im_end|>", add_special_tokens=False, return_tensors="pt")
    generated = torch.cat([question["input_ids"], answer["input_ids"]], dim=1)
    assert processor.decode(generated, question) == ["[1] <seg>."]


def test_a_checkpoints_own_token_may_be_special(monkeypatch):
    sketch.install(monkeypatch)
    model, native = get_backbone("videollama3").tiny(0)
    native.tokenizer.add_tokens([sketch.TOKEN], special_tokens=True)
    processor = RegionProcessor(native, model.config, adapter="sketch")
    assert processor.tokens.mask == native.tokenizer.convert_tokens_to_ids(sketch.TOKEN)
    answer = processor.tokenizer(f"it is {sketch.TOKEN}<|im_end|>", add_special_tokens=False, return_tensors="pt")
    assert processor.decode(answer["input_ids"], {"input_ids": torch.zeros(1, 0)}) == ["it is <seg>"]


def test_it_survives_pickling_and_saving(processor, tmp_path):
    conversation = [user(IMAGE, "segment it"), assistant("<seg>")]
    expected = processor(conversation, [BOX], labels=True)
    processor.save_pretrained(tmp_path)
    loaded = RegionProcessor.from_pretrained(tmp_path, adapter="sketch")
    for again in (loaded, pickle.loads(pickle.dumps(processor))):
        assert again.tokens.mask == processor.tokens.mask
        inputs = again(conversation, [BOX], labels=True)
        assert torch.equal(inputs["input_ids"], expected["input_ids"])
        assert torch.equal(inputs["masks"].clips.pixels, expected["masks"].clips.pixels)
        assert inputs["masks"].id_texts == expected["masks"].id_texts


def test_the_tokens_that_write_a_number_are_known(processor):
    texts = processor([user(IMAGE, "segment it")], segment=True)["masks"].id_texts
    assert set(texts.values()) >= set("0123456789[] ") | {" ["}
    for id, text in texts.items():
        assert re.fullmatch(r"[0-9\[\] ]+", text)
        assert processor.tokenizer.decode([id]) == text
    ids = processor.tokenizer("it is [12] ", add_special_tokens=False)["input_ids"]
    assert "".join(texts.get(id, "") for id in ids) == " [12] "


# -- pictures ----------------------------------------------------------------------------------------------


def test_pictures_are_squeezed_with_antialiasing(processor):
    masks = processor([user(IMAGE, "segment it")], segment=True)["masks"]
    expected = torch.from_numpy(IMAGE).permute(2, 0, 1)[None].float()
    expected = interpolate(expected, (16, 16), mode="bilinear", antialias=True)
    assert masks.clips.pixels.dtype == torch.uint8
    assert (masks.clips.pixels.float() - expected).abs().max() <= 1
    assert masks.clips.lengths == (1,)
    assert masks.images_hw == ((HEIGHT, WIDTH),)
    assert masks.frame_indices == (None,)
    assert masks.clip_of_sample == (0,)
    assert masks.objects_per_sample == (0,)
    assert masks.targets is None


def test_a_video_is_one_clip_of_its_sampled_frames(processor):
    masks = processor([user(clip(), "segment it")], segment=True)["masks"]
    assert masks.clips.lengths == (4,)
    assert masks.clips.pixels.shape == (4, 3, 16, 16)
    assert masks.frame_indices == ((0, 6, 13, 19),)
    alone = processor([user(FRAMES[13], "segment it")], segment=True)["masks"]
    assert torch.equal(masks.clips.pixels[2], alone.clips.pixels[0])


def test_rows_that_share_a_picture_share_its_clip(processor, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(IMAGE).save(path)
    video = clip()
    rows = [[user(IMAGE, "a")], [user(video, "b")], [user(IMAGE, "c")], [user({"type": "image", "image": path}, "d")],
            [user(video, "e")], [user({"type": "image", "image": str(path)}, "f")]]  # fmt: skip
    masks = processor(rows, segment=True)["masks"]
    assert masks.clip_of_sample == (0, 1, 0, 2, 1, 2)
    assert masks.clips.lengths == (1, 4, 1)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (
            ["segment it"],
            "Sample 0: masks are made on the conversation's only image or video, but it has 0 images and 0",
        ),
        ([IMAGE, SECOND, "segment it"], "but it has 2 images and 0 videos"),
        ([IMAGE, clip(), "segment it"], "but it has 1 images and 1 videos"),
    ],
    ids=["none", "two", "both"],
)
def test_masks_are_asked_for_on_one_medium(processor, parts, message):
    with pytest.raises(PromptError, match=message):
        processor([user(*parts)], segment=True)


def test_prompts_ask_and_answers_teach(processor):
    conversation = [user(IMAGE, "segment it"), assistant("<seg>")]
    with pytest.raises(
        PromptError, match="segment=True asks for masks of a prompt, labels=True prepares what to learn"
    ):
        processor(conversation, [BOX], labels=True, segment=True)
    assert "masks" not in processor(conversation[:1])
    assert "masks" not in processor([user(IMAGE, "what is it?"), assistant("a cat")], labels=True)


def test_a_prompt_may_hold_masks_in_its_earlier_answers(processor):
    turns = [user(IMAGE, "segment it"), assistant("it is <seg>."), user("and what is [1]?")]
    inputs = processor(turns, [BOX], segment=True)
    assert inputs["masks"].targets is None
    assert inputs["masks"].objects_per_sample == (0,)
    assert int((inputs["input_ids"] == processor.tokens.mask).sum()) == 1
    assert "masks" not in processor(turns, [BOX])
    with pytest.raises(
        PromptError, match="its texts have 0 <region> and 1 <seg> but 0 regions were given. Each <region"
    ):
        processor(turns, segment=True)


# -- targets -----------------------------------------------------------------------------------------------


def naive_squeezed(dense, side):
    """Coverage of each cell, pixel by pixel, on a grid that divides both."""
    height, width = dense.shape
    fine = dense.repeat(side, axis=0).repeat(side, axis=1)
    coverage = fine.reshape(side, height, side, width).mean(axis=(1, 3))
    return coverage >= 0.5 - 1e-9 if (coverage >= 0.5 - 1e-9).any() else coverage == coverage.max()


@pytest.mark.parametrize("side", [4, 7, 16])
@pytest.mark.parametrize("seed", range(5))
def test_a_cell_half_of_which_is_covered_is_inside(seed, side):
    random = np.random.default_rng(seed)
    hw = random.integers(3, 23, 2)
    corner, extent = random.integers(0, hw), random.integers(1, hw + 1)
    dense = np.zeros(hw, dtype=bool)
    dense[corner[0] : corner[0] + extent[0], corner[1] : corner[1] + extent[1]] = True
    dense &= random.random(hw) < 0.8
    dense[corner[0], corner[1]] = True
    assert np.array_equal(squeezed_mask(RegionMask.from_dense(dense), side), naive_squeezed(dense, side))


def test_a_tiny_object_keeps_the_cells_that_it_covers_most():
    dense = np.zeros((2160, 3840), dtype=bool)
    dense[1000, 2000] = True
    squeezed = squeezed_mask(RegionMask.from_dense(dense), 64)
    assert np.argwhere(squeezed).tolist() == [[1000 * 64 // 2160, 2000 * 64 // 3840]]


def test_targets_are_masks_on_their_pictures_object_by_object(processor):
    film_answer = "<seg> and <seg>"
    regions = [VideoRegion({0: BOX, 13: OTHER}, absent=[19]), VideoRegion({6: OTHER}, absent=[0, 13])]
    rows = [
        [user(IMAGE, "segment it"), assistant("<seg>")],
        [user(IMAGE, "what is it?"), assistant("a cat")],
        [user(clip(), "segment both"), assistant(film_answer)],
    ]
    masks = processor(rows, [[OTHER], [], regions], labels=True)["masks"]
    assert masks.clip_of_sample == (0, None, 1)
    assert masks.objects_per_sample == (1, 0, 2)
    assert masks.targets.row_of_pair.tolist() == [0, 1, UNKNOWN, 2, ABSENT, ABSENT, 3, ABSENT, UNKNOWN]
    expected = [squeezed_mask(each.to_mask((HEIGHT, WIDTH)), 16) for each in (OTHER, BOX, OTHER, OTHER)]
    assert np.array_equal(masks.targets.masks, np.stack(expected))


def test_targets_may_lie_on_one_picture_of_several(processor):
    conversation = [user(IMAGE, SECOND, "segment it"), assistant("<seg>")]
    masks = processor(conversation, [Region.from_box((1, 1, 30, 20), image_index=1)], labels=True)["masks"]
    assert masks.images_hw == ((30, 40),)
    assert masks.media_index == (1,)


def test_tensors_move_together(processor):
    masks = processor([user(IMAGE, "segment it"), assistant("<seg>")], [BOX], labels=True)["masks"]
    moved = masks.to("meta")
    tensors = (moved.clips.pixels, moved.targets.masks, moved.targets.row_of_pair)
    assert all(each.device.type == "meta" for each in tensors)
    assert moved.clip_of_sample == masks.clip_of_sample
    asked = processor([user(IMAGE, "segment it")], segment=True)["masks"].to("meta")
    assert asked.clips.pixels.device.type == "meta"


@pytest.mark.parametrize(
    ("conversation", "regions", "error", "message"),
    [
        ([user(IMAGE, "where is <seg>?")], [BOX], PromptError, "Sample 0: the user's text holds <seg>"),
        ([{"role": "system", "content": "say <seg>"}, user(IMAGE, "hi")], [], PromptError, "the system's text holds"),
        ([user(IMAGE, f"{sketch.TOKEN}?")], [], PromptError,
         r"special token '<\|mask\|>'. Write <region> for a region, <seg> in an answer for a mask,"),
        ([user(IMAGE, "it"), assistant(sketch.TOKEN)], [], PromptError, r"the special token '<\|mask\|>'"),
        ([user(IMAGE, "it"), assistant("<seg>")], [], PromptError, "0 <region> and 1 <seg> but 0 regions were given"),
        ([user(IMAGE, "it"), assistant("<seg>")], [BOX.on_image(1)], PromptError, "region 0: it lies on image 1, but"),
        ([user(IMAGE, "it"), assistant("<seg>")], [{0: BOX}], PromptError, "region 0: it lies on video 0, but"),
        ([user(IMAGE, "it"), assistant("<seg>")], [Region.from_box((200, 1, 220, 9))], RegionError,
         "Sample 0, region 0: The box .* outside its image"),
        ([user(IMAGE, "it"), assistant("<seg>" * 4)], [BOX] * 4, PromptError,
         "its answers have 4 <seg>, more objects than adapter 'sketch' takes of one sample, 3. Split the sample, or"),
        ([user(IMAGE, SECOND, "it"), assistant("<seg><seg>")], [BOX, Region.from_box((1, 1, 9, 9), image_index=1)],
         PromptError, "its <seg> lie on image 0 and image 1; all of one conversation must lie on one"),
        ([user(clip(), "it"), assistant("<seg>")], [VideoRegion({5: BOX}, absent=[7])], PromptError,
         r"Sample 0, region 0: it names the frames \[5, 7\], none of which is among the sampled ones, \[0, 6, 13, 1"),
        ([user(clip(), "it"), assistant("<seg>")], [{0: Region.from_box((0, 90, 5, 95))}], RegionError,
         "Sample 0, region 0, frame 0: The box"),
        ([user(film(), "it"), assistant("<seg>")], [{3: BOX, 20: BOX}], VideoError, "region 0: .*there is no frame 20"),
        ([user(clip(), "it"), assistant("<seg>")], [VideoRegion({0: BOX}, absent=[30])], VideoError, "no frame 30"),
    ],
    ids=[
        "user", "system", "token in a question", "token in an answer", "fewer", "no image", "no video", "outside",
        "too many", "two images", "none sampled", "outside a frame", "past the end", "absent past the end",
    ],
)  # fmt: skip
def test_refused_masks(processor, conversation, regions, error, message):
    if conversation[-1]["role"] == "user":
        conversation = [*conversation, assistant("yes")]
    with pytest.raises(error, match=message):
        processor(conversation, regions, labels=True)


# -- which frames targets bring in -------------------------------------------------------------------------


def frames_of(processor, regions, question="segment it", answer="<seg>", **options):
    sampling = FrameSampling(**(options or {"num_frames": 4}))
    conversation = [user(film(), question), assistant(answer)]
    return processor(conversation, regions, labels=True, sampling=sampling)["masks"].frame_indices[0]


def test_a_few_annotated_frames_are_all_sampled(processor):
    assert frames_of(processor, [{7: BOX, 12: BOX}]) == (0, 7, 12, 19)
    assert frames_of(processor, [VideoRegion({7: BOX}, absent=[2, 3])]) == (2, 3, 7, 19)


def test_many_annotated_frames_are_thinned_to_those_that_there_is_room_for(processor):
    everywhere = dict.fromkeys(range(20), BOX)
    assert frames_of(processor, [everywhere]) == (0, 6, 13, 19)
    assert frames_of(processor, [dict.fromkeys(range(0, 20, 2), BOX)]) == (0, 6, 12, 18)
    assert frames_of(processor, [everywhere, everywhere], answer="<seg><seg>") == (0, 6, 13, 19)
    assert len(frames_of(processor, [everywhere], fps=1.0)) == 5


def test_each_target_is_seen_on_one_frame_at_least(processor):
    everywhere, once = dict.fromkeys(range(20), BOX), VideoRegion({8: BOX}, absent=[0, 19])
    frames = frames_of(processor, [everywhere, once], answer="<seg><seg>")
    assert {0, 6, 8, 13, 19} == set(frames)


def test_frames_of_questions_come_first(processor):
    everywhere = dict.fromkeys(range(20), BOX)
    frames = frames_of(processor, [{3: CLICK, 5: CLICK}, everywhere], question="segment <region>")
    assert frames == (0, 3, 5, 19)
    assert frames_of(processor, [dict.fromkeys(range(5), CLICK), everywhere], question="<region>") == (0, 1, 2, 3, 4)


def test_an_object_only_adapter_may_give_masks(monkeypatch):
    sketch.install(monkeypatch)
    processor = sketch.make_processor("sketch-alone")
    inputs = processor([user(IMAGE, "segment what is like <region>"), assistant("<seg>")], [BOX, OTHER], labels=True)
    assert "pixel_values" not in inputs
    assert inputs["masks"].clips.lengths == (1,)
    assert "pixel_values" in processor([user(IMAGE, "segment it"), assistant("<seg>")], [OTHER], labels=True)


def test_no_mask_anywhere_is_what_it_was():
    pair = make_pair("maskpool", "videollama3")
    inputs = pair.processor(pair.conversations, pair.regions)
    assert "masks" not in inputs
    pair.model.detach()
