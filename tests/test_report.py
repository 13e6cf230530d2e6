"""Reports: the page is whole, safe and needs nothing else; JSON says what was measured; the table fits its terminal."""

import io
import json
import math
import re
from base64 import b64decode
from dataclasses import dataclass, replace
from html.parser import HTMLParser

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from pixelrefer_plugin.contracts.benchmark import BenchmarkSpec, Prompt, PublishedFigure
from pixelrefer_plugin.contracts.figures import Figure, Scores
from pixelrefer_plugin.contracts.questions import Answer, Question
from pixelrefer_plugin.contracts.samples import RegionSample
from pixelrefer_plugin.errors import EvaluationError
from pixelrefer_plugin.evaluation.reports.page import page_of, save_page
from pixelrefer_plugin.evaluation.reports.pictures import THUMBNAIL_PX, thumbnails
from pixelrefer_plugin.evaluation.reports.report import BenchmarkReport, Column, Report, best_and_worst
from pixelrefer_plugin.evaluation.reports.table import table_of
from pixelrefer_plugin.evaluation.reports.text import without_secrets
from pixelrefer_plugin.evaluation.scoring.scoring import score
from pixelrefer_plugin.regions.region import Region, VideoRegion

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"' & \x1b[31m\u202eevil \ud800 </dd></html>"
VOID = {"meta", "img", "br", "rect", "line"}


@dataclass(frozen=True)
class Options:
    """Of the benchmark here."""

    temperature: float = math.nan
    reading: str = "<b>"


def rule(config, questions, answers, tools):
    pairs = zip(questions, answers, strict=True)
    values = np.array([math.nan if a.failure else float(a.text == q.expected) for q, a in pairs])
    return Scores(
        figures=[
            Figure(name="exact", values=values, judge="gpt <4>"),
            Figure(name="exact", values=1 - values, judge="gpt <4>", reading="official"),
            Figure(name="likeness", values=values * 3, scale=1.0),
        ],
        unread={questions[0].id: HOSTILE},
        notes=[f"A note {HOSTILE}"],
        details={questions[1].id: HOSTILE},
    )


SPEC = BenchmarkSpec(
    name="toy",
    about="Names of <things>.",
    config=Options,
    files=(),
    open=lambda config, folder: [],
    score=rule,
    published=(PublishedFigure("Some-7B", "exact", 0.671, "A paper, Table 8", judge="gpt-4"),),
    prompts=lambda config: [Prompt("question", "Name it. <b>", origin="own words")],
)


def question(id, image, *, side=20, text="what is <region>?", **more):
    content = [{"type": "image", "image": image}, {"type": "text", "text": text}]
    regions = (Region.from_box((4, 4, 4 + side, 4 + side)),) if "<region>" in text else ()
    sample = RegionSample(id=id, messages=({"role": "user", "content": content},), regions=regions)
    return Question(id=id, asked=sample, **{"references": ("cat",), "type": "name", **more})


def column(label, questions, texts):
    answers = [
        Answer(id=each.id, text="", failure=text[5:]) if text.startswith("fail:") else Answer(id=each.id, text=text)
        for each, text in zip(questions, texts, strict=True)
    ]
    return Column(label, f"runs/{label}", answers, score(SPEC, Options(), questions, answers, None))


@pytest.fixture(scope="module")
def report():
    image = picture(90, 160)
    asked = [question(f"q{n}", image, side=20 if n < 6 else 60, type=f"t{n % 2}") for n in range(12)]
    asked[3] = question("q3", "missing.png")
    asked[4] = question(f"<i>{HOSTILE[:20]}", image, references=(HOSTILE,))
    texts = ["cat", "dog", HOSTILE, "cat", "", "fail:no " + HOSTILE, *["cat"] * 6]
    columns = [column("base <1>", asked, ["dog"] * 12), column("tuned", asked, texts)]
    return Report(
        benchmarks=[
            BenchmarkReport(
                spec=SPEC, config=Options(), questions=asked, columns=columns, asked_of=40, why_fewer="--limit 12",
                judge="gpt <4>", encoder="MiniLM", notes=["Java is missing."],
            )
        ],
        command="pixelrefer evaluate <model>",
    )  # fmt: skip


