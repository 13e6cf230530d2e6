"""Whole official models, imported: prompt, pixels, embeddings, logits and answer, through the public API only."""

import json
import shutil

import pytest
import torch
from einops import rearrange
from official_checkpoint import write_weights
from safetensors.torch import load_file

from parity.conftest import cases
from pixelrefer_plugin import Region, RegionModel, RegionProcessor, import_official

CHECKPOINTS = {"full": "pixelrefer_tiny", "lite": "pixelreferlite_tiny"}
VIEWS = {"full": {1: 0}, "lite": {0: 0, 1: 2, 2: 1}}  # our view for each of the reference's calls of the tower


class Case:
    """One reference case and what the imported model made of it."""

    def __init__(self, path, out):
        self.kind = path.stem.partition("_")[0]
        self.told = json.loads(path.with_suffix(".json").read_text())
        self.reference = load_file(path)
        self.model, self.processor = RegionModel.from_pretrained(out), RegionProcessor.from_pretrained(out)
        text = self.told["prompt"].removeprefix("<image>\n")
        picture = {"type": "image", "image": self.reference["raw_image_0"].numpy()}
        regions = [Region.from_mask(mask.numpy().astype(bool)) for mask in self.reference["raw_masks"]]
        conversation = [{"role": "user", "content": [picture, {"type": "text", "text": text}]}]
        self.inputs = self.processor(conversation, regions)

    def seeded(self):
        """The official k-means starts where torch's global generator says."""
        torch.manual_seed(self.told["seed"])


def reference_cases():
    return [each for kind in CHECKPOINTS for each in cases(f"e2e/{kind}_*.safetensors")]


@pytest.fixture(scope="module")
def folders(parity, tmp_path_factory):
    """The official checkpoints, imported."""
    at = tmp_path_factory.mktemp("imported")
    return {kind: import_official(parity / "e2e" / name, at / kind) for kind, name in CHECKPOINTS.items()}


@pytest.fixture(params=reference_cases())
def case(request, folders):
    made = Case(request.param, folders[request.param.stem.partition("_")[0]])
    yield made
    made.model.detach()


def test_the_prompt_is_the_same(case):
    assert torch.equal(case.inputs["input_ids"], case.reference["input_ids"])


def test_the_pixels_are_the_same(case):
    expected = {index: case.reference[f"vision{index}_pixels_u8"].float() for index in (0, 1)}
    if case.kind == "full":
        assert torch.equal(case.inputs["pixel_values"], (expected[0] / 255 - 0.5) / 0.5)
    regions = case.inputs["regions"]
    crops = regions.normalised_crops(torch.float32)
    for call, view in VIEWS[case.kind].items():
        layout = regions.views[view]
        of_region = [crops[layout.crops.start + grid] for grid in layout.grid_of_region]
        patches = [rearrange(each, "c (h p) (w q) -> (h w) (c p q)", p=14, q=14) for each in of_region]
        reference = (case.reference[f"vision{call}_pixels_u8"].float() / 255 - 0.5) / 0.5
        torch.testing.assert_close(torch.cat(patches), reference, rtol=0, atol=1e-6)


def test_what_the_decoder_reads_and_says_is_the_same(case):
    read = {}
    first_layer = case.model.backbone.model.language_model.layers[0]
    hook = first_layer.register_forward_pre_hook(lambda module, inputs: read.update(embeddings=inputs[0]))
    case.seeded()
    with torch.no_grad():
        logits = case.model(**case.inputs).logits
    hook.remove()
    torch.testing.assert_close(read["embeddings"], case.reference["inputs_embeds"], rtol=0, atol=1e-5)
    torch.testing.assert_close(logits, case.reference["logits"], rtol=0, atol=1e-4)


def test_the_answer_is_the_same(case):
    length = case.inputs["input_ids"].shape[1]
    case.seeded()
    generated = case.model.generate(**case.inputs, max_new_tokens=case.reference["greedy_ids"].shape[1])
    assert torch.equal(generated[:, length:], case.reference["greedy_ids"])


@pytest.mark.parametrize("num_shards", [1, 4])
@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("model", CHECKPOINTS)
def test_the_form_of_the_files_does_not_matter(model, kind, num_shards, folders, parity, tmp_path):
    source, copied = parity / "e2e" / CHECKPOINTS[model], tmp_path / "copy"
    copied.mkdir()
    for path in source.iterdir():
        if path.suffix != ".safetensors":
            shutil.copyfile(path, copied / path.name)
    write_weights(load_file(source / "model.safetensors"), copied, kind, num_shards)
    out = import_official(copied, tmp_path / "out", vision_tower=parity / "e2e/SigLIP-NaViT-tiny")
    for name in ("adapter.safetensors", "backbone/model.safetensors"):
        expected, got = load_file(folders[model] / name), load_file(out / name)
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[key], tensor) for key, tensor in expected.items())


def test_every_key_goes_where_the_reference_says(folders, parity):
    for model, name in CHECKPOINTS.items():
        mapping = json.loads((parity / f"keymap/keymap_{name}.json").read_text())
        native = {key for key in mapping.values() if key is not None}
        assert load_file(folders[model] / "backbone/model.safetensors").keys() == native
