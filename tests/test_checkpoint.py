"""The model folder: complete and checked when it is read, whole or absent when it is written."""

import copy
import json
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixelrefer_plugin import (
    CheckpointError,
    PluginError,
    RegionModel,
    RegionProcessor,
    SpliceError,
    attach,
    get_adapter,
    get_backbone,
    load,
)
from pixelrefer_plugin.testing import make_pair
from pixelrefer_plugin.weights import saving


@pytest.fixture
def saved(tmp_path):
    """A folder with adapter and LoRA, on a backbone that is given when loading."""
    pair = make_pair("saot", "videollama3")
    pair.model.add_lora(r=4)
    pair.model.save_pretrained(tmp_path / "model", pair.processor)
    yield tmp_path / "model"
    pair.model.detach()


def load_and_detach(folder, **options):
    backbone, _ = get_backbone("videollama3").tiny(0)
    model, _ = load(folder, backbone=backbone, **options)
    model.detach()


def edit_manifest(folder, **changes):
    path = folder / "pixelrefer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_tensors(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_the_folder_loads(saved):
    load_and_detach(saved)
    assert (saved / "lora" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "pixelrefer.json").write_text("{"), "is not valid JSON"),
        (lambda f: (f / "pixelrefer.json").write_text("[]"), "must hold a JSON object"),
        (lambda f: edit_manifest(f, format_version=99), "has format version 99; this pixelrefer-plugin reads up to 2"),
        (lambda f: edit_manifest(f, format_version=-1), "has format version -1"),
        (lambda f: edit_manifest(f, adapter=3), "'adapter' is 3, a int"),
        (lambda f: edit_manifest(f, adapter_config={"num_tokens": "x"}), "num_tokens must be an integer >= 1"),
        (lambda f: (f / "lora" / "adapter_config.json").write_text("{}"), "no readable adapter_config.json"),
        (lambda f: edit_manifest(f, region_token=7), "'region_token' is 7, a int"),
        (lambda f: edit_manifest(f, tokens=[700]), r"'tokens' is \[700\], a list"),
        (lambda f: edit_manifest(f, tokens={"placeholder": 1}), "'tokens' is {'placeholder': 1}; expected ids as"),
        (
            lambda f: edit_manifest(f, tokens={"placeholder": 1, "mask": "x", "native": {}}),
            "'mask': 'x'.*expected ids as",
        ),
        (lambda f: edit_manifest(f, tokens={"placeholder": 1, "mask": None, "native": {"a": "b"}}), "expected ids as"),
        (lambda f: edit_manifest(f, plugins={"adapter": "saot"}), "'plugins' is .* expected distribution and version"),
        (lambda f: edit_manifest(f, colour="red"), r"unknown fields \['colour'\]"),
        (lambda f: edit_manifest(f, model_type="qwen2_5_vl"), "made for a backbone of type 'qwen2_5_vl', got"),
        (lambda f: edit_manifest(f, adapter_config={"num_token": 3}), "no option 'num_token'. Its options: num_tokens"),
        (lambda f: edit_manifest(f, adapter_config={"num_tokens": -1}), "num_tokens must be an integer >= 1, got -1"),
        (lambda f: (f / "adapter.safetensors").unlink(), "Expected weights at .*adapter.safetensors"),
        (lambda f: (f / "adapter.safetensors").write_bytes(b"\x10" * 40), "adapter.safetensors' cannot be read"),
        (lambda f: edit_tensors(f / "adapter.safetensors", lambda t: t.pop("mlp.0.bias")), "missing keys mlp.0.bias"),
        (
            lambda f: edit_tensors(f / "adapter.safetensors", lambda t: t.update(extra=torch.zeros(1))),
            "unexpected extra",
        ),
        (
            lambda f: edit_tensors(f / "adapter.safetensors", lambda t: t.update({"mlp.0.bias": torch.zeros(7)})),
            r"'mlp.0.bias' is \(7,\), expected \(96,\)",
        ),
        (lambda f: (f / "lora" / "adapter_model.safetensors").unlink(), "Expected weights at .*adapter_model"),
        (lambda f: (f / "lora" / "adapter_config.json").unlink(), "no readable adapter_config.json"),
        (
            lambda f: edit_tensors(f / "lora" / "adapter_model.safetensors", lambda t: t.pop(next(iter(t)))),
            "does not fit: missing keys base_model",
        ),
    ],
)
def test_damaged_folders_are_refused(saved, damage, message):
    damage(saved)
    with pytest.raises(ValueError, match=message):
        load_and_detach(saved)


