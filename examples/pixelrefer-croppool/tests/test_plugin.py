from pixelrefer_plugin.testing import check_adapter


def test_croppool_conforms():
    check_adapter("croppool")
