"""Model folders on the hub: read from the hub's own cache, off-line; uploaded with a card."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import assistant, picture, user
from huggingface_hub import HfApi, ModelCard

from pixelrefer_plugin import CheckpointError, Region, RegionModel, RegionProcessor, load
from pixelrefer_plugin.plugins import get_backbone
from pixelrefer_plugin.testing import make_pair
from pixelrefer_plugin.weights.hub import write_card
from pixelrefer_plugin.weights.model_folder import locate_backbone

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path):
    """A model folder in a hub cache as `huggingface_hub` lays it out, under `someone/regions`."""
    pair = make_pair("maskpool", "videollama3")
    pair.model.add_lora(r=4)
    pair.model.save_pretrained(tmp_path / "model", pair.processor)
    repository = tmp_path / "cache/models--someone--regions"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    shutil.copytree(tmp_path / "model", repository / "snapshots" / COMMIT)
    return pair, tmp_path / "cache"


def test_a_model_folder_loads_by_its_name_on_the_hub(cached):
    pair, cache = cached
    where = {"cache_dir": cache, "local_files_only": True}
    model = RegionModel.from_pretrained("someone/regions", backbone=get_backbone("videollama3").tiny(0)[0], **where)
    processor = RegionProcessor.from_pretrained("someone/regions", revision="main", **where)
    conversation = [user(picture(56, 84), "What is <region>?"), assistant("A car.")]
    inputs = processor(conversation, [Region.from_box((10, 10, 40, 40))], labels=True)
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, pair.model(**inputs).logits, rtol=0, atol=0)


def test_what_is_not_there_is_said(tmp_path):
    where = {"cache_dir": tmp_path, "local_files_only": True}
    for kind in (RegionModel, RegionProcessor):
        with pytest.raises(CheckpointError, match="No model .* 'someone/nothing': .* the hub cannot be reached"):
            kind.from_pretrained("someone/nothing", **where)


def test_a_plain_backbone_loads_from_the_cache(tmp_path):
    repository = tmp_path / "models--someone--plain"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    shutil.copytree(locate_backbone("builtin:tiny_videollama3", tmp_path), repository / "snapshots" / COMMIT)
    where = {"cache_dir": tmp_path, "local_files_only": True}
    assert RegionModel.from_pretrained("someone/plain", adapter="saot", **where).backbone_spec.name == "videollama3"


@pytest.mark.parametrize(
    ("backbone_id", "base"),
    [("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"), ("/home/me/qwen", None), ("builtin:tiny", None)],
)
def test_the_card_names_a_backbone_that_others_can_get(cached, tmp_path, backbone_id, base):
    folder = tmp_path / "model"
    manifest = json.loads((folder / "pixelrefer.json").read_text())
    (folder / "pixelrefer.json").write_text(json.dumps({**manifest, "backbone_id": backbone_id}))
    write_card(folder, "someone/regions")
    card = ModelCard.load(folder / "README.md")
    assert card.data.base_model == base
    assert card.data.library_name == "pixelrefer-plugin"
    assert "/home/me" not in card.text
    assert 'load("someone/regions")' in card.text


def test_the_whole_folder_is_uploaded(cached, monkeypatch):
    pair, _ = cached
    sent = {}

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        sent[repo_id] = sorted(str(each.relative_to(folder_path)) for each in Path(folder_path).rglob("*.*"))
        return f"address of {commit_message}"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, private, exist_ok: sent.update(private=private))
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    address = pair.model.push_to_hub("someone/regions", pair.processor, private=True, commit_message="First")
    assert address == "address of First"
    assert sent["private"] is True
    assert {"README.md", "adapter.safetensors", "lora/adapter_model.safetensors", "pixelrefer.json"} <= set(
        sent["someone/regions"]
    )
    assert "processor/tokenizer.json" in sent["someone/regions"]


@pytest.mark.parametrize("name", ["no such//name", "someone/regions"], ids=["name", "off-line"])
def test_what_cannot_be_uploaded_is_said(cached, monkeypatch, name):
    pair, _ = cached
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=f"'{name}' cannot be uploaded: "):
        pair.model.push_to_hub(name, pair.processor)


def test_a_hub_that_cannot_be_reached_is_said(cached, monkeypatch):
    pair, _ = cached
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match="'someone/regions' cannot be uploaded: "):
        pair.model.push_to_hub("someone/regions", pair.processor)


def test_a_builtin_backbone_loads_by_its_name():
    model, processor = load("builtin:tiny_videollama3", adapter="maskpool")
    assert processor.tokens.placeholder == len(processor.tokenizer) - 1
    assert model.backbone.config.model_type == "video_llama_3"
    for way in (load, RegionModel.from_pretrained, RegionProcessor.from_pretrained):
        with pytest.raises(CheckpointError, match="ships no backbone 'builtin:nothing'"):
            way("builtin:nothing", adapter="maskpool")