def test_a_refused_folder_leaves_the_backbone_free(saved):
    backbone, native = get_backbone("videollama3").tiny(0)
    (saved / "lora" / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError):
        RegionModel.from_pretrained(saved, backbone=backbone)
    attach(backbone, native, adapter="saot")[0].detach()


def test_a_loaded_model_knows_its_placeholder(saved, pair):
    backbone, _ = get_backbone("videollama3").tiny(0)
    loaded = RegionModel.from_pretrained(saved, backbone=backbone)
    inputs = pair.inputs(0)
    del inputs["regions"]
    for run in (loaded, loaded.generate):
        with pytest.raises(SpliceError, match="placeholders for object tokens but no 'regions'"):
            run(**inputs)
    loaded.detach()


def as_version_1(folder):
    """The manifest as the release before format version 2 wrote it."""
    path = folder / "pixelrefer.json"
    manifest = json.loads(path.read_text())
    tokens = manifest.pop("tokens")
    del manifest["plugins"]
    ids = {"placeholder_id": tokens["placeholder"], "mask_token_id": tokens["mask"]}
    path.write_text(json.dumps({**manifest, **ids, "format_version": 1}))


@pytest.mark.parametrize("adapter", ["saot", "unipixel"])
def test_a_folder_of_format_version_1_loads(adapter, tmp_path):
    pair = make_pair(adapter, "videollama3")
    pair.model.save_pretrained(tmp_path / "model", pair.processor, include_backbone=True)
    as_version_1(tmp_path / "model")
    loaded, processor = load(tmp_path / "model")
    alone = RegionModel.from_pretrained(tmp_path / "model")
    assert loaded.tokens == processor.tokens == pair.model.tokens
    assert alone.tokens.agree_with(loaded.tokens)
    with torch.no_grad():
        expected = pair.model(**pair.inputs(0)).logits
        for model in (loaded, alone):
            assert torch.equal(model(**processor(pair.conversations[0], pair.regions[0])).logits, expected)


def test_a_folder_from_before_token_ids_were_recorded_is_refused(saved):
    as_version_1(saved)
    path = saved / "pixelrefer.json"
    manifest = json.loads(path.read_text())
    del manifest["placeholder_id"]
    path.write_text(json.dumps(manifest))
    for way in (load, RegionModel.from_pretrained, RegionProcessor.from_pretrained):
        with pytest.raises(CheckpointError, match="does not say which token stands for object tokens"):
            way(saved)


def test_a_folder_of_a_later_format_version_says_what_to_do(saved):
    edit_manifest(saved, format_version=3)
    with pytest.raises(CheckpointError, match=r"has format version 3; .* Upgrade: pip install -U pixelrefer-plugin"):
        load_and_detach(saved)


def test_a_folder_says_where_its_plugins_come_from(saved):
    manifest = json.loads((saved / "pixelrefer.json").read_text())
    ours = {"distribution": "pixelrefer-plugin", "version": version("pixelrefer-plugin")}
    assert manifest["plugins"] == {"adapter": ours, "backbone": ours}


@pytest.mark.parametrize("kind", ["adapter", "backbone"])
def test_a_missing_plugin_s_error_is_the_line_that_installs_it(saved, kind):
    origin = {"distribution": "pixelrefer-street", "version": "1.2"}
    edit_manifest(saved, **{kind: "street", "plugins": {kind: origin}})
    for way in (load, RegionModel.from_pretrained, RegionProcessor.from_pretrained):
        with pytest.raises(PluginError, match=r"pip install 'pixelrefer-street>=1\.2'\. No .* is called 'street'"):
            way(saved)
    edit_manifest(saved, plugins={})
    with pytest.raises(PluginError, match=f"^No {kind} is called 'street'"):
        load_and_detach(saved)


