"""What tests of judged benchmarks share: a judge that answers from a dict, questions and answers of a few words."""

from conftest import picture, user

from pixelrefer_plugin import Region, RegionSample
from pixelrefer_plugin.contracts.questions import Answer, Question
from pixelrefer_plugin.errors import EvaluationError, JudgeError
from pixelrefer_plugin.evaluation.asking.engine import ModelEngine
from pixelrefer_plugin.testing import make_pair


class DictJudge:
    """Says what a dict has: under `(id, part)`, else under `id`, else what `otherwise` is."""

    judge = "dict"

    def __init__(self, said, otherwise=None):
        self.said, self.otherwise, self.requests = said, otherwise, []

    def ask_judge(self, requests):
        self.requests += requests
        found = [self.said.get((each.id, each.part), self.said.get(each.id, self.otherwise)) for each in requests]
        if None in found:
            raise JudgeError(f"{found.count(None)} of {len(found)} answers are missing.")
        return found

    def encode(self, texts):
        raise EvaluationError("There is no sentence encoder.")


def region_question(id, text, *, references=(), **fields):
    """A question about a box on a picture."""
    asked = RegionSample(id, (user(picture(48, 64), text),), (Region.from_box((0, 0, 30, 40)),))
    return Question(id=id, asked=asked, references=tuple(references), **fields)


def answers_to(questions, texts, failures=()):
    """An answer to each question."""
    failed = dict(failures)
    return [
        Answer(id=question.id, text=text, failure=failed.get(question.id, ""))
        for question, text in zip(questions, texts, strict=True)
    ]


def ask_tiny_model(questions, *, adapter="maskpool", backbone="videollama3"):
    """The answers of a tiny model, of a few tokens each."""
    pair = make_pair(adapter, backbone)
    try:
        return ModelEngine(pair.model.eval(), pair.processor, max_new_tokens=4).answer(questions)
    finally:
        pair.model.detach()
