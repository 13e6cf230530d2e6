"""What is no checkpoint that can be loaded: refused with why, and with what to take instead, by every way in."""

import copy
import json

import pytest
from click.testing import CliRunner
from PIL import Image

from pixelrefer_plugin import RegionProcessor, get_backbone, load
from pixelrefer_plugin.cli import main
from pixelrefer_plugin.errors import CheckpointError, PixelReferError, PluginError, PromptError
from pixelrefer_plugin.testing import tiny_tokenizer
from pixelrefer_plugin.weights import unreadable
from pixelrefer_plugin.weights.loading import load_config

AUTO = {"AutoConfig": "configuration_acme_chat.AcmeConfig", "AutoModel": ["acme/code--modeling_acme.Acme", None]}


@pytest.fixture(scope="module")
def pair():
    return get_backbone("qwen2_5_vl").tiny(0)


@pytest.fixture
def folder(tmp_path):
    """Makes a folder with a config."""

    def make(name="model", **config):
        made = tmp_path / name
        made.mkdir()
        (made / "config.json").write_text(json.dumps(config))
        return made

    return make


def refusal(source, **options):
    with pytest.raises(PixelReferError) as error:
        load(source, adapter="coordinates", **options)
    return error.value


# -- kinds of models ---------------------------------------------------------------------------------------


def test_a_backbone_that_no_plugin_serves(folder):
    error = refusal(folder(model_type="qwen2_vl"))
    assert isinstance(error, PluginError)
    assert "No installed backbone plugin serves model type 'qwen2_vl'. Served: " in str(error)
    assert "nearest that is served, by name: 'qwen2_5_vl' (backbone 'qwen2_5_vl')" in str(error)
    assert "docs/plugins.md#a-backbone" in str(error)
    assert "does not know this type" not in str(error)


def test_a_type_that_transformers_does_not_know_either(folder):
    said = str(refusal(folder(model_type="qwen2_5_vlx")))
    assert "'qwen2_5_vl' (backbone 'qwen2_5_vl')" in said
    assert "does not know this type either" in said
    assert "nearest" not in str(refusal(folder("other", model_type="zzz")))


@pytest.mark.parametrize("config", [{"model_type": "acme_chat"}, {}], ids=["a type", "no type"])
def test_a_checkpoint_that_needs_code_of_its_own(folder, config):
    made = folder("Acme-3B", **config, auto_map=AUTO)
    (made / "configuration_acme_chat.py").write_text("raise SystemExit('run')")
    error = refusal(made)
    assert isinstance(error, CheckpointError)
    assert "needs code of its own (configuration_acme_chat.py, modeling_acme.py)" in str(error)
    assert "auto_map in its config.json" in str(error)
    assert "Code that lies beside weights is never run here." in str(error)
    assert f"'{made}-hf'" in str(error)


@pytest.mark.parametrize("auto_map", [["x", 3], "acme.Model", {"AutoModel": {"a": 1}}])
def test_whatever_names_the_code(folder, auto_map):
    assert "needs code of its own" in str(refusal(folder(model_type="acme", auto_map=auto_map)))


def test_the_native_checkpoint_that_is_known_is_named(folder, monkeypatch):
    monkeypatch.setattr(unreadable, "published_models", lambda: ["Acme/Other", "Acme/Acme-3B-hf"])
    said = str(refusal(folder("Acme-3B", model_type="acme_chat", auto_map=AUTO)))
    assert "Take the same model in transformers' own layout: 'Acme/Acme-3B-hf'." in said


def test_code_beside_a_class_of_transformers_does_not_matter(pair, tmp_path):
    backbone, native = pair
    backbone.save_pretrained(tmp_path)
    native.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "auto_map": AUTO}))
    model, _ = load(tmp_path, adapter="coordinates")
    assert type(model.backbone) is type(backbone)


# -- files that are missing --------------------------------------------------------------------------------


def test_a_processor_without_a_model(pair, tmp_path):
    pair[1].save_pretrained(tmp_path)
    said = str(refusal(tmp_path))
    assert (
        f"No model can be loaded from '{tmp_path}': it has no config.json, so it is no model: what is there is a"
        in said
    )
    pair[0].config.save_pretrained(tmp_path)
    said = str(refusal(tmp_path))
    assert "cannot be read: there are none. Expected model.safetensors" in said
    assert load_config(tmp_path).model_type == "qwen2_5_vl", "a processor needs no weights"


