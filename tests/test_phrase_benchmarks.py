"""Visual Genome, Ref-L4's phrases and HC-STVG on small files in the official layouts, sound and broken.

Without Java, which takes seconds to start, but for one test.
"""

import hashlib
import json

import numpy as np
import pytest

from pixelrefer_plugin.contracts.questions import Answer
from pixelrefer_plugin.errors import DataError, EvaluationError, JudgeError, PixelReferError
from pixelrefer_plugin.evaluation.asking.engine import ModelEngine
from pixelrefer_plugin.evaluation.metrics import java
from pixelrefer_plugin.plugins import get_benchmark
from pixelrefer_plugin.testing import TINY_HW, OfflineTools, check_benchmark

NAMES = ("visual_genome", "ref_l4_phrases", "hc_stvg")
FILES = {"visual_genome": "vg_val_5000.json", "ref_l4_phrases": "ref-l4-val.json", "hc_stvg": "hc_stvg_val.json"}
PHRASES = ["a red lamp on a table", "the left ear of a brown dog", "green leaves over a fence"]
LONG = "There is a red lamp that stands on a table"


@pytest.fixture
def tiny(tmp_path):
    """Writes the official files of a benchmark, small."""

    def write(name):
        folder = tmp_path / name
        folder.mkdir()
        get_benchmark(name).tiny(folder)
        return folder

    return write


def opened(name, folder, **options):
    spec = get_benchmark(name)
    return spec.open(spec.make_config(options), folder)


def answers_to(questions, texts):
    return [Answer(id=question.id, text=text) for question, text in zip(questions, texts, strict=True)]


def scored(name, questions, texts, tools=None, **options):
    spec = get_benchmark(name)
    return spec.score(spec.make_config(options), questions, answers_to(questions, texts), tools or OfflineTools())


def changed(folder, name, change):
    """Rewrites the records of a file with the last of them changed."""
    path = folder / FILES[name]
    text = path.read_text(encoding="utf-8")
    is_lines = name == "ref_l4_phrases"
    records = [json.loads(line) for line in text.splitlines()] if is_lines else json.loads(text)
    records[-1] = {key: value for key, value in {**records[-1], **change}.items() if value is not ...}
    written = "".join(f"{json.dumps(each)}\n" for each in records) if is_lines else json.dumps(records)
    path.write_text(written, encoding="utf-8")


def box_of(region):
    """Left, top, right and bottom of the pixels inside."""
    rows, columns = np.nonzero(region.to_mask(TINY_HW).dense())
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


class Judge(OfflineTools):
    """Says the same to every request, and keeps what it was asked."""

    def __init__(self, reply):
        super().__init__(reply)
        self.asked = []

    def ask_judge(self, requests):
        self.asked += requests
        return super().ask_judge(requests)


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in NAMES), ("hc_stvg", {"masks": "all"})],
)
def test_conformance(without_java, name, options):
    check_benchmark(name, **options)


@pytest.mark.slow
@pytest.mark.skipif(java.find_java() is None, reason="no Java here")
def test_meteor_is_there_where_java_is(tiny):
    questions = opened("visual_genome", tiny("visual_genome"))
    figures = scored("visual_genome", questions, PHRASES).figures
    assert [figure.label for figure in figures] == ["cider", "meteor", "bleu_4", "rouge_l"]
    assert figures[1].of() == pytest.approx(1)


@pytest.mark.parametrize("name", NAMES)
def test_right_captions_score_best(without_java, tiny, name):
    questions = opened(name, tiny(name))
    scores = scored(name, questions, PHRASES)
    by_name = {figure.name: figure for figure in scores.figures}
    assert list(by_name["rouge_l"].values) == pytest.approx([1, 1, 1])
    assert by_name["cider"].of() > 5
    assert by_name["bleu_4"].of(np.array([0, 0, 2])) == pytest.approx(1)
    assert scores.notes[0].startswith("METEOR is missing")


@pytest.mark.parametrize("name", NAMES)
def test_what_was_not_asked_is_not_counted(without_java, tiny, name):
    questions = opened(name, tiny(name))
    answers = answers_to(questions, PHRASES)
    answers[1] = Answer(id=questions[1].id, text="", failure="no such picture")
    spec = get_benchmark(name)
    for figure in spec.score(spec.make_config({}), questions, answers, OfflineTools()).figures:
        assert figure.counted == 2


