"""RegionProcessor: what it writes into the sequence, which labels it makes, and what it refuses."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import assistant, picture, user
from PIL import Image

from pixelrefer_plugin import (
    CropView,
    ImageError,
    PixelReferError,
    PluginError,
    PromptError,
    Region,
    RegionError,
    RegionPlan,
)
from pixelrefer_plugin.messages import PLACEHOLDER
from pixelrefer_plugin.testing import make_pair

BOX = Region.from_box((5, 5, 40, 30))
IMAGE = picture(60, 90)


def supervised_text(processor, labels):
    return processor.tokenizer.decode(labels[labels >= 0])


def test_placeholders_equal_an_expansion_in_the_text(pair):
    inputs = pair.processor([user(IMAGE, "what is <region>?")], [BOX])
    (count,) = inputs["regions"].counts
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": f"what is [{PLACEHOLDER * count}]?"}]}
    ]
    native = pair.processor.native
    text = native.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    from PIL import Image

    expected = native(text=[text], images=[[Image.fromarray(IMAGE)]], return_tensors="pt")
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    assert torch.equal(inputs["attention_mask"], expected["attention_mask"])


def test_content_may_be_a_string(pair):
    inputs = pair.processor([{"role": "user", "content": "hello"}])
    assert "hello" in pair.processor.tokenizer.decode(inputs["input_ids"][0])
    assert "regions" not in inputs


@pytest.mark.parametrize("backbone", ["videollama3", "qwen2_5_vl", "llava_onevision"])
def test_labels_are_the_answers_and_the_tokens_that_end_them(backbone):
    pair = make_pair("saot", backbone)
    conversation = [
        {"role": "system", "content": "be brief"},
        user(IMAGE, "what is <region>?"),
        assistant("a red digit"),
        user("sure?"),
        assistant("yes, quite sure"),
    ]
    inputs = pair.processor([conversation, conversation[:3]], [[BOX], [BOX]], labels=True)
    end = pair.processor.tokenizer.eos_token
    assert supervised_text(pair.processor, inputs["labels"][0]) == f"a red digit{end}yes, quite sure{end}"
    assert supervised_text(pair.processor, inputs["labels"][1]) == f"a red digit{end}"
    same = inputs["labels"] == inputs["input_ids"]
    assert (same | (inputs["labels"] == -100)).all()
    assert not inputs["labels"][inputs["attention_mask"] == 0].ge(0).any()
    pair.model.detach()


def test_prompt_and_answer_are_tokenized_as_generation_will_see_them(pair):
    question = user(IMAGE, "what is <region>?")
    prompt = pair.processor([question], [BOX])["input_ids"][0]
    full = pair.processor([question, assistant(" 7")], [BOX], labels=True)["input_ids"][0]
    assert torch.equal(full[: len(prompt)], prompt)


def test_an_answer_may_point_at_regions(pair):
    other = Region.from_box((50, 10, 80, 50))
    inputs = pair.processor(
        [user(IMAGE, "which one is left?"), assistant("<region>, not <region>.")], [BOX, other], labels=True
    )
    placeholders = inputs["input_ids"] == pair.processor.placeholder_id
    assert int(placeholders.sum()) == sum(inputs["regions"].counts)
    assert (inputs["labels"][placeholders] == -100).all()
    text = supervised_text(pair.processor, inputs["labels"][0])
    assert text == "[], not []." + pair.processor.tokenizer.eos_token
    assert torch.isfinite(pair.model(**inputs).loss)


def test_padding_side(pair):
    conversations, regions = [[user(IMAGE, "<region>")], [user("hi")]], [[BOX], []]
    left = pair.processor(conversations, regions)
    right = pair.processor(conversations, regions, padding_side="right")
    assert left["attention_mask"][1, 0] == 0
    assert left["attention_mask"][1, -1] == 1
    assert right["attention_mask"][1, 0] == 1
    assert right["attention_mask"][1, -1] == 0


def test_regions_on_several_images_keep_their_images(pair):
    small = picture(20, 30, seed=3)
    inputs = pair.processor(
        [user(IMAGE, small, "<region> and <region>")], [BOX.on_image(0), Region.from_box((0, 0, 30, 20), image_index=1)]
    )
    sizes = inputs["regions"].views[0].images_hw.tolist()
    assert sizes == [[60.0, 90.0], [20.0, 30.0]]
    with pytest.raises(RegionError, match=r"Sample 0, region 1.*outside its image of width 30 and height 20"):
        pair.processor([user(IMAGE, small, "<region> and <region>")], [BOX, BOX.on_image(1)])


def test_conversations_that_share_a_picture_share_its_crops(pair, tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(IMAGE).save(path)
    for image in (IMAGE, path, str(path), Image.fromarray(IMAGE)):
        conversations = [[media(image)] for _ in range(3)]
        batch = pair.processor(conversations, [[BOX], [BOX], [BOX.on_image(0)]])["regions"]
        assert len(batch.crops) == 1
        assert batch.views[0].grid_of_region == (0, 0, 0)
    other = [[user(IMAGE, "<region>")], [user(IMAGE.copy(), "<region>")]]
    assert len(pair.processor(other, [[BOX], [BOX]])["regions"].crops) == 2


def media(image):
    return {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "<region>"}]}


@pytest.mark.parametrize(
    ("conversation", "regions", "message"),
    [
        ([user(IMAGE, "what is this?")], [BOX], "texts have 0 <region> but 1 regions were given"),
        ([user(IMAGE, "<region> <region>")], [BOX], "texts have 2 <region> but 1 regions"),
        ([user(IMAGE, f"is {PLACEHOLDER} ok?")], [], r"special token '<\|region_pad\|>'"),
        ([user("see <|image_pad|>")], [], r"special token '<\|image_pad\|>'"),
        ([user(IMAGE, "<region>")], [BOX.on_image(1)], "lies on image 1, but the conversation has 1 images"),
        ([user("<region>")], [BOX], "lies on image 0, but the conversation has 0 images"),
        ([user(IMAGE, "<region>")], [(1, 2, 30, 40)], r"expected a Region, or .* got \(1, 2, 30, 40\). Make one with"),
        ([], [], "Expected a conversation or a list of conversations, got none"),
        ([{"role": "user", "content": ["hi"]}], [], "content must be text or a list of parts"),
        ([{"role": "user"}], [], "must have 'role' and 'content'"),
        ([{"role": "user", "content": [{"type": "sound"}]}], [], "must be text, image or video"),
        ([user("hi"), {"role": "assistant", "content": [{"type": "image"}]}], [], "assistant's message must be text"),
    ],
    ids=[
        "fewer",
        "more",
        "placeholder",
        "image token",
        "no such image",
        "no image",
        "no Region",
        "nothing",
        "no part",
        "no content",
        "sound",
        "answer",
    ],
)
def test_refused_prompts(pair, conversation, regions, message):
    with pytest.raises(PromptError, match=message):
        pair.processor(conversation, regions)


@pytest.mark.parametrize(
    ("conversations", "regions", "message"),
    [
        ([user(IMAGE, "<region>")], BOX, "Expected a list of regions"),
        ([[user(IMAGE, "<region>")]], [BOX], "Expected a list of regions for one conversation, and a list of such"),
        (user(IMAGE, "<region>"), [BOX], "Expected a list of messages or of conversations"),
        ("what is <region>?", [BOX], "Expected a list of messages"),
        ([[]], [[]], "Sample 0: the conversation has no message"),
        ([{"role": "user", "content": [{"type": "text", "text": 5}]}], [], "a text part must be a string, got 5"),
    ],
)
def test_the_commonest_mistakes_have_clear_errors(pair, conversations, regions, message):
    with pytest.raises(PromptError, match=message):
        pair.processor(conversations, regions)


def test_a_batch_without_answers_makes_no_labels(pair):
    with pytest.raises(PromptError, match="no conversation has an answer of the assistant"):
        pair.processor([user(IMAGE, "<region>")], [BOX], labels=True)
    with pytest.raises(PromptError, match="padding_side must be 'left' or 'right', got 'lft'"):
        pair.processor([user(IMAGE, "<region>")], [BOX], padding_side="lft")


def test_refusals_name_the_sample(pair):
    with pytest.raises(PromptError, match="Sample 1: its texts have 1 <region> but 0"):
        pair.processor([[user(IMAGE, "<region>")], [user(IMAGE, "<region>")]], [[BOX], []])
    with pytest.raises(PromptError, match="2 conversations but 1 lists of regions"):
        pair.processor([[user("a")], [user("b")]], [[]])
    with pytest.raises(RegionError, match="Sample 0, region 0: The mask is of width 10"):
        pair.processor([user(IMAGE, "<region>")], [Region.from_mask(np.ones((10, 10)))])
    with pytest.raises(ImageError, match="Image 'nowhere.png' cannot be read: No such file"):
        pair.processor([{"role": "user", "content": [{"type": "image", "image": "nowhere.png"}]}])


# -- plans that an adapter must not make --------------------------------------------------------------------

CROP = CropView((0, 0, 20, 20), (2, 2), np.ones((2, 2)))


@pytest.mark.parametrize(
    ("plans", "message"),
    [
        ([None], r"Sample 0, region 0: Adapter 'saot' must plan a RegionPlan, got None"),
        ([RegionPlan(1, (CROP,)), RegionPlan(1, (CROP, CROP))], r"must plan the same kinds of views for every region"),
        (
            [RegionPlan(1, (CROP,)), RegionPlan(1, (CropView((0, 0, 20, 20), (2, 2), None),))],
            r"got \('CropView',\) and \('whole crop',\)",
        ),
        (
            [RegionPlan(1, (CropView((-4, 0, 20, 20), (2, 2), np.ones((2, 2))),))],
            r"region 0: Adapter 'saot' asks for the crop \(-4, 0, 20, 20\), which is not inside its picture",
        ),
    ],
    ids=["nothing", "more views", "other kinds", "outside"],
)
def test_plans_are_checked(pair, plans, message):
    answers = iter(plans)
    pair.processor._adapter = dataclasses.replace(pair.processor._adapter, plan=lambda *_: next(answers))
    with pytest.raises(PluginError, match=message):
        pair.processor([user(IMAGE, " ".join(["<region>"] * len(plans)))], [BOX] * len(plans))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RegionPlan(3.0, (CROP,)), "num_tokens must be an integer >= 1, got 3.0"),
        (lambda: RegionPlan(3, CROP), "views must be a tuple of views, at least one"),
        (lambda: RegionPlan(3, ()), "views must be a tuple of views, at least one"),
        (lambda: CropView((0, 0, 20, 20), [4, 4], None), r"grid_hw must be a tuple of 2 integers, got \[4, 4\]"),
        (lambda: CropView((0, 0, 20.5, 20), (4, 4), None), "box_xyxy must be a tuple of 4 integers"),
    ],
    ids=["tokens", "no tuple", "no views", "grid", "box"],
)
def test_malformed_plans_are_refused(make, message):
    with pytest.raises(PixelReferError, match=message):
        make()
