"""The command line, on a tiny real model and a real photograph."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from test_sam2 import tiny_transformers
from videos import grey_frames, truncate, write_video

from pixelrefer_plugin import (
    Chat,
    FrameSampling,
    ObjectMemory,
    Region,
    RegionModel,
    RegionProcessor,
    SegmentedObject,
    attach,
    cli,
    get_adapter,
    get_backbone,
    load_video,
    plugins,
)
from pixelrefer_plugin.chat import Reply
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.cli.asking import LoadedModel
from pixelrefer_plugin.quickstart import run as quickstart_run

ROOT = Path(__file__).parent.parent
skimage_data = pytest.importorskip("skimage.data")


@dataclasses.dataclass(frozen=True)
class Files:
    """What the commands are given: pictures, masks and models in one folder."""

    root: Path

    def __getattr__(self, name):
        return str(self.root / name.replace("__", "."))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    made = Files(tmp_path_factory.mktemp("cli"))
    Image.fromarray(skimage_data.astronaut()).resize((200, 160)).save(made.astronaut__png)
    mask = np.zeros((160, 200), dtype=np.uint8)
    mask[20:90, 60:120] = 255
    Image.fromarray(mask).save(made.mask__png)
    Path(made.rle__json).write_text(json.dumps({"size": [160, 200], "counts": [500, 700, 32_000 - 1200]}))
    backbone, native = get_backbone("videollama3").tiny(0)
    backbone.save_pretrained(made.plain)
    native.save_pretrained(made.plain)
    model, processor = attach(backbone, native, adapter="saot")
    model.save_pretrained(made.model, processor, include_backbone=True)
    model.detach()
    write_media(made)
    return made


def write_media(made):
    """Moving pictures of 64x48, all of ten frames; 10 a second where the kind tells. And such as cannot be read."""
    frames = [Image.fromarray(frame) for frame in grey_frames(10)]
    write_video(made.root / "video.mp4", 10, fps=10)
    Path(made.frames).mkdir()
    for index, frame in enumerate(frames):
        frame.save(made.root / "frames" / f"{index}.png")
    frames[0].save(made.moving__gif, save_all=True, append_images=frames[1:], duration=100)
    frames[0].save(made.still__gif)
    truncate(write_video(made.root / "truncated.mp4", 10, fps=10), 0.6)
    Path(made.broken__mp4).write_bytes(b"no video")
    Path(made.broken__jpg).write_bytes(b"no picture")
    Path(made.empty).mkdir()


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    """Options that find masks with a tiny random SAM 2, and with one that never sees an object."""
    folder = tmp_path_factory.mktemp("sam2")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tiny_transformers(folder / "seeing", sees=True)
        tiny_transformers(folder / "blind", sees=False)
    return lambda name="seeing": ("--source-option", f"checkpoint={folder / name}")


@pytest.fixture
def run(monkeypatch):
    """Runs `pixelrefer` in this process, off-line."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return lambda *arguments: CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture
def describe(run, files):
    """Runs `pixelrefer describe` on the photograph, with short answers."""
    return lambda *arguments, model="model": run(
        "describe", files.astronaut__png, "--model", getattr(files, model), "--max-new-tokens", 4, *arguments
    )


@pytest.fixture
def describe_video(run, files):
    """Runs `pixelrefer describe` on a video, with short answers, and reads its JSON."""

    def describe(*arguments, video="video.mp4", model="model"):
        media = ("describe", files.root / video, "--model", getattr(files, model))
        result = run(*media, "--max-new-tokens", 2, "--json", *arguments)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return describe


@pytest.fixture
def no_model(monkeypatch):
    """Fails the test where a model would be loaded."""
    monkeypatch.setattr(LoadedModel, "open", lambda *args, **kwargs: pytest.fail("the model is loaded"))


def error_line(result, exit_code=2):
    """The one line on stderr of a command that failed as it should, without a traceback."""
    assert result.exit_code == exit_code, result.output
    assert isinstance(result.exception, SystemExit)
    lines = result.stderr.splitlines()
    assert sum(line.startswith("Error: ") for line in lines) == 1
    assert lines[-1].startswith("Error: ")
    return lines[-1]


# -- help and version --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [[], ["plugins"], ["describe"], ["segment"], ["chat"], ["quickstart"]], ids=" ".join
)
def test_every_help_has_an_example(run, command):
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Example:\n" in result.output
    assert "\n    pixelrefer " in result.output


def test_version(run):
    assert run("--version").output == "pixelrefer, version 0.1.0\n"


def test_the_installed_command(files):
    command = Path(sys.executable).parent / "pixelrefer"
    result = subprocess.run([command, "plugins"], capture_output=True, text=True, check=True)
    assert result.stderr == ""
    assert "saot" in result.stdout


def test_the_generated_docs_are_up_to_date():
    script = [sys.executable, ROOT / "scripts" / "update_docs.py", "--check"]
    result = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


# -- plugins -----------------------------------------------------------------------------------------------


def test_plugins_table(run):
    header, *rows, blank, free = run("plugins").output.splitlines()
    assert (blank, free.startswith("Adapters that need no training: coordinates")) == ("", True)
    assert header.split() == ["name", "kind", "distribution", "version", "status"]
    assert "saot" in [row.split()[0] for row in rows]
    kinds = slice(header.index("kind"), header.index("distribution"))
    assert {row[kinds].strip() for row in rows} <= {
        "adapter",
        "backbone",
        "region source",
        "data format",
        "adapter+backbone",
        "benchmark",
    }


def test_plugins_json(run):
    (saot,) = [each for each in json.loads(run("plugins", "--json").output) if each["name"] == "saot"]
    specs = saot.get("specs")  # none before it is loaded
    assert saot.pop("status") == ("loaded" if specs else "ready")
    assert saot == {
        "name": "saot",
        "kind": "adapter",
        "module": "pixelrefer_saot",
        "distribution": "pixelrefer-plugin",
        "version": "0.1.0",
        "api": 1,
        "specs": specs,
        "training_free": [],
    }
    assert specs in ([], [["adapter", "saot"]])


