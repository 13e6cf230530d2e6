"""Backbones whose weights accelerate keeps elsewhere between calls: the answers are those of the whole model."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from accelerate.hooks import attach_align_device_hook_on_blocks

from pixelrefer_plugin import AttachError, CheckpointError, RegionModel, attach, get_adapter, get_backbone
from pixelrefer_plugin.testing import make_pair
from pixelrefer_plugin.weights.lora import is_lora

CPU = torch.device("cpu")
BACKBONES = ("videollama3", "qwen2_5_vl", "llava_onevision")
WAYS = {
    "plain": None,
    "LoRA": {},
    "LoRA everywhere": {"scopes": ("decoder", "projector", "vision_tower")},
    "rows": {"scopes": (), "token_ids": (5, 6)},
    "LoRA and rows": {"token_ids": (5, 6)},
}


FULL = "LoRA and rows"
ALSO = [FULL, *(pytest.param(way, marks=pytest.mark.slow) for way in WAYS if way != FULL)]
"""Ways, of which one is tried by default."""


def offload(backbone, *parts):
    """Keep the weights of some parts away between calls, as `device_map` has it on a machine with a GPU."""
    held = {name: each.clone() for name, each in backbone.state_dict().items()}
    attach_align_device_hook_on_blocks(
        backbone,
        execution_device={"": CPU, **dict.fromkeys(parts, CPU)},
        offload={"": False, **dict.fromkeys(parts, True)},
        weights_map=held,
    )
    for part in parts:
        assert next(backbone.get_submodule(part).parameters()).is_meta
    return backbone


def parts_of(backbone):
    """The paths that are offloaded one by one: those of the spec, and single layers."""
    spec = get_backbone(backbone)
    parts = spec.parts
    first_layer = f"{parts.decoder}.layers.0"
    return [
        *(parts.vision_tower, parts.projector, parts.decoder, parts.token_embedding, parts.norm),
        *("lm_head", first_layer, f"{first_layer}.self_attn.q_proj", parts.projector_layers[0]),
    ]


def trained(adapter, backbone, lora):
    """A pair whose LoRA is no longer at its start."""
    pair = make_pair(adapter, backbone)
    if lora is not None:
        pair.model.add_lora(r=4, alpha=32, **lora)
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(1)
            for name, parameter in pair.model.backbone.named_parameters():
                if is_lora(name):
                    parameter.add_(torch.randn_like(parameter) * 0.3)
    return pair


def logits(model, inputs):
    with torch.no_grad():
        return model(**inputs).logits


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Model folders, a batch for each, and what their models say of it; made once."""
    made = {}

    def folder_of(adapter, backbone, way):
        key = (adapter, backbone, way)
        if key not in made:
            pair = trained(adapter, backbone, WAYS[way])
            inputs = pair.inputs()
            folder = tmp_path_factory.mktemp("model") / "model"
            pair.model.save_pretrained(folder, pair.processor)
            plain = logits(make_pair(adapter, backbone).model, inputs)
            expected = logits(pair.model, inputs)
            assert WAYS[way] is None or not torch.equal(plain, expected)
            made[key] = folder, inputs, expected
        return made[key]

    return folder_of


def check(folder, inputs, expected, backbone):
    model = RegionModel.from_pretrained(folder, backbone=backbone)
    assert model.device == CPU
    torch.testing.assert_close(logits(model, inputs), expected)
    model.detach()


