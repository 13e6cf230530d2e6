"""`pixelrefer validate`, `convert` and `preview`, on files as users have them."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from videos import write_video

from pixelrefer_plugin import DataError, PixelReferError, RegionDataset, get_backbone
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.data import preview
from pixelrefer_plugin.data.convert import convert_dataset
from pixelrefer_plugin.data.preview import draw_sheet
from pixelrefer_plugin.files import written_whole
from pixelrefer_plugin.overlay import COLOURS_RGB
from pixelrefer_plugin.training.building import build_collator, build_model
from pixelrefer_plugin.training.config import TrainConfig

BOX = {"box": [4, 4, 30, 30]}


def row(id, *, image="a.png", question="What is <region>?", answer="A thing.", **keys):
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": id, "image": image, "regions": [BOX], "messages": turns} | keys


def write_rows(path, rows):
    path.write_text("".join(f"{each if isinstance(each, str) else json.dumps(each)}\n" for each in rows))
    return path


@pytest.fixture
def folder(tmp_path):
    """A folder with two pictures and a video of 64x48."""
    for name, grey in (("a.png", 60), ("b.png", 200)):
        Image.new("RGB", (64, 48), (grey, 90, 90)).save(tmp_path / name)
    write_video(tmp_path / "v.mp4", 6, fps=10)
    return tmp_path


@pytest.fixture
def good(folder):
    return write_rows(folder / "good.jsonl", [row("1"), row("2", image="b.png"), row("3", size=[48, 64])])


@pytest.fixture
def bad(folder):
    """Six samples: two are good, the others have five defects."""
    return write_rows(
        folder / "bad.jsonl",
        [
            row("ok"),
            row("lost", image="none.png"),
            row("two", size=[9, 9], regions=[{"box": [0, 0, 99, 9]}]),
            "",
            row("empty", answer=""),
            "{no json",
            row("fine", image="b.png"),
        ],
    )


def run(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments])


def lines(result, exit_code=0):
    assert result.exit_code == exit_code, result.output
    assert isinstance(result.exception, SystemExit | None), "a crash's exit code is 1, too"
    return result.stdout.splitlines()


def failure(result):
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    return result.stderr.splitlines()[-1]


# -- validate ----------------------------------------------------------------------------------------------


def test_a_good_file_is_said_to_be_good(good):
    assert lines(run("validate", good)) == [
        "3 samples: 3 good, 0 with defects.",
        "They show 3 images and 0 videos, and have 3 regions (1 to 1 each, 1.0 on average).",
    ]


RLE = {"rle": {"size": [48, 64], "counts": [500, 20, 48 * 64 - 520]}}
MASKED = {
    "question": "Segment what is right of <region>.",
    "answer": "[1] <seg>, [2] <seg>",
    "regions": [BOX, RLE, RLE],
}


def test_masks_to_learn_are_counted_apart_from_regions(folder):
    path = write_rows(folder / "masks.jsonl", [row("1", **MASKED), row("2")])
    assert lines(run("validate", path))[1:] == [
        "They show 2 images and 0 videos, and have 2 regions (1 to 1 each, 1.0 on average).",
        "Their answers give 2 masks (0 to 2 each, 1.0 on average).",
    ]
    (summary,) = summaries(run("validate", path, "--json"), 0)
    assert summary["masks"] == {"count": 2, "total": 2, "least": 0, "most": 2, "mean": 1.0}
    assert summary["regions"]["total"] == 2
    path = write_rows(folder / "wrong.jsonl", [row("1", question="Is it <seg>?", regions=[RLE])])
    (found, *_) = lines(run("validate", path), exit_code=1)
    assert found.startswith(
        "wrong.jsonl line 1, sample '1': markers: message 0: <seg> stands for a mask in answers only"
    )


def test_every_defect_is_printed_with_line_and_id(bad):
    found = lines(run("validate", bad), exit_code=1)
    assert [line.partition(": ")[0] for line in found[:5]] == [
        "bad.jsonl line 2, sample 'lost'",
        "bad.jsonl line 3, sample 'two'",
        "bad.jsonl line 3, sample 'two'",
        "bad.jsonl line 5, sample 'empty'",
        "bad.jsonl line 6, sample '4'",
    ]
    assert [line.split(": ")[1] for line in found[:5]] == ["media", "size", "region", "answer", "format"]
    assert "6 samples: 2 good, 4 with defects." in found
    table = [line.split("│")[1:4] for line in found if line.startswith("│")]
    assert [[cell.strip() for cell in cells] for cells in table] == [
        ["answer", "1", "16.7 %"],
        ["format", "1", "16.7 %"],
        ["media", "1", "16.7 %"],
        ["region", "1", "16.7 %"],
        ["size", "1", "16.7 %"],
        ["any", "4", "66.7 %"],
    ]


def test_json_has_every_bad_sample_and_the_summary(bad):
    *samples, last = map(json.loads, lines(run("validate", bad, "--json"), exit_code=1))
    assert [each["index"] for each in samples] == [1, 2, 3, 4]
    assert [defect["kind"] for defect in samples[1]["defects"]] == ["size", "region"]
    assert samples[1]["where"] == "bad.jsonl line 3"
    assert samples[1]["id"] == "two"
    summary = last["summary"]
    assert (summary["samples"], summary["good"], summary["defects"]) == (6, 2, 5)
    assert summary["kinds"] == {"answer": 1, "format": 1, "media": 1, "region": 1, "size": 1}
    assert summary["format"] == "regions"
    assert summary["tokens"] is None


def test_many_defects_are_cut_short(folder):
    path = write_rows(folder / "many.jsonl", [row(str(index), answer="") for index in range(60)])
    found = lines(run("validate", path, "--workers", 1), exit_code=1)
    assert sum("the answer is empty" in line for line in found) == 50
    assert "... and 10 defects more; --json prints all." in found
    assert len(lines(run("validate", path, "--workers", 1, "--json"), exit_code=1)) == 61
    assert len(lines(run("validate", path, "--limit", 3, "--json"), exit_code=1)) == 4


def test_fix_out_writes_the_good_ones_and_says_what_it_left_out(bad, folder):
    (folder / "fixed").mkdir()
    out = folder / "fixed" / "good.jsonl"
    found = lines(run("validate", bad, "--fix-out", out), exit_code=1)
    left_out = "Left out 4 for their defects: answer 1, format 1, media 1, region 1, size 1."
    assert found[-1] == f"Wrote 2 samples to '{out}'. {left_out}"
    assert [each["id"] for each in map(json.loads, out.read_text().splitlines())] == ["ok", "fine"]
    assert lines(run("validate", out, "--fix-out", folder / "again.jsonl"))[-1].endswith("None was left out.")
    assert [path.name for path in out.parent.iterdir()] == ["good.jsonl"]


def test_fix_out_never_replaces_what_is_read(bad):
    before = bad.read_bytes()
    assert "--fix-out would replace" in failure(run("validate", bad, "--fix-out", bad.parent / "." / "bad.jsonl"))
    link = bad.parent / "link.jsonl"
    link.symlink_to(bad)
    assert "--fix-out would replace" in failure(run("validate", bad, "--fix-out", link))
    assert bad.read_bytes() == before


def test_fix_out_makes_no_empty_file(folder):
    path = write_rows(folder / "all_bad.jsonl", [row("1", answer=""), row("2", image="none.png")])
    out = folder / "out.jsonl"
    assert (
        lines(run("validate", path, "--fix-out", out), exit_code=1)[-1] == f"No sample is good: '{out}' is not written."
    )
    assert not out.exists()
    assert "cannot be written" in failure(run("validate", path, "--fix-out", folder / "none" / "x.jsonl"))
    assert "it is a folder" in failure(run("validate", path, "--fix-out", folder))


def test_tokens_are_counted_with_a_model(good, folder):
    backbone, native = get_backbone("videollama3").tiny(0)
    backbone.save_pretrained(folder / "model")
    native.save_pretrained(folder / "model")
    model = ("--model", folder / "model", "--adapter", "maskpool")
    *_, last = lines(run("validate", good, *model, "--json"))
    tokens = json.loads(last)["summary"]["tokens"]
    assert tokens["count"] == 3
    assert 0 < tokens["least"] <= tokens["mean"] <= tokens["most"]
    found = lines(run("validate", good, *model, "--max-tokens", tokens["least"] - 1), exit_code=1)
    assert sum(": too long: it has" in line for line in found) == 3
    assert lines(run("validate", good, *model, "--max-tokens", tokens["most"]))[-1].startswith("Good ones have")


@pytest.mark.parametrize("option", [("--max-tokens", 9), ("--adapter", "saot"), ("--adapter-option", "num_tokens=3")])
def test_options_of_the_model_need_it(good, option):
    assert f"{option[0]} needs --model" in failure(run("validate", good, *option))


def test_a_model_that_is_not_there(good):
    assert "Expected a model folder at './none'" in failure(run("validate", good, "--model", "./none"))


def hostile_files(folder):
    """What is no data file; the message that says so."""
    noise = np.random.default_rng(0).integers(0, 256, 5000, dtype=np.uint8).tobytes()
    return {
        "none.jsonl": (None, "cannot be read: No such file or directory"),
        "empty.jsonl": (b"", "is empty"),
        "blank.jsonl": (b"\n \n", "is empty"),
        "noise.jsonl": (noise, "must hold JSON objects"),
        "picture.png": ((folder / "a.png").read_bytes(), "must hold JSON objects"),
        "utf16.jsonl": (json.dumps(row("1")).encode("utf-16"), "UTF-16"),
        "zipped.jsonl": (b"\x1f\x8b" + noise, "by gzip"),
        "unknown.jsonl": (b'{"hello": 1}\n', "No data format recognises"),
    }


@pytest.mark.parametrize("command", ["validate", "convert", "preview"])
def test_what_is_no_data_file_is_one_line_on_stderr(command, folder):
    out = folder / "out.jsonl"
    more = {"validate": ["--fix-out", out], "convert": [out], "preview": ["--out", folder / "out.png"]}[command]
    for name, (content, message) in hostile_files(folder).items():
        if content is not None:
            (folder / name).write_bytes(content)
        assert message in failure(run(command, folder / name, *more)), name
    assert "Is a directory" in failure(run(command, folder, *more))
    assert "No data format is called 'nonsense'" in failure(
        run(command, folder / "a.png", *more, "--format", "nonsense")
    )
    assert not out.exists()
    assert not (folder / "out.png").exists()


def test_text_that_is_not_unicode_is_a_defect_of_its_line(folder):
    path = folder / "latin.jsonl"
    path.write_bytes(json.dumps(row("1")).encode() + b"\n" + b'{"id": "caf\xe9"}\n')
    found = lines(run("validate", path, "--format", "regions"), exit_code=1)
    assert found[0].startswith("latin.jsonl line 2, sample '1': format: it is not JSON")


def test_ids_cannot_write_to_the_terminal(folder):
    path = write_rows(folder / "odd.jsonl", [row("\x1b[31m\nred", answer="")])
    found = lines(run("validate", path), exit_code=1)
    assert found[0].startswith("odd.jsonl line 1, sample ' [31m red': answer")
    assert json.loads(lines(run("validate", path, "--json"), exit_code=1)[0])["id"] == "\x1b[31m\nred"


def test_file_names_need_not_be_unicode(good, folder):
    odd = folder / os.fsdecode(b"caf\xe9.jsonl")
    odd.write_bytes(good.read_bytes() + json.dumps(row("1")).encode())
    assert "line 4, sample '1'" in lines(run("validate", odd), exit_code=1)[0]
    assert json.loads(lines(run("validate", odd, "--json"), exit_code=1)[-1])["summary"]["file"] == "caf\udce9.jsonl"


def test_ctrl_c_ends_with_one_line_and_no_file(folder):
    big = np.random.default_rng(0).integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
    Image.fromarray(big).save(folder / "big.jpg")
    path = write_rows(folder / "long.jsonl", [row(str(index), image="big.jpg") for index in range(20_000)])
    command = [
        Path(sys.executable).parent / "pixelrefer",
        "validate",
        path,
        "--workers",
        "2",
        "--fix-out",
        folder / "out",
    ]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background jobs, as tests may be, ignore Ctrl-C, and so would this one.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    while not list(folder.glob(".out.*")):
        time.sleep(0.05)
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.startswith("Stopped: ")
    assert len(stderr.splitlines()) == 1
    assert not list(folder.glob("*out*"))


@pytest.mark.parametrize("format", ["lvis", "refcoco", "videorefer", "dam_regions"])
def test_formats_that_share_a_plugin_are_listed_by_their_names(format, good):
    assert format in " ".join(run("validate", "--help").stdout.split())
    assert format in failure(run("validate", good, "--format", "lvs"))


@pytest.mark.parametrize("command", ["validate", "convert", "preview"])
def test_without_a_model_nothing_heavy_is_imported(command, good, folder):
    more = {"validate": [], "convert": [folder / "out.jsonl"], "preview": ["--out", folder / "out.png"]}[command]
    arguments = [str(each) for each in (command, good, *more)]
    code = f"""
