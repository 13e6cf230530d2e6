"""Ref-YouTube-VOS, MeViS and their like: masks for expressions about videos. Knows their files; knows no model."""

from pixelrefer_plugin import hookimpl


@hookimpl
def register_data_formats(register):
    from pixelrefer_plugin import DataFormatSpec

    from .config import RefVosConfig
    from .expressions import is_refvos, open_refvos

    register(DataFormatSpec(name="refvos", config=RefVosConfig, recognises=is_refvos, open_file=open_refvos))