def test_plugins_check(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    result = run("plugins", "--check")
    assert result.exit_code == 0
    header, *rows, _, free = result.output.splitlines()
    assert "coordinates" in free
    measures = [row for row in rows if row[header.index("kind") :].startswith("benchmark")]
    status = {row.split()[0]: row[header.index("status") :] for row in measures}
    assert status.pop("lvis") == "loaded with paco"
    assert status.pop("refcoco") == "loaded with reasonseg"
    assert {each.partition(" with ")[0] for each in status.values()} == {"loaded"}
    status = {row.split()[0]: row[header.index("status") :] for row in rows if row not in measures}
    assert status.pop("lvis") == status.pop("refcoco") == "loaded with coco"
    assert status.pop("dam_regions") == "loaded with dam"
    assert status.pop("videorefer") == "loaded with pixelrefer"
    assert status.pop("qwen3_vl_moe") == "loaded with qwen3_vl"
    assert status.pop("qwen3_5_moe") == "loaded with qwen3_5"
    assert status.pop("smolvlm") == "loaded with idefics3"
    assert status.pop("gemma4_unified") == "loaded with gemma4"
    assert set(status.values()) == {"loaded"}
    broken = plugins.PluginInfo("x", "adapter", "x", "acme", "1", "broken: fails to load: ValueError: no luck")
    monkeypatch.setattr(plugins, "list_plugins", lambda check: [broken])
    result = run("plugins", "--check")
    assert result.exit_code == 1
    assert "no luck" in result.stdout
    assert run("plugins").exit_code == 0


# -- describe ----------------------------------------------------------------------------------------------


def test_one_region_streams_its_answer(describe):
    result = describe("--box", "10,20,60,90")
    assert result.exit_code == 0, result.output
    streamed = result.stdout
    result = describe("--box", "10,20,60,90", "--json")
    answer = json.loads(result.stdout)["answers"][0]
    assert answer
    assert streamed.strip() == answer


def test_answers_arrive_token_by_token(describe, monkeypatch):
    from transformers import TextStreamer

    calls = []
    monkeypatch.setattr(TextStreamer, "put", lambda self, value: calls.append(value.numel()))
    monkeypatch.setattr(TextStreamer, "end", lambda self: calls.append("end"))
    assert describe("--box", "10,20,60,90").exit_code == 0
    prompt, *tokens, end = calls
    assert prompt > 1
    assert set(tokens) == {1}
    assert end == "end"


def test_every_kind_in_the_order_given(describe, files):
    given = [
        ("points", "30,40;50,60"),
        ("box", "10,20,60,90"),
        ("rle", files.rle__json),
        ("mask", files.mask__png),
        ("box", "100,20,160,90"),
        ("polygon", "10,10,90,20,40,80"),
        ("scribble", "5,5;60,70;100,30"),
        ("points", "1,2"),
        ("rle", json.dumps({"size": [160, 200], "counts": [0, 900, 31_100]})),
    ]
    result = describe("--json", *[each for kind, text in given for each in (f"--{kind}", text)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [(region["kind"], region["given"]) for region in found["regions"]] == given
    assert all(region["tokens"] >= 1 for region in found["regions"])
    assert len(found["answers"]) == len(given)
    assert found["prompt"] == "Describe <region>."
    assert found["image"] == files.astronaut__png
    assert found["model"] == files.model
    assert found["seconds"] > 0


def test_several_regions_without_a_prompt_are_asked_about_one_by_one(describe):
    alone = [json.loads(describe("--json", "--box", box).stdout) for box in ("10,20,60,90", "90,5,160,80")]
    together = json.loads(describe("--json", "--box", "10,20,60,90", "--box", "90,5,160,80").stdout)
    assert together["answers"] == [each["answers"][0] for each in alone]
    printed = describe("--box", "10,20,60,90", "--box", "90,5,160,80").stdout
    assert [line for line in printed.splitlines() if line.startswith("box ")] == ["box 10,20,60,90", "box 90,5,160,80"]


def test_a_prompt_asks_about_all_regions_at_once(describe):
    question = "Is <region> left of <region>?"
    result = describe("--json", "--box", "10,20,60,90", "--points", "90,50", "--prompt", question)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["prompt"] == question
    assert len(found["answers"]) == 1
    assert len(found["regions"]) == 2


def test_a_prompt_without_regions(describe):
    found = json.loads(describe("--json", "--prompt", "which colours are there?").stdout)
    assert found["regions"] == []
    assert len(found["answers"]) == 1


def test_a_plain_backbone_works_and_warns(describe):
    result = describe("--box", "10,20,60,90", "--adapter", "maskpool", "--json", model="plain")
    assert result.exit_code == 0, result.output
    assert "Warning: " in result.stderr
    assert "its adapter 'maskpool' is untrained" in result.stderr
    assert len(json.loads(result.stdout)["answers"]) == 1


def test_options_of_an_adapter_and_its_presets(describe):
    given = ("--box", "10,20,60,90", "--json", "--adapter", "saot")
    (usual,) = json.loads(describe(*given, model="plain").stdout)["regions"]
    chosen = ("--adapter-option", "preset=official", "--adapter-option", "num_tokens=3")
    (region,) = json.loads(describe(*given, *chosen, model="plain").stdout)["regions"]
    assert region["tokens"] == 3 < usual["tokens"]
    line = error_line(describe(*given, "--adapter-option", "preset=none", model="plain"))
    assert "Adapter 'saot' has no preset 'none'. Its presets: official" in line
    line = error_line(describe("--box", "1,1,9,9", "--adapter-option", "num_tokens=3"))
    assert "brings its adapter's options; adapter_config is for a plain backbone" in line


def test_a_model_folder_does_not_warn(describe):
    assert "Warning" not in describe("--box", "10,20,60,90", "--json").stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--box", "60,20,10,90"], "Invalid value for '--box': A box must have x1 < x2 and y1 < y2"),
        (["--box", "ten,20,60,90"], "Expected numbers separated by commas, got 'ten,20,60,90'"),
        (["--box", "10 20 60 90"], "Invalid value for '--box': Expected numbers separated by commas"),
        (["--box", "nan,20,60,90"], "Invalid value for '--box': A box must be finite"),
        (["--box", "10,20,60"], "must be four numbers"),
        (["--box", ""], "Invalid value for '--box'"),
        (["--box", "10,20,600,90"], "--box 10,20,600,90: The box (10.0, 20.0, 600.0, 90.0) reaches (600, 90), outside"),
        (["--mask", "gone.png"], "Invalid value for '--mask': Mask 'gone.png' cannot be read: No such file"),
        (["--polygon", "1,2,3,4"], "Invalid value for '--polygon': A polygon needs three or more"),
        (["--points", "1,2,3"], "Invalid value for '--points': Points must be one or more (x, y)"),
        (["--points", "1,2;"], "Invalid value for '--points'"),
        (["--scribble", "1,2"], "Invalid value for '--scribble': A scribble needs at least two points"),
        (["--rle", "gone.json"], "Invalid value for '--rle': Expected JSON or a JSON file, got 'gone.json'"),
        (["--rle", "{'size': 3}"], "Invalid value for '--rle': Expected JSON {'size': [height, width], "),
        (["--rle", '{"size": [2, 2]}'], "Invalid value for '--rle': An RLE must be a mapping with"),
        (["--rle", '{"size": [2, 2], "counts": [1, 3]}'], "width 2 and height 2 but its image is of width 200"),
        (["--box", "1,1,9,9", "--prompt", "what is it?"], "The prompt has 0 <region> but 1 region was given"),
        (["--prompt", "<region>?"], "The prompt has 1 <region> but 0 regions were given"),
        (["--box", "1,1,9,9", "--prompt", "<region> <|region_pad|>"], "special token '<|region_pad|>'"),
        ([], "Give a region (--box, --mask, --polygon, ...), or a --prompt"),
        (["--box", "1,1,9,9", "--adapter", "maskpool"], "was made with adapter 'saot', not 'maskpool'"),
        (["--box", "1,1,9,9", "--max-new-tokens", "0"], "Invalid value for '--max-new-tokens'"),
        (["--box", "1,1,9,9", "--frobnicate"], "No such option"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(describe, arguments, message):
    assert message in error_line(describe(*arguments))


def test_an_unknown_adapter_suggests_the_nearest(describe):
    result = describe("--box", "1,1,9,9", "--adapter", "soat", model="plain")
    assert "No adapter is called 'soat'. Did you mean 'saot'?" in error_line(result)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("gone.png", "Image '{}' cannot be read: No such file"),
        ("gone.mp4", "Video '{}' does not exist"),
        ("broken.jpg", "Image '{}' is not a picture"),
        ("broken.mp4", "Video '{}' cannot be read"),
        ("truncated.mp4", "Video '{}' "),
        ("rle.json", "Video '{}' cannot be read"),
        ("empty", "Folder '{}' has no frames"),
    ],
)
def test_bad_media(run, files, image, message):
    path = str(files.root / image)
    result = run("describe", path, "--model", files.model, "--box", "1,1,9,9")
    assert message.format(path) in error_line(result)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./no-such-folder", "Expected a model folder at './no-such-folder', found none"),
        ("nobody/no-such-model", "No model can be loaded from 'nobody/no-such-model'"),
        ("not an id", "No model can be loaded from 'not an id'"),
    ],
)
def test_unknown_models(run, files, model, message):
    result = run("describe", files.astronaut__png, "--model", model, "--adapter", "saot", "--box", "1,1,9,9")
    assert message in error_line(result)