def test_a_processor_with_other_ids_is_damage(saved):
    tokens = json.loads((saved / "pixelrefer.json").read_text())["tokens"]
    edit_manifest(saved, tokens={**tokens, "placeholder": 5})
    for way in (load, RegionProcessor.from_pretrained):
        with pytest.raises(CheckpointError, match="is damaged: its pixelrefer.json has the ids 5 and None"):
            way(saved)


def test_another_model_s_processor_is_not_saved(tmp_path, pair):
    tokens = replace(pair.processor.tokens, placeholder=5)
    model = RegionModel.attach(pair.model.detach(), adapter="saot", tokens=tokens)
    with pytest.raises(CheckpointError, match="This processor is not the model's: it has .* the model has 5 and None"):
        model.save_pretrained(tmp_path / "model", pair.processor)
    assert not (tmp_path / "model").exists()
    model.detach()


def test_a_folder_keeps_what_a_preset_says_and_not_its_name(tmp_path):
    backbone, native = get_backbone("videollama3").tiny(0)
    options = {"preset": "official", "num_tokens": 5}
    model, processor = attach(backbone, native, adapter="saot", adapter_config=options)
    model.save_pretrained(tmp_path / "model", processor)
    options = json.loads((tmp_path / "model" / "pixelrefer.json").read_text())["adapter_config"]
    assert "preset" not in options
    assert get_adapter("saot").make_config(options) == model.adapter_config
    model.detach()


def test_another_adapter_is_refused(saved):
    with pytest.raises(CheckpointError, match="was made with adapter 'saot', not 'maskpool'"):
        load_and_detach(saved, adapter="maskpool")
    with pytest.raises(CheckpointError, match="was made with adapter 'saot', not 'maskpool'"):
        RegionProcessor.from_pretrained(saved, adapter="maskpool")


def test_a_folder_that_does_not_know_its_backbone_says_so(saved):
    with pytest.raises(CheckpointError, match="does not say where its backbone is. Pass backbone="):
        RegionModel.from_pretrained(saved)


def test_a_missing_processor_is_named(saved):
    import shutil

    shutil.rmtree(saved / "processor")
    with pytest.raises(CheckpointError, match="Expected the processor's files at .*processor"):
        RegionProcessor.from_pretrained(saved)


DAMAGED = {
    "config.json": "/processor': it has no config.json",
    "tokenizer.json": "No processor can be loaded from",
    "processor_config.json": "No processor can be loaded from",
}


@pytest.mark.parametrize(("name", "message"), DAMAGED.items(), ids=DAMAGED)
def test_a_damaged_processor_is_named(saved, name, message):
    (saved / "processor" / name).unlink()
    with pytest.raises(CheckpointError, match=message):
        RegionProcessor.from_pretrained(saved)


def test_options_of_a_saved_adapter_are_not_ignored(saved):
    with pytest.raises(CheckpointError, match="brings its adapter's options"):
        load_and_detach(saved, adapter_config={"num_tokens": 4})


def test_a_backbone_with_missing_weights_is_refused(tmp_path, pair):
    pair.model.save_pretrained(tmp_path / "model", pair.processor, include_backbone=True)
    weights = tmp_path / "model" / "backbone" / "model.safetensors"
    edit_tensors(weights, lambda tensors: tensors.pop("model.projector.readout.0.weight"))
    with pytest.raises(CheckpointError, match=r"incomplete: missing keys model.projector.readout.0.weight"):
        RegionModel.from_pretrained(tmp_path / "model")
    weights.write_bytes(b"\x10" * 100)
    with pytest.raises(CheckpointError, match="The weights in .* cannot be read"):
        RegionModel.from_pretrained(tmp_path / "model")


def test_nothing_loadable_is_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="No model can be loaded from"):
        RegionModel.from_pretrained(tmp_path, adapter="saot")


