"""J, F, gIoU, cIoU and PixelQA: their definitions restated plainly, published code's values, and what must hold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelrefer_plugin.errors import PixelReferError, RegionError
from pixelrefer_plugin.evaluation.metrics.masks import (
    MaskScores,
    PixelQAResult,
    VideoScore,
    boundary_accuracy,
    box_iou,
    box_without_specks,
    j_and_f,
    overlap,
    pixel_qa_score,
    region_similarity,
    volume_overlap,
    without,
)
from pixelrefer_plugin.evaluation.metrics.revos import (
    official_accuracy_and_robustness,
    pixel_accuracy,
    robustness,
)
from pixelrefer_plugin.regions.mask import RegionMask

SIDES = st.integers(1, 24)


def box_mask(hw, box_xyxy):
    mask = np.zeros(hw, dtype=bool)
    x0, y0, x1, y1 = box_xyxy
    mask[y0:y1, x0:x1] = True
    return mask


def wave(hw, phase, above):
    """Blobs with holes, on the picture's edges too."""
    y, x = np.mgrid[: hw[0], : hw[1]]
    return np.sin(x / 9 + phase) + np.cos(y / 7 - phase) + np.sin((x + 2 * y) / 23) > above


@st.composite
def pairs_of_masks(draw, margin=0):
    """Two masks of one size, whose pixels keep away from the picture's edge by `margin`."""
    hw = draw(st.tuples(SIDES, SIDES))
    masks = [draw(hnp.arrays(bool, hw)) for _ in range(2)]
    return tuple(np.pad(mask, margin) for mask in masks)


# -- plain restatements ------------------------------------------------------------------------------------


def plain_boundary(mask):
    """Pixel by pixel: it differs from the one to its right, below, or both, as far as those are on the picture."""
    height, width = mask.shape
    pixels = set()
    for y in range(height):
        for x in range(width):
            after = [(y, x + 1), (y + 1, x), (y + 1, x + 1)]
            if any(mask[y, x] != mask[at] for at in after if at[0] < height and at[1] < width):
                pixels.add((y, x))
    return pixels


def plain_f(predicted, expected, bound=0.008):
    radius = math.ceil(bound * math.hypot(*predicted.shape))
    found, true = plain_boundary(predicted), plain_boundary(expected)
    if not found or not true:
        return float(not found and not true)

    def matched(pixels, others):
        return sum(any((y - v) ** 2 + (x - u) ** 2 <= radius**2 for v, u in others) for y, x in pixels) / len(pixels)

    precision, recall = matched(found, true), matched(true, found)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@settings(deadline=None, max_examples=150)
@given(pairs_of_masks(), st.sampled_from([0.008, 0.1, 0.3]))
def test_f_is_what_its_definition_says(masks, bound):
    assert boundary_accuracy(*masks, bound=bound) == pytest.approx(plain_f(*masks, bound=bound))


@pytest.mark.parametrize("bound", [0, -1, math.nan, math.inf])
def test_a_bound_that_is_no_distance_is_refused(bound):
    with pytest.raises(PixelReferError, match="bound must be a positive number"):
        boundary_accuracy(np.ones((4, 4), dtype=bool), np.ones((4, 4), dtype=bool), bound=bound)


@settings(deadline=None)
@given(pairs_of_masks())
def test_j_is_what_its_definition_says(masks):
    found, true = masks
    union = (found | true).sum()
    assert region_similarity(found, true) == ((found & true).sum() / union if union else 1)


@pytest.mark.parametrize(
    ("hw", "first", "second", "j", "f"),
    [
        ((480, 854), (0.0, 0.3), (0.4, 0.5), 0.7472422088936684, 0.9982195866968856),
        ((97, 61), (1.0, 0.9), (1.1, 0.8), 0.875, 0.700335790651897),
        ((40, 200), (2.0, 1.2), (2.6, 0.4), 0.47895967270601986, 0.26711011380028854),
    ],
)
def test_values_of_the_published_davis_code(hw, first, second, j, f):
    """github.com/davisvideochallenge/davis2017-evaluation, commit 30b698a."""
    masks = wave(hw, *first), wave(hw, *second)
    assert (region_similarity(*masks), boundary_accuracy(*masks)) == pytest.approx((j, f), abs=1e-12)


