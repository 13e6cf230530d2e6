"""Answers to the questions of files: in batches as alone, resumed as uninterrupted, by many processes as by one."""

import json
import os
import random
import signal
import time

import numpy as np
import pytest
import stencil
import torch
from conftest import picture, user
from training_runs import in_processes

from pixelrefer_plugin import EvaluationError, PixelReferError, PromptError, Region, RegionSample, SampleError
from pixelrefer_plugin import predict as predict_files
from pixelrefer_plugin.contracts.questions import Answer, Question
from pixelrefer_plugin.evaluation.asking.engine import ModelEngine
from pixelrefer_plugin.evaluation.predicting.answer_file import answer_line, read_answers
from pixelrefer_plugin.evaluation.predicting.answering import answer_questions
from pixelrefer_plugin.evaluation.predicting.batching import batches_of
from pixelrefer_plugin.testing import make_pair


class Shouting:
    """An engine that needs no model: it says the question in capitals.

    Args:
        refuses: the words of a question that it refuses.
        most: so many questions fit into its memory.
    """

    def __init__(self, *, refuses="no such word", most=99):
        self.refuses, self.most = refuses, most
        self.batches = []

    def answer(self, questions):
        self.batches.append([question.id for question in questions])
        if len(questions) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 7 GiB.")
        if any(self.refuses in question.text for question in questions):
            raise PromptError("it is refused.", region=0)
        return [Answer(id=question.id, text=question.text.upper()) for question in questions]

    @property
    def asked(self):
        return [id for batch in self.batches for id in batch]


def question(index, words):
    return Question(id=f"q{index}", asked=RegionSample(f"q{index}", (user(f"what is {index}? " + "word " * words),)))


def make_questions(number, *, words=lambda index: 1 + index * 7 % 5):
    return [question(index, words(index)) for index in range(number)]


def predict(engine, questions, out, **options):
    return answer_questions(engine, questions, out, **{"batch_size": 4, "fingerprint": {"model": "m"}, **options})


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def expected(questions):
    return [answer_line(each, Answer(id=each.id, text=each.text.upper())) for each in questions]


def files_in(folder):
    return sorted(each.name for each in folder.iterdir())


# -- one process -------------------------------------------------------------------------------------------


def test_answers_stand_in_the_order_of_the_questions(tmp_path):
    questions = make_questions(21)
    result = predict(Shouting(), questions, tmp_path / "a.jsonl")
    assert lines_of(tmp_path / "a.jsonl") == expected(questions)
    assert (result.questions, result.asked, result.failures.number, result.was_finished) == (21, 21, 0, False)
    assert files_in(tmp_path) == ["a.jsonl", "a.jsonl.run.json"]
    assert [answer.id for answer in read_answers(tmp_path / "a.jsonl", questions)] == [each.id for each in questions]


def test_batches_have_questions_of_about_one_length_and_masks_apart():
    questions = make_questions(12)
    questions[5] = Question(id="mask", asked=questions[5].asked, segment=True)
    batches = list(batches_of(questions, np.zeros(12, dtype=bool), 4))
    assert sorted(len(batch) for batch in batches) == [1, 3, 4, 4]
    assert [len({each.question.segment for each in batch}) for batch in batches] == [1, 1, 1, 1]
    lengths = [each.length for batch in batches[:-1] for each in batch]
    assert lengths == sorted(lengths, reverse=True)


def test_a_batch_that_lacks_answers_is_not_filled_up_from_others():
    questions, is_there = make_questions(12), np.zeros(12, dtype=bool)
    whole = [[each.place for each in batch] for batch in batches_of(questions, is_there, 4)]
    is_there[[whole[0][1], *whole[1]]] = True
    rest = [[each.place for each in batch] for batch in batches_of(questions, is_there, 4)]
    assert rest == [[whole[0][0], *whole[0][2:]], whole[2]]


def test_what_is_complete_is_not_asked_again(tmp_path):
    questions = make_questions(5)
    predict(Shouting(), questions, tmp_path / "a.jsonl")
    engine = Shouting()
    result = predict(engine, questions, tmp_path / "a.jsonl")
    assert (result.was_finished, engine.asked, files_in(tmp_path)) == (True, [], ["a.jsonl", "a.jsonl.run.json"])
    predict(engine, questions, tmp_path / "a.jsonl", overwrite=True)
    assert len(engine.asked) == 5


