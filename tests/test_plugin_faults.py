"""Whatever a plugin's code raises or returns in any step: an error that names plugin, step and distribution."""

import json
from dataclasses import dataclass
from importlib import import_module, metadata

import faulty
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import picture, user
from PIL import Image

from pixelrefer_plugin import (
    DataError,
    PixelReferError,
    PluginError,
    Region,
    RegionDataset,
    SampleError,
    VideoRegion,
    attach,
    load_region_source,
    plugins,
)
from pixelrefer_plugin.authoring import RegionSample, check_field
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.cli.listing import Listed, table_of
from pixelrefer_plugin.contracts.options import make_config
from pixelrefer_plugin.errors import PluginCodeError
from pixelrefer_plugin.media.video import Video

BOX, TRIANGLE = Region.from_box((8, 8, 40, 40)), Region.from_polygon([8, 10, 50, 12, 20, 50])
IMAGE = Image.fromarray(picture(70, 84))
CLIP = {"type": "video", "video": np.stack([picture(56, 70, seed) for seed in range(4)]), "fps": 2.0}


@pytest.fixture(autouse=True)
def installed(tmp_path, monkeypatch):
    """The faulty plugin, of a distribution of its own, beside all others."""
    info = tmp_path / "faulty_goods-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty-goods\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\nfaulty = faulty\n")
    points = [*metadata.entry_points(group=plugins.GROUP), *metadata.Distribution.at(info).entry_points]
    served = plugins.PluginHost(points)
    monkeypatch.setattr(plugins, "host", lambda: served)
    faulty.FAULTS.clear()
    yield served
    faulty.FAULTS.clear()


@pytest.fixture(scope="module")
def bare():
    """A tiny backbone and its processor."""
    return faulty.BACKBONE.tiny(0)


# -- what each kind is asked to do -------------------------------------------------------------------------


def ask(bare, adapter="faulty"):
    """All that an adapter and a backbone do: plan, learn from a picture and a video, and answer with a mask."""
    backbone, native = bare
    native.tokenizer.padding_side = "right"
    model, processor = attach(backbone, native, adapter=adapter, backbone_plugin="faulty")
    try:
        gives_masks = model.adapter_spec.masks is not None
        targets = [TRIANGLE] if gives_masks else []
        answer = {"role": "assistant", "content": "It is <seg>." if targets else "It is."}
        asked = [user(IMAGE, "What is <region>, and <region>?"), answer], [user(CLIP, "What is <region>?")]
        learnt = processor(asked[0], [BOX, TRIANGLE, *targets], labels=True)
        model(**learnt).loss.backward()
        with torch.no_grad():
            model(**processor(asked[1], [VideoRegion({1: TRIANGLE, 2: TRIANGLE})]))
        if gives_masks:
            wanted = processor([user(IMAGE, "segment it")], segment=True)
            model.generate(**wanted, force_mask=True, do_sample=False, max_new_tokens=2)
    finally:
        model.detach()


def ask_source(tmp_path):
    source = load_region_source("faulty")
    source.segment(IMAGE, [BOX])
    video = Video(CLIP["video"], (0, 1, 2, 3), (0.0, 0.5, 1.0, 1.5), num_source_frames=4, duration_s=2.0, name="clip")
    source.track(video, [VideoRegion({1: TRIANGLE})])


def ask_format(tmp_path):
    path = tmp_path / "faulty.jsonl"
    path.write_text('{"faulty": "a"}\n{"faulty": "b"}\n')
    list(RegionDataset.open(path, format="faulty"))


def ask_reader(tmp_path):
    path = tmp_path / "whole.json"
    path.write_text(json.dumps({"whole": ["a", "b"]}))
    list(RegionDataset.open(path, format="faulty-whole"))


OF_ADAPTER = (
    *("config", "planner", "plan", "plan_drawn", "together", "list_heading", "lay_out", "build", "start_from"),
    *("set_attn_implementation", "forward", "predict_masks", "mask_losses", "masks.picture_px", "masks.max_objects"),
)
OF_BACKBONE = (
    *("crops.geometry", "crops.width", "crops.encode", "cells.side"),
    *("images.grids_hw", "images.grids", "images.boxes_xyxy"),
    *("videos.grids_hw", "videos.grids", "videos.boxes_xyxy", "videos.frames_per_grid", "videos.resize_frames"),
)
MODELS = {
    **{("adapter", step): "faulty" for step in OF_ADAPTER},
    **{("backbone", step): "faulty" for step in OF_BACKBONE},
    ("adapter", "frame_label"): "faulty-alone",
    ("backbone", "images.projected"): "faulty-projected",
    ("backbone", "videos.projected"): "faulty-projected",
}
OTHERS = {
    **{("region source", step): ask_source for step in ("config", "build", "segment", "track")},
    **{("data format", step): ask_format for step in ("config", "read_record")},
    **{("data format", step): ask_reader for step in ("config", "open_file", "__len__", "__getitem__")},
}


# -- what may go wrong -------------------------------------------------------------------------------------


class OddError(BaseException):
    """No exception, and it cannot be shown."""

    def __str__(self):
        raise RuntimeError("no text")


