"""Errors know their place: attributes, the text made of them, pickling, and exceptions of plugins' code."""

import copy
import json
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from click.testing import CliRunner
from conftest import assistant, picture, user
from PIL import Image
from torch.utils.data import DataLoader

from pixelrefer_plugin import (
    PluginError,
    PromptError,
    Region,
    RegionDataset,
    RegionError,
    SampleError,
    VideoRegion,
    __version__,
    load_region_source,
    plugins,
)
from pixelrefer_plugin.authoring import DataFormatSpec, RegionSourceSpec
from pixelrefer_plugin.chat import RememberError
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.cli.reporting import TRACEBACK, told
from pixelrefer_plugin.contracts.samples import RecordPlace, RegionSample
from pixelrefer_plugin.data.checks import defects_of
from pixelrefer_plugin.data.schema import read_sample
from pixelrefer_plugin.errors import Defect, FrameError, PixelReferError, PluginCodeError, placed
from pixelrefer_plugin.plugins import in_plugin
from pixelrefer_plugin.sources import CheckedSource
from pixelrefer_plugin.training.collator import RegionCollator


def raised(error, *places):
    """An error after it went through places, the inner one first."""
    for place in places:
        with pytest.raises(type(error)) as caught, placed(**place):
            raise error
        assert caught.value is error
    return error


@pytest.mark.parametrize(
    ("places", "text"),
    [
        ([], "no."),
        ([{"sample": 0}], "Sample 0: no."),
        ([{"frame": 5}, {"region": 2}, {"sample": 0}], "Sample 0, region 2, frame 5: no."),
        ([{"sample": 1, "region": 0, "frame": None}], "Sample 1, region 0: no."),
        ([{"object_id": 3}, {"sample": 0}], "Sample 0, object 3 of the memory: no."),
        ([{"object_id": 3}], "Object 3: no."),
        ([{"frame": 5}], "Frame 5: no."),
        ([{"subject": "--out"}], "--out: no."),
        ([{"region": 1, "subject": "object 1"}, {"frame": 4}], "object 1, frame 4: no."),
        ([{"region": 2}, {"sample": 0}, {"sample": 7, "subject": "a.jsonl line 3"}], "Sample 0, region 2: no."),
        ([{"region": 2}, {"sample": 0}, {"sample": 0, "subject": "a.jsonl line 3"}], "a.jsonl line 3, region 2: no."),
        ([{"region": 2}, {"region": 1, "subject": "--box 1,2,3,4"}], "Region 2: no."),
    ],
)
def test_the_text_is_made_of_the_place(places, text):
    error = raised(RegionError("no."), *places)
    assert str(error) == text
    assert error.message == "no."


def test_what_is_nearer_counts():
    error = raised(RegionError("no.", region=1), {"region": 2, "sample": 0}, {"sample": 3, "frame": 4})
    assert (error.sample, error.region, error.frame, error.object_id, error.plugin) == (0, 1, 4, None, None)


def test_a_text_reads_on_behind_its_samples_name():
    error = raised(RegionError("no.", region=1, frame=3), {"sample": 0})
    assert error.in_sample == "region 1, frame 3: no."
    assert PromptError("no.", sample=0).in_sample == "no."


def test_a_frame_error_names_its_frame_itself():
    error = raised(FrameError("clip.mp4: frame 5 is not sampled.", frame=5), {"region": 0, "sample": 0})
    assert str(error) == "Sample 0, region 0: clip.mp4: frame 5 is not sampled."
    assert error.frame == 5


