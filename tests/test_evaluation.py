"""Held-out questions that expect masks: asked for masks, which are compared with the sample's own."""

import numpy as np
import pytest
import stencil
import torch
from conftest import assistant, picture, user
from videos import grey_frames, write_video

from pixelrefer_plugin import FrameSampling, Region, RegionSample, VideoRegion, load_video
from pixelrefer_plugin.evaluation.answers import HeldOutAnswers
from pixelrefer_plugin.evaluation.asking.questions import questions_of
from pixelrefer_plugin.evaluation.metrics.masks import j_and_f, overlap
from pixelrefer_plugin.testing import make_pair

HW = (48, 64)
LEFT, RIGHT = Region.from_box((0, 0, 30, 48)), Region.from_box((30, 0, 64, 48))


class Samples(list):
    def __getitems__(self, indices):
        return [self[index] for index in indices]


@pytest.fixture
def parts(monkeypatch):
    """A model whose every answer, asked for masks, has one, of what is seen."""
    stencil.install(monkeypatch)
    pair = make_pair("stencil", "videollama3")
    model = pair.model
    with torch.no_grad():
        model.adapter.judge.bias[1] = 5.0
    plain = model.generate

    def generate(**inputs):
        return plain(**inputs, force_mask="masks" in inputs)

    monkeypatch.setattr(model, "generate", generate)
    yield model, pair.processor
    model.detach()


def held_out(parts, samples, **options):
    asked = HeldOutAnswers(Samples(samples), parts[1], samples=99, **{"max_new_tokens": 3, "batch_size": 4, **options})
    return asked(parts[0]), asked


def segmented(parts, conversation, regions=()):
    """What the model itself segments when it is asked."""
    model, processor = parts
    inputs = processor(conversation, list(regions), segment=True)
    return model.generate(**inputs, max_new_tokens=3, do_sample=False).objects[0]


def sample_of(id, *messages, regions):
    return RegionSample(id, messages, tuple(regions))


# -- questions ---------------------------------------------------------------------------------------------


def test_a_question_has_the_masks_said_before_it_and_expects_those_of_its_answer():
    sample = sample_of(
        "a",
        user(picture(*HW), "segment the left, not <region>"),
        assistant("it is <seg>"),
        user("and the rest?"),
        assistant("<seg> and <seg>."),
        user("which is <region>?"),
        assistant("the left"),
        regions=[RIGHT, LEFT, RIGHT, LEFT, LEFT],
    )
    first, second, third = questions_of(sample)
    assert (list(first.asked.regions), list(first.targets)) == ([RIGHT], [LEFT])
    assert (list(second.asked.regions), list(second.targets)) == ([RIGHT, LEFT], [RIGHT, LEFT])
    assert (list(third.asked.regions), list(third.targets)) == ([RIGHT, LEFT, RIGHT, LEFT, LEFT], [])
    assert [message["role"] for message in second.asked.messages] == ["user", "assistant", "user"]
    assert (second.text, second.expected) == ("and the rest?", "<seg> and <seg>.")


def test_a_picture_that_only_the_answer_points_into_is_shown():
    sample = sample_of(
        "a",
        user(picture(*HW), picture(*HW, seed=1), "what is <region>?"),
        assistant("a cat, as <seg>"),
        user("and <region>?"),
        assistant("a dog"),
        regions=[LEFT, LEFT.on_image(1), LEFT.on_image(1)],
    )
    first, _ = questions_of(sample)
    assert len(first.asked.media("image")) == 2
    assert first.targets == (LEFT.on_image(1),)


def test_answers_with_regions_in_words_are_passed_over():
    sample = sample_of("a", user(picture(*HW), "where?"), assistant("at <region>, <seg>"), regions=[LEFT, LEFT])
    assert list(questions_of(sample)) == []


# -- pictures ----------------------------------------------------------------------------------------------


def test_masks_are_compared_with_those_expected(parts):
    image = picture(*HW)
    asked = user(image, "segment it")
    samples = [
        sample_of("one", asked, assistant("<seg>"), regions=[LEFT]),
        sample_of("words", user(image, "what is <region>?"), assistant("a cat"), regions=[LEFT]),
        sample_of("two", asked, assistant("<seg> <seg>"), regions=[LEFT, RIGHT]),
    ]
    numbers, asking = held_out(parts, samples)
    (found, *_) = segmented(parts, [asked])
    expected = [overlap(found.region.to_mask(HW), each.to_mask(HW)) for each in (LEFT, LEFT)]
    missing = overlap(None, RIGHT.to_mask(HW))
    assert [answer.question.asked.id for answer in asking.answers] == ["one", "words", "two"]
    assert [[score.overlap for score in answer.scores] for answer in asking.answers] == [
        [expected[0]],
        [],
        [expected[1], missing],
    ]
    both = [*expected, missing]
    assert numbers["mask_giou"] == pytest.approx(sum(each.iou for each in both) / 3)
    assert numbers["mask_ciou"] == sum(each.intersection for each in both) / sum(each.union for each in both)
    assert set(numbers) == {"exact_match", "mask_giou", "mask_ciou"}
    records = [answer.as_record() for answer in asking.answers]
    assert records[0]["ious"] == [expected[0].iou]
    assert "ious" not in records[1]
    assert records[2]["ious"] == [expected[1].iou, 0.0]
    assert all("<seg>" in records[place]["given"] for place in (0, 2))
    assert "j_and_f" not in records[0]


