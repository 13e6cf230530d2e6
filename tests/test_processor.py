"""RegionProcessor: what it writes into the sequence, which labels it makes, and what it refuses."""

import copy
import dataclasses
import functools
import json
import pickle
import weakref

import numpy as np
import pytest
import sketch
import tokenizers
import torch
from conftest import assistant, picture, user
from PIL import Image

from pixelrefer_plugin import (
    CheckpointError,
    ImageError,
    PixelReferError,
    PluginError,
    PromptError,
    Region,
    RegionError,
    RegionModel,
    RegionProcessor,
    SpliceError,
    VideoRegion,
    attach,
    get_adapter,
    get_backbone,
)
from pixelrefer_plugin.authoring import CropView, Planner, PromptView, RegionPlan, SceneView
from pixelrefer_plugin.contracts.messages import PLACEHOLDER
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
    placeholders = inputs["input_ids"] == pair.processor.tokens.placeholder
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
        ([user(IMAGE, "what is this?")], [BOX], "texts have 0 <region> but 1 region was given"),
        ([user(IMAGE, "<region> <region>")], [BOX], "texts have 2 <region> but 1 region was"),
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
        ([user(IMAGE, "a\udcff")], [], r"Sample 0: the text 'a\\udcff' is no Unicode"),
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


# -- presets ------------------------------------------------------------------------------------------------


@pytest.fixture
def with_presets(pair):
    """The pair, whose adapter has a preset `few` of 3 tokens and few patches."""
    few = {"num_tokens": 3, "large_patches": 9}
    return dataclasses.replace(get_adapter("saot"), presets={"few": few, "default": {}}, layouts={})


def test_a_preset_is_its_options_and_those_beside_it_count(with_presets):
    make = with_presets.make_config
    assert make("few") == make({"num_tokens": 3, "large_patches": 9}) != make()
    assert make({"preset": "few", "num_tokens": 5}) == make({"num_tokens": 5, "large_patches": 9})
    assert make({"preset": "default"}) == make("default") == make() == make({})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("many", "Adapter 'saot' has no preset 'many'. Its presets: few, default."),
        ({"preset": "many"}, "Adapter 'saot' has no preset 'many'"),
        ({"preset": 3}, "has no preset 3"),
        ({"preset": None}, "has no preset None"),
        ({"preset": "few", "num_token": 3}, "has no option 'num_token'"),
        ({"preset": "few", "num_tokens": 0}, "num_tokens must be an integer >= 1"),
    ],
)
def test_refused_presets(with_presets, options, message):
    with pytest.raises(PixelReferError, match=message):
        with_presets.make_config(options)


def test_an_adapter_without_presets_says_so():
    with pytest.raises(PixelReferError, match="Adapter 'maskpool' has no preset 'official'. Its presets: none"):
        get_adapter("maskpool").make_config("official")


def test_no_option_may_be_called_preset():
    @dataclasses.dataclass(frozen=True)
    class Config:
        preset: str = "none"

    with pytest.raises(PixelReferError, match="Config has an option 'preset', the word that names"):
        dataclasses.replace(get_adapter("maskpool"), config=Config)


@pytest.mark.parametrize("name", ["saot", "oci"])
def test_a_preset_may_be_named_wherever_options_are(name):
    backbone, native = get_backbone("videollama3").tiny(0)
    options = {"preset": "official", "num_tokens": 4}
    model, processor = attach(backbone, native, adapter=name, adapter_config=options)
    assert model.adapter_config == get_adapter(name).make_config({"preset": "official", "num_tokens": 4})
    inputs = processor([user(IMAGE, "what is <region>?")], [BOX])
    assert torch.isfinite(model(**inputs).logits).all()
    model.detach()


# -- a region token of the tokenizer's own ------------------------------------------------------------------