ERRORS = {
    "placed": raised(RegionError("no.", region=1), {"sample": 0, "subject": "row 3"}),
    "frame": raised(FrameError("no.", frame=3), {"sample": 0}),
    "sample": SampleError("a", "rows 1", [Defect("media", "no.")]),
    "with arguments of its own": RememberError("no.", reply="reply"),
    "of a plugin": PluginCodeError.of(KeyError("x"), "adapter 'saot'", "plan").set_place(sample=2),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_errors_travel_between_processes(name, again):
    error = ERRORS[name]
    came = again(error)
    assert type(came) is type(error)
    assert str(came) == str(error)
    assert vars(came) == vars(error)


# -- plugins -----------------------------------------------------------------------------------------------


def failed(exception, *steps):
    """What comes of an exception that goes through plugins' steps, the inner one first."""
    for kind, name, step in steps:
        with pytest.raises(PixelReferError) as caught, in_plugin(kind, name, step):
            raise exception
        exception = caught.value
    return exception


def test_an_exception_of_a_plugins_code_is_wrapped_once():
    cause = ZeroDivisionError("division by zero")
    error = failed(cause, ("adapter", "x", "plan"), ("region source", "y", "segment"))
    assert str(error) == "Adapter 'x' failed in plan: ZeroDivisionError: division by zero."
    assert (type(error), error.plugin, error.step) == (PluginCodeError, "adapter 'x'", "plan")
    assert error.cause == "ZeroDivisionError: division by zero"
    assert error.__cause__ is cause
    assert str(raised(error, {"sample": 0, "region": 1})).startswith(
        "Sample 0, region 1: Adapter 'x' failed in plan: Z"
    )


@pytest.mark.parametrize(
    ("exception", "text"),
    [
        (AssertionError(), "Adapter 'x' failed in plan: AssertionError."),
        (ValueError("a\n  b."), "Adapter 'x' failed in plan: ValueError: a b."),
        (RuntimeError("y" * 300), f"Adapter 'x' failed in plan: RuntimeError: {'y' * 197}."),
        (StopIteration(3), "Adapter 'x' failed in plan: StopIteration: 3."),
    ],
    ids=["no text", "lines", "long", "stop iteration"],
)
def test_the_text_of_a_cause(exception, text):
    assert str(failed(exception, ("adapter", "x", "plan"))) == text


def test_an_error_of_this_package_passes_a_plugin():
    error = RegionError("no.", region=0)
    assert failed(error, ("adapter", "x", "plan"), ("region source", "y", "track")) is error
    assert (str(error), error.plugin, error.step) == ("Region 0: no.", "adapter 'x'", "plan")


def test_ctrl_c_passes_a_plugin():
    with pytest.raises(KeyboardInterrupt), in_plugin("adapter", "x", "plan"):
        raise KeyboardInterrupt


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError])
def test_memory_that_does_not_suffice_stays_what_it_is(kind):
    with pytest.raises(kind), in_plugin("adapter", "x", "forward"):
        raise kind("3 GiB")


def test_places_in_threads_do_not_mix():
    def place(index):
        with placed(sample=index), in_plugin("adapter", str(index), "plan"):
            raise RuntimeError("no")

    with ThreadPoolExecutor(4) as pool:
        for index, future in enumerate([pool.submit(place, index) for index in range(20)]):
            error = future.exception()
            assert (error.sample, error.plugin) == (index, f"adapter '{index}'")


class Raises:
    """A dataset whose samples cannot be read."""

    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise self.error


@pytest.mark.parametrize("name", ["placed", "frame", "sample", "of a plugin"])
def test_errors_of_a_data_loaders_worker_have_their_text(name):
    error = ERRORS[name]
    with pytest.raises(type(error)) as caught:
        next(iter(DataLoader(Raises(error), num_workers=1)))
    assert str(caught.value) == str(error)
    [note] = caught.value.__notes__
    assert "Original Traceback" in note


# -- region sources ----------------------------------------------------------------------------------------


BOX = Region.from_box((4, 4, 30, 30))


class BadSource:
    """A region source without `track`, whose other code fails."""

    def segment(self, image, prompts):
        return prompts[7]


def test_a_region_source_that_fails_is_named():
    source = CheckedSource("bad", BadSource())
    with pytest.raises(
        PluginCodeError, match="^Region source 'bad' failed in segment: IndexError: list index"
    ) as caught:
        source.segment(Image.new("RGB", (64, 48)), [BOX])
    assert (caught.value.plugin, caught.value.step) == ("region source 'bad'", "segment")


def test_a_region_source_that_cannot_be_built_is_named(monkeypatch):
    def build(config):
        raise OSError("disk is gone")

    monkeypatch.setattr(
        "pixelrefer_plugin.sources.get_region_source",
        lambda name: RegionSourceSpec(name=name, config=NoConfig, build=build),
    )
    with pytest.raises(PluginCodeError, match="^Region source 'bad' failed in build: OSError: disk is gone.$"):
        load_region_source("bad")


# -- data formats ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NoConfig:
    """No options."""


def read_odd(config, record, place):
    """Samples of our own schema; code that fails, or an error of this package, where the record says so."""
    if "divide" in record:
        return 1 // record["divide"]
    if "shape" in record:
        return Region.from_box(record["shape"])
    return read_sample(record, place)


class OddFile:
    def __init__(self, config, path, media_root):
        self.records = json.loads(path.read_text())["all"]
        self.media_root = media_root

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        return read_odd(None, self.records[index], RecordPlace("all.json", index, self.media_root))


