"""Quickstart scenes: fixed by their seed, true in their boxes, masks and answers, and split for good."""

import numpy as np
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("skimage")

from pixelrefer_plugin.quickstart.scenes import (
    COLOURS,
    HOW_MANY,
    SPLITS,
    WHICH_COLOURS,
    WHICH_DIGITS,
    digit_samples,
    largest_digit,
    make_scene,
    scene_questions,
)


def scenes(split="train", number=40, seed=0, **options):
    rng = np.random.default_rng(seed)
    return [make_scene(split, rng, **options) for _ in range(number)]


def test_a_seed_fixes_a_scene_and_its_questions():
    for first, second in zip(scenes(number=5), scenes(number=5), strict=True):
        np.testing.assert_array_equal(first.image_hwc, second.image_hwc)
        assert [digit.sample for digit in first.digits] == [digit.sample for digit in second.digits]
        asked = [scene_questions(scene, np.random.default_rng(3)) for scene in (first, second)]
        assert asked[0] == asked[1]


def test_another_seed_is_another_scene():
    assert not np.array_equal(scenes(number=1)[0].image_hwc, scenes(number=1, seed=1)[0].image_hwc)


def test_splits_share_no_sample_and_hold_every_digit():
    (train, train_labels), (held_out, held_out_labels) = (digit_samples(split) for split in SPLITS)
    assert not set(train) & set(held_out)
    assert len(train) + len(held_out) == 1797
    np.testing.assert_array_equal(np.bincount(held_out_labels), np.full(10, 40))
    assert np.bincount(train_labels).min() > 100


def test_the_split_never_moves():
    # The shipped base was trained on the other samples of exactly this split.
    held_out, _ = digit_samples("held-out")
    assert held_out[:5].tolist() == [386, 305, 1359, 441, 1493]


@pytest.mark.parametrize("split", SPLITS)
def test_scenes_use_their_splits_samples(split):
    indices, labels = digit_samples(split)
    label_of = dict(zip(indices.tolist(), labels.tolist(), strict=True))
    for scene in scenes(split):
        assert all(label_of[digit.sample] == digit.label for digit in scene.digits)


def test_photographs_of_the_splits_are_disjoint_parts():
    from skimage import data

    from pixelrefer_plugin.quickstart.scenes import _photographs

    whole = data.astronaut()
    left, right = (np.asarray(_photographs(split)[0]) for split in SPLITS)
    np.testing.assert_array_equal(left, whole[:, : left.shape[1]])
    np.testing.assert_array_equal(right, whole[:, -right.shape[1] :])
    assert left.shape[1] + right.shape[1] < whole.shape[1]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="default"),
        pytest.param({"jitter": 1.0}, id="jitter"),
        pytest.param({"picture_hw": (28, 70), "num_digits": (1, 2), "sizes_px": (8, 28)}, id="flat picture"),
        pytest.param({"num_digits": (1, 1), "sizes_px": (112, 112)}, id="as large as the picture"),
        pytest.param({"num_digits": (9, 9)}, id="more digits than colours"),
    ],
)
def test_boxes_and_masks_are_consistent(options):
    for scene in scenes(number=20, **options):
        assert scene.image_hwc.dtype == np.uint8
        assert scene.image_hwc.shape == (*options.get("picture_hw", (112, 112)), 3)
        assert scene.digits
        assert np.sum([digit.mask_hw for digit in scene.digits], axis=0).max() == 1  # no stroke on another
        for digit in scene.digits:
            x0, y0, x1, y1 = digit.box_xyxy
            inside = digit.mask_hw[y0:y1, x0:x1]
            assert inside.sum() == digit.mask_hw.sum()
            assert inside.any(0)[[0, -1]].all()
            assert inside.any(1)[[0, -1]].all()
            assert max(x1 - x0, y1 - y0) <= digit.size_px


def test_strokes_have_the_colour_that_is_named():
    for scene in scenes():
        for digit in scene.digits:
            stroke = scene.image_hwc[digit.mask_hw].astype(float)
            brightest = stroke[stroke.sum(1) >= np.median(stroke.sum(1))].mean(0)
            distances = {name: np.abs(brightest - rgb).sum() for name, rgb in COLOURS.items()}
            assert min(distances, key=distances.get) == digit.colour


def test_sizes_are_spread_and_small_ones_common():
    sizes = np.array([digit.size_px for scene in scenes(number=100) for digit in scene.digits])
    assert sizes.min() == 8
    assert sizes.max() > 48
    assert 12 <= np.median(sizes) <= 26


def test_answers_are_true():
    rng = np.random.default_rng(1)
    kinds = set()
    for scene in scenes(number=60, num_digits=(1, 9)):
        by_colour = {digit.colour: digit.label for digit in scene.digits}
        by_label = {str(digit.label): digit.colour for digit in scene.digits}
        for question in scene_questions(scene, rng):
            kinds.add(question.kind)
            subject = question.text.removesuffix("?").split()[-1]
            if question.kind == "digit of colour":
                assert question.answer == str(by_colour[subject])
                assert sum(digit.colour == subject for digit in scene.digits) == 1
            elif question.kind == "colour of digit":
                assert question.answer == by_label[subject]
                assert sum(digit.label == int(subject) for digit in scene.digits) == 1
            elif question.text == WHICH_DIGITS:
                assert question.answer.split() == sorted(by_label)
            elif question.text == WHICH_COLOURS:
                assert question.answer.split() == [name for name in COLOURS if name in by_colour]
            else:
                assert question.text == HOW_MANY
                assert question.answer == str(len(scene.digits))
    assert len(kinds) == 5


def test_the_largest_digit_is_clearly_so_or_there_is_none():
    found = {True: 0, False: 0}
    for scene in scenes(num_digits=(2, 3)):
        areas = sorted((int(digit.mask_hw.sum()) for digit in scene.digits), reverse=True)
        largest = largest_digit(scene)
        found[largest is not None] += 1
        assert (largest is not None) == (areas[0] >= 1.25 * areas[1])
        assert largest is None or largest.mask_hw.sum() == areas[0]
    assert min(found.values()) > 0
    assert largest_digit(scenes(number=1, num_digits=(1, 1))[0]) is None  # of one there is no largest


def test_no_question_speaks_of_places():
    rng = np.random.default_rng(2)
    words = {word for scene in scenes() for q in scene_questions(scene, rng) for word in q.text.split()}
    assert not words & {"left", "right", "above", "below", "top", "bottom", "region", "where", "largest"}


def test_a_digit_larger_than_the_picture_is_refused():
    with pytest.raises(ValueError, match=r"a digit of 20 px does not fit a picture of \(14, 28\)"):
        make_scene("train", np.random.default_rng(0), picture_hw=(14, 28), sizes_px=(20, 56))
