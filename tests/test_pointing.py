"""Adapters that point at regions in words and pictures: what the host makes of a conversation, and what it refuses."""

import json
import logging
import pickle
import sys
from dataclasses import dataclass, replace
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import assistant, install_plugin, picture, user
from PIL import Image

from pixelrefer_plugin import (
    ObjectMemory,
    PixelReferError,
    PluginError,
    PromptError,
    Region,
    RegionDataset,
    RegionError,
    RegionProcessor,
    VideoRegion,
    cli,
)
from pixelrefer_plugin.authoring import AdapterModule, AdapterSpec, Planner, Pointer, Pointing, hookimpl
from pixelrefer_plugin.contracts.samples import RegionSample
from pixelrefer_plugin.conversation.expansion import IGNORE_INDEX
from pixelrefer_plugin.data.preview import draw_sheet
from pixelrefer_plugin.errors import PluginCodeError, SampleError
from pixelrefer_plugin.media.video import load_video
from pixelrefer_plugin.plugins import get_adapter, get_backbone
from pixelrefer_plugin.testing import POINTER_CHECKS
from pixelrefer_plugin.training.collator import RegionCollator

PHOTO, OTHER_PHOTO = picture(56, 84), picture(84, 56, seed=1)
FRAMES = np.stack([picture(56, 84, seed=index) for index in range(8)])
CLIP = {"type": "video", "video": FRAMES, "fps": 2.0}
BOX, OTHER = Region.from_box((8, 8, 40, 30)), Region.from_box((50, 10, 80, 50))
TILE = Image.new("RGB", (28, 28), "red")


# -- a pointer as strangers may write one ------------------------------------------------------------------


@dataclass(frozen=True)
class FingerConfig:
    """What is returned, where it is not what the pointer says of itself."""

    faulty: str = ""


class Finger(Pointer[FingerConfig]):
    """Says which number a region has and on how many pictures it lies; keeps what it was given."""

    seen: ClassVar[list] = []

    def point(self, on, regions):
        self.seen.append((on, tuple(regions)))
        if self.config.faulty:
            return FAULTY[self.config.faulty](on, regions)
        return Pointing(tuple(f"object {each.number} on {len(each.places)}" for each in regions))


def words(regions):
    return tuple("it" for _ in regions)


def fails(on, regions):
    raise KeyError("finger")


FAULTY = {
    "nothing": lambda on, regions: None,
    "too few words": lambda on, regions: Pointing(("it",) * (len(regions) - 1)),
    "a marker": lambda on, regions: Pointing(("the <region>",) * len(regions)),
    "no text": lambda on, regions: Pointing((7,) * len(regions)),
    "a picture's token": lambda on, regions: Pointing(words(regions), beside=("<|image_pad|>",)),
    "a path": lambda on, regions: Pointing(words(regions), beside=(b"tile.png",)),
    "an array": lambda on, regions: Pointing(words(regions), media=np.zeros((9, 9, 3), np.uint8)),
    "a video for a picture": lambda on, regions: Pointing(words(regions), media=load_video(FRAMES, fps=2.0)),
    "fewer frames": lambda on, regions: Pointing(words(regions), media=load_video(FRAMES[:2], fps=2.0)),
    "an error": fails,
    # and what is allowed
    "shown": lambda on, regions: Pointing(
        words(regions), media=None if on.is_video else TILE, beside=(f"beside {on.number}: ", TILE, " and ", TILE)
    ),
    "noted": lambda on, regions: Pointing(words(regions), notes=("a mark was made larger", "another note")),
}


class _Planner(Planner):
    def plan(self, mask, geometry):
        raise NotImplementedError


