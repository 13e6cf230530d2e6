import pytest

from pixelrefer_plugin.testing import check_adapter


@pytest.mark.parametrize("backbone", ["videollama3", "qwen2_5_vl", "llava_onevision"])
def test_gar_conforms(backbone):
    check_adapter("gar", backbone=backbone)