def test_an_existing_folder_is_kept(saved, pair):
    with pytest.raises(CheckpointError, match="exists. Choose another folder"):
        pair.model.save_pretrained(saved, pair.processor)
    stranger = saved.parent / "thesis"
    stranger.mkdir()
    (stranger / "chapter1.txt").write_text("...")
    with pytest.raises(CheckpointError, match="is not a pixelrefer model folder; it is not overwritten"):
        pair.model.save_pretrained(stranger, pair.processor, overwrite=True)
    assert (stranger / "chapter1.txt").is_file()


def test_overwriting_replaces_the_folder(saved, pair):
    pair.model.save_pretrained(saved, pair.processor, overwrite=True)
    assert not (saved / "lora").exists()
    assert [each.name for each in saved.parent.iterdir()] == ["model"]


def test_an_interrupted_save_leaves_the_earlier_folder_whole(saved, pair, monkeypatch):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "save_file", full_disk)
    with pytest.raises(CheckpointError, match="could not be written .*No space left.*The earlier folder is as it was"):
        pair.model.save_pretrained(saved, pair.processor, overwrite=True)
    monkeypatch.undo()
    load_and_detach(saved)
    assert [each.name for each in saved.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("way", [load, RegionModel.from_pretrained, RegionProcessor.from_pretrained])
def test_a_folder_that_was_being_replaced_is_read_again(saved, pair, way):
    pair.model.save_pretrained(saved, pair.processor, overwrite=True, include_backbone=True)
    saved.rename(saved.with_name(".model.earlier"))
    way(saved)
    assert [each.name for each in saved.parent.iterdir()] == ["model"]


def test_a_trained_backbone_is_not_left_out(tmp_path):
    backbone, native = get_backbone("videollama3").tiny(0)
    model, processor = attach(backbone, native, adapter="saot", train_backbone=True)
    with pytest.raises(CheckpointError, match="backbone's own weights were trained"):
        model.save_pretrained(tmp_path / "model", processor, include_backbone=False)
    model.save_pretrained(tmp_path / "model", processor)
    loaded = RegionModel.from_pretrained(tmp_path / "model")
    for one, other in zip(model.backbone.parameters(), loaded.backbone.parameters(), strict=True):
        assert torch.equal(one, other)
    model.detach()
    loaded.save_pretrained(tmp_path / "model", processor, overwrite=True)  # over the folder it came from
    loaded.detach()
    (tmp_path / "model").rename(tmp_path / "moved")
    again = RegionModel.from_pretrained(tmp_path / "moved")
    assert torch.equal(next(again.backbone.parameters()), next(model.backbone.parameters()))
    again.detach()


def test_a_link_to_a_folder_stays_a_link(saved, pair):
    link = saved.parent / "latest"
    link.symlink_to(saved)
    pair.model.save_pretrained(link, pair.processor, overwrite=True)
    assert link.is_symlink()
    assert not (saved / "lora").exists()


def test_a_moved_folder_finds_its_own_backbone(tmp_path, pair):
    pair.model.save_pretrained(tmp_path / "model", pair.processor, include_backbone=True)
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    RegionModel.from_pretrained(tmp_path / "elsewhere").detach()


def test_a_backbone_of_another_size_is_refused(tmp_path):
    pair = make_pair("saot", "videollama3")
    pair.model.save_pretrained(tmp_path / "model", pair.processor)
    pair.model.detach()
    config = copy.deepcopy(pair.model.backbone.config)
    config.text_config.hidden_size //= 2
    smaller = type(pair.model.backbone)(config)
    with pytest.raises(CheckpointError, match=r"decoder of width 96, got widths 96 and 48. Is it a model of another"):
        RegionModel.from_pretrained(tmp_path / "model", backbone=smaller)


@pytest.mark.parametrize("sampling", [{"foo": 1}, {"num_frames": 0}, {"num_frames": 2, "fps": 1.0}])
def test_a_damaged_frame_sampling_names_the_file(tmp_path, sampling):
    pair = make_pair("saot", "videollama3")
    pair.model.save_pretrained(tmp_path / "model", pair.processor)
    pair.model.detach()
    manifest = tmp_path / "model" / "pixelrefer.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"frame_sampling": sampling}))
    with pytest.raises(CheckpointError, match=r"pixelrefer.json: 'frame_sampling' is not readable"):
        RegionProcessor.from_pretrained(tmp_path / "model")
