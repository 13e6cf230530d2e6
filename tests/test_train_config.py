"""A run's configuration: what is wrong with it is told before anything is loaded, all at once, key by key."""

import contextlib
import copy
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from training_runs import install_stencil, stencil_with

from pixelrefer_plugin import PluginError, get_adapter
from pixelrefer_plugin.authoring import AdapterRecipe
from pixelrefer_plugin.errors import ConfigError
from pixelrefer_plugin.training import yaml_file
from pixelrefer_plugin.training.building import choose_recipe
from pixelrefer_plugin.training.config import TrainConfig, config_keys
from pixelrefer_plugin.training.recipes import RECIPES, recipes_for
from pixelrefer_plugin.training.yaml_file import read_yaml

ROOT = Path(__file__).parent.parent
RECIPE_FILES = sorted((ROOT / "examples" / "recipes").glob("*.yaml"))

SMALLEST = """\
model:
  backbone: builtin:tiny_videollama3
  adapter: saot
data:
  train: train.jsonl
run:
  out: runs/test
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A current folder with the files that configurations name."""
    monkeypatch.chdir(tmp_path)
    for name in ("train", "held-out", "objects", "parts", "conversations"):
        (tmp_path / f"{name}.jsonl").write_text("{}\n")
    for run in ("stage1", "unipixel1", "unipixel2"):
        (tmp_path / "runs" / run / "model").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def load(folder):
    """Loads YAML text with settings written over it."""

    def load(text=SMALLEST, *settings):
        (folder / "run.yaml").write_text(text)
        return TrainConfig.load("run.yaml", settings)

    return load


@pytest.fixture
def refused(load):
    """The lines of the error that a configuration is refused with."""

    def refused(text=SMALLEST, *settings):
        with pytest.raises(ConfigError) as caught:
            load(text, *settings)
        return str(caught.value).splitlines()

    return refused


def test_the_smallest_file_is_enough(load):
    config = load()
    assert config.recipe == "lora"
    assert config.data.train[0].path == "train.jsonl"
    assert config.data.eval == ()


@pytest.mark.parametrize("path", RECIPE_FILES, ids=lambda path: path.stem)
def test_the_recipes_that_ship_load(path):
    config = TrainConfig.load(path)
    assert config.recipe == {"qlora": "lora"}.get(path.stem, path.stem)


def test_every_recipe_has_a_file():
    assert {path.stem for path in RECIPE_FILES} == {*RECIPES, "qlora", *get_adapter("unipixel").recipes}


def test_written_out_it_reads_back_the_same(load, folder):
    config = load(SMALLEST, "data.frames.fps=2", "learning_rates.lora=3e-4", "model.tokens=['<a>', '<b>']")
    (folder / "again.yaml").write_text(config.to_yaml())
    assert TrainConfig.load("again.yaml") == config
    assert TrainConfig.from_mapping(config.model_dump()) == config