ODD = DataFormatSpec(name="odd", config=NoConfig, recognises=lambda record: "odd" in record, read_record=read_odd)
WHOLE = DataFormatSpec(name="whole", config=NoConfig, recognises=lambda record: "all" in record, open_file=OddFile)
GREEDY = DataFormatSpec(
    name="greedy", config=NoConfig, recognises=lambda record: record["type"] == 1, read_record=read_odd
)


@pytest.fixture
def formats(monkeypatch):
    """Formats whose code fails, in place of those installed."""
    found = {each.name: each for each in (GREEDY, ODD, WHOLE)}
    monkeypatch.setattr(plugins, "list_data_formats", lambda: list(found.values()))
    monkeypatch.setattr(plugins, "get_data_format", found.__getitem__)


def good(id):
    turns = [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "A thing."}]
    return {"id": id, "image": "a.png", "regions": [{"box": [4, 4, 30, 30]}], "messages": turns, "_odd": 1}


RECORDS = [good("one"), {"divide": 0}, good("three"), {"shape": [9, 9, 1, 1]}, good("five")]
DIVIDED = "Data format 'odd' failed in read_record: ZeroDivisionError: integer division or modulo by zero."


@pytest.fixture
def odd_file(tmp_path):
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in RECORDS))
    return path


def test_a_format_that_fails_on_a_record_is_that_samples_defect(formats, odd_file):
    dataset = RegionDataset.open(odd_file, format="odd")
    with pytest.raises(SampleError, match=f"^odd.jsonl line 2, sample '1': {DIVIDED}$") as caught:
        dataset[1]
    assert (caught.value.plugin, caught.value.step) == ("data format 'odd'", "read_record")
    assert isinstance(caught.value.__cause__.__cause__, ZeroDivisionError)
    kinds = [[each.kind for each in found.defects] for found in dataset.__getitems__([1, 3])]
    assert kinds == [["plugin"], ["region"]]
    assert [each.id for each in dataset.__getitems__([0, 2, 4])] == ["one", "three", "five"]


def test_a_file_of_a_format_that_fails_on_a_sample(formats, tmp_path):
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"all": RECORDS}))
    dataset = RegionDataset.open(path, format="whole")
    with pytest.raises(SampleError, match="^all.json, sample '1': Data format 'whole' failed in __getitem__: ZeroDivi"):
        dataset[1]
    assert dataset[2].id == "three"


def test_a_file_that_a_format_fails_to_open(formats, tmp_path):
    path = tmp_path / "all.json"
    path.write_text("{}")
    with pytest.raises(PluginCodeError, match="^Data format 'whole' failed in open_file: KeyError: 'all'.$"):
        RegionDataset.open(path, format="whole")


def test_a_format_that_fails_to_recognise_files_breaks_no_other(formats, tmp_path, caplog):
    path = tmp_path / "odd.jsonl"
    path.write_text('{"odd": 1}')
    with caplog.at_level(logging.WARNING):
        assert RegionDataset.open(path).format == "odd"
    assert "Data format 'greedy' failed in recognises: KeyError: 'type'. The format is passed over" in caplog.text
    assert RegionDataset.open(path, format="greedy").format == "greedy"
    path.write_text('{"even": 1}')
    with pytest.raises(PluginError.__base__, match="No data format recognises .*Data format 'greedy' failed in recogn"):
        RegionDataset.open(path)


# -- the command line --------------------------------------------------------------------------------------


def run(*arguments, **env):
    return CliRunner(env=env).invoke(main, [str(each) for each in arguments])


def test_validate_goes_on_where_a_format_fails(formats, odd_file):
    result = run("validate", odd_file, "--format", "odd")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[:2] == [
        f"odd.jsonl line 2, sample '1': plugin: {DIVIDED}",
        "odd.jsonl line 4, sample '3': region: A box must have x1 < x2 and y1 < y2, got (9.0, 9.0, 1.0, 1.0): is it "
        "inverted, or x,y,width,height?",
    ]
    assert "5 samples: 3 good, 2 with defects." in result.stdout


def test_convert_leaves_out_what_a_format_fails_on(formats, odd_file):
    out = odd_file.with_name("out.jsonl")
    result = run("convert", odd_file, out, "--format", "odd", "--on-bad-sample", "skip")
    assert result.exit_code == 0, result.output
    assert f"Left out: odd.jsonl line 2, sample '1': {DIVIDED}" in result.stderr
    assert len(out.read_text().splitlines()) == 3


def test_an_error_of_a_plugin_is_three_lines(formats, odd_file):
    result = run("convert", odd_file, odd_file.with_name("out.jsonl"), "--format", "odd")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        "Error: Data format 'odd' failed in read_record.",
        "Where: odd.jsonl line 2, sample '1'.",
        "Why: ZeroDivisionError: integer division or modulo by zero",
    ]