def test_a_perfect_mask_counts_1(parts):
    asked = user(picture(*HW), "segment it")
    (found, *_) = segmented(parts, [asked])
    numbers, _ = held_out(parts, [sample_of("one", asked, assistant("<seg>"), regions=[found.region])])
    assert (numbers["mask_giou"], numbers["mask_ciou"]) == (1, 1)


def test_masks_beyond_those_expected_are_left_to_the_text(parts, monkeypatch):
    model, _ = parts
    asked = user(picture(*HW), "segment it")
    (found, *_) = segmented(parts, [asked])
    ending = model.generate

    def twice(**inputs):
        given = ending(**inputs)
        given.objects[0].append(given.objects[0][0])
        return given

    monkeypatch.setattr(model, "generate", twice)
    numbers, asking = held_out(parts, [sample_of("one", asked, assistant("<seg>"), regions=[found.region])])
    assert numbers["mask_giou"] == 1
    assert len(asking.answers[0].scores) == 1


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_batches_change_nothing(parts, batch_size):
    samples = []
    for index in range(5):
        image = picture(*HW, seed=index)
        messages = (
            user(image, "segment it"), assistant("<seg>"), user("what is <region>?"), assistant("a cat"),
            user("and the other?"), assistant("it is <seg>"),
        )  # fmt: skip
        samples.append(sample_of(f"s{index}", *messages, regions=[LEFT, LEFT, RIGHT]))
    numbers, asking = held_out(parts, samples, batch_size=batch_size)
    alone, asking_alone = held_out(parts, samples, batch_size=1)
    assert numbers == alone
    assert [answer.as_record() for answer in asking.answers] == [each.as_record() for each in asking_alone.answers]
    assert [(answer.question.asked.id, answer.turn) for answer in asking.answers] == [
        (f"s{index}", turn) for index in range(5) for turn in range(3)
    ]


def test_samples_that_cannot_be_asked_for_masks(parts):
    two = sample_of("two", user(picture(*HW), picture(*HW), "segment it"), assistant("<seg>"), regions=[LEFT])
    wide = sample_of("wide", user(picture(*HW), "segment it"), assistant("<seg>"), regions=[
        Region.from_mask(np.ones((9, 9), bool))
    ])  # fmt: skip
    with pytest.raises(ValueError, match="sample 'two': .*2 pictures and videos.*held-out"):  # before any training
        HeldOutAnswers(Samples([wide, two]), parts[1], samples=2, max_new_tokens=3, batch_size=4)
    with pytest.raises(ValueError, match="sample 'wide': .*of width 9 and height 9"):
        held_out(parts, [wide])
    good = sample_of("good", user(picture(*HW), "segment it"), assistant("<seg>"), regions=[LEFT])
    _, asking = held_out(parts, [two, good, wide], on_bad_sample="skip")
    assert [answer.question.asked.id for answer in asking.answers] == ["good"]


def test_an_adapter_without_masks_is_told_so(pair):
    sample = sample_of("one", user(picture(*HW), "segment it"), assistant("<seg>"), regions=[LEFT])
    with pytest.raises(ValueError, match="sample 'one': .*gives no masks"):
        held_out((pair.model, pair.processor), [sample])


# -- videos ------------------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path):
    return {"type": "video", "video": str(write_video(tmp_path / "clip.mp4", grey_frames(12, hw=HW)))}


def test_a_video_is_asked_about_on_the_frames_that_its_targets_know(parts, clip):
    _, processor = parts
    processor.sampling = FrameSampling(num_frames=4)
    target = VideoRegion({1: LEFT, 5: RIGHT}, absent=(7,))
    numbers, asking = held_out(parts, [sample_of("a", user(clip, "segment it"), assistant("<seg>"), regions=[target])])
    (score,) = asking.answers[0].scores
    video = load_video(clip["video"], sampling=processor.sampling, frames=[1, 5, 7])
    (found, *_) = segmented(parts, [user({"type": "video", "video": video}, "segment it")])
    assert set(found.region.frames) == set(video.frame_indices)
    given = [found.region.frames[frame].to_mask(HW) for frame in (1, 5, 7)]
    expected = j_and_f(given, [LEFT.to_mask(HW), RIGHT.to_mask(HW), None])
    assert score.video == expected
    assert numbers["j_and_f"] == expected.j_and_f
    assert asking.answers[0].as_record()["j_and_f"] == [expected.j_and_f]
    assert 0 < score.overlap.iou < 1


def test_more_frames_than_are_sampled_are_thinned(parts, clip):
    _, processor = parts
    processor.sampling = FrameSampling(num_frames=4)
    target = VideoRegion(dict.fromkeys(range(12), LEFT))
    sample = sample_of(
        "a",
        user(clip, "segment what <region> holds"),
        assistant("<seg>"),
        user("and again"),
        assistant("<seg>"),
        regions=[VideoRegion({3: LEFT}), target, target],
    )
    numbers, asking = held_out(parts, [sample])
    assert len(asking.answers) == 2
    assert 0 < numbers["j_and_f"] < 1


def test_a_video_in_memory_is_asked_about_as_it_is(parts):
    video = load_video(grey_frames(12, hw=HW), fps=4.0, sampling=FrameSampling(num_frames=3))
    asked = user({"type": "video", "video": video}, "segment it")
    known = sample_of("a", asked, assistant("<seg>"), regions=[VideoRegion(dict.fromkeys((0, 1), LEFT))])
    unknown = sample_of("b", asked, assistant("<seg>"), regions=[VideoRegion({1: LEFT})])
    numbers, _ = held_out(parts, [known])
    assert "j_and_f" in numbers
    with pytest.raises(ValueError, match="sample 'b': a target names no frame that is sampled"):
        held_out(parts, [unknown])