def test_answers_of_another_run_are_not_mixed_in(tmp_path):
    questions, out = make_questions(5), tmp_path / "a.jsonl"
    predict(Shouting(), questions, out)
    with pytest.raises(EvaluationError, match=r"a.jsonl' holds answers of another run: model: 'm' there, 'n' now"):
        predict(Shouting(), questions, out, fingerprint={"model": "n"})
    with pytest.raises(EvaluationError, match="another run: questions: 5 there, 4 now"):
        predict(Shouting(), questions[:4], out)
    assert files_in(tmp_path) == ["a.jsonl", "a.jsonl.run.json"]
    predict(Shouting(), questions[:4], out, fingerprint={"model": "n"}, overwrite=True)
    assert lines_of(out) == expected(questions[:4])
    out.with_name("a.jsonl.run.json").unlink()
    with pytest.raises(EvaluationError, match="which is not known, as there is no 'a.jsonl.run.json' beside it"):
        predict(Shouting(), questions[:4], out)


def test_unfinished_answers_of_another_run_are_not_mixed_in(tmp_path):
    questions, out = make_questions(9), tmp_path / "a.jsonl"
    with pytest.raises(PromptError):
        predict(Shouting(refuses="what is 3?"), questions, out)
    with pytest.raises(EvaluationError, match=r"a.jsonl.parts' holds answers of another run: model: 'm' there"):
        predict(Shouting(), questions, out, fingerprint={"model": "n"})
    engine = Shouting()
    predict(engine, questions, out, fingerprint={"model": "n"}, overwrite=True)
    assert len(engine.asked) == 9


def test_a_run_that_has_no_answer_yet_is_in_nobodys_way(tmp_path):
    questions, out = make_questions(3), tmp_path / "a.jsonl"

    def no_engine():
        raise EvaluationError("it cannot be loaded.")

    with pytest.raises(EvaluationError, match="it cannot be loaded"):
        predict(no_engine, questions, out)
    predict(Shouting(), questions, out, fingerprint={"model": "n"})
    assert lines_of(out) == expected(questions)


def test_a_bad_sample_stops_and_what_is_answered_stays(tmp_path):
    questions, out = make_questions(9), tmp_path / "a.jsonl"
    bad = Shouting(refuses="what is 3?")
    with pytest.raises(
        PromptError, match=r"^Sample 'q3', region 0: it is refused.$|^sample 'q3', region 0: it is refus"
    ):
        predict(bad, questions, out)
    assert files_in(tmp_path) == ["a.jsonl.parts"]
    there = {json.loads(line)["id"] for line in (tmp_path / "a.jsonl.parts" / "0.jsonl").read_text().splitlines()}
    assert there
    assert "q3" not in there
    engine = Shouting()
    predict(engine, questions, out)
    assert sorted([*engine.asked, *there]) == sorted(each.id for each in questions)
    assert lines_of(out) == expected(questions)


def test_a_bad_sample_is_passed_over_where_that_is_wanted(tmp_path):
    questions, out = make_questions(9), tmp_path / "a.jsonl"
    result = predict(Shouting(refuses="what is 3?"), questions, out, on_bad_sample="skip")
    lines = lines_of(out)
    assert lines[3] == {"id": "q3", "question": questions[3].text, "given": "", "failure": "region 0: it is refused."}
    assert [lines[:3], lines[4:]] == [expected(questions)[:3], expected(questions)[4:]]
    assert (result.failures.number, result.failures.reasons) == (1, {"q3": "region 0: it is refused."})
    assert json.loads(out.with_name("a.jsonl.run.json").read_text()) == {"model": "m", "questions": 9, "failed": 1}


def test_too_little_memory_halves_the_batch(tmp_path):
    questions = make_questions(16, words=lambda index: 3)
    engine = Shouting(most=2)
    predict(engine, questions, tmp_path / "a.jsonl", batch_size=8)
    assert lines_of(tmp_path / "a.jsonl") == expected(questions)
    assert [len(batch) for batch in engine.batches] == [8, 4, *[2] * 8]
    with pytest.raises(EvaluationError, match=r"sample 'q0': it takes more memory than there is, asked alone"):
        predict(Shouting(most=0), questions, tmp_path / "b.jsonl")


def test_a_torn_line_is_dropped(tmp_path):
    questions, out = make_questions(9), tmp_path / "a.jsonl"
    with pytest.raises(PromptError):
        predict(Shouting(refuses="what is 3?"), questions, out)
    part = tmp_path / "a.jsonl.parts" / "0.jsonl"
    part.write_bytes(part.read_bytes() + b'{"at": 3, "id": "q3", "given": "WHA')
    predict(Shouting(), questions, out)
    assert lines_of(out) == expected(questions)


def test_one_file_has_one_writer(tmp_path):
    questions, out = make_questions(3), tmp_path / "a.jsonl"

    class Nested(Shouting):
        def answer(self, questions):
            with pytest.raises(EvaluationError, match="a.jsonl' is being written by another process. Wait"):
                predict(Shouting(), questions, out)
            return super().answer(questions)

    predict(Nested(), questions, out)
    assert lines_of(out) == expected(questions)


