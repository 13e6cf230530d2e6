"""The Describe Anything data set: regions with detailed captions. Knows its JSON; knows no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import DataFormatSpec

PLUGIN_API = 1


@hookimpl
def register_data_formats(register: "Callable[[DataFormatSpec], None]") -> None:
    from pixelrefer_plugin.authoring import DataFormatSpec

    from .config import DamConfig
    from .regions import is_annotations, is_region, open_annotations, read_region
    from .tiny import tiny_annotations, tiny_regions

    register(
        DataFormatSpec(
            name="dam", config=DamConfig, recognises=is_annotations, open_file=open_annotations, tiny=tiny_annotations
        )
    )
    register(
        DataFormatSpec(
            name="dam_regions", config=DamConfig, recognises=is_region, read_record=read_region, tiny=tiny_regions
        )
    )
