"""RegionModel: attaching, detaching, LoRA, heads, and embedding tables without room."""

import gc
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from conftest import assistant, picture, user

from pixelrefer_plugin import (
    AttachError,
    PluginError,
    Region,
    RegionModel,
    SpliceError,
    TokenIds,
    attach,
    get_backbone,
)
from pixelrefer_plugin.testing import make_pair
from pixelrefer_plugin.tokens.spliced_call import _packs

TOKENS = TokenIds(placeholder=700)  # where nothing is asked
BOX = Region.from_box((5, 5, 40, 30))
QUESTION = [user(picture(60, 90), "what is <region>?")]


def test_a_backbone_takes_one_adapter_at_a_time(pair):
    with pytest.raises(AttachError, match="already has an adapter. Call detach"):
        attach(pair.model.backbone, pair.native, adapter="saot")
    backbone = pair.model.detach()
    attach(backbone, pair.native, adapter="maskpool")[0].detach()


def test_a_forgotten_model_frees_its_backbone():
    backbone, native = get_backbone("videollama3").tiny(0)
    with pytest.raises(PluginError, match="'saotx'.*Did you mean 'saot'"):
        attach(backbone, native, adapter="saotx")
    model, _ = attach(backbone, native, adapter="saot")
    del model
    gc.collect()
    attach(backbone, native, adapter="saot")[0].detach()


def test_a_model_type_that_no_plugin_serves():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    with pytest.raises(PluginError, match=r"serves model type 'qwen2'.*write a backbone plugin: docs/plugins.md"):
        RegionModel.attach(Qwen2ForCausalLM(config), adapter="saot", tokens=TOKENS)


def test_a_plugin_older_than_transformers_is_named():
    backbone, _ = get_backbone("qwen2_5_vl").tiny(0)
    with pytest.raises(AttachError, match="looks for its vision_tower at 'model.vision_model'"):
        RegionModel.attach(backbone, adapter="saot", tokens=TOKENS, backbone_plugin="videollama3")


def test_a_second_detach_leaves_the_next_model_alone():
    backbone, _ = get_backbone("videollama3").tiny(0)
    first = RegionModel.attach(backbone, adapter="saot", tokens=TOKENS)
    first.detach()
    second = RegionModel.attach(backbone, adapter="saot", tokens=TOKENS)
    first.detach()
    with pytest.raises(AttachError, match="already has an adapter"):
        RegionModel.attach(backbone, adapter="saot", tokens=TOKENS)
    second.detach()


@pytest.mark.parametrize("adapter", ["saot", "maskpool"])
def test_threads_keep_their_own_regions(adapter):
    from concurrent.futures import ThreadPoolExecutor

    pair = make_pair(adapter, "videollama3")
    other = Region.from_box((40, 5, 85, 55))
    inputs = [pair.processor(QUESTION, [region]) for region in (BOX, other)] * 4

    def logits(each):
        with torch.no_grad():
            return pair.model(**each).logits

    expected = [logits(each) for each in inputs]
    with ThreadPoolExecutor(2) as pool:
        for got, wanted in zip(pool.map(logits, inputs), expected, strict=True):
            assert torch.equal(got, wanted)
    pair.model.detach()


def test_attach_freezes_and_detach_restores_flags():
    backbone, _ = get_backbone("videollama3").tiny(0)
    first = next(backbone.parameters())
    first.requires_grad_(False)
    model = RegionModel.attach(backbone, adapter="saot", tokens=TOKENS)
    assert not any(each.requires_grad for each in backbone.parameters())
    assert all(each.requires_grad for each in model.adapter.parameters())
    model.detach()
    assert [each.requires_grad for each in backbone.parameters()].count(False) == 1
    model = RegionModel.attach(backbone, adapter="saot", tokens=TOKENS, train_backbone=True)
    assert sum(each.requires_grad for each in backbone.parameters()) > 10
    model.detach()


@pytest.mark.filterwarnings("ignore:.*checkpointing.*deprecated:FutureWarning")  # the older name works in every version
@pytest.mark.parametrize("backbone", ["videollama3", "qwen2_5_vl", "llava_onevision"])
def test_detach_removes_what_lora_adds_under_gradient_checkpointing(backbone):
    bare, _ = get_backbone(backbone).tiny(0)
    bare.gradient_checkpointing_enable()

    def portrait():
        return {name: (sorted(vars(each)), len(each._forward_hooks)) for name, each in bare.named_modules()}

    before = portrait()
    model = RegionModel.attach(bare, adapter="saot", tokens=TOKENS)
    model.add_lora()
    assert portrait() != before
    model.detach()
    assert portrait() == before


def test_lora_scopes_are_checked(pair):
    with pytest.raises(AttachError, match=r"scopes of 'videollama3' are decoder, projector, vision_tower; got"):
        pair.model.add_lora(scopes=("head",))
    pair.model.add_lora()
    with pytest.raises(AttachError, match="already has LoRA"):
        pair.model.add_lora()


def test_regions_planned_for_another_adapter_are_refused(pair):
    other = make_pair("maskpool", "videollama3")
    inputs = other.processor(QUESTION, [BOX])
    with pytest.raises(SpliceError, match="planned for adapter 'maskpool', this model has 'saot'"):
        pair.model(**inputs)
    other.model.detach()


