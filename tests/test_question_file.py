"""The questions of data files: with and without answers, one prompt for each region, under unique ids."""

import json

import pytest
from PIL import Image

from pixelrefer_plugin import DataError, EvaluationError, Region, RegionDataset, SampleError, VideoRegion
from pixelrefer_plugin.evaluation.asking.question_file import Asking, FileQuestions, data_files, open_files

BOX, OTHER = {"box": [1, 1, 9, 9]}, {"box": [4, 4, 20, 20]}


def said(role, text):
    return {"role": role, "content": text}


def record(*messages, regions=(), **changes):
    return {"image": "a.png", "regions": list(regions), "messages": list(messages), **changes}


@pytest.fixture
def write(tmp_path):
    Image.new("RGB", (32, 24)).save(tmp_path / "a.png")

    def written(*records, name="a.jsonl"):
        path = tmp_path / name
        path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in records))
        return path

    return written


def questions(*paths, limit=None, on_bad_sample="error", **asking):
    made = Asking(**asking)
    return FileQuestions(open_files(paths, use=made.use), made, limit=limit, on_bad_sample=on_bad_sample)


def told(questions):
    return [(each.id, each.text, each.expected) for each in questions]


def test_each_answer_has_its_question_and_a_last_one_has_none(write):
    path = write(
        record(
            said("user", "what is <region>?"),
            said("assistant", "a cat"),
            said("user", "and <region>?"),
            regions=[BOX, OTHER],
            id="s",
        ),
        record(said("user", "anything else?"), id="t"),
    )
    found = questions(path)
    assert told(found) == [
        ("s", "what is <region>?", "a cat"),
        ("s#2", "and <region>?", ""),
        ("t", "anything else?", ""),
    ]
    assert [len(each.asked.regions) for each in found] == [1, 2, 0]
    assert found[-1].asked.where == "a.jsonl line 2"
    with pytest.raises(IndexError, match="3 questions: there is no question 3"):
        found[3]


def test_training_does_not_take_what_has_no_answer(write):
    path = write(record(said("user", "anything else?"), id="t"))
    with pytest.raises(
        SampleError, match=r"no answer to learn: .* of the user.*answers such questions with pixelrefer pr"
    ):
        RegionDataset.open(path)[0]
    with pytest.raises(SampleError, match="it has no question: its last message is of the system"):
        RegionDataset.open(write(record(said("system", "be brief"))), use="ask")[0]


@pytest.mark.parametrize("format", ["pixelrefer", "videorefer", "osprey"])
def test_foreign_conversations_may_end_with_a_question(write, format):
    rle = {"size": [24, 32], "counts": [100, 20, 648]}
    turns = [{"from": "human", "value": "<image>\nwhat is <region>?"}]
    records = {
        "pixelrefer": {"image": ["a.png"], "masks": [rle], "conversations": turns},
        "videorefer": {"video": "a.mp4", "annotation": [{"0": {"segmentation": rle}}], "conversations": [
            {"from": "human", "value": "<video>\nwhat is <region>?"}]},
        "osprey": {"file_name": "a.png", "height": 24, "width": 32, "annotation": [{"segmentation": rle}],
                   "conversations": [{"from": "human", "value": "what is <region1>?"}]},
    }  # fmt: skip
    path = write(records[format])
    [question] = FileQuestions(open_files([path], format=format))
    assert "what is" in question.text
    with pytest.raises(SampleError, match="no answer to learn"):
        RegionDataset.open(path, format=format)[0]


def test_a_prompt_is_asked_about_each_region_in_place_of_what_the_file_asks(write):
    path = write(
        record(
            said("user", "<image><image>what is <region>, not <region>?"),
            said("assistant", "it, <seg> and <seg>"),
            regions=[BOX, {**OTHER, "image": 1}, BOX, {"box": [2, 2, 30, 20]}],
            image=None,
            images=["a.png", "b.png"],
            size=[[24, 32], [48, 64]],
            id="s",
        ),
        {"image": "a.png", "regions": [BOX]},
    )
    found = questions(path, prompt="Describe <region>.")
    assert told(found) == [(id, "Describe <region>.", "") for id in ("s", "s#2", "s#3", "1")]
    assert [each.asked.regions for each in found] == [
        (Region.from_box(box),) for box in [(1, 1, 9, 9), (4, 4, 20, 20), (2, 2, 30, 20), (1, 1, 9, 9)]
    ]
    shown = [each.asked.messages[0]["content"][0]["image"].rpartition("/")[2] for each in found]
    assert shown == ["a.png", "b.png", "a.png", "a.png"]
    assert [each.asked.media_hw for each in found] == [((24, 32),), ((48, 64),), ((24, 32),), ()]


