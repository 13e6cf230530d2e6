"""Captions' figures against pycocoevalcap's own, on any part of a run, on texts of all kinds, with Java and without.

METEOR's program takes seconds to start: what runs it is slow.
"""

import json
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from pixelrefer_plugin.errors import EvaluationError
from pixelrefer_plugin.evaluation.metrics import extra, java
from pixelrefer_plugin.evaluation.metrics.caption_tokens import tokenized
from pixelrefer_plugin.evaluation.metrics.captions import (
    CAPTION_METRICS,
    CaptionPair,
    caption_figures,
    first_words,
)
from pixelrefer_plugin.evaluation.metrics.meteor import meteor_scores, meteor_statistics

GOLDEN = Path(__file__).parents[2] / "shared" / "evaluation" / "golden" / "captions.json"
OFFICIAL = {"bleu_1": "Bleu_1", "bleu_2": "Bleu_2", "bleu_3": "Bleu_3", "bleu_4": "Bleu_4"} | {
    "rouge_l": "ROUGE_L",
    "cider": "CIDEr",
    "meteor": "METEOR",
}
SHIFTED = "hypothesis_carriage_return"
"""The official script compares its captions with wrong references."""

needs_java = pytest.mark.skipif(java.find_java() is None, reason="no Java here")
posix = pytest.mark.skipif(os.name == "nt", reason="a shell script stands for Java")
has_golden = pytest.mark.skipif(not GOLDEN.exists(), reason="golden numbers are not here")

# Made with pycocoevalcap 1.2 on OpenJDK 17
OWN = [
    CaptionPair("a brown cat sits on the mat", ["a brown cat is sitting on a mat", "cat on mat"]),
    CaptionPair("two dogs run", ["two dogs run"]),
    CaptionPair("", ["a green leaf"]),
    CaptionPair("The man's (left) hand.", ["a man's left hand"]),
]

OWN_CIDER = [2.1355225612294304, 7.5, 0.0, 2.2608821213846424]
OWN_ROUGE_L = [0.8591549295774649, 1.0, 0.0, 0.6873239436619719]
OWN_BLEU = [0.6275363049163668, 0.4463686429489957, 0.31815864821442985, 4.3494759689322945e-05]
OWN_METEOR_LINES = (
    "7.0 8.0 3.0 4.0 3.0 3.0 2.0 2.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 1.0 1.0 0.0 1.0 2.0 6.0 7.0",
    "3.0 3.0 1.0 1.0 2.0 2.0 1.0 1.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 1.0 3.0 3.0",
    "0.0 3.0 0.0 1.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0",
    "8.0 6.0 5.0 3.0 2.0 2.0 2.0 2.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.0 1.0 1.0 1.0 1.0 3.0 6.0 6.0",
)
OWN_METEOR = [0.44175794215521286, 1.0, 0.0, 0.4038832914660313]
OWN_METEOR_OF_ALL = 0.38979279828777097


def corpora():
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    whole = [(name, golden[name]) for name in ("main", "single_reference") if name in golden]
    return dict([*whole, *golden["edge"].items()])


def pairs_of(corpus):
    return [CaptionPair(item["hypothesis"], item["references"]) for item in corpus["items"].values()]


def rows_of(all_corpora):
    """Which captions of all corpora in a row are of each."""
    start, rows = 0, {}
    for name, corpus in all_corpora.items():
        rows[name] = np.arange(start, start + len(corpus["items"]))
        start += len(corpus["items"])
    return rows