@pytest.fixture
def finger(monkeypatch):
    """A processor of the tiny Qwen2.5-VL with the adapter `finger`, by its `faulty` option."""
    module = ModuleType("a_finger")
    module.PLUGIN_API = 1
    module.register_adapters = hookimpl(
        lambda register: register(AdapterSpec(name="finger", config=FingerConfig, pointer=Finger))
    )
    module.register_adapters.__name__ = "register_adapters"
    monkeypatch.setitem(sys.modules, "a_finger", module)
    monkeypatch.setattr(Finger, "seen", [])
    install_plugin(monkeypatch, "finger", "a_finger")

    def make(faulty="", backbone="qwen2_5_vl"):
        model, native = get_backbone(backbone).tiny(0)
        return RegionProcessor(native, model.config, adapter="finger", adapter_config={"faulty": faulty})

    return make


def told(inputs, processor, row=0):
    """The messages of a row as (role, text), each picture as one sign."""
    text = processor.tokenizer.decode(inputs["input_ids"][row])
    for token, sign in (
        ("<|image_pad|>", "*"),
        ("<|video_pad|>", "*"),
        ("<|vision_start|>", "{"),
        ("<|vision_end|>", "}"),
    ):
        text = text.replace(token, sign)
    turns = [turn.partition("\n")[::2] for turn in text.split("<|im_start|>")[1:]]
    return [(role, shortened(said.partition("<|im_end|>")[0])) for role, said in turns]


def shortened(text):
    while "**" in text:
        text = text.replace("**", "*")
    return text


# -- what stands in the texts ------------------------------------------------------------------------------


def test_each_region_becomes_its_words_and_nothing_else_is_left(finger):
    processor = finger()
    inputs = processor([user(PHOTO, "is <region> left of <region>?")], [BOX, OTHER])
    assert told(inputs, processor)[-2:] == [
        ("user", "{*}is object 1 on 1 left of object 2 on 1?"),
        ("assistant", ""),
    ]
    assert "regions" not in inputs
    assert "masks" not in inputs
    assert not (inputs["input_ids"] == processor.tokens.placeholder).any()
    assert set(inputs) == set(processor([user(PHOTO, "what is it?")]))


def test_numbers_are_those_that_are_given_else_the_next_free_ones(finger):
    processor = finger()
    question = "[2] <region>, <region>, <region>, [9] <region>, <region>"
    regions = [Region.from_box((x, 8, x + 9, 30)) for x in (0, 10, 20, 30, 40)]
    text = told(processor([user(PHOTO, question)], regions), processor)[-2][1]
    assert text == "{*}[2] object 2 on 1, object 1 on 1, object 3 on 1, [9] object 9 on 1, object 4 on 1"


def test_equal_regions_are_one_object(finger):
    processor = finger()
    again = Region.from_box((8.0, 8, 40, 30))
    text = told(processor([user(PHOTO, "<region>, <region>, [4] <region>")], [BOX, OTHER, again]), processor)[-2][1]
    assert text == "{*}object 1 on 1, object 2 on 1, [4] object 1 on 1"
    ((_, regions),) = Finger.seen
    assert [each.number for each in regions] == [1, 2]
    assert [each.places[0].region for each in regions] == [BOX, OTHER]
    assert regions[0].places[0].mask.box_xyxy == (8, 8, 40, 30)


def test_a_later_turn_may_point_again_and_at_others(finger):
    processor = finger()
    conversation = [
        user(PHOTO, "what is <region>?"),
        assistant("[1] is red"),
        user("is <region> or <region> larger?"),
    ]
    assert told(processor(conversation, [BOX, OTHER, BOX]), processor)[-4:] == [
        ("user", "{*}what is object 1 on 1?"),
        ("assistant", "[1] is red"),
        ("user", "is object 2 on 1 or object 1 on 1 larger?"),
        ("assistant", ""),
    ]


