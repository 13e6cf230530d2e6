"""Figures split, resampled and compared: intervals on known distributions, groups, and what a benchmark may not say."""

import math
from dataclasses import dataclass

import numpy as np
import pytest

from pixelrefer_plugin.contracts.benchmark import BenchmarkSpec
from pixelrefer_plugin.contracts.figures import Figure, Scores
from pixelrefer_plugin.contracts.questions import Answer, Question
from pixelrefer_plugin.contracts.samples import RegionSample
from pixelrefer_plugin.errors import EvaluationError, PluginCodeError, PluginError
from pixelrefer_plugin.evaluation.scoring.groups import LARGE, SMALL, UNKNOWN, Traits
from pixelrefer_plugin.evaluation.scoring.resampling import RESAMPLES, difference, estimate
from pixelrefer_plugin.evaluation.scoring.scoring import compare, score
from pixelrefer_plugin.regions.region import Region, VideoRegion


@dataclass(frozen=True)
class Options:
    """None."""


def benchmark(rule):
    """A benchmark that scores by `rule(questions, answers)`."""
    return BenchmarkSpec(
        name="toy",
        about="A test.",
        config=Options,
        files=(),
        open=lambda config, folder: [],
        score=lambda config, questions, answers, tools: rule(questions, answers),
    )


def question(id, *regions, text="what is <region>?", references=("cat",), type="", **more):
    content = [{"type": "image", "image": "a.png"}, {"type": "text", "text": text}]
    sample = RegionSample(id=id, messages=({"role": "user", "content": content},), regions=regions)
    return Question(id=id, asked=sample, references=references, type=type, **more)


def box(side):
    return Region.from_box((0, 0, side, side))


def answered(questions, *texts):
    return [Answer(id=each.id, text=text) for each, text in zip(questions, texts, strict=True)]


def exact(questions, answers):
    values = [float(a.text == q.expected) for q, a in zip(questions, answers, strict=True)]
    return Scores(figures=[Figure(name="exact", values=np.array(values))])


def figure(values, **more):
    return Figure(name="f", values=np.asarray(values, dtype=float), **more)


def everything(count):
    return np.arange(count)


# -- intervals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (np.random.default_rng(0).normal(3.0, 2.0, 400), 2.0 / 20),
        (np.random.default_rng(1).random(900) < 0.3, math.sqrt(0.3 * 0.7) / 30),
        (np.random.default_rng(2).exponential(1.0, 400), 1.0 / 20),
    ],
    ids=["normal", "share", "skewed"],
)
def test_an_interval_is_as_wide_as_theory_says(values, error):
    found = estimate(figure(values), everything(len(values)))
    assert found.value == pytest.approx(values.mean())
    assert found.low < found.value < found.high
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.15)


def test_intervals_hold_the_truth_as_often_as_they_say():
    generator = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        found = estimate(figure(generator.normal(0.0, 1.0, 60)), everything(60))
        held += found.low <= 0.0 <= found.high
    assert 180 <= held <= 199


def test_a_rule_of_its_own_is_drawn_as_the_mean_is():
    values = np.random.default_rng(3).random(50)
    mean = estimate(figure(values), everything(50))
    ruled = estimate(figure(values, combine=lambda positions: values[positions].mean()), everything(50))
    assert (ruled.low, ruled.high) == pytest.approx((mean.low, mean.high), abs=1e-12)
    assert len(ruled.draws) == RESAMPLES


def test_the_interval_of_a_ratio_is_that_of_the_ratio():
    generator = np.random.default_rng(4)
    union = generator.integers(1, 1000, 80)
    shared = (union * generator.random(80)).astype(int)
    ratio = figure(shared / union, combine=lambda positions: shared[positions].sum() / union[positions].sum())
    found = estimate(ratio, everything(80))
    assert found.value == pytest.approx(shared.sum() / union.sum())
    assert found.low < found.value < found.high


def test_a_costly_rule_has_fewer_draws():
    values = np.zeros(5000)
    called = []
    counted = figure(values, combine=lambda positions: called.append(len(positions)) or 0.0)
    assert len(estimate(counted, everything(5000)).draws) == 200
    assert set(called) == {5000}


def test_the_same_draws_are_made_again():
    values = np.random.default_rng(6).random(30)
    assert np.array_equal(
        estimate(figure(values), everything(30)).draws, estimate(figure(values), everything(30)).draws
    )


def test_values_that_are_missing_do_not_count():
    found = estimate(figure([1.0, math.nan, 0.0, math.nan]), everything(4))
    assert (found.value, found.counted) == (0.5, 2)
    assert 0.0 <= found.low <= found.high <= 1.0


@pytest.mark.parametrize("values", [[math.nan, math.nan], [0.5, math.nan]], ids=["none", "one"])
def test_fewer_than_two_values_have_no_interval(values):
    found = estimate(figure(values), everything(2))
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_a_difference_is_paired():
    """Two models that are right and wrong on nearly the same questions: each is unsure, their difference is not."""
    first = np.random.default_rng(7).random(300)
    second = first + 0.02
    before, after = (estimate(figure(values), everything(300)) for values in (first, second))
    assert after.low < before.high
    found = difference(before, after)
    assert found.value == pytest.approx(0.02)
    assert (found.low, found.high) == pytest.approx((0.02, 0.02))
    assert found.is_sure


