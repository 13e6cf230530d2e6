"""What people and programs give the command line by mistake: each value of each option is refused by name, in one line,
before a model is loaded."""

import json
import os
import re
import subprocess
import sys

import click
import huggingface_hub.constants
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelrefer_plugin import Chat, attach, get_backbone
from pixelrefer_plugin.chat import Reply
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.cli.asking import LoadedModel
from pixelrefer_plugin.cli.typed import help_of
from pixelrefer_plugin.errors import PixelReferError

LONG = "a" * 10**6
REACHED = "all of it was taken, and the work would begin"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sound files that a command can be given, and what is none: a folder, a pipe."""
    made = tmp_path_factory.mktemp("faults")
    Image.new("RGB", (120, 80), "white").save(made / "a.png")
    mask = np.zeros((80, 120), dtype=np.uint8)
    mask[10:40, 10:50] = 255
    Image.fromarray(mask).save(made / "mask.png")
    turns = [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "It."}]
    sample = {"id": "1", "image": "a.png", "regions": [{"box": [1, 1, 9, 9]}], "messages": turns}
    (made / "train.jsonl").write_text(json.dumps(sample) + "\n")
    config = f"model: {{backbone: {made}, adapter: saot}}\ndata: {{train: {made}/train.jsonl}}\n"
    (made / "train.yaml").write_text(config)
    (made / "answers.jsonl").write_text(json.dumps({"id": "1", "question": "What is <region>?", "given": "It."}) + "\n")
    axes = "{adapter: {saot: {model.adapter: saot}}}"
    (made / "grid.yaml").write_text(f"base: {made}/train.yaml\nout: {made}/ablation\naxes: {axes}\n")
    (made / "frames").mkdir()
    for index in range(3):
        Image.new("RGB", (64, 48), (index * 80,) * 3).save(made / "frames" / f"{index}.png")
    backbone, native = get_backbone("videollama3").tiny(0)
    model, processor = attach(backbone, native, adapter="saot")
    model.save_pretrained(made / "model", processor, include_backbone=True)
    model.detach()
    (made / "folder").mkdir()
    os.mkfifo(made / "pipe")
    return made


@pytest.fixture
def run(monkeypatch, folder, tmp_path):
    """Runs a command in an empty folder, off-line, to where work would begin."""

    def reached(*args, **options):
        raise PixelReferError(REACHED)

    monkeypatch.setattr("pixelrefer_plugin.training.yaml_file._MOST_WAIT_S", 0.1)  # for a recipe from a pipe

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    for place in ("entry.load", "training.run.run_training", "official.import_official"):
        monkeypatch.setattr(f"pixelrefer_plugin.{place}", reached)
    monkeypatch.setattr("pixelrefer_plugin.quickstart.run.run_quickstart", reached)
    monkeypatch.setattr(LoadedModel, "open", reached)
    return lambda *arguments, **options: CliRunner().invoke(main, [str(each) for each in arguments], **options)


def sound(command, folder, tmp_path):
    """What a command needs: its arguments by name, and its options."""
    picture, model, data = folder / "a.png", ("--model", folder / "model"), folder / "train.jsonl"
    return {
        "plugins": ({}, ()),
        "samples": ({"folder": tmp_path / "samples"}, ()),
        "describe": ({"path": picture}, (*model, "--box", "1,1,9,9")),
        "segment": ({"path": picture, "text": "it"}, (*model, "--out", tmp_path / "out")),
        "chat": ({"path": folder / "frames"}, model),
        "quickstart": ({}, ()),
        "train": ({"config": folder / "train.yaml", "settings": "run.out=x"}, ()),
        "merge": ({"folder": folder / "model", "out": tmp_path / "out"}, ()),
        "import-official": ({"src": folder / "model", "out": tmp_path / "out"}, ()),
        "validate": ({"files": data}, ()),
        "convert": ({"source": data, "out": tmp_path / "out.jsonl"}, ()),
        "preview": ({"path": data}, ("--out", tmp_path / "sheet.png")),
        "predict": ({"model": folder / "model", "files": data}, ("--out", tmp_path / "answers.jsonl")),
        "evaluate": ({"model": folder / "model", "benchmarks": data}, ("--out", tmp_path / "scores")),
        "score": ({"benchmark": data, "answers": folder / "answers.jsonl"}, ()),
        "benchmarks": ({"name": ""}, ()),
        "ablate": ({"grid": folder / "grid.yaml", "settings": "seeds=[0]"}, ("--dry-run",)),
    }[command]


MAY_SUCCEED = {"validate", "preview", "convert", "plugins", "samples", "score", "ablate"}  # they load no model
PARAMETERS = [
    (name, parameter.name)
    for name, command in sorted(main.commands.items())
    for parameter in command.params
    if not getattr(parameter, "is_flag", False) and not getattr(parameter, "count", False)
]


def bad_values(folder, picture):
    return {
        "empty": "",
        "blank": " ",
        "not a number": "nan",
        "infinite": "inf",
        "too large": "1e400",
        "negative": "-1",
        "huge": "9" * 5000,
        "long": LONG,
        "long words": "word " * 200_000,
        "NUL": "a\0b",
        "no UTF-8": "a\udcffb",
        "terminal": "\x1b]0;a\x07",
        "lines": "a\nb\rc",
        "folder": str(folder / "folder"),
        "pipe": str(folder / "pipe"),
        "device": "/dev/null",
        "missing": str(folder / "missing.png"),
        "below a file": str(picture / "b"),
        "deep JSON": "a=" + "[" * 100_000,
        "digits": "a=" + "9" * 5000,
        "no value": "=",
        "pairs": "1,2;3",
        "address": "https://example.org/a.png",
        "picture": str(picture),
    }


@pytest.mark.parametrize(("command", "parameter"), PARAMETERS, ids=lambda value: value)
def test_any_value_of_any_option_is_taken_or_refused_in_a_short_line(run, folder, tmp_path, command, parameter):
    arguments, options = sound(command, folder, tmp_path)
    (option,) = (each for each in main.commands[command].params if each.name == parameter)
    picture = tmp_path / "other.png"  # which some commands may replace
    picture.write_bytes((folder / "a.png").read_bytes())
    for kind, value in bad_values(folder, picture).items():
        changed = {**arguments, parameter: value} if isinstance(option, click.Argument) else arguments
        extra = () if isinstance(option, click.Argument) else (f"{option.opts[0]}={value}",)
        if option.opts[0] == "-n":
            extra = ("-n", value)
        result = run(command, *options, *extra, "--", *changed.values(), input="")
        told = f"{command} {parameter}, {kind}: {result.exit_code} {result.stderr[-3000:]!r} {result.exception!r}"
        assert isinstance(result.exception, SystemExit | None), told
        assert result.exit_code in ((0, 1, 2) if command in MAY_SUCCEED else (2,)), told
        errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
        assert bool(errors) == (result.exit_code == 2), told
        assert all(len(line) < 2200 for line in result.stderr.splitlines()), told
        assert not set("\x1b\x07\0") & set(result.stderr), told
    assert not (folder / "folder" / "x").exists()


# -- what is given, and is not what it seems ---------------------------------------------------------------


def told(result):
    """What a command says that is refused."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    return [line.removeprefix("Error: ") for line in result.stderr.splitlines() if line.startswith("Error: ")]