import contextlib, sys
from pixelrefer_plugin.cli import main
with contextlib.suppress(SystemExit):
    main({arguments!r}, standalone_mode=False)
print(sorted({{"torch", "transformers", "pydantic", "datasets"}} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"


# -- validate --config -------------------------------------------------------------------------------------


@pytest.fixture
def config(good, folder):
    """A training configuration of two files; what it says besides is added by `KEY=VALUE`."""
    write_rows(folder / "held.jsonl", [row("1", image="b.png"), row("2"), "{no json"])
    path = folder / "train.yaml"
    train = json.dumps({"path": str(good), "limit": 2})
    path.write_text(
        f"model: {{backbone: 'builtin:tiny_videollama3', adapter: saot}}\nrun: {{out: {folder / 'run'}}}\n"
        f"data: {{train: {train}, eval: {folder / 'held.jsonl'}}}\n"
    )
    return path


def summaries(result, exit_code):
    found = [json.loads(line) for line in lines(result, exit_code)]
    return [each["summary"] for each in found if "summary" in each]


def test_a_config_has_its_files_checked(config, folder):
    found = lines(run("validate", "--config", config), exit_code=1)
    assert [line for line in found if "samples:" in line or line.endswith(".jsonl")] == [
        "good.jsonl",
        "2 samples: 2 good, 0 with defects.",
        "held.jsonl",
        "3 samples: 2 good, 1 with defects.",
    ]
    assert "held.jsonl line 3, sample '2': format" in "\n".join(found)
    lines(run("validate", "--config", config, f"data.eval={folder / 'good.jsonl'}"))


def test_what_a_config_lets_through_its_collator_takes(config, folder):
    """Budgets of pixels change how many tokens a sample has: the validator counts with the run's own."""
    eval_is_good = f"data.eval={folder / 'good.jsonl'}"
    lengths = {}
    for budget in ((), ("data.min_pixels=16384",)):
        trained = TrainConfig.load(config, [eval_is_good, *budget])
        built = build_model(trained.resolved(has_bf16=False), torch.device("cpu"))
        sample = RegionDataset.open(folder / "good.jsonl")[0]
        length = build_collator(built.processor, trained.data)([sample])["input_ids"].shape[1]
        (train, _) = summaries(run("validate", "--json", "--config", config, eval_is_good, *budget), 0)
        assert (train["tokens"]["least"], train["tokens"]["most"]) == (length, length)
        lengths[budget] = length
    few, many = lengths.values()
    assert few < many
    limit = f"data.max_tokens={few}"
    summaries(run("validate", "--json", "--config", config, eval_is_good, limit), 0)
    found = summaries(run("validate", "--json", "--config", config, eval_is_good, limit, "data.min_pixels=16384"), 1)
    assert [each["kinds"] for each in found] == [{"too long": 2}, {"too long": 3}]


def test_configs_that_cannot_be_checked(config, good):
    assert "leave out --max-tokens, --fix-out" in failure(
        run("validate", "--config", config, "--max-tokens", 9, "--fix-out", "x")
    )
    assert "leave out --format, --option" in failure(
        run("validate", "--config", config, "--format", "coco", "--option", "a=b")
    )
    assert "data.max_token: there is no such key. Did you mean 'max_tokens'?" in failure(
        run("validate", "--config", config, "data.max_token=3")
    )
    both = run("validate", "--config", config, "data.max_token=3", "optim.step=4").stderr.splitlines()
    assert [line.split(": ")[-2] for line in both] == ["data.max_token", "optim.step"]
    assert "Give one FILE" in failure(run("validate", good, good))
    assert "Give one FILE" in failure(run("validate"))


# -- convert -----------------------------------------------------------------------------------------------


def test_conversion_keeps_what_samples_mean(good, folder):
    (folder / "elsewhere").mkdir()
    for out in (folder / "out.jsonl", folder / "elsewhere" / "out.jsonl"):
        assert lines(run("convert", good, out)) == [f"Wrote 3 samples to '{out}'."]
        before, after = RegionDataset.open(good), RegionDataset.open(out)
        assert [each.media("image") for each in after] == [each.media("image") for each in before]
        assert [each.regions for each in after] == [each.regions for each in before]
        assert [each.messages for each in after] == [each.messages for each in before]
    assert json.loads((folder / "out.jsonl").read_text().splitlines()[0])["image"] == "a.png"


def test_conversion_keeps_masks_and_the_frames_that_an_object_is_absent_from(folder):
    target = {"frames": {"2": RLE}, "absent": [0, 4]}
    about_video = row("2", image=None, video="v.mp4", question="Segment it.", answer="<seg>", regions=[target])
    out = folder / "out.jsonl"
    run("convert", write_rows(folder / "in.jsonl", [row("1", **MASKED), about_video]), out)
    first, second = RegionDataset.open(out)
    assert (first.targets, second.targets) == ((1, 2), (0,))
    assert [region.kind for region in first.regions] == ["box", "rle", "rle"]
    assert (list(second.regions[0].frames), second.regions[0].absent) == ([2], (0, 4))
    assert json.loads(out.read_text().splitlines()[1])["regions"][0]["absent"] == [0, 4]
    assert lines(run("validate", out))[0] == "2 samples: 2 good, 0 with defects."


def test_ids_of_pictures_are_no_defect_and_become_ids_of_samples(folder):
    """Osprey and LLaVA call a sample by its picture's id."""
    turns = [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A thing."}]
    records = [{"id": id, "image": "a.png", "conversations": turns} for id in ("7", "7", "7-2", "7")]
    path, out = write_rows(folder / "llava.jsonl", records), folder / "out.jsonl"
    lines(run("validate", path, "--fix-out", folder / "fixed.jsonl"))
    lines(run("convert", path, out))
    for made in (out, folder / "fixed.jsonl"):
        assert [sample.id for sample in RegionDataset.open(made)] == ["7", "7-2", "7-2-2", "7-3"]
        lines(run("validate", made))


def test_conversion_of_another_format(folder):
    box = {"id": 7, "image_id": 1, "category_id": 3, "bbox": [4, 4, 20, 20], "area": 400, "iscrowd": 0}
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "height": 48, "width": 64}],
        "annotations": [box | {"segmentation": [[4, 4, 24, 4, 24, 24, 4, 24]]}],
        "categories": [{"id": 3, "name": "leaf"}],
    }
    (folder / "coco.json").write_text(json.dumps(coco))
    out = folder / "out.jsonl"
    run("convert", folder / "coco.json", out)
    (sample,) = RegionDataset.open(out)
    assert "leaf" in sample.messages[-1]["content"].lower()
    assert lines(run("validate", out))[0] == "1 sample: 1 good, 0 with defects."


