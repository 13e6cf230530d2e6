"""Readers of answers to multiple choices and of yes and no, on answers of many shapes, and on golden numbers."""

import json
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelrefer_plugin import EvaluationError
from pixelrefer_plugin.authoring import option_texts, read_choice, read_yes_no

GOLDEN = Path(__file__).parent.parent.parent / "shared" / "evaluation" / "golden"
needs_golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason="golden numbers are not here")
OPTIONS = ["(A) a lamp", "(B) a rope", "(C) a book", "(D) nothing"]
READINGS = ("default", "pixelrefer", "unipixel", "mvbench")
SANE = [
    ("B", "B"),
    ("(b)", "B"),
    ("B.", "B"),
    ("The answer is (B).", "B"),
    ("**B**", "B"),
    ("[B]", "B"),
    ("\nB", "B"),
    ("Answer: B", "B"),
    ("a rope", "B"),
    ("Because it swings", None),
    ("E", None),
    ("A, B", None),
    ("(A) or (B)", None),
    ("(AB)", None),
    ("A lantern", None),
    ("Definitely (D)", "D"),
    ("", None),
    (".", None),
    ("I don't know", None),
    ("(B", "B"),
    ("option (c)", "C"),
    ("\u7b54\u6848\u662fB", "B"),
    ("A man (who is tall) is (C)", "C"),
    ("(1)", None),
    ("It holds a book.", "C"),
    ("A rope", "B"),
    ("The answer is a rope", "B"),
    ("The answer is a", "A"),
    ("The answer is A lamp", "A"),
    ("not A, but B", "B"),
    ("The answer is not A", None),
    ("B) y", "B"),
    ("b. rope", "B"),
    ("<answer>B</answer>", "B"),
    ("<B>", "B"),
    ("$\\boxed{B}$", "B"),
    ("<think>A or B or C</think>D", "D"),
    ("Option A is wrong. The answer is B.", "B"),
    ("Both A and B", None),
    ("A/B", None),
    ("The answer is A or B", None),
    ("B because the rope is long", "B"),
    ("\uff22", "B"),
    ("\uff08\uff22\uff09", "B"),
    ("'B'", "B"),
    ('"B"', "B"),
    ("`B`", "B"),
    ("B\n\nExplanation: A dog walks.", "B"),
    ("(A) a lamp (B) a rope (C) a book (D) nothing", None),
    ("I think the answer is B, since A lamp is not there", "B"),
    ("Final answer: C. I said the answer is B before", "C"),
    ("best option is (C", "C"),
    ("The correct option is C", "C"),
    ("The correct choice is D: nothing", "D"),
    ("C is the correct answer", "C"),
    ("D, nothing", "D"),
    ("The object is holding the Rope!", "B"),
    ("a lamp and a rope", None),
    ("U.S.A.", None),
    ("B-tree", None),
    ("b", "B"),
    ("B:", "B"),
    ("Answer:B", "B"),
    ("Answer: **(B) a rope**", "B"),
    ("\u9009B\u662f\u56e0\u4e3a", "B"),
    ("_B_", "B"),
    ("# B", "B"),
    ("B?", "B"),
    ("{B}", "B"),
    ("answer B", "B"),
    ("I choose B", "B"),
    ("It's B", "B"),
    ("Let's see... C!", "C"),
    ("none", None),
    ("The letter is D", "D"),
    ("A", "A"),
    ("a", "A"),
    ("A.", "A"),
    ("Answer is option b.", "B"),
    ("the second", None),
    ("A because it shines", "A"),
    ("- B", "B"),
    ("1. B", "B"),
    ("(A) (B)", None),
    ("A and C", None),
    ("option b", "B"),
    ("B or maybe C", None),
]


def golden(file):
    return json.loads((GOLDEN / file).read_text(encoding="utf-8")) if GOLDEN.is_dir() else {}


CHOICES = golden("multiple_choice.json").get("items", [])
POPE = golden("judge_parsing.json").get("pope", {}).get("items", [])


@pytest.mark.parametrize(("answer", "letter"), SANE)
def test_the_default_reading_finds_the_one_letter_that_is_meant(answer, letter):
    assert read_choice(answer, OPTIONS) == letter
    assert read_choice(answer, [each[4:] for each in OPTIONS]) == letter