@pytest.fixture
def refused(run, folder):
    """What `pixelrefer describe` says of a picture, or of another path, and options."""
    return lambda *options, media="a.png": told(run("describe", folder / media, "--model", folder / "model", *options))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("file://{}/my%20photo.png", "is an address. Write the path alone: '{}/my photo.png'."),
        ("file://localhost{}/a.png", "is an address. Write the path alone: '{}/a.png'."),
        ("https://example.org/a.png", "is an address, and nothing is downloaded. Download it first"),
        ("S3://bucket/a.png", "is an address, and nothing is downloaded. Download it first"),
        ("{}/my%20photo.png", "%20 and the like are escapes of addresses. There is '{}/my photo.png'."),
        ("{}\\folder", "a backslash parts no folders here. There is '{}/folder'."),
        ("{}/my\\ photo.png", "backslashes before blanks are a shell's. There is '{}/my photo.png'."),
        ("'{}/a.png'", "blanks or quotes stand around it. There is '{}/a.png'."),
        ("{}/a.png ", "blanks or quotes stand around it. There is '{}/a.png'."),
        ("{}/cafe\u0301.png", "its letters are composed otherwise. There is '{}/caf\u00e9.png'."),
    ],
)
@pytest.mark.parametrize("option", ["IMAGE|VIDEO", "--mask", "--rle"])
def test_a_path_that_is_written_otherwise_is_named_as_what_it_is(run, folder, option, written, message):
    for name in ("my photo.png", "caf\u00e9.png"):
        (folder / name).write_bytes((folder / "a.png").read_bytes())
    path = written.replace("{}", str(folder))
    given = (path, "--box", "1,1,9,9") if option == "IMAGE|VIDEO" else (folder / "a.png", option, path)
    (line,) = told(run("describe", *given, "--model", folder / "model"))
    assert line.startswith(f"Invalid value for '{option}': ")
    assert message.replace("{}", str(folder)) in line


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("https://huggingface.co/OWNER/NAME", "is an address. Write the id alone: OWNER/NAME."),
        ("https://hf.co/OWNER/NAME/", "is an address. Write the id alone: OWNER/NAME."),
        ("http://example.org/model", "is an address, and nothing is downloaded."),
        ("file:///models/mine", "is an address. Write the path alone: '/models/mine'."),
        ("a.png", "is a file, expected the folder of a model, or an id such as OWNER/NAME."),
    ],
)
def test_a_model_that_is_an_address_or_a_file(run, folder, model, message):
    model = folder / model if model == "a.png" else model
    (line,) = told(run("chat", folder / "a.png", "--model", model))
    assert message in line


