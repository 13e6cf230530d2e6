"""Osprey-724K. Knows its JSON; knows no model."""

from pixelrefer_plugin import hookimpl


@hookimpl
def register_data_formats(register):
    from pixelrefer_plugin import DataFormatSpec

    from .config import OspreyConfig
    from .records import is_osprey, read_record

    register(DataFormatSpec(name="osprey", config=OspreyConfig, recognises=is_osprey, read_record=read_record))
