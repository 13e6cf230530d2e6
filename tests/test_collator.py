"""RegionCollator and LengthGroupedSampler: every sample whole or named, the dummy row without effect, batches alike."""

import dataclasses
import itertools
import pickle

import numpy as np
import pytest
import stencil
import torch
from accelerate.data_loader import prepare_data_loader
from conftest import assistant, picture, user
from PIL import Image
from torch.utils.data import DataLoader

from pixelrefer_plugin import FrameSampling, PluginError, PromptError, Region, VideoRegion, get_backbone
from pixelrefer_plugin.contracts.messages import MASK_MARKER, REGION_MARKER
from pixelrefer_plugin.contracts.samples import RegionSample
from pixelrefer_plugin.conversation.expansion import IGNORE_INDEX
from pixelrefer_plugin.errors import ConfigError, Defect, SampleError, TrainingError
from pixelrefer_plugin.testing import make_pair
from pixelrefer_plugin.tokens.splice import number_slots
from pixelrefer_plugin.training.collator import RegionCollator
from pixelrefer_plugin.training.sampling import LengthGroupedSampler, estimated_tokens

ADAPTERS = ("maskpool", "saot", "oci")
BACKBONES = ("videollama3", "qwen2_5_vl", "llava_onevision")
PAIRS = list(itertools.product(ADAPTERS, BACKBONES))
NOT_OF_THE_MODEL = ("sample_names", "skipped")

BOX = Region.from_box((5, 5, 40, 30))
WIDE, TALL = picture(60, 90, seed=1), picture(100, 50, seed=2)
CLIP = {"type": "video", "video": np.stack([picture(50, 60, seed=each) for each in range(4)]), "fps": 2.0}


def sample(*messages, id="a", regions=(), **fields):
    return RegionSample(id, messages, tuple(regions), **fields)


def one_turn(id="a", answer="a red digit", *, image=WIDE, regions=(BOX,)):
    return sample(user(image, "what is <region>?"), assistant(answer), id=id, regions=regions)


def for_model(batch):
    return {name: value for name, value in batch.items() if name not in NOT_OF_THE_MODEL}


def supervised(processor, labels):
    """The texts of each supervised run of a row."""
    learnt = labels != IGNORE_INDEX
    starts = torch.nonzero(learnt & ~learnt.roll(1)).flatten().tolist()
    runs = [
        labels[start:][: int((~learnt[start:]).nonzero()[0]) if (~learnt[start:]).any() else None] for start in starts
    ]
    return [processor.tokenizer.decode(run) for run in runs]


@pytest.fixture
def masking(monkeypatch):
    """A pair whose adapter gives masks."""
    stencil.install(monkeypatch)
    made = make_pair("stencil", "videollama3")
    yield made
    made.model.detach()


@pytest.fixture(params=PAIRS, ids="-".join)
def any_pair(request):
    made = make_pair(*request.param)
    yield made
    made.model.detach()


# -- the dummy row -----------------------------------------------------------------------------------------

WITHOUT_REGIONS = {
    "text": [sample(user("which digit is red?"), assistant("the left one"))],
    "a picture": [sample(user(WIDE, "describe it"), assistant("a red digit"))],
    "a video": [sample(user(CLIP, "describe it"), assistant("it moves up"))],
    "mixed lengths": [
        sample(user("yes?"), assistant("no")),
        sample(user(TALL, "describe it"), assistant("a red digit"), user("sure?"), assistant("yes, yes, yes")),
    ],
}


@pytest.mark.parametrize("samples", WITHOUT_REGIONS.values(), ids=WITHOUT_REGIONS)
def test_the_dummy_row_changes_nothing_of_the_others(any_pair, samples):
    batch = RegionCollator(any_pair.processor)(samples)
    alone = any_pair.processor([list(each.messages) for each in samples], labels=True)
    rows, length = alone["input_ids"].shape
    assert batch["input_ids"].shape[0] == rows + 1
    assert batch["regions"].regions_per_sample == (0,) * rows + (1,)
    with torch.inference_mode():
        with_dummy, expected = any_pair.model(**for_model(batch)), any_pair.model(**alone)
    real = alone["attention_mask"].bool()
    difference = (with_dummy.logits[:rows, :length][real] - expected.logits[real]).abs().max()
    assert difference <= 1e-5 * expected.logits.abs().max()
    torch.testing.assert_close(with_dummy.loss, expected.loss, rtol=1e-5, atol=1e-5)


def gradients_of(model):
    return {name: each.grad for name, each in model.named_parameters() if each.requires_grad}


def test_the_dummy_row_gives_every_adapter_weight_a_gradient_of_zero(any_pair):
    collate, model = RegionCollator(any_pair.processor), any_pair.model
    model(**for_model(collate(WITHOUT_REGIONS["mixed lengths"]))).loss.backward()
    without = gradients_of(model)
    model.zero_grad()
    model(**for_model(collate([one_turn()]))).loss.backward()
    with_regions = gradients_of(model)
    assert without
    assert all(gradient is not None and not gradient.any() for gradient in without.values())
    assert any(gradient.any() for gradient in with_regions.values())


