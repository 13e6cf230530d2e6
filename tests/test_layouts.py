"""VideoLLaMA3's checkpoints in its authors' layouts: published with code, and as their training code saves them."""

import json

import pytest
import torch
from conftest import picture, user
from official_checkpoint import (
    PREPROCESSING,
    QWEN_TOKENS,
    ROPE_THETA,
    TEXT,
    TOWER,
    native_model,
    official,
    tokenizer,
    training_keys,
    write_weights,
)
from safetensors.torch import load_file

from pixelrefer_plugin import CheckpointError, PluginError, Region, RegionModel, load
from pixelrefer_plugin.weights.loading import load_backbone

BOX = Region.from_box((10, 10, 60, 50))
RUN_BY_REMOTE_CODE = "raise SystemExit('code of a checkpoint was run')"


@pytest.fixture(params=["published", "training"])
def folder(request, tmp_path):
    """A folder in that layout, and the native model it was made of."""
    native = native_model(QWEN_TOKENS)
    weights, made = training_keys(native.state_dict()), tmp_path / request.param
    data = {"model_type": "videollama3_qwen2", **TEXT, "rope_theta": ROPE_THETA, "use_token_compression": True}
    preprocessing = {**PREPROCESSING, "min_tokens": 16, "max_tokens": 64}
    made.mkdir()
    if request.param == "published":
        weights = {
            key.replace("vision_encoder.vision_encoder", "vision_encoder"): each for key, each in weights.items()
        }
        data |= {"vision_encoder": None, "vision_encoder_config": TOWER}
        data["auto_map"] = {
            "AutoConfig": "configuration_videollama3.Config",
            "AutoModel": "configuration_videollama3.M",
        }
        (made / "configuration_videollama3.py").write_text(RUN_BY_REMOTE_CODE)
        (made / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    else:
        data |= {"vision_encoder": "nowhere/SigLIP-NaViT", "mm_hidden_size": 32}
        (made / "SigLIP-NaViT").mkdir()
        (made / "SigLIP-NaViT/config.json").write_text(json.dumps(TOWER))
        (made / "SigLIP-NaViT/preprocessor_config.json").write_text(json.dumps(preprocessing))
    (made / "config.json").write_text(json.dumps(data))
    tokenizer(QWEN_TOKENS).save_pretrained(made)
    write_weights(weights, made, "safetensors", 2)
    return made, native


def logits(model, inputs):
    torch.manual_seed(0)
    with torch.no_grad():
        return model(**inputs).logits


def test_the_native_class_is_loaded_whole(folder):
    path, native = folder
    backbone = load_backbone(path)
    assert type(backbone) is type(native)
    state = backbone.state_dict()
    assert state.keys() == native.state_dict().keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in native.state_dict().items())
    input_ids = torch.arange(30)[None]
    torch.testing.assert_close(logits(backbone, {"input_ids": input_ids}), logits(native, {"input_ids": input_ids}))


def test_it_is_saved_in_the_native_layout(folder, tmp_path):
    path, native = folder
    load_backbone(path).save_pretrained(tmp_path / "saved")
    assert load_file(tmp_path / "saved/model.safetensors").keys() == native.state_dict().keys()
    assert load_backbone(tmp_path / "saved").config.text_config.rope_parameters["rope_theta"] == ROPE_THETA


def test_pictures_and_videos_go_through(folder):
    path, native = folder
    model, processor = load(path, adapter="saot")
    video = {"type": "video", "video": picture(60, 60 * 4).reshape(60, 4, 60, 3).swapaxes(0, 1), "fps": 2}
    inputs = processor(
        [[user(picture(70, 90), "What is <region>?")], [user(video, "What is <region>?")]], [[BOX], [{1: BOX}]]
    )
    text = processor.tokenizer.batch_decode(inputs["input_ids"])
    assert "<|im_start|>user\n<|image_pad|>" in text[0]
    assert "<|im_start|>user\nTime 0.0s:<|video_pad|>" in text[1]
    assert ",Time 0.5s:<|video_pad|>" in text[1]
    own = RegionModel.attach(native, adapter="saot", tokens=processor.tokens)
    own.adapter.load_state_dict(model.adapter.state_dict())
    torch.testing.assert_close(logits(model, inputs), logits(own, inputs), rtol=0, atol=1e-5)
    own.detach()
    model.detach()


def test_a_model_folder_on_top_of_it_loads_again(folder, tmp_path):
    path, _ = folder
    model, processor = load(path, adapter="saot")
    model.save_pretrained(tmp_path / "model", processor)
    again, processor_again = load(tmp_path / "model")
    conversation = [user(picture(70, 90), "What is <region>?")]
    inputs, inputs_again = processor(conversation, [BOX]), processor_again(conversation, [BOX])
    torch.testing.assert_close(logits(again, inputs_again), logits(model, inputs), rtol=0, atol=1e-6)
    model.detach()
    again.detach()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("model.norm.weight"), "missing keys model.language_model.norm.weight"),
        (
            lambda weights: weights.update({"model.layers.7.x": torch.ones(1)}),
            "unexpected model.language_model.lay",
        ),
        (lambda weights: weights.update(extra=torch.ones(1)), "holds more than a backbone: unexpected keys extra"),
        (lambda weights: weights.update({"model.norm.weight": torch.ones(3)}), r"is \(3,\), expected \(48,\)"),
    ],
)
def test_a_checkpoint_that_is_not_exactly_the_backbone_is_refused(folder, change, message):
    path, native = folder
    for shard in path.glob("*.safetensors*"):
        shard.unlink()
    weights = training_keys(native.state_dict())
    change(weights)
    write_weights(weights, path, "safetensors", 1)
    with pytest.raises(CheckpointError, match=message):
        load_backbone(path)


def test_a_native_checkpoint_may_hold_more_than_the_backbone(tmp_path):
    native = native_model(QWEN_TOKENS)
    native.save_pretrained(tmp_path / "native")
    write_weights({**native.state_dict(), "extra": torch.ones(1)}, tmp_path / "native", "safetensors", 1)
    state = load_backbone(tmp_path / "native").state_dict()
    assert state.keys() == native.state_dict().keys()
    assert all(torch.equal(state[key], tensor) for key, tensor in native.state_dict().items())


def test_an_official_checkpoint_is_not_taken_for_a_plain_backbone(tmp_path):
    src = official().write(tmp_path / "official")
    with pytest.raises(CheckpointError, match="pixelrefer import-official"):
        RegionModel.from_pretrained(src, adapter="saot")


def test_a_type_that_nobody_reads_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "videollama4_qwen9"}')
    with pytest.raises(PluginError, match="No installed backbone plugin serves model type 'videollama4_qwen9'"):
        load_backbone(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "videollama4_qwen9"}')
    with pytest.raises(CheckpointError, match="which backbone 'videollama3' does not read. It reads: video_llama_3,"):
        load_backbone(tmp_path, backbone_plugin="videollama3")