def own_token_pair(token="<REGION>", **options):
    """A tiny model whose tokenizer has a token for object tokens, and the processor that uses it."""
    backbone, native = get_backbone("videollama3").tiny(0)
    native.tokenizer.add_tokens([token], special_tokens=True)
    model, processor = attach(backbone, native, adapter="saot", region_token=token, **options)
    return model.eval(), native, processor


def test_the_region_token_is_written_for_each_object_token():
    model, native, processor = own_token_pair()
    ours = RegionProcessor(native, model.backbone.config, adapter="saot")
    assert processor.region_token == "<REGION>"
    assert processor.tokens.placeholder == native.tokenizer.convert_tokens_to_ids("<REGION>")
    assert PLACEHOLDER not in processor.tokenizer.get_vocab()
    conversation = [user(IMAGE, "is <region> red?"), assistant("<region> is, <region> is not")]
    regions = [BOX, BOX, Region.from_box((50, 10, 80, 50))]
    inputs, expected = (each(conversation, regions, labels=True) for each in (processor, ours))
    same = expected["input_ids"].masked_fill(
        expected["input_ids"] == ours.tokens.placeholder, processor.tokens.placeholder
    )
    assert torch.equal(inputs["input_ids"], same)
    assert torch.equal(inputs["labels"], expected["labels"])
    assert int((inputs["input_ids"] == processor.tokens.placeholder).sum()) == sum(inputs["regions"].counts)
    assert (inputs["labels"] != processor.tokens.placeholder).all()
    other = RegionModel.attach(copy.deepcopy(model.backbone), adapter="saot", tokens=ours.tokens)
    other.adapter.load_state_dict(model.adapter.state_dict())
    with torch.no_grad():
        assert torch.equal(other(**expected).logits, model(**inputs).logits)
    with pytest.raises(SpliceError, match="The batch has object tokens where token .* stands"):
        model(**expected)
    del inputs["regions"]
    with pytest.raises(SpliceError, match="placeholders for object tokens but no 'regions'"):
        model(**inputs)
    model.detach()


def test_the_region_token_is_refused_in_texts():
    model, _, processor = own_token_pair()
    with pytest.raises(PromptError, match="the text holds the special token '<REGION>'. Write <region>"):
        processor([user(IMAGE, "what is <REGION>?")], [])
    assert "regions" not in processor([user(IMAGE, f"what is {PLACEHOLDER}?")], [])
    model.detach()


def test_a_region_token_must_be_the_tokenizers_own():
    model, native, _ = own_token_pair()
    for token in ("<OTHER>", "the", ""):
        with pytest.raises(PromptError, match=f"The tokenizer has no token '{token}' of its own for object tokens"):
            RegionProcessor(native, model.backbone.config, adapter="saot", region_token=token)
    with pytest.raises(PromptError, match=r"'<\|image_pad\|>' stands for pictures or videos"):
        RegionProcessor(native, model.backbone.config, adapter="saot", region_token="<|image_pad|>")
    model.detach()


def test_the_region_token_survives_pickling_and_saving(tmp_path):
    model, _, processor = own_token_pair()
    expected = processor([user(IMAGE, "what is <region>?")], [BOX])
    model.save_pretrained(tmp_path / "model", processor)
    for again in (RegionProcessor.from_pretrained(tmp_path / "model"), pickle.loads(pickle.dumps(processor))):
        assert again.region_token == "<REGION>"
        assert torch.equal(again([user(IMAGE, "what is <region>?")], [BOX])["input_ids"], expected["input_ids"])
    with pytest.raises(CheckpointError, match="brings its region token; region_token is for a plain backbone"):
        RegionProcessor.from_pretrained(tmp_path / "model", region_token="<REGION>")
    model.detach()


def test_a_plain_backbones_region_token_may_be_named(tmp_path):
    backbone, native = get_backbone("videollama3").tiny(0)
    native.tokenizer.add_tokens(["<REGION>"], special_tokens=True)
    native.save_pretrained(tmp_path)
    backbone.config.save_pretrained(tmp_path)
    processor = RegionProcessor.from_pretrained(tmp_path, adapter="saot", region_token="<REGION>")
    assert processor.tokens.placeholder == native.tokenizer.convert_tokens_to_ids("<REGION>")
    assert RegionProcessor.from_pretrained(tmp_path, adapter="saot").region_token is None


