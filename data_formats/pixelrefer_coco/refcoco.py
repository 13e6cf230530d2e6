"""Samples from RefCOCO, RefCOCO+, RefCOCOg and RefCLEF: what people said to point out an object.

`refs(unc).p`, or the same list in JSON, holds for each object `ref_id`, `ann_id`, `split` and `sentences`; the objects
themselves are in `instances.json` beside it. Source: https://github.com/lichengunc/refer.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from posixpath import normpath
from typing import Any

import numpy as np

from pixelrefer_plugin.authoring import DataError, read_json, read_plain_pickle, shown, told_left_out

from .config import RefCocoConfig
from .grouping import LeftOut, grouped
from .instances import InstanceSamples, file_name, open_tables
from .tables import CocoTables, Id, id_of, listed

_COCO_2014_NAME = re.compile(r"COCO_(?:train|val|test)2014_(?=\d+\.)")
_KEYS = {"ref_id", "ann_id", "sentences", "split"}


def is_refcoco(record: Mapping[str, Any]) -> bool:
    """A reference: sentences about an annotation."""
    return set(record) >= _KEYS


def open_refcoco(config: RefCocoConfig, path: Path, media_root: Path) -> InstanceSamples:
    """A sample for each sentence of a split; pictures are at the `file_name` of `instances.json`."""
    path = Path(path)
    refs, left_out = _of_split(_read_refs(path), config.split, path)
    picture_of = _name_of_2017 if config.coco_2017_names else file_name
    tables = open_tables(path.parent / (config.instances or "instances.json"), Path(media_root), picture_of)
    rows, phrases = [], []
    for ref, row in zip(refs, _rows_of(refs, tables, path), strict=True):
        for number, sentence in enumerate(ref["sentences"]):
            rows.append(row)
            phrases.append((f"{ref['ref_id']}-{number}", _expression(sentence)))
    order, turns, starts = grouped(tables, np.array(rows, dtype=np.int64), config.as_coco(), left_out)
    return InstanceSamples(
        tables,
        Path(media_root),
        config.as_coco(),
        np.array(rows, dtype=np.int64)[order],
        turns,
        starts,
        picture_of,
        [phrases[position] for position in order],
        left_out,
    )


def _of_split(every: Sequence[Mapping[str, Any]], split: str, path: Path) -> tuple[list[Mapping[str, Any]], LeftOut]:
    """The references of a split that have sentences, and how many others there are."""
    refs = [ref for ref in every if _is_of_split(ref, split)]
    if not refs:
        splits = listed(sorted({ref["split"] for ref in every}), quoted=False) or "none"
        raise DataError(f"'{path}' has no references of the split '{split}'. Its splits: {splits}.")
    said = [ref for ref in refs if ref["sentences"]]
    reasons = {
        f"of other splits than split={split}": len(every) - len(refs),
        "references without sentences": len(refs) - len(said),
    }
    left_out = {reason: count for reason, count in reasons.items() if count}
    if not said:
        raise DataError(f"'{path}' has no sentences of the split '{split}': {told_left_out(left_out)}.")
    return said, left_out


class _Instances:
    """The annotations that references may mean.

    Attributes:
        tables: the file.
    """

    def __init__(self, tables: CocoTables) -> None:
        self.tables = tables
        self._rows_of_id: dict[Id, list[int]] = {}
        for row, id in enumerate(tables.annotation_ids):
            if id is not None:
                self._rows_of_id.setdefault(id, []).append(row)
        self._row_of_image: dict[Id, int] = {id: row for row, id in enumerate(tables.image_ids) if id is not None}
        self._row_of_name: dict[str, int] = {}

    def row(self, ref: Mapping[str, Any]) -> int:
        """The annotation that a reference means.

        Raises:
            DataError: there is none, or more than one, or it is of another image than the reference.
        """
        subject = f"reference {shown(ref['ref_id'])} refers to annotation {shown(ref['ann_id'])}"
        found = self._rows_of_id.get(id_of(ref["ann_id"]), [])
        if not found:
            raise DataError(f"{subject}, which '{self.tables.path}' does not have")
        for key, image_row in self._own_image(ref).items():
            here = [row for row in found if self.tables.image_row[row] == image_row]
            if not here:
                raise DataError(f"{subject}, which is not of its own image, {key} {shown(ref[key])}")
            found = here
        if len(found) > 1:
            raise DataError(f"{subject}, an id that '{self.tables.path}' has twice")
        return found[0]

    def _own_image(self, ref: Mapping[str, Any]) -> dict[str, int]:
        """The image that a reference says it is of, by each key that says so; -2 where the file has no such image.

        Official files add the annotation's number to `file_name`, so that it is no image's.
        """
        own = {}
        if ref.get("image_id") is not None:
            own["image_id"] = self._row_of_image.get(id_of(ref["image_id"]), -2)
        name = ref.get("file_name")
        if isinstance(name, str):
            self._row_of_name = self._row_of_name or _rows_of_names(self.tables)
            if normpath(name) in self._row_of_name:
                own["file_name"] = self._row_of_name[normpath(name)]
        return own


def _rows_of_names(tables: CocoTables) -> dict[str, int]:
    """The image of each file name that one image alone has."""
    names = [normpath(str(file_name(tables.image(row)))) for row in range(len(tables.image_ids))]
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(name, []).append(row)
    return {name: of_name[0] for name, of_name in rows.items() if len(of_name) == 1}


def _rows_of(refs: Sequence[Mapping[str, Any]], tables: CocoTables, path: Path) -> list[int]:
    """The annotation of each reference.

    Raises:
        DataError: with all references for which it is not known.
    """
    instances = _Instances(tables)
    rows, wrong = [], []
    for ref in refs:
        try:
            rows.append(instances.row(ref))
        except DataError as error:
            wrong.append(str(error))
    if wrong:
        more = f"; and {len(wrong) - 20} more" if len(wrong) > 20 else ""
        raise DataError(f"'{path}' and '{tables.path}' do not fit together: {'; '.join(wrong[:20])}{more}.")
    return rows


def _read_refs(path: Path) -> list[Mapping[str, Any]]:
    refs = _read_json(path) if path.suffix == ".json" else read_plain_pickle(path)
    is_sound = isinstance(refs, list) and all(isinstance(ref, Mapping) and is_refcoco(ref) for ref in refs)
    if not is_sound or not all(isinstance(ref["sentences"], list | tuple) for ref in refs):
        raise DataError(f"'{path}' must hold a list of references with {', '.join(sorted(_KEYS))}.")
    wrong = next((ref["split"] for ref in refs if not isinstance(ref["split"], str)), None)
    if wrong is not None:
        raise DataError(f"'{path}': the 'split' of a reference must be a text, got {shown(wrong)}.")
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
    own: str = ref["split"]
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