def test_everything_wrong_is_told_at_once_with_its_line(refused):
    text = """\
model:
  bakbone: x
  adapter: 3
batch_size: 4
data:
  train: [train.jsonl, {path: train.jsonl, wieght: 2}]
  workers: two
optim:
  batch_size: true
lora: {r: 0}
"""
    lines = refused(text)
    for expected in (
        r"^run\.yaml line 2: model\.bakbone: .*Did you mean 'backbone'\?",
        r"^run\.yaml line 1: model\.backbone: is missing\. Hub id or folder",
        r"^run\.yaml line 3: model\.adapter: must be a text, got 3\.",
        r"^run\.yaml line 4: batch_size: .*Did you mean 'optim\.batch_size'\?",
        r"^run\.yaml line 6: data\.train\.1\.wieght: .*Did you mean 'weight'\?",
        r"^run\.yaml line 7: data\.workers: must be a whole number, got 'two'\.",
        r"^run\.yaml line 9: optim\.batch_size: must be a whole number, got True\.",
        r"^run\.yaml line 10: lora\.r: must be greater than or equal to 1, got 0\.",
        r"^run\.yaml: run: is missing\. Keys of it: out, ",
    ):
        assert any(re.match(expected, line) for line in lines), (expected, lines)
    assert len(lines) == 9


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["model.backbone=''"], "model.backbone: must be an id or a path, got ''."),
        (["run.push_to_hub=a b/c"], "run.push_to_hub: must be the id of a repository, such as 'user/name', got"),
        (["optim.xyz=1"], "'optim.xyz=1': optim.xyz: there is no such key. Keys here: epochs, steps"),
        (["optim.epochs=0"], "optim.epochs: must be greater than 0, got 0"),
        (["optim.epochs=.nan"], "optim.epochs: must be a finite number"),
        (["optim.epochs=1", "optim.steps=2"], "optim.steps: excludes epochs, got both"),
        (["optim.batch_size=4", "optim.global_batch_size=6"], "must be a multiple of batch_size (4), got 6"),
        (["learning_rates.decoder=1e-5"], "recipe 'lora' does not train it. Groups that it trains: adapter, lora"),
        (["learning_rates.adaptor=1e-5"], "learning_rates.adaptor: must be 'adapter', 'lora'"),
        (["learning_rates.lora=3"], "learning_rates.lora: must be less than 1, got 3"),
        (["learning_rates.adapter.cut=0"], "learning_rates.adapter.cut: must be greater than 0, got 0"),
        (["recipe=lroa"], "recipe: must be 'lora', 'stage1', 'stage2', 'adapter_only', 'full', got 'lroa'"),
        (["recipe=lroa", "model.adapter=saott"], "model.adapter: No adapter is called 'saott'"),
        (["recipe=full", "model.quantize=nf4"], "model.quantize: needs a frozen decoder"),
        (["recipe=full", "lora.r=4"], "lora: is for recipes that add LoRA, got recipe 'full'"),
        (["recipe=adapter_only", "model.tokens=['<a>']"], "model.tokens: recipe 'adapter_only' trains no token rows"),
        (["run.eval_every=5"], "run.eval_every: needs held-out data"),
        (["data.train=nowhere.jsonl"], "data.train.0.path: expected a file at 'nowhere.jsonl', found none"),
        (["data.eval=[train.jsonl, no.jsonl]"], "data.eval.1.path: expected a file at 'no.jsonl'"),
        ([f"data.eval={'no/' * 900}x.jsonl"], "data.eval.0.path: expected a file at 'no/no/"),
        (["data.train=[]"], "data.train: must have at least 1 item"),
        (["data.train=null"], "data.train: must be a list, got None"),
        (["data.frames={fps: 1, num_frames: 2}"], "data.frames: FrameSampling takes num_frames or fps, got both"),
        (["data.on_long_sample=skip"], "data.on_long_sample: 'skip' needs data.max_tokens"),
        (["data.min_pixels=9", "data.max_pixels=4"], "data.min_pixels: must be at most max_pixels (4), got 9"),
        (["model.backbone=./nowhere"], "model.backbone: expected a folder at './nowhere', found none"),
        (["run.out=train.jsonl"], "run.out: must be a folder, but 'train.jsonl' is a file"),
        (["lora.scopes=[decodr]"], "lora.scopes.0: must be 'decoder', 'projector' or 'vision_tower', got 'decodr'"),
        (["run=3"], "'run=3': run: must hold keys (out, log_every"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_one_wrong_value_is_one_line(refused, settings, expected):
    (line,) = refused(SMALLEST, *settings)
    assert expected in line
    assert len(line) < 1000


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("optim.epochs", "Expected key=value, such as optim.epochs=2, got 'optim.epochs'"),
        ("=3", "Expected key=value"),
        ("optim.epochs=[1", "is no valid YAML"),
        ("model.backbone.path=x", "'model.backbone' is 'builtin:tiny_videollama3' and holds no keys"),
        ("data.train.0.path=x", "'data.train' is 'train.jsonl' and holds no keys"),
    ],
)
def test_malformed_settings(refused, setting, expected):
    assert expected in refused(SMALLEST, setting)[0]