@pytest.mark.parametrize("name", NAMES)
def test_long_answers_are_cut_officially(without_java, tiny, name):
    questions = opened(name, tiny(name))
    texts = [f"{'word ' * 100}{PHRASES[0]}", *PHRASES[1:]]
    scores = scored(name, questions, texts, Judge("word " * 120))
    by_label = {figure.label: figure for figure in scores.figures}
    notes = "nltk tokens, judge kit" if name == "ref_l4_phrases" else "nltk tokens"
    assert by_label[f"rouge_l ({notes})"].values[0] > by_label[f"rouge_l (official, {notes})"].values[0] == 0
    assert "The official script reads" in " ".join(scores.notes)


# -- questions -----------------------------------------------------------------------------------------------


def test_visual_genome_shows_the_box(tiny):
    folder = tiny("visual_genome")
    question = opened("visual_genome", folder)[1]
    assert (question.id, question.expected) == ("1", PHRASES[1])
    (region,) = question.asked.regions
    assert box_of(region) == (4, 3, 24, 15)
    assert question.asked.paths == [str(folder / "images" / "VG_100K" / "2.jpg")]
    changed(folder, "visual_genome", {"boxes": [[8, 3, 0, 12]]})
    (region,) = opened("visual_genome", folder)[2].asked.regions
    assert region.kind == "rle"  # the mask: the box has no area


def test_a_box_that_leaves_the_picture_is_cut(tiny):
    folder = tiny("visual_genome")
    changed(folder, "visual_genome", {"boxes": [[-5, 40, 20, 20]]})
    assert box_of(opened("visual_genome", folder)[2].asked.regions[0]) == (0, 40, 15, 48)


def test_ref_l4_asks_about_objects365_with_boxes_cut_to_integers(tiny):
    questions = opened("ref_l4_phrases", tiny("ref_l4_phrases"))
    assert [question.id for question in questions] == ["0", "1", "2"]
    assert [question.references for question in questions] == [(phrase,) for phrase in PHRASES]
    assert box_of(questions[1].asked.regions[0]) == (4, 3, 24, 15)


def test_ref_l4_without_truth_compares_with_descriptions(without_java, tiny):
    folder = tiny("ref_l4_phrases")
    (folder / "refl4_gt.json").unlink()
    changed(folder, "ref_l4_phrases", {"caption": ["green leaves", "leaves over a fence"]})
    questions = opened("ref_l4_phrases", folder)
    assert questions[2].references == ("green leaves", "leaves over a fence")
    scores = scored("ref_l4_phrases", questions, ["a lamp", "an ear", "green leaves"])
    assert scores.figures[0].label == "cider (truth not condensed, nltk tokens)"
    assert "'refl4_gt.json' is not there" in " ".join(scores.notes)


def test_hc_stvg_in_both_shapes(tiny):
    folder = tiny("hc_stvg")
    one, every = (opened("hc_stvg", folder, masks=masks)[1] for masks in ("one", "all"))
    assert one.expected == every.expected == PHRASES[1]
    assert one.asked.paths == every.asked.paths == [str(folder / "video_parts" / "2.mp4")]
    assert sorted(one.asked.regions[0].frames) == [5]
    assert sorted(every.asked.regions[0].frames) == [2, 5]
    (video,) = one.asked.media("video")
    assert (video["fps"], video["max_frames"]) == (1.0, 768)
    (video,) = every.asked.media("video")
    assert (video["nframes"], video["max_frames"]) == (2, 2)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked(tiny, name):
    spec, folder = get_benchmark(name), tiny(name)
    asked = spec.prompts(spec.make_config({}))
    assert opened(name, folder)[0].text == asked[0].text
    assert {prompt.origin for prompt in asked} == {"own words"}
    assert opened(name, folder, question="Tell of <region>.")[0].text == "Tell of <region>."


