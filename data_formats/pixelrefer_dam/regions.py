"""Reads the Describe Anything data set: `annotations.json` of each of its parts, or regions one by one.

`annotations.json` maps the id of a picture to its regions, `{"img_id", "ann_id", "image", "mask_rle", "caption",
"tar_file"}`. Data set: https://huggingface.co/datasets/nvidia/describe-anything-dataset; model and paper:
https://github.com/NVlabs/describe-anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixelrefer_plugin.authoring import (
    DataError,
    Defect,
    RecordPlace,
    Region,
    RegionError,
    RegionSample,
    choose,
    collecting,
    read_sample,
    read_segmentation,
    read_span,
    scan_object,
    shown,
)

from .config import DamConfig


def is_annotations(record: Mapping[str, Any]) -> bool:
    """An object of lists of regions."""
    lists = [value for value in record.values() if isinstance(value, list) and value]
    return any(isinstance(value[0], Mapping) and is_region(value[0]) for value in lists)


def is_region(record: Mapping[str, Any]) -> bool:
    """A mask and a caption."""
    return "mask_rle" in record and "caption" in record


def read_region(config: DamConfig, record: Mapping[str, Any], place: RecordPlace) -> RegionSample:
    """The sample of one region; raises `SampleError` with all that is wrong with it."""
    defects: list[Defect] = []
    region: Region | None = None
    with collecting(defects, "region", "its mask"):
        region = read_segmentation(record.get("mask_rle"))
        if region is None:
            raise RegionError("'mask_rle' is empty.")
    ids = [record[key] for key in ("img_id", "ann_id") if record.get(key) is not None]
    wrong = [each for each in ids if not isinstance(each, int | float | str) or isinstance(each, bool)]
    if wrong:
        defects.append(Defect("format", f"'img_id' and 'ann_id' must be texts or numbers, got {shown(wrong[0])}."))
    id = "_".join(map(str, ids)) if ids and not wrong else str(place.index)
    caption = record.get("caption")
    if not isinstance(caption, str):
        defects.append(Defect("answer", f"'caption' must be a text, got {shown(caption)}."))
    translated = {
        "id": id,
        "image": f"{record.get('img_id')}.jpg" if config.images == "shards" else record.get("image"),
        "messages": [
            {"role": "user", "content": choose(config.question, id)},
            {"role": "assistant", "content": caption if isinstance(caption, str) else "?"},
        ],
    }
    return read_sample(translated, place, regions=[region], defects=defects)


@dataclass(frozen=True, eq=False)
class DamFile:
    """The regions of one `annotations.json`, each parsed when it is asked for.

    Attributes:
        path: of the file.
        media_root: folder that pictures are below.
        config: how they are read.
        spans: `(n, 2)` byte offsets of the regions.
        left_out: see `SampleFile`.
    """

    path: Path
    media_root: Path
    config: DamConfig
    spans: np.ndarray
    left_out: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, index: int) -> RegionSample:
        start, stop = (int(offset) for offset in self.spans[index])
        place = RecordPlace(f"{self.path.name} region {index}", index, self.media_root)
        try:
            record = read_span(self.path, start, stop)
        except DataError as error:
            raise place.error(str(index), [Defect("format", str(error))]) from error
        if not isinstance(record, Mapping):
            raise place.error(str(index), [Defect("format", f"a region must be an object, got {shown(record)}.")])
        return read_region(self.config, record, place)


def open_annotations(config: DamConfig, path: Path, media_root: Path) -> DamFile:
    """The samples of an `annotations.json`; raises `DataError` where it has none."""
    spans, num_others = [], 0
    for found in scan_object(path):
        if found.number is not None:
            spans.append((found.start, found.stop))
        else:
            num_others += 1
    if not spans:
        raise DataError(f"'{path}' has no regions: expected an object that maps picture ids to lists of regions.")
    left_out = {"pictures whose value is no list of regions": num_others} if num_others else {}
    return DamFile(Path(path), Path(media_root), config, np.array(spans, dtype=np.int64), left_out)