def test_what_is_missing_is_not_said_to_be_a_video(refused):
    (line,) = refused("--box", "1,1,9,9", media="gone")
    assert line.endswith("gone' does not exist. Expected a picture, a video, or a folder of its frames.")


def test_all_wrong_values_are_told_at_once(refused, folder):
    lines = refused("--box", "1,2", "--points", "x", "--at", "soon", "--frames", "0", "--mask", folder / "none.png")
    assert [line.split(":")[0] for line in lines] == [
        f"Invalid value for '{option}'" for option in ("--box", "--points", "--at", "--frames", "--mask")
    ]
    boxes = ("--box", "1,1,9,9", "--box", "9,1,1,9", "--box", "1,1,1,9")
    assert [line.partition(": ")[2][:30] for line in refused(*boxes)] == [
        "A box must have x1 < x2 and y1",
        "A box must have an area, got (",
    ]


def test_all_that_does_not_fit_is_told_at_once(refused):
    lines = refused(
        "--box", "1,1,900,9", "--points", "5,5", "--box", "-5,1,9,9", "--rle", '{"size":[2,2],"counts":[1,3]}'
    )
    assert [line.split(":")[0] for line in lines] == [
        "--box 1,1,900,9",
        "--box -5,1,9,9",
        '--rle {"size"',
    ]
    assert lines[0].endswith("--clip cuts off what lies outside.")
    assert "--clip" not in lines[2]
    lines = refused("--box", "1,1,9,9", "--track", "--frames", "3", "--same", "--box", "1,1,8,8", "--at", "2")
    assert [line.split(" is for videos")[0] for line in lines] == ["--at", "--same", "--track", "--frames"]
    assert len(refused("--prompt", "<seg>", "--source-option", "a=1", "--frames", "3", "--fps", "2")) == 3


