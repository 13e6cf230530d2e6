"""Files of answers: written and read again; what does not fit the questions is refused by name."""

import json

import numpy as np
import pytest

from pixelrefer_plugin import EvaluationError, Region, RegionSample, VideoRegion
from pixelrefer_plugin.contracts.questions import Answer, Question
from pixelrefer_plugin.evaluation.predicting.answer_file import answer_line, failure_line, read_answers

RLE = {"size": [4, 6], "counts": [9, 3, 12]}


def question(id, **changes):
    asked = RegionSample(id=id, messages=({"role": "user", "content": f"what is {id}?"},), where=f"a.jsonl line {id}")
    return Question(id=id, asked=asked, **changes)


def asked(*ids):
    return [question(id) for id in ids]


def written(path, *lines):
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in lines))
    return path


def line(id, **changes):
    return {"id": id, "given": "a cat", **changes}


def box_mask(*box_xyxy):
    left, top, right, bottom = box_xyxy
    mask = np.zeros((4, 6), dtype=bool)
    mask[top:bottom, left:right] = True
    return Region.from_mask(mask)


def test_a_line_says_what_is_known():
    assert answer_line(question("1", references=("a dog", "dog")), Answer(id="1", text="a cat")) == {
        "id": "1", "question": "what is 1?", "given": "a cat", "expected": "a dog", "where": "a.jsonl line 1",
    }  # fmt: skip


def test_masks_come_back_from_their_lines(tmp_path):
    answers = [
        Answer(id="none", text="nothing", image_hw=(4, 6)),
        Answer(id="picture", text="<seg> <seg>", objects=(box_mask(0, 1, 3, 4), None), image_hw=(4, 6)),
        Answer(
            id="video",
            text="<seg>",
            objects=(VideoRegion({0: box_mask(0, 0, 2, 2), 7: box_mask(1, 1, 3, 3)}),),
            image_hw=(4, 6),
            frames=(0, 3, 7),
        ),
        Answer(id="bad", text="", failure="its picture is missing"),
    ]
    questions = asked("none", "picture", "video", "bad")
    path = written(tmp_path / "a.jsonl", *map(answer_line, questions, answers))
    found = read_answers(path, questions)
    for answer, given in zip(found, answers, strict=True):
        kept = [(each.id, each.text, each.image_hw, each.frames, each.failure) for each in (answer, given)]
        assert kept[0] == kept[1]
        assert pixels(answer.objects) == pixels(given.objects)


def pixels(objects):
    shapes = [each.frames if isinstance(each, VideoRegion) else {None: each} for each in objects]
    return [
        {frame: each and each.to_mask((4, 6)).dense().tolist() for frame, each in frames.items()} for frames in shapes
    ]


def test_answers_come_in_the_order_of_the_questions(tmp_path):
    path = written(tmp_path / "a.jsonl", line("b"), line(3), line("a"))
    assert [each.id for each in read_answers(path, asked("a", "b", "3"))] == ["a", "b", "3"]
    path.write_text(json.dumps([line("b"), line("a")]))
    assert [each.id for each in read_answers(path, asked("a", "b"))] == ["a", "b"]


def test_a_mask_without_a_pixel_is_none(tmp_path):
    blank = {"size": [4, 6], "counts": [24]}
    path = written(tmp_path / "a.jsonl", line("a", masks=[blank, {"frames": {"0": blank}}, RLE], size=[4, 6]))
    [answer] = read_answers(path, asked("a"))
    assert [each is None for each in answer.objects] == [True, True, False]


def test_a_question_that_could_not_be_read(tmp_path):
    path = written(tmp_path / "a.jsonl", failure_line("a", "x.jsonl line 2", "it is not JSON"))
    [answer] = read_answers(path, asked("a"))
    assert (answer.id, answer.text, answer.failure) == ("a", "", "it is not JSON")


