"""`pixelrefer ablate`: cells of a grid, what is finished or fails, means over seeds, comparisons and tables."""

import json
import math
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from test_train import configured, data, error_of, run_command  # noqa: F401

from pixelrefer_plugin import RegionDataset
from pixelrefer_plugin.quickstart.ablation_data import FILES, TASKS, write_task
from pixelrefer_plugin.training import ablation
from pixelrefer_plugin.training.ablation import run_ablation
from pixelrefer_plugin.training.ablation_table import Comparison, FinishedCell, Mean, compared, rows_of
from pixelrefer_plugin.training.grid import Grid, cells_of

EXAMPLES = Path(__file__).parent.parent / "examples" / "ablations"
AXES = {
    "adapter": {"pooling": {"model.adapter": "maskpool", "model.adapter_config": None}, "SAOT": {}},
    "steps": {"1": {"optim.steps": 1}, "2": {"optim.steps": 2}},
}


@pytest.fixture
def grid_file(data, tmp_path):  # noqa: F811
    """`grid_file(key=value)` writes a grid, with a base beside it, and returns its path."""

    def write(**changes):
        base = configured(data, tmp_path / "unused", run={"save_every": None}, evaluation={"samples": 2})
        (tmp_path / "base.yaml").write_text(base.to_yaml())
        grid = {"base": "base.yaml", "out": str(tmp_path / "out"), "axes": AXES, "seeds": [0, 1], **changes}
        path = tmp_path / "grid.yaml"
        path.write_text(yaml.safe_dump(grid, sort_keys=False))
        return path

    return write


def quietly(grid, **options):
    """The result of an ablation, and what it printed."""
    with (console := Console(width=250)).capture() as printed:
        result = run_ablation(grid, console=console, **options)
    return result, printed.get()


def leave_run(folder, exact, *, areas=(100, 3000), config=""):
    """What a finished run leaves: one answer about a region of each area, exact or not."""
    folder.mkdir(parents=True, exist_ok=True)
    share = sum(exact) / len(exact)
    (folder / "metrics.json").write_text(json.dumps({"eval_loss": 1.0, "eval_exact_match": share, "warnings": []}))
    (folder / "run.json").write_text(json.dumps({"seconds": 2.0}))
    lines = [{"exact": bool(each), "area_px": area} for each, area in zip(exact, areas, strict=True)]
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(config)
    return folder


@pytest.fixture
def trained(monkeypatch):
    """Stands for the training: the run's folder is left as a finished one; `trained(cell)` may raise."""
    calls = []

    def train(config, console, **options):
        folder = Path(config.run.out)
        calls.append(folder.name)
        train.options.append(options)
        if folder.name in train.failing:
            raise RuntimeError("the machine is on fire")
        resolved = config.resolved(has_bf16=ablation.has_bf16(), recipe=ablation.choose_recipe(config))
        leave_run(folder, (config.optim.steps == 2, config.model.adapter == "saot"), config=resolved.to_yaml())
        return {"steps": config.optim.steps}

    train.failing = set()
    train.calls, train.options = calls, []
    monkeypatch.setattr(ablation, "run_training", train)
    return train


# -- cells -------------------------------------------------------------------------------------------------


def test_every_combination_is_a_cell_with_its_settings(grid_file):
    path = grid_file(settings={"optim.batch_size": 3, "model.adapter_config": {"num_tokens": 2}})
    cells = cells_of(Grid.load(path))
    assert [cell.name for cell in cells[:2]] == ["adapter pooling, steps 1, seed 0", "adapter pooling, steps 2, seed 0"]
    assert len({cell.folder for cell in cells}) == len(cells) == 8
    assert [cell.seed for cell in cells] == [0] * 4 + [1] * 4  # whole tables of fewer seeds come first
    last = cells[-1].config
    assert (last.model.adapter, last.model.adapter_config, last.optim.steps) == ("saot", {"num_tokens": 2}, 2)
    assert (last.optim.batch_size, last.optim.seed, last.run.out) == (3, 1, str(cells[-1].folder))
    assert cells[0].config.model.adapter_config is None


def test_finished_cells_are_not_trained_again(grid_file, trained):
    path = grid_file()
    quietly(Grid.load(path, ["seeds=[0]"]))
    assert len(trained.calls) == 4
    result, printed = quietly(Grid.load(path))
    assert len(trained.calls) == 8
    assert "8 cells, 4 finished" in printed
    assert {cell["state"] for cell in result["cells"]} == {"finished"}
    quietly(Grid.load(path))
    assert len(trained.calls) == 8


def test_a_cell_of_other_settings_is_refused_or_trained_again(grid_file, trained):
    quietly(Grid.load(grid_file()))
    changed = Grid.load(grid_file(settings={"optim.batch_size": 3}))
    with pytest.raises(ValueError, match=r"trained with other settings.*--overwrite"):
        quietly(changed)
    quietly(changed, overwrite=True)
    assert len(trained.calls) == 16
    assert trained.options[-1] == {"resume": False, "overwrite": True}


