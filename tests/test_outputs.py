"""Masks beside text: what an adapter's head is given to read, and what comes back. By an adapter that is not ours."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stencil
import torch
from conftest import assistant, picture, user
from PIL import Image
from torch.nn.functional import interpolate
from transformers import BitsAndBytesConfig, DynamicCache, LogitsProcessor, LogitsProcessorList, TextStreamer

from pixelrefer_plugin import (
    AttachError,
    PromptError,
    Region,
    RegionModel,
    RegionProcessor,
    SpliceError,
    TokenIds,
    VideoRegion,
    attach,
    get_adapter,
    get_backbone,
    load,
)
from pixelrefer_plugin.authoring import Clips, PredictedMasks, Shapes
from pixelrefer_plugin.errors import PluginCodeError
from pixelrefer_plugin.masks.hidden_states import GeneratedStates, TaughtStates, captured_hidden
from pixelrefer_plugin.masks.mask_batch import MaskBatch
from pixelrefer_plugin.masks.objects import ForcedMask, find_mentions, segmented_objects, used_clips
from pixelrefer_plugin.tokens.splice import spliced
from pixelrefer_plugin.weights.lora import is_lora

BACKBONES = ("videollama3", "qwen2_5_vl", "llava_onevision")
BOX = Region.from_box((5, 5, 40, 30))
WIDE, TALL = picture(60, 90), picture(80, 50, seed=1)
QUESTIONS = [
    ([user(WIDE, "which digit is in the region? segment the digit")], []),
    ([user(TALL, "segment it")], []),
    ([user(WIDE, "segment <region> in the image")], [BOX]),
]
FRAMES = np.stack([picture(48, 64, seed=seed) for seed in range(5)])
VIDEO = {"type": "video", "video": FRAMES, "fps": 2.0}


@pytest.fixture(autouse=True)
def _stencil_is_installed(monkeypatch):
    stencil.install(monkeypatch)


@dataclass
class Made:
    """A tiny model that gives masks, and what its head was given to read."""

    model: RegionModel
    processor: RegionProcessor
    native: Any
    hidden: list

    @property
    def token(self):
        return self.processor.tokens.mask

    def ask(self, *which, **options):
        """Inputs of one question or of several."""
        conversations, regions = zip(*(QUESTIONS[each] for each in which), strict=True)
        return self.processor(list(conversations), list(regions), segment=True, **options)

    def generate(self, inputs, *answers, **options):
        """Each sample is answered by the text given for it; without any, freely."""
        tokens = (getattr(self.native, name, None) for name in ("image_token", "video_token"))
        media = [self.processor.tokenizer.convert_tokens_to_ids(token) for token in tokens if token]
        options = {"do_sample": False, "suppress_tokens": media, "max_new_tokens": 24, **options}
        if answers:
            options["logits_processor"] = LogitsProcessorList([Say(self.processor, inputs, answers)])
        return self.model.generate(**inputs, **options)


class Say(LogitsProcessor):
    def __init__(self, processor, inputs, answers):
        self.start = inputs["input_ids"].shape[1]
        self.end = processor.tokenizer.eos_token_id
        self.answers = [processor.tokenizer(each, add_special_tokens=False)["input_ids"] for each in answers]

    def __call__(self, input_ids, scores):
        at, copies = input_ids.shape[1] - self.start, len(input_ids) // len(self.answers)
        said = torch.full_like(scores, -torch.inf)
        for row in range(len(input_ids)):
            answer = self.answers[row // copies]
            said[row, answer[at] if at < len(answer) else self.end] = 0
        return said


class Favour(LogitsProcessor):
    """Makes the mask's token likely at every third step, so that a random model says it among other things."""

    def __init__(self, token):
        self.token = token

    def __call__(self, input_ids, scores):
        scores = scores.clone()
        scores[:, self.token] += 20.0 if input_ids.shape[1] % 3 == 0 else -20.0
        return scores


