"""Hostile input works, or an error of this package says why not, in little time and memory. Nothing else happens."""

import pytest
from hostile.cases import numbered
from hostile.faulty import FAULTY
from hostile.known import KNOWN
from hostile.run import MADE_KINDS, report, run


def outcomes_of(kind, names, **options):
    """The outcome of each fixed input of a kind, by its name."""
    outcomes = run([(kind, number) for number in range(len(names))], **options)
    return {name: next(each for each in outcomes if each.number == number) for number, name in enumerate(names)}


@pytest.fixture(scope="module")
def known():
    return outcomes_of("known", list(KNOWN))


@pytest.fixture(scope="module")
def faulty():
    return outcomes_of("faulty", list(FAULTY), most_s=5, most_mb=1_500)


@pytest.mark.parametrize("name", KNOWN)
def test_what_once_did_harm_does_none(known, name):
    outcome, right = known[name], KNOWN[name].right
    assert outcome.is_sound if right == "sound" else outcome.verdict == right, outcome


@pytest.mark.parametrize("name", FAULTY)
def test_harm_is_seen(faulty, name):
    assert faulty[name].verdict == FAULTY[name][0], faulty[name]


def test_inputs_are_made_again_from_seed_and_number():
    inputs = [(name, 3) for name in ("own records", "pictures", "recipes", "regions")]
    first, again = (
        sorted((each.kind, each.verdict, each.error, each.where) for each in run(inputs, seed=5)) for _ in range(2)
    )
    assert first == again


def assert_sound(outcomes):
    assert all(each.is_sound for each in outcomes), report(outcomes)


def test_hostile_inputs_of_all_kinds_are_refused_or_work():
    assert_sound(run(numbered(MADE_KINDS, 300)))


@pytest.mark.slow
def test_many_hostile_inputs_of_all_kinds_are_refused_or_work():
    assert_sound(run(numbered(MADE_KINDS, 3_000), seed=1, workers=2))
