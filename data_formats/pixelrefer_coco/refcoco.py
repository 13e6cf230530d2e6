"""Samples from RefCOCO, RefCOCO+, RefCOCOg and RefCLEF: what people said to point out an object.

`refs(unc).p`, or the same list in JSON, holds for each object `ref_id`, `ann_id`, `split` and `sentences`; the objects
themselves are in `instances.json` beside it. Source: https://github.com/lichengunc/refer.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pixelrefer_plugin.authoring import DataError, read_json, read_plain_pickle

from .config import RefCocoConfig
from .instances import InstanceSamples, file_name, grouped
from .tables import CocoTables, hashable

_COCO_2014_NAME = re.compile(r"COCO_(?:train|val|test)2014_(?=\d+\.)")
_KEYS = {"ref_id", "ann_id", "sentences", "split"}


def is_refcoco(record: Mapping[str, Any]) -> bool:
    """A reference: sentences about an annotation."""
    return set(record) >= _KEYS


def open_refcoco(config: RefCocoConfig, path: Path, media_root: Path) -> InstanceSamples:
    """A sample for each sentence of a split; pictures are at the `file_name` of `instances.json`."""
    path = Path(path)
    every = _read_refs(path)
    refs = [ref for ref in every if _is_of_split(ref, config.split)]
    if not refs:
        splits = ", ".join(sorted({str(ref["split"]) for ref in every})) or "none"
        raise DataError(f"'{path}' has no references of the split '{config.split}'. Its splits: {splits}.")
    tables = CocoTables.open(path.parent / (config.instances or "instances.json"))
    row_of = {id: row for row, id in enumerate(tables.annotation_ids)}
    rows, phrases = [], []
    for ref in refs:
        row = row_of.get(hashable(ref["ann_id"]))
        if row is None:
            raise DataError(f"'{path}' refers to annotation {ref['ann_id']}, which '{tables.path}' does not have.")
        for number, sentence in enumerate(ref["sentences"]):
            rows.append(row)
            phrases.append((f"{ref['ref_id']}-{number}", _expression(sentence)))
    order, turns, starts = grouped(tables, np.array(rows, dtype=np.int64), config.as_coco())
    return InstanceSamples(
        tables,
        Path(media_root),
        config.as_coco(),
        np.array(rows, dtype=np.int64)[order],
        turns,
        starts,
        _name_of_2017 if config.coco_2017_names else file_name,
        [phrases[position] for position in order],
    )


def _read_refs(path: Path) -> list[Mapping[str, Any]]:
    refs = _read_json(path) if path.suffix == ".json" else read_plain_pickle(path)
    is_sound = isinstance(refs, list) and all(isinstance(ref, Mapping) and is_refcoco(ref) for ref in refs)
    if not is_sound or not all(isinstance(ref["sentences"], list | tuple) for ref in refs):
        raise DataError(f"'{path}' must hold a list of references with {', '.join(sorted(_KEYS))}.")
    return refs


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except OSError as error:
        raise DataError(f"Cannot read '{path}': {error.strerror or error}.") from error
    except ValueError as error:
        raise DataError(f"'{path}' is no JSON that can be read: {error}. Is the file complete?") from error


def _is_of_split(ref: Mapping[str, Any], split: str) -> bool:
    """As in `refer.py`: `test` is every split with that in its name, and testA is a part of testAB."""
    own = str(ref["split"])
    if split == "test":
        return "test" in own
    if re.fullmatch("test[ABC]", split):
        return "test" in own and split[-1] in own
    return own == split


def _expression(sentence: Any) -> str:
    """The expression as the annotators' words, cleaned."""
    if isinstance(sentence, Mapping):
        sentence = sentence.get("sent") or sentence.get("raw")
    return sentence if isinstance(sentence, str) else ""


def _name_of_2017(image: Mapping[str, Any]) -> Any:
    name = file_name(image)
    return _COCO_2014_NAME.sub("", name) if isinstance(name, str) else name
