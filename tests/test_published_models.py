"""Published models, by the facts of their `config.json` that are recorded in `published/`: built on the meta device, at
their real size and without weights, they are what their backbone's spec says."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from pixelrefer_plugin import get_adapter, get_backbone, list_plugins
from pixelrefer_plugin.model import shapes_of

FACTS = Path(__file__).parent / "published"


def file_of(id):
    return FACTS / f"{id.replace('/', '--')}.json"


def models():
    """Every model that a built-in backbone lists, by the backbone's name."""
    for each in list_plugins():
        if each.kind == "backbone":
            get_backbone(each.name)  # loads the plugin, which may register several
    names = {name for each in list_plugins() for kind, name in each.specs if kind == "backbone"}
    return [(name, model) for name in sorted(names) for model in get_backbone(name).models]


def built(facts):
    config = dict(facts["config"])
    return AutoConfig.for_model(config.pop("model_type"), **config)


@pytest.mark.parametrize(("backbone", "model"), models(), ids=lambda each: getattr(each, "id", each))
def test_a_published_model_is_what_its_backbone_says(backbone, model):
    spec, facts = get_backbone(backbone), json.loads(file_of(model.id).read_text())
    config = built(facts)
    assert config.model_type in spec.model_types
    with torch.device("meta"):
        native = spec.model_class(config)
    for path in (spec.parts.vision_tower, spec.parts.projector, spec.parts.decoder, spec.parts.norm):
        native.get_submodule(path)
    linear = [name for name, module in native.named_modules() if isinstance(module, torch.nn.Linear)]
    for scope, pattern in spec.lora_targets.items():
        assert [name for name in linear if re.fullmatch(pattern, name)], f"LoRA finds no layer in the {scope}"
    shapes = shapes_of(native, spec, get_adapter("saot"))
    assert shapes.decoder == config.get_text_config().hidden_size
    assert shapes.crop == spec.crops.width(config)
    assert spec.crops.geometry(config).patch_size > 0
    count = sum(each.numel() for each in native.parameters())
    assert count == pytest.approx(facts["num_parameters"], rel=0.01), f"{count:,} parameters"


def test_each_recorded_model_is_listed():
    assert {path.stem for path in FACTS.glob("*.json")} == {file_of(model.id).stem for _, model in models()}