def test_a_picture_that_is_too_large_is_one_line(files, tmp_path):
    Image.new("L", (12_000, 9_000)).save(tmp_path / "large.png")
    command = [sys.executable, "-m", "pixelrefer_plugin", "describe", tmp_path / "large.png", "--model", files.model]
    result = subprocess.run([*map(str, command), "--prompt", "what?"], capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith(f"Error: Image '{tmp_path / 'large.png'}' is too large to decode safely: ")
    assert len(result.stderr.splitlines()) == 1


def test_a_folder_that_is_no_model(run, files, tmp_path):
    result = run("describe", files.astronaut__png, "--model", tmp_path, "--box", "1,1,9,9")
    assert f"No model can be loaded from '{tmp_path}'" in error_line(result)


def test_a_plain_backbone_without_its_processor(run, files, tmp_path):
    get_backbone("videollama3").tiny(0)[0].save_pretrained(tmp_path)
    result = run("describe", files.astronaut__png, "--model", tmp_path, "--box", "1,1,9,9", "--adapter", "saot")
    assert str(tmp_path) in error_line(result)


def test_masks_of_a_plain_backbone_need_an_adapter(run, files, tmp_path):
    result = run("segment", files.astronaut__png, "it", "--out", tmp_path / "out", "--model", files.plain)
    assert "Write --adapter NAME with one of the installed adapters: " in error_line(result)


def test_a_backbone_that_no_plugin_serves(run, files, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    result = run("describe", files.astronaut__png, "--model", tmp_path, "--box", "1,1,9,9")
    assert "No installed backbone plugin serves model type 'gpt2'" in error_line(result)


def test_cuda_that_is_not_there(describe, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "torch finds no CUDA device here" in error_line(describe("--box", "1,1,9,9", "--device", "cuda"))
    assert describe("--box", "1,1,9,9", "--device", "auto").exit_code == 0


def test_a_network_failure_is_one_line(describe, monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("the hub\nis away")

    monkeypatch.setattr("pixelrefer_plugin.entry.load", fail)
    assert error_line(describe("--box", "1,1,9,9")).endswith("cannot be loaded: the hub is away")


# -- describe, of videos -----------------------------------------------------------------------------------


def test_a_region_of_a_video_lies_on_the_first_frame(describe_video, files):
    found = describe_video("--box", "5,5,30,40")
    assert found["video"] == files.video__mp4
    assert "image" not in found
    assert found["frames"]["indices"] == list(range(10))
    assert found["frames"]["times_s"] == pytest.approx([index / 10 for index in range(10)])
    (region,) = found["regions"]
    tokens = region.pop("tokens")
    assert 1 <= tokens <= 32
    assert region == {"kind": "box", "given": "5,5,30,40", "frames": [0]}
    assert len(found["answers"]) == 1


@pytest.mark.parametrize(
    ("at", "frame"), [("0", 0), ("7", 7), ("9", 9), ("0s", 0), ("0.35s", 3), ("0.7s", 7), ("0.99s", 9)]
)
def test_at_a_frame_or_a_time(describe_video, at, frame):
    found = describe_video("--box", "5,5,30,40", "--at", at, "--frames", 2)
    assert found["regions"][0]["frames"] == [frame]
    assert frame in found["frames"]["indices"]
    assert len(found["frames"]["indices"]) == 2


def test_a_pipe_is_not_waited_for(run, files, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    result = run("describe", tmp_path / "pipe", "--model", files.model, "--box", "5,5,30,40")
    assert "is neither a file nor a folder" in error_line(result)


def test_each_at_belongs_to_the_region_before_it(describe_video):
    found = describe_video(
        "--points", "9,9", "--at", 4, "--box", "5,5,30,40", "--points", "20,20", "--at", "0.2s",
        "--polygon", "10,10,40,20,20,40", "--box", "1,1,9,9", "--at", 9,
    )  # fmt: skip
    assert [(region["kind"], region["frames"]) for region in found["regions"]] == [
        ("points", [4]),
        ("box", [0]),
        ("points", [2]),
        ("polygon", [0]),
        ("box", [9]),
    ]


def test_several_objects_in_different_spans_in_one_prompt(describe_video):
    question = "Is <region> there before <region>?"
    found = describe_video("--box", "5,5,30,40", "--at", 8, "--points", "9,9", "--at", 1, "--prompt", question)
    assert found["prompt"] == question
    assert len(found["answers"]) == 1
    assert [region["frames"] for region in found["regions"]] == [[8], [1]]
    assert all(region["tokens"] >= 1 for region in found["regions"])


def test_the_answer_is_the_librarys(describe_video, files):
    found = describe_video("--box", "5,5,30,40", "--at", 8, "--prompt", "<region>?", "--frames", 3)
    model = RegionModel.from_pretrained(files.model).eval()
    processor = RegionProcessor.from_pretrained(files.model)
    parts = [{"type": "video", "video": files.video__mp4}, {"type": "text", "text": "<region>?"}]
    region = {8: cli.options.RegionType("box").convert("5,5,30,40", None, None).region}
    messages = [{"role": "user", "content": parts}]
    inputs = processor(messages, [region], sampling=FrameSampling(num_frames=3))
    answers = processor.decode(model.generate(**inputs, max_new_tokens=2, do_sample=False), inputs)
    assert found["answers"] == answers


def test_a_video_without_regions(describe_video):
    found = describe_video("--prompt", "what moves?", "--frames", 2)
    assert found["regions"] == []
    assert found["frames"]["indices"] == [0, 9]


def test_titles_tell_the_frame(run, files):
    arguments = ["--box", "5,5,30,40", "--at", "0.5s", "--points", "9,9", "--frames", 2, "--max-new-tokens", 2]
    result = run("describe", files.video__mp4, "--model", files.model, *arguments)
    assert result.exit_code == 0, result.output
    titles = [line for line in result.stdout.splitlines() if line.startswith(("box ", "points "))]
    assert titles == ["box 5,5,30,40 at 0.5s", "points 9,9"]


@pytest.mark.parametrize(
    ("options", "indices"),
    [
        (["--frames", 1], [0]),
        (["--frames", 4], [0, 3, 6, 9]),
        (["--frames", 300], list(range(10))),
        (["--fps", 5], [0, 2, 4, 6, 8]),
        (["--fps", 0.5], [0]),
    ],
    ids=["one", "some", "more than there are", "fps", "slow fps"],
)
def test_sampling(describe_video, options, indices):
    assert describe_video("--box", "5,5,30,40", *options)["frames"]["indices"] == indices


def test_frames_are_sampled_as_the_model_was_trained(describe_video, files):
    model = RegionModel.from_pretrained(files.model)
    processor = RegionProcessor.from_pretrained(files.model)
    processor.sampling = FrameSampling(num_frames=3)
    model.save_pretrained(files.trained, processor, include_backbone=True)
    assert describe_video("--box", "5,5,30,40", model="trained")["frames"]["indices"] == [0, 4, 9]
    assert describe_video("--box", "5,5,30,40", "--frames", 2, model="trained")["frames"]["indices"] == [0, 9]


def test_a_folder_of_frames(describe_video, run, files):
    found = describe_video("--box", "5,5,30,40", "--at", "1s", "--frame-rate", 5, "--frames", 2, video="frames")
    assert found["video"] == files.frames
    assert found["frames"] == {"indices": [0, 5], "times_s": [0.0, 1.0]}
    result = run("describe", files.frames, "--model", files.model, "--box", "5,5,30,40", "--at", "2s", "--json")
    assert "taken as 1 frame per second. Give --frame-rate." in result.stderr
    assert json.loads(result.stdout)["regions"][0]["frames"] == [2]


def test_an_animated_gif_is_a_video_and_a_still_one_a_picture(describe_video):
    moving = describe_video("--box", "5,5,30,40", "--at", 3, video="moving.gif")
    assert moving["frames"]["indices"] == list(range(10))
    assert "image" in describe_video("--box", "5,5,30,40", video="still.gif")


# -- describe, with a region source ------------------------------------------------------------------------


def test_track_follows_each_region_through_the_sampled_frames(describe_video, sam2):
    found = describe_video("--box", "5,5,30,40", "--points", "40,20", "--at", 4, "--track", "--frames", 3, *sam2())
    assert found["frames"]["indices"] == [0, 4, 9]
    alone = describe_video("--box", "5,5,30,40", "--frames", 3)["regions"][0]["tokens"]
    for region in found["regions"]:
        assert len(region["frames"]) >= 2
        assert set(region["frames"]) <= {0, 4, 9}
        assert 1 <= region["tokens"] <= 32 * len(region["frames"])
    assert found["regions"][0]["tokens"] != alone


def test_a_source_finds_masks_without_tracking(describe_video, describe, sam2, files, tmp_path):
    found = describe_video("--box", "5,5,30,40", "--at", 4, "--points", "9,9", "--source", "sam2", *sam2())
    assert [region["frames"] for region in found["regions"]] == [[4], [0]]
    overlays = [tmp_path / "box.png", tmp_path / "mask.png"]
    assert describe("--box", "10,20,60,90", "--save-overlay", overlays[0]).exit_code == 0
    result = describe("--box", "10,20,60,90", "--source", "sam2", *sam2(), "--save-overlay", overlays[1])
    assert result.exit_code == 0, result.output
    assert overlays[0].read_bytes() != overlays[1].read_bytes()


def test_source_options_are_json_or_text(run, files, no_model):
    command = ["describe", files.video__mp4, "--model", files.model, "--box", "1,1,9,9", "--track", "--source-option"]
    assert "Sam2Config.engine must be one of auto, sam2, transformers, got 7" in error_line(run(*command, "engine=7"))
    assert "got 'x=y'" in error_line(run(*command, "engine=x=y"))
    assert "Sam2Config.overrides must be a sequence of strings, got 'x'" in error_line(run(*command, "overrides=x"))
    result = run(*command, 'overrides=["++model.image_size=256"]', "--source-option", "engine=transformers")
    assert "takes no config_file or overrides" in error_line(result)


def test_an_object_that_is_nowhere_names_itself(run, files, sam2, no_model):
    command = ["describe", files.video__mp4, "--model", files.model, "--box", "1,1,9,9", "--points", "9,9", "--at", 3]
    line = error_line(run(*command, "--track", *sam2("blind")))
    assert "object 0: region source 'sam2' finds it nowhere on any sampled frame" in line
    assert "(Objects: 0: --box 1,1,9,9, 1: --points 9,9 --at 3.)" in line
    line = error_line(run(*command, "--source", "sam2", *sam2("blind")))
    assert "finds it nowhere on the image" in line
    assert "(Objects: 0: --box 1,1,9,9.)" in line


def test_sam2_that_is_not_installed(run, files, monkeypatch, no_model):
    monkeypatch.setitem(sys.modules, "sam2.build_sam", None)
    monkeypatch.setitem(sys.modules, "sam2", None)
    command = ["describe", files.video__mp4, "--model", files.model, "--box", "1,1,9,9", "--track"]
    line = error_line(run(*command, "--source-option", "engine=sam2"))
    assert "not installed: pip install 'pixelrefer-plugin[sam2]'" in line


# -- describe, overlays ------------------------------------------------------------------------------------


def test_the_overlay_of_a_picture(describe, tmp_path):
    found = json.loads(describe("--box", "10,20,60,90", "--json", "--save-overlay", tmp_path / "a.jpg").stdout)
    assert found["overlay"] == str(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as overlay:
        assert overlay.size == (200, 160)


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
def test_the_overlay_of_a_video_shows_the_sampled_frames(describe_video, tmp_path, suffix):
    target = tmp_path / f"a.{suffix}"
    found = describe_video("--box", "5,5,30,40", "--at", 4, "--frames", 3, "--save-overlay", target)
    assert found["overlay"] == str(target)
    frames = load_video(target).frames_nhwc.astype(int)
    assert [spread > 80 for spread in np.ptp(frames, axis=(1, 2, 3))] == [False, True, False]


def test_json_names_no_overlay_where_there_is_none(describe_video):
    assert "overlay" not in describe_video("--box", "5,5,30,40")


# -- describe, bad input about videos ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--box", "1,1,9,9", "--at", "10"], "--box 1,1,9,9 --at 10: the video has 10 frames, counted from 0"),
        (["--points", "9,9", "--box", "1,1,9,9", "--at", "-1"], "--box 1,1,9,9 --at -1: the video has 10 frames"),
        (["--points", "1,2", "--at", "1s"], "--points 1,2 --at 1s: No frame is on screen at 1.0 s: the video has 10"),
        (["--points", "1,2", "--at", "-1s"], "--points 1,2 --at -1s: No frame is on screen"),
        (["--points", "1,2", "--at", "nans"], "--points 1,2 --at nans: No frame is on screen"),
        (["--points", "1,2", "--at", "1.5"], "Invalid value for '--at': Expected a frame such as 12, or seconds"),
        (["--points", "1,2", "--at", "s"], "Expected a frame such as 12, or seconds such as 3.5s, got 's'"),
        (["--at", "3", "--points", "1,2"], "--at 3 follows no region of its own"),
        (["--points", "1,2", "--at", "3", "--at", "4"], "--at 4 follows no region of its own"),
        (["--points", "90,20", "--at", "3"], "--points 90,20 --at 3: The point reaches (90, 20), outside"),
        (["--box", "1,1,9,9", "--box", "1,1,99,9"], "--box 1,1,99,9: The box (1.0, 1.0, 99.0, 9.0) reaches (99, 9)"),
        (["--rle", '{"size": [2, 2], "counts": [1, 3]}', "--at", "2"], "width 2 and height 2 but its image is"),
        (["--box", "1,1,9,9", "--fps", "0"], "Invalid value for '--fps'"),
        (["--box", "1,1,9,9", "--fps", "nan"], "FrameSampling.fps must be a finite number > 0, got nan"),
        (["--box", "1,1,9,9", "--frames", "0"], "Invalid value for '--frames'"),
        (["--box", "1,1,9,9", "--frames", "4", "--fps", "2"], "--fps and --frames exclude each other"),
        (["--box", "1,1,9,9", "--frame-rate", "2"], "--frame-rate is for folders of frames"),
        (["--prompt", "what?", "--track"], "--track needs a region"),
        (["--prompt", "what?", "--source", "sam2"], "--source needs a region"),
        (["--prompt", "what?", "--save-overlay", "a.gif"], "--save-overlay needs a region"),
        (["--box", "1,1,9,9", "--source-option", "a=1"], "--source-option needs --source or --track"),
        (["--box", "1,1,9,9", "--track", "--source-option", "a"], "Expected key=value, got 'a'"),
        (["--box", "1,1,9,9", "--track", "--source-option", "a=1"], "Region source 'sam2' has no option 'a'"),
        (["--box", "1,1,9,9", "--source", "sam3"], "No region source is called 'sam3'. Did you mean 'sam2'?"),
        (["--box", "1,1,9,9", "--save-overlay", "a.png"], "a video is a file of type .mp4 or .gif, got 'a.png'"),
        (["--box", "1,1,9,9", "--save-overlay", "gone/a.mp4"], "there is no folder 'gone'"),
        (["--box", "1,1,9,9", "--prompt", "<region> <region>"], "The prompt has 2 <region> but 1 region was given"),
        ([], "Give a region (--box, --mask, --polygon, ...), or a --prompt"),
    ],
)  # fmt: skip
def test_bad_input_about_videos_is_found_before_the_model_is_loaded(run, files, no_model, arguments, message):
    assert message in error_line(run("describe", files.video__mp4, "--model", files.model, *arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "0"], "--at is for videos, but '{}' is a picture"),
        (["--track"], "--track is for videos, but '{}' is a picture"),
        (["--frames", "4"], "--frames is for videos, but '{}' is a picture"),
        (["--fps", "4"], "--fps is for videos, but '{}' is a picture"),
        (["--frame-rate", "4"], "--frame-rate is for videos, but '{}' is a picture"),
        (["--save-overlay", "a.mp4"], "a picture is a file of type .png or .jpg or .jpeg, got 'a.mp4'"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_options_for_videos_on_a_picture(run, files, no_model, arguments, message):
    path = files.astronaut__png
    result = run("describe", path, "--model", files.model, "--box", "1,1,9,9", *arguments)
    assert message.format(path) in error_line(result)


def test_an_overlay_never_replaces_what_is_read(run, files, no_model):
    picture, mask = Path(files.astronaut__png), Path(files.mask__png)
    before = picture.read_bytes(), mask.read_bytes()
    for target in (picture, mask):
        result = run("describe", picture, "--model", files.model, "--mask", mask, "--save-overlay", target)
        assert f"--save-overlay would replace '{target}', which is read" in error_line(result)
    assert (picture.read_bytes(), mask.read_bytes()) == before


def test_a_mask_of_another_size_names_itself(run, files, no_model):
    result = run("describe", files.video__mp4, "--model", files.model, "--mask", files.mask__png, "--at", 2)
    line = error_line(result)
    assert f"--mask {files.mask__png} --at 2: The mask is of width 200 and height 160 but its image is of" in line


# -- quickstart --------------------------------------------------------------------------------------------


def test_quickstart_passes_its_options_on(run, monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(quickstart_run, "run_quickstart", lambda options: seen.append(options))
    assert run("quickstart").exit_code == 0
    assert run(
        "quickstart", "--backbone", "qwen2_5_vl", "--adapter", "maskpool", "--from-scratch",
        "--steps", 7, "--seed", 3, "--out", tmp_path, "--overwrite",
    ).exit_code == 0  # fmt: skip
    assert seen == [
        quickstart_run.QuickstartOptions(),
        quickstart_run.QuickstartOptions(
            backbone="qwen2_5_vl",
            adapter="maskpool",
            from_scratch=True,
            steps=7,
            seed=3,
            out=tmp_path,
            overwrite=True,
        ),
    ]


def test_quickstart_says_which_extra_is_missing(run, monkeypatch):
    def fail(options):
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn.datasets")

    monkeypatch.setattr(quickstart_run, "run_quickstart", fail)
    assert "needs sklearn, which is missing: pip install 'pixelrefer-plugin[quickstart]'" in error_line(
        run("quickstart")
    )


def test_quickstart_hides_no_other_import_error(run, monkeypatch):
    def fail(options):
        raise ImportError("a bug of ours")

    monkeypatch.setattr(quickstart_run, "run_quickstart", fail)
    assert isinstance(run("quickstart").exception, ImportError)


def test_quickstart_bad_input_is_one_line(run, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    assert str(tmp_path) in error_line(run("quickstart", "--out", tmp_path))
    assert "No backbone is called 'vidollama3'. Did you mean 'videollama3'?" in error_line(
        run("quickstart", "--backbone", "vidollama3", "--out", tmp_path / "new")
    )
    assert (tmp_path / "mine.txt").read_text() == "precious"


def test_the_host_catches_only_its_own_errors(run, monkeypatch):
    def fail(**options):
        raise KeyError("a bug of ours")

    monkeypatch.setattr(cli.plugins, "callback", fail)
    assert isinstance(run("plugins").exception, KeyError)


# -- segment and chat --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """A model folder whose masks are seen: the real head on a tiny SAM 2."""
    folder = tmp_path_factory.mktemp("masks")
    backbone, native = get_backbone("videollama3").tiny(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        options = dict(get_adapter("unipixel").tiny)
        model, processor = attach(backbone, native, adapter="unipixel", adapter_config=options)
    with torch.no_grad():
        for name, parameter in model.adapter.named_parameters():
            if "pred_obj_score_head" in name and name.endswith("proj_out.bias"):
                parameter += 10.0
    model.save_pretrained(folder / "model", processor, include_backbone=True)
    model.detach()
    return folder / "model"


@pytest.fixture
def segment(run, files, masks, tmp_path):
    """Runs `pixelrefer segment` on the photograph, or on other media, with short answers."""
    return lambda *arguments, media="astronaut.png", out=tmp_path / "masks", model=masks: run(
        "segment", files.root / media, *arguments, "--model", model, "--out", out, "--max-new-tokens", 3
    )


@pytest.fixture
def chat(files, masks, monkeypatch):
    """Runs `pixelrefer chat` with lines on stdin."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def chat(*lines, media="astronaut.png", model=masks, options=()):
        arguments = [
            "chat",
            str(files.root / media),
            "--model",
            str(model),
            "--max-new-tokens",
            "3",
            *map(str, options),
        ]
        result = CliRunner().invoke(main, arguments, input="".join(f"{line}\n" for line in lines))
        assert result.exit_code == 0, result.output
        assert result.exception is None
        return result

    return chat


def test_describe_reads_clicks_boxes_and_masks(run, files, masks):
    given = ("--mask", files.mask__png, "--points", "30,40", "--box", "10,20,60,90", "--mask", files.mask__png)
    command = ("describe", files.astronaut__png, "--model", masks, "--max-new-tokens", 2, "--json", *given)
    found = json.loads(run(*command, "--prompt", "is <region> on <region>, <region> or <region>?").stdout)
    assert [region["tokens"] for region in found["regions"]] == [1, 1, 1, 1]
    assert len(found["answers"]) == 1
    one_by_one = json.loads(run(*command).stdout)
    assert len(one_by_one["answers"]) == 4
    assert one_by_one["answers"][0] == one_by_one["answers"][3]


def test_segment_writes_masks_a_memory_and_an_overlay(segment, tmp_path):
    result = segment("the astronaut", "--force-mask", "--overlay", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    out = tmp_path / "masks"
    saved = json.loads((out / "objects.json").read_text())
    assert saved["prompt"] == "Please segment the astronaut."
    assert saved["answer"].count("<seg>") == len(saved["objects"]) >= 1
    for each in saved["objects"]:
        with Image.open(out / f"object-{each['id']}.png") as mask:
            pixels = np.asarray(mask)
        assert (mask.mode, mask.size) == ("L", (200, 160))
        assert set(np.unique(pixels)) <= {0, 255}
        assert (pixels > 0).tolist() == Region.from_rle(each["rle"]).to_mask((160, 200)).dense().tolist()
        assert 0 <= each["score"] <= 1
        assert each["presence"]["0"] > 0.5
        assert f"object {each['id']}: score {each['score']:.2f}, {out}/object-{each['id']}.png" in result.stdout
    assert {path.name for path in out.iterdir()} == {
        "objects.json",
        *(f"object-{each['id']}.png" for each in saved["objects"]),
    }
    with Image.open(tmp_path / "a.png") as overlay:
        assert overlay.size == (200, 160)


def test_segment_writes_a_picture_for_each_frame(segment, tmp_path):
    arguments = ("<region>", "--box", "5,5,30,40", "--at", 4, "--frames", 3, "--force-mask", "--json")
    result = segment(*arguments, "--overlay", tmp_path / "a.gif", media="video.mp4")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["prompt"] == "Please segment <region>."
    assert found["overlay"] == str(tmp_path / "a.gif")
    frames = [0, 4, 9]
    for each in found["objects"]:
        assert sorted(map(int, each["presence"])) == frames
        assert each["masks"] == str(tmp_path / "masks" / f"object-{each['id']}")
        pictures = sorted(Path(each["masks"]).iterdir())
        assert [path.name for path in pictures] == [f"{frame:05d}.png" for frame in frames]
        with Image.open(pictures[1]) as mask:
            assert (mask.mode, mask.size) == ("L", (64, 48))
    assert len(load_video(tmp_path / "a.gif").frames_nhwc) == 3


def test_what_segment_wrote_is_a_memory_to_chat_about(segment, chat, tmp_path):
    assert segment("--points", "30,40", "--points", "60,70", "--force-mask").exit_code == 0
    objects = tmp_path / "masks" / "objects.json"
    assert json.loads(objects.read_text())["prompt"] == "Please segment <region> and <region>."
    result = chat("/objects", "what is [1]?", options=["--memory", objects])
    assert "[1]: mask of " in result.stdout
    assert result.stderr == ""


def test_segment_asks_one_question_of_each_region(segment, tmp_path, monkeypatch):
    asked = []
    real = Chat.ask

    def ask(self, text, regions, **options):
        asked.append((text, len(regions)))
        return real(self, text, regions, **options)

    monkeypatch.setattr(Chat, "ask", ask)
    arguments = ("all of <region>", "--points", "30,40", "--box", "60,70,90,99", "--force-mask", "--json")
    found = json.loads(segment(*arguments).stdout)
    assert asked == [("Please segment all of <region>.", 1)] * 2
    assert len(found["answers"]) == 2
    assert found["answer"] == "\n".join(found["answers"])
    assert [each["id"] for each in found["objects"]] == list(range(1, 1 + found["answer"].count("<seg>")))
    saved = json.loads((tmp_path / "masks" / "objects.json").read_text())
    assert saved["answers"] == found["answers"]
    printed = segment(*arguments[:-1], out=tmp_path / "again").stdout
    assert "points 30,40\n" in printed
    assert "box 60,70,90,99\n" in printed


def test_segment_without_a_mask_writes_nothing(segment, tmp_path):
    result = segment("the astronaut")
    line = error_line(result, exit_code=1)
    assert "The answer gives no mask, so nothing is written" in line
    assert "give --force-mask" in line
    assert not (tmp_path / "masks").exists()


def test_segment_of_what_is_seen_nowhere_writes_nothing(segment, tmp_path, monkeypatch):
    nowhere = SegmentedObject(None, None, score=0.0, presence={0: 0.1})
    monkeypatch.setattr(Chat, "ask", lambda *args, **options: Reply("none <seg>", (nowhere,)))
    line = error_line(segment("the astronaut", "--force-mask", "--overlay", tmp_path / "a.png"), exit_code=1)
    assert "The answer's objects are seen nowhere, so nothing is written: 'none <seg>'. Ask otherwise." in line
    assert list(tmp_path.iterdir()) == []


def test_segment_replaces_its_own_results_only(segment, tmp_path):
    out = tmp_path / "masks"
    out.mkdir()
    assert segment("it", "--force-mask").exit_code == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert f"--out '{out}' is not empty" in error_line(segment("it", "--force-mask"))
    assert segment("--prompt", "segment it again", "--force-mask", "--overwrite").exit_code == 0
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    assert after["objects.json"] != before["objects.json"]
    (out / "notes.txt").touch()
    assert "holds 'notes.txt', which is not this command's" in error_line(segment("it", "--force-mask", "--overwrite"))
    (out / "notes.txt").unlink()
    (out / "objects.json").unlink()
    assert "are not this command's" in error_line(segment("it", "--force-mask", "--overwrite"))
    assert (out / "object-1.png").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masks"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Say what to segment: a TEXT such as 'the tallest giraffe', a --prompt, or a region"),
        ([" "], "Say what to segment: a TEXT such as 'the tallest giraffe', a --prompt, or a region"),
        (["it", "--prompt", "segment it"], "TEXT and --prompt exclude each other"),
        (["it", "--box", "1,1,9,9"], "The prompt has 0 <region> but 1 region was given"),
        (["<region>"], "The prompt has 1 <region> but 0 regions were given"),
        (["the <seg>"], "The prompt holds <seg>, which stands for a mask in an answer."),
        (["[2]"], "[2] calls an object, but none has a number yet. Where the number itself is meant, write [ 2 ]."),
        (["[1] <region> by [2]", "--box", "1,1,9,9"], "[2] calls an object, but none has a number yet."),
        (["<region>", "--box", "1,1,900,9"], "--box 1,1,900,9: The box (1.0, 1.0, 900.0, 9.0) reaches (900, 9)"),
        (["it", "--overlay", "a.mp4"], "An overlay of a picture is a file of type .png or .jpg or .jpeg, got 'a.mp4'"),
        (["it", "--frames", "3"], "--frames is for videos"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_input_of_segment_is_found_before_the_model_is_loaded(segment, no_model, tmp_path, arguments, message):
    assert message in error_line(segment(*arguments))
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"out": "/proc/nowhere/masks"}, "'/proc/nowhere/masks' cannot be written: No such file or directory."),
        ({"out": "file/masks"}, "file/masks' cannot be written: Not a directory."),
        ({"out": "file"}, "file' cannot be written: it is a file. Name a folder."),
        ({"overlay": "gone/a.png"}, "gone/a.png' cannot be written: there is no folder '"),
        ({"overlay": "folder.png"}, "folder.png' cannot be written: it is a folder."),
        ({"overlay": "/proc/a.png"}, "'/proc/a.png' cannot be written: No such file or directory."),
    ],
    ids=lambda value: "" if isinstance(value, str) else " ".join(*value.items()),
)  # fmt: skip
def test_what_cannot_be_written_is_found_before_the_model_is_loaded(
    run, files, segment, no_model, tmp_path, where, message
):
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    before = sorted(tmp_path.iterdir())
    if "out" in where:
        assert message in error_line(segment("it", out=tmp_path / where["out"]))
    else:
        path = tmp_path / where["overlay"]
        assert message in error_line(segment("it", "--overlay", path))
        arguments = ("--model", files.model, "--box", "1,1,9,9", "--track", "--save-overlay", path.with_suffix(".gif"))
        path.with_suffix(".gif").mkdir() if path.is_dir() else None
        assert "cannot be written" in error_line(run("describe", files.video__mp4, *arguments))
    assert sorted(each for each in tmp_path.iterdir() if each.suffix != ".gif") == before


def test_segment_may_number_its_regions(segment, tmp_path):
    arguments = ("[3] <region> in row [ 2 ], not [3]", "--points", "30,40", "--force-mask")
    assert segment(*arguments).exit_code == 0
    saved = json.loads((tmp_path / "masks" / "objects.json").read_text())
    assert saved["prompt"] == "Please segment [3] <region> in row [ 2 ], not [3]."


def test_segment_makes_the_folders_above_its_own(segment, tmp_path):
    assert segment("it", "--force-mask", out=tmp_path / "new" / "still new" / "masks").exit_code == 0
    assert (tmp_path / "new" / "still new" / "masks" / "objects.json").is_file()


def test_segment_and_its_media(segment, files, no_model):
    picture = Path(files.astronaut__png)
    assert f"--out: '{picture}' cannot be written: it is a file. Name a folder." in error_line(
        segment("it", out=picture)
    )
    assert f"--overlay would replace '{picture}', which is read" in error_line(segment("it", "--overlay", picture))
    assert "No such file" in error_line(segment("it", media="gone.png"))


def test_segment_needs_a_model_that_gives_masks(segment, files, no_model):
    line = error_line(segment("it", model=files.model))
    assert f"'{files.model}' gives no masks: its adapter 'saot' has no mask head" in line
    assert "its adapter 'maskpool' has no mask head" in error_line(
        segment("it", "--adapter", "maskpool", model=files.plain)
    )


def test_a_chat_goes_through_its_objects(chat, files, tmp_path):
    result = chat(
        "/objects",
        "/click 80 100 the car",
        "/box 10,20,60,90",
        f"/mask '{files.mask__png}' \"a mask\"",
        "is [1] [2] or [3]?",
        "/segment [1]",
        "/rename 2 box",
        "/rename 1",
        "/drop [3]",
        "/objects",
        f"/draw {tmp_path / 'a.png'}",
        f"/save '{tmp_path / 'saved.json'}'",
        "/drop 1",
        f"/load {tmp_path / 'saved.json'}",
        "",
        "/help",
        "/quit",
        "never asked",
        options=["--force-mask"],
    )
    assert result.stderr == ""
    out = result.stdout
    assert out.startswith("No objects yet. /click, /box, /mask and /segment make some.\n")
    assert "[1] the car: click at 80, 100\n[2]: box 10, 20, 60, 90\n[3] a mask: mask of 4200 pixels\n" in out
    assert "<seg>" in out
    assert "[4]: mask of " in out
    assert ", score 0." in out
    assert "[2] box: box 10, 20, 60, 90\n[1]: click at 80, 100\nDropped [3].\n" in out
    assert out.count("[1]: click at 80, 100\n[2] box: box 10, 20, 60, 90\n[4]: mask of ") == 2
    dropped = "Dropped [1].\n[1]: click at 80, 100\n"
    assert f"Drawn: {tmp_path / 'a.png'}\nSaved 3 objects: {tmp_path / 'saved.json'}\n{dropped}" in out
    assert "/undo                              forget the last question" in out
    with Image.open(tmp_path / "a.png") as drawn:
        assert drawn.size == (200, 160)


def test_a_chat_can_take_back(chat):
    result = chat("/segment it", "/objects", "/undo", "/objects", "/undo", options=["--force-mask"])
    assert "[1]: mask of" in result.stdout
    assert result.stdout.endswith(
        "Forgotten: Please segment it.\nNo objects yet. /click, /box, /mask and /segment make some.\n"
    )
    assert result.stderr == "Error: There is no question to undo.\n"


def test_a_chat_takes_back_objects_one_change_after_the_other(chat):
    lines = ("/click 9 9 car", "/rename 1 bus", "what is [1]?", "/drop 1", "/click 5 5", "/clear all")
    result = chat(*lines, *["/undo"] * 7)
    before, *taken = result.stdout.partition("Forgotten: all that was said, and all objects.\n")[2].split(
        "Taken back.\n"
    )
    none = "No objects yet. /click, /box, /mask and /segment make some.\n"
    bus, car = "[1] bus: click at 9, 9\n", "[1] car: click at 9, 9\n"
    assert (before, taken) == ("", ["[1]: click at 5, 5\n", none, bus, car, none])
    assert result.stderr == "Error: There is no question to undo.\n" * 2


def test_undo_goes_through_questions_and_objects_in_order(chat):
    result = chat("/click 9 9", "what is [1]?", "/box 1 1 9 9", "/undo", "/undo", "/undo", "/clear")
    assert result.stdout.endswith(
        "Taken back.\n[1]: click at 9, 9\nForgotten: what is [1]?\n"
        "Taken back.\nNo objects yet. /click, /box, /mask and /segment make some.\nForgotten: all that was said.\n"
    )
    assert result.stderr == ""


def test_a_chat_takes_several_clicks_polygons_and_scribbles(chat):
    result = chat(
        "/click 80 100; 90,110 the car",
        "/click 7 7 [1]",
        '/polygon 10 10, 90 20; 40 80 "2 roofs"',
        "/scribble 5,5 60,70 100,30 line",
        "/click 9 9 [2]",
        "/box 1 1 9 9 [1]",
        "/click 1 1 [9]",
        "/polygon 1 1 2 2",
        "/polygon 1 1 2 2 3",
        "/scribble",
        "/click 1 1 a; 2 2",
        "/clear objects",
        "/objects",
    )
    listed = result.stdout[result.stdout.rindex("[1]") :].splitlines()
    assert listed[0] == "[1] the car: click at 80, 100; 90, 110; 7, 7"
    assert [line.partition(":")[0] for line in listed[1:]] == ["[2] 2 roofs", "[3] line"]
    for line, message in zip(
        result.stderr.splitlines(),
        (
            "Object 2 has a polygon already, and only clicks are added to clicks. /drop 2 forgets it.",
            "Object 1 has a click already, and only clicks are added to clicks.",
            "The memory has no object 9.",
            "Expected /polygon X Y X Y X Y [NAME] [@FRAME], got '1 1 2 2'.",
            "Expected /polygon X Y X Y X Y [NAME] [@FRAME], got '1 1 2 2 3'.",
            "Expected /scribble X Y X Y [NAME] [@FRAME], got ''.",
            "Expected /click X Y; X Y [NAME] [@FRAME], got '1 1 a; 2 2'.",
            "Expected /clear, or /clear all to forget the objects too, got 'objects'.",
        ),
        strict=True,
    ):
        assert message in line


def test_an_object_of_a_chat_lies_on_several_frames(chat, tmp_path):
    (tmp_path / "masks").mkdir()
    for frame, grey in ((2, 255), (3, 0), (7, 255)):
        Image.new("L", (64, 48), grey).save(tmp_path / "masks" / f"{frame:05d}.png")
    result = chat(
        "/box 5 5 30 40 ball @1",
        "/click 9 9 [1] @6",
        "/click 12 12 [1] @6",
        f"/mask {tmp_path / 'masks'} masks",
        "what do [1] and [2] do?",
        "/undo",
        "/undo",
        "/undo",
        "/objects",
        f"/mask {tmp_path / 'masks'} @2",
        media="video.mp4",
        options=["--frames", 2],
    )
    assert "[1] ball: box 5, 5, 30, 40 on 2 frames, the first of them 1\n" in result.stdout
    assert "[2] masks: mask of 3072 pixels on 2 frames, the first of them 2\n" in result.stdout
    assert result.stdout.endswith("[1] ball: box 5, 5, 30, 40 on 2 frames, the first of them 1\n")
    assert result.stderr.startswith("Error: The names of masks in a folder say on which frames they lie: leave @FRAME")


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_the_help_of_a_chat_fits_its_terminal(chat, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = chat("/help").stdout.splitlines()
    assert max(map(len, lines)) <= columns
    assert {line.split()[0] for line in lines if line.startswith("  /")} >= {"/click", "/polygon", "/undo", "/clear,"}


def test_an_empty_answer_says_so(describe, segment, chat, files, monkeypatch):
    monkeypatch.setattr(RegionProcessor, "decode", lambda *args: [" "])
    monkeypatch.setattr("transformers.PreTrainedTokenizerBase.decode", lambda *args, **options: "")
    assert describe("--box", "1,1,9,9").stdout == "(empty answer)\n"
    assert json.loads(describe("--box", "1,1,9,9", "--json").stdout)["answers"] == [" "]
    assert chat("what?", model=files.model).stdout == "(empty answer)\n"
    monkeypatch.setattr(Chat, "ask", lambda *args, **options: Reply("", ()))
    assert "nothing is written: (empty answer). Ask otherwise" in error_line(segment("it"), exit_code=1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("what is [7]?", "The memory has no object 7. Its objects: none."),
        ("what is <region>?", "Call an object by its number, such as [1]."),
        ("what is <seg>?", "stands for a mask in an assistant's answer"),
        ("/clack 1 2", "There is no command /clack. /help lists the commands."),
        ("/click 80", "Expected /click X Y [NAME] [@FRAME], got '80'."),
        ("/click a b", "Expected /click X Y [NAME] [@FRAME], got 'a b'."),
        ("/click nan 3", "Points must be finite numbers"),
        ("/click 900 3", "The point reaches (900, 3), outside"),
        ("/click 9 3 car @4", "This is a picture: it has no frames."),
        ("/box 10 20 5 90", "A box must have x1 < x2 and y1 < y2"),
        ("/box 10 20 30", "Expected /box X1 Y1 X2 Y2 [NAME] [@FRAME], got '10 20 30'."),
        ("/mask", "Expected /mask FILE.png [NAME] [@FRAME]."),
        ("/mask gone.png", "Mask 'gone.png' cannot be read"),
        ("/mask 'gone.png", "cannot be read: No closing quotation. Quotes come in pairs."),
        ("/segment", "Say what to segment: /segment the tallest giraffe."),
        ("/rename 3 cat", "The memory has no object 3"),
        ("/drop cat", "Expected the number of an object, got 'cat'. /objects lists them."),
        ("/draw a.mp4", "An overlay of a picture is a file of type"),
        ("/save", "Expected /save FILE.json, got ''."),
        ("/save notes.txt", "Objects are saved in a file of type .json, got 'notes.txt'."),
        ("/load gone.json", "Memory 'gone.json' cannot be read: No such file or directory."),
    ],
)
def test_what_goes_wrong_is_said_and_the_chat_goes_on(chat, line, message):
    result = chat(line, "/objects")
    (error,) = result.stderr.splitlines()
    assert error.startswith("Error: ")
    assert message in error
    assert result.stdout == "No objects yet. /click, /box, /mask and /segment make some.\n"


def test_paths_in_a_chat_may_begin_at_home(chat, files, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(files.root))
    result = chat("/mask ~/mask.png", "/save ~/home.json", "/load ~/home.json", "/draw ~/home.png")
    assert result.stderr == ""
    assert {"home.json", "home.png"} <= {path.name for path in files.root.iterdir()}


def test_a_chat_takes_lines_of_any_encoding(files, masks):
    command = ["chat", files.astronaut__png, "--model", str(masks), "--max-new-tokens", "3"]
    result = CliRunner().invoke(main, command, input=b"/click 9 9 caf\xe9\nwhat is caf\xe9?\n/objects\n")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("[1] caf\ufffd: click at 9, 9\n")
    assert result.stdout.endswith("[1] caf\ufffd: click at 9, 9\n")
    assert result.stderr == ""


def test_what_a_terminal_would_obey_is_not_printed(chat, run, files, masks, tmp_path):
    saved = tmp_path / "saved.json"
    chat("/click 9 9 name", f"/save {saved}")
    saved.write_text(saved.read_text().replace(': "name"', ': "\\u001b]0;a\\u0007b\\nc\\udcff"'))
    lines = ("/objects", "/\x1b]0;d\x07", "/draw \x1b]0;d\x07", "/rename 1 'a \x1b]0;name'")
    result = chat(*lines, options=["--memory", saved])
    assert result.stdout == "[1]  ]0;a b c : click at 9, 9\n[1] a  ]0;name: click at 9, 9\n"
    assert len(result.stderr.splitlines()) == 2
    assert not set("\x1b\x07") & set(result.output)
    assert "\x1b" not in error_line(run("chat", tmp_path / "\x1b]0;gone.png", "--model", masks))


def test_json_is_utf8_whatever_a_file_is_called(run, files, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9 \xe6\xbc\xa2.png")
    path.write_bytes(Path(files.astronaut__png).read_bytes())
    result = run("describe", path, "--model", files.model, "--max-new-tokens", 2, "--json", "--box", "1,1,9,9")
    assert json.loads(result.stdout_bytes.decode())["image"] == str(path)
    assert "漢" in result.stdout


class Typist:
    """Someone at a terminal: types lines, and presses keys."""

    def __init__(self, *typed):
        self._typed = iter(typed)

    def isatty(self):
        return True

    def __call__(self, prompt):
        typed = next(self._typed, EOFError)
        if isinstance(typed, str):
            return typed
        raise typed


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


def test_ctrl_c_stops_an_answer_and_not_the_chat(files, masks, monkeypatch, capsys):
    typist = Typist("/click 9 9", "what is [1]?", KeyboardInterrupt, "/objects")
    monkeypatch.setattr(sys, "stdin", typist)
    monkeypatch.setattr("builtins.input", typist)
    monkeypatch.setattr(Chat, "ask", interrupted)
    main(["chat", files.astronaut__png, "--model", str(masks)], standalone_mode=False)
    out, err = capsys.readouterr()
    assert out == (
        "Ask about it. /help lists the commands, /quit ends.\n[1]: click at 9, 9\n\n/quit or Ctrl-D ends.\n"
        "[1]: click at 9, 9\n\n"
    )
    assert err.endswith("\nStopped; nothing of it is remembered.\n")


def test_ctrl_c_ends_what_reads_a_pipe(files, masks, monkeypatch):
    monkeypatch.setattr(Chat, "ask", interrupted)
    lines = "/click 9 9\nwhat is [1]?\n/objects\n"
    result = CliRunner().invoke(main, ["chat", files.astronaut__png, "--model", str(masks)], input=lines)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "[1]: click at 9, 9\n", "\nStopped.\n")


def test_a_chat_never_replaces_what_it_is_about(chat, files):
    before = Path(files.astronaut__png).read_bytes()
    result = chat(f"/draw {files.astronaut__png}", f"/save {files.astronaut__png}")
    assert result.stderr.count("is what the chat is about, and is not replaced") == 2
    assert Path(files.astronaut__png).read_bytes() == before


def test_a_chat_about_a_video(chat, tmp_path):
    result = chat(
        "/click 20 30 @9",
        "/box 5 5 30 40 ball @0.85s",
        "/click 9 9",
        "/click 9 9 @5",
        "what do [1] and [2] do?",
        "/segment [1]",
        "/click 9 9 @3",
        "/segment [4]",
        f"/draw {tmp_path / 'a.gif'}",
        media="video.mp4",
        options=["--frames", 3, "--force-mask"],
    )
    assert result.stderr == ""
    added = (
        "[1]: click at 20, 30 on frame 9\n[2] ball: box 5, 5, 30, 40 on frame 8\n[3]: click at 9, 9 on frame 0\n"
        "[4]: click at 9, 9 on frame 5\n"
    )
    assert result.stdout.startswith(added)
    assert " on 4 frames, the first of them 0" in result.stdout
    assert "click at 9, 9 on frame 3\n" in result.stdout
    assert " on 5 frames, the first of them 0" in result.stdout
    assert len(load_video(tmp_path / "a.gif").frames_nhwc) == 5


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/click 9 9 @10", "video.mp4' has 10 frames, counted from 0: there is no frame 10."),
        ("/click 9 9 @x", "Expected a frame such as @12, or seconds such as @3.5s, got '@x'"),
        ("/click 9 9 @9s", "No frame is on screen at 9.0 s: the video has 10 frames, from 0 to 1.000 s."),
        ("/click 900 9 @5", "The point reaches (900, 9), outside"),
        ("/draw a.png", "An overlay of a video is a file of type .mp4 or .gif, got 'a.png'."),
    ],
)
def test_what_a_chat_about_a_video_refuses(chat, line, message):
    result = chat(line, "/objects", media="video.mp4")
    (error,) = result.stderr.splitlines()
    assert message in error
    assert result.stdout == "No objects yet. /click, /box, /mask and /segment make some.\n"


def test_a_chat_about_a_folder_warns_once(chat):
    result = chat("/click 9 9 @5", "/click 9 9 @4.5s", media="frames", options=["--frames", 3])
    assert result.stdout == "[1]: click at 9, 9 on frame 5\n[2]: click at 9, 9 on frame 4\n"
    assert result.stderr.count("says nothing about time") == 1


def test_a_saved_memory_brings_its_frames(chat, tmp_path):
    saved = tmp_path / "saved.json"
    chat("/click 20 30 car @5", f"/save {saved}", media="video.mp4")
    result = chat("/objects", "what is [1]?", media="video.mp4", options=["--frames", 3, "--memory", saved])
    assert result.stdout.startswith("[1] car: click at 20, 30 on frame 5\n")
    assert result.stderr == ""
    result = chat("/click 9 9", "what is [1]?", f"/load {saved}", media="video.mp4", options=["--frames", 3])
    assert result.stdout.endswith("[1] car: click at 20, 30 on frame 5\n")
    assert result.stderr == ""


def test_a_memory_of_other_media_is_found_before_the_model_is_loaded(run, chat, files, masks, tmp_path, request):
    saved = tmp_path / "saved.json"
    chat("/click 20 30 @9", f"/save {saved}", media="video.mp4")
    request.getfixturevalue("no_model")
    shorter = write_video(tmp_path / "shorter.mp4", 5, fps=10)
    for media, message in (
        (shorter, "it was made for a video of 10 frames, got one of 5. Is it another video?"),
        (write_video(tmp_path / "large.mp4", grey_frames(10, hw=(64, 96)), fps=10), "Is it another video?"),
        (files.astronaut__png, "it was made for a video, got an image."),
    ):
        assert message in error_line(run("chat", media, "--model", masks, "--memory", saved))
    assert "cannot be read: No such file" in error_line(
        run("chat", shorter, "--model", masks, "--memory", tmp_path / "gone.json")
    )


def test_more_frames_than_are_sampled_at_most_are_asked_for(run, files, masks, tmp_path, no_model):
    long = write_video(tmp_path / "long.mp4", 140, fps=10)
    memory = ObjectMemory(load_video(long, frames=range(130), sampling=FrameSampling(max_frames=130)))
    memory.add({frame: Region.from_box((1, 1, 9, 9)) for frame in range(130)})
    memory.save(tmp_path / "saved.json")
    command = ("chat", long, "--model", masks, "--memory", tmp_path / "saved.json")
    line = error_line(run(*command))
    assert line == f"Error: 130 frames of '{long}' are named, but 128 are sampled at most. Give --frames 130."
    with pytest.raises(pytest.fail.Exception, match="the model is loaded"):
        run(*command, "--frames", 130)


@pytest.mark.parametrize("options", [(), ("--list-objects",)], ids=["where called", "listed"])
def test_a_chat_with_a_model_that_gives_no_masks(chat, files, options):
    result = chat("/click 80 100 car", "what is [1]?", "/segment it", model=files.model, options=options)
    assert result.stdout.startswith("[1] car: click at 80, 100\n")
    assert result.stderr == "Error: This model gives no masks: its adapter has no mask head.\n"