# -- regions that are planned together ----------------------------------------------------------------------


def replan(processor, **methods):
    """Have the processor's planner be one of a subclass, with these methods in place of its own."""
    planner = processor._planner
    changed = {name: lambda self, *args, _method=method: _method(*args) for name, method in methods.items()}
    processor._planner = type("Replanned", (type(planner),), changed)(planner.config)


def boxes_of(batch):
    return [tuple(map(int, box)) for box in batch.views[0].boxes_xyxy]


def first_ones(plans):
    """All regions of a picture get what the first one asks for."""
    return [plans[0]] * len(plans)


OTHER = Region.from_box((50, 10, 80, 50))


def test_regions_of_one_picture_are_planned_together_in_their_order(pair):
    alone = boxes_of(pair.processor([user(IMAGE, "<region> <region>")], [BOX, OTHER])["regions"])
    replan(pair.processor, together=first_ones)
    assert boxes_of(pair.processor([user(IMAGE, "<region> <region>")], [BOX, OTHER])["regions"]) == [alone[0]] * 2
    assert boxes_of(pair.processor([user(IMAGE, "<region> <region>")], [OTHER, BOX])["regions"]) == [alone[1]] * 2


def test_other_pictures_and_conversations_are_planned_apart(pair):
    image = user(IMAGE, picture(60, 90, seed=4), "<region> <region> <region>")
    on_both = [OTHER.on_image(1), BOX, BOX.on_image(1)]
    alone = boxes_of(pair.processor([[image], [user(IMAGE, "<region>")]], [on_both, [OTHER]])["regions"])
    replan(pair.processor, together=first_ones)
    batch = pair.processor([[image], [user(IMAGE, "<region>")]], [on_both, [OTHER]])["regions"]
    assert boxes_of(batch) == [alone[0], alone[1], alone[0], alone[3]]


def test_frames_of_a_video_are_planned_apart(pair):
    frames = np.stack([picture(60, 90, seed=seed) for seed in range(4)])
    video = {"type": "video", "video": frames, "fps": 1.0}
    regions = [{1: BOX, 2: BOX}, {2: OTHER, 3: OTHER}]
    alone = boxes_of(pair.processor([user(video, "<region> <region>")], regions)["regions"])
    replan(pair.processor, together=first_ones)
    batch = pair.processor([user(video, "<region> <region>")], regions)["regions"]
    assert boxes_of(batch) == [alone[0], alone[0], alone[0], alone[3]]


@pytest.mark.parametrize(
    ("together", "message"),
    [
        (lambda plans: plans[:1], "Sample 0: Adapter 'saot' must return as many plans .* given, 2, got 1"),
        (lambda plans: None, "Sample 0: Adapter 'saot' must return as many plans .* given, 2, got None"),
        (lambda plans: [None, *plans[1:]], "Sample 0, region 0: Adapter 'saot' must plan a RegionPlan, got No"),
        (
            lambda plans: [
                plans[0],
                RegionPlan(1, (CropView((0, 0, 200, 20), (2, 2), np.ones((2, 2), np.float32)),)),
            ],
            r"Sample 0, region 1: Adapter 'saot' asks for the crop \(0, 0, 200, 20\), which is not inside its picture",
        ),
    ],
    ids=["fewer", "none", "nothing", "outside"],
)
def test_plans_made_together_are_checked(pair, together, message):
    replan(pair.processor, together=together)
    with pytest.raises(PluginError, match=message):
        pair.processor([user(IMAGE, "<region> <region>")], [BOX, OTHER])


# -- what stands before a frame -----------------------------------------------------------------------------