def test_a_difference_of_noise_is_not_sure():
    first, second = np.random.default_rng(8).random((2, 100))
    found = difference(*(estimate(figure(values), everything(100)) for values in (first, second)))
    assert not found.is_sure


# -- groups ------------------------------------------------------------------------------------------------


def ring(side):
    return [0, 0, side, 0, side, side, 0, side]


@pytest.mark.parametrize(
    ("asked", "area_px"),
    [
        (question("mask", Region.from_mask(np.ones((10, 20), dtype=bool))), 200),
        (question("rle", Region.from_rle({"size": [10, 20], "counts": [0, 50, 150]})), 50),
        (question("box", Region.from_box((5, 5, 45, 55))), 2000),
        (question("polygon", Region.from_polygon(ring(30))), 900),
        (question("video", VideoRegion({0: box(10), 4: box(20)})), 250),
        (question("several", box(10), box(20), text="is <region> on <region>?"), 100),
        (question("clicks", Region.from_points([(5, 5)])), None),
        (question("no region", text="what is it?"), None),
        (question("outside", Region.from_box((-50, -50, -10, -10))), None),
        (question("targets", text="segment it", targets=(box(7),), segment=True), 49),
    ],
    ids=lambda each: each.id if isinstance(each, Question) else None,
)
def test_the_size_of_what_is_asked_about(asked, area_px):
    assert Traits.of(asked).area_px == area_px


def test_the_region_of_the_last_message_counts():
    messages = (
        {"role": "user", "content": "what is <region>?"},
        {"role": "assistant", "content": "a cat"},
        {"role": "user", "content": "and <region>?"},
    )
    sample = RegionSample(id="turns", messages=messages, regions=(box(50), box(10)))
    assert Traits.of(Question(id="turns", asked=sample)).area_px == 100


def test_figures_are_given_for_each_group():
    asked = [
        question("a", box(44), type="name", references=("cat",)),
        question("b", box(45), type="name", references=("a black cat",)),
        question("c", box(90), type="count", references=("cat",)),
        question("d", text="what is it?", references=("cat",)),
    ]
    result = score(benchmark(exact), Options(), asked, answered(asked, "cat", "cat", "cat", "dog"), None)
    groups = {
        name: {group: (each.value, each.counted) for group, each in found.items()}
        for name, found in result.main.groups.items()
    }
    assert groups == {
        "size": {SMALL: (1.0, 1), LARGE: (0.5, 2), UNKNOWN: (0.0, 1)},
        "type": {"count": (1.0, 1), "name": (0.5, 2), UNKNOWN: (0.0, 1)},
        "length": {"1 word": (2 / 3, 3), "2 to 5 words": (0.0, 1)},
    }


def test_one_group_is_no_split():
    asked = [question("a", box(9)), question("b", box(8))]
    assert score(benchmark(exact), Options(), asked, answered(asked, "cat", "dog"), None).splits == []


def test_without_right_answers_the_given_ones_are_grouped_by_length():
    asked = [question("a", box(9), references=()), question("b", box(9), references=())]
    [split] = score(benchmark(exact), Options(), asked, answered(asked, "", "one two three"), None).splits
    assert {name: positions.tolist() for name, positions in split.groups.items()} == {"none": [0], "2 to 5 words": [1]}
    assert not split.of_questions


# -- comparison --------------------------------------------------------------------------------------------


def test_two_sets_of_answers_are_compared_in_whole_and_in_groups():
    asked = [question(str(n), box(10 if n < 30 else 90)) for n in range(60)]
    right = ["cat"] * 60
    wrong_when_small = ["dog"] * 30 + ["cat"] * 30
    results = [
        score(benchmark(exact), Options(), asked, answered(asked, *texts), None) for texts in (wrong_when_small, right)
    ]
    found = compare(*results)
    assert found.overall["exact"].value == 0.5
    assert found.overall["exact"].is_sure
    assert found.groups["size"][SMALL].value == 1.0
    assert found.groups["size"][LARGE].value == 0.0


def test_other_questions_are_not_compared():
    asked = [question("a", box(9)), question("b", box(9))]
    results = [score(benchmark(exact), Options(), part, answered(part, "x"), None) for part in (asked[:1], asked[1:])]
    with pytest.raises(EvaluationError, match="on the same questions, got 1 question"):
        compare(*results)


# -- readings, and what could not be read ------------------------------------------------------------------


def with_official(values):
    return lambda questions, answers: Scores(
        figures=[
            Figure(name="accuracy", values=np.array([1.0, 0.0])),
            Figure(name="accuracy", values=np.array(values), reading="official"),
        ]
    )