@pytest.mark.parametrize("way", [FULL, pytest.param("plain", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("backbone", "part"), [(name, part) for name in BACKBONES for part in parts_of(name)])
def test_a_part_may_be_offloaded(backbone, part, way, folders):
    check(*folders("saot", backbone, way), offload(get_backbone(backbone).tiny(0)[0], part))


@pytest.mark.parametrize("way", ALSO)
@pytest.mark.parametrize("adapter", ["saot", "oci", "maskpool", "unipixel"])
def test_all_of_it_may_be_offloaded(adapter, way, folders):
    check(*folders(adapter, "qwen2_5_vl", way), cpu_offload(get_backbone("qwen2_5_vl").tiny(0)[0], CPU))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_all_of_it_may_be_on_the_disk(backbone, way, folders, tmp_path):
    bare = get_backbone(backbone).tiny(0)[0]
    check(*folders("saot", backbone, way), disk_offload(bare, tmp_path, execution_device=CPU))


@pytest.mark.parametrize("way", ALSO)
def test_a_folder_is_loaded_by_device_map(way, tmp_path):
    pair = trained("saot", "videollama3", WAYS[way])
    inputs = pair.inputs(0)
    pair.model.save_pretrained(tmp_path / "model", pair.processor, include_backbone=True)
    names = ("vision_model", "projector", "language_model")
    where = {f"model.{name}": "disk" for name in names} | {"lm_head": "disk"}
    model = RegionModel.from_pretrained(tmp_path / "model", device_map=where, offload_folder=tmp_path / "away")
    assert next(model.backbone.model.vision_model.parameters()).is_meta
    assert model.device == CPU
    torch.testing.assert_close(logits(model, inputs), logits(pair.model, inputs))
    model.detach()


@pytest.mark.parametrize("way", ["plain", "LoRA and rows"])
def test_answers_and_masks_are_those_of_the_whole_model(way, folders):
    folder, *_ = folders("unipixel", "qwen2_5_vl", way)
    pair = make_pair("unipixel", "qwen2_5_vl")
    inputs = pair.inputs(0, segment=True)
    answers = []
    for bare in (get_backbone("qwen2_5_vl").tiny(0)[0], cpu_offload(get_backbone("qwen2_5_vl").tiny(0)[0], CPU)):
        model = RegionModel.from_pretrained(folder, backbone=bare)
        answers.append(model.generate(**inputs, force_mask=True, do_sample=False, num_beams=2, max_new_tokens=4))
        model.detach()
    whole, away = answers
    assert torch.equal(whole.sequences, away.sequences)
    assert [len(each) for each in whole.objects] == [len(each) for each in away.objects]
    assert all(each for each in whole.objects), "a mask was forced"
    torch.testing.assert_close(whole.objects[0][0].score, away.objects[0][0].score)


@pytest.mark.parametrize("adapter", ["saot", "unipixel"])
def test_an_untrained_adapter_starts_from_a_projector_that_is_away(adapter):
    def started(bare, native):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return attach(bare, native, adapter=adapter, adapter_config=get_adapter(adapter).tiny)[0]

    bare, native = get_backbone("qwen2_5_vl").tiny(0)
    whole = started(bare, native)
    away = started(cpu_offload(get_backbone("qwen2_5_vl").tiny(0)[0], CPU), native)
    for name, each in whole.adapter.state_dict().items():
        assert torch.equal(away.adapter.state_dict()[name], each), name


def test_lora_is_trained_on_an_offloaded_backbone():
    pair = make_pair("saot", "videollama3")
    bare = cpu_offload(get_backbone("videollama3").tiny(0)[0], CPU)
    away = RegionModel.attach(
        bare, adapter="saot", tokens=pair.processor.tokens, adapter_config=get_adapter("saot").tiny
    )
    away.adapter.load_state_dict(pair.model.adapter.state_dict())
    inputs = pair.inputs(0)
    expected = logits(pair.model, inputs)
    away.add_lora(r=4, token_ids=(5, 6))
    torch.testing.assert_close(logits(away, inputs), expected)
    away.forward(**inputs).logits.square().mean().backward()
    gradients = {name: each.grad for name, each in away.backbone.named_parameters() if is_lora(name)}
    assert all(each is not None for each in gradients.values())
    assert all(each.any() for name, each in gradients.items() if "lora_B" in name)
    away.detach()
    assert not any("lora" in name for name, _ in bare.named_modules())
    assert not any(is_lora(name) for name, _ in bare.named_parameters())


def test_what_needs_all_weights_at_once_is_refused_or_right(tmp_path):
    pair = trained("saot", "videollama3", {})
    pair.model.save_pretrained(tmp_path / "model", pair.processor, include_backbone=True)
    model = RegionModel.from_pretrained(tmp_path / "model", device_map={"": "disk"}, offload_folder=tmp_path / "away")
    with pytest.raises(AttachError, match="cannot be merged into a backbone that is offloaded .* without device_map"):
        model.merge_lora()
    with pytest.raises(CheckpointError, match="offloaded .* cannot be replaced. Load the model without device_map"):
        model.load_weights(tmp_path / "model")
    model.save_pretrained(tmp_path / "again", pair.processor)
    again = RegionModel.from_pretrained(tmp_path / "again")
    inputs = pair.inputs(0)
    assert torch.equal(logits(again, inputs), logits(pair.model, inputs))