def test_the_traceback_is_shown_on_request(formats, odd_file):
    result = run("convert", odd_file, odd_file.with_name("out.jsonl"), "--format", "odd", **{TRACEBACK: "1"})
    assert result.exit_code == 2
    assert "return 1 // record" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("Why: ZeroDivisionError")


def test_the_command_line_names_the_distribution():
    error = failed(ZeroDivisionError("no"), ("adapter", "saot", "plan")).set_place(sample=0, region=1)
    assert error.distribution == f"pixelrefer-plugin {__version__}"
    assert told(error).splitlines() == [
        f"Adapter 'saot' (pixelrefer-plugin {__version__}) failed in plan.",
        "Where: Sample 0, region 1.",
        "Why: ZeroDivisionError: no",
    ]
    assert told(failed(KeyError(), ("adapter", "x", "plan"))).splitlines() == [
        "Adapter 'x' failed in plan.",
        "Why: KeyError",
    ]


# -- training ----------------------------------------------------------------------------------------------


class FailingOn:
    """A processor that fails on some texts, in the code of its adapter."""

    def __init__(self, processor, *texts):
        self.processor = processor
        self.texts = texts
        self.rows = []
        self.makes_object_tokens = processor.makes_object_tokens

    def __call__(self, conversations, regions, **options):
        self.rows.append(len(conversations))
        for index, conversation in enumerate(conversations):
            with placed(sample=index, region=0), in_plugin("adapter", "x", "plan"):
                if conversation[-1]["content"][0]["text"] in self.texts:
                    raise ZeroDivisionError("division by zero")
        return self.processor(conversations, regions, **options)


def told_of(answer):
    return RegionSample(answer, (user(picture(48, 64), "what is <region>?"), assistant(answer)), (BOX,))


def test_a_batch_is_prepared_again_without_the_sample_that_fails(pair):
    processor = FailingOn(pair.processor, "two")
    batch = RegionCollator(processor, on_bad_sample="skip")([told_of(each) for each in ("one", "two", "three")])
    assert processor.rows == [3, 2]
    assert batch["sample_names"] == ("sample 'one'", "sample 'three'")
    message = "sample 'two': region 0: Adapter 'x' failed in plan: ZeroDivisionError: division by zero."
    assert batch["skipped"] == (message,)


def test_several_samples_that_fail_are_skipped_in_order(pair):
    processor = FailingOn(pair.processor, "one", "three")
    batch = RegionCollator(processor, on_bad_sample="skip")([told_of(each) for each in ("one", "two", "three")])
    assert processor.rows == [3, 2, 1]
    assert [each.partition(":")[0] for each in batch["skipped"]] == ["sample 'one'", "sample 'three'"]


def test_a_plugin_that_fails_on_a_sample_stops_by_default(pair):
    with pytest.raises(SampleError, match="^sample 'two': region 0: Adapter 'x' failed in plan") as caught:
        RegionCollator(FailingOn(pair.processor, "two"))([told_of("one"), told_of("two")])
    assert (caught.value.plugin, caught.value.step) == ("adapter 'x'", "plan")
    assert told(caught.value).splitlines()[1] == "Where: sample 'two', region 0."


def test_a_plugin_that_does_what_it_must_not_stops(pair, monkeypatch):
    def refuse(*arguments, **options):
        raise PluginError("Adapter 'x' must plan a RegionPlan.", sample=1)

    refuse.makes_object_tokens = True

    with pytest.raises(PluginError, match="^Sample 1: Adapter 'x' must plan a RegionPlan.$"):
        RegionCollator(refuse, on_bad_sample="skip")([told_of("one"), told_of("two")])


def test_the_checks_name_a_plugin_that_fails(pair):
    class Processor(FailingOn):
        sampling = pair.processor.sampling

        def __call__(self, conversation, regions, **options):
            return super().__call__([conversation], [regions], **options)

    [defect] = defects_of(told_of("two"), processor=Processor(pair.processor, "two"))
    assert defect == ("plugin", "region 0: Adapter 'x' failed in plan: ZeroDivisionError: division by zero.")
    assert defects_of(told_of("one"), processor=Processor(pair.processor, "two")) == []


def test_a_frame_of_a_region_is_named():
    with pytest.raises(RegionError, match="^Frame 3: The box .* outside its image") as caught:
        VideoRegion({0: BOX, 3: Region.from_box((90, 4, 95, 9))}).require_on((48, 64))
    assert caught.value.frame == 3