def raising(error):
    def fault():
        raise error

    return fault


RAISED = {
    "an exception": ValueError("no luck"),
    "one without text": OddError(),
    "an exit": SystemExit(0),
    "a long one": KeyError("x" * 10**6),
}
RETURNED = {"None": None, "a number": -1, "a text": "text", "a tuple": (), "an object": object()}


def require_named(error, kind, step, *, cause=None):
    """That an error says whose code it is about."""
    assert error.plugin.startswith(f"{kind} 'faulty")
    assert error.distribution == "faulty-goods 2.0"
    assert error.step == step
    assert len(str(error)) < 1000
    if cause is not None:
        assert type(cause).__name__ in str(error)


def test_without_a_fault_all_works(bare, tmp_path):
    for adapter in ("faulty", "faulty-alone", "faulty-projected"):
        ask(bare, adapter)
    ask_source(tmp_path)
    ask_format(tmp_path)
    ask_reader(tmp_path)


@pytest.mark.parametrize(("kind", "step"), MODELS)
@pytest.mark.parametrize("what", ["an exception", "one without text"])
def test_what_code_of_a_model_raises_is_named(bare, kind, step, what):
    cause = RAISED[what]
    faulty.FAULTS[step] = raising(cause)
    with pytest.raises(PluginCodeError) as caught:
        ask(bare, MODELS[kind, step])
    require_named(caught.value, kind, step, cause=cause)
    faulty.FAULTS.clear()


IGNORED = {"start_from", "set_attn_implementation", "config"}  # what they return is not looked at


@pytest.mark.parametrize(("kind", "step"), [each for each in MODELS if each[1] not in IGNORED])
@pytest.mark.parametrize("what", ["None", "a number", "an object"])
def test_what_code_of_a_model_returns_is_checked(bare, kind, step, what):
    faulty.FAULTS[step] = lambda: RETURNED[what]
    with pytest.raises(PixelReferError) as caught:
        ask(bare, MODELS[kind, step])
    require_named(caught.value, kind, step)


@pytest.mark.parametrize("what", RAISED)
@pytest.mark.parametrize(("kind", "step"), OTHERS)
def test_what_code_of_a_source_or_format_raises_is_named(tmp_path, kind, step, what):
    faulty.FAULTS[step] = raising(RAISED[what])
    with pytest.raises((PluginCodeError, SampleError)) as caught:
        OTHERS[kind, step](tmp_path)
    require_named(caught.value, kind, step, cause=RAISED[what])


@pytest.mark.parametrize("what", RETURNED)
@pytest.mark.parametrize(("kind", "step"), [each for each in OTHERS if each[1] not in IGNORED])
def test_what_code_of_a_source_or_format_returns_is_checked(tmp_path, kind, step, what):
    if (step, what) == ("open_file", "a tuple"):
        pytest.skip("a tuple of samples has all that a file of samples needs")
    faulty.FAULTS[step] = lambda: RETURNED[what]
    with pytest.raises(PixelReferError) as caught:
        OTHERS[kind, step](tmp_path)
    require_named(caught.value, kind, step)


@dataclass(frozen=True)
class Even:
    size: int = 4
    wanted: int = 1

    def __post_init__(self):
        check_field(self.wanted > 0, self, "wanted", "> 0")
        if self.size % 2:
            raise RuntimeError("it is odd")


@dataclass(frozen=True)
class OddByDefault(Even):
    size: int = 3


@dataclass(frozen=True)
class NoneByDefault(Even):
    wanted: int = 0


@pytest.mark.parametrize(
    ("config", "options", "error", "message"),
    [
        (Even, {"size": "a"}, PixelReferError, r"Adapter 'x' was given an option of the wrong type: not all arguments"),
        (Even, {"size": None}, PixelReferError, r"Adapter 'x' was given an option of the wrong type: unsupported"),
        (Even, {"size": 5}, PixelReferError, r"given an option that it refuses: RuntimeError: it is odd\.$"),
        (Even, {"wanted": 0}, PixelReferError, r"^Even\.wanted must be > 0, got 0"),
        (Even, {"wanted": "x" * 10**6}, PixelReferError, r"of the wrong type"),
        (Even, {"x" * 10**6: 1, 5: 2}, PixelReferError, r"has no option 'xxx.*, 5\. Its options: size, wanted"),
        (Even, [1], PixelReferError, r"must be a mapping or a Even, got list"),
        (OddByDefault, None, PluginCodeError, r"^Adapter 'x' failed in config: RuntimeError: it is odd\.$"),
        (OddByDefault, {"size": 5}, PluginCodeError, r"^Adapter 'x' failed in config: RuntimeError: it is odd\.$"),
        (NoneByDefault, {}, PluginError, r"Adapter 'x' refuses the defaults of its own options: .*wanted must be > 0"),
    ],
)
def test_who_is_to_blame_for_an_option(config, options, error, message):
    with pytest.raises(error, match=message) as caught:
        make_config(config, options, owner="adapter 'x'")
    assert isinstance(caught.value, PluginError) == (error is not PixelReferError)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("module", "hint"),
    [
        ("odd_extra", "Install it: pip install 'faulty-goods[odd]'"),
        ("odd_other.deep", "Install the package that has odd_other"),
    ],
)
def test_a_package_that_is_missing_is_told_with_the_extra_that_has_it(tmp_path, monkeypatch, module, hint):
    monkeypatch.syspath_prepend(tmp_path)
    [info] = tmp_path.glob("*.dist-info")
    text = "Metadata-Version: 2.1\nName: faulty-goods\nVersion: 2.0\n"
    (info / "METADATA").write_text(f'{text}Provides-Extra: odd\nRequires-Dist: odd-extra>=1; extra == "odd"\n')
    faulty.FAULTS["build"] = lambda: import_module(module)
    with pytest.raises(PluginCodeError) as caught:
        ask_source(tmp_path)
    require_named(caught.value, "region source", "build")
    assert str(caught.value).endswith(hint)
    assert caught.value.cause.endswith(hint)


