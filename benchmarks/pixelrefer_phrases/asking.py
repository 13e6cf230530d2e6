"""What is asked, and how a record becomes a question, in all three benchmarks."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelrefer_plugin.authoring import (
    Answer,
    Defect,
    Question,
    RecordPlace,
    Region,
    RegionError,
    VideoRegion,
    collecting,
    matched,
    questions_of,
    read_sample,
    shown,
    size_of,
    text_in,
)

FROM = "https://huggingface.co/datasets/CircleRadon/referring_evaluation"
PAPER = "PixelRefer (arXiv 2510.23603)"
CODE = "PixelRefer/evaluation"


def picture_question(
    record: Mapping[str, Any], place: RecordPlace, *, image: Any, region: Callable[[], Region], text: str
) -> Question:
    """The question about a region of a picture.

    Args:
        record: with `height`, `width` and `caption`.
        place: of the record.
        image: path of the picture, below the folder of pictures.
        region: reads the region; what it raises is among the defects.
        text: what is asked.

    Raises:
        SampleError: with all that is wrong with the record.
    """
    defects: list[Defect] = []
    regions: list[Region | VideoRegion | None] = [None]
    with collecting(defects, "region", "its box"):
        regions[0] = region()
    translated = {"id": str(place.index), "image": image, "size": size_of(record)}
    captions = captions_of(record.get("caption"), defects)
    return made_question(translated, place, regions, captions, text, defects, clip=size_of(record) is not None)


def captions_of(value: Any, defects: list[Defect]) -> list[str]:
    """A caption, or several; what is no text is noted."""
    captions = value if isinstance(value, list) and value else [value]
    if others := [each for each in captions if not isinstance(each, str) or not each.strip()]:
        defects.append(Defect("answer", f"its caption must be a text, or a list of texts, got {shown(others[0])}."))
        return ["?"]
    return captions


def made_question(
    translated: Mapping[str, Any],
    place: RecordPlace,
    regions: Sequence[Region | VideoRegion | None],
    captions: Sequence[str],
    text: str,
    defects: Sequence[Defect],
    *,
    clip: bool = False,
) -> Question:
    """The question of a record that is translated to this package's own schema, without its messages.

    Its fact `caption` is the first caption as it is written. What is no marker of a region in a caption stays out of
    the messages: captions are compared only.

    Raises:
        SampleError: with all that is wrong with the record.
    """
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "?"}]
    whole = {**translated, "messages": messages}
    sample = read_sample(whole, place, regions=regions, defects=defects, clip=clip)
    (question,) = questions_of(sample)
    references = tuple(caption.strip() for caption in captions)
    return replace(question, references=references, facts={"caption": captions[0]})


def box_region(box_xywh: Any) -> Region:
    """A region from `[x, y, width, height]`, each cut to an integer as the official code does where that leaves an
    area; raises `RegionError`."""
    if not isinstance(box_xywh, list) or len(box_xywh) != 4 or not all(map(_is_number, box_xywh)):
        raise RegionError(f"it must be four numbers [x, y, width, height], got {shown(box_xywh)}.")
    left, top, width, height = (int(each) for each in box_xywh)
    if width < 1 or height < 1:
        left, top, width, height = box_xywh
    return Region.from_box((left, top, left + width, top + height))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def read_predictions(
    path: str | Path, questions: Sequence[Question], *, medium: str
) -> Iterator[tuple[Answer, Mapping[str, Any]]]:
    """Answers as the official inference writes them: the medium, `Answer` (the caption) and `pred` of each line.

    Args:
        path: of the file, JSON Lines or a JSON array.
        questions: those of the benchmark, with the facts `medium` and `caption`.
        medium: key of the picture or video in a line.

    Raises:
        EvaluationError: the file cannot be read, or a line is about no question, or is one too many.
    """

    def of_record(record: Mapping[str, Any]) -> Hashable:
        return _first(record.get(medium)), _first(record.get("Answer")).strip()

    def of_question(question: Question) -> Hashable:
        return question.facts["medium"], question.facts["caption"].strip()

    for record, question, where in matched(path, questions, of_record=of_record, of_question=of_question):
        yield Answer(id=question.id, text=text_in(record, "pred", where)), record


def _first(value: Any) -> str:
    """A text, or the first of several."""
    return str(value[0] if isinstance(value, list) and value else value)