def test_settings_reach_into_lists(load, refused):
    text = SMALLEST.replace("train.jsonl", "[{path: train.jsonl}, {path: parts.jsonl}]")
    assert load(text, "data.train.1.weight=0.5").data.train[1].weight == 0.5
    assert "expected a number below 2, got '2'" in refused(text, "data.train.2.weight=0.5")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: [2\n", r"run\.yaml' line 3 is no valid YAML"),
        ("recipe: lora\nrecipe: full\n", r"run\.yaml' line 2 is no valid YAML: key 'recipe' is given twice"),
        ("- a\n", r"must hold keys and values.*got \['a'\]"),
        ("a: !!python/object:os.system {}\n", "is no valid YAML: could not determine a constructor"),
        ("run:\n  out: {{ out }}\n", r"run\.yaml' line 2 is no valid YAML: \{'out': None\} cannot be a key"),
        ("model: &a {backbone: *a}\n", "is no valid YAML: a value contains itself"),
        (f"a: {'[' * 2000}", "is no valid YAML: maximum recursion depth"),
        (f"a: {'9' * 5000}\n", "is no valid YAML: Exceeds the limit"),
    ],
    ids=["syntax", "twice", "a list", "code", "template", "endless", "deep", "long number"],
)
def test_files_that_are_no_configuration(refused, text, expected):
    assert re.search(expected, refused(text)[0])


def test_merge_keys_are_read(load):
    text = SMALLEST.replace(
        "train: train.jsonl", "train: [&first {path: train.jsonl, weight: 2}, {<<: *first, limit: 3}]"
    )
    first, second = load(text).data.train
    assert second == first.model_copy(update={"limit": 3})


def test_a_file_that_is_missing_or_no_text(folder):
    with pytest.raises(ConfigError, match="'nowhere.yaml' cannot be read: No such file"):
        TrainConfig.load("nowhere.yaml")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="'binary.yaml' cannot be read"):
        TrainConfig.load("binary.yaml")


@pytest.mark.parametrize("number", ["1e-3", "1E-3", "0.001", "1.0e-3", ".001"])
def test_numbers_are_numbers_however_written(load, number):
    assert load(SMALLEST, f"learning_rates.lora={number}").learning_rates == {"lora": 0.001}


def test_what_looks_like_a_date_is_a_text(folder):
    (folder / "dates.yaml").write_text("out: 2026-11-21\n")
    assert read_yaml(folder / "dates.yaml").values == {"out": "2026-11-21"}


@pytest.mark.parametrize(
    ("recipe", "has_bf16", "precision", "dtype"),
    [
        ("lora", True, "bf16", "bfloat16"),
        ("lora", False, "fp32", "float32"),
        ("full", True, "bf16", "float32"),  # small steps on bfloat16 weights would be rounded away
    ],
)
def test_auto_is_resolved(load, recipe, has_bf16, precision, dtype):
    resolved = load(SMALLEST, f"recipe={recipe}").resolved(has_bf16=has_bf16)
    assert (resolved.optim.precision, resolved.model.dtype) == (precision, dtype)
    given = load(SMALLEST, "optim.precision=fp32", "model.dtype=float16").resolved(has_bf16=has_bf16)
    assert (given.optim.precision, given.model.dtype) == ("fp32", "float16")


# -- recipes that an adapter brings ---------------------------------------------------------------------------


@pytest.fixture
def own_recipes(monkeypatch):
    """An installed adapter, `stencil`, with two recipes."""
    install_stencil(monkeypatch)


STENCIL = "model.adapter=stencil"