def test_official_prompts_are_read_from_a_clone(without_java, tiny, tmp_path, monkeypatch):
    from pixelrefer_phrases import condensing, ref_l4

    texts = {
        "PixelRefer/evaluation/pixelrefer/infer_refl4.py": "Tell <region>.",
        "PixelRefer/evaluation/refl4/gpt.py": "Cut.",
    }
    clone = tmp_path / "clone"
    for file, text in texts.items():
        (clone / file).parent.mkdir(parents=True)
        (clone / file).write_text(f"prompt = {text!r}\n", encoding="utf-8")
    folder = tiny("ref_l4_phrases")
    with pytest.raises(DataError, match=r"infer_refl4.py' has not the official text"):
        opened("ref_l4_phrases", folder, official_code=str(clone))
    files = [(file, hashlib.sha256(text.encode()).hexdigest()) for file, text in texts.items()]
    monkeypatch.setattr(ref_l4, "_OFFICIAL", files[0])
    monkeypatch.setattr(condensing, "_OFFICIAL", files[1])
    questions = opened("ref_l4_phrases", folder, official_code=str(clone))
    assert questions[0].text == "Tell <region>."
    judge = Judge("a lamp")
    scored("ref_l4_phrases", questions, [LONG, "", ""], judge, official_code=str(clone))
    (request,) = judge.asked
    assert request.messages[0] == {"role": "system", "content": "Cut."}
    assert request.messages[1]["content"] == [{"type": "text", "text": LONG}]
    assert request.options == {}


# -- condensing ----------------------------------------------------------------------------------------------


@pytest.fixture
def ref_l4(tiny, without_java):
    return opened("ref_l4_phrases", tiny("ref_l4_phrases"))


def test_long_answers_are_condensed_by_the_judge(ref_l4):
    judge = Judge(' "A red lamp on a table"\n')
    scores = scored("ref_l4_phrases", ref_l4, [LONG, "a dog ear", "five words and no more"], judge)
    assert [request.id for request in judge.asked] == ["0"]
    assert judge.asked[0].messages[1]["content"] == LONG
    assert judge.asked[0].options == {"temperature": 0.0}
    assert scores.figures[0].label == "cider (nltk tokens, judge kit)"
    assert {figure.name: figure for figure in scores.figures}["rouge_l"].values[0] == pytest.approx(1)
    assert scores.details == {"0": "condensed to: A red lamp on a table"}
    assert not scores.unread


def test_without_a_judge_the_figures_say_that_nothing_was_condensed(ref_l4):
    for options, tools in (({}, OfflineTools()), ({"condense": False}, Judge("x"))):
        scores = scored("ref_l4_phrases", ref_l4, [LONG, "", ""], tools, **options)
        assert scores.figures[0].label == "cider (answers not condensed, nltk tokens)"
        assert "1 answers have more than five words" in " ".join(scores.notes)
    assert scored("ref_l4_phrases", ref_l4, PHRASES[2:] * 3).figures[0].label == "cider (nltk tokens)"


@pytest.mark.parametrize(
    "reply",
    ["", " \n", "<html><body>502</body></html>", "Here it is:\na lamp", "word " * 30, "x" * 5000, "[1]", "{", '""'],
)
def test_replies_that_are_no_phrase_are_listed_and_the_answer_is_scored_as_it_is(ref_l4, reply):
    scores = scored("ref_l4_phrases", ref_l4, [LONG, "", ""], Judge(reply))
    assert scores.unread["0"].startswith("the judge gave no phrase")
    sane = {figure.name: figure for figure in scores.figures if "official" not in figure.reading}
    assert sane["rouge_l"].values[0] > 0
    official = [figure for figure in scores.figures if "official" in figure.reading]
    assert [figure.name for figure in official] == ["cider", "bleu_4", "rouge_l"]


def test_a_judge_that_is_silent_is_told(ref_l4):
    class Silent(OfflineTools):
        judge = "somebody"

    with pytest.raises(JudgeError, match="1 of 1 answers are missing"):
        scored("ref_l4_phrases", ref_l4, [LONG, "", ""], Silent())


def judged(tmp_path, questions, lines, texts):
    path = tmp_path / "model_reformat.json"
    path.write_text(json.dumps(lines), encoding="utf-8")
    spec = get_benchmark("ref_l4_phrases")
    read = spec.judged_formats["pixelrefer"]
    return list(read(spec.make_config({}), path, questions, answers_to(questions, texts)))


def official_lines(questions, texts, medium="image"):
    return [
        {medium: question.facts["medium"], "Answer": question.facts["caption"], "pred": text}
        for question, text in zip(questions, texts, strict=True)
    ]


def test_published_condensed_answers_are_those_that_are_asked_for(ref_l4, tmp_path):
    texts = [LONG, "short", f"{LONG}, too"]
    lines = [line | {"pred_gpt": f"phrase {number}"} for number, line in enumerate(official_lines(ref_l4, texts))]
    found = judged(tmp_path, ref_l4, lines, texts)
    assert [(request.id, said) for request, said in found] == [("0", "phrase 0"), ("2", "phrase 2")]
    judge = Judge("x")
    scored("ref_l4_phrases", ref_l4, texts, judge)
    assert [request.messages for request, _ in found] == [request.messages for request in judge.asked]


