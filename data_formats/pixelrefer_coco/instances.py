"""Samples from instances: COCO's and LVIS's files, and any that are like them.

Formats: https://cocodataset.org/#format-data, https://www.lvisdataset.org/dataset.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
    size_of,
)

from .config import CocoConfig
from .tables import CocoTables, Id, hashable

_CAPTION_FIELDS = ("caption", "description", "phrase", "text")
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
    tables = CocoTables.open(Path(path))
    rows = _chosen(tables, config)
    order, turns, starts = grouped(tables, rows, config)
    return InstanceSamples(tables, Path(media_root), config, rows[order], turns, starts, picture_of)


def file_name(image: Mapping[str, Any]) -> Any:
    return image.get("file_name")


def _coco_folder_and_name(image: Mapping[str, Any]) -> Any:
    """LVIS v1 tells a picture's place by its address, `http://images.cocodataset.org/train2017/000000000030.jpg`."""
    url = image.get("coco_url")
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) else file_name(image)


def _chosen(tables: CocoTables, config: CocoConfig) -> np.ndarray:
    """The annotations that the options leave, in the order of the file."""
    keep = ~(tables.area_px < config.min_area_px)
    if config.skip_crowd:
        keep &= ~tables.is_crowd
    if config.categories:
        ids = _category_ids(tables, config.categories)
        keep &= np.array([id in ids for id in tables.category_ids], dtype=bool)
    if not keep.any():
        raise DataError(
            f"None of the {len(tables)} annotations of '{tables.path}' is left: check the format's options."
        )
    return np.flatnonzero(keep)


def _category_ids(tables: CocoTables, names: Sequence[str]) -> set[Id]:
    known = {category["name"] for category in tables.categories.values()}
    unknown = [name for name in names if name not in known]
    if unknown:
        listed = ", ".join(sorted(known)[:20]) or "none"
        raise DataError(f"'{tables.path}' has no category {', '.join(map(repr, unknown))}. It has: {listed}.")
    return {id for id, category in tables.categories.items() if category["name"] in names}