def test_a_recipe_of_the_adapter_is_taken_by_name(load, own_recipes):
    config = load(SMALLEST, STENCIL, "recipe=shapes")
    assert choose_recipe(config).rates == {"adapter.cut": 1e-3, "token_rows": 1e-3}
    assert choose_recipe(config).lora == {"r": 4, "alpha": 8}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["recipe=shape"], r"recipe: must be 'lora', .*, 'full', 'shapes', 'all', got 'shape'"),
        (
            ["recipe=shapes", "learning_rates.lora=1e-4"],
            "recipe 'shapes' does not train it. .*: adapter.cut, token_rows",
        ),
        (
            ["recipe=shapes", "learning_rates.adapter=1e-4"],
            r"learning_rates\.adapter: recipe 'shapes' does not train it",
        ),
        (["recipe=all", "model.tokens=['<a>']"], "recipe 'all' trains no token rows"),
        (["recipe=all", "lora.r=4"], "lora: is for recipes that add LoRA, got recipe 'all'"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_what_does_not_go_with_the_adapter_s_recipe(refused, own_recipes, settings, expected):
    (line,) = refused(SMALLEST, STENCIL, *settings)
    assert re.search(expected, line), line


def test_the_recipe_of_a_hub_model_is_checked_when_it_is_there(load, monkeypatch):
    config = load(SMALLEST, "model.adapter=null", "model.backbone=somebody/model", "recipe=shapes")
    monkeypatch.setattr("pixelrefer_plugin.weights.hub.find_model_folder", lambda source, options: None)
    with pytest.raises(PluginError, match=r"Write model\.adapter=NAME with one of .*maskpool, "):
        choose_recipe(config)
    monkeypatch.setattr("pixelrefer_plugin.training.building._adapter_name", lambda section: "saot")
    with pytest.raises(ConfigError, match=r"recipe: must be 'lora', .*'full', got 'shapes'"):
        choose_recipe(config)


def test_a_plain_backbone_s_adapter_is_named(refused):
    (line,) = refused(SMALLEST, "model.adapter=null")
    assert "model.adapter: A plain backbone needs an adapter" in line
    assert "Write model.adapter=NAME with one of the installed adapters: " in line


def test_parts_of_the_adapter_have_rates_of_their_own(load, own_recipes):
    config = load(SMALLEST, STENCIL, "recipe=all", "learning_rates.adapter.cut=1e-4", "learning_rates.adapter.eye=null")
    assert config.learning_rates == {"adapter.cut": 1e-4, "adapter.eye": None}
    flat = load(SMALLEST, STENCIL, "recipe=all", "learning_rates={adapter.cut: 1e-4, adapter.eye: null}")
    assert flat == config == TrainConfig.from_mapping(yaml.safe_load(config.to_yaml()))
    deeper = load(SMALLEST, STENCIL, "recipe=all", "learning_rates.adapter.region.mlp.0=null")
    assert deeper.learning_rates == {"adapter.region.mlp.0": None}


@pytest.mark.parametrize(
    "settings",
    [
        ("learning_rates.adapter.cut=null", "learning_rates.adapter=1e-4"),
        ("learning_rates.adapter=1e-4", "learning_rates.adapter.cut=null"),
        ("learning_rates={adapter: 1e-4, adapter.cut: 1e-3}", "learning_rates.adapter.cut=null"),
    ],
    ids=["part first", "whole first", "over what a file says"],
)
def test_a_rate_of_a_part_and_that_of_the_whole_stand_side_by_side(load, own_recipes, settings):
    config = load(SMALLEST, STENCIL, "recipe=all", *settings)
    assert config.learning_rates == {"adapter": 1e-4, "adapter.cut": None}


def test_lora_is_as_the_recipe_has_it_where_the_user_says_nothing(load, own_recipes):
    config = load(SMALLEST, STENCIL, "recipe=shapes", "lora.alpha=16")
    resolved = config.resolved(has_bf16=False, recipe=choose_recipe(config))
    assert resolved.lora.model_dump() == {
        "r": 4, "alpha": 16, "dropout": 0.0, "scopes": ("decoder",), "targets": None,
    }  # fmt: skip
    again = TrainConfig.from_mapping(yaml.safe_load(resolved.to_yaml()))
    assert again.resolved(has_bf16=False, recipe=choose_recipe(again)) == resolved
    assert load(SMALLEST).resolved(has_bf16=False).lora.r == 16


def test_defaults_that_are_written_out_are_not_refused(load):
    """As files have them that a run without LoRA wrote."""
    written = "lora={r: 16, alpha: 32, dropout: 0.0, scopes: [decoder], targets: null}"
    assert load(SMALLEST, "recipe=full", written).recipe == "full"


@pytest.mark.parametrize(
    ("name", "recipe", "expected"),
    [
        ("lora", AdapterRecipe(about="", rates={"adapter": 1e-3}), "brings a recipe 'lora', which there is already"),
        ("rows", AdapterRecipe(about="", rates={"token_rows": 1e-3}), "trains token_rows, but adds no LoRA"),
        (
            "odd",
            AdapterRecipe(about="", rates={"adaptor": 1e-3}),
            "'odd' of adapter 'stencil' has a rate for 'adaptor'",
        ),
        ("rank", AdapterRecipe(about="", rates={"lora": 1e-3}, lora={"rank": 8}), "has no option 'rank'"),
    ],
)
def test_recipes_that_no_adapter_may_bring(name, recipe, expected):
    with pytest.raises(PluginError, match=expected):
        recipes_for(stencil_with({name: recipe}))


def test_each_key_is_explained():
    keys = [dotted for dotted, _ in config_keys()]
    written = yaml.safe_load(TrainConfig.from_mapping(yaml.safe_load(SMALLEST)).to_yaml())
    for section, values in written.items():
        leaves = values if section in ("model", "lora", "optim", "run", "evaluation", "data") else [None]
        for leaf in leaves:
            assert (f"{section}.{leaf}" if leaf else section) in keys


def test_reading_a_configuration_imports_nothing_heavy():
    code = "import sys, pixelrefer_plugin.training.config; print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("setting", "adapter_config"),
    [
        ("model.adapter_config=official", "official"),
        ("model.adapter_config={preset: official, num_tokens: 8}", {"preset": "official", "num_tokens": 8}),
    ],
)
def test_a_preset_of_the_adapter_may_be_named(load, setting, adapter_config):
    assert load(SMALLEST, setting).model.adapter_config == adapter_config