def made(backbone="videollama3", **options):
    bare, native = get_backbone(backbone).tiny(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, processor = attach(bare, native, adapter="stencil", adapter_config=options or None)
    with torch.no_grad():
        model.adapter.judge.bias.copy_(torch.tensor([0.0, 2.0]))  # whatever is named is there
        model.adapter.eye.weight.copy_(torch.tensor([[4.0, -3.0, -1.0]]))
        model.adapter.eye.bias.zero_()
    return watched(Made(model.eval(), processor, native, []))


def made_unipixel(backbone="videollama3"):
    bare, native = get_backbone(backbone).tiny(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, processor = attach(bare, native, adapter="unipixel", adapter_config=get_adapter("unipixel").tiny)
    return watched(Made(model.eval(), processor, native, []))


def watched(pair):
    predict = pair.model.adapter.predict_masks

    def watch(hidden, clips, clip_of_object):
        pair.hidden.append(hidden.detach().clone())
        return predict(hidden, clips, clip_of_object)

    pair.model.adapter.predict_masks = watch
    return pair


@pytest.fixture
def pair():
    pair = made()
    yield pair
    pair.model.detach()


def behind_last_layer(pair, inputs, answer):
    """`(length, D)`: what the decoder's last layer gives for one sample's prompt and answer, run as a whole."""
    kept = []
    decoder = pair.model.backbone.get_submodule(pair.model.backbone_spec.parts.decoder)
    hook = decoder.layers[-1].register_forward_hook(
        lambda module, args, output: kept.append(output[0] if isinstance(output, tuple) else output)
    )
    whole = {name: value for name, value in inputs.items() if name not in ("masks", "labels")}
    whole["input_ids"] = torch.cat([inputs["input_ids"], answer[None]], dim=1)
    for name in ("attention_mask", "mm_token_type_ids", "token_type_ids"):
        if name in whole:
            more = torch.full((1, len(answer)), int(name == "attention_mask"))
            whole[name] = torch.cat([whole[name], more], dim=1)
    with torch.no_grad():
        pair.model(**whole)
    hook.remove()
    return kept[0][0]


def expected_hidden(pair, inputs, generated, which):
    """The states that predicted the masks' tokens, each sample run by itself, without padding, as a whole."""
    start = inputs["input_ids"].shape[1]
    copies = len(generated.sequences) // len(which)
    states = []
    for row, sequence in enumerate(generated.sequences):
        alone = pair.ask(which[row // copies])
        answer = sequence[start:]
        at = torch.nonzero(answer == pair.token)[:, 0]
        if len(at):
            whole = behind_last_layer(pair, alone, answer)
            states.append(whole[alone["input_ids"].shape[1] + at - 1])
    return torch.cat(states)


WAYS = {
    "greedy": {},
    "no cache": {"use_cache": False},
    "sampling": {"do_sample": True},
    "several samples of one": {"do_sample": True, "num_return_sequences": 3},
    "several samples without cache": {"do_sample": True, "num_return_sequences": 2, "use_cache": False},
    "beams": {"num_beams": 3},
    "all beams": {"num_beams": 3, "num_return_sequences": 3},
    "beams without cache": {"num_beams": 3, "num_return_sequences": 2, "use_cache": False},
    "sampled beams": {"num_beams": 2, "num_return_sequences": 2, "do_sample": True},
    "a static cache": {"cache_implementation": "static"},
    "a prompt in pieces": {"prefill_chunk_size": 16},
}


class TestWhatIsRead:
    @pytest.mark.parametrize("backbone", BACKBONES)
    @pytest.mark.parametrize("way", WAYS)
    def test_it_is_the_state_that_predicts_the_token(self, backbone, way):
        """Behind the last layer, before the norm; in a padded batch as alone."""
        pair, which = made(backbone), [0, 1, 2]
        inputs = pair.ask(*which)
        assert (inputs["attention_mask"][:, 0] == 0).any()  # padded on the left
        torch.manual_seed(3)
        options = {"max_new_tokens": 10, "min_new_tokens": 5, "return_dict_in_generate": True, **WAYS[way]}
        generated = pair.generate(inputs, logits_processor=LogitsProcessorList([Favour(pair.token)]), **options)
        assert len(pair.hidden) == 1
        assert sum(map(len, generated.objects)) == len(pair.hidden[0]) >= 3
        beams = getattr(generated.generated, "beam_indices", None)
        assert (beams is not None) == ("beams" in way)
        assert beams is None or (beams.diff(dim=1)[beams[:, 1:] >= 0] != 0).any()  # beams went over into one another
        expected = expected_hidden(pair, inputs, generated, which)
        torch.testing.assert_close(pair.hidden[0], expected, rtol=1e-3, atol=1e-4)

    def test_guessed_tokens_are_read_where_they_are_right(self, pair):
        """Prompt lookup computes positions whose tokens are then thrown away."""
        inputs = pair.ask(0)
        passes = []
        hook = pair.model.backbone.register_forward_pre_hook(lambda *_: passes.append(1))
        answer = "segment the <seg> which digit is <seg> segment the digit <seg> in the region <seg>"
        generated = pair.generate(inputs, answer, prompt_lookup_num_tokens=3, max_new_tokens=40)
        hook.remove()
        assert len(generated.objects[0]) == 4
        assert len(passes) < generated.sequences.shape[1] - inputs["input_ids"].shape[1]  # some guesses were right
        expected = expected_hidden(pair, inputs, generated, [0])
        torch.testing.assert_close(pair.hidden[0], expected, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_learning_reads_the_same_states(self, backbone):
        pair = made(backbone)
        question, regions = QUESTIONS[2]
        conversation = [*question, assistant("[1] <seg>, and <seg>")]
        inputs = pair.processor(conversation, [*regions, BOX, BOX], labels=True)
        pair.model(**inputs)
        at = torch.nonzero(inputs["input_ids"][0] == pair.token)[:, 0]
        whole = behind_last_layer(pair, inputs, inputs["input_ids"][0, :0])
        torch.testing.assert_close(pair.hidden[0], whole[at - 1], rtol=0, atol=0)

    def test_the_answers_end_is_not_read_on(self, pair):
        """What follows the token that ends an answer is padding."""
        generated = pair.generate(pair.ask(0, 1), "[1] <seg>", "<seg> or <seg> and <seg>")
        assert [len(each) for each in generated.objects] == [1, 3]

    def test_the_prompts_own_tokens_are_not_read(self, pair):
        inputs = pair.ask(0)
        for name in ("input_ids", "attention_mask", "mm_token_type_ids"):
            if name in inputs:
                more = torch.full((1, 1), {"input_ids": pair.token, "attention_mask": 1}.get(name, 0))
                inputs[name] = torch.cat([inputs[name], more], dim=1)
        assert pair.generate(inputs, "yes").objects == [[]]
        assert pair.model.adapter.pictures == 0


class TestWhatComesBack:
    def test_a_mask_for_each_token_at_original_size(self, pair):
        generated = pair.generate(pair.ask(0, 1, 2), "[1] <seg>, and [12] <seg>", "yes", "the digit <seg>")
        assert [[each.id for each in row] for row in generated.objects] == [[1, 12], [], [None]]
        for row, hw in ((0, (60, 90)), (2, (60, 90))):
            for each in generated.objects[row]:
                assert each.region.to_mask(hw).area > 0
                assert each.presence.keys() == {0}
                assert 0.5 < each.presence[0] < 1
                assert 0 < each.score < 1
        texts = pair.processor.decode(generated, pair.ask(0, 1, 2))
        assert texts == ["[1] <seg>, and [12] <seg>", "yes", "the digit <seg>"]

    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_a_batch_is_what_its_samples_are(self, backbone):
        pair = made(backbone)
        answers = ["[1] <seg> or <seg>", "[2] <seg>", "<seg>"]
        together = pair.generate(pair.ask(0, 1, 2), *answers)
        for which, answer in enumerate(answers):
            (alone,) = pair.generate(pair.ask(which), answer).objects
            for one, other in zip(together.objects[which], alone, strict=True):
                assert one.id == other.id
                assert one.score == pytest.approx(other.score, abs=1e-4)
                assert one.presence == pytest.approx(other.presence, abs=1e-4)
                assert iou_of(one.region, other.region, [(60, 90), (80, 50), (60, 90)][which]) > 0.99

    def test_several_answers_to_one_question(self, pair):
        inputs = pair.ask(0, 1)
        generated = pair.generate(inputs, "<seg>", "[3] <seg>", do_sample=True, num_return_sequences=2)
        assert [[each.id for each in row] for row in generated.objects] == [[None], [None], [3], [3]]
        assert generated.objects[2] == generated.objects[3]
        generated.objects[2][0].region.to_mask((80, 50))

    def test_an_object_of_a_video_on_its_sampled_frames(self, pair):
        conversation = [user(VIDEO, "segment the digit")]
        inputs = pair.processor(conversation, segment=True)
        (indices,) = inputs["masks"].frame_indices
        ((found,),) = pair.generate(inputs, "[4] <seg>").objects
        assert isinstance(found.region, VideoRegion)
        assert tuple(found.region.frames) == tuple(found.presence) == indices
        areas = [region.to_mask((48, 64)).area for region in found.region.frames.values()]
        assert len(set(areas)) > 1
        assert pair.model.adapter.pictures == len(indices)

    def test_pictures_are_looked_at_once_and_only_where_a_mask_is_given(self, pair):
        pair.generate(pair.ask(0, 1, 2), "yes", "yes", "no")
        assert (pair.model.adapter.pictures, pair.model.adapter.objects) == (0, 0)
        pair.generate(pair.ask(0, 1, 1), "yes", "<seg> <seg> <seg>", "<seg>")
        assert (pair.model.adapter.pictures, pair.model.adapter.objects) == (1, 4)  # rows of one picture share it

    def test_text_is_streamed_as_it_comes(self, pair, capsys):
        streamer = TextStreamer(pair.processor.tokenizer, skip_prompt=True)
        generated = pair.generate(pair.ask(0), "[1] <seg> yes", streamer=streamer)
        assert "[1] <seg> yes" in capsys.readouterr().out
        assert [each.id for each in generated.objects[0]] == [1]

    def test_without_masks_generate_returns_what_it_does(self, pair):
        inputs = pair.processor(QUESTIONS[0][0])
        assert "masks" not in inputs
        ids = pair.generate(inputs, "[1] <seg>")
        assert isinstance(ids, torch.Tensor)
        assert torch.equal(ids, pair.generate(pair.ask(0), "[1] <seg>").sequences)
        assert pair.model.adapter.pictures == 3 - 2

    def test_the_backbones_own_output_is_kept_where_it_is_asked_for(self, pair):
        assert pair.generate(pair.ask(0), "<seg>").generated is None
        generated = pair.generate(pair.ask(0), "<seg>", return_dict_in_generate=True, output_scores=True)
        assert generated.generated.sequences is generated.sequences
        assert len(generated.generated.scores) == 2

    def test_a_row_without_a_picture_of_its_own_gives_no_masks(self, pair):
        inputs = pair.ask(0, 1)
        inputs["masks"] = replace(inputs["masks"], clip_of_sample=(None, inputs["masks"].clip_of_sample[1]))
        generated = pair.generate(inputs, "<seg>", "<seg>")
        assert [len(each) for each in generated.objects] == [0, 1]
        generated = pair.generate(inputs, force_mask=True, max_new_tokens=4)
        assert [(row == pair.token).any().item() for row in generated.sequences] == [False, True]


def iou_of(one, other, hw):
    one, other = (each.to_mask(hw).dense() for each in (one, other))
    return (one & other).sum() / (one | other).sum()


# -- from tokens and logits to objects, by themselves ------------------------------------------------------------


def masks_of(token_id=9, *, clips=((60, 90), None), texts=None, **changes):
    """A `MaskBatch` of empty pictures; `clips` is sizes and frames, in turns."""
    sizes, frames = clips[::2], clips[1::2]
    lengths = tuple(len(each) if each else 1 for each in frames)
    batch = MaskBatch(
        adapter="stencil",
        token_id=token_id,
        clips=Clips(torch.arange(sum(lengths)).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).byte(), lengths),
        clip_of_sample=tuple(range(len(sizes))),
        images_hw=tuple(sizes),
        frame_indices=tuple(frames),
        media_index=(0,) * len(sizes),
        objects_per_sample=(0,) * len(sizes),
        id_texts=texts or {},
    )
    return replace(batch, **changes)


@pytest.mark.parametrize(
    ("tokens", "number"),
    [
        ("[ 1 ] _ S", 1),
        ("[ 1 2 ] S", 12),
        ("a [ 3 ] _ _ S", 3),
        ("[ _ 4 _ ] S", 4),
        ("[ 0 ] S", 0),
        ("S", None),
        ("a S", None),
        ("[ 1 ] a S", None),
        ("[ ] S", None),
        ("1 ] S", None),
        ("[ 1 S", None),
        ("[ 1 ] [ 2 ] S", 2),
        ("[ 1 _ 2 ] S", None),
        ("[ " + "1 " * 30 + "] S", None),
    ],
)
def test_an_objects_number_stands_right_before_its_mask(tokens, number):
    ids = {name: index for index, name in enumerate("[]_S123a40")}
    texts = {ids[name]: " " if name == "_" else name for name in "[]_12340"}
    sequence = torch.tensor([[0, *(ids[name] for name in tokens.split())]])
    (mention,) = find_mentions(sequence, masks_of(ids["S"], texts=texts), start=1)
    assert (mention.row, mention.id) == (0, number)
    assert sequence[0, mention.column] == ids["S"]


def test_each_mask_has_the_number_before_it():
    texts = {1: "[", 2: "]", 3: "7", 4: "8"}
    sequence = torch.tensor([[9, 1, 3, 2, 9, 9, 1, 4, 2, 9], [0] * 10])
    found = find_mentions(sequence, masks_of(9, texts=texts), start=1)
    assert [(each.row, each.column, each.id) for each in found] == [(0, 4, 7), (0, 5, None), (0, 9, 8)]


class TestRegions:
    def objects(self, predicted, masks, *clips):
        return segmented_objects(predicted, masks, ids=[None] * len(clips), clip_of_object=clips)

    def test_masks_are_resized_as_logits(self):
        logits = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(0))
        predicted = PredictedMasks(logits, torch.tensor([0.75]), torch.tensor([3.0]))
        (found,) = self.objects(predicted, masks_of(), 0)
        expected = interpolate(logits[None], (60, 90), mode="bilinear", align_corners=False)[0, 0] > 0
        assert np.array_equal(found.region.to_mask((60, 90)).dense(), expected.numpy())
        assert found.score == 0.75
        assert found.presence == {0: pytest.approx(torch.tensor(3.0).sigmoid().item())}

    def test_where_it_is_absent(self):
        """By the head's word, or for want of a pixel; the score is that of the frames where it is seen."""
        logits = torch.ones(5, 4, 4)
        logits[3] = -1
        presence = torch.tensor([0.1, -1.0, 0.0, 5.0, 2.0])
        predicted = PredictedMasks(logits, torch.tensor([0.5, 0.9, 0.9, 0.9, 0.7]), presence)
        masks = masks_of(clips=((20, 30), (0, 4, 8, 12, 16)), media_index=(2,))
        (found,) = self.objects(predicted, masks, 0)
        assert list(found.region.frames) == [0, 16]
        assert found.region.video_index == 2
        assert found.score == pytest.approx(0.6)
        assert found.presence == pytest.approx(dict(zip((0, 4, 8, 12, 16), presence.sigmoid().tolist(), strict=True)))

    @pytest.mark.parametrize(("logit", "presence"), [(-1.0, 3.0), (1.0, -3.0)], ids=["empty", "absent"])
    @pytest.mark.parametrize("frames", [None, (3,)], ids=["image", "video"])
    def test_one_that_is_nowhere_has_no_region(self, logit, presence, frames):
        predicted = PredictedMasks(torch.full((1, 2, 2), logit), torch.tensor([0.9]), torch.tensor([presence]))
        (found,) = self.objects(predicted, masks_of(clips=((8, 8), frames)), 0)
        assert found.region is None
        assert found.score == 0
        assert found.presence.keys() == {3 if frames else 0}

    def test_scores_are_clamped(self):
        predicted = PredictedMasks(torch.ones(2, 2, 2), torch.tensor([1.4, -0.2]), torch.ones(2))
        assert [each.score for each in self.objects(predicted, masks_of(), 0, 0)] == [1.0, 0.0]

    def test_objects_of_several_clips(self):
        masks = masks_of(clips=((8, 8), (0, 1), (4, 6), None), media_index=(0, 3))
        predicted = PredictedMasks(torch.ones(5, 2, 2, dtype=torch.bfloat16), torch.ones(5), torch.ones(5))
        first, second, third = self.objects(predicted, masks, 0, 1, 0)
        assert [list(each.region.frames) for each in (first, third)] == [[0, 1]] * 2
        assert second.region.image_index == 3
        assert second.region.to_mask((4, 6)).area == 24

    @pytest.mark.parametrize(
        "shapes",
        [((2, 4, 4), (1,), (1,)), ((1, 1, 4, 4), (1,), (1,)), ((1, 4, 4), (1, 1), (1,)), ((1, 4, 4), (1,), (2,))],
    )
    def test_a_head_that_breaks_its_promise_is_named(self, shapes):
        predicted = PredictedMasks(*map(torch.ones, shapes))
        with pytest.raises(SpliceError, match=r"'stencil' must predict 1 masks.*logits \(1, h, w\)"):
            self.objects(predicted, masks_of(), 0)


def test_clips_without_objects_are_left_out():
    clips = masks_of(clips=((8, 8), (0, 1), (8, 8), None, (8, 8), (5, 6, 7))).clips
    assert used_clips(clips, [2, 0, 1]) == (clips, [2, 0, 1])
    fewer, of_object = used_clips(clips, [2, 0, 2])
    assert fewer.lengths == (2, 3)
    assert fewer.pixels[:, 0, 0, 0].tolist() == [0, 1, 3, 4, 5]
    assert of_object == [1, 0, 1]


# -- force ------------------------------------------------------------------------------------------------------


class TestForce:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"do_sample": True, "num_return_sequences": 2},
            {"num_beams": 2},
            {"num_beams": 2, "num_return_sequences": 2, "do_sample": True},
            {"use_cache": False},
            {"prompt_lookup_num_tokens": 2},
            {"max_new_tokens": 1},
        ],
        ids=str,
    )
    def test_every_answer_gives_a_mask(self, pair, options):
        which = [0] if "prompt_lookup_num_tokens" in options else [0, 1]
        inputs = pair.ask(*which)
        torch.manual_seed(0)
        plain = pair.generate(inputs, **options)
        assert not any(plain.objects)
        generated = pair.generate(inputs, force_mask=True, **options)
        assert all(len(each) == 1 for each in generated.objects)
        expected = expected_hidden(pair, inputs, generated, which)
        torch.testing.assert_close(pair.hidden[-1], expected, rtol=1e-3, atol=1e-4)

    def test_the_end_makes_room_and_the_answer_goes_on(self, pair):
        """One row would end, one has a mask already, one comes to the last token."""
        end = pair.processor.tokenizer.eos_token_id
        forced = ForcedMask(9, end_ids=[end, 3], start=2, max_length=6, wanted=[True, True, True])
        scores = torch.randn(3, 500, generator=torch.Generator().manual_seed(0))
        scores[:, end] = 11.0
        rows = torch.tensor([[9, 9, 5, 5], [1, 1, 9, 5], [1, 1, 5, 9]])
        changed = forced(rows, scores)
        assert changed[0].argmax() == 9
        assert changed[0, 9] == 11
        assert changed[0, [end, 3]].tolist() == [-torch.inf] * 2
        assert torch.equal(changed[1:], scores[1:])
        last = forced(torch.cat([rows, torch.ones_like(rows[:, :1])], dim=1), scores)
        assert last[0].argmax() == 9
        assert torch.isinf(last[0]).sum() == 499
        assert torch.equal(last[1:], scores[1:])

    def test_a_likelier_mask_keeps_its_score(self):
        forced = ForcedMask(1, end_ids=[0], start=0, max_length=9, wanted=[True])
        assert forced(torch.tensor([[2]]), torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [[-torch.inf, 2.0, 3.0]]

    def test_an_answer_that_gives_masks_is_left_alone(self, pair):
        inputs = pair.ask(0)
        favour = LogitsProcessorList([Favour(pair.token)])
        plain = pair.generate(inputs, logits_processor=favour)
        forced = pair.generate(inputs, logits_processor=favour, force_mask=True)
        assert torch.equal(plain.sequences, forced.sequences)

    @pytest.mark.parametrize("name", ["max_length", "generation_config"])
    def test_the_length_may_be_said_otherwise(self, pair, name):
        from transformers import GenerationConfig

        inputs = pair.ask(0)
        length = inputs["input_ids"].shape[1] + 3
        given = length if name == "max_length" else GenerationConfig(max_new_tokens=3, do_sample=False)
        generated = pair.model.generate(**inputs, force_mask=True, **{name: given})
        assert generated.sequences.shape[1] <= length
        assert len(generated.objects[0]) == 1

    def test_what_it_needs_is_asked_for(self, pair):
        with pytest.raises(PromptError, match=r"force_mask=True needs the pictures.*processor\(..., segment=True\)"):
            pair.model.generate(**pair.processor(QUESTIONS[0][0]), force_mask=True)
        with pytest.raises(PromptError, match=r"how long an answer may be. Pass max_new_tokens"):
            pair.model.generate(**pair.ask(0), force_mask=True)


# -- learning ----------------------------------------------------------------------------------------------------


def lesson(pair, *, video=False, **options):
    """A batch in which the first sample has two masks to learn, the second none."""
    first = [user(WIDE, "which digits are there?"), assistant("[1] <seg> and [2] <seg>")]
    regions = [BOX, Region.from_box((50, 10, 80, 50))]
    if video:
        first = [user(VIDEO, "which digits are there?"), assistant("[1] <seg> and [2] <seg>")]
        regions = [VideoRegion({0: BOX}, absent=(2,)), VideoRegion({0: BOX, 3: BOX})]
    second = [user(TALL, "what is <region>?"), assistant("a digit")]
    return pair.processor([first, second], [regions, [BOX]], labels=True, **options)


class TestLearning:
    def test_the_loss_is_the_sum(self, pair):
        inputs = lesson(pair)
        output = pair.model(**inputs)
        assert output.loss.requires_grad
        assert not output["mask_loss"].requires_grad
        assert set(output.mask_losses) == {"shape", "presence"}
        assert output["mask_loss"].item() == pytest.approx(sum(each.item() for each in output.mask_losses.values()))
        labels = inputs.pop("labels")
        bare = pair.model(**inputs)
        words = pair.model.backbone.loss_function(bare.logits, labels, vocab_size=bare.logits.shape[-1])
        assert output.loss.item() == pytest.approx(words.item() + output.mask_loss.item(), abs=1e-5)
        assert torch.equal(bare.logits, output.logits)

    @pytest.mark.parametrize("divisor", [4, torch.tensor(4)], ids=["number", "tensor"])
    def test_it_is_divided_by_the_objects_of_the_step(self, pair, divisor):
        inputs = lesson(pair)
        own, of_step = pair.model(**inputs), pair.model(**inputs, num_objects_in_batch=divisor)
        assert of_step.mask_loss.item() == pytest.approx(own.mask_loss.item() / 2)
        assert (own.loss - own.mask_loss).item() == pytest.approx((of_step.loss - of_step.mask_loss).item())

    def test_a_batch_costs_what_its_samples_do(self, pair):
        """Objects on a video of five frames, on none, and on an image: each finds its own clip."""
        video = (
            [user(VIDEO, "segment them"), assistant("<seg> and <seg>")],
            [VideoRegion({1: BOX}), VideoRegion({3: BOX})],
        )
        words = [user(TALL, "what is <region>?"), assistant("a digit")], [BOX]
        image = [user(TALL, "segment it"), assistant("[1] <seg>")], [Region.from_box((10, 50, 40, 80))]

        def costs(*samples):
            conversations, regions = zip(*samples, strict=True)
            return pair.model(**pair.processor(list(conversations), list(regions), labels=True)).mask_losses

        together, alone = costs(video, words, image), [costs(video), costs(image)]
        for name, cost in together.items():
            assert cost.item() == pytest.approx((2 * alone[0][name] + alone[1][name]).item() / 3, abs=1e-4)

    def test_tokens_of_the_step_are_the_backbones(self, pair):
        inputs = lesson(pair)
        words = [
            output.loss - output.mask_loss
            for output in (pair.model(**inputs), pair.model(**inputs, num_items_in_batch=torch.tensor(1000)))
        ]
        tokens = (inputs["labels"][:, 1:] != -100).sum().item()
        assert words[1].item() == pytest.approx(words[0].item() * tokens / 1000, rel=1e-3)

    @pytest.mark.filterwarnings("ignore:.*checkpointing.*deprecated:FutureWarning")  # the name that all versions know
    @pytest.mark.parametrize("video", [False, True], ids=["image", "video"])
    @pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointed"])
    def test_gradients_reach_what_masks_are_made_of(self, pair, video, checkpointing):
        pair.model.add_lora(r=2)
        if checkpointing:
            pair.model.train()
            pair.model.backbone.gradient_checkpointing_enable({"use_reentrant": False})
        output = pair.model(**lesson(pair, video=video), use_cache=False)
        trained = {name: each for name, each in pair.model.named_parameters() if each.requires_grad}
        assert not [name for name in trained if not name.startswith("adapter.") and not is_lora(name)]
        grads = torch.autograd.grad(output.loss, list(trained.values()), allow_unused=True)
        got = dict(zip(trained, grads, strict=True))
        assert all(each is not None for each in got.values())
        for part in ("adapter.cut.weight", "adapter.judge.weight", "adapter.eye.weight", "adapter.region.weight"):
            assert got[part].abs().sum() > 0
        rows = [each for name, each in got.items() if "trainable_tokens_delta" in name]
        assert rows
        assert any(each.abs().sum() > 0 for each in rows)

    def test_the_masks_teach_the_decoder(self, pair):
        """Through the states that are read: without the words' own loss."""
        pair.model.add_lora(r=2)
        hidden = []
        learn = pair.model.adapter.mask_losses
        pair.model.adapter.mask_losses = lambda states, *rest: learn(hidden.append(states) or states, *rest)
        pair.model(**lesson(pair))
        last = [p for n, p in pair.model.named_parameters() if "layers.0" in n and "lora_B" in n]
        grads = torch.autograd.grad(hidden[0].sum(), last, allow_unused=True)
        assert any(each is not None and each.abs().sum() > 0 for each in grads)

    def test_every_parameter_has_a_gradient_whatever_the_batch_holds(self, pair):
        text = [[user("what is it?"), assistant("a digit")]]
        pair.model(**pair.processor(text, labels=True)).loss.backward()
        assert all(each.grad is not None and not each.grad.any() for each in pair.model.adapter.parameters())
        output = pair.model(**pair.processor(text, labels=True))
        assert output.mask_loss == 0
        assert output.mask_losses == {}

    def test_nothing_is_added_without_labels(self, pair):
        inputs = lesson(pair)
        del inputs["labels"]
        output = pair.model(**inputs)
        assert output.loss is None
        assert "mask_loss" not in output
        assert pair.model.adapter.pictures == 0

    def test_pictures_without_masks_are_not_looked_at(self, pair):
        pair.model(**lesson(pair))
        assert pair.model.adapter.pictures == 1

    def test_it_learns(self, pair):
        pair.model.add_lora(r=4)
        inputs = lesson(pair)
        optimizer = torch.optim.AdamW([each for each in pair.model.parameters() if each.requires_grad], lr=1e-2)
        losses = []
        for _ in range(12):
            output = pair.model(**inputs)
            output.loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(output.mask_loss.item())
        assert losses[-1] < 0.7 * losses[0]

    def test_an_output_can_be_taken_apart_and_put_together(self, pair):
        """As distributed training and mixed precision do."""
        from accelerate.utils import convert_to_fp32
        from torch.utils._pytree import tree_flatten, tree_unflatten

        output = pair.model(**lesson(pair))
        leaves, spec = tree_flatten(output)
        for again in (tree_unflatten(leaves, spec), convert_to_fp32(output)):
            assert again.mask_loss == output.mask_loss
            assert again["loss"] == output.loss
            assert again.mask_losses.keys() == output.mask_losses.keys()
        assert type(pair.model(**lesson(pair))) is type(output)


SEQUENCES = ("input_ids", "attention_mask", "labels", "mm_token_type_ids")


class TestRefusals:
    def test_a_token_that_was_cut_off(self, pair):
        inputs = lesson(pair)
        last = int(torch.nonzero(inputs["input_ids"][0] == pair.token)[-1])
        short = {name: inputs[name][:, :last] for name in SEQUENCES if name in inputs}
        with pytest.raises(SpliceError, match=r"Sample 0 has 2 masks to learn, but its text has 1.*Was it truncated"):
            pair.model(**{**inputs, **short})

    def test_a_token_with_nothing_before_it(self, pair):
        inputs = lesson(pair)
        first = int(torch.nonzero(inputs["input_ids"][0] == pair.token)[0])
        short = {name: inputs[name][:, first:] for name in SEQUENCES if name in inputs}
        del inputs["regions"]
        with pytest.raises(SpliceError, match=r"its text has 2 tokens for them, one of them with nothing before it"):
            pair.model(**{**inputs, **short})

    @pytest.mark.parametrize("lost", ["masks", "targets"])
    def test_masks_that_were_dropped_on_the_way(self, pair, lost):
        inputs = lesson(pair)
        if lost == "masks":
            del inputs["masks"]
        else:
            inputs["masks"] = replace(inputs["masks"], targets=None)
        with pytest.raises(SpliceError, match="give masks, but it has none to learn from. Was 'masks' dropped"):
            pair.model(**inputs)

    def test_masks_of_another_adapter(self, pair):
        from pixelrefer_plugin.testing import make_pair

        other = make_pair("maskpool", "videollama3")
        inputs = pair.ask(0)
        for run in (other.model, other.model.generate):
            with pytest.raises(SpliceError, match="masks are of adapter 'stencil', this model has 'maskpool'"):
                run(**inputs)
        other.model.detach()

    def test_masks_of_another_batch(self, pair):
        inputs = pair.ask(0, 1)
        inputs["masks"] = pair.ask(0)["masks"]
        with pytest.raises(SpliceError, match="masks are of 1 samples, but input_ids has 2 rows"):
            pair.model.generate(**inputs)

    @pytest.mark.parametrize("losses", [{}, {"all": torch.zeros(())}, {"one": torch.zeros(2), "other": torch.zeros(1)}])
    def test_losses_that_are_not_of_each_object(self, pair, losses):
        pair.model.adapter.mask_losses = lambda *args: losses
        with pytest.raises(SpliceError, match=r"'stencil' must return a loss of each of 2 objects"):
            pair.model(**lesson(pair))

    def test_a_norm_that_is_elsewhere(self, monkeypatch):
        from pixelrefer_plugin import model as model_module

        spec = get_backbone("videollama3")
        bare, native = spec.tiny(0)

        def serve(**parts):
            changed = replace(spec, parts=replace(spec.parts, **parts))
            monkeypatch.setattr(model_module, "backbone_for", lambda *_: changed)

        serve(final_norm="model.last_norm")
        with pytest.raises(AttachError, match="looks for its final_norm at 'model.last_norm'"):
            attach(bare, native, adapter="stencil")
        serve(decoder="model")  # norms elsewhere
        with pytest.raises(AttachError, match=r"final_norm at 'model.norm'.*Set Parts.final_norm"):
            attach(bare, native, adapter="stencil")
        attach(bare, native, adapter="maskpool")[0].detach()  # which reads no hidden states
        serve(final_norm="model.vision_model.post_layernorm")  # which is not called
        model, processor = attach(bare, native, adapter="stencil")
        pair = Made(model.eval(), processor, native, [])
        text = pair.processor([user("segment it")])
        inputs = {**text, "masks": pair.ask(0)["masks"]}
        with pytest.raises(SpliceError, match="final norm was not called.*`final_norm` path must name"):
            pair.generate(inputs, "<seg>")
        model.detach()

    def test_a_position_that_no_pass_came_by(self):
        reader = GeneratedStates(first=3)
        reader.keep(torch.zeros(1, 5, 2), start=0, cached=True)
        assert reader.states([0], [3]).shape == (1, 2)
        with pytest.raises(SpliceError, match="state at position 7 was not seen.*decoder token by token"):
            reader.states([0, 0], [3, 7])

    def test_sequences_that_the_decoder_sees_otherwise(self):
        reader = TaughtStates(torch.tensor([0]), torch.tensor([2]), (1, 4))
        with pytest.raises(SpliceError, match=r"given \(1, 3\) positions for input_ids of shape \(1, 4\)"):
            reader.keep(torch.zeros(1, 3, 2), start=0, cached=False)


# -- no trace, threads, folders ----------------------------------------------------------------------------------


def hooks_of(module):
    return {name: (len(each._forward_hooks), len(each._forward_pre_hooks)) for name, each in module.named_modules()}


class TestNoTrace:
    def test_the_backbone_is_the_same_again(self):
        bare, native = get_backbone("videollama3").tiny(0)
        before, attributes = hooks_of(bare), {name: sorted(vars(each)) for name, each in bare.named_modules()}
        plain = bare.generate(**native(text=["yes no"], return_tensors="pt"), max_new_tokens=4, do_sample=False)
        model, processor = attach(bare, native, adapter="stencil")
        pair = Made(model, processor, native, [])
        model.add_lora(r=2)
        pair.generate(pair.ask(0, 1), "[1] <seg>", "yes")
        model(**lesson(pair)).loss.backward()
        model.detach()
        assert hooks_of(bare) == before
        assert {name: sorted(vars(each)) for name, each in bare.named_modules()} == attributes
        again = bare.generate(**native(text=["yes no"], return_tensors="pt"), max_new_tokens=4, do_sample=False)
        assert torch.equal(plain, again)

    @pytest.mark.parametrize("where", ["head", "backbone"])
    def test_not_after_an_error_either(self, pair, where, monkeypatch):
        before = hooks_of(pair.model.backbone)

        def fail(*args, **kwargs):
            raise RuntimeError("shapes do not match")

        if where == "head":
            pair.model.adapter.predict_masks = pair.model.adapter.mask_losses = fail
        else:
            monkeypatch.setattr(pair.model.backbone.lm_head, "forward", fail)
        for run in (lambda: pair.generate(pair.ask(0), "<seg>"), lambda: pair.model(**lesson(pair))):
            with pytest.raises((RuntimeError, PluginCodeError), match="shapes do not match"):
                run()
            assert hooks_of(pair.model.backbone) == before

    def test_without_masks_it_is_the_bare_backbone(self, pair):
        inputs = pair.processor(QUESTIONS[0][0])
        with torch.no_grad():
            ours = pair.model(**inputs).logits
            ids = pair.model.generate(**inputs, max_new_tokens=5, do_sample=False)
            masks = pair.model.generate(**pair.ask(0), max_new_tokens=5, do_sample=False)
            bare = pair.model.detach()
            assert torch.equal(bare(**inputs).logits, ours)
            assert torch.equal(bare.generate(**inputs, max_new_tokens=5, do_sample=False), ids)
        assert torch.equal(masks.sequences, ids)


def test_threads_keep_their_own_masks(pair):
    from concurrent.futures import ThreadPoolExecutor

    answers = ["[1] <seg>", "yes [2] <seg> or <seg>"]
    expected = [pair.generate(pair.ask(which), answer).objects for which, answer in enumerate(answers)]
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(pair.generate, pair.ask(each % 2), answers[each % 2]) for each in range(6)]
        for index, run in enumerate(runs):
            assert run.result().objects == expected[index % 2]


