from pixelrefer_plugin.testing import check_backbone


def test_qwen2_vl_conforms():
    check_backbone("qwen2_vl")
