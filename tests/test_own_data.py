"""The tutorial docs/own-data.md: its commands are run as they stand there, the second part's only read."""

import json
import os
import re
import shlex
import subprocess
import sys
from functools import reduce
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from pycocotools.coco import COCO

from pixelrefer_plugin import Region
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.quickstart import shapes
from pixelrefer_plugin.quickstart.shapes import CATEGORIES, unit_outlines, write_coco
from pixelrefer_plugin.training.config import TrainConfig

ROOT = Path(__file__).parent.parent
TUTORIAL = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
FIRST, SECOND = TUTORIAL.split("## The same with a real backbone")


def blocks(text, language):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text):
    """The commands of a part, continued lines joined."""
    joined = "\n".join(blocks(text, "bash")).replace("\\\n", " ")
    return [" ".join(line.split()) for line in joined.splitlines() if line and not line.startswith("pip install")]


def answers_printed(printed):
    """What the model said to each command that asks it."""
    return [text for command, text in printed.items() if "describe" in command or "generate" in command]


def run_in_shell(command, folder):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_command_runs(tmp_path, monkeypatch, capsys):
    """On few pictures, for two steps, and in one process: starting each command by itself would take minutes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("shapes.yaml").write_text(blocks(FIRST, "yaml")[0])
    fewer = {
        "shapes --pictures 1500": "shapes --pictures 20",
        "pixelrefer validate": "pixelrefer validate --workers 1",
        "train shapes.yaml": "train shapes.yaml data.workers=0 optim.steps=2 evaluation.samples=2",
    }
    printed = {}
    for command in commands(FIRST):
        shorter = reduce(lambda text, pair: text.replace(*pair), fewer.items(), command)
        program, *arguments = shlex.split(shorter)
        if program == "pixelrefer":
            result = CliRunner().invoke(main, arguments)
            assert result.exit_code == 0, f"{command}\n{result.output}"
            printed[command] = result.output
        else:
            assert [program, *arguments[:2]] == ["python", "-m", shapes.__name__]
            monkeypatch.setattr(sys, "argv", arguments[1:])
            shapes.main()
    exec(blocks(FIRST, "python")[0], {})
    assert re.search(r"\['.*'\]\n$", capsys.readouterr().out)
    assert len(answers_printed(printed)) == 2
    assert "17 samples: 17 good, 0 with defects" in printed["pixelrefer validate train.jsonl"]
    with Image.open("sheet.png") as sheet:
        assert min(sheet.size) > 300
    metrics = json.loads(Path("runs/shapes/metrics.json").read_text())
    assert metrics["steps"] == 2
    assert "eval_exact_match" in metrics
    assert Path("shapes-merged/backbone").is_dir()


@pytest.mark.slow
def test_as_written_it_learns_and_answers(tmp_path):
    (tmp_path / "shapes.yaml").write_text(blocks(FIRST, "yaml")[0])
    asked = [*commands(FIRST), f"python -c {shlex.quote(blocks(FIRST, 'python')[0])}"]
    printed = {command: run_in_shell(command, tmp_path) for command in asked}
    metrics = json.loads((tmp_path / "runs" / "shapes" / "metrics.json").read_text())
    assert metrics["eval_exact_match"] >= 0.90
    assert all("cross" in text for text in answers_printed(printed))


@pytest.mark.slow
def test_the_new_task_is_learned_and_the_old_one_reported(tmp_path):
    report = tmp_path / "new_task.json"
    command = [sys.executable, ROOT / "speed" / "new_task.py", "--json", report]
    subprocess.run(list(map(str, command)), cwd=tmp_path, check=True)
    result = json.loads(report.read_text())["result"]
    new, old = result["new_task"], result["old_task"]
    assert new["before, unseen photographs"] <= 0.05
    assert new["guess without a region"] <= 0.5
    assert min(new["held-out pictures"], new["unseen photographs"]) >= 0.90
    assert old["before"].keys() == old["after"].keys() > {"all", "count", "colours"}
    assert old["before"]["count"] >= 0.7
    assert result["detached_is_base"]


def test_the_configuration_is_the_one_in_the_examples():
    assert blocks(FIRST, "yaml") == [(ROOT / "examples" / "own-data" / "shapes.yaml").read_text()]


def test_the_box_is_of_the_object_that_it_says(tmp_path):
    instances = json.loads(write_coco(tmp_path, num_pictures=1, split="held-out", seed=2).read_text())
    asked = instances["annotations"][0]
    x, y, width, height = asked["bbox"]
    assert {f"--box {x},{y},{x + width},{y + height}"} == set(re.findall(r"--box [\d,]+", TUTORIAL))
    assert f"Region.from_box(({x}, {y}, {x + width}, {y + height}))" in FIRST
    assert f"It says `{CATEGORIES[asked['category_id'] - 1]}`" in FIRST


def test_the_second_part_is_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("train.jsonl", "held_out.jsonl"):
        Path(name).touch()
    [yaml] = blocks(SECOND, "yaml")
    Path("parts.yaml").write_text(yaml)
    inline = re.findall(r"`(pixelrefer train [^`]+)`", SECOND)
    asked = [*commands(SECOND), *(" ".join(each.split()) for each in inline)]
    for command in asked:
        name, *arguments = shlex.split(re.sub(r"^accelerate launch .* -m pixelrefer_plugin|^pixelrefer", "", command))
        context = main.commands[name].make_context(name, arguments)
        if name == "train":
            assert TrainConfig.load(context.params["config"], context.params["settings"]).recipe == "lora"
    launchers = [re.search(r"--config_file (\S+)", command) for command in asked]
    assert all((ROOT / found[1]).is_file() for found in launchers if found)


# -- the data set ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data_set(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_coco(folder, num_pictures=12)
    return folder


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under NumPy 2
def test_pycocotools_reads_it(data_set):
    coco = COCO(data_set / "instances.json")
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == list(CATEGORIES)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        x, y, width, height = annotation["bbox"]
        mask = coco.annToMask(annotation)
        assert int(mask.sum()) == pytest.approx(annotation["area"], rel=0.25)
        assert mask[y : y + height, x : x + width].mean() >= 0.9 * mask.sum() / (width * height)


def test_it_has_polygons_and_run_lengths_with_holes(data_set):
    annotations = json.loads((data_set / "instances.json").read_text())["annotations"]
    ring = CATEGORIES.index("ring") + 1
    for each in annotations:
        assert isinstance(each["segmentation"], dict) == (each["category_id"] == ring)
    x, y, width, height = next(each["bbox"] for each in annotations if each["category_id"] == ring)
    counts = next(each["segmentation"] for each in annotations if each["category_id"] == ring)
    assert not Region.from_rle(counts).to_mask((112, 112)).dense()[y + height // 2, x + width // 2]


def test_the_same_seed_draws_the_same_pictures_and_others_differ(tmp_path):
    def drawn(name, **options):
        path = write_coco(tmp_path / name, num_pictures=2, **options)
        pictures = sorted((tmp_path / name / "images").iterdir())
        return path.read_text(), [np.asarray(Image.open(each)).tobytes() for each in pictures]

    first = drawn("a")
    assert drawn("b") == first
    assert drawn("c", seed=1)[1] != first[1]
    assert drawn("d", split="held-out")[1] != first[1]


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="Shapes are circle, square, .*; got 'blob'"):
        unit_outlines("blob")