def test_an_adapter_says_what_stands_before_a_frames_tokens():
    pair = make_pair("oci", "videollama3")
    frames = np.stack([picture(60, 90, seed=seed) for seed in range(4)])
    conversation = [user({"type": "video", "video": frames, "fps": 2.0}, "<region>?")]
    plain = functools.partial(Planner.frame_label, pair.processor._planner)
    labels = {plain: "[Time 0.0s:,Time 1.5s:]?", (lambda time_s: f"at {time_s:.2f} "): "[at 0.00 ,at 1.50 ]?"}
    for frame_label, expected in labels.items():
        replan(pair.processor, frame_label=frame_label)
        (ids,) = pair.processor(conversation, [{0: BOX, 3: BOX}])["input_ids"]
        text = pair.processor.tokenizer.decode(ids[ids != pair.processor.tokens.placeholder])
        assert expected in text
    pair.model.detach()


@pytest.mark.parametrize("label", ["<|image_pad|>", "<|region_pad|>:", "<|im_end|>", None, 3])
def test_a_label_that_is_no_plain_text_is_the_adapters_error(label):
    pair = make_pair("oci", "videollama3")
    replan(pair.processor, frame_label=lambda time_s: label)
    frames = np.stack([picture(60, 90, seed=seed) for seed in range(2)])
    with pytest.raises(PluginError, match="'oci' must return text without special tokens from Planner.frame_label"):
        pair.processor([user({"type": "video", "video": frames, "fps": 2.0}, "<region>?")], [{0: BOX}])
    pair.model.detach()


# -- what a plan keeps --------------------------------------------------------------------------------------


def test_masks_are_let_go_as_soon_as_they_are_planned(pair):
    alive, numbers, saot = weakref.WeakSet(), [], pair.processor._planner

    def plan(mask, geometry):
        alive.add(mask)
        numbers.append(len(alive))
        return saot.plan(mask, geometry)

    replan(pair.processor, plan=plan)
    regions = [Region.from_box((x, 5, x + 10, 30)) for x in range(20)]
    batch = pair.processor([user(IMAGE, " ".join(["<region>"] * 20))], regions)["regions"]
    assert len(batch.counts) == len(numbers) == 20
    assert max(numbers) <= 2


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
        (
            [RegionPlan(1, (CropView((0, 0, 20, 20), (2, 2), np.ones((2, 2)), encoded_hw=(0, 1)),))],
            r"asks for a crop of 0x1 patches, but backbone 'videollama3' takes multiples of 1",
        ),
    ],
    ids=["nothing", "more views", "other kinds", "outside", "no patches"],
)
def test_plans_are_checked(pair, plans, message):
    answers = iter(plans)
    replan(pair.processor, plan=lambda *_: next(answers))
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
        (lambda: CropView((0, 0, 20, 20), (4, 4), encoded_hw=(4,)), r"encoded_hw must be a tuple of 2 integers, got"),
        (lambda: CropView((0, 0, 20, 20), (4, 4), resample="nearest"), "resample must be one of 'bicubic', 'opencv_li"),
        (lambda: CropView((0, 0, 20, 20), (4, 4), np.ones((2, 2))), r"one weight per patch, \(4, 4\), got \(2, 2\)"),
    ],
    ids=["tokens", "no tuple", "no views", "grid", "box", "encoded", "resample", "mask"],
)
def test_malformed_plans_are_refused(make, message):
    with pytest.raises(PixelReferError, match=message):
        make()


# -- regions that are read as they were drawn ---------------------------------------------------------------

CLICKS, CIRCLE = Region.from_points([(20, 20), (30, 25)]), Region.from_polygon([10, 10, 30, 10, 30, 40])


@pytest.fixture
def drawing(monkeypatch):
    """The processor of an adapter that reads clicks and boxes as they were drawn."""
    sketch.install(monkeypatch)
    return sketch.make_processor()