def test_condensed_answers_of_another_model_are_refused(ref_l4, tmp_path):
    lines = official_lines(ref_l4, [LONG, "", ""])
    with pytest.raises(EvaluationError, match="judge's answers about another model"):
        judged(tmp_path, ref_l4, lines, [f"{LONG}!", "", ""])
    with pytest.raises(EvaluationError, match="'pred_gpt' must be a text, got None"):
        judged(tmp_path, ref_l4, lines, [LONG, "", ""])


# -- answers of others ---------------------------------------------------------------------------------------


def predictions(tmp_path, name, questions, lines):
    path = tmp_path / "predictions.json"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    spec = get_benchmark(name)
    return list(spec.answer_formats["pixelrefer"](spec.make_config({}), path, questions))


@pytest.mark.parametrize("name", NAMES)
def test_official_predictions_find_their_questions(tiny, tmp_path, name):
    questions = opened(name, tiny(name))
    medium = "video" if name == "hc_stvg" else "image"
    lines = official_lines(questions, ["one", "two", "three"], medium)
    answers = predictions(tmp_path, name, questions, lines[::-1])
    assert {answer.id: answer.text for answer in answers} == {"0": "one", "1": "two", "2": "three"}
    listed = [line | {medium: [line[medium]]} for line in lines]  # as PixelRefer-Lite's script writes videos
    assert [answer.text for answer in predictions(tmp_path, name, questions, listed)] == ["one", "two", "three"]
    with pytest.raises(EvaluationError, match="line 4 is one too many"):
        predictions(tmp_path, name, questions, [*lines, lines[0]])
    with pytest.raises(EvaluationError, match="line 1 is about no question"):
        predictions(tmp_path, name, questions, [lines[0] | {"Answer": "other"}, *lines])
    with pytest.raises(EvaluationError, match="'pred' must be a text, got 3"):
        predictions(tmp_path, name, questions, [lines[0] | {"pred": 3}, *lines])


# -- official files that are missing or of another version ---------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("visual_genome", {"image": ...}, "image"),
        ("visual_genome", {"caption": " "}, "caption must be a text, or a list of texts"),
        ("visual_genome", {"caption": 3}, "caption must be a text"),
        ("visual_genome", {"boxes": []}, "its box: it must be four numbers"),
        ("visual_genome", {"boxes": [[1, 2, 3]]}, "its box: it must be four numbers"),
        ("visual_genome", {"boxes": [[1, 2, -3, 4]]}, "its box"),
        ("visual_genome", {"boxes": [[100, 100, 3, 4]]}, "region"),
        ("visual_genome", {"boxes": [[1, 1, 0, 4]], "mask": None}, "its box"),
        ("visual_genome", {"height": -1}, "size"),
        ("ref_l4_phrases", {"bbox": "all"}, "its box: it must be four numbers"),
        ("ref_l4_phrases", {"caption": []}, "caption must be a text"),
        ("ref_l4_phrases", {"caption": ["a", 1]}, "caption must be a text"),
        ("hc_stvg", {"mask": None}, "the person: it has no mask on frame 5"),
        ("hc_stvg", {"frame_idx": "five"}, "the person: it must map frame indices to masks"),
        ("hc_stvg", {"video": ...}, "video"),
        ("hc_stvg", {"caption": ...}, "caption must be a text"),
    ],
)
def test_a_broken_record_names_file_and_place(tiny, name, change, message):
    folder = tiny(name)
    changed(folder, name, change)
    with pytest.raises(DataError, match=message) as caught:
        opened(name, folder)
    assert FILES[name] in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": []}, "'masks' must be a list of one object"),
        ({"masks": [{"x": None}]}, "the person: it must map frame indices to masks"),
        ({"masks": [{"2": None}]}, "the person: it has no mask"),
        ({"conversations": [{"value": "?"}]}, "'conversations' must be a question and an answer"),
        ({"conversations": [{"value": "?"}, {"value": None}]}, "caption must be a text"),
    ],
)
def test_a_broken_record_with_all_masks_is_told(tiny, monkeypatch, change, message):
    folder = tiny("hc_stvg")
    monkeypatch.setitem(FILES, "hc_stvg", "hc-stvg-val-allframe.json")
    changed(folder, "hc_stvg", change)
    with pytest.raises(DataError, match=message):
        opened("hc_stvg", folder, masks="all")