def test_values_of_the_published_davis_code_on_a_video():
    """The same. The object is absent from both on frame 1, from one on frames 2 and 4."""
    found = np.stack([wave((60, 80), time / 5, 0.7) for time in range(6)])
    true = np.stack([wave((60, 80), time / 4, 0.9) for time in range(6)])
    found[1] = true[1] = found[2] = true[4] = False
    score, middle = j_and_f(found, true), j_and_f(found, true, skip_ends=True)
    assert (score.j, score.f) == pytest.approx((0.5817837213565084, 0.4576610730673629), abs=1e-12)
    assert (middle.j, middle.f) == pytest.approx((0.4627714581178904, 0.4113268425223593), abs=1e-12)
    assert score.j_and_f == (score.j + score.f) / 2


# -- what must hold ----------------------------------------------------------------------------------------


@settings(deadline=None)
@given(hnp.arrays(bool, st.tuples(SIDES, SIDES)))
def test_a_perfect_mask_has_1(mask):
    assert region_similarity(mask, mask) == 1
    assert boundary_accuracy(mask, mask) == 1


@settings(deadline=None)
@given(pairs_of_masks())
def test_both_are_symmetric(masks):
    assert region_similarity(*masks) == region_similarity(*masks[::-1])
    assert boundary_accuracy(*masks) == pytest.approx(boundary_accuracy(*masks[::-1]))


@settings(deadline=None)
@given(pairs_of_masks(margin=1))
def test_flips_change_nothing_away_from_the_edge(masks):
    """At the edge the definition looks right and down only."""
    for flip in (np.flipud, np.fliplr, np.transpose):
        turned = [flip(mask) for mask in masks]
        assert region_similarity(*turned) == region_similarity(*masks)
        assert boundary_accuracy(*turned) == pytest.approx(boundary_accuracy(*masks))


@settings(deadline=None)
@given(pairs_of_masks())
def test_arrays_and_compact_masks_are_the_same_to_them(masks):
    compact = [RegionMask.from_dense(mask) if mask.any() else None for mask in masks]
    assert overlap(*compact) == overlap(*masks) == overlap(compact[0], masks[1].astype(np.uint8))
    assert boundary_accuracy(*compact) == boundary_accuracy(*masks)


def test_an_empty_mask_where_one_is_expected_has_0():
    mask = box_mask((40, 50), (3, 4, 20, 30))
    for empty in (None, np.zeros_like(mask)):
        assert (region_similarity(empty, mask), boundary_accuracy(empty, mask)) == (0, 0)
        assert (region_similarity(mask, empty), boundary_accuracy(mask, empty)) == (0, 0)
        assert (region_similarity(empty, empty), boundary_accuracy(empty, empty)) == (1, 1)


def test_masks_that_do_not_meet():
    left, right = box_mask((40, 50), (0, 0, 10, 10)), box_mask((40, 50), (30, 30, 40, 40))
    assert overlap(left, right) == overlap(right, left)
    assert (region_similarity(left, right), boundary_accuracy(left, right)) == (0, 0)


def test_a_whole_picture_has_no_boundary_as_davis_has_it():
    whole, part = np.ones((40, 50), bool), box_mask((40, 50), (3, 4, 20, 30))
    assert boundary_accuracy(whole, None) == 1
    assert boundary_accuracy(whole, part) == boundary_accuracy(part, whole) == 0
    assert region_similarity(whole, None) == 0