# -- other plugins, and what users see ---------------------------------------------------------------------


def good_file(tmp_path):
    IMAGE.save(tmp_path / "a.png")
    turns = [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "A car."}]
    path = tmp_path / "good.jsonl"
    path.write_text(json.dumps({"image": "a.png", "regions": [{"box": [1, 1, 9, 9]}], "messages": turns}))
    return path


def run(*args):
    return CliRunner().invoke(main, [str(each) for each in args])


@pytest.mark.parametrize("what", RAISED)
def test_a_format_that_fails_to_recognise_is_passed_over_and_told_once(tmp_path, caplog, what):
    faulty.FAULTS["recognises"] = raising(RAISED[what])
    path = good_file(tmp_path)
    for _ in range(3):
        assert RegionDataset.open(path).format == "regions"
    [record] = caplog.records
    assert "Data format 'faulty' failed in recognises" in record.message
    assert "from faulty-goods 2.0" in record.message
    result = run("validate", path)
    assert result.exit_code == 0
    assert "1 good" in result.output


def test_a_file_that_no_format_recognises_tells_of_one_that_failed(tmp_path):
    faulty.FAULTS["recognises"] = raising(OddError())
    path = tmp_path / "odd.jsonl"
    path.write_text('{"faulty": 1}\n')
    with pytest.raises(DataError, match="No data format recognises .* Data format 'faulty' failed in recognises: Odd"):
        RegionDataset.open(path)


SAMPLES = {
    "an id that is no text": {"id": 3},
    "no messages": {"messages": None},
    "messages as a text": {"messages": "Hello"},
    "a message that is a text": {"messages": ("Hello",)},
    "a message without content": {"messages": ({"role": "user"},)},
    "a part that is a text": {"messages": ({"role": "user", "content": ["Hello"]},)},
    "regions that are none": {"regions": (5,)},
    "a region in place of several": {"regions": BOX},
    "a place that is no text": {"where": None},
    "sizes that are none": {"media_hw": (4, 5)},
}


@pytest.mark.parametrize("fields", SAMPLES.values(), ids=SAMPLES)
def test_a_sample_of_wrong_types_is_the_formats_fault(tmp_path, fields):
    sound = {"id": "a", "messages": ({"role": "user", "content": "Hello"},), "where": "here"}
    faulty.FAULTS["read_record"] = lambda: RegionSample(**sound | fields)
    with pytest.raises(PluginError, match=f"reads a RegionSample whose {next(iter(fields))} must be") as caught:
        ask_format(tmp_path)
    require_named(caught.value, "data format", "read_record")


TRIED = {
    "config": "failed in config",
    "planner": "failed in planner",
    "plan": "failed in plan",
    "tiny": "failed in tiny",
    "recognises": "failed in recognises",
}


@pytest.mark.parametrize("what", ["an exception", "an exit"])
@pytest.mark.parametrize("step", TRIED)
def test_a_check_tells_what_cannot_run(monkeypatch, step, what):
    monkeypatch.setenv("COLUMNS", "80")
    sound = run("plugins", "--check")
    assert sound.exit_code == 0, sound.output
    faulty.FAULTS[step] = raising(RAISED[what])
    result = run("plugins", "--check")
    assert result.exit_code == 1
    assert "cannot run" in result.output
    assert f"{TRIED[step]}: {type(RAISED[what]).__name__}" in " ".join(result.output.split())
    assert max(map(len, result.output.splitlines())) <= 80
    faults = json.loads(run("plugins", "--check", "--json").stdout)
    assert [each["name"] for each in faults if each["status"] != "loaded"] == ["faulty"]
    assert "\n" not in "".join(each["status"] for each in faults)


def test_a_long_status_stands_below_its_row(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    broken = plugins.PluginInfo("x", "adapter", "x", "acme", "1", f"broken: fails to load: {'no luck ' * 30}")
    header, row, *reason = table_of([Listed(broken)]).splitlines()
    assert header.split() == ["name", "kind", "distribution", "version", "status"]
    assert row.split() == ["x", "adapter", "acme", "1", "broken"]
    assert " ".join(" ".join(reason).split()) == f"fails to load: {'no luck ' * 30}".strip()
    assert all(len(each) <= 80 for each in reason)