@pytest.mark.parametrize("name", ["cache", "past_key_values"])  # from transformers 5.24 on, and before
def test_a_step_with_a_cache_continues_where_the_cache_ends(name):
    class Decoder(torch.nn.Module):
        def forward(self, inputs_embeds, **cache):
            return norm(inputs_embeds)

    decoder, norm, reader, cache = Decoder(), torch.nn.Identity(), GeneratedStates(first=3), DynamicCache()
    cache.update(torch.zeros(1, 1, 5, 2), torch.zeros(1, 1, 5, 2), 0)
    slots = torch.tensor([[0, -1, -1, -1, -1, -1, 1]])
    with captured_hidden(decoder, norm, reader), spliced(decoder, slots, lambda: torch.tensor([[8.0], [9.0]])):
        decoder(inputs_embeds=torch.zeros(1, 2, 1), **{name: cache})
    assert reader.states([0, 0], [5, 6]).tolist() == [[0.0], [9.0]]


def test_other_threads_calls_are_not_read():
    import threading

    decoder, norm, reader = torch.nn.Linear(2, 2), torch.nn.Identity(), GeneratedStates(first=0)
    with captured_hidden(decoder, norm, reader):
        thread = threading.Thread(target=lambda: (decoder(torch.zeros(1, 1, 2)), norm(torch.ones(1, 1, 2))))
        thread.start()
        thread.join()
        with pytest.raises(SpliceError, match="was not called"):
            reader.states([0], [0])
        norm(input=torch.full((1, 1, 2), 2.0))
        assert reader.states([0], [0]).tolist() == [[2.0, 2.0]]
    norm(torch.zeros(1, 1, 2))
    assert reader.states([0], [0]).tolist() == [[2.0, 2.0]]


