"""Official checkpoints become model folders: whole and exact, or refused with a message and nothing written."""

import json
import pickle
import re
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import install_plugin, picture, user
from official_checkpoint import OFFICIAL_TOKENS, ROPE_THETA, TOWER, official, write_weights
from safetensors.torch import load_file, save_file

from pixelrefer_plugin import (
    CheckpointError,
    PixelReferError,
    PluginError,
    PromptError,
    Region,
    RegionModel,
    RegionProcessor,
    import_official,
)
from pixelrefer_plugin.cli import main

BOX = Region.from_box((10, 10, 60, 50))


def imported(checkpoint, tmp_path, *, kind="safetensors", num_shards=1, **options):
    src = checkpoint.write(tmp_path / "official", kind, num_shards)
    return import_official(src, tmp_path / "out", **options)


@pytest.mark.parametrize("tower_inside", [True, False], ids=["tower inside", "tower beside"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("lite", [False, True], ids=["full", "lite"])
@pytest.mark.parametrize(("kind", "num_shards"), [("safetensors", 1), ("safetensors", 3), ("bin", 1), ("bin", 3)])
def test_every_weight_arrives(lite, tied, tower_inside, kind, num_shards, tmp_path):
    checkpoint = official(lite=lite, tied=tied, tower_inside=tower_inside)
    out = imported(checkpoint, tmp_path, kind=kind, num_shards=num_shards)
    model = RegionModel.from_pretrained(out)
    for expected, got in ((checkpoint.native, model.backbone), (checkpoint.adapter, model.adapter)):
        state = got.state_dict()
        assert state.keys() == expected.state_dict().keys()
        assert all(torch.equal(state[key], tensor) for key, tensor in expected.state_dict().items())
    config = model.backbone.config
    assert config.tie_word_embeddings == config.text_config.tie_word_embeddings == tied
    assert config.text_config.rope_parameters["rope_theta"] == ROPE_THETA
    assert config.text_config.vocab_size == len(RegionProcessor.from_pretrained(out).tokenizer)
    assert config.vision_config.num_attention_heads == TOWER["num_attention_heads"]
    assert (model.adapter_config.num_tokens, model.adapter_config.max_patches) == (8, 64)  # mask_num, mm_max_length
    assert model.adapter_config.kmeans_start == "random"
    assert not list(out.rglob("*.bin"))
    model.detach()


def test_the_backbone_computes_what_it_did(tmp_path):
    checkpoint = official()
    model = RegionModel.from_pretrained(imported(checkpoint, tmp_path))
    input_ids = torch.arange(40)[None]
    with torch.no_grad():
        expected, got = (each(input_ids=input_ids).logits for each in (checkpoint.native, model.backbone))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
    model.detach()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_backbones_dtype_is_kept_or_as_asked_for(dtype, tmp_path):
    checkpoint = official()
    asked = imported(checkpoint, tmp_path / "asked", dtype=dtype)
    half = {key: tensor.to(getattr(torch, dtype)) for key, tensor in checkpoint.weights.items()}
    kept = imported(replace(checkpoint, weights=half), tmp_path / "kept")
    for out in (asked, kept):
        assert {tensor.dtype for tensor in load_file(out / "backbone/model.safetensors").values()} == {
            getattr(torch, dtype)
        }
        assert {tensor.dtype for tensor in load_file(out / "adapter.safetensors").values()} == {torch.float32}
        model = RegionModel.from_pretrained(out)
        assert model.backbone.dtype == getattr(torch, dtype)
        model.detach()


@pytest.mark.parametrize("lite", [False, True], ids=["full", "lite"])
def test_what_is_imported_answers_trains_and_is_saved_again(lite, tmp_path):
    out = imported(official(lite=lite), tmp_path)
    model, processor = RegionModel.from_pretrained(out), RegionProcessor.from_pretrained(out)
    conversation = [user(picture(70, 90), "What is <region>?"), {"role": "assistant", "content": "A cat."}]
    inputs = processor(conversation, [BOX], labels=True)
    model.add_lora(r=2)
    model.train()
    loss = model(**inputs).loss
    loss.backward()
    assert all(each.grad is not None for each in model.adapter.parameters())
    model.eval()
    model.save_pretrained(tmp_path / "again", processor)
    again = RegionModel.from_pretrained(tmp_path / "again")
    assert RegionProcessor.from_pretrained(tmp_path / "again").region_token == "<REGION>"
    torch.manual_seed(0)
    with torch.no_grad():
        expected = model(**inputs).logits
        torch.manual_seed(0)
        torch.testing.assert_close(again(**inputs).logits, expected, rtol=0, atol=1e-6)
    model.detach()
    again.detach()


def test_answers_are_greedy_whatever_the_checkpoint_says(tmp_path):
    src = official().write(tmp_path / "official")
    said = {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 20,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "eos_token_id": 256,
    }
    (src / "generation_config.json").write_text(json.dumps(said))
    model = RegionModel.from_pretrained(import_official(src, tmp_path / "out"))
    kept = model.backbone.generation_config
    assert (kept.do_sample, kept.temperature, kept.top_k) == (False, None, None)
    assert (kept.repetition_penalty, kept.eos_token_id) == (1.1, 256)
    model.detach()


def test_the_prompt_is_the_official_one(tmp_path):
    processor = RegionProcessor.from_pretrained(imported(official(), tmp_path))
    conversation = [
        {"role": "system", "content": "Be brief."},
        user(picture(70, 90), "What is <region>?"),
        {"role": "assistant", "content": "A cat."},
        user("Where?"),
    ]
    inputs = processor(conversation, [BOX])
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    count = inputs["regions"].counts[0]
    assert re.sub("(<image>)+", "<image>", text) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        f"<|im_start|>user\n<image>\nWhat is [{'<REGION>' * count}]?<|im_end|>\n"
        "<|im_start|>assistant\nA cat.<|im_end|>\n"
        "<|im_start|>user\nWhere?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert text.count("<image>") == inputs["image_grid_thw"].prod()
    assert inputs["image_grid_thw"].prod() <= 64  # mm_max_length


# -- videos ------------------------------------------------------------------------------------------------------------


def clip(num_frames=5, height=90, width=130):
    """A square that moves over a still background, and one frame that repeats the one before."""
    frames = np.repeat(picture(height, width, seed=3)[None], num_frames, axis=0).copy()
    for index in range(num_frames):
        at = 10 + 15 * min(index, 3)
        frames[index, 20:50, at : at + 20] = 255
    return frames


def official_video(frames, times_s, *, max_tokens, merge=2, patch=14):
    """The official rules, restated: pixels of each frame, which groups of patches stay, and the text of the frames."""
    from PIL import Image
    from transformers.models.video_llama_3.video_processing_video_llama_3 import smart_resize

    side = patch * merge
    height, width = smart_resize(*frames.shape[1:3], side, 3136, max_tokens * side**2 // len(frames))
    resized = [np.asarray(Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC)) for each in frames]
    pixels = (np.stack(resized).astype(np.float32) / 255 - 0.5) / 0.5
    groups = pixels.reshape(len(frames), height // side, side, width // side, side, 3).transpose(0, 1, 3, 2, 4, 5)
    groups = groups.reshape(len(frames), -1, side * side * 3)
    change = np.abs(np.diff(groups, axis=0)).mean(-1) * 255
    kept = np.concatenate([np.ones_like(change[:1], dtype=bool), change > 0.1])
    kept[~kept.any(1), 0] = True
    texts = [f"Time {time_s:.1f}s:" + "<image>" * count for time_s, count in zip(times_s, kept.sum(1), strict=True)]
    return pixels, kept, ",".join(texts)


def test_a_video_is_compressed_as_the_official_code_does(tmp_path):
    frames, times_s = clip(), [0.0, 0.5, 1.0, 1.5, 2.0]
    out = imported(official(), tmp_path)
    model, processor = RegionModel.from_pretrained(out), RegionProcessor.from_pretrained(out)
    part = {"type": "video", "video": frames, "times_s": times_s}
    inputs = processor([user(part, "What is <region>?")], [{1: BOX, 3: BOX}])
    pixels, kept, text = official_video(frames, times_s, max_tokens=64)
    assert 0 < kept.sum() < kept.size
    assert kept[4].sum() == 1  # nothing moved, one token stays
    assert inputs["video_compression_mask"].tolist() == kept.flatten().tolist()
    regions = "<REGION>" * sum(inputs["regions"].counts)
    assert processor.tokenizer.decode(inputs["input_ids"][0]) == (
        f"<|im_start|>user\n{text}\nWhat is [{regions}]?<|im_end|>\n<|im_start|>assistant\n"
    )
    sides = inputs["pixel_values_videos"].reshape(kept.size, 2, 2, 3, 14, 14)
    shown = sides.permute(0, 1, 4, 2, 5, 3).reshape(*kept.shape, -1).numpy()
    height, width = pixels.shape[1:3]
    expected = pixels.reshape(len(frames), height // 28, 28, width // 28, 28, 3).transpose(0, 1, 3, 2, 4, 5)
    np.testing.assert_allclose(shown, expected.reshape(shown.shape), atol=1e-6)
    with torch.no_grad():
        assert model(**inputs).logits.shape[1] == inputs["input_ids"].shape[1]
    model.detach()


def test_a_lite_video_tells_its_times_without_the_unit(tmp_path):
    processor = RegionProcessor.from_pretrained(imported(official(lite=True), tmp_path))
    part = {"type": "video", "video": clip(), "times_s": [0.0, 0.5, 1.0, 1.5, 2.0]}
    inputs = processor([user(part, "What is <region>?")], [{0: BOX, 3: BOX}])
    tokens = "<REGION>" * 8
    assert f"[Time 0.0:{tokens},Time 1.5:{tokens}]" in processor.tokenizer.decode(inputs["input_ids"][0])


def test_pictures_and_videos_do_not_share_a_batch(tmp_path):
    processor = RegionProcessor.from_pretrained(imported(official(), tmp_path))
    part = {"type": "video", "video": clip(), "fps": 2}
    with pytest.raises(PromptError, match=r"one token, '<image>', for pictures and videos here, so a batch may hold"):
        processor([[user(picture(60, 60), "A cat?")], [user(part, "A dog?")]])


# -- of somebody else's adapter ----------------------------------------------------------------------------------------

ACME = """
from dataclasses import replace

from pixelrefer_plugin import get_adapter, get_backbone
from pixelrefer_plugin.authoring import hookimpl

PLUGIN_API = 1

@hookimpl
def register_adapters(register):
    saot = get_adapter("saot")
    layout = replace(
        saot.layouts["pixelrefer_qwen2"],
        model="Acme",
        prefix="acme.",
        recognises=lambda keys: "shift" in keys,
        weights=lambda state: {"position.bias" if key == "shift" else key: each for key, each in state.items()},
        options=lambda data: {"num_tokens": data["acme_tokens"]},
        preset=None,
        region_token="<|stream_start|>",
        is_greedy=False,
    )
    register(replace(saot, name="acme", layouts={"acme_qwen2": layout}))

@hookimpl
def register_backbones(register):
    videollama3 = get_backbone("videollama3")
    layouts = {"acme_qwen2": videollama3.layouts["pixelrefer_qwen2"]}
    register(replace(videollama3, name="acme-backbone", model_types=("acme",), layouts=layouts))
"""


@pytest.fixture
def acme(tmp_path, monkeypatch):
    """An adapter of a stranger's, for whose checkpoints the stranger's backbone has a layout; and such a checkpoint."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/plug_acme.py").write_text(ACME)
    monkeypatch.syspath_prepend(tmp_path / "site")
    install_plugin(monkeypatch, "acme", "plug_acme")
    checkpoint = official()
    weights = {key: each for key, each in checkpoint.weights.items() if "region_encoder" not in key}
    own = {"shift" if key == "position.bias" else key: each for key, each in checkpoint.adapter.state_dict().items()}
    weights |= {f"acme.{key}": each for key, each in own.items()}
    yield replace(checkpoint, weights=weights, data={**checkpoint.data, "model_type": "acme_qwen2", "acme_tokens": 5})
    sys.modules.pop("plug_acme", None)


def test_a_strangers_layout_is_read_as_it_says(acme, tmp_path):
    src = acme.write(tmp_path / "official")
    (src / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.7}')
    out = import_official(src, tmp_path / "out")
    model, processor = RegionModel.from_pretrained(out), RegionProcessor.from_pretrained(out)
    state = model.adapter.state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in acme.adapter.state_dict().items())
    assert (model.adapter_config.num_tokens, model.adapter_config.kmeans_start) == (5, "even")
    assert processor.region_token == "<|stream_start|>"
    assert model.backbone.generation_config.temperature == 0.7
    model.detach()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: edit_config(f, model_type="qwen2"), "not an official Acme or PixelRefer or PixelRefer-Lite checkp"),
        (lambda f: edit_config(f, model_type="pixelrefer_qwen2"), "belong to no part of PixelRefer: acme.mlp.0.bias"),
        (lambda f: edit_weights(f, lambda each: each.update(new=torch.ones(1))), "belong to no part of Acme: new"),
        (
            lambda f: edit_weights(f, lambda each: [each.pop(key) for key in [*each] if key.startswith("acme.")]),
            "holds no weights of Acme's adapter: no key begins with 'acme.'",
        ),
        (lambda f: edit_config(f, acme_tokens="five"), "num_tokens must be an integer >= 1, got 'five'"),
    ],
)
def test_messages_are_made_of_the_layouts_words(acme, damage, message, tmp_path):
    src = acme.write(tmp_path / "official")
    damage(src)
    with pytest.raises(PixelReferError, match=message):
        import_official(src, tmp_path / "out")


def test_a_failure_of_a_layouts_code_names_the_plugin(acme, tmp_path):
    data = {key: value for key, value in acme.data.items() if key != "acme_tokens"}
    src = replace(acme, data=data).write(tmp_path / "official")
    with pytest.raises(PluginError, match="Adapter 'acme' failed in layouts: KeyError: 'acme_tokens'"):
        import_official(src, tmp_path / "out")


# -- what is refused ---------------------------------------------------------------------------------------------------


class Hostile:
    """Makes a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def drop(key):
    return lambda folder: edit_weights(folder, lambda weights: weights.pop(key))


def put(**tensors):
    named = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    return lambda folder: edit_weights(folder, lambda weights: weights.update(named))


def as_bin(content):
    def write(folder):
        (folder / "model.safetensors").unlink()
        if isinstance(content, bytes):
            (folder / "pytorch_model.bin").write_bytes(content)
        else:
            torch.save(content, folder / "pytorch_model.bin")

    return write


def rewritten(**options):
    """Weights in another form, then damaged."""

    def write(folder):
        damage = options.pop("then", lambda folder: None)
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        write_weights(weights, folder, **options)
        damage(folder)

    return write


def cut(path):
    path.write_bytes(path.read_bytes()[:2000])


def edit_tower(folder, **changes):
    path = folder.parent / "SigLIP-NaViT-tiny/preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_index(folder, changes):
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"].update(changes)
    path.write_text(json.dumps(index))


NORM = "model.norm.weight"
SHARDS = {"kind": "safetensors", "num_shards": 2}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda f: (f / "config.json").unlink(),
            "not an official PixelRefer or PixelRefer-Lite checkpoint: expected a config.json with",
        ),
        (lambda f: (f / "config.json").write_text("{"), "No model can be loaded from"),
        (
            lambda f: edit_config(f, model_type="qwen2"),
            "not an official PixelRefer .* or 'pixelreferlite_qwen2'\\.",
        ),
        (lambda f: edit_config(f, model_type="videollama3_qwen2"), "checkpoint: .* got 'videollama3_qwen2'"),
        (lambda f: edit_config(f, model_type="llava_next_x"), "No installed backbone plugin serves .*'llava_next_x'"),
        (lambda f: edit_config(f, model_type="pixelreferlite_qwen2"), "given as PixelRefer-Lite .* that of PixelRefer"),
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights: expected model.safetensors .* or pytorch"),
        (lambda f: cut(f / "model.safetensors"), r"model.safetensors' cannot be read"),
        (
            rewritten(**SHARDS, then=lambda f: (f / "model-00002-of-00002.safetensors").unlink()),
            "the shard '.*2-of",
        ),
        (
            rewritten(**SHARDS, then=lambda f: cut(f / "model-00002-of-00002.safetensors")),
            "2-of-00002.* cannot",
        ),
        (
            rewritten(
                **SHARDS, then=lambda f: edit_index(f, {"model.extra.weight": "model-00001-of-00002.safetensors"})
            ),
            "1-of-00002.safetensors' lacks 'model.extra.weight'",
        ),
        (rewritten(kind="bin", num_shards=1, then=lambda f: cut(f / "pytorch_model.bin")), "model.bin' cannot be read"),
        (as_bin(b"not a pickle"), "pytorch_model.bin' "),
        (as_bin(b"junk"), "pytorch_model.bin' cannot be read: unpack"),
        (as_bin([torch.zeros(1)]), "must hold tensors by name, got list"),
        (as_bin({"epoch": 3}), "must hold tensors by name and nothing else, got int as 'epoch'"),
        (drop(NORM), "does not fit: missing keys model.language_model.norm.weight, unexpected none"),
        (drop("lm_head.weight"), "head is not tied to its embedding, but holds no 'lm_head.weight'"),
        (drop("model.embed_tokens.weight"), "no .*'model.language_model.embed_tokens.weight'"),
        (drop("model.region_encoder.pos_linear.bias"), "missing keys position.bias"),
        (put(model__norm__weight=torch.ones(7)), r"'model.language_model.norm.weight' is \(7,\), expected \(48,\)"),
        (put(model__norm__weight=torch.ones(48, dtype=torch.int8)), "'model.norm.weight' is of type torch.int8"),
        (put(model__region_encoder__pos_linear__bias=torch.ones(32, dtype=torch.int64)), "is of type torch.int64"),
        (put(model__layers__9__x=torch.ones(1)), "unexpected model.language_model.layers.9.x"),
        (put(model__norm__weight=torch.ones(48).to(torch.float8_e4m3fn)), "float8_e4m3fn, expected .* of 16 bits"),
        (lambda f: (f / "config.json").write_text("[1]"), "must hold a JSON object, got list"),
        (lambda f: (f / "config.json").write_text("[" * 100_000), "No model can be loaded from"),
        (lambda f: edit_config(f, mask_num="8"), "num_tokens must be an integer >= 1, got '8'"),
        (lambda f: edit_config(f, mm_max_length=0), "'mm_max_length' must be an integer >= 1, got 0"),
        (lambda f: edit_config(f, mm_max_length=8), "max_patches must be >= 16, room for the smallest crop, got 8"),
        (lambda f: edit_config(f, spatial_merge_size="2"), "'spatial_merge_size' must be an integer >= 1, got '2'"),
        (lambda f: edit_config(f, rope_theta=float("inf")), "'rope_theta' must be a number > 0, got inf"),
        (lambda f: edit_config(f, mm_vision_encoder=3), "'mm_vision_encoder' must be a folder or hub id, got 3"),
        (lambda f: edit_config(f, tie_word_embeddings="yes"), "No config can be made .* Are they damaged"),
        (lambda f: edit_config(f, num_attention_heads=0), "No model can be made .* Are they damaged"),
        (
            lambda f: edit_config(f, num_hidden_layers=10**9),
            "num_hidden_layers is 1000000000, but .* weights have 2",
        ),
        (lambda f: edit_tower(f, patch_size=16), "'patch_size' must be that of the vision tower's weights, 14, got 16"),
        (lambda f: edit_tower(f, image_mean=[0.5]), r"'image_mean' must be three numbers, got \[0.5\]"),
        (lambda f: (f / "generation_config.json").write_text("[]"), "No generation config can be made"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "No processor can be made"),
        (
            put(model__embed_tokens__weight=torch.ones(200, 48), lm_head__weight=torch.ones(200, 48)),
            "tokenizer has 263 tokens, but the embedding has 200 rows",
        ),
        (as_bin({NORM: torch.empty(48, device="meta")}), "must hold plain tensors, got 'model.norm.weight' .* meta"),
        (rewritten(**SHARDS, then=lambda f: edit_index(f, {NORM: "../x.safetensors"})), "the shard '../x.safetensors'"),
        (rewritten(**SHARDS, then=lambda f: edit_index(f, {NORM: "x" * 5000})), "the shard 'x+', which is not beside"),
        (put(something__else=torch.ones(1)), "belong to no part of PixelRefer: something.else"),
        (put(model__region_encoder__new=torch.ones(1)), "a weight 'new', which is of neither"),
        (
            lambda f: (f / "tokenizer.json").unlink(),
            "holds no tokenizer: expected tokenizer.json or vocab.json",
        ),
    ],
)
def test_what_is_no_whole_checkpoint_is_refused(damage, message, tmp_path):
    src = official().write(tmp_path / "official")
    damage(src)
    with pytest.raises(PixelReferError, match=message):
        import_official(src, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["SigLIP-NaViT-tiny", "official"]


def test_a_pickle_that_would_run_code_does_not(tmp_path):
    src, marker = official().write(tmp_path / "official"), tmp_path / "ran"
    (src / "model.safetensors").unlink()
    for write in (torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))):
        write({"model.norm.weight": Hostile(marker)}, src / "pytorch_model.bin")
        with pytest.raises(
            CheckpointError, match=r"pytorch_model.bin' holds something else than tensors, which is refused"
        ):
            import_official(src, tmp_path / "out")
    (src / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + bytes(marker) + b"'\ntR.")
    with pytest.raises(CheckpointError, match="which is refused and was not run: ") as refused:
        import_official(src, tmp_path / "out")
    assert "weights_only" not in str(refused.value)  # torch's advice to read it unsafely
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_a_lite_checkpoint_given_as_a_full_one_is_refused(tmp_path):
    src = official(lite=True).write(tmp_path / "official")
    edit_config(src, model_type="pixelrefer_qwen2")
    with pytest.raises(CheckpointError, match="given as PixelRefer .* that of PixelRefer-Lite"):
        import_official(src, tmp_path / "out")