def test_a_question_that_cannot_be_read(tmp_path):
    class Damaged(list):
        def __getitem__(self, index):
            if index == 2:
                raise RegionSample("q2", (), where="a.jsonl line 3").blamed(PromptError("it is damaged."))
            return super().__getitem__(index)

    questions, out = Damaged(make_questions(6)), tmp_path / "a.jsonl"
    with pytest.raises(SampleError, match="a.jsonl line 3, sample 'q2': it is damaged"):
        predict(Shouting(), questions, out)
    predict(Shouting(), questions, out, on_bad_sample="skip")
    damaged = {"id": "q2", "question": "", "given": "", "where": "a.jsonl line 3", "failure": "it is damaged."}
    assert lines_of(out)[2] == damaged


def test_many_questions_are_read_as_they_are_needed(tmp_path):
    """Only some windows ahead of the engine."""
    ahead = []

    class Lazy(list):
        latest = 0

        def __getitem__(self, index):
            self.latest = max(self.latest, index)
            return super().__getitem__(index)

    class Watching(Shouting):
        def answer(self, questions):
            ahead.append(lazy.latest - len(self.asked))
            return super().answer(questions)

    lazy = Lazy(make_questions(2000))
    predict(Watching(), lazy, tmp_path / "a.jsonl", batch_size=2)
    assert max(ahead) <= 2 * 2 * 64 + 8


# -- interruptions -----------------------------------------------------------------------------------------


class Interrupted(BaseException):
    """What ends a process at once."""


class Interrupting(Shouting):
    """Is interrupted after so many batches."""

    def __init__(self, *, after):
        super().__init__()
        self.after = after

    def answer(self, questions):
        if len(self.batches) == self.after:
            raise Interrupted
        return super().answer(questions)


def test_interrupted_twenty_times_is_uninterrupted(tmp_path):
    """Each time at another place, sometimes in the middle of a line; only that one is asked again."""
    questions, out = make_questions(150), tmp_path / "a.jsonl"
    generator = random.Random(0)
    asked, torn = [], 0
    for _ in range(20):
        engine = Interrupting(after=generator.randrange(1, 6))
        with pytest.raises(Interrupted):
            predict(engine, questions, out, batch_size=2)
        asked += engine.asked
        part = tmp_path / "a.jsonl.parts" / "0.jsonl"
        cut = generator.choice([0, 0, 1, 20])
        part.write_bytes(part.read_bytes()[: -cut or None])
        torn += cut > 0
    engine = Shouting()
    predict(engine, questions, out, batch_size=2)
    asked += engine.asked
    assert lines_of(out) == expected(questions)
    assert (len(asked), len(set(asked))) == (150 + torn, 150)
    assert files_in(tmp_path) == ["a.jsonl", "a.jsonl.run.json"]


class Slow(Shouting):
    """Takes a moment for each batch."""

    def answer(self, questions):
        time.sleep(0.002)
        return super().answer(questions)


def kill_twenty(out):
    """Twenty processes go on with the same file, each until it is killed; forked from one without threads."""
    generator, part = random.Random(0), out.with_name(f"{out.name}.parts") / "0.jsonl"
    for _ in range(20):
        before = part.stat().st_size if part.exists() else 0
        process = os.fork()
        if not process:
            predict(Slow(), make_questions(1500), out, batch_size=2)
            os._exit(0)
        while not part.exists() or part.stat().st_size == before:
            time.sleep(0.0005)
        time.sleep(generator.random() * 0.02)
        os.kill(process, signal.SIGKILL)
        assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGKILL


@pytest.mark.slow
def test_killed_twenty_times_is_uninterrupted(tmp_path):
    out = tmp_path / "a.jsonl"
    assert in_processes(kill_twenty, out, number=1) == [0]
    there = (tmp_path / "a.jsonl.parts" / "0.jsonl").read_bytes().count(b"\n")
    engine, questions = Shouting(), make_questions(1500)
    predict(engine, questions, out, batch_size=2)
    assert lines_of(out) == expected(questions)
    assert len(engine.asked) == 1500 - there < 1500


# -- several processes -------------------------------------------------------------------------------------