class TestFolders:
    @pytest.mark.parametrize("backbone", BACKBONES)
    @pytest.mark.parametrize("lora", [False, True], ids=["adapter", "lora"])
    def test_masks_survive_saving(self, backbone, lora, tmp_path):
        pair = made(backbone)
        if lora:
            trained(pair.model)
        before = pair.generate(pair.ask(0, 1), "[1] <seg>", "<seg>")
        pair.model.save_pretrained(tmp_path / "model", pair.processor)
        loaded, processor = load(tmp_path / "model", backbone=get_backbone(backbone).tiny(0)[0])
        assert processor.tokens.mask == pair.token == loaded.tokens.mask
        assert loaded.adapter.started_from is None
        again = Made(loaded, processor, pair.native, [])
        after = again.generate(again.ask(0, 1), "[1] <seg>", "<seg>")
        assert after.objects == before.objects
        assert torch.equal(after.sequences, before.sequences)

    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_masks_survive_merging(self, backbone, tmp_path):
        pair = made(backbone)
        trained(pair.model)
        said = pair.processor([*QUESTIONS[0][0], assistant("[1] <seg>")], [BOX], labels=True)
        before, logits = pair.generate(pair.ask(0), "[1] <seg>").objects, pair.model(**said).logits
        pair.model.merge_lora()
        torch.testing.assert_close(pair.model(**said).logits, logits, rtol=1e-3, atol=1e-3)
        pair.model.save_pretrained(tmp_path / "model", pair.processor)
        again = Made(*load(tmp_path / "model"), pair.native, [])
        ((one,),), ((other,),) = before, again.generate(again.ask(0), "[1] <seg>").objects
        assert other.score == pytest.approx(one.score, abs=1e-3)
        assert iou_of(one.region, other.region, (60, 90)) > 0.99

    def test_the_card_says_that_it_gives_masks(self, pair, tmp_path):
        from pixelrefer_plugin.weights.hub import write_card

        pair.model.save_pretrained(tmp_path / "model", pair.processor)
        write_card(tmp_path / "model", "me/digits")
        text = (tmp_path / "model" / "README.md").read_text()
        assert "and gives masks of what it names" in text
        assert "image-segmentation" in text


