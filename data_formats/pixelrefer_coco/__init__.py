"""Samples from COCO's instances, LVIS and RefCOCO. Knows their files; knows no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import DataFormatSpec

PLUGIN_API = 1


@hookimpl
def register_data_formats(register: "Callable[[DataFormatSpec], None]") -> None:
    from pixelrefer_plugin.authoring import DataFormatSpec

    from .config import CocoConfig, RefCocoConfig
    from .instances import is_coco, is_lvis, open_coco, open_lvis
    from .refcoco import is_refcoco, open_refcoco
    from .tiny import tiny_coco, tiny_lvis, tiny_refcoco

    register(DataFormatSpec(name="coco", config=CocoConfig, recognises=is_coco, open_file=open_coco, tiny=tiny_coco))
    register(DataFormatSpec(name="lvis", config=CocoConfig, recognises=is_lvis, open_file=open_lvis, tiny=tiny_lvis))
    register(
        DataFormatSpec(
            name="refcoco", config=RefCocoConfig, recognises=is_refcoco, open_file=open_refcoco, tiny=tiny_refcoco
        )
    )
