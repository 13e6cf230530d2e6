"""Every adapter, every backbone and every pair of them, through the public conformance kit."""

import pytest

from pixelrefer_plugin import get_adapter, get_backbone
from pixelrefer_plugin.testing import ADAPTER_CHECKS, BACKBONE_CHECKS, PAIR_CHECKS

# A new plugin adds one name.
ADAPTERS = ["maskpool", "saot", "oci"]
BACKBONES = ["videollama3", "qwen2_5_vl", "llava_onevision"]


def _name(check):
    return check.__name__


@pytest.mark.parametrize("check", ADAPTER_CHECKS, ids=_name)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapter(adapter, check):
    check(get_adapter(adapter))


@pytest.mark.parametrize("check", BACKBONE_CHECKS, ids=_name)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbone(backbone, check):
    check(get_backbone(backbone))


@pytest.mark.parametrize("check", PAIR_CHECKS, ids=_name)
@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_pair(adapter, backbone, check):
    check(adapter, backbone)
