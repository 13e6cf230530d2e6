"""Samples from instances: COCO's and LVIS's files, and any that are like them.

Formats: https://cocodataset.org/#format-data, https://www.lvisdataset.org/dataset.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from pixelrefer_plugin.authoring import (
    MASK_MARKER,
    REGION_MARKER,
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
    shown,
    size_of,
)

from .config import CocoConfig
from .grouping import chosen, grouped
from .names import fields_of, named_fields, same
from .objects import distinct
from .tables import CocoTables, id_of, listed

_CAPTION_FIELDS = ("caption", "description", "phrase", "text")
_OF_CATEGORY = frozenset({"name", "synonyms", "supercategory"})
_LONGEST_ID = 60  # that messages have whole
_LVIS_KEYS = {"neg_category_ids", "not_exhaustive_category_ids"}

ValueT = TypeVar("ValueT")


def is_coco(record: Mapping[str, Any]) -> bool:
    """Images or annotations as COCO has them, and nothing of LVIS."""
    return not is_lvis(record) and (
        {"id", "file_name"} <= set(_first(record, "images")) or "image_id" in _first(record, "annotations")
    )


def is_lvis(record: Mapping[str, Any]) -> bool:
    """Images that say which categories were not looked for, or categories with synsets."""
    return bool(_LVIS_KEYS & set(_first(record, "images"))) or "synset" in _first(record, "categories")


def _first(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    values = record.get(key)
    return values[0] if isinstance(values, list) and values and isinstance(values[0], Mapping) else {}


def open_coco(config: CocoConfig, path: Path, media_root: Path) -> "InstanceSamples":
    """The samples of a COCO file; pictures are at their `file_name` below `media_root`."""
    return _open(config, path, media_root, file_name)


def open_lvis(config: CocoConfig, path: Path, media_root: Path) -> "InstanceSamples":
    """The samples of an LVIS file; pictures are at `train2017/...` or `val2017/...` below `media_root`."""
    return _open(config, path, media_root, _coco_folder_and_name)


def _open(
    config: CocoConfig, path: Path, media_root: Path, picture_of: Callable[[Mapping[str, Any]], Any]
) -> "InstanceSamples":
    tables = open_tables(Path(path), Path(media_root), picture_of)
    rows, left_out = chosen(tables, config)
    order, turns, starts = grouped(tables, rows, config, left_out)
    return InstanceSamples(tables, Path(media_root), config, rows[order], turns, starts, picture_of, left_out=left_out)


def open_tables(path: Path, media_root: Path, picture_of: Callable[[Mapping[str, Any]], Any]) -> CocoTables:
    """Index a file; images are of one picture where their paths are one, however they are written."""

    def key(image: Mapping[str, Any]) -> str | None:
        name = picture_of(image)
        return os.path.normpath(media_root / name) if isinstance(name, str) and name else None

    return CocoTables.open(path, key)


def file_name(image: Mapping[str, Any]) -> Any:
    return image.get("file_name")


def _coco_folder_and_name(image: Mapping[str, Any]) -> Any:
    """LVIS v1 tells a picture's place by its address, `http://images.cocodataset.org/train2017/000000000030.jpg`."""
    url = image.get("coco_url")
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) else file_name(image)