@pytest.mark.parametrize("adapter", ["maskpool", "saot"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_part_of_a_vision_object_model_has_a_gradient_from_text_alone(adapter, backbone):
    """What one process has a gradient for, all have: DDP waits for the others'."""
    pair = make_pair(adapter, backbone)
    collate, model = RegionCollator(pair.processor), pair.model
    model.requires_grad_(True)
    model(**for_model(collate(WITHOUT_REGIONS["text"]))).loss.backward()
    from_text = {name for name, gradient in gradients_of(model).items() if gradient is not None}
    model.zero_grad()
    model(**for_model(collate([one_turn()]))).loss.backward()
    assert from_text == {name for name, gradient in gradients_of(model).items() if gradient is not None}
    model.detach()


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize(("samples", "kind"), [("a picture", "image"), ("a video", "video"), ("text", "image")])
def test_the_dummy_row_is_of_the_batchs_medium_where_a_backbone_does_not_mix_them(monkeypatch, adapter, samples, kind):
    spec = dataclasses.replace(get_backbone("llava_onevision"), mixes_media=False)
    for module in ("model", "processor"):
        monkeypatch.setattr(f"pixelrefer_plugin.{module}.backbone_for", lambda *_: spec)
    pair = make_pair(adapter, "llava_onevision")
    batch = RegionCollator(pair.processor)(WITHOUT_REGIONS[samples])
    assert batch["regions"].regions_per_sample == (0, 1)
    pixels = {name for name in batch if name.startswith("pixel_values")}
    wanted = {"image": "pixel_values", "video": "pixel_values_videos"}[kind]
    assert pixels == (set() if adapter == "oci" and samples == "text" else {wanted})
    pair.model(**for_model(batch)).loss.backward()
    gradients = gradients_of(pair.model)
    assert all(gradient is not None and not gradient.any() for gradient in gradients.values())
    pair.model.detach()


def test_a_batch_of_which_all_samples_are_skipped_is_the_dummy_row(any_pair):
    collate = RegionCollator(any_pair.processor, on_bad_sample="skip")
    batch = collate([one_turn("bad", regions=())])
    assert batch["sample_names"] == ()
    assert len(batch["skipped"]) == 1
    assert batch["labels"].shape == batch["input_ids"].shape == (1, batch["input_ids"].shape[1])
    assert (batch["labels"] == IGNORE_INDEX).all()
    assert torch.isfinite(any_pair.model(**for_model(batch)).logits).all()


def test_a_batch_with_regions_is_the_processors_own(pair):
    samples = [one_turn("a"), sample(user("which digit is red?"), assistant("none"), id="b")]
    batch = RegionCollator(pair.processor)(samples)
    expected = pair.processor([list(each.messages) for each in samples], [[BOX], []], labels=True)
    assert {name: value for name, value in batch.items() if torch.is_tensor(value)}.keys() == expected.keys() - {
        "regions"
    }
    for name in expected.keys() - {"regions"}:
        assert torch.equal(batch[name], expected[name])
    assert batch["sample_names"] == ("sample 'a'", "sample 'b'")
    assert batch["skipped"] == ()


# -- labels ------------------------------------------------------------------------------------------------


def test_labels_are_exactly_the_answers_and_the_end_token(any_pair):
    samples = [
        sample(
            {"role": "system", "content": "be brief"},
            user(WIDE, "which digit is <region>?"),
            assistant("the red digit"),
            user("where is it? [yes] a red digit"),
            assistant("left of <region>, below"),
            regions=[BOX, Region.from_points([(70, 40)])],
        ),
        sample(user(CLIP, "where does <region> move?"), assistant("up"), regions=[VideoRegion({0: BOX, 3: BOX})]),
        sample(user("yes or no?"), assistant(" no ")),
    ]
    batch = RegionCollator(any_pair.processor)(samples)
    end = any_pair.processor.tokenizer.eos_token
    # An answer's placeholders are not learnt: they part it.
    expected = [["the red digit" + end, "left of [", "], below" + end], ["up" + end], [" no " + end]]
    assert [supervised(any_pair.processor, row) for row in batch["labels"]] == expected
    learnt = batch["labels"] != IGNORE_INDEX
    assert torch.equal(batch["labels"][learnt], batch["input_ids"][learnt])
    assert not learnt[batch["attention_mask"] == 0].any()


# -- samples that cannot be used ---------------------------------------------------------------------------

BAD = {
    "missing picture": (
        one_turn("x", image={"type": "image", "image": "nowhere.png"}),
        "media",
        "Image 'nowhere.png' cannot be read",
    ),
    "more markers than regions": (one_turn("x", regions=()), "format", "its texts have 1 <region> but 0 regions"),
    "outside": (one_turn("x", regions=[Region.from_box((200, 200, 220, 230))]), "region", "region 0: The box"),
    "no answer": (sample(user("hello"), id="x"), "answer", "it has no answer of the assistant to learn from"),
    "special token": (sample(user("a <|region_pad|>"), assistant("b"), id="x"), "format", "the text holds"),
    "no message": (sample(id="x"), "format", "the conversation has no message"),
    "another size": (
        sample(user(WIDE, "<region>"), assistant("b"), id="x", regions=[BOX], media_hw=((90, 60),)),
        "size",
        "image 0 is 90 px wide and 60 high, its record says 60 and 90",
    ),
    "another size of a video": (
        sample(
            user(WIDE, CLIP, "<region>"),
            assistant("b"),
            id="x",
            regions=[VideoRegion({1: BOX})],
            media_hw=((60, 90), (99, 60)),
        ),
        "size",
        "video 0 is 60 px wide and 50 high, its record says 60 and 99",
    ),
    "could not be read": (SampleError("x", "", [Defect("format", "it is no object.")]), "format", "it is no object"),
}


@pytest.mark.parametrize(("bad", "kind", "reason"), BAD.values(), ids=BAD)
def test_a_bad_sample_stops_and_is_named_or_is_left_out_and_named(pair, bad, kind, reason):
    samples = [one_turn("first"), bad, one_turn("last", "no")]
    with pytest.raises(SampleError, match=f"sample 'x': {reason}") as raised:
        RegionCollator(pair.processor)(samples)
    assert [defect.kind for defect in raised.value.defects] == [kind]
    batch = RegionCollator(pair.processor, on_bad_sample="skip")(samples)
    assert batch["sample_names"] == ("sample 'first'", "sample 'last'")
    assert batch["skipped"] == (str(raised.value),)
    expected = RegionCollator(pair.processor)([samples[0], samples[2]])
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert torch.equal(batch["labels"], expected["labels"])


def test_an_adapters_fault_is_no_samples_and_not_skipped(pair):
    class Planless(type(pair.processor._planner)):
        def plan(self, mask, geometry):
            return None

    pair.processor._planner = Planless(pair.processor._planner.config)
    with pytest.raises(PluginError, match="must plan a RegionPlan"):
        RegionCollator(pair.processor, on_bad_sample="skip")([one_turn()])


def test_the_right_size_is_no_defect(pair):
    declared = sample(user(WIDE, "<region>"), assistant("b"), regions=[BOX], media_hw=((60, 90),))
    assert RegionCollator(pair.processor).problem(declared) is None


def test_good_samples_that_the_backbone_does_not_take_together_are_named():
    pair = make_pair("saot", "llava_onevision")
    longer = {**CLIP, "video": np.concatenate([CLIP["video"]] * 2)}
    samples = [
        sample(user(clip, "describe it"), assistant("up"), id=id) for id, clip in (("short", CLIP), ("long", longer))
    ]
    with pytest.raises(
        TrainingError, match=r"(?s)one batch: sample 'short', sample 'long'\..*\[4, 8\] frames.*one sample per batch"
    ):
        RegionCollator(pair.processor, on_bad_sample="skip")(samples)
    batch = RegionCollator(pair.processor, sampling=FrameSampling(num_frames=4))(samples)
    assert batch["input_ids"].shape[0] == 3
    pair.model.detach()


# -- samples that are too long -----------------------------------------------------------------------------


def length_of(pair, each):
    return int(RegionCollator(pair.processor)([each])["attention_mask"][0].sum())


def test_a_row_may_have_exactly_max_tokens(pair):
    each = one_turn()
    length = length_of(pair, each)
    assert length == RegionCollator(pair.processor, max_tokens=length)([each])["input_ids"].shape[1]
    with pytest.raises(SampleError, match=f"it has {length} tokens, max_tokens is {length - 1}"):
        RegionCollator(pair.processor, max_tokens=length - 1, on_bad_sample="skip")([each])


def test_a_long_sample_may_be_skipped_though_bad_ones_stop(pair):
    short, long = one_turn("short"), one_turn("long", "a red digit " * 20)
    collate = RegionCollator(pair.processor, max_tokens=length_of(pair, short), on_long_sample="skip")
    batch = collate([short, long])
    assert batch["sample_names"] == ("sample 'short'",)
    assert [message[:22] for message in batch["skipped"]] == ["sample 'long': it has "]
    with pytest.raises(SampleError, match="'x': it has no answer"):
        collate([short, long, sample(user("hello"), id="x")])


TURNS = sample(
    {"role": "system", "content": "be brief"},
    user(WIDE, "what is <region>?"),
    assistant("a red digit"),
    user("and <region>?"),
    assistant("a green digit, left of <region>"),
    user("sure?"),
    assistant("yes"),
    user("why?"),
    regions=[BOX, Region.from_points([(70, 40)]), BOX],
)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_dropping_turns_leaves_the_beginning_of_the_row(any_pair, turns):
    ends = [3, 5, 7]
    num_regions = [1, 3, 3][turns - 1]
    kept = sample(*TURNS.messages[: ends[turns - 1]], regions=TURNS.regions[:num_regions])
    limit = length_of(any_pair, kept)
    batch = RegionCollator(any_pair.processor, max_tokens=limit, on_long_sample="drop_turns")([TURNS])
    whole = RegionCollator(any_pair.processor)([TURNS])
    assert batch["input_ids"].shape[1] == limit
    assert torch.equal(batch["input_ids"][0], whole["input_ids"][0, :limit])
    assert torch.equal(batch["labels"][0], whole["labels"][0, :limit])
    assert batch["regions"].regions_per_sample == (num_regions,)
    assert batch["regions"].counts == whole["regions"].counts[: len(batch["regions"].counts)]


def test_a_sample_whose_first_turn_does_not_fit_is_bad(pair):
    options = {"max_tokens": 20, "on_long_sample": "drop_turns"}
    with pytest.raises(SampleError, match=r"max_tokens is 20\. Nor do fewer of its turns fit"):
        RegionCollator(pair.processor, **options)([TURNS])
    batch = RegionCollator(pair.processor, **options, on_bad_sample="skip")([TURNS])
    assert batch["sample_names"] == ()
    assert len(batch["skipped"]) == 1


def dropped_to_fit(pair, each, kept):
    """What is left of a sample whose limit is the length of `kept`."""
    collate = RegionCollator(pair.processor, max_tokens=length_of(pair, kept), on_long_sample="drop_turns")
    return collate([each])


@pytest.mark.parametrize("backbone", ["videollama3", "qwen2_5_vl"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_pictures_that_only_dropped_turns_lie_on_go_with_them(adapter, backbone):
    """All pictures stand in the first message; regions on the second image must be moved to where it is then."""
    pair = make_pair(adapter, backbone)
    second, clip = Region.from_box((3, 3, 30, 60), image_index=1), VideoRegion({2: BOX})
    messages = (
        user(WIDE, TALL, CLIP, "what is <region>?"),
        assistant("a red digit"),
        user("and <region>, left of <region>?"),
        assistant("a green digit"),
    )
    sizes = ((60, 90), (100, 50), (50, 60))
    each = sample(*messages, regions=[second, BOX, clip], media_hw=sizes)
    kept = sample(user(TALL, "what is <region>?"), messages[1], regions=[second.on_image(0)], media_hw=sizes[1:2])
    batch, expected = dropped_to_fit(pair, each, kept), RegionCollator(pair.processor)([kept])
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert batch["regions"].views[0].images_hw.tolist() == [[100, 50]]
    pair.model.detach()


def test_pictures_stay_where_a_kept_turn_without_regions_may_be_about_them(pair):
    question, answer = user(WIDE, "describe the image"), assistant("a red digit")
    each = sample(question, answer, user("what is <region>?"), assistant("green"), regions=[BOX])
    kept = sample(question, answer)
    batch, expected = dropped_to_fit(pair, each, kept), RegionCollator(pair.processor)([kept])
    assert torch.equal(batch["input_ids"], expected["input_ids"])


# -- masks in answers --------------------------------------------------------------------------------------

MASK = Region.from_polygon([5, 5, 40, 5, 40, 30])


def masked(id="m", answer="it is <seg>", *, media=(WIDE,), question="segment the digit", targets=(MASK,), **fields):
    return sample(user(*media, question), assistant(answer), id=id, regions=targets, **fields)


def test_masks_of_answers_are_in_the_batch_and_their_token_is_learnt(masking):
    samples = [
        masked("two", "[1] <seg>, [2] <seg>", targets=(MASK, MASK)),
        one_turn("none"),
        masked("both", "<seg>", question="what is right of <region>?", targets=(BOX, MASK)),
    ]
    batch = RegionCollator(masking.processor)(samples)
    end = masking.processor.tokenizer.eos_token
    expected = ["[1] <seg>, [2] <seg>" + end, "a red digit" + end, "<seg>" + end]
    assert ["".join(supervised(masking.processor, row)) for row in batch["labels"]] == expected
    assert batch["masks"].objects_per_sample == (2, 0, 1)
    assert batch["masks"].targets.masks.shape[0] == 3
    assert batch["regions"].regions_per_sample == (0, 1, 1)


def test_masks_to_learn_are_no_regions_that_are_shown(masking):
    """A batch that shows none has the dummy row; no mask is made on it."""
    batch = RegionCollator(masking.processor)([masked()])
    assert batch["input_ids"].shape[0] == 2
    assert batch["regions"].regions_per_sample == (0, 1)
    assert (batch["masks"].objects_per_sample, batch["masks"].clip_of_sample) == ((1, 0), (0, None))
    assert "masks" not in RegionCollator(masking.processor)([one_turn()])


def test_a_video_teaches_the_frames_that_something_is_known_of(masking):
    target = VideoRegion({0: MASK, 2: MASK}, absent=(3,))
    masks = RegionCollator(masking.processor)([masked(media=(CLIP,), targets=(target,))])["masks"]
    assert masks.frame_indices == ((0, 1, 2, 3),)
    absent, unknown = masks.targets.ABSENT, masks.targets.UNKNOWN
    assert masks.targets.row_of_pair.tolist() == [0, unknown, 1, absent]


def test_sizes_are_checked_whichever_way_regions_are_written():
    """Clicks stand in the question, masks are listed before it, equal ones once, and targets are not written at all."""
    pair = make_pair("unipixel", "qwen2_5_vl")
    click, other = Region.from_points([(20, 20)]), Region.from_polygon([2, 2, 9, 2, 9, 40])
    about = user(WIDE, TALL, "<region>, <region>, <region> and <region>?"), assistant("[1] <seg> right of <region>")
    each = sample(*about, id="x", regions=[other, click, MASK, other, MASK, MASK])
    collate = RegionCollator(pair.processor)
    batch = collate([each, one_turn()])
    assert batch["regions"].numbers == (0, 2, 1, 0)
    assert batch["masks"].objects_per_sample == (1, 0)
    assert collate.problem(dataclasses.replace(each, media_hw=((60, 90), None))) is None
    for wrong in (each, masked("x")):
        with pytest.raises(SampleError, match="image 0 is 90 px wide and 60 high, its record says 61 and 90"):
            collate([dataclasses.replace(wrong, media_hw=((90, 61), None))])
    pair.model.detach()


BAD_MASKS = {
    "outside": (masked("x", targets=(Region.from_box((200, 200, 220, 230)),)), "region", "region 0: The box"),
    "of another size": (masked("x", targets=(Region.from_mask(np.ones((9, 9))),)), "region", "region 0: The mask"),
    "another size is declared": (
        masked("x", media_hw=((90, 60),)),
        "size",
        "image 0 is 90 px wide and 60 high, its record says 60 and 90",
    ),
    "another size of a video is declared": (
        masked("x", media=(CLIP,), targets=(VideoRegion({0: MASK}),), media_hw=((60, 50),)),
        "size",
        "video 0 is 60 px wide and 50 high, its record says 50 and 60",
    ),
    "more markers than regions": (masked("x", "<seg><seg>"), "format", "0 <region> and 2 <seg> but 1 region was"),
    "in a question": (masked("x", "no", question="is it <seg>?"), "format", "the user's text holds <seg>"),
    "on two pictures": (
        masked("x", "<seg><seg>", media=(WIDE, TALL), targets=(MASK, MASK.on_image(1))),
        "format",
        "its <seg> lie on image 0 and image 1",
    ),
    "more than the adapter takes": (masked("x", "<seg>" * 5, targets=(MASK,) * 5), "format", "more objects than"),
    "a frame that is not there": (
        masked("x", media=(CLIP,), targets=(VideoRegion({0: MASK}, absent=(9,)),)),
        "media",
        "there is no frame 9",
    ),
}


@pytest.mark.parametrize(("bad", "kind", "reason"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_a_bad_mask_is_a_defect_of_its_sample(masking, bad, kind, reason):
    with pytest.raises(SampleError, match=f"sample 'x': .*{reason}") as raised:
        RegionCollator(masking.processor)([masked("first"), bad])
    assert [defect.kind for defect in raised.value.defects] == [kind]
    batch = RegionCollator(masking.processor, on_bad_sample="skip")([masked("first"), bad])
    assert (batch["sample_names"], batch["skipped"]) == (("sample 'first'",), (str(raised.value),))


def test_an_adapter_without_masks_says_so_of_the_sample(pair):
    with pytest.raises(SampleError, match="sample 'm': adapter 'saot' gives no masks, but an answer holds <seg>"):
        RegionCollator(pair.processor)([masked()])


def test_a_declared_size_that_is_right_is_no_defect_of_masks(masking):
    each = masked("m", "<seg>", question="right of <region>?", targets=(BOX, MASK), media_hw=((60, 90),))
    assert RegionCollator(masking.processor).problem(each) is None


@pytest.mark.parametrize("turns", [1, 2])
def test_dropped_turns_take_their_masks_and_pictures_along(masking, turns):
    messages = (
        user(WIDE, TALL, "what is <region>, and what is right of it?"),
        assistant("a red digit, and <seg>"),
        user("segment it again"),
        assistant("<seg>"),
        user("and <region>?"),
        assistant("a green digit"),
    )
    masks = (MASK.on_image(1), MASK.on_image(1))
    each = sample(*messages, regions=[BOX.on_image(1), *masks, BOX], media_hw=((60, 90), (100, 50)))
    shown = user(TALL, "what is <region>, and what is right of it?")
    kept = sample(shown, *messages[1 : 2 * turns], regions=[BOX, MASK, MASK][: turns + 1], media_hw=((100, 50),))
    batch, expected = dropped_to_fit(masking, each, kept), RegionCollator(masking.processor)([kept])
    assert torch.equal(batch["input_ids"], expected["input_ids"])
    assert batch["masks"].objects_per_sample == (turns,)
    assert batch["masks"].images_hw == ((100, 50),)


# -- settings, and other processes -------------------------------------------------------------------------

SETTINGS = {
    "max_tokens": ({"max_tokens": 0}, "max_tokens must be an integer >= 1"),
    "on_bad_sample": ({"on_bad_sample": "replace"}, "on_bad_sample must be 'error' or 'skip', got 'replace'"),
    "on_long_sample": ({"on_long_sample": "cut"}, "on_long_sample must be 'error' or 'skip' or 'drop_turns'"),
    "truncation": ({"native_options": {"truncation": True}}, "'truncation' would cut through samples"),
}


@pytest.mark.parametrize(("options", "message"), SETTINGS.values(), ids=SETTINGS)
def test_settings_that_break_a_rule_are_refused(pair, options, message):
    with pytest.raises(ConfigError, match=message):
        RegionCollator(pair.processor, **options)


def test_native_options_reach_the_native_processor(pair):
    few = RegionCollator(
        pair.processor, native_options={"images_kwargs": {"size": {"shortest_edge": 28 * 28, "longest_edge": 56 * 56}}}
    )
    assert few([one_turn(image=picture(200, 300))])["pixel_values"].shape[0] <= 16


def test_a_pickled_collator_makes_the_same_batch(pair):
    collate = RegionCollator(pair.processor, max_tokens=500)
    batch, again = collate([one_turn()]), pickle.loads(pickle.dumps(collate))([one_turn()])
    assert torch.equal(batch["input_ids"], again["input_ids"])
    assert batch["regions"].counts == again["regions"].counts


def test_a_batch_comes_out_of_another_process_as_it_was(any_pair):
    samples = [one_turn("a"), sample(user(CLIP, "<region>"), assistant("up"), regions=[VideoRegion({0: BOX, 2: BOX})])]
    collate = RegionCollator(any_pair.processor)
    (batch,) = DataLoader(samples, collate_fn=collate, num_workers=1, batch_size=2)
    here = collate(samples)
    assert len(batch["regions"].crops) == len(here["regions"].crops)
    for crop, expected in zip(batch["regions"].crops, here["regions"].crops, strict=True):
        assert torch.equal(crop, expected)
    with torch.inference_mode():
        logits = [any_pair.model(**for_model(each)).logits for each in (batch, here)]
    assert torch.equal(*logits)


def test_a_workers_error_is_the_error(pair):
    loader = DataLoader(
        [one_turn("bad", regions=())], collate_fn=RegionCollator(pair.processor), num_workers=1, batch_size=1
    )
    with pytest.raises(SampleError, match="^sample 'bad': its texts have 1 <region> but 0 regions were given"):
        next(iter(loader))


# -- lengths and their order -------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_estimates_of_texts_and_pictures_are_exact_but_for_the_template(backbone):
    pair = make_pair("saot", backbone)
    samples = [
        sample(user(picture(*hw), "describe it"), assistant(answer))
        for hw, answer in (((60, 90), "a red digit"), ((300, 100), "no"), ((150, 280), "left of the digit " * 9))
    ]
    real = np.array([length_of(pair, each) for each in samples])
    estimated = np.array([estimated_tokens(each, pair.processor) for each in samples])
    assert len(set(real - estimated)) == 1
    assert 0 < (real - estimated)[0] < 20
    pair.model.detach()


def test_estimates_count_every_region_and_frame(any_pair):
    def estimate(*regions, media=WIDE):
        each = sample(user(media, REGION_MARKER * len(regions)), assistant("yes"), regions=regions)
        marker = len(any_pair.processor.tokenizer(REGION_MARKER, add_special_tokens=False)["input_ids"])
        return estimated_tokens(each, any_pair.processor) - len(regions) * marker

    one, three = estimate(BOX), estimate(BOX, BOX, BOX)
    frames = [estimate(VideoRegion(dict.fromkeys(range(count), BOX)), media=CLIP) for count in (1, 3)]
    assert three - one == frames[1] - frames[0] > 0


def test_estimates_take_a_mask_to_learn_for_its_token(masking):
    estimates = [estimated_tokens(each, masking.processor) for each in (masked(), masked(answer="it is"))]
    assert estimates[0] - estimates[1] == 1


def test_object_only_pictures_cost_nothing_where_there_are_regions():
    pair = make_pair("oci", "videollama3")
    large = {"type": "image", "image": picture(300, 300)}
    each = sample(user(large, "<region>"), assistant("yes"), regions=[BOX])
    without = sample(user(large, "<region>"), assistant("yes"))
    assert estimated_tokens(each, pair.processor) < 60 < 400 < estimated_tokens(without, pair.processor)
    pair.model.detach()


def test_estimates_decode_no_picture(pair, tmp_path):
    whole, cut = tmp_path / "whole.png", tmp_path / "cut.png"
    Image.fromarray(picture(200, 300)).save(whole)
    cut.write_bytes(whole.read_bytes()[:200])
    estimates = [
        estimated_tokens(one_turn(image={"type": "image", "image": path}), pair.processor) for path in (whole, cut)
    ]
    assert estimates[0] == estimates[1] > 200
    declared = sample(
        user({"type": "image", "image": "nowhere.png"}, "<region>"), assistant("b"), regions=[BOX], media_hw=((60, 90),)
    )
    assert estimated_tokens(declared, pair.processor) > 20


@pytest.mark.parametrize(
    "source", ["clip.mp4", np.zeros((30, 480, 640, 3), np.uint8), [Image.new("RGB", (640, 480))] * 30], ids=type
)
def test_estimates_of_videos_follow_the_sampling(source):
    pair = make_pair("saot", "qwen2_5_vl")
    each = sample(user({"type": "video", "video": source, "fps": 2}, "what?"), assistant("up"))
    few, many = (estimated_tokens(each, pair.processor, sampling=FrameSampling(num_frames=count)) for count in (2, 200))
    assert few < estimated_tokens(each, pair.processor) < many
    pair.model.detach()


def test_estimates_fall_back_to_the_area_for_sizes_that_the_native_processor_does_not_count(pair):
    odd = sample(user(picture(1, 900), "what?"), assistant("up"))
    assert 0 < estimated_tokens(odd, pair.processor) < 20


def lengths_of_batches(order, batch_size, length_of=lambda index: index):
    return [[length_of(each) for each in order[at : at + batch_size]] for at in range(0, len(order), batch_size)]


@pytest.mark.parametrize("num_samples", [0, 1, 7, 64, 1000])
@pytest.mark.parametrize("num_processes", [1, 2])
def test_each_index_comes_once_an_epoch(num_samples, num_processes):
    sampler = LengthGroupedSampler(
        range(num_samples), batch_size=4, length_of=int, seed=0, window_batches=5, num_processes=num_processes
    )
    assert len(sampler) == num_samples
    assert sorted(sampler) == list(range(num_samples))


def random_lengths(seed=0):
    return np.random.default_rng(seed).integers(1, 1000, 1000).tolist()


def test_batches_are_of_similar_length_and_the_longest_comes_first():
    lengths = random_lengths()
    sampler = LengthGroupedSampler(lengths, batch_size=4, length_of=int, seed=0, window_batches=50)
    batches = lengths_of_batches(list(sampler), 4, lengths.__getitem__)
    shuffled = lengths_of_batches(np.random.default_rng(0).permutation(1000).tolist(), 4, lengths.__getitem__)
    padding = [1 - sum(lengths) / sum(len(each) * max(each) for each in order) for order in (batches, shuffled)]
    assert padding[0] < 0.05 < 0.3 < padding[1]
    assert max(batches[0]) == max(max(each) for each in batches[:50])
    means = [np.mean(each) for each in batches[1:50]]
    assert means not in (sorted(means), sorted(means, reverse=True))


def test_the_order_is_the_seeds_and_the_epochs():
    def order(seed, epoch):
        sampler = LengthGroupedSampler(random_lengths(), batch_size=4, length_of=int, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(3, 2) == order(3, 2)
    assert order(0, 0) not in (order(0, 1), order(5, 0))
    sampler = LengthGroupedSampler(random_lengths(), batch_size=4, length_of=int, seed=0)
    list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) == order(0, 1)


def test_no_more_than_a_window_is_measured_before_the_first_batch():
    measured = []

    def length_of(each):
        measured.append(each)
        return each % 97

    sampler = iter(LengthGroupedSampler(range(2_000_000), batch_size=4, length_of=length_of, seed=0, window_batches=10))
    first = next(sampler)
    assert len(measured) == 40
    assert first % 97 == max(each % 97 for each in measured)


def test_a_sample_that_cannot_be_measured_is_left_to_the_collator():
    def length_of(each):
        if each % 3 == 0:
            raise PromptError("no such picture")
        return each

    sampler = LengthGroupedSampler(range(30), batch_size=3, length_of=length_of, seed=0)
    batches = lengths_of_batches(list(sampler), 3)
    assert sorted(each % 3 == 0 for batch in batches for each in batch) == [False] * 20 + [True] * 10
    assert max(batches[0]) == 29
    assert sum(any(each % 3 == 0 for each in batch) for batch in batches) == 4


@pytest.mark.parametrize("name", ["batch_size", "window_batches", "num_processes"])
def test_sampler_sizes_are_at_least_one(name):
    options = {"batch_size": 4, name: 0}
    with pytest.raises(TrainingError, match=f"{name} must be an integer >= 1, got 0"):
        LengthGroupedSampler(range(3), length_of=int, seed=0, **options)


def batches_of_two_processes(lengths, **options):
    """The batches that accelerate gives each of two processes."""
    shares = []
    for process in range(2):
        sampler = LengthGroupedSampler(lengths, batch_size=5, length_of=int, seed=0, window_batches=20, **options)
        loader = prepare_data_loader(
            DataLoader(lengths, sampler=sampler, batch_size=5),
            device=torch.device("cpu"),
            num_processes=2,
            process_index=process,
            put_on_device=False,
        )
        loader.set_epoch(3)
        assert sampler.epoch == 3
        shares.append(list(loader))
    return shares


def test_two_processes_share_the_samples_and_get_batches_of_similar_length_at_once():
    def mean_gap(shares):
        return np.mean([abs(int(one.max() - other.max())) for one, other in zip(*shares, strict=True)])

    lengths = random_lengths()
    shares = batches_of_two_processes(lengths, num_processes=2)
    assert sorted(torch.cat([*shares[0], *shares[1]]).tolist()) == sorted(lengths)
    assert mean_gap(shares) < 50 < 200 < mean_gap(batches_of_two_processes(lengths, num_processes=1))


# -- random samples ----------------------------------------------------------------------------------------

WORDS = ["red", "green", "blue", "yellow", "white", "digit", "region", "left", "right", "above", "below", "yes", "no"]


class RandomSamples:
    """Conversations with pictures, videos, regions, several turns, and now and then something wrong; if asked for, with
    masks in answers."""

    def __init__(self, seed, *, with_masks=False):
        self.with_masks = with_masks
        self.rng = np.random.default_rng(seed)
        self.pictures = [picture(*hw, seed=hw[0]) for hw in ((30, 40), (60, 90), (100, 50), (120, 130))]
        self.clips = [np.stack([picture(40, 56, seed=each) for each in range(count)]) for count in (1, 3, 4)]

    def words(self, most):
        return " ".join(self.rng.choice(WORDS, self.rng.integers(1, most)))

    def box(self, hw, **where):
        y0, x0 = (int(self.rng.integers(0, side - 6)) for side in hw)
        y1, x1 = (int(self.rng.integers(low + 4, side)) for low, side in ((y0, hw[0]), (x0, hw[1])))
        return Region.from_box((x0, y0, x1, y1), **where)

    def make(self, id):
        rng = self.rng
        images = [self.pictures[each] for each in rng.integers(0, 4, rng.choice(3, p=[0.3, 0.5, 0.2]))]
        clips = [self.clips[each] for each in rng.integers(0, 3, rng.choice(2, p=[0.7, 0.3]))]
        media = [*images, *({"type": "video", "video": each, "fps": 2.0} for each in clips)]
        regions, messages = [], []
        for turn in range(rng.integers(1, 5)):
            texts = [self.words(8)]
            for _ in range(rng.integers(0, 3) if media else 0):
                regions.append(self.region(images, clips))
                texts.append(REGION_MARKER)
            answer = self.words(25)
            if self.with_masks and media and rng.random() < 0.4:
                regions.append(self.target(images, clips))
                answer += " <seg>"
            messages += [user(*(media if turn == 0 else []), " ".join(texts)), assistant(answer)]
        if rng.random() < 0.03:
            regions.append(Region.from_box((0, 0, 5, 5)))
        return sample(*messages, id=id, regions=regions)

    def target(self, images, clips):
        """On the first picture, or else the video."""
        if images:
            return self.box(images[0].shape[:2])
        frames = dict.fromkeys(self.rng.choice(len(clips[0]), self.rng.integers(1, len(clips[0]) + 1), replace=False))
        return VideoRegion({int(each): self.box(clips[0].shape[1:3]) for each in frames})

    def region(self, images, clips):
        which = int(self.rng.integers(0, len(images) + len(clips)))
        if which < len(images):
            return self.box(images[which].shape[:2], image_index=which)
        clip = clips[which - len(images)]
        frames = self.rng.choice(len(clip), self.rng.integers(1, len(clip) + 1), replace=False)
        return VideoRegion({int(each): self.box(clip.shape[1:3]) for each in frames}, which - len(images))


def answers_of(each):
    return [message["content"][0]["text"] for message in each.messages if message["role"] == "assistant"]


def require_whole_or_named(pair, samples, batch, collate):
    """What a batch must be, checked against the samples and not against how it was made."""
    tokens = batch["regions"].tokens_per_sample()
    number_slots(batch["input_ids"], pair.processor.tokens.placeholder, tokens)
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    end = pair.processor.tokenizer.eos_token
    of_name = {each.name: each for each in samples}
    skipped = [message.partition(": ")[0] for message in batch["skipped"]]
    assert sorted([*batch["sample_names"], *skipped]) == sorted(of_name)
    num_dropped = 0
    for row, name in enumerate(batch["sample_names"]):
        each = of_name[name]
        answers = supervised(pair.processor, batch["labels"][row])
        assert answers == [answer + end for answer in answers_of(each)[: len(answers)]] != []
        markers = sum(m["content"][-1]["text"].count(REGION_MARKER) for m in each.messages[: 2 * len(answers)])
        assert batch["regions"].regions_per_sample[row] == markers
        assert lengths[row] <= collate.max_tokens
        if "masks" in batch:
            num_masks = sum(answer.count(MASK_MARKER) for answer in answers)
            assert batch["masks"].objects_per_sample[row] == num_masks
            assert (batch["masks"].clip_of_sample[row] is None) == (num_masks == 0)
        num_dropped += len(answers) < len(answers_of(each))
    rows = len(batch["sample_names"])
    assert len(lengths) == rows + (not any(batch["regions"].regions_per_sample[:rows]))
    return num_dropped


def collate_random_samples(pair, *, num_samples, forward_every, with_masks=False):
    made, rng = RandomSamples(seed=0, with_masks=with_masks), np.random.default_rng(1)
    seen = {"whole": 0, "shortened": 0, "skipped": 0}
    while count := min(int(rng.integers(1, 9)), num_samples - sum(seen.values())):
        first = sum(seen.values())
        samples = [made.make(str(first + each)) for each in range(count)]
        collate = RegionCollator(
            pair.processor,
            max_tokens=int(rng.integers(40, 400)),
            on_bad_sample="skip",
            on_long_sample=str(rng.choice(["skip", "drop_turns"])),
            sampling=FrameSampling(num_frames=3),
        )
        batch = collate(samples)
        shortened = require_whole_or_named(pair, samples, batch, collate)
        if rng.random() < 1 / forward_every:
            with torch.inference_mode():
                assert torch.isfinite(pair.model(**for_model(batch)).logits).all()
        seen["shortened"] += shortened
        seen["whole"] += len(batch["sample_names"]) - shortened
        seen["skipped"] += len(batch["skipped"])
    return seen


RANDOM_PAIRS = [("saot", "videollama3"), ("oci", "qwen2_5_vl")]


@pytest.mark.parametrize(("adapter", "backbone"), RANDOM_PAIRS)
def test_500_random_samples_are_delivered_whole_or_named(adapter, backbone):
    pair = make_pair(adapter, backbone)
    seen = collate_random_samples(pair, num_samples=250, forward_every=20)
    assert min(seen.values()) >= 10
    pair.model.detach()


def test_250_random_samples_with_masks_are_delivered_whole_or_named(masking):
    seen = collate_random_samples(masking, num_samples=250, forward_every=20, with_masks=True)
    assert min(seen.values()) >= 10


@pytest.mark.slow
@pytest.mark.parametrize(("adapter", "backbone"), RANDOM_PAIRS)
def test_10000_random_samples_are_delivered_whole_or_named(adapter, backbone):
    pair = make_pair(adapter, backbone)
    seen = collate_random_samples(pair, num_samples=5000, forward_every=50)
    assert sum(seen.values()) == 5000
    assert min(seen.values()) >= 300
    pair.model.detach()