def test_a_model_without_a_processor(pair, tmp_path):
    pair[0].save_pretrained(tmp_path)
    said = str(refusal(tmp_path))
    assert "The folder has no files of an image processor (preprocessor_config.json) and of a tokenizer" in said
    assert f"save_pretrained('{tmp_path}')" in said


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "adapter_config.json",
            '{"base_model_name_or_path": "acme/base"}',
            "but a LoRA of PEFT for 'acme/base'.",
        ),
        ("adapter_config.json", "[", "but a LoRA of PEFT. Merge it"),
        ("model.gguf", "x", r"but weights in GGUF (model.gguf), which are not read"),
        ("notes.txt", "x", "so it is no model. Is it the right folder?"),
    ],
)
def test_a_folder_of_something_else(tmp_path, file, text, message):
    (tmp_path / file).write_text(text)
    assert message in str(refusal(tmp_path))


# -- tokens of pictures ------------------------------------------------------------------------------------


def with_tokenizer(native, *tokens):
    """The processor, with a tokenizer of somebody else's."""
    changed = copy.deepcopy(native)
    special = ["<|im_end|>", "<|endoftext|>", *tokens]
    changed.tokenizer = tiny_tokenizer(["What is this?"], special, native.tokenizer.chat_template)
    return changed


def test_a_tokenizer_without_the_token_of_pictures(pair):
    backbone, native = pair
    message = r"Qwen2_5_VLProcessor writes '<\|image_pad\|>' where an image stands, but its tokenizer, .*, has no such "
    with pytest.raises(PromptError, match=message):
        RegionProcessor(with_tokenizer(native), backbone.config, adapter="coordinates")
    swapped = copy.deepcopy(native)
    swapped.video_token = "<none>"
    with pytest.raises(PromptError, match=r"writes '<none>' where a video stands"):
        RegionProcessor(swapped, backbone.config, adapter="saot")


def test_a_token_of_another_id(pair):
    backbone, native = pair
    other = with_tokenizer(native, native.image_token, native.video_token)
    with pytest.raises(PromptError, match=r"has it under the id \d+, while the model's config says \d+"):
        RegionProcessor(other, backbone.config, adapter="coordinates")


@pytest.fixture
def split(pair, tmp_path):
    """A checkpoint whose tokenizer has the token of pictures in its vocabulary, but takes it to pieces."""
    backbone, native = pair
    made = tmp_path / "split"
    backbone.save_pretrained(made)
    native.save_pretrained(made)
    tokenizer = json.loads((made / "tokenizer.json").read_text())
    (own,) = [each for each in tokenizer["added_tokens"] if each["content"] == native.image_token]
    tokenizer["added_tokens"].remove(own)
    tokenizer["model"]["vocab"][own["content"]] = own["id"]
    (made / "tokenizer.json").write_text(json.dumps(tokenizer))
    named = json.loads((made / "tokenizer_config.json").read_text())
    kept = {key: value for key, value in named.items() if native.image_token not in json.dumps(value)}
    (made / "tokenizer_config.json").write_text(json.dumps(kept))
    return made


# -- by every way in ---------------------------------------------------------------------------------------


def test_a_token_that_is_split_is_refused_by_every_way_in(split, tmp_path, monkeypatch):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    assert "splits it into ['<', " in str(refusal(split))
    for said in refusals_of_commands(split, tmp_path, monkeypatch):
        assert "splits it into ['<', " in said


def test_code_of_its_own_is_refused_by_every_way_in(folder, tmp_path, monkeypatch):
    made = folder(model_type="acme_chat", auto_map=AUTO)
    Image.new("RGB", (60, 40)).save(tmp_path / "a.png")
    for said in refusals_of_commands(made, tmp_path, monkeypatch):
        assert "needs code of its own" in said


def refusals_of_commands(source, tmp_path, monkeypatch):
    """What `describe` and `train` say of a plain backbone."""
    turns = [{"role": "user", "content": "What is <region>?"}, {"role": "assistant", "content": "cat"}]
    sample = {"id": "1", "image": "a.png", "regions": [{"box": [1, 1, 9, 9]}], "messages": turns}
    (tmp_path / "data.jsonl").write_text(json.dumps(sample) + "\n")
    text = f"model: {{backbone: {source}, adapter: saot}}\ndata: {{train: data.jsonl}}\nrun: {{out: run}}\n"
    (tmp_path / "train.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    commands = [
        ["describe", "a.png", "--model", str(source), "--box", "1,1,9,9"],
        ["predict", str(source), "data.jsonl", "--out", "answers.jsonl"],
        ["train", "train.yaml", "--dry-run"],
    ]
    for command in commands:
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2, result.output
        yield result.stderr