@pytest.mark.parametrize(("off_px", "f"), [(1, 1.0), (8, 1.0), (9, 0.0)])
def test_the_bound_is_a_share_of_the_diagonal_rounded_up(off_px, f):
    """At 480p it is 8 pixels. Vertical edges from top to bottom, so many pixels apart."""
    masks = [box_mask((480, 854), (0, 0, x, 480)) for x in (300, 300 + off_px)]
    assert boundary_accuracy(*masks) == f
    assert boundary_accuracy(*masks, bound=off_px) == 1


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(
        RegionError, match=r"of one size, got a predicted one of \(4, 5\) and an expected one of \(8, 1"
    ):
        region_similarity(np.ones((4, 5), bool), np.zeros((8, 10), bool))
    with pytest.raises(RegionError, match="of one size"):
        boundary_accuracy(RegionMask.from_dense(np.ones((4, 5), bool)), np.ones((5, 4), bool))


@pytest.mark.parametrize("mask", [np.full((4, 5), 0.7), np.ones((1, 4, 5), bool), 3], ids=["floats", "batch", "number"])
def test_what_is_no_mask_is_refused(mask):
    with pytest.raises(RegionError, match="must be a .H, W. array of booleans or integers, .* Threshold probabilities"):
        region_similarity(mask, np.ones((4, 5), bool))


# -- videos ------------------------------------------------------------------------------------------------


def test_absent_objects_count_as_davis_has_it():
    there, absent = box_mask((40, 50), (3, 4, 20, 30)), None
    assert j_and_f([there, absent], [there, absent]) == VideoScore(1, 1)
    assert j_and_f([there, there], [there, absent]) == VideoScore(0.5, 0.5)
    assert j_and_f([absent, absent], [there, there]) == VideoScore(0, 0)
    assert j_and_f([absent], [there]).j_and_f == 0


def test_the_ends_can_be_left_out():
    there = box_mask((40, 50), (3, 4, 20, 30))
    assert j_and_f([None, there, None], [there] * 3, skip_ends=True) == VideoScore(1, 1)
    assert j_and_f([None, there, None], [there] * 3).j == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("found", "true", "options", "message"),
    [
        (1, 2, {}, "as many frames must be compared, got 1 predicted and 2 expected"),
        (0, 0, {}, "needs a frame that counts, got none"),
        (2, 2, {"skip_ends": True}, "With skip_ends=True, the ends do not"),
    ],
    ids=["fewer", "none", "ends only"],
)
def test_videos_that_cannot_be_scored(found, true, options, message):
    mask = np.ones((4, 5), bool)
    with pytest.raises(PixelReferError, match=message):
        j_and_f([mask] * found, [mask] * true, **options)


# -- many samples ------------------------------------------------------------------------------------------


def test_giou_is_the_mean_and_ciou_that_of_all_pixels():
    """A small object that is found by half, and a large one that is found: 1/2 and 100/100; 102/104 of the pixels."""
    scores = MaskScores()
    assert scores.add(box_mask((20, 20), (0, 0, 2, 1)), box_mask((20, 20), (0, 0, 2, 2))).iou == 0.5
    scores.add(box_mask((20, 20), (5, 5, 15, 15)), box_mask((20, 20), (5, 5, 15, 15)))
    assert (scores.giou, scores.ciou) == (0.75, 102 / 104)


def test_samples_without_a_target():
    """ReasonSeg and gRefCOCO: nothing found is right and adds no pixels; anything found is wrong and adds its own."""
    there = box_mask((20, 20), (5, 5, 15, 15))
    scores = MaskScores()
    scores.add(there, there)
    scores.add(None, None)
    assert (scores.giou, scores.ciou) == (1, 1)
    scores.add(there, None)
    assert (scores.giou, scores.ciou) == (2 / 3, 0.5)
    nothing = MaskScores()
    nothing.add(None, None)
    assert nothing.ciou == 1


@settings(deadline=None, max_examples=30)
@given(st.lists(pairs_of_masks(), min_size=1, max_size=6), st.randoms())
def test_neither_order_nor_processes_change_a_figure(pairs, random):
    alone, first, second = MaskScores(), MaskScores(), MaskScores()
    for pair in pairs:
        alone.add_video(*[mask[None] for mask in pair])
    for pair in random.sample(pairs, len(pairs)):
        random.choice([first, second]).add_video(*[mask[None] for mask in pair])
    first.merge(second)
    assert (first.giou, first.ciou, first.video) == (alone.giou, alone.ciou, alone.video)


