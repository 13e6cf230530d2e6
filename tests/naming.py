"""A benchmark as a third party would write it: small pictures, a question about a box on each, and its variants."""

import json
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pixelrefer_plugin.authoring import (
    Answer,
    BenchmarkFile,
    BenchmarkSpec,
    DataError,
    Figure,
    JudgeRequest,
    Prompt,
    PublishedFigure,
    Question,
    Region,
    RegionSample,
    Scores,
    check_field,
    hookimpl,
)

PLUGIN_API = 1

FILES = (
    BenchmarkFile("questions.json", "the list of questions, from the authors' site"),
    BenchmarkFile("pictures", "the pictures, from the same site"),
    BenchmarkFile("extra.txt", "what nobody needs", optional=True),
)


@dataclass(frozen=True)
class NamingConfig:
    """How names are asked for.

    Attributes:
        prompt: what is asked, with one `<region>`; it may be long, and goes on
            in another line.
        images: folder of the pictures; None: the benchmark's own.
    """

    prompt: str = "What is <region>?"
    images: str | None = None

    def __post_init__(self):
        check_field("{" not in self.prompt, self, "prompt", "a text without braces")


def read(folder):
    try:
        return json.loads((folder / "questions.json").read_text())
    except ValueError as error:
        raise DataError(f"'{folder / 'questions.json'}' is no JSON: {error}") from error


def question(config, folder, record, *, with_region=True):
    pictures = folder / "pictures" if config.images is None else config.images
    parts = [
        {"type": "image", "image": f"{pictures}/{record['picture']}"},
        {"type": "text", "text": config.prompt if with_region else "What is this?"},
    ]
    regions = (Region.from_box(record["box"]),) if with_region else ()
    asked = RegionSample(record["id"], ({"role": "user", "content": parts},), regions, f"questions.json {record['id']}")
    return Question(id=record["id"], asked=asked, references=(record["name"],), type=record["kind"])


def open_naming(config, folder):
    return [question(config, folder, record) for record in read(folder)]


def open_plain(config, folder):
    return [question(config, folder, record, with_region=False) for record in read(folder)]


def score(config, questions, answers, tools):
    said = [answer.text.strip().lower() for answer in answers]
    exact = np.array([float(text == each.expected) for text, each in zip(said, questions, strict=True)])
    begins = np.array([float(text[:1] == each.expected[:1]) for text, each in zip(said, questions, strict=True)])
    return Scores(
        figures=[
            Figure(name="accuracy", values=exact),
            Figure(name="accuracy", values=begins, reading="official"),
            Figure(name="letters", values=np.array([float(len(text)) for text in said]), scale=1.0),
        ],
        unread={each.id: "no word" for each, text in zip(questions, said, strict=True) if not text},
        notes=["Case does not count."],
    )


def requests(questions, answers):
    texts = [f"{each.id}: {answer.text} for {each.expected}?" for each, answer in zip(questions, answers, strict=True)]
    return [
        JudgeRequest(each.id, "grade", [{"role": "user", "content": text}])
        for each, text in zip(questions, texts, strict=True)
    ]


def grade(config, questions, answers, tools):
    said = tools.ask_judge(requests(questions, answers))
    values = np.array([{"yes": 1.0, "no": 0.0}.get(text, np.nan) for text in said])
    unread = {each.id: f"neither yes nor no: {text}" for each, text in zip(questions, said, strict=True)}
    return Scores(
        figures=[Figure(name="grade", values=values, judge=tools.judge)],
        unread={id: why for (id, why), value in zip(unread.items(), values, strict=True) if np.isnan(value)},
        details={each.id: text for each, text in zip(questions, said, strict=True)},
    )


def read_lines(config, path, questions):
    """`id<TAB>answer`."""
    for line in path.read_text().splitlines():
        id, _, text = line.partition("\t")
        yield Answer(id=id, text=text)


def read_grades(config, path, questions, answers):
    """`{id: answer of the judge}`."""
    grades = json.loads(path.read_text())
    return [(request, grades[request.id]) for request in requests(questions, answers) if request.id in grades]


def tiny(folder):
    generator = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    records = []
    for number in range(6):
        name = f"{number}.png"
        Image.fromarray(generator.integers(0, 256, (56, 84, 3), dtype=np.uint8)).save(folder / "pictures" / name)
        box = [4, 4, 24, 24] if number % 2 else [4, 4, 80, 50]
        records.append({"id": f"n{number}", "picture": name, "box": box, "name": "cat", "kind": "ab"[number % 2]})
    (folder / "questions.json").write_text(json.dumps(records))


@hookimpl
def register_benchmarks(register):
    def spec(name, **more):
        common = {"config": NamingConfig, "files": FILES, "open": open_naming, "score": score, "max_new_tokens": 4}
        return BenchmarkSpec(**{"name": name, "about": f"Names of things, {name}.", "tiny": tiny, **common, **more})

    register(
        spec(
            "naming",
            published=(PublishedFigure("Some-7B", "accuracy", 0.5, "A paper, Table 1"),),
            prompts=lambda config: [Prompt("question", config.prompt)],
            answer_formats={"lines": read_lines},
        )
    )
    register(spec("naming-graded", score=grade, needs=("judge",), judged_formats={"grades": read_grades}))
    register(spec("naming-masks", needs=("masks",)))
    register(spec("naming-plain", open=open_plain))
    register(spec("naming-twice", open=lambda config, folder: open_naming(config, folder) * 2))
    register(spec("naming-none", open=lambda config, folder: []))
    register(spec("naming-broken", open=lambda config, folder: 1 / 0))
    register(spec("naming-lazy", open=lambda config, folder: Lazy()))
    register(spec("naming-silent", score=lambda config, questions, answers, tools: None))


class Lazy(list):
    """Questions of which the second cannot be read."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index == 0:
            return Question(id="a", asked=RegionSample("a", ({"role": "user", "content": "?"},)))
        raise KeyError("no such record")