def test_a_bad_sample_stops_the_conversion_or_is_named(bad, folder):
    out = folder / "out.jsonl"
    assert "bad.jsonl line 5, sample 'empty'" in failure(run("convert", bad, out))
    assert not out.exists()
    result = run("convert", bad, out, "--on-bad-sample", "skip")
    assert lines(result) == [f"Wrote 4 samples to '{out}'.", "Left out 2 for their defects: answer 1, format 1."]
    assert [line.partition(": it")[0].partition(": message")[0] for line in result.stderr.splitlines()] == [
        "Left out: bad.jsonl line 5, sample 'empty'",
        "Left out: bad.jsonl line 6, sample '4'",
    ]
    assert "none of its 1 samples can be used" in failure(
        run("convert", write_rows(folder / "x.jsonl", [row("1", answer="")]), folder / "y", "--on-bad-sample", "skip")
    )


def test_conversion_replaces_only_what_it_is_told_to(good, folder):
    out = folder / "out.jsonl"
    out.write_text("precious")
    assert "exists" in failure(run("convert", good, out))
    assert out.read_text() == "precious"
    assert "OUT would replace" in failure(run("convert", good, good, "--overwrite"))
    assert "--held-out would replace" in failure(run("convert", good, folder / "new", "--held-out", folder / "new"))
    assert "--held-out-share needs --held-out" in failure(run("convert", good, out, "--held-out-share", 0.5))
    assert lines(run("convert", good, out, "--overwrite")) == [f"Wrote 3 samples to '{out}'."]