def test_several_pictures_and_videos_are_each_pointed_at_once(finger):
    processor = finger()
    parts = (PHOTO, CLIP, OTHER_PHOTO, CLIP)
    regions = [
        replace(BOX, image_index=1),
        VideoRegion({0: BOX, 4: OTHER}, video_index=1),
        OTHER,
        VideoRegion({2: BOX}, video_index=1),
    ]
    text = told(processor([user(*parts, "<region>, <region>, <region>, <region>")], regions), processor)[-2][1]
    assert text.endswith("}object 1 on 1, object 2 on 2, object 3 on 1, object 4 on 1")
    assert [(on.is_video, on.number, on.has_others, len(own)) for on, own in Finger.seen] == [
        (False, 1, True, 1),
        (False, 2, True, 1),
        (True, 2, True, 2),
    ]
    (_, (moving, _)) = Finger.seen[2]
    assert [(each.position, each.time_s) for each in moving.places] == [(0, 0.0), (4, 2.0)]


def test_pictures_beside_are_shown_behind_and_counted_on(finger):
    processor = finger("shown")
    inputs = processor([user(PHOTO, OTHER_PHOTO, "is <region> like <region>?")], [BOX, replace(BOX, image_index=1)])
    text = told(inputs, processor)[-2][1]
    assert text == "{*}beside 1: {*} and {*}{*}beside 4: {*} and {*}is it like it?"
    assert inputs["image_grid_thw"].tolist() == [[1, 2, 2]] * 6


def test_a_picture_without_regions_is_shown_as_it_is(finger):
    processor = finger("shown")
    inputs = processor([user(PHOTO, OTHER_PHOTO, "what is <region>?")], [replace(BOX, image_index=1)])
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 6], *[[1, 2, 2]] * 3]


def test_pictures_beside_a_video_make_both_media(finger):
    processor = finger("shown")
    inputs = processor([user(CLIP, "what is <region>?")], [VideoRegion({0: BOX})])
    assert told(inputs, processor)[-2][1] == "{*}beside 1: {*} and {*}what is it?"
    assert len(inputs["video_grid_thw"]) == 1
    assert len(inputs["image_grid_thw"]) == 2


def test_options_of_a_picture_hold_for_those_beside_it(finger):
    processor = finger("shown")
    asked = {
        "role": "user",
        "content": [{"type": "image", "image": PHOTO, "max_pixels": 784}, {"type": "text", "text": "<region>"}],
    }
    assert processor([asked], [BOX])["image_grid_thw"].tolist() == [[1, 2, 2]] * 3
    assert [part.get("max_pixels") for part in processor.pointed([asked], [BOX])[0]["content"][::2]] == [784] * 3


# -- a memory ----------------------------------------------------------------------------------------------


@pytest.fixture
def memory():
    made = ObjectMemory(Image.fromarray(PHOTO))
    made.add(OTHER, id=5)
    made.add(BOX, id=2)
    return made


def test_a_memorys_objects_are_listed_behind_their_picture(finger, memory):
    processor = finger()
    text = told(processor([user(PHOTO, "what is [5]?")], memory=memory), processor)[-2][1]
    assert text == "{*}The objects are:\n[5]: object 5 on 1\n[2]: object 2 on 1\nwhat is [5]?"


def test_two_regions_cannot_have_one_number(finger, memory):
    taken = "two objects cannot have one id"
    with pytest.raises(PromptError, match=f"region 1: the id 1 is taken: {taken}"):
        finger()([user(PHOTO, "[1] <region> and [1] <region>")], [BOX, OTHER])
    with pytest.raises(PromptError, match=taken):
        finger()([user(PHOTO, "[1] <region>"), assistant("a cup"), user("[1] <region>")], [BOX, OTHER])
    with pytest.raises(PromptError, match=f"the id 5 is taken: {taken}"):
        finger()([user(PHOTO, "[5] <region>")], [Region.from_box((1, 1, 9, 9))], memory=memory)
    with pytest.raises(PromptError, match="ids count from 1, got 0"):
        finger()([user(PHOTO, "[0] <region>")], [BOX])