def trained(model):
    """LoRA and token rows that are no longer at their start."""
    model.add_lora(r=2)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)


class TestTokenRows:
    def rows(self, model):
        return {
            tuple(each.shape)
            for name, each in model.named_parameters()
            if "trainable_tokens_delta" in name and each.requires_grad
        }

    @pytest.mark.parametrize(
        ("given", "count"), [(None, 1), ((), 1), ((5,), 2), ("own", 1)], ids=["none", "empty", "another", "itself"]
    )
    def test_the_tokens_own_train_with_lora(self, pair, given, count):
        pair.model.add_lora(r=2, token_ids=[pair.token] if given == "own" else given)
        assert {shape[0] for shape in self.rows(pair.model)} == {count}

    def test_its_id_must_be_known(self):
        bare, _ = get_backbone("videollama3").tiny(0)
        with pytest.raises(AttachError, match=r"where '<seg>' is said, but `tokens` has no id for it"):
            RegionModel.attach(bare, adapter="stencil", tokens=TokenIds(placeholder=7))

    @pytest.mark.parametrize("backbone", ["videollama3", "qwen2_5_vl"], ids=["tied", "untied"])
    def test_they_may_train_alone(self, backbone, tmp_path):
        pair = made(backbone)
        pair.model.add_lora(scopes=())
        backbone_trains = [name for name, each in pair.model.backbone.named_parameters() if each.requires_grad]
        assert backbone_trains
        assert all("trainable_tokens_delta" in name for name in backbone_trains)
        with torch.no_grad():
            for each in pair.model.backbone.parameters():
                if each.requires_grad:
                    each.add_(0.5)
        inputs = pair.processor([*QUESTIONS[0][0], assistant("<seg>")], [BOX], labels=True)
        before = pair.model(**inputs).logits
        pair.model.save_pretrained(tmp_path / "model", pair.processor)
        loaded = RegionModel.from_pretrained(tmp_path / "model", backbone=get_backbone(backbone).tiny(0)[0])
        assert torch.equal(loaded(**inputs).logits, before)
        pair.model.merge_lora()
        assert torch.equal(pair.model(**inputs).logits, before)


