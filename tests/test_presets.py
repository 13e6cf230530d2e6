"""The paper's defaults and the official preset both train, on the whole model."""

import numpy as np
import pytest
import torch
from conftest import assistant, picture, user

from pixelrefer_plugin import Region, attach, get_adapter, get_backbone

CONFIGURATIONS = [(adapter, options) for adapter in ("saot", "oci") for options in (None, "official")]


@pytest.fixture
def regions():
    """Two regions of unlike kinds: one grows and is clustered, one at the border has few patches."""
    height, width = IMAGE_HW
    y, x = np.mgrid[:height, :width]
    ellipse = ((x - 70) / 40) ** 2 + ((y - 60) / 30) ** 2 <= 1
    return [Region.from_mask(ellipse), Region.from_box((width - 9, height - 12, width, height))]


IMAGE_HW = (140, 196)


def batch_of(processor, regions):
    question = user(picture(*IMAGE_HW), "What are <region> and <region>?")
    return processor([question, assistant("A cat and a dog.")], regions, labels=True)


@pytest.mark.parametrize(("adapter", "options"), CONFIGURATIONS)
def test_it_trains(adapter, options, regions):
    backbone, native = get_backbone("videollama3").tiny(0)
    torch.manual_seed(0)
    model, processor = attach(backbone, native, adapter=adapter, adapter_config=options)
    model.add_lora()
    batch = batch_of(processor, regions)
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        without = [name for name, each in model.adapter.named_parameters() if each.grad is None or not each.grad.any()]
        assert not without, f"no gradient reaches {without}"
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0], f"the loss went from {losses[0]:.3f} to {losses[-1]:.3f}"


@pytest.mark.parametrize("adapter", ["saot", "oci"])
def test_the_default_is_not_the_preset(adapter):
    spec = get_adapter(adapter)
    default, official = spec.make_config(), spec.make_config("official")
    assert default != official
    assert spec.make_config({"preset": "official", "num_tokens": 16}).num_tokens == 16