def share(out, refusing=None, dying=None):
    """What each of several processes does: one may refuse everything, and the first then waits until that is known; or
    one may end without notice."""
    rank = int(os.environ["RANK"])

    class Sharing(Shouting):
        def answer(self, questions):
            if rank == dying and len(self.batches) == 2:
                os._exit(9)
            while refusing and not rank and not (out.with_name(f"{out.name}.parts") / "stopped.json").exists():
                time.sleep(0.01)
            return super().answer(questions)

    try:
        refuses = "what is" if rank and rank == refusing else "no such word"
        predict(Sharing(refuses=refuses), make_questions(40), out, batch_size=2)
    except PixelReferError as error:
        out.with_name(f"error{rank}.txt").write_text(str(error))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_many_processes_write_what_one_writes(tmp_path):
    out, questions = tmp_path / "a.jsonl", make_questions(40)
    with pytest.raises(Interrupted):
        predict(Interrupting(after=4), questions, out, batch_size=2)
    assert in_processes(share, out, number=3) == [0, 0, 0]
    assert lines_of(out) == expected(questions)
    assert files_in(tmp_path) == ["a.jsonl", "a.jsonl.run.json"]


@pytest.mark.slow
def test_a_process_that_fails_ends_the_others(tmp_path):
    out, questions = tmp_path / "a.jsonl", make_questions(40)
    assert in_processes(share, out, refusing=1, number=2) == [0, 0]
    first, second = ((tmp_path / f"error{rank}.txt").read_text() for rank in (0, 1))
    assert second.endswith("region 0: it is refused.")
    assert first.startswith(f"Stopped, as process 1 has failed: {second} What is answered is kept")
    predict(Shouting(), questions, out, batch_size=2)
    assert lines_of(out) == expected(questions)


@pytest.mark.slow
def test_a_process_that_dies_is_noticed(tmp_path):
    assert in_processes(share, tmp_path / "a.jsonl", dying=1, number=2) == [0, 9]
    assert (tmp_path / "error0.txt").read_text().startswith("Process 1 ended before it had answered its share.")
    engine, questions = Shouting(), make_questions(40)
    predict(engine, questions, tmp_path / "a.jsonl", batch_size=2)
    assert lines_of(tmp_path / "a.jsonl") == expected(questions)
    assert len(engine.asked) == 20 - 2 * 2


# -- models ------------------------------------------------------------------------------------------------


@pytest.fixture
def tiny():
    pair = make_pair("saot", "videollama3")
    yield pair.model, pair.processor
    pair.model.detach()


@pytest.fixture
def with_masks(monkeypatch):
    """A model that often gives a mask when it is asked for some."""
    stencil.install(monkeypatch)
    pair = make_pair("stencil", "videollama3")
    with torch.no_grad():
        pair.model.adapter.judge.bias[1] = 5.0
    yield pair.model, pair.processor
    pair.model.detach()


def about(index, *, segment=False):
    """A question about a picture of a size of its own."""
    hw = (40 + index * 13 % 50, 48 + index * 7 % 60)
    words = "word " * (index * 5 % 11)
    region = Region.from_box((index, 2, 30 + index, 30))
    asked = RegionSample(f"q{index}", (user(picture(*hw, seed=index), f"{words} what is <region>?"),), (region,))
    return Question(id=f"q{index}", asked=asked, segment=segment)


def test_a_batch_answers_as_single_questions_do(tmp_path, tiny):
    questions = [about(index) for index in range(11)]
    engine = ModelEngine(*tiny, max_new_tokens=6)
    predict(engine, questions, tmp_path / "a.jsonl", batch_size=4)
    single = [answer_line(each, engine.answer([each])[0]) for each in questions]
    assert lines_of(tmp_path / "a.jsonl") == single
    assert len({line["given"] for line in single}) > 1


def test_masks_are_written_beside_the_words(tmp_path, with_masks):
    questions = [about(index, segment=index % 2 == 0) for index in range(6)]
    engine = ModelEngine(*with_masks, max_new_tokens=4, options={"force_mask": True})
    predict(engine, [each for each in questions if each.segment], tmp_path / "a.jsonl", batch_size=2)
    for question, line in zip(questions[::2], lines_of(tmp_path / "a.jsonl"), strict=True):
        assert line == answer_line(question, engine.answer([question])[0])
        assert line["size"] == [40 + int(line["id"][1:]) * 13 % 50, 48 + int(line["id"][1:]) * 7 % 60]
        assert line["masks"][0]["size"] == line["size"]
    engine = ModelEngine(*with_masks, max_new_tokens=4)
    predict(engine, questions, tmp_path / "b.jsonl")
    assert ["masks" in line for line in lines_of(tmp_path / "b.jsonl")] == [True, False] * 3


def test_the_model_is_left_as_it_was(tmp_path, tiny):
    model, processor = tiny
    model.train()
    predict_files(model, processor, [about(0)], tmp_path / "a.jsonl", max_new_tokens=2)
    assert model.training
