"""LoRA on a backbone: chosen, saved, found again after a rename, merged, removed; and new tokens' rows."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import assistant, picture, user
from safetensors.torch import load_file, save_file

from pixelrefer_plugin import (
    AttachError,
    CheckpointError,
    PromptError,
    Region,
    RegionModel,
    RegionProcessor,
    SpliceError,
    attach,
)
from pixelrefer_plugin.testing import make_pair
from pixelrefer_plugin.weights.lora import bare_name, is_lora
from pixelrefer_plugin.weights.model_folder import library_versions

BACKBONES = ("videollama3", "qwen2_5_vl", "llava_onevision")
CONVERSATION = [user(picture(56, 84), "What is <region>?"), assistant("A car.")]
REGIONS = [Region.from_box((10, 10, 40, 40))]


def made(backbone="videollama3", **lora):
    """A pair with LoRA whose weights are no longer at their start."""
    pair = make_pair("saot", backbone)
    pair.model.add_lora(r=4, alpha=8, **lora)
    with torch.no_grad():
        for name, parameter in pair.model.backbone.named_parameters():
            if is_lora(name):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return pair


def logits(pair, model=None):
    with torch.no_grad():
        return (model or pair.model)(**pair.processor(CONVERSATION, REGIONS, labels=True)).logits


def saved(pair, folder):
    pair.model.save_pretrained(folder, pair.processor)
    return folder


def fresh_backbone(backbone="videollama3"):
    from pixelrefer_plugin.plugins import get_backbone

    return get_backbone(backbone).tiny(0)[0]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(
    "options", [{}, {"targets": ["q_proj"]}, {"token_ids": (5, 6)}], ids=["all", "targets", "rows"]
)
def test_a_saved_folder_gives_the_same_logits(backbone, options, tmp_path):
    pair = made(backbone, **options)
    before = logits(pair)
    folder = saved(pair, tmp_path / "model")
    loaded = RegionModel.from_pretrained(folder, backbone=fresh_backbone(backbone))
    torch.testing.assert_close(logits(pair, loaded), before, rtol=0, atol=0)
    saved_again = saved(replace(pair, model=loaded), tmp_path / "again")
    assert (
        load_file(saved_again / "lora/adapter_model.safetensors").keys()
        == load_file(folder / "lora/adapter_model.safetensors").keys()
    )


def test_targets_choose_layers_by_name():
    pair = made(targets=["q_proj", "v_proj"])
    adapted = {
        name.split(".lora_")[0].rpartition(".")[2]
        for name, _ in pair.model.backbone.named_parameters()
        if is_lora(name)
    }
    assert adapted == {"q_proj", "v_proj"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"targets": ["q_projj"]},
            r"targets \['q_projj'\] match no layer in scopes \['decoder'\] .*Layers there: down_proj",
        ),
        ({"targets": []}, r"targets \[\] match no layer"),
        ({"scopes": ["decodr"]}, r"scopes of 'videollama3' are decoder, .*; got \['decodr'\]"),
        ({"scopes": []}, "scopes of 'videollama3' are"),
        ({"token_ids": [10_000]}, r"ids \[10000\] are beyond the 448 rows"),
        ({"token_ids": [-1]}, r"ids \[-1\] are beyond"),
    ],
)
def test_lora_that_matches_nothing_is_refused(pair, options, message):
    before = {name: each.clone() for name, each in pair.model.backbone.state_dict().items()}
    with pytest.raises(AttachError, match=message):
        pair.model.add_lora(**options)
    assert not pair.model.has_lora
    assert pair.model.backbone.state_dict().keys() == before.keys()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_removal_leaves_no_trace(backbone):
    pair = make_pair("saot", backbone)
    bare = pair.model.backbone
    pair.model.detach()
    bare.train()
    modules = dict(bare.named_modules())
    weights = {name: each.clone() for name, each in bare.state_dict().items()}
    attributes = set(vars(bare))
    model = RegionModel.attach(bare, adapter="saot", tokens=pair.processor.tokens)
    model.add_lora(r=4, token_ids=(5, 6))
    model.eval()
    model.detach()
    assert set(vars(bare)) == attributes
    assert bare.training
    assert dict(bare.named_modules()).keys() == modules.keys()
    assert all(torch.equal(each, weights[name]) for name, each in bare.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in bare.modules())


def renamed(folder, old, new):
    """The folder as a release of transformers would have written it in which a module is called otherwise."""
    source = folder / "lora/adapter_model.safetensors"
    save_file({name.replace(new, old): each for name, each in load_file(source).items()}, source)
    manifest = json.loads((folder / "pixelrefer.json").read_text())
    manifest["module_paths"] = {part: path.replace(new, old) for part, path in manifest["module_paths"].items()}
    (folder / "pixelrefer.json").write_text(json.dumps(manifest))


def test_keys_find_their_layers_where_a_module_was_renamed(tmp_path):
    pair = made(scopes=("decoder", "vision_tower"), token_ids=(7,))
    before = logits(pair)
    folder = saved(pair, tmp_path / "model")
    renamed(folder, "text.decoder", "model.language_model")
    renamed(folder, "model.eyes", "model.vision_model")
    loaded = RegionModel.from_pretrained(folder, backbone=fresh_backbone())
    torch.testing.assert_close(logits(pair, loaded), before, rtol=0, atol=0)


def test_a_rename_that_is_not_recorded_is_loud(tmp_path):
    pair = made()
    folder = saved(pair, tmp_path / "model")
    source = folder / "lora/adapter_model.safetensors"
    save_file({name.replace("self_attn", "attention"): each for name, each in load_file(source).items()}, source)
    backbone = fresh_backbone()
    with pytest.raises(
        CheckpointError, match=r"LoRA for 12 layers that this backbone does not have, such as .*attention"
    ):
        RegionModel.from_pretrained(folder, backbone=backbone)
    RegionModel.attach(backbone, adapter="saot", tokens=pair.processor.tokens)  # and the backbone is free again


@pytest.mark.parametrize("backbone", BACKBONES)
def test_merging_keeps_the_logits_and_gives_a_folder_of_its_own(backbone, tmp_path):
    pair = made(backbone, token_ids=(5,))
    before = logits(pair)
    pair.model.merge_lora()
    assert not pair.model.has_lora
    torch.testing.assert_close(logits(pair), before, rtol=1e-4, atol=1e-4)
    folder = saved(pair, tmp_path / "merged")
    assert not (folder / "lora").exists()
    loaded = RegionModel.from_pretrained(folder)
    torch.testing.assert_close(logits(pair, loaded), logits(pair), rtol=0, atol=0)


def test_there_must_be_lora_to_merge(pair):
    with pytest.raises(AttachError, match="no LoRA to merge"):
        pair.model.merge_lora()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_backbone_of_its_own_is_saved_under_its_lora(backbone, tmp_path):
    first = saved(trained := owned(backbone), tmp_path / "first")
    model = RegionModel.from_pretrained(first)
    model.add_lora(r=4, token_ids=(5,))
    with torch.no_grad():
        for name, parameter in model.backbone.named_parameters():
            if is_lora(name):
                parameter.add_(0.05)
    before = logits(trained, model)
    folder = tmp_path / "second"
    model.save_pretrained(folder, trained.processor)
    loaded = RegionModel.from_pretrained(folder)
    torch.testing.assert_close(logits(trained, loaded), before, rtol=0, atol=0)
    bare = load_file(folder / "backbone/model.safetensors")
    assert bare.keys() == load_file(first / "backbone/model.safetensors").keys()


def owned(backbone):
    """A pair whose backbone was trained, so that it is saved with the model."""
    from pixelrefer_plugin.plugins import get_backbone

    bare, native = get_backbone(backbone).tiny(0)
    model, processor = attach(bare, native, adapter="saot", train_backbone=True)
    return replace(make_pair("saot", backbone), model=model, processor=processor)


@pytest.mark.parametrize("lora", [False, True], ids=["backbone", "lora"])
def test_load_weights_puts_a_model_back(lora, tmp_path):
    pair = made(token_ids=(5,)) if lora else owned("videollama3")
    before = logits(pair)
    folder = saved(pair, tmp_path / "model")
    with torch.no_grad():
        for parameter in pair.model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.5)
    assert not torch.equal(logits(pair), before)
    pair.model.load_weights(folder)
    torch.testing.assert_close(logits(pair), before, rtol=0, atol=0)


def test_load_weights_refuses_another_model(pair, tmp_path):
    folder = saved(made(), tmp_path / "model")
    with pytest.raises(CheckpointError, match="the folder has LoRA, this model has none"):
        pair.model.load_weights(folder)


@pytest.mark.parametrize("lora", [False, True], ids=["backbone", "lora"])
def test_gathered_weights_are_written_in_place_of_the_models_own(lora, tmp_path):
    pair = made(token_ids=(5,)) if lora else owned("videollama3")
    before = logits(pair)
    gathered = {name: each.clone() for name, each in pair.model.state_dict().items()}
    with torch.no_grad():
        for parameter in pair.model.parameters():
            parameter.zero_()
    pair.model.save_pretrained(tmp_path / "model", pair.processor, state_dict=gathered)
    backbone = {"backbone": fresh_backbone()} if lora else {}
    loaded = RegionModel.from_pretrained(tmp_path / "model", **backbone)
    torch.testing.assert_close(logits(pair, loaded), before, rtol=0, atol=0)


class TestNewTokens:
    def test_their_rows_train_and_no_others(self, pair, tmp_path):
        ids = pair.processor.add_tokens(["<scratch>", "<dent>"])
        pair.model.add_lora(r=4, token_ids=ids)
        conversation = [user(picture(56, 84), "What is <region>?"), assistant("<scratch>")]
        inputs = pair.processor(conversation, REGIONS, labels=True)
        assert ids[0] in inputs["labels"]
        pair.model(**inputs).loss.backward()
        rows = [each for name, each in pair.model.named_parameters() if "trainable_tokens_delta" in name]
        assert [tuple(each.shape) for each in rows] == [(2, 96)]
        assert rows[0].grad[0].any()
        folder = saved(pair, tmp_path / "model")
        processor = RegionProcessor.from_pretrained(folder)
        assert processor.add_tokens(["<dent>", "<scratch>"]) == ids[::-1]
        assert processor.tokens.placeholder == pair.processor.tokens.placeholder

    def test_there_must_be_rows_for_them(self, pair):
        with pytest.raises(PromptError, match=r"has 448 rows, 406 of them in use: there is no room for 100"):
            pair.processor.add_tokens([f"<{index}>" for index in range(100)])

    @pytest.mark.parametrize("tokens", ["<one>", [], [""], [3]])
    def test_they_are_a_list_of_texts(self, pair, tokens):
        with pytest.raises(PromptError, match="Expected a list of tokens"):
            pair.processor.add_tokens(tokens)


def test_a_batch_that_lost_its_regions_is_refused_in_training(pair):
    inputs = pair.processor(CONVERSATION, REGIONS, labels=True)
    del inputs["regions"]
    with pytest.raises(SpliceError, match="no 'regions'. Was it dropped on the way"):
        pair.model(**inputs)


def test_names_without_lora():
    assert bare_name("model.layers.0.q_proj.base_layer.weight") == "model.layers.0.q_proj.weight"
    assert bare_name("model.embed_tokens.token_adapter.base_layer.weight") == "model.embed_tokens.weight"
    assert bare_name("model.layers.0.q_proj.lora_A.default.weight") is None
    assert "peft" in library_versions()