def test_a_picture_that_its_exif_data_turn_is_named_as_such(refused, folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (120, 80)).save(folder / "turned.jpg", exif=exif)
    (line,) = refused("--box", "10,10,110,70", media="turned.jpg")
    assert line.endswith(
        "It would fit the picture before it is turned: its EXIF data say how it is to be held, and so it is 80 wide "
        "and 120 high. Give regions of the upright picture."
    )
    (line,) = refused("--box", "1,1,500,9", media="turned.jpg")
    assert "EXIF" not in line


def test_a_chat_names_exif_data_too(folder, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.new("RGB", (120, 80)).save(folder / "turned.jpg", exif=exif)
    command = ["chat", str(folder / "turned.jpg"), "--model", str(folder / "model")]
    result = CliRunner().invoke(main, command, input="/box 10 10 110 70\n/click 100 300\n/quit\n")
    turned, outside = result.stderr.splitlines()
    assert "EXIF" in turned
    assert "EXIF" not in outside
    result = CliRunner().invoke(main, [*command, "--clip"], input="/box 10 10 110 70\n")
    assert (result.stdout, result.stderr) == ("[1]: box 10, 10, 80, 70\n", "")


def test_shares_of_the_sides_are_no_pixels(refused):
    (line,) = refused("--box", "0.08,0.12,0.41,0.49", "--prompt", "which digit is <region>?")
    assert "lie within 0 and 1, but pixels are expected. Multiply x by the width 120 and y by the height 80." in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--same", "--box", "1,1,9,9"], "--same stands between two regions"),
        (["--box", "1,1,9,9", "--same"], "--same stands between two regions"),
        (["--box", "1,1,9,9", "--same", "--same", "--box", "1,1,9,9"], "--same stands between two regions"),
        (["--box", "1,1,9,9", "--same", "--at", "1", "--box", "1,1,9,9"], "--at 1 follows no region of its own"),
        (["--box", "1,1,9,9", "--same", "--box", "2,2,9,9"], "--box 1,1,9,9 --same --box 2,2,9,9: frame 0 is named"),
        (["--box", "1,1,9,9", "--same", "--box", "2,2,9,9", "--at", "9"], "--box 2,2,9,9 --at 9: the video has 3"),
        (["--mask", "masks", "--at", "1"], "--at 1 follows --mask masks, a folder of masks, whose names say on which"),
        (["--mask", "masks", "--same", "--box", "1,1,9,9"], "frame 0 is named twice"),
        (["--mask", "late"], "--mask late: the video has 3 frames, counted from 0: there is no frame 7."),
        (["--mask", "empty"], "Folder 'empty' has no mask that is not empty."),
        (["--mask", "none"], "Folder 'none' has no mask that is not empty."),
        (["--mask", "twice"], "Folder 'twice' has two masks of frame 1."),
        (["--mask", "others"], "'others/cover.png' is no mask that is called by the number of a frame"),
        (["--mask", "piped"], "'piped/2.png' is no mask that is called by the number of a frame"),
        (["--mask", "objects"], "Folder 'objects' holds folders of masks. Name one of them: 'objects/object-1'."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_an_object_on_several_frames_that_cannot_be(refused, tmp_path, options, message):
    seen = Image.new("L", (64, 48), 255)
    nothing = Image.new("L", (64, 48))
    for name, masks in {
        "masks": {"00000": seen, "2": seen},
        "late": {"00007": nothing, "1": seen},
        "empty": {"1": nothing},
        "none": {},
        "twice": {"1": seen, "00001": nothing},
        "others": {"1": seen, "cover": seen},
        "piped": {"1": seen},
        "objects": {"object-1/1": seen, "object-2/1": seen},
    }.items():
        for path, mask in masks.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            mask.save(tmp_path / name / f"{path}.png")
        (tmp_path / name).mkdir(exist_ok=True)
    (tmp_path / "objects" / "objects.json").write_text("{}")
    os.mkfifo(tmp_path / "piped" / "2.png")
    (line,) = refused(*options, media="frames")
    assert message in line


@pytest.mark.parametrize("first", [0, 1])
def test_masks_called_by_a_number_that_may_be_a_name_are_refused(refused, tmp_path, first):
    for index in range(3):
        (tmp_path / "clip").mkdir(exist_ok=True)
        Image.new("RGB", (64, 48)).save(tmp_path / "clip" / f"frame_{index + first:03d}.jpg")
    (tmp_path / "masks").mkdir()
    Image.new("L", (64, 48), 255).save(tmp_path / "masks" / "00001.png")
    (line,) = refused("--mask", "masks", media=tmp_path / "clip")
    ambiguous = "are called 1 to 3, so 00001.png may mean the frame of that name, or that index from 0."
    assert (REACHED in line, ambiguous in line) == (first == 0, first == 1)


def test_a_folder_of_masks_is_for_videos(refused, tmp_path):
    (tmp_path / "masks").mkdir()
    Image.new("L", (120, 80), 255).save(tmp_path / "masks" / "0.png")
    (line,) = refused("--mask", "masks")
    assert line.startswith("A folder of masks is for videos")


# -- what is answered --------------------------------------------------------------------------------------


@pytest.fixture
def ask(monkeypatch, folder, tmp_path):
    """Runs `pixelrefer describe` with short answers, and reads its JSON."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)

    def ask(*options, media="a.png"):
        arguments = ("describe", folder / media, "--model", folder / "model", "--max-new-tokens", 2, "--json", *options)
        result = CliRunner().invoke(main, [str(each) for each in arguments])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return ask


def test_one_question_is_asked_of_each_region(ask):
    boxes = ("1,1,30,40", "50,10,110,70", "0,0,120,80")
    question = ("--prompt", "which is [7] <region>?")
    found = ask(*[each for box in boxes for each in ("--box", box)], *question)
    assert found["answers"] == [ask("--box", box, *question)["answers"][0] for box in boxes]
    assert [region["given"] for region in found["regions"]] == list(boxes)
    assert found["prompt"] == question[1]


def test_an_object_is_given_on_several_frames(ask, tmp_path):
    first = ("--box", "1,1,30,40", "--at", "2", "--same", "--points", "9,9", "--at", "0s")
    found = ask(*first, "--box", "5,5,20,20", "--prompt", "<region> or <region>?", media="frames")
    assert [region["frames"] for region in found["regions"]] == [[0, 2], [0]]
    assert found["regions"][0]["same"] == [{"kind": "points", "given": "9,9"}]
    assert "same" not in found["regions"][1]
    (tmp_path / "object-1").mkdir()
    for frame, grey in enumerate((255, 0, 255)):
        Image.new("L", (64, 48), grey).save(tmp_path / "object-1" / f"{frame:05d}.png")
    found = ask("--mask", "object-1", media="frames")
    assert found["regions"][0]["frames"] == [0, 2]


def test_clip_cuts_off_what_lies_outside(ask):
    found = ask("--box", "-9,1,500,40", "--clip")
    assert found["answers"] == ask("--box", "0,1,120,40")["answers"]
    assert found["regions"][0]["given"] == "-9,1,500,40"


# -- streams -----------------------------------------------------------------------------------------------


COMMAND = (sys.executable, "-m", "pixelrefer_plugin")


def test_output_that_nobody_reads_ends_quietly():
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([*COMMAND, "plugins"], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert (result.returncode, result.stderr) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device here")
@pytest.mark.parametrize("arguments", [["--help"], ["plugins"]], ids=" ".join)
def test_a_full_disk_is_told(arguments):
    with open("/dev/full", "wb") as full:
        result = subprocess.run([*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (result.returncode, result.stderr) == (2, "Error: No space left on device.\n")


def test_what_the_system_refuses_is_told(run, folder, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied", "/somewhere")

    monkeypatch.setattr(LoadedModel, "open", refuse)
    arguments = ("describe", folder / "a.png", "--model", folder / "model", "--box", "1,1,9,9")
    assert told(run(*arguments)) == ["'/somewhere': Permission denied."]


@pytest.mark.parametrize("text", ["y" * 20_000, "a\n" + "\0" * 20_000], ids=["letters", "zeros"])
def test_a_line_that_never_ends_is_no_question(folder, monkeypatch, text):
    monkeypatch.setattr("pixelrefer_plugin.cli.chatting.Terminal.take", lambda self, line: True)
    result = CliRunner().invoke(main, ["chat", str(folder / "a.png"), "--model", str(folder / "model")], input=text)
    assert told(result) == ["A line on stdin is longer than 10,000 characters, which is no question. Cut it."]


def test_bytes_that_are_no_text_are_questions_like_any_other(folder):
    noise = np.random.default_rng(0).integers(0, 256, 400, dtype=np.uint8).tobytes()
    command = ["chat", str(folder / "a.png"), "--model", str(folder / "model"), "--max-new-tokens", "1"]
    result = CliRunner().invoke(main, command, input=noise)
    assert result.exit_code == 0
    assert result.exception is None
    assert "\x1b" not in result.output


# -- what is typed into a chat -----------------------------------------------------------------------------


NUMBERS = st.one_of(
    st.integers(-5, 130).map(str), st.floats().map(str), st.sampled_from(["1e400", "nan", "-", "9" * 400, "0x1", "1_0"])
)
OFTEN = [*";,.@'", '"', "[1]", "[2]", "@0", "@1", "@0.5s", "@9", "all", "pipe", "masks", "a.png"]
WORDS = st.one_of(NUMBERS, st.sampled_from(OFTEN), st.text(st.characters(exclude_characters="/\n\r"), max_size=6))
COMMANDS = [*re.findall(r"/[a-z]+", help_of(200)), "/none", "what", "[1]"]
LINES = st.builds(
    lambda command, words: " ".join([command, *words]), st.sampled_from(COMMANDS), st.lists(WORDS, max_size=7)
)


@pytest.mark.parametrize("media", ["a.png", "frames"])
def test_whatever_is_typed_the_chat_goes_on(folder, tmp_path, monkeypatch, media):
    (tmp_path / "masks").mkdir()
    Image.new("L", (64, 48), 255).save(tmp_path / "masks" / "1.png")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setattr(Chat, "ask", answering)
    monkeypatch.chdir(tmp_path)
    loaded = LoadedModel.open(
        str(folder / "model"), backbone=None, adapter=None, adapter_options={}, device="cpu", max_new_tokens=1
    )
    monkeypatch.setattr(LoadedModel, "open", lambda *args, **options: loaded)
    command = ["chat", str(folder / media), "--model", str(folder / "model")]

    @settings(max_examples=15, deadline=None)
    @given(st.lists(LINES, min_size=5, max_size=25))
    def check(lines):
        text = "".join(f"{line}\n" for line in lines).encode(errors="replace")
        result = CliRunner().invoke(main, command, input=text)
        assert result.exception is None, (lines, result.exception)
        assert all(len(line) < 2200 for line in result.output.splitlines())
        assert "\x1b" not in result.output

    check()


def answering(chat, text, regions=(), **options):
    """Says nothing, but remembers the question as a chat does."""
    _, turn = chat._read(text, [])
    chat._turns.append(turn)
    return Reply("", ())


# -- help --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [60, 80, 120])
@pytest.mark.parametrize("command", ["", *sorted(main.commands)])
def test_help_fits_its_terminal(monkeypatch, command, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    result = CliRunner().invoke(main, [*filter(None, [command]), "--help"])
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= columns
    assert "..." not in result.stdout.partition("Commands:")[2], "no summary is cut"


def test_help_fits_a_narrow_terminal_but_for_what_is_one_word(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    for command in sorted(main.commands):
        text = CliRunner().invoke(main, [command, "--help"]).stdout
        head, examples = text.partition("Example:")[::2]
        assert max(len(line) for line in [*head.splitlines(), *examples.partition("Options:")[2].splitlines()]) <= 40