def rendered(processor, inputs):
    """The conversation from the end of its pictures on, `*` for each placeholder."""
    return sketch.text_of(processor, inputs["input_ids"][0]).split("<|vision_end|>")[-1]


read_as = sketch.read_as
LIST = "Here is an image with the following highlighted regions:\n"


def test_clicks_and_boxes_stand_where_they_are_asked_about(drawing):
    inputs = drawing([user(IMAGE, "is <region> in <region>?")], [CLICKS, BOX])
    assert "is [**] in [*]?" in rendered(drawing, inputs)
    scene, prompts = inputs["regions"].views[0], inputs["regions"].views[1].prompts
    assert scene is None
    assert (prompts.regions, prompts.kinds) == ((0, 1), ("points", "box"))
    assert prompts.points_xy.tolist() == [[20, 20], [30, 25], [5, 5], [40, 30]]
    assert inputs["regions"].counts == (2, 1)


def test_what_is_not_drawn_is_listed_before_the_question_and_called_by_its_number(drawing):
    inputs = drawing([user(IMAGE, "is <region> like <region>, <region>?")], [CIRCLE, CLICKS, BOX])
    assert rendered(drawing, inputs).startswith(f"{LIST}[1]: *\nis [1] like [**], [*]?")
    assert read_as(inputs) == ("mask", "points", "box")


def test_object_tokens_are_in_the_order_of_their_placeholders(drawing):
    conversation = [
        {"role": "system", "content": "be brief"},
        user("compare <region>", IMAGE, "to <region>,", " then <region>"),
        assistant("<region> is like <region>"),
        user("and <region>?"),
    ]
    inputs = drawing(conversation, [CLICKS, CIRCLE, BOX, BOX, CIRCLE, CLICKS])
    text = sketch.text_of(drawing, inputs["input_ids"][0])
    assert "compare [**]<|vision_start|>" in text
    assert f"{LIST}[1]: *\n[2]: *\nto [1], then [*]<|im_end|>" in text
    assert "[2] is like [1]" in text
    assert "and [**]?" in text
    assert read_as(inputs) == ("points", "mask", "mask", "box", "points")
    assert inputs["regions"].numbers == (0, 1, 3, 2, 5)
    assert inputs["regions"].counts == (2, 1, 1, 1, 2)
    placeholders = inputs["input_ids"] == drawing.tokens.placeholder
    assert int(placeholders.sum()) == sum(inputs["regions"].counts)


def test_where_a_regions_tokens_stand_can_be_asked(drawing, pair):
    assert [drawing.is_listed(each) for each in (CLICKS, BOX, CIRCLE)] == [False, False, True]
    assert not drawing.is_listed(VideoRegion({0: BOX, 3: CLICKS}))
    assert drawing.is_listed(VideoRegion({0: BOX, 3: CIRCLE}))
    assert not pair.processor.is_listed(CIRCLE)


def test_an_answer_calls_regions_by_their_numbers(drawing):
    conversation = [user(IMAGE, "which one is red?"), assistant("<region>, not <region>")]
    inputs = drawing(conversation, [BOX, CIRCLE], labels=True)
    assert supervised_text(drawing, inputs["labels"][0]) == "[1], not [2]" + drawing.tokenizer.eos_token
    assert rendered(drawing, inputs).startswith(f"{LIST}[1]: *\n[2]: *\nwhich one")


def test_equal_regions_are_one_object(drawing):
    conversation = [user(IMAGE, "is <region> red?"), assistant("<region> is, <region> is not")]
    inputs = drawing(conversation, [CIRCLE, CIRCLE, BOX], labels=True)
    assert supervised_text(drawing, inputs["labels"][0]).startswith("[1] is, [2] is not")
    assert inputs["regions"].numbers == (0, 2)