@pytest.fixture
def fake_java(monkeypatch, tmp_path):
    """Puts a shell script in Java's place."""

    def put(script, version="exit 0"):
        path = tmp_path / "java"
        path.write_text(f'#!/bin/sh\n[ "$1" = -version ] && {version}\n{script}\n', encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        java.find_java.cache_clear()

    yield put
    java.find_java.cache_clear()


def figures_of(pairs, **options):
    return {figure.name: figure for figure in caption_figures(pairs, **options)[0]}


# -- official numbers ----------------------------------------------------------------------------------------


@needs_java
@has_golden
@pytest.mark.parametrize(
    "metrics", [("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"), pytest.param(("meteor",), marks=pytest.mark.slow)]
)
def test_scores_are_the_official_ones(metrics):
    pairs = [pair for corpus in corpora().values() for pair in pairs_of(corpus)]
    run = figures_of(pairs, metrics=metrics, tokens="ptb")  # as one: but for CIDEr, no score depends on the rest of it
    rows = rows_of(corpora())
    for name, corpus in corpora().items():
        for metric in metrics if name != SHIFTED else ():
            expected = [item["scores"][OFFICIAL[metric]] for item in corpus["items"].values()]
            np.testing.assert_allclose(run[metric].values[rows[name]], expected, atol=1e-6, err_msg=name)
            assert run[metric].of(rows[name]) == pytest.approx(corpus["corpus"][OFFICIAL[metric]], abs=1e-6)


@needs_java
@has_golden
def test_tokens_are_the_official_ones():
    items = [item for name, corpus in corpora().items() if name != SHIFTED for item in corpus["items"].values()]
    expected = [text for item in items for text in (item["tokenized_hypothesis"], *item["tokenized_references"])]
    given = [text for item in items for text in (item["hypothesis"], *item["references"])]
    assert tokenized(given, "ptb") == expected
    on_main = corpora()["main"]["items"].values()
    assert tokenized([item["hypothesis"] for item in on_main], "nltk") == [
        item["tokenized_hypothesis"] for item in on_main
    ]


@has_golden
def test_cider_is_the_official_one():
    """On NLTK's tokens, which are the same on all of these."""
    for name, corpus in corpora().items():
        if name != SHIFTED:
            figure = figures_of(pairs_of(corpus), metrics=["cider"], tokens="nltk")["cider"]
            expected = [item["scores"]["CIDEr"] for item in corpus["items"].values()]
            np.testing.assert_allclose(figure.values, expected, atol=1e-6, err_msg=name)
            assert figure.of() == pytest.approx(corpus["corpus"]["CIDEr"], abs=1e-6)


@has_golden
def test_without_java_all_but_meteor_are_the_same_on_common_captions(without_java):
    corpus = corpora()["main"]
    figures, notes = caption_figures(pairs_of(corpus))
    assert [figure.label for figure in figures] == [
        f"{name} (nltk tokens)" for name in CAPTION_METRICS if name != "meteor"
    ]
    for figure in figures:
        assert figure.of() == pytest.approx(corpus["corpus"][OFFICIAL[figure.name]], abs=1e-6)
    assert notes[0].startswith("METEOR is missing: it needs Java")
    assert notes[1].startswith("Captions are split by NLTK's tokenizer")


# -- of our own ----------------------------------------------------------------------------------------------


def test_known_scores(without_java):
    figures = figures_of(OWN)
    assert figures["cider"].values == pytest.approx(OWN_CIDER, abs=1e-6)
    assert figures["rouge_l"].values == pytest.approx(OWN_ROUGE_L, abs=1e-6)
    assert [figures[f"bleu_{words}"].of() for words in (1, 2, 3, 4)] == pytest.approx(OWN_BLEU, abs=1e-6)


@pytest.mark.parametrize("positions", [[0], [2], [3, 0], [0, 0, 1, 3], [1, 1, 1], [2, 2]])
def test_a_part_of_a_run_scores_as_a_corpus_of_its_own(without_java, positions):
    """With repetitions. CIDEr alone keeps the document frequencies of the run."""
    run = figures_of(OWN)
    alone = figures_of([OWN[index] for index in positions])
    for name in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l"):
        assert run[name].of(np.array(positions)) == pytest.approx(alone[name].of(), abs=1e-9), name
    assert run["cider"].of(np.array(positions)) == pytest.approx(run["cider"].values[positions].mean())


def test_bleu_is_that_of_the_scorer(without_java):
    """Of each caption, and of all."""
    scorer = extra.eval_module("pycocoevalcap.bleu.bleu").Bleu(4)
    texts = tokenized([pair.prediction for pair in OWN], "nltk")
    references = [tokenized(pair.references, "nltk") for pair in OWN]
    corpus, items = scorer.compute_score(dict(enumerate(references)), {i: [t] for i, t in enumerate(texts)}, verbose=0)
    figures = figures_of(OWN)
    for words in range(1, 5):
        np.testing.assert_allclose(figures[f"bleu_{words}"].values, items[words - 1], atol=1e-12)
        assert figures[f"bleu_{words}"].of() == pytest.approx(corpus[words - 1], abs=1e-12)


@posix
def test_statistics_of_meteor_are_scored_as_its_program_does(fake_java, tmp_path):
    """Lines that the program wrote, and its scores of them and of their sum."""
    (tmp_path / "lines").write_text("".join(f"{line}\n" for line in OWN_METEOR_LINES), encoding="utf-8")
    fake_java(f"cat > /dev/null; cat '{tmp_path}/lines'")
    statistics = meteor_statistics([pair.prediction for pair in OWN], [pair.references for pair in OWN])
    assert meteor_scores(statistics) == pytest.approx(OWN_METEOR, abs=1e-9)
    assert meteor_scores(statistics.sum(axis=0)) == pytest.approx(OWN_METEOR_OF_ALL, abs=1e-9)


@needs_java
@pytest.mark.slow
def test_meteor_of_any_part_is_what_the_program_says():
    """Against its own `EVAL`, on parts with repetitions."""
    texts = tokenized([pair.prediction for pair in OWN], "ptb")
    references = [tokenized(pair.references, "ptb") for pair in OWN]
    scorer = extra.eval_module("pycocoevalcap.meteor.meteor").Meteor()
    statistics = meteor_statistics(texts, references)
    for positions in ([0, 1, 2, 3], [0, 0, 3], [1, 1], [2]):
        given = {number: references[index] for number, index in enumerate(positions)}
        said = {number: [texts[index]] for number, index in enumerate(positions)}
        corpus, items = scorer.compute_score(given, said)
        assert meteor_scores(statistics[positions].sum(axis=0)) == pytest.approx(corpus, abs=1e-9)
        assert meteor_scores(statistics[positions]) == pytest.approx(items, abs=1e-9)
    for pipe in (scorer.meteor_p.stdout, scorer.meteor_p.stderr):
        pipe.close()


# -- texts of all kinds --------------------------------------------------------------------------------------

BREAKS = ["\r", "\n", "\r\n", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\0", "\ud800"]


@pytest.mark.parametrize("tokens", ["nltk", pytest.param("ptb", marks=needs_java)])
def test_no_line_break_shifts_captions(tokens):
    captions = [f"a red{mark}bus{mark}" for mark in BREAKS]
    assert tokenized([*captions, "the end"], tokens) == ["a red bus"] * len(BREAKS) + ["the end"]


@pytest.mark.parametrize("tokens", ["nltk", pytest.param("ptb", marks=needs_java)])
def test_empty_and_strange_captions_keep_their_places(tokens):
    captions = ["", " ", "...", "🐶" * 50, "a" * 50_000, "\n\n", "last"]
    rows = tokenized(captions, tokens)
    assert rows[:3] == ["", "", ""]
    assert (rows[5], rows[6]) == ("", "last")
    assert len(rows) == len(captions)
    assert tokenized([], tokens) == []


def test_typography_reads_as_the_ptb_tokenizer_has_it(without_java):
    given = "the man\u2019s \u201cred\u201d hat \u2013 don\u2019t | end\u2026"
    assert tokenized([given], "nltk") == ["the man 's red hat do n't | end"]


def test_a_line_break_is_told(without_java):
    pairs = [CaptionPair("a red\rbus", ["a red\u2028bus"]), CaptionPair("a\nb", ["a\tb"])]
    assert "2 texts with line breaks other than" in " ".join(caption_figures(pairs)[1])


def test_what_is_too_long_is_cut_and_told(without_java):
    pairs = [CaptionPair("word " * 30_000, ["a word"]), CaptionPair("a word", ["a word"])]
    figures, notes = caption_figures(pairs)
    assert "1 text cut to 20,000 characters" in notes[-1]
    assert all(np.isfinite(figure.values).all() for figure in figures)


def test_first_words_are_those_of_the_official_script():
    assert first_words("a  b c", 3) == "a  b"  # single spaces separate, so that two have an empty word between them
    assert first_words("word " * 143) == " ".join(["word"] * 100)


@pytest.mark.parametrize("pairs", [[], [CaptionPair("a", [])], [CaptionPair("?", ["!"])], [CaptionPair("", [""])]])
def test_runs_without_a_word(without_java, pairs):
    figures = figures_of(pairs)
    counted = sum(bool(pair.references) for pair in pairs)
    assert all(figure.counted == counted for figure in figures.values())
    assert figures["cider"].of() == 0 if counted else np.isnan(figures["cider"].of())


def test_what_has_no_right_answer_is_not_counted(without_java):
    figures, notes = caption_figures([CaptionPair("a", []), *OWN, CaptionPair("b", [])])
    expected = figures_of(OWN)
    for figure in figures:
        assert np.isnan(figure.values[[0, 5]]).all()
        assert figure.of() == pytest.approx(expected[figure.name].of())
        assert figure.of(np.array([1, 2, 2])) == pytest.approx(expected[figure.name].of(np.array([0, 1, 1])))
    assert "2 questions without a right answer: not counted." in notes


def test_labels_name_reading_and_judge(without_java):
    figures, _ = caption_figures(OWN, metrics=["cider"], reading="official", judge="someone")
    assert figures[0].label == "cider (official, nltk tokens, judge someone)"


# -- what is missing -----------------------------------------------------------------------------------------


def test_java_that_is_missing_is_refused_where_it_is_asked_for(without_java):
    with pytest.raises(EvaluationError, match="tokens=ptb needs Java"):
        caption_figures(OWN, tokens="ptb")
    with pytest.raises(EvaluationError, match="METEOR needs Java"):
        meteor_statistics(["a"], [["a"]])


def test_names_that_are_unknown_are_refused(without_java):
    with pytest.raises(EvaluationError, match=r"metrics must be of meteor.*got 'spice'"):
        caption_figures(OWN, metrics=["spice"])
    with pytest.raises(EvaluationError, match="tokens must be one of auto, ptb, nltk, got 'words'"):
        caption_figures(OWN, tokens="words")


def test_a_package_that_is_missing_is_named(without_java, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider.cider", None)
    with pytest.raises(EvaluationError, match=r"needs pycocoevalcap.*pip install 'pixelrefer-plugin\[eval\]'"):
        caption_figures(OWN, metrics=["cider"])
    with pytest.raises(EvaluationError, match="needs no_such_package"):
        extra.folder_of("no_such_package")


@posix
@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("cat > /dev/null; echo one", "expected 4 lines of Java, got 1, exit status 0"),
        ("cat > /dev/null; echo no memory >&2; exit 3", "exit status 3. Java said 'no memory'"),
        ("sed 's/.*/<html>/'", "METEOR gave no statistics, but '<html>'"),
    ],
)
def test_java_that_fails_is_told(fake_java, script, expected):
    fake_java(script)
    with pytest.raises(EvaluationError, match=expected):
        meteor_statistics([pair.prediction for pair in OWN], [pair.references for pair in OWN])


@posix
def test_java_that_never_ends_is_stopped(fake_java, monkeypatch):
    fake_java("exec sleep 600")
    monkeypatch.setattr(java, "_SECONDS", 0.1)
    with pytest.raises(EvaluationError, match="has not ended after 0 seconds"):
        meteor_statistics(["a"], [["a"]])


@posix
def test_java_that_only_says_where_to_get_one_is_none(fake_java):
    fake_java("exit 0", version="exit 1")
    assert java.find_java() is None


@needs_java
def test_nothing_is_written_beside_the_package(monkeypatch):
    folder = extra.folder_of("pycocoevalcap")
    before = sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    tokenized(["a red bus"], "ptb")
    assert sorted(path for path in folder.rglob("*") if "__pycache__" not in path.parts) == before