def test_a_held_out_part_shares_no_picture(folder):
    for index in range(20):
        Image.new("RGB", (64, 48)).save(folder / f"{index}.png")
    rows = [row(f"{index}-{turn}", image=f"{index}.png") for index in range(20) for turn in range(3)]
    path, out, held = write_rows(folder / "in.jsonl", rows), folder / "train.jsonl", folder / "held.jsonl"
    printed = lines(run("convert", path, out, "--held-out", held, "--held-out-share", 0.25))
    assert printed == [
        f"Wrote 45 samples to '{out}'.",
        f"Wrote 15 samples (25.0%) to '{held}', of other pictures and videos.",
    ]
    first = out.read_bytes(), held.read_bytes()
    run("convert", path, out, "--held-out", held, "--held-out-share", 0.25, "--overwrite")
    assert (out.read_bytes(), held.read_bytes()) == first
    assert lines(run("validate", held))[0].startswith("15 samples: 15 good")


def test_samples_of_one_picture_cannot_be_parted(folder):
    path = write_rows(folder / "in.jsonl", [row("1"), row("2")])
    assert "all of them share their pictures" in failure(
        run("convert", path, folder / "out.jsonl", "--held-out", folder / "held.jsonl")
    )
    assert not list(folder.glob("*out.jsonl"))