class TestStart:
    def test_an_untrained_adapter_may_start_from_the_projector(self):
        bare, native = get_backbone("videollama3").tiny(0)
        model, _ = attach(bare, native, adapter="stencil")
        layers = get_backbone("videollama3").parts.projector_layers
        assert layers
        assert [id(each) for each in model.adapter.started_from] == [id(bare.get_submodule(path)) for path in layers]
        model.detach()

    @pytest.mark.parametrize("kept", [False, True], ids=["quantized too", "kept as it is"])
    @pytest.mark.parametrize("bits", [4, 8])
    def test_an_adapter_starts_from_the_projector_of_a_quantized_backbone_where_that_is_not(self, tmp_path, bits, kept):
        """Its weights would be codes: copied, numbers of no meaning."""
        pytest.importorskip("bitsandbytes")
        spec = get_backbone("videollama3")
        plain, native = spec.tiny(0)
        plain.save_pretrained(tmp_path)
        quantization = BitsAndBytesConfig(
            **{f"load_in_{bits}bit": True},
            llm_int8_skip_modules=[*(spec.parts.projector_layers if kept else ()), "lm_head"],
        )
        bare = spec.model_class.from_pretrained(tmp_path, quantization_config=quantization)
        assert bare.is_quantized
        model, _ = attach(bare, native, adapter="stencil")
        layers = spec.parts.projector_layers if kept else ()
        assert [id(each) for each in model.adapter.started_from] == [id(bare.get_submodule(path)) for path in layers]
        model.detach()

    def test_a_start_that_fails_leaves_the_backbone_free(self, monkeypatch):
        def fail(self, layers):
            raise PromptError("no such checkpoint")

        bare, native = get_backbone("videollama3").tiny(0)
        monkeypatch.setattr(stencil.Stencil, "start_from", fail)
        with pytest.raises(PromptError, match="no such checkpoint"):
            attach(bare, native, adapter="stencil")
        assert all(each.requires_grad for each in bare.parameters())
        monkeypatch.undo()
        attach(bare, native, adapter="saot")[0].detach()

    @pytest.mark.parametrize("scene", ["patches", "cells", "projected"])
    @pytest.mark.parametrize("backbone", BACKBONES)
    def test_a_module_is_built_for_what_its_scene_views_hold(self, backbone, scene, monkeypatch):
        shapes = []

        class Recorded(stencil.Stencil):
            @classmethod
            def build(cls, config, given):
                shapes.append(given)
                return super().build(config, given)

        changed = replace(stencil.SPEC, scene=scene, module=Recorded)
        monkeypatch.setattr("pixelrefer_plugin.model.get_adapter", lambda name: changed)
        spec = get_backbone(backbone)
        bare, native = spec.tiny(0)
        attach(bare, native, adapter="stencil")[0].detach()
        patch = spec.crops.width(bare.config)
        decoder = bare.get_submodule(spec.parts.token_embedding).embedding_dim
        layers = [bare.get_submodule(path) for path in spec.parts.projector_layers]
        assert shapes == [
            Shapes(
                crop=patch,
                scene={"patches": patch, "cells": patch * spec.cell_side(bare.config) ** 2, "projected": decoder}[
                    scene
                ],
                decoder=decoder,
                projector=tuple((each.out_features, each.in_features) for each in layers),
            )
        ]