def test_a_cell_that_was_stopped_is_gone_on_with(grid_file, trained):
    grid = Grid.load(grid_file(seeds=[0]))
    quietly(grid)
    stopped = cells_of(grid)[1].folder
    (stopped / "metrics.json").unlink()
    quietly(grid)
    assert (trained.calls[4:], trained.options[-1]) == ([stopped.name], {"resume": True, "overwrite": False})
    (stopped / "metrics.json").unlink()
    with pytest.raises(ValueError, match="trained with other settings"):  # though it is not finished
        quietly(Grid.load(grid_file(seeds=[0], settings={"optim.batch_size": 3})))


def test_a_cell_that_fails_is_listed_and_the_others_go_on(grid_file, trained, tmp_path):
    trained.failing = {"pooling,1,seed-0"}
    result, printed = quietly(Grid.load(grid_file()))
    assert len(trained.calls) == 8
    (cell,) = [each for each in result["cells"] if each["state"] == "failed"]
    assert cell["error"] == "the machine is on fire"
    assert "failed: adapter pooling, steps 1, seed 0: the machine is on fire" in printed
    assert [row["seeds"] for row in result["rows"]] == [[0, 1], [0, 1], [0, 1], [1]]
    assert "pooling,1,seed-0: failed. the machine is on fire" in (tmp_path / "out" / "ablation.md").read_text()
    trained.failing = set()
    assert {cell["state"] for cell in quietly(Grid.load(grid_file()))[0]["cells"]} == {"finished"}
    assert len(trained.calls) == 9


def test_an_interruption_stops_the_grid(grid_file, monkeypatch, tmp_path):
    monkeypatch.setattr(ablation, "run_training", lambda config, **options: {"interrupted": 3, "resumable": True})
    result, _ = quietly(Grid.load(grid_file()))
    assert result == {"interrupted": "adapter pooling, steps 1, seed 0"}
    assert not (tmp_path / "out" / "ablation.json").exists()


def test_a_dry_run_lists_cells_and_writes_nothing(grid_file, trained, tmp_path):
    result, printed = quietly(Grid.load(grid_file()), dry_run=True)
    assert len(result["cells"]) == 8
    assert "to train: adapter SAOT, steps 2, seed 1" in printed
    assert not trained.calls
    assert not (tmp_path / "out").exists()


# -- figures -----------------------------------------------------------------------------------------------


def cell(labels, seed, **figures):
    return FinishedCell(labels, seed, figures, 1.0)


def test_small_and_large_regions_are_told_apart(tmp_path):
    leave_run(tmp_path / "run", (1, 0, 0), areas=(2000, 1999, None))
    figures = FinishedCell.read(tmp_path / "run", {}, 0, small_px=2000).figures
    assert figures["exact_match"] == pytest.approx(1 / 3)
    assert (figures["exact_match_small"], figures["exact_match_large"]) == (0, 1)
    assert figures["exact_match_large_less_small"] == 1
    leave_run(tmp_path / "run", (1, 0), areas=(5, 6))
    assert "exact_match_small" not in FinishedCell.read(tmp_path / "run", {}, 0, small_px=2000).figures


def test_means_have_student_s_intervals():
    mean = Mean.of([1.0, 2.0, 3.0])
    assert (mean.mean, mean.low, mean.high) == pytest.approx((2.0, 2 - 4.303 / math.sqrt(3), 2 + 4.303 / math.sqrt(3)))
    assert math.isnan(Mean.of([1.0]).low)
    assert Mean.of([1.0]).as_record() == {"values": (1.0,), "mean": 1.0, "low": None, "high": None}
    assert Mean.of([1.0, 2.0] * 20).high == pytest.approx(1.5 + 1.96 * 0.50637 / math.sqrt(40), abs=1e-4)


def test_rows_keep_the_figures_that_all_seeds_have():
    (row,) = rows_of([cell({"a": "x"}, 0, f=1.0, g=2.0), cell({"a": "x"}, 1, f=3.0)], ["a"])
    assert row.seeds == (0, 1)
    assert {name: mean.mean for name, mean in row.figures.items()} == {"f": 2.0}


@pytest.mark.parametrize(
    ("more", "less", "expected"),
    [
        ((3, 4, 5), (1, 2, 3.1), "holds"),
        ((1, 2, 3.1), (3, 4, 5), "the reverse holds"),
        ((1, 5, 1), (2, 2, 2), "not decided"),
        ((5,), (1,), "not decided"),
        ((5, 6, 7), (1, 2, 3), "not decided"),  # differences that are all the same tell nothing of chance
        ((), (1,), "not run"),
    ],
)
def test_cells_are_compared_with_those_alike_in_all_else(more, less, expected):
    cells = [cell({"kind": "new", "size": str(i)}, 7, f=value) for i, value in enumerate(more)]
    cells += [cell({"kind": "old", "size": str(i)}, 7, f=value) for i, value in enumerate(less)]
    cells += [cell({"kind": "old", "size": "0"}, 8, f=1e9)]  # of another seed
    found = compared(cells, Comparison({"kind": "new"}, {"kind": "old"}, "f"))
    assert found.verdict == expected
    if found.difference is not None:
        assert found.difference.values == tuple(a - b for a, b in zip(more, less, strict=False))