def test_letters_and_texts_are_those_that_are_offered():
    assert read_choice("C", OPTIONS[:2]) is None
    assert read_choice("a car", ["a red car", "the car park", "a car"]) == "C"
    assert read_choice("It is the red car.", ["a red car", "a car"]) == "A"
    assert read_choice("walking, not running", ["walking", "running."]) == "A"
    assert read_choice("(E) a bus", [*OPTIONS, "(E) a bus"]) == "E"
    assert read_choice("3", ["2", "3", "4"]) == "B"
    assert read_choice("anything", ["", "  "]) is None


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        (OPTIONS, ["a lamp", "a rope", "a book", "nothing"]),
        (["A. a lamp", "B. a rope"], ["a lamp", "a rope"]),
        (["A) a lamp", "B) a rope"], ["a lamp", "a rope"]),
        (["a lamp", " a rope\n"], ["a lamp", "a rope"]),
        (["(B) a lamp", "(C) a rope"], ["(B) a lamp", "(C) a rope"]),
        (["(A) a lamp", "a rope"], ["(A) a lamp", "a rope"]),
        (["(A)", "(B)"], ["", ""]),
    ],
)
def test_labels_are_taken_off_where_all_options_have_theirs(options, texts):
    assert option_texts(options) == dict(zip(string.ascii_uppercase, texts, strict=False))


def test_options_have_the_letters_of_their_labels():
    assert option_texts(["(B) a lamp", "(A) a rope"]) == {"B": "a lamp", "A": "a rope"}
    assert read_choice("a lamp", ["(B) a lamp", "(A) a rope"]) == "B"
    assert option_texts(["(B) a lamp", "(B) a rope"]) == {"A": "(B) a lamp", "B": "(B) a rope"}


@pytest.mark.parametrize("options", [[], ["a"] * 27, "abc"])
def test_options_must_be_a_list_that_has_letters(options):
    for read in (option_texts, lambda each: read_choice("A", each, "mvbench")):
        with pytest.raises(EvaluationError, match="a list of 1 to 26 options"):
            read(options)


def test_a_reading_that_is_unknown_is_refused_with_those_that_are_known():
    with pytest.raises(EvaluationError, match=r"no reading 'pixelrefr'.*Did you mean 'pixelrefer'.*unipixel"):
        read_choice("A", OPTIONS, "pixelrefr")
    with pytest.raises(EvaluationError, match="Known: default, pope"):
        read_yes_no("yes", "official")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(A) or (B)", "A"),
        ("C) or (B)", "B"),  # parentheses on both sides come first
        ("x C) or D)", "C"),
        ("(AB)", "B"),
        ("...b", "B"),
        (".(b)", None),
        ("Zebra", "Z"),
        (" B", None),
        ("\u212a", "K"),  # the sign of Kelvin, whose small letter is k
        ("\uff22", None),
        ("\n(B)", "B"),
    ],
)
def test_the_reading_of_pixelrefer(answer, letter):
    assert read_choice(answer, OPTIONS, "pixelrefer") == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("(b) a rope", "B"),
        ("b.rope", "B"),
        ("..)B", "B"),
        ("B\n(A)", "B"),
        ("\tB", None),
        ("**B**", None),
        ("E", None),
        ("Because", "B"),
    ],
)
def test_the_reading_of_unipixel(answer, letter):
    assert read_choice(answer, OPTIONS, "unipixel") == letter


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("b", "C"),
        ("Answer: B", "B"),
        ("Answer A", "A"),
        ("B, walking", "C"),  # `B,` is no letter, and so it is the third
        ("( B )", "C"),
        ("(,B", "C"),
        ("xB)", "B"),
        ("walking answer", "A"),
        ("RUNNING fast", "B"),
        ("E", "C"),
        ("", "C"),
    ],
)
def test_the_reading_of_mvbench(answer, letter):
    assert read_choice(answer, ["walking", "running.", "a red car", "the car"], "mvbench") == letter
    two = read_choice(answer, ["walking", "running."], "mvbench")
    assert two == letter, "an option that is not offered can be read"