def test_a_video_counts_by_its_volume_and_by_its_frames():
    small, large = box_mask((20, 20), (0, 0, 2, 2)), box_mask((20, 20), (5, 5, 15, 15))
    scores = MaskScores()
    score = scores.add_video([None, large], [small, large])
    assert score == scores.video
    assert score.j == 0.5
    assert scores.giou == scores.ciou == 100 / 104
    assert volume_overlap([None, large], [small, large]) == scores.overlaps[0]


def test_there_is_no_mean_of_nothing():
    for name in ("giou", "ciou", "video"):
        with pytest.raises(PixelReferError, match="no mean of nothing: call add, or add_video for J and F"):
            getattr(MaskScores(), name)


# -- PixelQA -----------------------------------------------------------------------------------------------


def published_volume_scores(predicted, expected):
    """J and F by the formulas of github.com/PolyU-ChenLab/UniPixel, `infer_pixelqa.py`; 1e-6 keeps them off zero."""
    both, found, true = (int(each.sum()) for each in (predicted & expected, predicted, expected))
    j = both / (found + true - both + 1e-6)
    precision, recall = both / (found + 1e-6), both / (true + 1e-6)
    return j, 2 * precision * recall / (precision + recall + 1e-6)


@settings(deadline=None, max_examples=50)
@given(pairs_of_masks())
def test_pixel_qa_scores_volumes(masks):
    predicted, expected = (np.stack([mask, mask[::-1]]) for mask in masks)
    if not predicted.any() and not expected.any():
        return
    score = pixel_qa_score([PixelQAResult("(A)", "A", [predicted], [expected])])
    j, f = published_volume_scores(predicted, expected)
    assert (score.masks.j, score.masks.f) == pytest.approx((j, f), abs=1e-4)


def test_pixel_qa_counts_questions_and_objects():
    there, elsewhere = [box_mask((20, 20), box) for box in ((0, 0, 5, 5), (9, 9, 14, 14))]
    score = pixel_qa_score(
        [
            PixelQAResult("(B) the dog.", "b", [[there]], [[there]]),
            PixelQAResult("b", "C", [[elsewhere]], [[there], [there]]),  # one wrong, one missing
            PixelQAResult("", "A", [[there]], [[there]]),
        ]
    )
    assert score.accuracy == 1 / 3
    assert score.masks == VideoScore(0.5, 0.5)


@pytest.mark.parametrize(
    ("given", "default", "official"),
    [
        ("B", 1, 1),
        ("(b) a dog", 1, 1),
        ("B) a dog", 1, 1),
        ("**B**", 1, 0),
        ("[B]", 1, 0),
        ("<B>", 1, 0),
        ("\nB", 1, 0),
        ("The answer is B", 1, 0),
        ("Because of it", 0, 1),
        ("a dog", 1, 0),
        ("C", 0, 0),
    ],
)
def test_pixel_qa_reads_letters_sanely_or_as_official_code_does(given, default, official):
    result = PixelQAResult(given, "B", [], [[None]], options=["a cat", "a dog", "a cow"])
    assert pixel_qa_score([result]).accuracy == default
    assert pixel_qa_score([result], reading="official").accuracy == official


def test_pixel_qa_says_where_official_code_stops():
    nothing = PixelQAResult("", "B", [], [[None]])
    assert pixel_qa_score([nothing]).accuracy == 0
    with pytest.raises(PixelReferError, match=r"eval_general.py stops with an IndexError at the answer ''"):
        pixel_qa_score([nothing], reading="official")
    with pytest.raises(PixelReferError, match=r"no reading 'officially'"):
        pixel_qa_score([nothing], reading="officially")


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "scored on questions with objects, got 0 questions"),
        ([PixelQAResult("A", "A", [], [])], "scored on questions with objects, got 1 questions"),
        ([PixelQAResult("A", "2", [], [[None]])], "right option must be a letter, got '2'"),
        ([PixelQAResult("A", "A", [[None], [None]], [[None]])], "A question about 1 objects got masks of 1 more"),
        ([PixelQAResult("A", "A", [[None]], [[None, None]])], "as many frames must be compared"),
    ],
    ids=["none", "no objects", "no letter", "surplus", "frames"],
)
def test_pixel_qa_refuses(results, message):
    with pytest.raises(PixelReferError, match=message):
        pixel_qa_score(results)


