"""RefCOCO, RefCOCO+ and RefCOCOg in the layout of LISA's `refer_seg`: a question for each sentence.

`refs(unc).p` is a list of references: `ref_id, ann_id, split, sentences[{sent}]`; `instances.json` beside it is COCO's.
Sources: https://github.com/lichengunc/refer, https://github.com/dvlab-research/LISA.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import (
    BenchmarkFile,
    DataError,
    Question,
    RegionError,
    read_plain_pickle,
    read_segmentation,
    require_there,
    shown,
)

from .asking import question_of, read_object
from .config import RefcocoConfig

IMAGES = "images/mscoco/images/train2014"
_ORIGIN = "https://github.com/lichengunc/refer"


def files_of(name: str, author: str) -> tuple[BenchmarkFile, ...]:
    """The files of one of the three.

    Args:
        name: of its folder.
        author: who made the splits, as the file has it.
    """
    return (
        BenchmarkFile(f"{name}/refs({author}).p", f"What people said of objects, from {_ORIGIN}."),
        BenchmarkFile(f"{name}/instances.json", f"The objects, from {_ORIGIN}."),
        BenchmarkFile(IMAGES, "The pictures of COCO's train2014, from https://cocodataset.org.", True),
    )


def open_refcoco(config: RefcocoConfig, folder: Path, files: Sequence[BenchmarkFile]) -> list[Question]:
    """The questions of a split, in the order of the file.

    Raises:
        DataError: a file is missing or malformed, or has nothing of the split.
    """
    folder = Path(folder)
    refs_path, instances_path = (folder / file.path for file in files[:2])
    for file in files[:2]:
        require_there(folder / file.path, file.about)
    refs = [ref for ref in _read_refs(refs_path) if _is_of(ref["split"], config.split)]
    if not refs:
        raise DataError(f"'{refs_path}' has no references of the split '{config.split}'.")
    objects = _Objects(instances_path)
    images = folder / (config.images or IMAGES)
    return [question for ref in refs for question in _questions(ref, objects, images, config)]


def _read_refs(path: Path) -> list[Mapping[str, Any]]:
    found = read_plain_pickle(path)
    if not isinstance(found, list) or not found:
        raise DataError(f"'{path}' must hold a list of references, got {shown(found)}.")
    for number, ref in enumerate(found):
        sentences = ref.get("sentences") if isinstance(ref, Mapping) else None
        if not isinstance(sentences, list) or not {"ref_id", "ann_id", "split"} <= set(ref):
            raise DataError(
                f"'{path}', reference {number}: it must have ref_id, ann_id, split and a list of sentences, got "
                f"{shown(ref)}."
            )
    return found


def _is_of(split: Any, wanted: str) -> bool:
    return split == wanted or (wanted == "test" and isinstance(split, str) and split.startswith("test"))


class _Objects:
    """The objects and pictures of `instances.json`, by id."""

    def __init__(self, path: Path) -> None:
        found = read_object(path)
        self.path = path
        self._objects = self._by_id(found, "annotations")
        self._images = self._by_id(found, "images")

    def _by_id(self, found: Mapping[str, Any], key: str) -> dict[Any, Mapping[str, Any]]:
        entries = found.get(key)
        if not isinstance(entries, list) or not all(isinstance(each, Mapping) and "id" in each for each in entries):
            raise DataError(f"'{self.path}' must hold a list '{key}' of objects with an 'id', got {shown(entries)}.")
        return {each["id"]: each for each in entries if isinstance(each["id"], int | str)}

    def of(self, ref: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The object that a reference means, and its picture."""
        found = _entry(self._objects, ref["ann_id"])
        image = None if found is None else _entry(self._images, found.get("image_id"))
        if found is None or image is None:
            missing = "annotation" if found is None else "image of annotation"
            raise DataError(f"'{self.path}' has no {missing} {shown(ref['ann_id'])}, of reference {ref['ref_id']}.")
        return found, image


def _entry(entries: Mapping[Any, Mapping[str, Any]], id: Any) -> Mapping[str, Any] | None:
    """The entry of an id, which may be anything; None where there is none."""
    return entries.get(id) if isinstance(id, int | str) else None


def _questions(ref: Mapping[str, Any], objects: _Objects, images: Path, config: RefcocoConfig) -> Iterator[Question]:
    found, image = objects.of(ref)
    place = f"'{objects.path}', annotation {shown(ref['ann_id'])}"
    try:
        target = read_segmentation(found.get("segmentation"))
    except RegionError as error:
        raise DataError(f"{place}: {error}") from error
    name, image_hw = _picture(image, place)
    if target is not None and target.kind == "rle" and tuple(target.data[1]) != image_hw:
        raise DataError(f"{place}: its run lengths are of {tuple(target.data[1])}, its image is {image_hw}.")
    x, y, width, height = _box(found.get("bbox"), place)
    for number, sentence in enumerate(ref["sentences"]):
        text = sentence.get("sent") if isinstance(sentence, Mapping) else None
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"Reference {ref['ref_id']}: sentence {number} must have a text 'sent', got {shown(text)}.")
        yield question_of(
            f"{ref['ref_id']}-{number}",
            images / name,
            image_hw,
            text,
            config.question,
            target=target,
            box_xyxy=(x, y, x + width, y + height),
        )


def _picture(image: Mapping[str, Any], place: str) -> tuple[str, tuple[int, int]]:
    name = image.get("file_name")
    sides = [side for side in (image.get("height"), image.get("width")) if isinstance(side, int) and side >= 1]
    if not isinstance(name, str) or len(sides) != 2:
        raise DataError(f"{place}: its image must have file_name, height and width, got {shown(image)}.")
    return name, (sides[0], sides[1])


def _box(value: Any, place: str) -> list[float]:
    if not isinstance(value, list) or len(value) != 4 or not all(isinstance(each, int | float) for each in value):
        raise DataError(f"{place}: its 'bbox' must be x, y, width, height, got {shown(value)}.")
    return value