@pytest.mark.parametrize("token", ["<REGION>", "<image>"])
def test_a_tokenizer_without_the_official_tokens_is_refused(token, tmp_path):
    tokens = tuple(each if each != token else "<other>" for each in OFFICIAL_TOKENS)
    src = replace(official(), tokens=tokens).write(tmp_path / "official")
    with pytest.raises(CheckpointError, match=f"tokenizer .*'{token}'"):
        import_official(src, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_tower_of_unknown_heads_needs_its_folder(tmp_path):
    src = official().write(tmp_path / "official")
    tower = (tmp_path / "SigLIP-NaViT-tiny").rename(tmp_path / "tower")
    with pytest.raises(CheckpointError, match="width 32; how many attention heads .* --vision-tower"):
        import_official(src, tmp_path / "out")
    out = import_official(src, tmp_path / "out", vision_tower=tower)
    config = json.loads((out / "backbone/config.json").read_text())
    assert config["vision_config"]["num_attention_heads"] == TOWER["num_attention_heads"]


def test_a_tower_that_is_nowhere_is_asked_for(tmp_path):
    src = official(tower_inside=False).write(tmp_path / "official")
    (tmp_path / "SigLIP-NaViT-tiny").rename(tmp_path / "tower")
    with pytest.raises(CheckpointError, match="names the vision tower .* neither in it nor beside it"):
        import_official(src, tmp_path / "out")
    with pytest.raises(CheckpointError, match="Expected the vision tower's folder, with its config.json, at '.*towel'"):
        import_official(src, tmp_path / "out", vision_tower=tmp_path / "towel")
    import_official(src, tmp_path / "out", vision_tower=tmp_path / "tower")


def test_a_head_that_equals_the_embedding_is_tied(tmp_path):
    checkpoint = official(tied=True)
    weights = {**checkpoint.weights, "lm_head.weight": checkpoint.weights["model.embed_tokens.weight"].clone()}
    out = imported(
        replace(checkpoint, weights=weights, data={**checkpoint.data, "tie_word_embeddings": False}), tmp_path
    )
    assert json.loads((out / "backbone/config.json").read_text())["tie_word_embeddings"] is True


def test_what_is_there_is_not_overwritten_unless_it_may_be(tmp_path):
    src = official().write(tmp_path / "official")
    out = import_official(src, tmp_path / "out")
    before = (out / "adapter.safetensors").stat().st_mtime_ns
    with pytest.raises(CheckpointError, match="exists. Choose another folder"):
        import_official(src, out)
    with pytest.raises(CheckpointError, match="not a pixelrefer model folder; it is not overwritten"):
        import_official(src, src, overwrite=True)
    assert (out / "adapter.safetensors").stat().st_mtime_ns == before
    import_official(src, out, overwrite=True)
    assert (out / "adapter.safetensors").stat().st_mtime_ns > before
    with pytest.raises(CheckpointError, match="not an official PixelRefer or PixelRefer-Lite checkpoint"):
        import_official(out, tmp_path / "twice")
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="No folder can be made at .*file/out"):
        import_official(src, tmp_path / "file/out")