@pytest.mark.parametrize("masks", ["one", "all"])
def test_records_of_the_other_shape_are_refused(tiny, masks):
    folder = tiny("hc_stvg")
    one, every = folder / "hc_stvg_val.json", folder / "hc-stvg-val-allframe.json"
    text = one.read_text(encoding="utf-8")
    one.write_text(every.read_text(encoding="utf-8"), encoding="utf-8")
    every.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match="json record 1"):
        opened("hc_stvg", folder, masks=masks)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", ["", "[", '"a"', "[3]"])
def test_a_file_that_is_none_is_refused(tiny, name, content):
    folder = tiny(name)
    (folder / FILES[name]).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=FILES[name]):
        opened(name, folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_says_where_it_comes_from(tmp_path, name):
    with pytest.raises(DataError, match=rf"{FILES[name]}.*huggingface.co/datasets/CircleRadon"):
        opened(name, tmp_path)


def test_ref_l4_without_objects365_is_refused(tiny):
    folder = tiny("ref_l4_phrases")
    lines = (folder / FILES["ref_l4_phrases"]).read_text(encoding="utf-8").splitlines()
    (folder / FILES["ref_l4_phrases"]).write_text(f"{lines[0]}\n", encoding="utf-8")
    with pytest.raises(DataError, match="has no record with 'objects365'"):
        opened("ref_l4_phrases", folder)


def truth(*phrases, **changes):
    entries = [{"image_id": str(id), "id": str(id), "caption": phrase} for id, phrase in enumerate(phrases)]
    entries[0] |= changes
    return {"images": [], "annotations": entries}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "must hold an object with a list 'annotations'"),
        ({"annotations": [1]}, "must hold an object with a list 'annotations'"),
        (truth(*PHRASES[:2]), "has 2 phrases for 3 records, and none with 'image_id' 2"),
        (truth(*PHRASES, "a cat"), "has 4 phrases for 3 records"),
        (truth(*PHRASES, image_id="1"), "a second phrase of it"),
        (truth(*PHRASES, image_id="lamp"), "none with 'image_id' 0"),
        (truth(*PHRASES, caption=None), "its 'caption' is None"),
        (truth(PHRASES[1], PHRASES[2], PHRASES[0]), "fit the descriptions that follow theirs better than their own"),
    ],
)
def test_truth_that_does_not_belong_to_the_records_is_refused(tiny, content, message):
    folder = tiny("ref_l4_phrases")
    (folder / "refl4_gt.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=message) as caught:
        opened("ref_l4_phrases", folder)
    assert "refl4_gt.json" in str(caught.value)


def test_truth_is_found_by_id_in_any_order(tiny):
    folder = tiny("ref_l4_phrases")
    content = truth(*PHRASES)
    content["annotations"] = content["annotations"][::-1]
    (folder / "refl4_gt.json").write_text(json.dumps(content), encoding="utf-8")
    assert [question.expected for question in opened("ref_l4_phrases", folder)] == PHRASES
    (folder / "refl4_gt.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match=r"Cannot read '.*refl4_gt.json'"):
        opened("ref_l4_phrases", folder)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("visual_genome", {"tokens": "words"}),
        ("visual_genome", {"question": "What is it?"}),
        ("visual_genome", {"images": ""}),
        ("ref_l4_phrases", {"official_code": ""}),
        ("ref_l4_phrases", {"condense": "yes"}),
        ("hc_stvg", {"masks": "some"}),
        ("hc_stvg", {"fps": 0}),
        ("hc_stvg", {"max_frames": 0}),
        ("hc_stvg", {"videos": 1}),
    ],
)
def test_options_are_checked(name, options):
    with pytest.raises(PixelReferError, match=next(iter(options))):
        get_benchmark(name).make_config(options)


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in NAMES), ("hc_stvg", {"masks": "all"})])
def test_a_model_is_asked_and_scored(without_java, pair, tiny, name, options):
    questions = opened(name, tiny(name), **options)
    answers = ModelEngine(pair.model, pair.processor, max_new_tokens=4).answer(questions)
    spec = get_benchmark(name)
    scores = spec.score(spec.make_config(options), questions, answers, OfflineTools())
    assert all(np.isfinite(figure.values).all() for figure in scores.figures)
