"""This package's own samples, JSON Lines or a JSON array. Its schema is docs/data.md; knows no other format."""

from dataclasses import dataclass

from pixelrefer_plugin import DataFormatSpec, hookimpl
from pixelrefer_plugin.data import schema


@dataclass(frozen=True)
class RegionsConfig:
    """No options."""


def read_record(config, record, place):
    return schema.read_record(record, place)


@hookimpl
def register_data_formats(register):
    register(DataFormatSpec(name="regions", config=RegionsConfig, recognises=schema.is_record, read_record=read_record))