def test_the_command_does_the_same(tmp_path):
    src, out = official(lite=True).write(tmp_path / "official"), tmp_path / "out"
    arguments = ["import-official", str(src), str(out), "--adapter-option", "kmeans_start=even", "--dtype", "bfloat16"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    manifest = json.loads((out / "pixelrefer.json").read_text())
    assert (manifest["adapter"], manifest["region_token"], manifest["backbone_id"]) == ("oci", "<REGION>", "backbone")
    assert manifest["adapter_config"]["kmeans_start"] == "even"
    result = CliRunner().invoke(main, [*arguments, "--adapter-option", "colour=red", "--overwrite"])
    assert result.exit_code == 2
    assert "no option 'colour'" in result.output
    with pytest.raises(CheckpointError, match="dtype must be float32, float16, bfloat16"):
        import_official(src, tmp_path / "other", dtype="int8")
    with pytest.raises(CheckpointError, match="takes no option 'colour'"):
        import_official(src, tmp_path / "other", colour="red")


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_checkpoint_and_tower_come_from_the_hub(kind, tmp_path):
    checkpoint = official(tower_inside=False)
    named = replace(checkpoint, data={**checkpoint.data, "mm_vision_encoder": "authors/tower"})
    src = named.write(tmp_path / "official", kind, 2)
    for name, folder in (("official", src), ("tower", tmp_path / "SigLIP-NaViT-tiny")):
        repository = tmp_path / f"cache/models--authors--{name}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs/main").write_text("0" * 40)
        (repository / "snapshots").mkdir()
        folder.rename(repository / "snapshots" / ("0" * 40))
    where = {"cache_dir": tmp_path / "cache", "local_files_only": True}
    out = import_official("authors/official", tmp_path / "out", **where)
    assert len(load_file(out / "backbone/model.safetensors")) == len(checkpoint.native.state_dict())
    with pytest.raises(CheckpointError, match="No model can be loaded from 'authors/nothing'"):
        import_official("authors/nothing", tmp_path / "nothing", **where)
    shutil.rmtree(tmp_path / "cache/models--authors--tower")
    with pytest.raises(CheckpointError, match="'authors/tower' is no folder and cannot be fetched"):
        import_official("authors/official", tmp_path / "nothing", **where)