def test_the_list_follows_the_pictures_where_no_text_does(drawing):
    assert rendered(drawing, drawing([user("what is <region>?", IMAGE)], [CIRCLE])).startswith(f"{LIST}[1]: *\n<|im_en")
    late = [user("hello"), assistant("hi"), user(IMAGE, "what is <region>?")]
    assert rendered(drawing, drawing(late, [CIRCLE])).startswith(f"{LIST}[1]: *\nwhat is [1]?")


def test_listed_regions_lie_on_one_picture(drawing):
    both = [CIRCLE, Region.from_polygon([1, 1, 9, 1, 9, 9], image_index=1)]
    with pytest.raises(PromptError, match="Sample 0: its regions lie on image 0 and image 1. Adapter 'sketch' lists"):
        drawing([user(IMAGE, IMAGE, "<region> <region>")], both)
    inputs = drawing([user(IMAGE, IMAGE, "<region> <region>")], [BOX, both[1]])
    assert read_as(inputs) == ("mask", "box")


def test_drawn_regions_must_lie_on_their_picture(drawing):
    for region, message in [
        (
            Region.from_points([(20, 20), (95, 3)]),
            r"Sample 0, region 0: The point reaches \(95, 3\), outside its image",
        ),
        (Region.from_box((100, 3, 120, 9)), "Sample 0, region 0: The box .* outside"),
    ]:
        with pytest.raises(RegionError, match=message):
            drawing([user(IMAGE, "<region>")], [region])


def test_drawn_plans_are_checked_as_others_are(drawing):
    crop = RegionPlan(1, (CropView((0, 0, 200, 20), (2, 2), np.ones((2, 2), np.float32)),))
    replan(drawing, plan_drawn=lambda region: crop)
    with pytest.raises(PluginError, match=r"Sample 0, region 0: Adapter 'sketch' asks for the crop"):
        drawing([user(IMAGE, "<region>")], [BOX])
    replan(drawing, plan_drawn=lambda region: 3)
    with pytest.raises(PluginError, match="Adapter 'sketch' must plan a RegionPlan, got 3"):
        drawing([user(IMAGE, "<region>")], [BOX])


def test_an_adapter_says_what_stands_before_the_list(drawing):
    class Headed(type(drawing._planner)):
        def list_heading(self, *, num_frames):
            return f"of {num_frames}: "

    drawing._planner = Headed(drawing._planner.config)
    assert rendered(drawing, drawing([user(IMAGE, "what is <region>?")], [CIRCLE])).startswith("of None: [1]: *\nwhat")
    video = {"type": "video", "video": np.stack([IMAGE] * 3), "fps": 1.0}
    inputs = drawing([user(video, "what is <region>?")], [{0: CIRCLE, 2: CIRCLE}])
    assert "of 3: [1]: " in sketch.text_of(drawing, inputs["input_ids"][0])


@pytest.mark.parametrize("heading", ["<|image_pad|>", "<|region_pad|>\n", "<|im_end|>", None, 3])
def test_a_heading_that_is_no_plain_text_is_the_adapters_error(drawing, heading):
    class Headed(type(drawing._planner)):
        def list_heading(self, *, num_frames):
            return heading

    drawing._planner = Headed(drawing._planner.config)
    with pytest.raises(PluginError, match="'sketch' must return text without special tokens from Planner.list_heading"):
        drawing([user(IMAGE, "what is <region>?")], [CIRCLE])


def failing(*args, **options):
    return {}["gone"]


@pytest.mark.parametrize(
    ("adapter", "method", "region"),
    [
        ("sketch", "plan", CIRCLE),
        ("sketch", "plan_drawn", BOX),
        ("sketch", "together", CIRCLE),
        ("sketch", "list_heading", CIRCLE),
        ("oci", "frame_label", {0: BOX}),
    ],
)
def test_an_exception_of_a_planner_says_whose_it_is(monkeypatch, adapter, method, region):
    sketch.install(monkeypatch)
    processor = sketch.make_processor(adapter)
    monkeypatch.setattr(type(processor._planner), method, failing)
    media = {"type": "video", "video": np.stack([IMAGE] * 3), "fps": 1.0} if isinstance(region, dict) else IMAGE
    with pytest.raises(PluginError, match=f"Adapter '{adapter}' failed in {method}: KeyError: 'gone'") as raised:
        processor([user(media, "what is <region>?")], [region])
    assert (raised.value.plugin, raised.value.step) == (f"adapter '{adapter}'", method)