# -- hostile files ----------------------------------------------------------------------------------------------

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
)
MERGE_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}\n" for level in range(1, 9)
)


@pytest.mark.parametrize("bomb", [BOMB, MERGE_BOMB, BOMB + "*a8 : 1\n"], ids=["lists", "merge keys", "a key"])
def test_aliases_of_aliases_are_not_written_out(refused, bomb):
    assert re.search(r"run\.yaml' line \d+ is no valid YAML: more than 100,000 values", refused(bomb)[0])


@pytest.mark.parametrize(
    "value",
    [
        "!!bool maybe", "!!int ''", "!!int x", "!!int '0x'", "!!float ''", "!!float x", "!!int '1:'", "!!null [1]",
        "!!python/name:os.system", "!!python/object/apply:os.system [ls]", "!!binary x", "!!binary AAAA",
        "!!timestamp x", "!!timestamp 2001-01-01", "!!set {a}", "!!omap [1]", "!!omap [a: 1]", "!!pairs [a: 1]",
        "!!seq {a: 1}", "!!map [1]", "!!str [1]", "!!int [1]", "!!unheard x", "!own x", f"!!int {'1:' * 3000}1",
        f"0x{'f' * 5000}", "9" * 101, '"\\ud800"', '"\\0"', "&a [*a]", "{? [a] : 1}", "{? {a: 1} : 1}",
    ],
    ids=lambda value: value[:30],
)  # fmt: skip
def test_values_that_are_none_are_told_with_their_line(refused, value):
    (line,) = refused(f"recipe: lora\nlora: {value}\n")
    assert re.match(r"'run\.yaml' line 2 is no valid YAML: .", line), line
    assert len(line) < 300
    (line,) = refused(SMALLEST, f"lora={value}")
    assert "is no valid YAML: ." not in line