def test_an_adapter_that_breaks_its_promise_is_named(pair, monkeypatch):
    inputs = pair.processor(QUESTION, [BOX])
    forward = pair.model.adapter.forward
    monkeypatch.setattr(pair.model.adapter, "forward", lambda views, counts: forward(views, counts)[:-1])
    with pytest.raises(SpliceError, match=r"'saot' promised 32 object tokens.*returned \(31, 96\)"):
        pair.model(**inputs)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("backbone", ["videollama3", "qwen2_5_vl", "llava_onevision"])
def test_tied_and_untied_heads_learn(backbone, tied):
    bare, native = get_backbone(backbone).tiny(0)
    config = bare.config
    config.tie_word_embeddings = config.text_config.tie_word_embeddings = tied
    bare = type(bare)(config)
    head, table = bare.get_output_embeddings().weight, bare.get_input_embeddings().weight
    assert (head.data_ptr() == table.data_ptr()) == tied
    torch.manual_seed(0)
    model, processor = attach(bare, native, adapter="saot")
    model.add_lora()
    inputs = processor([*QUESTION, assistant("seven")], [BOX], labels=True)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=3e-3)
    losses = []
    for _ in range(8):
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert (head.data_ptr() == table.data_ptr()) == tied
    model.detach()


def test_an_embedding_table_without_spare_rows_is_not_resized():
    roomy, native = get_backbone("videollama3").tiny(0)
    full, _ = get_backbone("videollama3").tiny(0)
    full.resize_token_embeddings(len(native.tokenizer))
    logits, answers = [], []
    for bare in (roomy, full):
        torch.manual_seed(0)
        model, processor = attach(bare, native, adapter="saot")
        model.eval()
        inputs = processor(QUESTION, [BOX])
        with torch.no_grad():
            logits.append(model(**inputs).logits[..., : len(native.tokenizer)])
        answers.append(model.generate(**inputs, max_new_tokens=3, do_sample=False, suppress_tokens=[1, 2]).shape)
        model.detach()
    assert processor.tokens.placeholder == full.get_input_embeddings().num_embeddings
    assert torch.equal(*logits)
    assert answers[0] == answers[1]


def test_the_users_processor_is_left_alone(pair):
    assert pair.processor.tokens.placeholder >= len(pair.native.tokenizer)
    assert "<|region_pad|>" not in pair.native.tokenizer.get_vocab()


@pytest.mark.parametrize(
    ("sizes", "packs"),
    [([5], [[5]]), ([4, 4, 4], [[4, 4], [4]]), ([20, 1, 9, 1], [[20], [1, 9], [1]]), ([1] * 3, [[1] * 3])],
    ids=["one", "full", "a large one", "all"],
)
def test_crops_are_packed_in_order(sizes, packs):
    assert [sizes[pack] for pack in _packs(sizes, 10)] == packs
    assert _packs(sizes, float("inf")) == [slice(0, len(sizes))]


def test_detach_leaves_a_users_own_hooks(pair):
    pair.model.add_lora()
    embedding = pair.model.backbone.get_input_embeddings()
    seen = []
    own = embedding.register_forward_hook(lambda *_: seen.append(1))
    bare = pair.model.detach()
    bare(input_ids=torch.tensor([[1, 2]]))
    assert seen == [1]
    own.remove()


LOAD_AND_PRINT = """
import sys, torch, numpy as np
from pixelrefer_plugin import Region, load
torch.set_num_threads(1)
model, processor = load(sys.argv[1])
image = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
parts = [{"type": "image", "image": image}, {"type": "text", "text": "what is <region>?"}]
message = {"role": "user", "content": parts}
with torch.no_grad():
    np.save(sys.argv[2], model(**processor([message], [Region.from_box((5, 5, 40, 30))])).logits.numpy())
"""


def test_a_saved_folder_gives_equal_logits_in_a_fresh_process(tmp_path):
    import numpy as np

    pair = make_pair("saot", "videollama3")
    with torch.no_grad():
        expected = pair.model(**pair.processor(QUESTION, [BOX])).logits.numpy()
    pair.model.save_pretrained(tmp_path / "model", pair.processor, include_backbone=True)
    command = [sys.executable, "-c", LOAD_AND_PRINT, str(tmp_path / "model"), str(tmp_path / "logits.npy")]
    subprocess.run(command, check=True)
    assert np.array_equal(np.load(tmp_path / "logits.npy"), expected)
    pair.model.detach()


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"num_beams": 2}], ids=["greedy", "no cache", "beams"])
def test_a_backbone_reads_the_scene_with_all_native_tensors_at_hand(options):
    """Where there are tiles, `input_ids` may be all that tells how many a picture has."""
    pair = make_pair("maskpool", "qwen2_5_vl")
    spec, given = pair.model._backbone_spec, []

    def grids(call, outputs):
        given.append(call.inputs)
        return spec.images.grids(call, outputs)

    pair.model._backbone_spec = replace(spec, images=replace(spec.images, grids=grids))
    inputs = pair.inputs(0)
    pair.model(**inputs)
    pair.answer(inputs, **options)
    assert given
    for each in given:
        assert each.keys() >= inputs.keys() - {"regions"}
        assert (each["input_ids"] == inputs["input_ids"]).all()  # a beam's prompt is the prompt
    pair.model.detach()