def test_questions_may_lack_answers_where_that_is_said(tmp_path):
    path = written(tmp_path / "a.jsonl", line("c"), line("a"))
    assert [each.id for each in read_answers(path, asked("a", "b", "c"), partial=True)] == ["a", "c"]
    with pytest.raises(EvaluationError, match=r"has 2 answers for 3 questions: it lacks 1 id, 'b'\. Ask those too"):
        read_answers(path, asked("a", "b", "c"))


def test_many_missing_ids_are_counted_and_some_named(tmp_path):
    path = written(tmp_path / "a.jsonl", line("0"))
    with pytest.raises(EvaluationError, match="lacks 99 ids, first '1', '2', '3', '4', '5'\\. "):
        read_answers(path, asked(*map(str, range(100))))


@pytest.mark.parametrize("partial", [False, True])
def test_ids_of_other_questions_and_repeated_ones_are_refused(tmp_path, partial):
    path = written(tmp_path / "a.jsonl", line("a"), line("x"), line("y"))
    with pytest.raises(EvaluationError, match="what was not asked: 2 ids, 'x', 'y'. There is|are 1 question"):
        read_answers(path, asked("a"), partial=partial)
    path = written(tmp_path / "a.jsonl", line("a"), line("b"), line("a"), line("a"))
    with pytest.raises(EvaluationError, match="more than one answer for 1 id, 'a'. Keep one"):
        read_answers(path, asked("a", "b"), partial=partial)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"id": "a", "given": "a c', r"a.jsonl line 2: it is not JSON: .*It is the last line: was the file cut off"),
        ('{"id": "a", "given": NaN}', "line 2: it is not JSON: NaN"),
        ('["a"]', "line 2: expected an object with 'id'"),
        ('{"given": "a cat"}', "line 2: 'id' must be a text, got None"),
        ('{"id": true, "given": ""}', "'id' must be a text, got True"),
        ('{"id": "a"}', "line 2, answer 'a': 'given' must be a text, the answer, got None"),
        ('{"id": "a", "given": 3}', "'given' must be a text, the answer, got 3"),
        ('{"id": "a", "given": "", "failure": 1}', "'failure' must be a text, got 1"),
        ('{"id": "a", "given": "", "masks": []}', "'size' must be \\[height, width\\]"),
        ('{"id": "a", "given": "", "masks": {}, "size": [4, 6]}', "'masks' must be a list"),
        ('{"id": "a", "given": "", "masks": [], "size": [4, 0]}', "'size' must be"),
        ('{"id": "a", "given": "", "masks": [], "size": [4, 6], "frames": [-1]}', "'frames' must be a list of frame"),
        ('{"id": "a", "given": "", "masks": [7], "size": [4, 6]}', "mask 0: expected null or an RLE"),
        ('{"id": "a", "given": "", "masks": [{"frames": {"x": null}}], "size": [4, 6]}', "mask 0: expected .*frames"),
        (json.dumps(line("a", masks=[None, RLE], size=[6, 4])), r"mask 1: its size is \[4, 6\], that of the answer"),
        (json.dumps(line("a", masks=[{**RLE, "counts": [9, 3]}], size=[4, 6])), "mask 0: RLE counts must add up"),
        (
            json.dumps(line("a", masks=[{"frames": {"3": {**RLE, "counts": "~~"}}}], size=[4, 6])),
            "mask 0: frame 3: RLE counts are not",
        ),
    ],
)  # fmt: skip
def test_a_line_that_is_no_answer_is_named(tmp_path, text, told):
    path = written(tmp_path / "a.jsonl", line("b"), text)
    with pytest.raises(EvaluationError, match=told):
        read_answers(path, asked("a", "b"))


def test_a_file_that_is_none_is_told(tmp_path):
    with pytest.raises(EvaluationError, match=r"none.jsonl' holds no answers: .*cannot be read"):
        read_answers(tmp_path / "none.jsonl", asked("a"))
    with pytest.raises(EvaluationError, match="is empty"):
        read_answers(written(tmp_path / "a.jsonl"), asked("a"))