@dataclass(frozen=True, eq=False)
class InstanceSamples:
    """The samples of one file, each made when it is asked for.

    Attributes:
        tables: the file.
        media_root: folder that pictures are below.
        config: what is asked.
        rows: the annotations in use, turn after turn; one may be there more than once.
        turns: where in `rows` each turn begins, and their end.
        starts: where among the turns each sample begins, and their end.
        picture_of: where an image's picture is.
        phrases: for each of `rows` a name, and a text that the annotation does not have itself; may be empty.
        left_out: see `SampleFile`.
    """

    tables: CocoTables
    media_root: Path
    config: CocoConfig
    rows: np.ndarray
    turns: np.ndarray
    starts: np.ndarray
    picture_of: Callable[[Mapping[str, Any]], Any]
    phrases: Sequence[tuple[str, str]] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __getitem__(self, index: int) -> RegionSample:
        first = int(self.turns[self.starts[index]])
        row = int(self.rows[first])
        place = RecordPlace(f"{self.tables.path.name} annotations[{row}]", index, self.media_root)
        defects: list[Defect] = []
        image = self._image(row, defects)
        regions, messages = [], []
        for turn in range(self.starts[index], self.starts[index + 1]):
            positions = range(self.turns[turn], self.turns[turn + 1])
            annotations = [self._annotation(position, defects) for position in positions]
            if any(defect.kind == "format" for defect in defects):  # nothing else can be said of what is not read
                raise place.error(self._id(first, image), defects)
            of_turn = [_region(self.config, annotation, defects) for annotation in annotations]
            if self.config.task == "segment":
                kept = distinct(of_turn, size_of(image))
                of_turn, annotations = [of_turn[each] for each in kept], [annotations[each] for each in kept]
            regions += of_turn
            messages += self._question_and_answer(annotations, image, defects)
        if self.config.task == "segment":
            self._require_one_size(index, image, defects)
        translated = {
            "id": self._id(first, image),
            "images": [self.picture_of(image)],
            "size": size_of(image),
            "messages": messages,
        }
        return read_sample(translated, place, regions=regions, defects=defects, clip=self.config.clip)

    def _require_one_size(self, index: int, image: Mapping[str, Any], defects: list[Defect]) -> None:
        """Images of one picture must agree about its size, where masks of them are answered together."""
        start, stop = (self.turns[self.starts[index + each]] for each in (0, 1))
        image_rows = dict.fromkeys(self.tables.image_row[self.rows[start:stop]].tolist())
        for row in list(image_rows)[1:]:
            other = _parsed(self.tables.image, row, "image", defects)
            if size_of(other) != size_of(image):
                ids = f"{shown(image.get('id'))} and {shown(other.get('id'))}"
                sizes = f"{shown(size_of(image))} and {shown(size_of(other))}"
                defects.append(Defect("size", f"images {ids} are one file, but of sizes (height, width) {sizes}."))

    def _id(self, position: int, image: Mapping[str, Any]) -> str:
        """That of the first annotation; behind the picture's where several make a sample."""
        row = int(self.rows[position])
        id = self.tables.annotation_ids[row]
        name = self.phrases[position][0] if self.phrases else f"annotations[{row}]" if id is None else str(id)
        return f"{image.get('id')}-{name}" if self.config.per_image or self.config.task == "segment" else name

    def _image(self, row: int, defects: list[Defect]) -> Mapping[str, Any]:
        image_row = int(self.tables.image_row[row])
        if image_row < 0:
            with collecting(defects, "format", "its annotation"):
                annotation = self.tables.annotation(row)
                given = annotation.get("image_id") if isinstance(annotation, Mapping) else None
                defects.append(Defect("media", f"its image_id is of no image in the file: {shown(given)}."))
            return {"file_name": "unknown"}
        return _parsed(self.tables.image, image_row, "image", defects)

    def _annotation(self, position: int, defects: list[Defect]) -> Mapping[str, Any]:
        annotation = _parsed(self.tables.annotation, int(self.rows[position]), "annotation", defects)
        return {**annotation, "phrase": self.phrases[position][1]} if self.phrases else annotation

    def _question_and_answer(
        self, annotations: Sequence[Mapping[str, Any]], image: Mapping[str, Any], defects: list[Defect]
    ) -> list[dict[str, str]]:
        """Of one annotation, or, where a category is asked about, of all."""
        annotation = annotations[0]
        category = self.tables.categories.get(id_of(annotation.get("category_id")), {})
        fields = _fields(self.config, annotation, image, category)
        if self.config.asks_for_masks:
            fields["masks"] = _masks(len(annotations))
        if self.config.task == "segment":
            self._require_one_answer(annotations, defects)
        question = choose(self.config.questions, annotation.get("id"))
        own = fields.get("question")
        if self.config.task == "qa" and isinstance(own, str) and REGION_MARKER in own:
            question = "{question}"  # it says itself where its region stands
        answer = self.config.answer_template
        subject = _called(annotation)
        if not category and "category_id" in annotation and named_fields(question + answer) & _OF_CATEGORY:
            given = shown(annotation["category_id"])
            defects.append(Defect("answer", f"{subject}: its category_id is of no category in the file: {given}."))
        return [
            {"role": "user", "content": _filled(question, fields, f"{subject}, question", defects)},
            {"role": "assistant", "content": _filled(answer, fields, f"{subject}, answer", defects)},
        ]

    def _require_one_answer(self, annotations: Sequence[Mapping[str, Any]], defects: list[Defect]) -> None:
        """What the answer names of the category must be so of all its objects."""
        fields = [fields_of(self.tables.categories.get(id_of(each.get("category_id")), {})) for each in annotations]
        for name in sorted(named_fields(self.config.answer_template) - {"masks"}):
            texts = {same(text): text for of_one in fields if (text := of_one.get(name))}
            if len(texts) > 1:
                listed = " and ".join(map(shown, texts.values()))
                message = f"the objects that are asked for have several {{{name}}}, {listed}: the answer names one."
                defects.append(Defect("answer", message))