def test_plain_tags_are_read(folder):
    (folder / "tags.yaml").write_text(
        "a: !!int '3'\nb: !!float 2\nc: !!bool yes\nd: !!str 5\ne: !!null ''\nf: !!seq []\n"
    )
    values = read_yaml(folder / "tags.yaml").values
    assert values == {"a": 3, "b": 2.0, "c": True, "d": "5", "e": None, "f": []}


def test_a_pipe_is_read_while_somebody_writes_to_it(folder, monkeypatch):
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_text(SMALLEST))
    writer.start()
    assert TrainConfig.load("pipe").recipe == "lora"
    writer.join()
    monkeypatch.setattr(yaml_file, "_MOST_WAIT_S", 0.05)
    with pytest.raises(ConfigError, match=r"'pipe' cannot be read: it is a pipe to which nobody has written"):
        TrainConfig.load("pipe")


@pytest.mark.parametrize(("path", "why"), [("/dev/zero", "no regular file"), (".", "Is a directory")])
def test_what_is_no_file_is_not_read(path, why):
    with pytest.raises(ConfigError, match=f"cannot be read: .*{why}"):
        TrainConfig.load(path)


def test_a_file_without_end_is_not_read(folder):
    with open("large.yaml", "wb") as file:
        file.truncate(10**10)
    with pytest.raises(ConfigError, match="it has more than 524,288 characters"):
        TrainConfig.load("large.yaml")


ODD = [
    None, True, 0, -1, 1, 2**31, 2**63, 10**99, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x", "x" * 5000,
    "/" + "x" * 300, "..", "~", "a\nb", "\u202e", [], [1], ["x"], [[]], [None], {}, {"x": 1}, {"": None}, {"path": "x"},
    {"x" * 300: 1}, [{"path": ["x"]}],
]  # fmt: skip


@pytest.mark.parametrize("key", [key for key, _ in config_keys()])
def test_any_value_of_a_key_is_taken_or_told(load, key):
    document = yaml.safe_load(SMALLEST)
    for value in ODD:
        changed = copy.deepcopy(document)
        changed["data"]["train"] = [{"path": "train.jsonl"}]
        *above, last = [
            int(part) if part == "0" else part for part in key.replace("data.train.", "data.train.0.").split(".")
        ]
        holder = changed
        for part in above:
            holder = holder[part] if isinstance(part, int) else holder.setdefault(part, {})
        holder[last] = value
        with contextlib.suppress(ConfigError):
            TrainConfig.from_mapping(changed).resolved(has_bf16=False, recipe=RECIPES["lora"])


def test_of_very_many_problems_the_first_are_told(refused):
    lines = refused("\n".join(f"key{number}: 1" for number in range(3000)))
    assert len(lines) == 51
    assert lines[-1].endswith("and 2953 more.")


def test_a_misspelt_value_is_put_right(refused):
    assert "Did you mean 'tensorboard'?" in refused(SMALLEST, "run.report_to=[tensorbord]")[0]
    assert "Did you mean 'lora'?" in refused(SMALLEST, "recipe=lroa")[0]
    assert "Did you mean 'bfloat16'?" in refused(SMALLEST, "model.dtype=bfloat")[0]
    assert "less than or equal to 8192" in refused(SMALLEST, "lora.r=1000000000")[0]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda each: st.lists(each) | st.dictionaries(st.text(), each),
        max_leaves=20,
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_tree_is_taken_or_told(value):
    with contextlib.suppress(ConfigError):
        TrainConfig.from_mapping({"model": value, "data": value, "run": value, "lora": value, "learning_rates": value})


@given(st.text(alphabet="&*a0: -[]{}!?|>'\"\n,<%@~.1", max_size=60))
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_text_is_taken_or_told(text):
    path = Path("any.yaml")
    path.write_text(text)
    with contextlib.suppress(ConfigError):
        read_yaml(path)
