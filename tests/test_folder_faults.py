"""Model folders that are damaged or hostile: faults have names, nothing in them runs, sizes are bounded first."""

import json
import os
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixelrefer_plugin import (
    CheckpointError,
    PixelReferError,
    PromptError,
    RegionModel,
    RegionProcessor,
    attach,
    get_adapter,
    get_backbone,
    load,
)
from pixelrefer_plugin.weights.loading import load_backbone, load_native_processor, require_loadable

QUESTION = [{"role": "user", "content": "What is it?"}]


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A folder with all parts: adapter, LoRA, rows of tokens, backbone and processor."""
    backbone, native = get_backbone("videollama3").tiny(0)
    model, processor = attach(
        backbone, native, adapter="saot", adapter_config=get_adapter("saot").tiny, train_backbone=True
    )
    model.add_lora(r=2, token_ids=(5, 6))
    folder = tmp_path_factory.mktemp("sound") / "model"
    model.save_pretrained(folder, processor)
    model.detach()
    return folder


@pytest.fixture
def folder(sound, tmp_path):
    return shutil.copytree(sound, tmp_path / "model")


def edit(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def opened(folder):
    """Open a folder in all ways, and use what comes out; raises what is no error of this package."""
    told = []
    for way in (RegionProcessor.from_pretrained, RegionModel.from_pretrained, load):
        try:
            made = way(folder)
        except PixelReferError as error:
            told.append(str(error))
            continue
        processors = [each for each in (made if isinstance(made, tuple) else [made]) if hasattr(each, "decode")]
        for processor in processors:
            try:
                processor(QUESTION)
            except PixelReferError as error:
                told.append(str(error))
    return told


# -- damage ------------------------------------------------------------------------------------------------


def cut(path, draw):
    os.truncate(path, draw.randrange(path.stat().st_size))


def scribble(path, draw):
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice((1, 8, 64))):
        data[draw.randrange(min(len(data), 4096))] = draw.randrange(256)
    path.write_bytes(data)


def remove(path, draw):
    path.unlink()


def make_folder(path, draw):
    path.unlink()
    path.mkdir()


def make_link_to_itself(path, draw):
    path.unlink()
    path.symlink_to(path)


def make_list(path, draw):
    path.write_text(
        draw.choice(("[]", "null", "5", '"x"', "", "{}", "[" * 5000, "\ud83d".encode("utf-8", "replace").decode()))
    )


VALUES = (None, -1, 0, 1.5, 10**30, "", "x" * 1000, [], {}, [[[[["x"]]]]], True, {"a": {"b": {}}}, [None], "../../x")


def change_value(path, draw):
    """One value anywhere in a JSON file becomes another."""
    value = json.loads(path.read_text())
    places = []

    def walk(at):
        for key in at if isinstance(at, dict) else range(min(len(at), 20)):
            places.append((at, key))
            if isinstance(at[key], dict | list):
                walk(at[key])

    walk(value)
    at, key = draw.choice(places)
    at[key] = draw.choice(VALUES)
    path.write_text(json.dumps(value))


ANY_FILE = (cut, scribble, remove, make_folder, make_link_to_itself)
OF_JSON = (make_list, change_value, change_value, change_value, change_value)


def damage(folder, seed):
    draw = random.Random(seed)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
    path = files[seed % len(files)]
    kinds = (*ANY_FILE, *(OF_JSON if path.suffix == ".json" else ()))
    kind = draw.choice(kinds)
    kind(path, draw)
    return f"{kind.__name__} of {path.relative_to(folder)}"


def check_seed(folder, seed):
    what = damage(folder, seed)
    try:
        told = opened(folder)
    except Exception as error:
        raise AssertionError(f"seed {seed}, {what}: {type(error).__name__}: {error}") from error
    assert all(len(text) < 3000 for text in told), what


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(8))
def test_damage_has_a_name(folder, seed):
    check_seed(folder, seed)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(8, 500))
def test_more_damage_has_a_name(folder, seed):
    check_seed(folder, seed)


@pytest.mark.parametrize("file", ["pixelrefer.json", "processor/tokenizer.json", "lora/adapter_config.json"])
def test_a_pipe_is_not_waited_for(folder, file):
    (folder / file).unlink()
    os.mkfifo(folder / file)
    assert all("no regular file" in text or "not one of" in text or "No model" in text for text in opened(folder))


# -- nothing runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "auto"),
    [
        ("processor/tokenizer_config.json", {"AutoTokenizer": ["evil.X", "evil.X"]}),
        ("processor/processor_config.json", {"AutoProcessor": "evil.X"}),
        ("processor/config.json", {"AutoConfig": "evil.X"}),
        ("backbone/config.json", {"AutoConfig": "evil.X", "AutoModel": "evil.X"}),
    ],
)
def test_code_in_a_folder_is_not_run_nor_asked_about(folder, tmp_path, file, auto, monkeypatch):
    ran = tmp_path / "ran"
    for name in ("processor", "backbone"):
        (folder / name / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\nclass X: pass\n")
    edit(folder / file, auto_map=auto, tokenizer_class="X", processor_class="X", model_type="evil")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    assert opened(folder)
    assert not ran.exists()


def test_a_pickle_is_not_run(folder, tmp_path):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {ran}",)

    (folder / "backbone/model.safetensors").unlink()
    torch.save({"w": Evil()}, folder / "backbone/pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be read"):
        RegionModel.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_backbone(folder / "backbone")
    assert not ran.exists()


def test_modules_that_lora_names_are_not_imported(folder, tmp_path, monkeypatch):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    edit(folder / "lora/adapter_config.json", megatron_config={"a": 1}, megatron_core="evil_module")
    with pytest.raises(CheckpointError, match="asks for 'megatron_config'"):
        RegionModel.from_pretrained(folder)
    library = {"parent_library": "evil_module", "base_model_class": "X"}
    edit(folder / "lora/adapter_config.json", megatron_config=None, auto_mapping=library)
    assert RegionModel.from_pretrained(folder).has_lora


def test_code_from_the_hub_is_refused(folder):
    with pytest.raises(CheckpointError, match="is never run here. Leave trust_remote_code out"):
        RegionModel.from_pretrained(folder, trust_remote_code=True)
    with pytest.raises(CheckpointError, match="is never run here. Leave trust_remote_code out"):
        load_native_processor(folder / "processor", trust_remote_code=True)
    with pytest.raises(CheckpointError, match="'evil/kernel' is code from the hub"):
        RegionModel.from_pretrained(folder, attn_implementation="evil/kernel")
    edit(folder / "backbone/config.json", attn_implementation="evil/kernel")
    edit(folder / "backbone/config.json", _attn_implementation="evil/kernel")
    with pytest.raises(CheckpointError, match="asks for attention of code from the hub, 'evil/kernel'"):
        RegionModel.from_pretrained(folder)


def test_a_processor_of_another_kind_is_refused(folder):
    edit(folder / "processor/processor_config.json", processor_class="Qwen2_5_VLProcessor")
    edit(folder / "processor/tokenizer_config.json", processor_class="Qwen2_5_VLProcessor")
    with pytest.raises(CheckpointError, match="Qwen2_5_VLProcessor.*not the processor .*'video_llama_3'"):
        RegionProcessor.from_pretrained(folder)


# -- sizes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"r": 10**9}, "rank is 1000000000, but the weights beside it have rank 2"),
        ({"r": 10**30}, "r must be a whole number"),
        ({"r": True}, "r must be a whole number"),
        ({"rank_pattern": {"q_proj": 10**8}}, "rank is 100000000, but the weights"),
        ({"rank_pattern": {"(a+)+$": 2}}, "rank_pattern must be whole numbers by the names of layers"),
        ({"alpha_pattern": {"(x|x)*y": 2}}, "alpha_pattern must be finite numbers"),
        ({"lora_alpha": 1e300}, "lora_alpha must be a finite number"),
        ({"lora_dropout": 1}, "lora_dropout must be a number from 0 to below 1"),
        ({"peft_type": "XLORA"}, "peft_type must be 'LORA', got 'XLORA'"),
        ({"bias": "all"}, "asks for 'bias'"),
        ({"modules_to_save": ["lm_head"]}, "asks for 'modules_to_save'"),
        ({"layer_replication": [[0, 10**9]]}, "asks for 'layer_replication'"),
        ({"trainable_token_indices": {"a": [10**9, 5]}}, r"ids \[1000000000\] are beyond"),
        ({"trainable_token_indices": {"a": [5] * 9}}, "names 9 rows of tokens, but"),
        ({"trainable_token_indices": {"a": [-1, 5]}}, "trainable_token_indices must be null"),
        ({"trainable_token_indices": {}}, "trainable_token_indices must be null"),
        ({"use_dora": "yes"}, "use_dora must be true or false"),
    ],
)
def test_what_lora_says_is_compared_with_its_weights(folder, values, message):
    edit(folder / "lora/adapter_config.json", **values)
    with pytest.raises(CheckpointError, match=message):
        RegionModel.from_pretrained(folder)


def test_patterns_of_targets_are_not_matched(folder):
    edit(folder / "lora/adapter_config.json", target_modules="(.*.*.*.*.*.*.*.*)*x")
    assert RegionModel.from_pretrained(folder).has_lora


@pytest.mark.parametrize("name", ["num_tokens", "large_patches", "context_patches", "max_patches", "kmeans_iterations"])
def test_options_of_an_adapter_are_bounded(folder, name):
    options = json.loads((folder / "pixelrefer.json").read_text())["adapter_config"]
    large = {"large_patches": 2**16, "max_patches": 2**18}
    edit(folder / "pixelrefer.json", adapter_config={**options, **large, name: 10**12})
    for way in (RegionModel.from_pretrained, RegionProcessor.from_pretrained):
        with pytest.raises(PixelReferError, match=f"{name} must be at most"):
            way(folder)


@pytest.mark.parametrize("label", ["{time_s:>999999999}", "{time_s.__class__}", "{0}", 5, "{time_s:{time_s}}"])
def test_a_frames_label_is_bounded(label):
    with pytest.raises(PixelReferError, match="frame_label must be a format string of time_s alone"):
        get_adapter("oci").make_config({"frame_label": label})


def test_an_adapter_is_not_made_larger_than_its_weights(tmp_path):
    backbone, native = get_backbone("qwen2_5_vl").tiny(0)
    options = get_adapter("unipixel").tiny
    model, processor = attach(backbone, native, adapter="unipixel", adapter_config=options, train_backbone=True)
    model.save_pretrained(tmp_path / "model", processor)
    config = json.loads((tmp_path / "model/pixelrefer.json").read_text())["adapter_config"]
    edit(tmp_path / "model/pixelrefer.json", adapter_config={**config, "prompt_tokens": 8192})
    with pytest.raises(CheckpointError, match="does not fit: 'mask_head.mlp.3.*expected"):
        RegionModel.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("name", ["num_hidden_layers", "num_attention_heads", "hidden_size", "vocab_size"])
@pytest.mark.parametrize("part", ["text_config", "vision_config"])
def test_sizes_of_a_backbone_are_bounded(folder, part, name):
    for place in ("processor", "backbone"):
        config = json.loads((folder / place / "config.json").read_text())
        edit(folder / place / "config.json", **{part: {**config[part], name: 10**10}})
    for way in (RegionModel.from_pretrained, RegionProcessor.from_pretrained):
        with pytest.raises(CheckpointError, match=f"says '{name}': 10000000000, above"):
            way(folder)


# -- weights -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["adapter.safetensors", "lora/adapter_model.safetensors"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused(folder, file, value):
    weights = load_file(folder / file)
    name = sorted(weights)[-1]
    weights[name].view(-1)[-1] = value
    save_file(weights, folder / file)
    with pytest.raises(CheckpointError, match="not finite .*Did its training diverge"):
        RegionModel.from_pretrained(folder)


@pytest.mark.parametrize("file", ["adapter.safetensors", "lora/adapter_model.safetensors"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float8_e4m3fn, torch.bool])
def test_weights_that_are_no_floats_are_refused(folder, file, dtype):
    save_file({name: each.to(dtype) for name, each in load_file(folder / file).items()}, folder / file)
    with pytest.raises(CheckpointError, match=f"is of {dtype}, expected torch.float32, or another type of floating"):
        RegionModel.from_pretrained(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_the_models_own(folder, dtype):
    file = folder / "adapter.safetensors"
    weights = {name: each.to(dtype) for name, each in load_file(file).items()}
    save_file(weights, file)
    for name, each in RegionModel.from_pretrained(folder).adapter.state_dict().items():
        assert each.dtype == torch.float32
        assert torch.equal(each, weights[name].float())


# -- options and packages ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attn_implementation": "spda"}, "no attention implementation 'spda', only eager.*Did you mean 'sdpa'"),
        ({"attn_implementation": {"text_config": "egaer"}}, "Did you mean 'eager'"),
        ({"attn_implementation": 5}, "no attention implementation 5"),
        ({"attn_implementation": "flash_attention_2"}, "needs the package flash-attn.*pip install flash-attn"),
        ({"load_in_4bit": True}, "needs bitsandbytes: pip install bitsandbytes"),
        ({"quantization_config": {"load_in_8bit": True}}, "needs bitsandbytes: pip install bitsandbytes"),
    ],
)
def test_options_that_cannot_hold_are_refused_before_loading(folder, options, message, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for way in (lambda: require_loadable(options), lambda: load(folder, **options)):
        with pytest.raises(CheckpointError, match=message):
            way()


def test_an_unknown_option_is_named(folder):
    with pytest.raises(CheckpointError, match="unexpected keyword argument 'dtpye'"):
        load(folder, dtpye="float32")


def test_merging_onto_a_base_in_four_bits_names_the_cause(pair, tmp_path, monkeypatch):
    pair.model.add_lora(r=2)
    pair.model.backbone.save_pretrained(tmp_path)
    monkeypatch.setattr(type(pair.model.backbone), "is_quantized", True, raising=False)
    pair.model.backbone.name_or_path = str(tmp_path)
    with pytest.raises(PixelReferError, match="Load the folder unquantized"):
        pair.model.merge_lora()
    edit(tmp_path / "config.json", quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(PixelReferError, match="is itself saved in few bits: name the one .* --backbone ID"):
        pair.model.merge_lora()


def test_what_no_data_can_be_blamed_for_passes_through(folder, monkeypatch):
    for error in (MemoryError, KeyboardInterrupt, torch.OutOfMemoryError):

        def fail(*_, error=error, **__):
            raise error

        monkeypatch.setattr("pixelrefer_plugin.weights.loading.AutoProcessor.from_pretrained", fail)
        with pytest.raises(error):
            RegionProcessor.from_pretrained(folder)


def test_in_a_notebook_they_are_a_few_lines(pair):
    pair.model.add_lora(r=2)
    for each in (pair.model, pair.processor):
        assert len(repr(each).splitlines()) <= 6
        assert len(repr(each)) < 500
        assert "saot" in repr(each)
    assert "trainable" in repr(pair.model)
    assert "ModuleList" in repr(pair.model.backbone)


# -- chat templates ----------------------------------------------------------------------------------------

DOUBLED = "{% set n = namespace(x='x') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for i in range(10**12) %}x{% endfor %}", "raises a number to a power"),
        ("{% for i in range(1000000000000) %}x{% endfor %}", "has a number above 1,000,000"),
        ("{% for i in range(999999) %}x{% endfor %}", "cannot be rendered: .*Range too big"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}", "goes on after .* steps"),
        ("{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}", "cannot be rendered: RecursionError"),
        (
            "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(99) }}",
            "goes on after .* steps|RecursionError",
        ),
        ("{{ 'x' * 10000000000 }}", "multiplies by what may be large|number above"),
        ("{% set n = 99999 %}{{ 'x' * n * n }}", "multiplies by what may be large"),
        ("{{ '%99999999999d' % 1 }}", "formats to a width"),
        ("{{ '{:>99999999999}'.format(1) }}", "formats to a width"),
        (DOUBLED, "makes a text of more than"),
        ("{{ 1 / 0 }}", "cannot be rendered: ZeroDivisionError"),
        ("{{ ''.__class__.__mro__ }}", "cannot be rendered: SecurityError"),
        ("{% for %}", "cannot be rendered: TemplateSyntaxError"),
        ("{{ raise_exception('no') }}", "cannot be rendered: TemplateError: no"),
    ],
)
def test_chat_templates_end(pair, template, message):
    pair.processor.native.chat_template = template
    with pytest.raises(PromptError, match=message):
        pair.processor(QUESTION)


def test_a_long_conversation_is_rendered(pair):
    turns = [{"role": role, "content": "word " * 2000} for _ in range(60) for role in ("user", "assistant")]
    assert pair.processor([*turns, *QUESTION])["input_ids"].shape[1] > 10_000