@pytest.mark.parametrize("field", ["grids_hw", "boxes_xyxy", "frames_per_grid", "resize_frames"])
def test_an_exception_of_a_scene_says_whose_it_is(field):
    pair = make_pair("unipixel", "qwen2_5_vl")
    spec = pair.processor._backbone
    pair.processor._backbone = dataclasses.replace(spec, videos=dataclasses.replace(spec.videos, **{field: failing}))
    video = {"type": "video", "video": np.stack([IMAGE] * 4), "fps": 1.0}
    with pytest.raises(PluginError, match=f"Backbone 'qwen2_5_vl' failed in videos.{field}: KeyError: 'gone'"):
        pair.processor([user(video, "what is <region>?")], [{0: CIRCLE, 3: CIRCLE}])


def test_a_drawn_region_may_read_the_scene_too(drawing):
    plain = drawing([user(IMAGE, "<region>")], [BOX])["regions"]
    assert plain.scene is None, "nothing reads it"
    replan(drawing, plan_drawn=lambda region: RegionPlan(1, (SceneView(), PromptView())))
    batch = drawing([user(IMAGE, "is <region> like <region>?")], [CIRCLE, BOX])["regions"]
    scene, drawn = batch.views
    assert (scene.regions, drawn.prompts.regions) == ((0, 1), (1,))
    assert scene.region_boxes_xyxy[1].tolist() == [5, 5, 40, 30]
    assert batch.scene is not None


def test_a_kind_that_is_not_drawn_is_read_by_its_mask(drawing):
    drawing._adapter = dataclasses.replace(drawing._adapter, drawn=("points",))
    inputs = drawing([user(IMAGE, "is <region> like <region>?")], [BOX, CLICKS])
    assert read_as(inputs) == ("mask", "points")
    assert [drawing.is_listed(each) for each in (CLICKS, BOX)] == [False, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drawn": "points"}, "AdapterSpec.drawn of 'sketch' must be a tuple of 'points' and 'box', got 'points'"),
        ({"drawn": ("points", "mask")}, r"AdapterSpec.drawn of 'sketch' must be .* got \('points', 'mask'\)"),
        (
            {"scene": "merged"},
            "scene of 'sketch' must be 'patches' or 'cells' or 'projected', got 'merged'",
        ),
        (
            {"framework": "both"},
            "framework of 'sketch' must be 'vision-object' or 'object-only', got 'both'",
        ),
    ],
    ids=["a text", "a mask", "scene", "framework"],
)
def test_a_spec_that_says_what_there_is_not_is_refused(changes, message):
    with pytest.raises(PixelReferError, match=message):
        dataclasses.replace(sketch.SPECS[0], **changes)


def test_what_reads_scene_tokens_may_ask_for_crops_too(monkeypatch):
    sketch.install(monkeypatch)
    processor = sketch.make_processor("sketch-merged", "qwen2_5_vl", adapter_config={"crops": True})
    batch = processor([user(IMAGE, "<region>")], [CIRCLE])["regions"]
    assert batch.scene is None
    assert batch.crop_grids_hw == ((2, 2),)
    (view,) = batch.views
    assert view.patches_per_region == (4,), "patches, not cells"


def test_a_text_in_parts_has_its_markers_in_each(pair):
    with pytest.raises(PromptError, match="texts have 0 <region> but 1 region was"):
        pair.processor([user(IMAGE, "what is <reg", "ion>?")], [BOX])