def test_an_official_reading_is_shown_where_it_differs():
    asked = [question("a"), question("b")]
    same = score(benchmark(with_official([1.0, 0.0])), Options(), asked, answered(asked, "x", "y"), None)
    other = score(benchmark(with_official([1.0, 1.0])), Options(), asked, answered(asked, "x", "y"), None)
    assert [each.figure.label for each in same.figures] == ["accuracy"]
    assert [each.figure.label for each in same.same_readings] == ["accuracy (official)"]
    assert set(compare(same, other).overall) == {"accuracy", "accuracy (official)"}
    assert [each.figure.label for each in other.figures] == ["accuracy", "accuracy (official)"]
    assert other.same_readings == []


def test_an_official_reading_that_agrees_in_the_mean_alone_is_shown():
    asked = [question("a"), question("b")]
    result = score(benchmark(with_official([0.0, 1.0])), Options(), asked, answered(asked, "x", "y"), None)
    assert len(result.figures) == 2


def test_unread_failed_and_empty_answers_are_listed():
    asked = [question("a"), question("b"), question("c")]
    answers = [Answer(id="a", text="cat"), Answer(id="b", text=" "), Answer(id="c", text="", failure="no picture")]

    def rule(questions, answers):
        return Scores(figures=exact(questions, answers).figures, unread={"a": "no letter"}, details={"b": "why"})

    result = score(benchmark(rule), Options(), asked, answers, None)
    assert (result.unread, result.failed, result.empty) == ({"a": "no letter"}, {"c": "no picture"}, ["b"])
    assert result.details == {"b": "why"}


def test_what_could_not_be_asked_counts_in_official_readings_alone():
    asked = [question("a"), question("b")]
    answers = [Answer(id="a", text="cat"), Answer(id="b", text="", failure="no picture")]
    figures = (figure([1.0, 0.0]), figure([1.0, 0.0], reading="official"))
    result = score(benchmark(lambda *_: Scores(figures=figures)), Options(), asked, answers, None)
    assert [(each.figure.counted, each.overall.value) for each in result.figures] == [(1, 1.0), (2, 0.5)]


# -- faults ------------------------------------------------------------------------------------------------


def scores_of(*figures, **more):
    return lambda questions, answers: Scores(figures=figures, **more)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda q, a: 0.5, "must return Scores from score, got 0.5"),
        (scores_of(), "one Figure or more"),
        (scores_of(1.0), "one Figure or more"),
        (scores_of(figure([1.0])), "figure 'f' must have a number for each of 2 questions"),
        (scores_of(Figure(name="f", values=["a", "b"])), "figure 'f' must have a number for each of 2 questions"),
        (scores_of(figure([1.0, math.inf])), "figure 'f' is infinite for question 2"),
        (scores_of(figure([1.0, 0.0], scale=0)), "scale above 0"),
        (scores_of(figure([1.0, 0.0]), figure([1.0, 0.0])), "has two figures 'f'"),
        (scores_of(figure([1.0, 0.0]), unread={"z": "?"}), "names question 'z' in Scores.unread"),
        (scores_of(figure([1.0, 0.0]), details=["a"]), "texts by question in Scores.details"),
        (scores_of(figure([1.0, 0.0], combine=lambda positions: math.inf)), "figure 'f' is infinite for 2 questions"),
    ],
)
def test_what_a_benchmark_may_not_return(rule, message):
    asked = [question("a"), question("b")]
    with pytest.raises(PluginError, match=message):
        score(benchmark(rule), Options(), asked, answered(asked, "x", "y"), None)


@pytest.mark.parametrize(
    ("rule", "step"),
    [
        (lambda q, a: 1 / 0, "score"),
        (scores_of(figure([1.0, 0.0], combine=lambda positions: 1 / 0)), "combine"),
    ],
    ids=["score", "combine"],
)
def test_code_that_fails_is_named(rule, step):
    asked = [question("a"), question("b")]
    with pytest.raises(PluginCodeError, match=f"Benchmark 'toy' failed in {step}: ZeroDivisionError"):
        score(benchmark(rule), Options(), asked, answered(asked, "x", "y"), None)


@pytest.mark.parametrize(
    ("asked", "answers", "message"),
    [
        ([], [], "has no questions"),
        ([question("a"), question("b")], [Answer(id="a", text="x")], "has 2 questions, got 1 answer"),
        ([question("a")], [Answer(id="b", text="x")], "question 'a' stands beside an answer to 'b'"),
    ],
    ids=["none", "fewer", "others"],
)
def test_answers_that_are_not_those_to_the_questions(asked, answers, message):
    with pytest.raises(EvaluationError, match=message):
        score(benchmark(exact), Options(), asked, answers, None)


def test_a_figure_that_no_question_has_is_unknown_not_nought():
    asked = [question("a"), question("b")]
    result = score(benchmark(scores_of(figure([math.nan, math.nan]))), Options(), asked, answered(asked, "", ""), None)
    assert not result.main.overall.is_known
    assert math.isnan(result.main.overall.value)
