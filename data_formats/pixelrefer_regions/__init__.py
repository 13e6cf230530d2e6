"""This package's own samples, JSON Lines or a JSON array. Its schema is docs/data.md; knows no other format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pixelrefer_plugin import DataFormatSpec, RegionSample, hookimpl
from pixelrefer_plugin.contracts.samples import RecordPlace
from pixelrefer_plugin.data import schema


@dataclass(frozen=True)
class RegionsConfig:
    """No options."""


def read_record(config: RegionsConfig, record: Mapping[str, Any], place: RecordPlace) -> RegionSample:
    return schema.read_record(record, place)


@hookimpl
def register_data_formats(register: Callable[[DataFormatSpec], None]) -> None:
    register(DataFormatSpec(name="regions", config=RegionsConfig, recognises=schema.is_record, read_record=read_record))