def grouped(tables: CocoTables, rows: np.ndarray, config: CocoConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How annotations become turns and samples.

    Returns:
        The order in which they do; where in it each turn begins, and the last one's end; where among the turns each
        sample begins, and their end.

    Raises:
        DataError: no category of any picture can be asked about.
    """
    order, turns = np.arange(len(rows)), np.arange(len(rows) + 1)
    if config.task == "segment":
        order, turns = _by_category(tables, rows, config)
    elif config.per_image:
        order = np.argsort(tables.image_row[rows], kind="stable")
    if not config.per_image:
        return order, turns, np.arange(len(turns))
    images = tables.image_row[rows[order[turns[:-1]]]]
    masks = np.diff(turns) if config.asks_for_masks else np.zeros(len(images), dtype=np.int64)
    return order, turns, _sample_starts(images.tolist(), masks.tolist(), config)


def _by_category(tables: CocoTables, rows: np.ndarray, config: CocoConfig) -> tuple[np.ndarray, np.ndarray]:
    """The annotations of one category of a picture in one turn, where it is annotated whole and not too often."""
    codes: dict[Id, int] = {}
    of_category = np.array([codes.setdefault(id, len(codes)) for id in tables.category_ids], dtype=np.int64)
    keys = tables.image_row * len(codes) + of_category
    strays = tables.image_row < 0
    keys[strays] = -1 - np.flatnonzero(strays)  # they have nothing in common
    partial = [image * len(codes) + codes[id] for image, id in tables.partial if id in codes]
    found, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    is_asked = (np.bincount(group[rows], minlength=len(found)) == sizes) & (sizes <= config.max_masks)
    is_asked &= ~np.isin(found, np.array(partial, dtype=np.int64))
    kept = np.flatnonzero(is_asked[group[rows]])
    if not len(kept):
        raise DataError(
            f"No picture of '{tables.path}' has a category with all its objects annotated, {config.max_masks} at most "
            "(max_masks): check the format's options."
        )
    first = np.full(len(found), len(rows))
    np.minimum.at(first, group[rows], np.arange(len(rows)))
    image = tables.image_row[rows[kept]] if config.per_image else np.zeros(len(kept))
    order = kept[np.lexsort((first[group[rows[kept]]], image))]
    changes = np.flatnonzero(np.diff(group[rows[order]])) + 1
    return order, np.concatenate([[0], changes, [len(order)]])


def _sample_starts(images: Sequence[int], masks: Sequence[int], config: CocoConfig) -> np.ndarray:
    """Where each sample begins among turns that are about these images, with so many masks; and the last one's end."""
    starts: list[int] = []
    num_masks = 0
    for turn, (image, more) in enumerate(zip(images, masks, strict=True)):
        goes_on = bool(starts) and image == images[turn - 1] and image >= 0  # strays have nothing in common
        if goes_on and turn - starts[-1] < config.max_turns and num_masks + more <= config.max_masks:
            num_masks += more
        else:
            starts.append(turn)
            num_masks = more
    return np.array([*starts, len(images)])


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
    """

    tables: CocoTables
    media_root: Path
    config: CocoConfig
    rows: np.ndarray
    turns: np.ndarray
    starts: np.ndarray
    picture_of: Callable[[Mapping[str, Any]], Any]
    phrases: Sequence[tuple[str, str]] = ()

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
            regions += [_region(self.config, annotation, defects) for annotation in annotations]
            messages += self._question_and_answer(annotations, image, defects)
        translated = {
            "id": self._id(first, image),
            "images": [self.picture_of(image)],
            "size": size_of(image),
            "messages": messages,
        }
        return read_sample(translated, place, regions=regions, defects=defects)

    def _id(self, position: int, image: Mapping[str, Any]) -> str:
        """That of the first annotation; behind the picture's where several make a sample."""
        row = int(self.rows[position])
        id = self.tables.annotation_ids[row]
        name = self.phrases[position][0] if self.phrases else f"annotations[{row}]" if id is None else str(id)
        return f"{image.get('id')}-{name}" if self.config.per_image or self.config.task == "segment" else name

    def _image(self, row: int, defects: list[Defect]) -> Mapping[str, Any]:
        image_row = int(self.tables.image_row[row])
        if image_row < 0:
            defects.append(Defect("media", "its image_id is of no image in the file."))
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
        category = self.tables.categories.get(hashable(annotation.get("category_id")), {})
        fields = _fields(self.config, annotation, image, category)
        if self.config.asks_for_masks:
            fields["masks"] = _masks(len(annotations))
        question = choose(self.config.questions, annotation.get("id"))
        own = fields.get("question")
        if self.config.task == "qa" and isinstance(own, str) and REGION_MARKER in own:
            question = "{question}"  # it says itself where its region stands
        answer = self.config.answer_template
        subject = f"annotation {annotation.get('id')}"
        return [
            {"role": "user", "content": _filled(question, fields, f"{subject}, question", defects)},
            {"role": "assistant", "content": _filled(answer, fields, f"{subject}, answer", defects)},
        ]


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
            raise DataError(f"it must be an object, got {value!r}.")
    return value if isinstance(value, Mapping) else {}


def _region(config: CocoConfig, annotation: Mapping[str, Any], defects: list[Defect]) -> Region | None:
    with collecting(defects, "region", f"annotation {annotation.get('id')}"):
        mask = None if config.region == "box" else read_segmentation(annotation.get("segmentation"))
        if mask is not None or config.region == "mask" or config.asks_for_masks:
            return _required(mask, "segmentation")
        return Region.from_box(_xyxy(_required(annotation.get("bbox"), "bbox")))
    return None


def _required(value: ValueT | None, key: str) -> ValueT:
    if value is None:
        raise RegionError(f"it has no '{key}'.")
    return value


def _xyxy(bbox: Any) -> tuple[float, float, float, float]:
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(isinstance(side, int | float) for side in bbox):
        raise RegionError(f"'bbox' must be four numbers [x, y, width, height], got {bbox!r}.")
    x, y, width, height = bbox
    if width <= 0 or height <= 0:
        raise RegionError(f"'bbox' must have a width and a height > 0, got {bbox}.")
    return x, y, x + width, y + height


def _fields(
    config: CocoConfig, annotation: Mapping[str, Any], image: Mapping[str, Any], category: Mapping[str, Any]
) -> dict[str, Any]:
    """What templates may name."""
    fields: dict[str, Any] = {}
    if config.task != "segment":  # about a category, not one of its annotations
        fields = {key: value for key, value in annotation.items() if isinstance(value, str | int | float)}
    if category:
        synonyms = category.get("synonyms")
        synonyms = synonyms if isinstance(synonyms, list) and synonyms else [category["name"]]
        fields |= {"name": _spaced(category["name"]), "synonyms": ", ".join(map(_spaced, map(str, synonyms)))}
        fields["supercategory"] = _spaced(str(category.get("supercategory", "")))
    text = None if config.task == "segment" else _text(config, annotation, image)
    if text is not None and config.asks_for_masks:
        text = text.strip().rstrip(".")  # it stands within a sentence
    return fields if text is None else {**fields, "phrase": text, "caption": text}


def _spaced(name: str) -> str:
    """LVIS writes `baseball_bat` and `bow_(weapon)`."""
    return name.replace("_", " ")


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
        known = ", ".join(sorted(fields)) or "nothing"
        defects.append(Defect("answer", f"{subject}: '{template}' asks for {error}. It has {known}."))
        return template