def _masks(count: int) -> str:
    """What stands for the masks of so many objects in an answer; several are numbered."""
    if count == 1:
        return MASK_MARKER
    return ", ".join(f"[{number}] {MASK_MARKER}" for number in range(1, count + 1))


def _parsed(read: Callable[[int], Any], row: int, kind: str, defects: list[Defect]) -> Mapping[str, Any]:
    value = None
    with collecting(defects, "format", f"its {kind}"):
        value = read(row)
        if not isinstance(value, Mapping):
            raise DataError(f"it must be an object, got {shown(value)}.")
    return value if isinstance(value, Mapping) else {}


def _region(config: CocoConfig, annotation: Mapping[str, Any], defects: list[Defect]) -> Region | None:
    with collecting(defects, "region", _called(annotation)):
        mask = None if config.region == "box" else read_segmentation(annotation.get("segmentation"))
        if mask is not None or config.region == "mask" or config.asks_for_masks:
            return _required(mask, "segmentation")
        return Region.from_box(_xyxy(_required(annotation.get("bbox"), "bbox")))
    return None


def _called(annotation: Mapping[str, Any]) -> str:
    """What messages call an annotation."""
    id = annotation.get("id")
    return f"annotation {id if isinstance(id, str) and len(id) <= _LONGEST_ID else shown(id)}"


def _required(value: ValueT | None, key: str) -> ValueT:
    if value is None:
        raise RegionError(f"it has no '{key}'.")
    return value


def _xyxy(bbox: Any) -> tuple[float, float, float, float]:
    is_box = isinstance(bbox, list) and len(bbox) == 4
    if not is_box or not all(isinstance(side, int | float) and not isinstance(side, bool) for side in bbox):
        raise RegionError(f"'bbox' must be four numbers [x, y, width, height], got {shown(bbox)}.")
    x, y, width, height = bbox
    if width <= 0 or height <= 0:
        raise RegionError(f"'bbox' must have a width and a height > 0, got {shown(bbox)}.")
    try:
        return x, y, x + width, y + height
    except OverflowError as error:  # JSON's integers have no limit
        raise RegionError(f"'bbox' must be four finite numbers [x, y, width, height], got {shown(bbox)}.") from error


def _fields(
    config: CocoConfig, annotation: Mapping[str, Any], image: Mapping[str, Any], category: Mapping[str, Any]
) -> dict[str, Any]:
    """What templates may name."""
    fields: dict[str, Any] = {}
    if config.task != "segment":  # about a category, not one of its annotations
        fields = {key: value for key, value in annotation.items() if isinstance(value, str | int | float)}
    fields |= fields_of(category)
    text = None if config.task == "segment" else _text(config, annotation, image)
    if text is not None and config.asks_for_masks:
        text = text.strip().rstrip(".")  # it stands within a sentence
    return fields if text is None else {**fields, "phrase": text, "caption": text}


def _text(config: CocoConfig, annotation: Mapping[str, Any], image: Mapping[str, Any]) -> str | None:
    """The text of an annotation, or else of its image; of several texts one."""
    keys = _CAPTION_FIELDS if config.caption_field is None else (config.caption_field,)
    found = next((record[key] for record in (annotation, image) for key in keys if record.get(key)), None)
    if isinstance(found, list) and all(isinstance(each, str) for each in found):
        return choose(found, annotation.get("id"))
    return found if isinstance(found, str) else None


def _filled(template: str, fields: Mapping[str, Any], subject: str, defects: list[Defect]) -> str:
    try:
        return template.format_map(fields)
    except KeyError as error:
        known = listed(sorted(fields), quoted=False) or "nothing"
        defects.append(Defect("answer", f"{subject}: '{template}' asks for {error}. It has {known}."))
        return template