def test_a_region_that_the_memory_holds_has_its_number(finger, memory):
    processor = finger()
    question = "is [5] like <region> or <region>?"
    text = told(processor([user(PHOTO, question)], [BOX, Region.from_box((0, 0, 9, 9))], memory=memory), processor)[-2][
        1
    ]
    assert text.endswith("\nis [5] like object 2 on 1 or object 1 on 1?")


def test_an_object_that_no_memory_holds_is_refused(finger, memory):
    with pytest.raises(PromptError, match=r"calls object \[3\], which the memory does not hold. It holds \[5\], \[2\]"):
        finger()([user(PHOTO, "what is [3]?")], memory=memory)


# -- learning ----------------------------------------------------------------------------------------------


def supervised(inputs, processor, row=0):
    kept = inputs["labels"][row]
    return processor.tokenizer.decode(kept[kept != IGNORE_INDEX])


def test_answers_are_learnt_as_they_are_and_regions_in_them_are_words(finger):
    processor = finger()
    conversation = [user(PHOTO, "is <region> red?"), assistant("no, <region> is"), user("sure?"), assistant("yes")]
    inputs = processor(conversation, [BOX, OTHER], labels=True)
    end = processor.tokenizer.eos_token
    assert supervised(inputs, processor) == f"no, object 2 on 1 is{end}yes{end}"
    words_of_question = processor.tokenizer.decode(inputs["input_ids"][0][inputs["labels"][0] == IGNORE_INDEX])
    assert "is object 1 on 1 red?" in words_of_question


def test_a_collator_needs_no_dummy_row_and_checks_sizes(finger):
    sample = RegionSample(
        id="x", messages=(user(PHOTO, "what is <region>?"), assistant("red")), regions=(BOX,), media_hw=((56, 84),)
    )
    plain = replace(sample, id="y", messages=(user("hello"), assistant("hi")), regions=(), media_hw=())
    collate = RegionCollator(finger())
    assert collate([sample, plain])["input_ids"].shape[0] == 2
    assert collate([plain])["input_ids"].shape[0] == 1
    assert collate.estimated_tokens(sample) > collate.estimated_tokens(plain)
    with pytest.raises(SampleError, match="image 0 is 84 px wide and 56 high, its record says 56 and 84"):
        collate([replace(sample, media_hw=((84, 56),))])
    skipping = RegionCollator(finger(), on_bad_sample="skip")
    broken = replace(sample, regions=(Region.from_box((200, 200, 220, 230)),))
    batch = skipping([broken])
    assert batch["sample_names"] == ()
    assert len(batch["skipped"]) == 1
    assert (batch["labels"] == IGNORE_INDEX).all()


def test_masks_in_answers_are_refused(finger):
    with pytest.raises(PromptError, match="adapter 'finger' gives no masks"):
        finger()([user(PHOTO, "where is it?"), assistant("[1] <seg>")], [BOX], labels=True)
    with pytest.raises(PromptError, match="segment=True, but adapter 'finger' gives no masks"):
        finger()([user(PHOTO, "where is it?")], segment=True)


# -- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("regions", "error", "message"),
    [
        ([BOX, Region.from_box((90, 8, 99, 30))], RegionError, "Sample 1, region 1: The box .* outside"),
        ([BOX, replace(BOX, image_index=1)], PromptError, "Sample 1, region 1: it lies on image 1"),
        ([BOX], PromptError, "Sample 1: "),
        ([BOX, "a box"], PromptError, "Sample 1, region 1: expected a Region"),
    ],
)
def test_regions_that_do_not_fit_are_named(finger, regions, error, message):
    asked = [user(PHOTO, "is <region> left of <region>?")]
    with pytest.raises(error, match=message):
        finger()([asked, asked], [[BOX, OTHER], regions])


def test_a_region_outside_a_frame_is_named(finger):
    with pytest.raises(RegionError, match="Sample 0, region 0, frame 4: The box"):
        finger()([user(CLIP, "<region>")], [VideoRegion({0: BOX, 4: Region.from_box((90, 8, 99, 30))})])