class Page(HTMLParser):
    """Checks that tags are closed in order; keeps tags, attributes and text."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *each) for each in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


# -- page --------------------------------------------------------------------------------------------------


def test_the_page_holds_no_tag_and_no_handler_of_others(report):
    page = Page(page_of(report))
    assert "script" not in page.tags
    assert not {"i", "iframe", "object", "link", "form"} & set(page.tags)
    assert [name for _, name, _ in page.attributes if name.startswith("on")] == []
    assert "<script>alert(1)</script>" in page.text
    assert not {"\x1b", "\u202e", "\ud800"} & set(page.text)


def test_the_page_asks_nobody_for_anything(report):
    html = page_of(report)
    page = Page(html)
    sources = [value for _, name, value in page.attributes if name in ("src", "href")]
    assert sources
    assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in sources)
    assert re.findall(r"url\(|@import|https?://", html) == []
    assert "default-src 'none'" in html


def test_the_page_tells_what_was_measured(report):
    said = Page(page_of(report)).text
    for expected in (
        "Names of <things>.", "base <1>", "tuned less base <1>", "gpt <4>", "MiniLM", "Java is missing.",
        "Of 40 questions 12 were scored: --limit 12.", "Some-7B", "67.1", "A paper, Table 8", "under 2,000 px",
        "t1", "exact (official, judge gpt <4>)", "could not be asked", "pixelrefer evaluate <model>",
        "Worst answers of tuned", "(empty)", "SHA-256",
    ):  # fmt: skip
        assert expected in said, expected


def test_tables_have_headings_and_pictures_descriptions(report):
    page = Page(page_of(report))
    tables = page.tags.count("table")
    assert page.tags.count("caption") == tables > 3
    assert ("html", "lang", "en") in page.attributes
    scopes = {value for tag, name, value in page.attributes if tag == "th" and name == "scope"}
    assert scopes == {"row", "col"}
    assert page.tags.count("img") == sum(1 for tag, name, value in page.attributes if (tag, name) == ("img", "alt"))


def test_a_gallery_is_bounded(report):
    with_pictures, without = page_of(report, gallery=2), page_of(report, gallery=0)
    assert Page(with_pictures).tags.count("article") == 4
    assert "img" not in Page(without).tags
    assert len(page_of(report)) < 2_000_000


def test_long_texts_are_cut(report):
    [benchmark] = report.benchmarks
    asked = benchmark.questions
    columns = [column("wordy", asked, ["word " * 100_000] * len(asked))]
    html = page_of(Report(benchmarks=[replace(benchmark, columns=columns)]))
    assert len(html) < 2_000_000
    assert "(500,000 characters)" in html


def test_a_page_is_written_whole(report, tmp_path):
    save_page(report, tmp_path / "report.html", gallery=1)
    Page((tmp_path / "report.html").read_text(encoding="utf-8"))


# -- pictures ----------------------------------------------------------------------------------------------


def opened(url):
    return Image.open(io.BytesIO(b64decode(url.partition(",")[2])))


def test_what_is_asked_about_is_drawn():
    grey = np.full((100, 200, 3), 128, dtype=np.uint8)
    [whole, near] = thumbnails(question("q", grey), [])
    assert opened(whole.url).size == (whole.width, whole.height) == (THUMBNAIL_PX, THUMBNAIL_PX // 2)
    pixels = np.asarray(opened(whole.url)).astype(int)
    tinted = np.ptp(pixels, axis=2) > 30
    assert tinted[8:38, 8:38].mean() > 0.5
    assert tinted[60:].mean() == 0
    assert near.caption == "from near"
    assert (np.ptp(np.asarray(opened(near.url)).astype(int), axis=2) > 30).mean() > 0.1


def test_expected_and_given_masks_stand_side_by_side():
    grey = np.full((100, 200, 3), 128, dtype=np.uint8)
    left, right = np.zeros((2, 100, 200), dtype=bool)
    left[20:80, 10:90], right[20:80, 110:190] = True, True
    asked = question("q", grey, text="segment it", targets=(Region.from_mask(left),), segment=True)
    given = Answer(id="q", text="<seg>", objects=(Region.from_mask(right),), image_hw=(100, 200))
    found = thumbnails(asked, [("tuned", given), ("mute", Answer(id="q", text="no"))])
    assert [each.caption for each in found] == ["asked", "expected", "given by tuned", "given by mute"]
    sides = []
    for each in found:
        tinted = np.ptp(np.asarray(opened(each.url)).astype(int), axis=2) > 30
        sides.append((bool(tinted[:, :160].any()), bool(tinted[:, 160:].any())))
    assert sides == [(False, False), (True, False), (False, True), (False, False)]


def test_of_a_video_the_frame_with_the_region_is_shown():
    frames = np.zeros((5, 60, 80, 3), dtype=np.uint8)
    frames[3] = 255
    content = [{"type": "video", "video": frames, "fps": 1.0}, {"type": "text", "text": "what does <region> do?"}]
    regions = (VideoRegion({3: Region.from_box((30, 20, 50, 40))}),)
    sample = RegionSample(id="v", messages=({"role": "user", "content": content},), regions=regions)
    [shown] = thumbnails(Question(id="v", asked=sample), [])
    assert shown.caption == "frame 3"
    assert np.asarray(opened(shown.url))[0, 0].min() > 200


def test_what_cannot_be_read_is_said():
    [found] = thumbnails(question("q", "missing.png"), [])
    assert found.url == ""
    assert "missing.png" in found.caption


# -- best and worst ----------------------------------------------------------------------------------------


def result_of(values):
    asked = [question(f"q{n}", "a.png") for n in range(len(values))]
    spec = replace(SPEC, score=lambda c, q, a, t: Scores(figures=[Figure(name="f", values=np.array(values))]))
    return score(spec, Options(), asked, [Answer(id=each.id, text="x") for each in asked], None)


@pytest.mark.parametrize(
    ("values", "best", "worst"),
    [
        ([0.1, 0.9, 0.5, math.nan, 0.3], [1, 2], [0, 4]),
        ([0.0] * 10 + [1.0], [10], [0, 9]),
        ([1.0] * 10 + [0.0], [0, 9], [10]),
        ([0.0, 1.0, 0.0, 1.0], [1, 3], [0, 2]),
        ([0.2, 0.5, 0.9], [2], [0, 1]),
        ([1.0, 1.0, 1.0], [0, 2], []),
        ([0.0], [], [0]),
        ([math.nan, math.nan], [], []),
    ],
    ids=["ordered", "one right", "one wrong", "halves", "three", "all right", "all wrong", "none"],
)
def test_the_best_and_the_worst(values, best, worst):
    assert best_and_worst(result_of(values), 2) == (best, worst)


# -- JSON and table ----------------------------------------------------------------------------------------


def test_the_json_says_all(report, tmp_path):
    report.save_json(tmp_path / "report.json")
    said = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    [benchmark] = said["benchmarks"]
    assert said["command"] == "pixelrefer evaluate <model>"
    assert said["versions"]["pixelrefer-plugin"]
    assert (benchmark["questions"], benchmark["questions_of_benchmark"]) == (12, 40)
    assert (benchmark["judge"], benchmark["sentence_encoder"]) == ("gpt <4>", "MiniLM")
    assert benchmark["options"] == {"temperature": None, "reading": "<b>"}
    [prompt] = benchmark["prompts"]
    assert prompt["origin"] == "own words"
    assert len(prompt["sha256"]) == 64
    base, tuned = benchmark["answers"]
    assert (base["figures"][0]["value"], base["figures"][0]["counted"]) == (0.0, 12)
    assert tuned["figures"][0]["value"] == pytest.approx(8 / 11)
    assert tuned["figures"][0]["groups"]["size"]["under 2,000 px"]["counted"] == 5
    assert list(tuned["failed"]) == ["q5"]
    [difference] = benchmark["differences"]
    assert (difference["of"], difference["to"]) == ("tuned", "base <1>")
    assert difference["figures"]["exact (judge gpt <4>)"]["value"] == pytest.approx(8 / 11)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_the_table_fits(report, width):
    lines = table_of(report, width=width).splitlines()
    assert max(map(len, lines)) <= max(60, width)
    assert not any(ord(each) < 32 or each in "\u202e" for line in lines for each in line)
    joined = "".join("".join(lines).split())
    for expected in ("toy", "72.7", "under", "67.1", "12questions"):
        assert expected in joined


def test_many_groups_are_cut_in_the_table_alone():
    asked = [question(f"q{n}", "a.png", type=f"type {n:03}") for n in range(60)]
    benchmark = BenchmarkReport(
        spec=SPEC, config=Options(), questions=asked, columns=[column("tuned", asked, ["cat"] * 60)]
    )
    said = table_of(Report(benchmarks=[benchmark]), width=100)
    assert "type 023" in said
    assert "type 024" not in said
    assert "... and 36 more groups" in said
    assert "type 059" in page_of(Report(benchmarks=[benchmark]), gallery=0)


def test_two_sets_of_answers_have_two_names(report):
    [benchmark] = report.benchmarks
    with pytest.raises(EvaluationError, match="Two sets of answers are called 'tuned'"):
        replace(benchmark, columns=[benchmark.columns[1], benchmark.columns[1]])


def test_a_command_is_told_without_secrets():
    words = [
        "pixelrefer",
        "evaluate",
        "--judge-url",
        "https://me:hush@host/v1?api-version=1&code=hush",
        "--judge-option",
    ]
    told = without_secrets([*words, "my_key=hush", "--judge-option", "max_tokens=9", "--option", "file=a b?.json"])
    assert "hush" not in told
    assert "https://***@host/v1?api-version=***&code=***" in told
    assert "max_tokens=9" in told
    assert "'file=a b?.json'" in told