@settings(max_examples=40, deadline=None)
@given(
    pictures=st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=2, max_size=25),
    share=st.floats(0.05, 0.95),
)
def test_no_picture_is_ever_on_both_sides(pictures, share, tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    rows = [
        row(str(number), image=None, images=[f"{each}.png" for each in shown], question="?", regions=None)
        for number, shown in enumerate(pictures)
    ]
    out, held = folder / "out.jsonl", folder / "held.jsonl"

    def split(records):
        dataset = RegionDataset.from_rows(records, media_root=folder)
        if num_groups(pictures) < 2:
            with pytest.raises(DataError, match="all of them share their pictures"):
                convert_dataset(dataset, out, held_out=held, held_out_share=share)
            return None
        found = convert_dataset(dataset, out, held_out=held, held_out_share=share)
        parts = [[json.loads(line) for line in path.read_text().splitlines()] for path in (out, held)]
        assert [len(part) for part in parts] == [found.written, found.held_out]
        return [{each["id"] for each in part} for part in parts], [seen(part) for part in parts]

    result = split(rows)
    if result is None:
        return
    ids, media = result
    assert not media[0] & media[1]
    assert ids[0]
    assert ids[1]
    assert ids[0] | ids[1] == {each["id"] for each in rows}
    assert split(rows[::-1]) == result


def num_groups(pictures):
    """Parts that samples fall into if those with a picture in common stay together; one without stays alone."""
    groups = []
    for shown in map(set, pictures):
        touched = [each for each in groups if each & shown]
        groups = [each for each in groups if not each & shown] + [shown.union(*touched)]
    return len(groups)


def seen(records):
    return {name for each in records for name in (each.get("images") or [each.get("image")]) if name}


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "file"
    target.write_text("before")
    for failure_of_block, seen_outside in (
        (KeyError("x"), pytest.raises(KeyError)),
        (OSError(28, "No space left"), pytest.raises(PixelReferError, match="cannot be written: No space left")),
    ):
        with seen_outside, written_whole(target) as made:
            raise_after_writing(made, failure_of_block)
        assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with written_whole(target) as made:
        made.write_bytes(b"after")
    assert target.read_text() == "after"


@pytest.mark.parametrize("command", ["validate --fix-out", "convert --overwrite", "preview --out"])
def test_what_is_no_file_is_not_replaced_by_one(command, good, folder):
    name, option = command.split()
    pipe = folder / "pipe.png"
    os.mkfifo(pipe)
    assert "pipe.png' cannot be written: it is no regular file" in failure(run(name, good, option, pipe))
    assert pipe.is_fifo()


def raise_after_writing(made, error):
    made.write_bytes(b"half")
    raise error


# -- preview -----------------------------------------------------------------------------------------------


def colours_of(sheet):
    return {tuple(colour) for colour in np.unique(np.asarray(sheet).reshape(-1, 3), axis=0)}


def test_a_sheet_shows_pictures_regions_and_texts(folder):
    dataset = RegionDataset.open(write_rows(folder / "one.jsonl", [row("1")]))
    plain = RegionDataset.open(write_rows(folder / "two.jsonl", [row("1", question="What?", regions=None)]))
    outline = (213, 94, 0)
    assert outline in colours_of(draw_sheet(dataset))
    assert outline not in colours_of(draw_sheet(plain))
    assert (60, 90, 90) in colours_of(draw_sheet(plain))
    longer = RegionDataset.open(write_rows(folder / "long.jsonl", [row("1", answer="word " * 100)]))
    assert draw_sheet(longer).height > draw_sheet(dataset).height


def test_a_sheet_of_everything(bad, folder):
    out = folder / "sheet.png"
    assert lines(run("preview", bad, "-n", 4, "--out", out)) == [f"Drew 4 of 6 samples: '{out}'."]
    first = out.read_bytes()
    run("preview", bad, "-n", 4, "--out", out)
    assert out.read_bytes() == first
    run("preview", bad, "-n", 4, "--seed", 1, "--out", out)
    assert out.read_bytes() != first
    run("preview", bad, "--out", folder / "all.jpg")
    with Image.open(folder / "all.jpg") as sheet:
        assert sheet.format == "JPEG"
    assert (190, 0, 0) in colours_of(draw_sheet(RegionDataset.open(bad)))


@pytest.mark.parametrize(
    "size_wh",
    [(3000, 3), (3, 3000), (9000, 20), (4000, 4000), (10, 10)],
    ids=["very wide", "very tall", "wider still", "large", "small"],
)
def test_a_region_is_seen_on_a_picture_of_any_shape(size_wh, tmp_path):
    Image.new("RGB", size_wh, (9, 9, 9)).save(tmp_path / "odd.png")
    width, height = size_wh
    box = {"box": [width - width // 3, height - height // 3, width, height]}
    sheet = draw_sheet(RegionDataset.from_rows([row("1", image="odd.png", regions=[box])], media_root=tmp_path))
    assert sheet.width < 2000
    assert sheet.height < 2000
    tint = (80, 39, 6)  # the first colour over the picture's grey
    assert any(np.abs(np.subtract(colour, tint)).max() <= 3 for colour in colours_of(sheet))


def test_videos_show_the_frames_that_regions_name(folder):
    frames = {"video": "v.mp4", "image": None}
    one = row("1", regions=[{"frames": {"2": BOX}}], **frames)
    three = row("1", regions=[{"frames": {str(index): BOX for index in (0, 2, 4)}}], **frames)
    many = row(
        "1", regions=[{"frames": {str(index % 6): BOX for index in range(6)}}] * 8, question="<region>" * 8, **frames
    )
    none = row("1", regions=None, question="?", **frames)
    for record in (one, three, many, none):
        sheet = draw_sheet(RegionDataset.from_rows([record], media_root=folder))
        assert (190, 0, 0) not in colours_of(sheet)


def test_masks_to_learn_are_drawn_and_named_as_in_the_answer(folder):
    """Regions and masks are counted apart, in pictures and texts alike; colours go on."""
    texts = [("user", "<region> and <region>?"), ("assistant", "<seg>, left of <region>, and <seg>")]
    assert preview._labels(texts) == ["1", "2", "seg 1", "3", "seg 2"]
    plates = list(preview.plates(["1", "seg 1"]))
    assert [plate.text for plate in plates] == [" 1 ", " seg 1 "]
    assert plates[0].plate != plates[1].plate
    record = row("1", **MASKED)
    sheet = draw_sheet(RegionDataset.from_rows([record], media_root=folder))
    shown, first, second = COLOURS_RGB[:3]
    assert {shown, first, second} <= colours_of(sheet), "the plates in the texts have the colours of the outlines"
    outlines = draw_sheet(RegionDataset.from_rows([record | {"regions": [BOX, BOX, RLE]}], media_root=folder))
    assert outlines.size == sheet.size
    assert np.any(np.asarray(outlines) != np.asarray(sheet))


def test_frames_that_an_object_is_absent_from_are_shown_and_say_so(folder):
    def panels(**target):
        record = row("1", image=None, video="v.mp4", question="Segment it.", answer="<seg>", regions=[target])
        (sample,) = RegionDataset.from_rows([record], media_root=folder)
        return [
            (panel.caption, panel.regions[0] is not None)
            for panel in preview._panels(sample, sample.regions, ["seg 1"], 0)
        ]

    assert panels(frames={"2": RLE}) == [("frame 2, 0.2 s", True)]
    assert panels(frames={"2": RLE}, absent=[4, 0]) == [
        ("frame 0, 0.0 s, without seg 1", False),
        ("frame 2, 0.2 s", True),
        ("frame 4, 0.4 s, without seg 1", False),
    ]


def test_a_long_caption_stays_below_its_picture():
    pictures = [Image.new("RGB", (100, 60), "white") for _ in range(4)]
    captions = ["frame 6, 1.5 s, without seg 1, seg 2", "", "short", ""]
    grid = np.asarray(preview._grid(pictures, captions, 2, 100, preview.Pen.load(None)))
    assert (grid[:, :100] < 255).any()
    assert (grid[:, 100:] == 255).all()


def test_a_sheet_is_a_picture(good, folder):
    assert "A sheet is a file of type .png or .jpg" in failure(run("preview", good, "--out", folder / "sheet.pdf"))
    assert "cannot be written" in failure(run("preview", good, "--out", folder / "none" / "sheet.png"))
    assert "Font" in failure(run("preview", good, "--out", folder / "sheet.png", "--font", folder / "none.ttf"))