@pytest.mark.parametrize("token", ["<|image_pad|>", "<|region_pad|>"])
def test_special_tokens_in_a_text_are_still_refused(finger, token):
    with pytest.raises(PromptError, match="Sample 0: "):
        finger()([user(PHOTO, f"what is <region>{token}?")], [BOX])


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        ("nothing", "must return a Pointing from Pointer.point, got None"),
        ("too few words", "must return words for each of 2 regions from Pointer.point, got 1"),
        ("a marker", "must return text without markers and tokens of pictures from Pointer.point, got 'the <region>'"),
        ("no text", "must return text without markers .* got 7"),
        ("a picture's token", r"must return text without markers .* got '<\|image_pad\|>'"),
        ("a path", "may show texts, pictures and videos beside a picture, got b'tile.png'"),
        ("an array", "must show a picture in place of one, got"),
        ("a video for a picture", r"must show a picture in place of one, got Video\("),
    ],
)
def test_a_pointer_that_says_what_it_must_not_is_named(finger, faulty, message):
    with pytest.raises(PluginError, match=f"Adapter 'finger' {message}"):
        finger(faulty)([user(PHOTO, "is <region> left of <region>?")], [BOX, OTHER])


@pytest.mark.parametrize(("faulty", "got"), [("fewer frames", "2"), ("a picture", "")])
def test_a_video_is_replaced_by_one_of_as_many_frames(finger, monkeypatch, faulty, got):
    monkeypatch.setitem(FAULTY, "a picture", lambda on, regions: Pointing(words(regions), media=TILE))
    message = "must show a video of 8 frames in place of one" if got else "must show a video in place of one"
    with pytest.raises(PluginError, match=f"Adapter 'finger' {message}.*{got}"):
        finger(faulty)([user(CLIP, "<region>")], [VideoRegion({0: BOX})])


def test_a_pointers_own_error_is_told_with_its_place(finger):
    with pytest.raises(PluginCodeError, match="finger") as caught:
        finger("an error")([user(PHOTO, "<region>")], [BOX])
    assert (caught.value.plugin, caught.value.step) == ("adapter 'finger'", "point")


def test_notes_are_logged_once_for_a_processor(finger, caplog):
    processor = finger("noted")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            processor([user(PHOTO, "<region>")], [BOX])
    assert sorted(record.getMessage() for record in caplog.records) == ["a mark was made larger", "another note"]


# -- processors and specs ----------------------------------------------------------------------------------