def test_a_prompt_may_ask_for_masks(write):
    path = write({"image": "a.png", "regions": [BOX]})
    assert [each.segment for each in questions(path, prompt="Segment <region>.", segment=True)] == [True]


def test_an_object_on_every_frame_is_shown_on_some(write):
    frames = {str(frame): BOX for frame in range(60)}
    messages = [said("user", "segment it, like <region>"), said("assistant", "<seg>")]
    path = write({"video": "a.mp4", "regions": [{"frames": {"3": BOX}}, {"frames": frames}], "messages": messages})
    found = questions(path, prompt="Describe <region>.")
    assert all(isinstance(each.asked.regions[0], VideoRegion) for each in found)
    shown = [list(each.asked.regions[0].frames) for each in found]
    assert [shown[0], len(shown[1]), shown[1][0], shown[1][-1]] == [[3], 16, 0, 59]


@pytest.mark.parametrize("prompt", ["Describe it.", "Is <region> left of <region>?", "Is it <region> <seg>?"])
def test_a_prompt_is_about_one_region(prompt):
    with pytest.raises(EvaluationError, match="The prompt must have one <region> and no <seg>"):
        Asking(prompt)


def test_masks_are_asked_for_where_the_answer_has_some_or_everywhere(write):
    path = write(
        record(said("user", "segment it"), said("assistant", "<seg>"), regions=[BOX]),
        record(said("user", "what is it?"), said("assistant", "a cat")),
    )
    assert [each.segment for each in questions(path)] == [True, False]
    assert [each.segment for each in questions(path, segment=True)] == [True, True]
    path = write(record(said("user", "hello?"), image=None, id="t"))
    with pytest.raises(SampleError, match=r"'t'.*shows 0 pictures and videos"):
        questions(path, segment=True)


def test_ids_are_unique_over_files(write):
    one = write(record(said("user", "a?"), id="s"), record(said("user", "b?"), id="s"))
    other = write(record(said("user", "c?"), id="s"), record(said("user", "d?")), name="b.jsonl")
    assert told(questions(one, other)) == [("s", "a?", ""), ("s~2", "b?", ""), ("s~3", "c?", ""), ("1", "d?", "")]
    assert told(questions(one, other, limit=3))[-1] == ("s~3", "c?", "")


def test_a_sample_that_cannot_be_used(write):
    path = write(
        record(said("user", "a?"), id="s"), "{", record(said("user", "<region>?"), id="s"), record(said("user", "d?"))
    )
    with pytest.raises(SampleError, match="a.jsonl line 2, sample '1': it is not JSON"):
        questions(path)
    found = questions(path, on_bad_sample="skip")
    assert len(found) == 4
    assert found[3].text == "d?"
    with pytest.raises(SampleError, match="a.jsonl line 3, sample 's~2': its texts have 1 <region>") as caught:
        found[2]
    assert caught.value.sample_id == "s~2"


def test_a_file_without_a_question_is_told(write):
    path = write(record(said("user", "where?"), said("assistant", "at <region>"), regions=[BOX]))
    with pytest.raises(EvaluationError, match="'a.jsonl': 1 sample, but no question that a text answers"):
        questions(path)
    path = write(record(said("user", "where?"), said("assistant", "there")))
    with pytest.raises(EvaluationError, match="1 sample, but no region to ask about"):
        questions(path, prompt="<region>?")


def test_a_folder_stands_for_the_data_files_in_it(write, tmp_path):
    one, other = write(record(said("user", "a?"))), write(record(said("user", "b?")), name="b.json")
    assert data_files([tmp_path]) == [one, other]
    assert [text for _, text, _ in told(questions(tmp_path))] == ["a?", "b?"]
    with pytest.raises(DataError, match="a.jsonl' is named more than once"):
        data_files([tmp_path, one])
    write('{"something": 1}', name="c.json")
    with pytest.raises(DataError, match="Folder .* was named, but not all .*No data format recognises"):
        questions(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty' has no data file: expected names that end in .json or .jsonl"):
        data_files([tmp_path / "empty"])