# -- void pixels and boxes ---------------------------------------------------------------------------------


@settings(max_examples=50)
@given(pairs_of_masks())
def test_void_pixels_are_taken_off(masks):
    mask, void = masks
    left = without(mask, void)
    assert (left is None) == (not (mask & ~void).any())
    assert left is None or np.array_equal(left.dense(), mask & ~void)
    assert without(mask, None) == (RegionMask.from_dense(mask) if mask.any() else None)


def test_a_box_has_no_small_parts():
    mask = box_mask((40, 50), (20, 10, 30, 30))
    assert box_without_specks(mask) == (20, 10, 30, 30)
    mask[0:3, 0:3] = True  # nine pixels
    assert box_without_specks(mask) == (20, 10, 30, 30)
    assert box_without_specks(mask, min_area_px=9) == (0, 0, 30, 30)
    mask[3, 3] = True  # a tenth, that touches at a corner
    assert box_without_specks(mask) == (0, 0, 30, 30)
    assert box_without_specks(box_mask((40, 50), (1, 1, 3, 3))) is None
    assert box_without_specks(None) is None
    assert box_without_specks(RegionMask.from_dense(mask)) == (0, 0, 30, 30)


def test_boxes_overlap():
    assert box_iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert box_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0
    assert box_iou((0, 0, 10, 10), (30, 30, 40, 40)) == 0
    assert box_iou((3, 3, 3, 3), (3, 3, 3, 3)) == 0


# -- ReVOS -------------------------------------------------------------------------------------------------


def plain_official(predicted, counts, foreground, value):
    """What the official code does with arrays of eight bits, pixel by pixel."""
    agreed = wrong = 0
    for inside, true in zip(predicted.ravel().tolist(), counts.ravel().tolist(), strict=True):
        pixel = value if inside else 0
        agreed += pixel == true
        wrong += ((1 - true) % 256 * pixel) % 256
    return agreed / predicted.size, max(1 - wrong / (int(foreground.sum()) + 1e-6), 0.0)


@settings(max_examples=50)
@given(pairs_of_masks(), st.sampled_from([1, 255]), st.integers(0, 2))
def test_official_accuracy_and_robustness(masks, value, copies):
    predicted, true = masks
    objects = [RegionMask.from_dense(true)] * copies if true.any() else []
    counts = true.astype(np.uint8) * len(objects)
    foreground = [RegionMask.from_dense(mask) for mask in (predicted, true) if mask.any()]
    covered = predicted.astype(np.uint8) + true
    mask = RegionMask.from_dense(predicted) if predicted.any() else None
    found = official_accuracy_and_robustness(mask, objects, foreground, true.shape, value=value)
    assert found == pytest.approx(plain_official(predicted, counts, covered, value), abs=1e-12)


@settings(max_examples=50)
@given(pairs_of_masks())
def test_accuracy_and_robustness(masks):
    predicted, true = masks
    foreground = true | np.roll(true, 1, axis=0)
    assert pixel_accuracy(predicted, true, true.shape) == pytest.approx((predicted == true).mean())
    wrong, of_foreground = (predicted & ~true).sum(), foreground.sum()
    expected = max(1 - wrong / of_foreground, 0) if of_foreground else float(wrong == 0)
    assert robustness(predicted, true, foreground) == pytest.approx(expected)


def test_robustness_of_what_is_not_there():
    some = box_mask((9, 9), (1, 1, 4, 4))
    assert robustness(None, some, None) == 1
    assert robustness(some, None, None) == 0
    assert robustness(some, None, RegionMask.from_dense(some)) == 0
    assert pixel_accuracy(None, None, (9, 9)) == 1