def test_the_example_of_the_docs_runs(pair, tmp_path, monkeypatch):
    page = (Path(__file__).parent.parent / "docs/masks.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    pair.model.save_pretrained(tmp_path / "runs/unipixel", pair.processor, include_backbone=True)
    Image.fromarray(picture(360, 640)).save(tmp_path / "street.jpg")
    monkeypatch.chdir(tmp_path)
    generate = RegionModel.generate
    monkeypatch.setattr(
        RegionModel, "generate", lambda self, **given: generate(self, **given, force_mask=True, do_sample=False)
    )
    names: dict[str, Any] = {}
    exec(compile(code.replace("max_new_tokens=64", "max_new_tokens=4"), "docs/masks.md", "exec"), names)
    assert "<seg>" in names["answer"]
    assert names["mask"].shape == (360, 640)


# -- the adapter that this is for --------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
class TestUniPixel:
    def inputs(self, pair, *which):
        """A click on a picture and what is to be found on it; an object of a video that is given by its mask."""
        mask = np.zeros((48, 64), dtype=bool)
        mask[10:30, 20:40] = True
        asked = [
            ([user(WIDE, "what is <region>? segment it")], [Region.from_points([(20, 20)])]),
            ([user(VIDEO, "segment <region>")], [VideoRegion({0: Region.from_mask(mask)})]),
        ]
        conversations, regions = zip(*(asked[each] for each in which), strict=True)
        return pair.processor(list(conversations), list(regions), segment=True)

    def test_masks_of_a_picture_and_of_a_video(self, backbone):
        pair, encoded = made_unipixel(backbone), []
        encoder = pair.model.adapter.mask_decoder.sam2.vision_encoder
        encoder.register_forward_hook(lambda module, args, kwargs, output: encoded.append(1), with_kwargs=True)
        assert pair.generate(self.inputs(pair, 0, 1), "yes", "no").objects == [[], []]
        assert not encoded
        answers = ["[1] <seg> or [3] <seg>", "[2] <seg>"]
        inputs = self.inputs(pair, 0, 1)
        generated = pair.generate(inputs, *answers)
        assert [[each.id for each in row] for row in generated.objects] == [[1, 3], [2]]
        (indices,) = (each for each in inputs["masks"].frame_indices if each)
        assert tuple(generated.objects[1][0].presence) == indices
        for which, answer in enumerate(answers):
            (alone,) = pair.generate(self.inputs(pair, which), answer).objects
            for one, other in zip(generated.objects[which], alone, strict=True):
                assert one.presence == pytest.approx(other.presence, abs=1e-4)
                assert one.score == pytest.approx(other.score, abs=1e-4)
                assert type(one.region) is type(other.region)

    def test_a_forced_mask(self, backbone):
        pair = made_unipixel(backbone)
        generated = pair.generate(self.inputs(pair, 0, 1), force_mask=True, max_new_tokens=3)
        assert [len(row) for row in generated.objects] == [1, 1]

    def test_it_learns_from_masks_and_moves_nothing_else(self, backbone):
        pair = made_unipixel(backbone)
        pair.model.add_lora(r=4)
        frozen = {name: each.clone() for name, each in pair.model.named_parameters() if not each.requires_grad}
        inputs = lesson(pair, video=True)
        trained = [each for each in pair.model.parameters() if each.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0)
        losses = []
        for _ in range(6):
            output = pair.model(**inputs)
            output.loss.backward()
            assert all(each.grad is not None for each in trained)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(output.mask_loss.item())
        assert losses[-1] < losses[0]
        assert output.mask_losses.keys() == {"mask", "dice", "iou", "presence"}
        assert all(torch.equal(dict(pair.model.named_parameters())[name], each) for name, each in frozen.items())

    def test_masks_survive_saving_and_merging(self, backbone, tmp_path):
        pair = made_unipixel(backbone)
        trained(pair.model)
        inputs, answers = self.inputs(pair, 0, 1), ("[1] <seg>", "[2] <seg>")
        before = pair.generate(inputs, *answers).objects
        pair.model.save_pretrained(tmp_path / "model", pair.processor)
        loaded = RegionModel.from_pretrained(tmp_path / "model", backbone=get_backbone(backbone).tiny(0)[0])
        assert replace(pair, model=loaded).generate(inputs, *answers).objects == before
        loaded.merge_lora()
        for row, merged in zip(before, replace(pair, model=loaded).generate(inputs, *answers).objects, strict=True):
            for one, other in zip(row, merged, strict=True):
                assert other.presence == pytest.approx(one.presence, abs=1e-3)
                assert other.score == pytest.approx(one.score, abs=1e-2)

    def test_a_backbone_of_half_precision(self, backbone):
        bare, native = get_backbone(backbone).tiny(0)
        options = get_adapter("unipixel").tiny
        model, processor = attach(bare.bfloat16(), native, adapter="unipixel", adapter_config=options)
        pair = watched(Made(model, processor, native, []))
        output = model(**lesson(pair))
        output.loss.backward()
        assert torch.isfinite(output.mask_loss)
        assert model.adapter.mask_head.mlp[1].weight.grad.any()
        model.eval()
        generated = pair.generate(self.inputs(pair, 0, 1), "[1] <seg>", "<seg>")
        assert [len(row) for row in generated.objects] == [1, 1]
        assert {each.dtype for each in pair.hidden} == {torch.bfloat16}

    def test_detaching_leaves_no_trace(self, backbone):
        bare, native = get_backbone(backbone).tiny(0)
        decoder = bare.get_submodule(
            get_backbone(backbone).parts.decoder
        )  # transformers leaves hooks of its own on a tower
        before = hooks_of(decoder)
        text = native(text=["yes no"], return_tensors="pt")
        plain = bare(**text).logits
        model, processor = attach(bare, native, adapter="unipixel", adapter_config=get_adapter("unipixel").tiny)
        pair = Made(model, processor, native, [])
        model.add_lora(r=2)
        model(**lesson(pair)).loss.backward()
        model.eval()
        pair.generate(self.inputs(pair, 0), "[1] <seg>")
        assert model.detach() is bare
        assert hooks_of(decoder) == before
        assert torch.equal(bare.eval()(**text).logits, plain)
