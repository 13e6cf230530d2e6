"""The way in: `attach` and `load` give model and processor together, whatever the adapter, in whatever order."""

import pickle
from dataclasses import FrozenInstanceError, replace

import pytest
from conftest import assistant, picture, user

from pixelrefer_plugin import (
    AttachError,
    CheckpointError,
    FrameSampling,
    PluginError,
    Region,
    RegionModel,
    RegionProcessor,
    SpliceError,
    TokenIds,
    attach,
    get_adapter,
    get_backbone,
    load,
)

ADAPTERS = ["maskpool", "saot", "oci", "unipixel"]
QUESTION = [user(picture(60, 90), "what is <region>?")]
BOX = Region.from_box((5, 5, 40, 30))
PLAIN = "builtin:tiny_videollama3"


@pytest.fixture
def attached():
    """Attaches, and detaches in the end."""
    made = []

    def attach_to(adapter, backbone="videollama3", **options):
        bare, native = get_backbone(backbone).tiny(0)
        options = {"adapter_config": get_adapter(adapter).tiny, **options}
        made.append(attach(bare, native, adapter=adapter, **options))
        return made[-1]

    yield attach_to
    for model, _ in made:
        model.detach()


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_same_lines_work_for_every_adapter(adapter, tmp_path):
    backbone, native = get_backbone("videollama3").tiny(0)
    model, processor = attach(backbone, native, adapter=adapter, adapter_config=get_adapter(adapter).tiny)
    model.add_lora()
    inputs = processor([*QUESTION, assistant("a digit")], [BOX], labels=True)
    model(**inputs).loss.backward()
    model.eval()
    question = processor(QUESTION, [BOX])
    options = {"max_new_tokens": 4, "do_sample": False, "suppress_tokens": list(processor.tokens.native.values())}
    answer = processor.decode(model.generate(**question, **options), question)
    model.save_pretrained(tmp_path / "model", processor)
    model.detach()
    loaded, processor = load(tmp_path / "model", backbone=get_backbone("videollama3").tiny(0)[0])
    question = processor(QUESTION, [BOX])
    assert processor.decode(loaded.generate(**question, **options), question) == answer
    loaded.detach()


def test_both_are_made_from_one_value(attached):
    model, processor = attached("unipixel", sampling=FrameSampling(num_frames=3))
    assert model.tokens is processor.tokens
    assert processor.sampling.num_frames == 3
    tokenizer = processor.tokenizer
    assert model.tokens.placeholder == tokenizer.convert_tokens_to_ids("<|region_pad|>")
    assert model.tokens.mask == tokenizer.convert_tokens_to_ids("<seg>")
    assert model.tokens.native["image_token"] == tokenizer.convert_tokens_to_ids(processor.native.image_token)
    assert model.tokens.native["eos_token"] == tokenizer.eos_token_id
    with pytest.raises(FrozenInstanceError):
        model.tokens.placeholder = 3


def test_tokens_survive_pickling(attached):
    _, processor = attached("maskpool")
    assert pickle.loads(pickle.dumps(processor)).tokens == processor.tokens


def test_one_of_the_two_alone(tmp_path):
    processor = RegionProcessor.from_pretrained(PLAIN, adapter="unipixel")
    options = {"adapter_config": get_adapter("unipixel").tiny}
    model = RegionModel.from_pretrained(PLAIN, adapter="unipixel", **options)
    assert model.tokens == processor.tokens
    both = load(PLAIN, adapter="unipixel", **options)
    assert both[0].tokens == both[1].tokens == model.tokens
    model.save_pretrained(tmp_path / "model", processor)
    for each in (model, both[0]):
        each.detach()
    assert RegionModel.from_pretrained(tmp_path / "model").tokens == model.tokens
    assert RegionProcessor.from_pretrained(tmp_path / "model").tokens == model.tokens


@pytest.mark.parametrize("way", [load, RegionModel.from_pretrained, RegionProcessor.from_pretrained])
def test_a_plain_backbone_needs_an_adapter(way):
    with pytest.raises(PluginError, match=r"Write adapter=NAME with one of .*: .*maskpool, .*saot"):
        way(PLAIN)


def test_what_a_folder_brings_is_not_given(attached, tmp_path):
    model, processor = attached("maskpool")
    model.save_pretrained(tmp_path / "model", processor)
    with pytest.raises(CheckpointError, match="brings its backbone plugin, 'videollama3', got 'qwen2_5_vl'"):
        load(tmp_path / "model", backbone_plugin="qwen2_5_vl")
    with pytest.raises(CheckpointError, match="backbone is for model folders"):
        load(PLAIN, adapter="maskpool", backbone=PLAIN)


@pytest.mark.parametrize("run", [RegionModel.forward, RegionModel.generate])
def test_a_batch_of_another_placeholder_is_refused(attached, run):
    model, processor = attached("maskpool")
    inputs = processor(QUESTION, [BOX])
    inputs["regions"] = replace(inputs["regions"], placeholder_id=7)
    with pytest.raises(SpliceError, match=r"where token 7 stands, this model has them where token \d+ stands"):
        run(model, **inputs)


@pytest.mark.parametrize("run", [RegionModel.forward, RegionModel.generate])
def test_a_batch_of_another_mask_token_is_refused(attached, run):
    model, processor = attached("unipixel")
    inputs = processor(QUESTION, [BOX], segment=True)
    inputs["masks"] = replace(inputs["masks"], token_id=7)
    with pytest.raises(SpliceError, match=r"masks where token 7 stands, this model gives them where token \d+ stands"):
        run(model, **inputs)


def test_lost_regions_are_noticed_by_the_first_batch(attached):
    model, processor = attached("maskpool")
    inputs = processor(QUESTION, [BOX])
    del inputs["regions"]
    with pytest.raises(SpliceError, match="placeholders for object tokens but no 'regions'"):
        model(**inputs)


def test_tokens_must_have_what_the_adapter_needs(attached):
    model, _ = attached("maskpool")
    with pytest.raises(AttachError, match="gives masks where '<seg>' is said, but `tokens` has no id for it"):
        RegionModel.attach(
            model.detach(),
            adapter="unipixel",
            adapter_config=get_adapter("unipixel").tiny,
            tokens=TokenIds(placeholder=model.tokens.placeholder),
        )


@pytest.mark.parametrize("names", [[], ["paint", "sam2"]])
def test_one_region_source_is_taken_and_several_are_asked_about(monkeypatch, names):
    import click

    from pixelrefer_plugin.cli import subject

    monkeypatch.setattr(subject, "installed", lambda kind: names)
    expected = "Installed: paint, sam2" if names else "None is installed"
    with pytest.raises(click.UsageError, match=f"write --source NAME. {expected}"):
        subject._only_source()
    monkeypatch.setattr(subject, "installed", lambda kind: ["paint"])
    assert subject._only_source() == "paint"