def test_tables_have_settings_in_rows_and_figures_in_columns(grid_file, trained, tmp_path):
    compare = [{"more": {"adapter": "SAOT"}, "less": {"adapter": "pooling"}, "about": "Table 8"}]
    quietly(Grid.load(grid_file(compare=compare, figures=["exact_match", "exact_match_small"], title="A | B")))
    text = (tmp_path / "out" / "ablation.md").read_text()
    assert text.startswith("# A | B\n")
    assert "| adapter | steps | seeds | exact match | exact match small |" in text
    assert "| pooling | 2 | 2 | 50.0 | 100.0 |" in text
    assert "| SAOT | pooling | exact match | Table 8 | +50.0 | not decided |" in text
    record = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert record["comparisons"][0]["verdict"] == "not decided"
    assert len(record["cells"]) == 8
    assert record["hardware"]["cores"]


# -- what is wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"axis": {}}, r"axis: there is no such key. Did you mean 'axes'"),
        ({"axes": {}}, r"axes: "),
        ({"axes": {"a": {}}}, r"axes\.a: must have a value"),
        ({"axes": {"a": {"x y": {}, "x/y": {}}}}, r"axes\.a: must have values that differ"),
        ({"axes": {"a": {"/": {}}}}, r"axes\.a: must have values that differ"),
        ({"seeds": [1, 1]}, r"seeds: must differ, got \[1, 1\]"),
        ({"seeds": []}, r"seeds: "),
        ({"seeds": list(range(5000))}, r"axes: make 20,000 cells"),
        (
            {"compare": [{"more": {"adapter": "saot"}, "less": {"adapter": "pooling"}}]},
            r"compare\.0\.more\.adapter: must be a value of an axis \(.*adapter SAOT.*got 'saot'",
        ),
        (
            {"compare": [{"more": {"adapter": "SAOT"}, "less": {"steps": "1"}}]},
            r"compare\.0: must name the same axes",
        ),
    ],
)
def test_a_grid_that_is_wrong_is_refused(grid_file, changes, match):
    with pytest.raises(ValueError, match=match):
        Grid.load(grid_file(**changes))


def test_a_cell_s_configuration_is_checked_before_anything_trains(grid_file, trained):
    grid = Grid.load(grid_file(axes={"steps": {"one": {"optim.steps": 1}, "many": {"optim.stepz": 2}}}))
    with pytest.raises(ValueError, match=r"cell 'steps many': .*optim\.stepz.*Did you mean 'steps'"):
        quietly(grid)
    assert not trained.calls


def test_the_command_tells_what_is_wrong(tmp_path):
    (tmp_path / "grid.yaml").write_text("base: nowhere.yaml\nout: x\naxes: {a: {b: {}}}\n")
    assert "nowhere.yaml' cannot be read" in error_of(run_command("ablate", tmp_path / "grid.yaml"))


def test_the_command_says_by_its_exit_code_that_a_cell_failed(grid_file, trained):
    path = grid_file()
    trained.failing = {"SAOT,2,seed-1"}
    assert run_command("ablate", path).exit_code == 1
    trained.failing = set()
    result = run_command("ablate", path, "--tables")
    assert (result.exit_code, len(trained.calls)) == (0, 8)
    assert "SAOT,2,seed-1: not trained" in result.output


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """The folder above the data of the examples, of two pictures each."""
    folder = tmp_path_factory.mktemp("tasks")
    for name in TASKS:
        write_task(folder / "ablation-data", name, pictures=2, held_out=2)
    return folder


@pytest.mark.parametrize("name", TASKS)
def test_the_data_of_the_examples_can_be_read(name, tasks):
    for file in FILES.values():
        dataset = RegionDataset.open(tasks / "ablation-data" / name / file)
        sample = dataset[1]
        assert len(sample.regions) == len(sample.messages) / 2 > 1
        assert "<region>" in sample.messages[0]["content"][-1]["text"]
        assert len(sample.paths) == 1


@pytest.mark.parametrize("name", ["table7", "table8", "table9", "backbones"])
def test_the_examples_are_sound(name, tasks, monkeypatch):
    monkeypatch.chdir(tasks)
    for task in TASKS:
        grid = Grid.load(EXAMPLES / f"{name}.yaml", [f"base={task}.yaml"])
        assert len(cells_of(grid)) == 3 * math.prod(map(len, grid.axes.values()))
        assert grid.compare


@pytest.mark.slow
def test_a_grid_is_trained_and_goes_on(grid_file, tmp_path):
    path = grid_file(axes={"adapter": AXES["adapter"]}, settings={"optim.steps": 2}, seeds=[0])
    result, _ = quietly(Grid.load(path))
    assert [each["state"] for each in result["cells"]] == ["finished"] * 2
    assert result["rows"][0]["figures"]["exact_match"]["low"] is None
    before = {each: each.stat().st_mtime_ns for each in (tmp_path / "out" / "cells").glob("*/metrics.json")}
    again, printed = quietly(Grid.load(path))
    assert "2 cells, 2 finished" in printed
    assert {each: each.stat().st_mtime_ns for each in before} == before
    assert again["rows"] == result["rows"]