@pytest.mark.parametrize("answer", ["", ".", "..."])
def test_the_official_readings_stop_at_nothing(answer):
    with pytest.raises(EvaluationError, match=r"eval_videorefer_q_bench.py stops with an IndexError at the answer '"):
        read_choice(answer, OPTIONS, "pixelrefer")
    for each in (answer, f"{answer} B", "() B"):
        with pytest.raises(EvaluationError, match=r"eval_general.py stops with an IndexError"):
            read_choice(each, OPTIONS, "unipixel")
    assert read_choice(answer, OPTIONS) is None


@needs_golden
@pytest.mark.parametrize("item", [each for each in CHOICES if "pixelrefer" in each], ids=lambda item: item["answer"])
@pytest.mark.parametrize(("name", "reading"), [("pixelrefer", "pixelrefer"), ("unipixel_4_options", "unipixel")])
def test_letters_are_the_golden_ones(item, name, reading):
    expected = item[name]
    if "crash" in expected:
        with pytest.raises(EvaluationError, match=expected["crash"]):
            read_choice(item["answer"], OPTIONS, reading)
    else:
        assert read_choice(item["answer"], OPTIONS, reading) == expected["letter"]


@needs_golden
@pytest.mark.parametrize("item", CHOICES, ids=lambda item: item["answer"])
def test_indices_of_mvbench_are_the_golden_ones(item):
    options = golden("multiple_choice.json")["options_for_mvbench"]
    letter = read_choice(item["answer"], options, "mvbench")
    assert string.ascii_uppercase.index(letter) == item["mvbench_pixelrefer_index"]


@needs_golden
@pytest.mark.parametrize("item", POPE, ids=lambda item: item["pred"])
def test_yes_and_no_are_the_golden_ones(item):
    assert read_yes_no(item["pred"], "pope") == item["read_as"]


@pytest.mark.parametrize(
    ("answer", "default", "pope"),
    [
        ("Yes", "yes", "yes"),
        ("Yes, there is a dog. No cat.", "yes", "yes"),
        ("no", "no", "no"),
        ("NO", "no", "yes"),
        ("No.", "no", "no"),
        ("**No**", "no", "yes"),
        ("No\nthere is none", "no", "yes"),
        ("no,", "no", "no"),
        ("Not at all", "no", "yes"),
        ("It is not there", "no", "no"),
        ("There isn\u2019t one", "no", "yes"),
        ("I see no dog", "no", "no"),
        ("None.", "no", "yes"),
        ("There is a dog.", "yes", "yes"),
        ("I know that dog", None, "yes"),
        ("", None, "yes"),
        ("Yes or no?", None, "yes"),
        ("yes/no", None, "yes"),
        ("<think>no?</think>Yes", "yes", "yes"),
    ],
)
def test_yes_and_no(answer, default, pope):
    assert read_yes_no(answer) == default
    assert read_yes_no(answer, "pope") == pope


PIECES = ["A", "B", "b", "E", "(", ")", ".", ",", " ", "\n", "answer", "Answer", "is ", "not ", "or ", "car", "no"]


@settings(deadline=None, max_examples=200)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=12).map("".join))
def test_whatever_is_said_a_reading_gives_a_letter_or_says_why_not(answer):
    assert read_choice(answer, OPTIONS) in {None, *"ABCD"}
    assert read_choice(answer, OPTIONS, "mvbench") in {*"ABCD"}
    assert read_yes_no(answer) in {None, "yes", "no"}
    if answer.replace(".", ""):
        assert read_choice(answer, OPTIONS, "pixelrefer") in {None, *string.ascii_uppercase}
    if answer.split(" ")[0].strip("()."):
        assert read_choice(answer, OPTIONS, "unipixel") in {None, *"ABCD"}


@pytest.mark.parametrize("piece", ["(,", " ", "\n", "A or ", "answer ", "n't the ", "[(", "_", "<b", "a lamp "])
@pytest.mark.parametrize("reading", READINGS)
def test_a_very_long_answer_is_read(piece, reading):
    assert read_choice("x" + piece * 20_000, OPTIONS, reading) in {None, *string.ascii_uppercase}