def test_a_pickled_processor_points_alike(finger):
    processor = finger()
    copied = pickle.loads(pickle.dumps(processor))
    asked = [user(PHOTO, CLIP, "<region>, <region>")], [BOX, VideoRegion({0: BOX})]
    one, other = processor(*asked), copied(*asked)
    assert set(one) == set(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_there_is_no_plan_of_object_tokens(finger):
    processor = finger()
    assert not processor.makes_object_tokens
    with pytest.raises(PromptError, match="Adapter 'finger' makes no object tokens"):
        processor.plan(BOX.to_mask((56, 84)))


@pytest.mark.parametrize("check", POINTER_CHECKS, ids=lambda check: check.__name__)
def test_it_conforms(finger, check):
    finger()
    check(get_adapter("finger"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pointer": 7}, "pointer"),
        ({"pointer": Finger, "planner": _Planner}, "planner"),
        ({"pointer": Finger, "module": AdapterModule}, "module"),
        ({"pointer": Finger, "framework": "object-only"}, "framework"),
        ({"pointer": Finger, "scene": "cells"}, "scene"),
        ({"pointer": Finger, "drawn": ("box",)}, "drawn"),
        ({}, "planner"),
    ],
)
def test_a_spec_has_a_pointer_or_object_tokens(fields, message):
    with pytest.raises(PixelReferError, match=message):
        AdapterSpec(name="finger", config=FingerConfig, **fields)


# -- what a model is shown, for people ---------------------------------------------------------------------


def test_a_conversation_can_be_had_as_it_is_shown(finger):
    processor = finger("shown")
    conversation = [user(PHOTO, "is <region> red?"), assistant("no"), user(CLIP, "and <region>?")]
    made = processor.pointed(conversation, [BOX, VideoRegion({0: BOX})])
    assert [(each["role"], [part["type"] for part in each["content"]]) for each in made] == [
        ("user", ["image", "text", "image", "text", "image", "text"]),
        ("assistant", ["text"]),
        ("user", ["video", "text", "image", "text", "image", "text"]),
    ]
    assert made[0]["content"][0]["image"].size == TILE.size
    assert made[0]["content"][-1]["text"] == "is it red?"
    assert made[1]["content"] == [{"type": "text", "text": "no"}]
    assert len(made[2]["content"][0]["video"]) == len(FRAMES)
    one, again = processor(conversation, [BOX, VideoRegion({0: BOX})]), processor(made)
    assert all(torch.equal(one[name], again[name]) for name in one)


def test_object_tokens_cannot_be_shown(pair):
    with pytest.raises(PromptError, match="Adapter '.*' makes object tokens, which cannot be shown"):
        pair.processor.pointed([user(PHOTO, "what is <region>?")], [BOX])


def test_preview_draws_what_a_model_is_shown(tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    messages = [{"role": "user", "content": "what is <region>?"}, {"role": "assistant", "content": "red"}]
    record = {"id": "a", "image": "photo.png", "regions": [{"box": [8, 8, 40, 30]}], "messages": messages}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")

    def preview(*options):
        out = tmp_path / f"{len(options)}.png"
        asked = ["preview", str(tmp_path / "a.jsonl"), "--out", str(out), *options]
        return CliRunner().invoke(cli.main, asked), out

    model = ("--model", "builtin:tiny_videollama3", "--adapter")
    (plain, drawn), (pointed, told) = preview(), preview(*model, "coordinates")
    assert (plain.exit_code, pointed.exit_code) == (0, 0), pointed.output
    assert not np.array_equal(np.asarray(Image.open(drawn)), np.asarray(Image.open(told)))
    default, shown = preview("--model", "builtin:tiny_videollama3")
    assert "with adapter 'marks'" in default.stderr
    assert shown.exists()
    alone, _ = preview("--adapter", "coordinates")
    assert "Error: --adapter needs --model." in alone.stderr
    tokens, _ = preview(*model, "saot")
    assert (tokens.exit_code, "cannot be shown" in tokens.stderr) == (2, True)


def test_preview_draws_the_frames_that_regions_name_of_each_video(tmp_path):
    """Of the video that is asked about, and of one that is shown besides."""
    (tmp_path / "clip").mkdir()
    for index in range(12):
        Image.fromarray(PHOTO).save(tmp_path / "clip" / f"{index:02}.png")
    region = {"frames": {"9": {"box": [8, 8, 40, 30]}}}
    turns = [{"role": "user", "content": "<region>?"}, {"role": "assistant", "content": "red"}]
    record = {"id": "a", "video": "clip", "regions": [region], "messages": turns}
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")

    def a_video(rgb):
        frames = np.full((12, 40, 60, 3), 30, np.uint8)
        frames[9] = rgb
        return {"type": "video", "video": load_video(frames, fps=2.0)}

    def pointed(messages, regions):
        return [user(a_video((255, 0, 255)), a_video((0, 255, 0)), "it?"), turns[1]]

    sheet = np.asarray(draw_sheet(RegionDataset.open(tmp_path / "a.jsonl"), pointed=pointed))
    for rgb, is_drawn in (((255, 0, 255), True), ((0, 255, 0), True), ((30, 30, 30), False)):
        assert ((sheet == rgb).all(axis=-1).sum() > 1000) == is_drawn
