"""This package's own samples, JSON Lines or a JSON array. Its schema is docs/data.md; knows no other format."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pixelrefer_plugin.authoring import (
    DataFormatSpec,
    RecordPlace,
    RegionSample,
    check_field,
    hookimpl,
    is_record,
    read_sample,
)

from .tiny import tiny

PLUGIN_API = 1


@dataclass(frozen=True)
class RegionsConfig:
    """How records are read.

    Attributes:
        clip: cut off what of a region lies outside its picture or video; records must say its `size`.
    """

    clip: bool = False

    def __post_init__(self) -> None:
        check_field(isinstance(self.clip, bool), self, "clip", "true or false")


def read_record(config: RegionsConfig, record: Mapping[str, Any], place: RecordPlace) -> RegionSample:
    return read_sample(record, place, clip=config.clip)


@hookimpl
def register_data_formats(register: Callable[[DataFormatSpec], None]) -> None:
    register(
        DataFormatSpec(name="regions", config=RegionsConfig, recognises=is_record, read_record=read_record, tiny=tiny)
    )