@pytest.mark.parametrize(("adapter", "pictures"), [("maskpool", [1, 0, 1, 2]), ("oci", [0, 0, 1, 0])])
def test_the_native_processor_is_given_a_list_of_pictures_for_each_text(adapter, pictures, monkeypatch):
    """Gemma 3's compares the number of pictures of each."""
    pair, given = make_pair(adapter, "qwen2_5_vl"), {}
    native = type(pair.native)
    call = native.__call__

    def recorded(self, **inputs):
        given.update(inputs)
        return call(self, **inputs)

    monkeypatch.setattr(native, "__call__", recorded)
    pair.processor(pair.conversations[:4], pair.regions[:4])
    assert list(map(len, given["images"])) == pictures


@pytest.mark.parametrize(
    ("part", "changed", "message"),
    [
        (
            "images",
            {"grids_hw": lambda call: ((4, 6),) * 3},
            r"images.grids_hw gives 3 for the batch's 2 images",
        ),
        (
            "images",
            {"boxes_xyxy": lambda call, sizes_hw: ((0, 0, 60, 110),)},
            r"images.boxes_xyxy gives 1 for the batch's 2 pictures",
        ),
        (
            "videos",
            {"grids_hw": lambda call: ((4, 6),) * 2},
            r"videos.grids_hw gives 2 for the batch's 3 grids of frames",
        ),
        (
            "videos",
            {"boxes_xyxy": lambda call, sizes_hw: ()},
            r"videos.boxes_xyxy gives 0 for the batch's 1 pictures",
        ),
    ],
    ids=["images", "boxes", "videos", "boxes of videos"],
)
def test_a_scene_of_another_number_of_grids_is_refused(part, changed, message):
    """Where a processor cuts a picture into several, another's grid would silently be read."""
    pair = make_pair("maskpool", "qwen2_5_vl")
    spec = pair.processor._backbone
    scene = dataclasses.replace(getattr(spec, part), **changed)
    pair.processor._backbone = dataclasses.replace(spec, **{part: scene})
    with pytest.raises(PluginError, match=message):
        pair.inputs({"images": 3, "videos": 4}[part])


def test_a_native_processor_that_wants_more_memory_than_there_is_is_told():
    pair = make_pair("maskpool", "videollama3")
    pair.processor.native.image_processor.temporal_patch_size = 2**40
    with pytest.raises(PromptError, match=r"own processor needs more memory than there is: .*preprocessor_config"):
        pair.processor([user(picture(40, 60), "what is <region>?")], [Region.from_box((1, 1, 9, 9))])


def test_a_tokenizer_with_ids_that_no_model_has_is_refused(monkeypatch):
    monkeypatch.setattr("pixelrefer_plugin.processor._HIGHEST_ID", 2**16)  # a list as long as the highest id is made
    pair = make_pair("maskpool", "videollama3")
    tokenizer = pair.processor.native.tokenizer
    made = json.loads(tokenizer.backend_tokenizer.to_str())
    made["model"]["vocab"]["far"] = 2**16 + 1
    native = copy.deepcopy(pair.processor.native)
    native.tokenizer = type(tokenizer)(tokenizer_object=tokenizers.Tokenizer.from_str(json.dumps(made)))
    with pytest.raises(PromptError, match="the token id 65537; no model has more than 65,536"):
        RegionProcessor(native, pair.model.backbone.config, adapter="maskpool")


@pytest.mark.parametrize("values", [None, 0.5, (0.5, "0.5", 0.5), (0.5, 0.5), (0.5, float("nan"), 0.5)])
@pytest.mark.parametrize("name", ["image_mean", "image_std"])
def test_a_mean_or_deviation_of_pixels_that_is_none_is_refused(name, values):
    pair = make_pair("maskpool", "videollama3")
    native = copy.deepcopy(pair.processor.native)
    setattr(native.image_processor, name, values)
    with pytest.raises(PromptError, match=f"{name} of the image processor must be three numbers"):
        RegionProcessor(native, pair.model.backbone.config, adapter="maskpool")
