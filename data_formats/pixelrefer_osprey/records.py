"""Reads records of Osprey-724K: conversations about regions called `<region1>`, ..., or a description of each.

Source: `osprey/datasets/osprey_724k.py` in https://github.com/CircleRadon/Osprey.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

from pixelrefer_plugin.authoring import (
    CAPTION_QUESTIONS,
    Defect,
    RecordPlace,
    Region,
    RegionError,
    RegionSample,
    choose,
    collecting,
    read_sample,
    read_segmentation,
    read_turns,
    size_of,
)

from .config import OspreyConfig

_NUMBERED = re.compile(r"<region\s*(\d{1,9})>")
_NEXT = re.compile(r"<mask>(?:<pos>)?|<region>")
_DESCRIBED = re.compile(r"\s*<[^>]*>\s*:\s*(.*)", re.DOTALL)
_COCO_2014_NAME = re.compile(r"COCO_(?:train|val|test)2014_(?=\d+\.)")


def is_osprey(record: Mapping[str, Any]) -> bool:
    """A picture's name, regions, and turns or descriptions."""
    has_text = isinstance(record.get("conversations"), list) or isinstance(record.get("description"), list)
    return has_text and "file_name" in record and isinstance(record.get("annotation"), list)


def read_record(config: OspreyConfig, record: Mapping[str, Any], place: RecordPlace) -> RegionSample:
    """The sample of one record; raises `SampleError` with all that is wrong with it."""
    defects: list[Defect] = []
    regions = _regions(record, defects)
    if record.get("description") is not None:
        messages = _descriptions(record, place, len(regions), defects)
        order = list(range(len(regions)))
    else:
        messages = _numbered(read_turns(record.get("conversations"), defects))
        messages, order = _pointed(config, messages, len(regions), defects)
    for message in messages:
        if message["role"] == "user":
            message["content"] += config.suffix
    name = record.get("file_name")
    if config.coco_2017_names and isinstance(name, str):
        name = _COCO_2014_NAME.sub("", name)
    translated = {"id": record.get("id"), "images": [name], "size": size_of(record), "messages": messages}
    return read_sample(translated, place, regions=[regions[index] for index in order], defects=defects)


def _regions(record: Mapping[str, Any], defects: list[Defect]) -> list[Region | None]:
    annotations = record.get("annotation")
    if not isinstance(annotations, list | tuple):
        defects.append(Defect("format", f"'annotation' must be a list of regions, got {type(annotations).__name__}."))
        return []
    regions: list[Region | None] = []
    for number, annotation in enumerate(annotations, start=1):
        region = None
        with collecting(defects, "region", f"region{number}"):
            region = read_segmentation(annotation)
            if region is None:
                raise RegionError("it has no mask.")
        regions.append(region)
    return regions


def _descriptions(
    record: Mapping[str, Any], place: RecordPlace, num_regions: int, defects: list[Defect]
) -> list[dict[str, str]]:
    """A question and an answer for each region; descriptions read `<region1>: ...`."""
    texts = record["description"]
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        defects.append(Defect("format", "'description' must be a list of texts."))
        return []
    if len(texts) != num_regions:
        defects.append(Defect("answer", f"it has {len(texts)} descriptions but {num_regions} regions."))
        return []
    messages = []
    for number, text in enumerate(texts):
        found = _DESCRIBED.fullmatch(text)
        own = _NUMBERED.match(text.lstrip())
        if own is not None and int(own[1]) != number + 1:
            message = f"description {number + 1} is of <region{own[1]}>, expected them in the order of the regions."
            defects.append(Defect("answer", message))
        question = choose(CAPTION_QUESTIONS, f"{record.get('id', place.index)}-{number}")
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": found[1] if found else text},
        ]
    return messages


def _pointed(
    config: OspreyConfig, messages: Sequence[dict[str, str]], num_regions: int, defects: list[Defect]
) -> tuple[list[dict[str, str]], list[int]]:
    """The messages with `<region>` for the regions, and which region each of these is."""
    asked = _mentioned(messages, "user")
    unknown = sorted(
        {index + 1 for index in (*asked, *_mentioned(messages, "assistant")) if index not in range(num_regions)}
    )
    if unknown:
        names = ", ".join(f"<region{number}>" for number in unknown)
        defects.append(Defect("markers", f"its texts have {names} but it has {num_regions} regions."))
        return [], []
    is_inline = config.mention == "inline" or (
        config.mention == "auto" and set(asked) == set(range(num_regions)) and not _mentioned(messages, "assistant")
    )
    if is_inline:
        return [_inline(message) for message in messages], asked
    return _listed(messages, num_regions), list(range(num_regions))


def _numbered(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """With `<region1>`, `<region2>`, ... for the `<mask><pos>` or `<region>` of files that do not number them."""
    numbers = count(1)
    return [
        {**message, "content": _NEXT.sub(lambda _: f"<region{next(numbers)}>", message["content"])}
        for message in messages
    ]


def _mentioned(messages: Sequence[Mapping[str, str]], role: str) -> list[int]:
    """The regions that texts of one role point at, from 0, as often as they do."""
    texts = [message["content"] for message in messages if message["role"] == role]
    return [int(number) - 1 for text in texts for number in _NUMBERED.findall(text)]


def _inline(message: Mapping[str, str]) -> dict[str, str]:
    marker = "<region>" if message["role"] == "user" else r"region\1"
    return {**message, "content": _NUMBERED.sub(marker, message["content"])}


def _listed(messages: Sequence[Mapping[str, str]], num_regions: int) -> list[dict[str, str]]:
    """Texts that call regions by number, after a list of them in the first question."""
    named = [{**message, "content": _NUMBERED.sub(r"region\1", message["content"])} for message in messages]
    first = next((message for message in named if message["role"] == "user"), None)
    if first is not None and num_regions:
        listed = ", ".join(f"region{number} <region>" for number in range(1, num_regions + 1))
        noun = "is 1 region" if num_regions == 1 else f"are {num_regions} regions"
        first["content"] = f"There {noun} in the picture: {listed}.\n{first['content']}"
    return named
