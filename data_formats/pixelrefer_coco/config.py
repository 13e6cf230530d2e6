"""Options of the formats `coco`, `lvis` and `refcoco`."""

import math
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal

from pixelrefer_plugin.authoring import (
    CAPTION_QUESTIONS,
    MASK_MARKER,
    PHRASE_QUESTIONS,
    RECOGNITION_QUESTIONS,
    SEGMENT_EVERY_QUESTIONS,
    SEGMENT_QUESTIONS,
    check_field,
    checked_questions,
)

Task = Literal["recognition", "phrase", "caption", "qa", "segment", "segment_phrase"]
RefCocoTask = Literal["phrase", "segment"]
RegionKind = Literal["auto", "mask", "box"]

QUESTIONS = {
    "recognition": RECOGNITION_QUESTIONS,
    "phrase": PHRASE_QUESTIONS,
    "caption": CAPTION_QUESTIONS,
    "qa": ("About <region>: {question}",),
    "segment": SEGMENT_EVERY_QUESTIONS,
    "segment_phrase": SEGMENT_QUESTIONS,
}
ANSWERS = {
    "recognition": "{name}",
    "phrase": "{phrase}",
    "caption": "{caption}",
    "qa": "{answer}",
    "segment": "{masks}",
    "segment_phrase": "{masks}",
}
_TASKS_OF_REFCOCO: dict[str, Task] = {"phrase": "phrase", "segment": "segment_phrase"}
_REGION_KINDS = ("auto", "mask", "box")


@dataclass(frozen=True)
class CocoConfig:
    """What is asked about the annotations of a COCO file, and which of them.

    Templates may name any field of the annotation that is a text or a number, and `{name}`, `{supercategory}` and
    `{synonyms}` of its category, `{phrase}` and `{caption}` (its text, see `caption_field`); those of `segment` only
    what is its category's. `{masks}` is `<seg>` for one object and `[1] <seg>, [2] <seg>` for several.

    Attributes:
        task: `recognition`, answered by the category's name; `phrase` or `caption`, by a text of the annotation;
            `qa`, whose `question` and `answer` are the annotation's own. The other way round: `segment`, a category
            answered by the masks of all its objects in the picture; `segment_phrase`, a text of the annotation
            answered by its mask.
        question: template of the question instead of the task's own, or several to choose from by annotation; each
            with one `<region>`, or without any where masks are asked for.
        answer: template of the answer instead of the task's own; with one `{masks}` where masks are asked for.
        per_image: one sample for a picture, a turn for each of its annotations, instead of one for each annotation.
        max_turns: the most turns of a sample; a picture with more annotations gives several samples.
        max_masks: the most masks in the answers of a sample. A category with more objects in a picture is not asked
            about there; nor is one that is not annotated whole: with a crowd, an annotation that other options leave
            out, or, in LVIS, where the file says so.
        region: the annotation's `mask`, its `box`, or the mask where there is one (`auto`).
        clip: cut off what of a region lies outside its picture, whose `height` and `width` the file has to say.
        skip_crowd: leave out annotations of crowds.
        min_area_px: leave out annotations of a smaller `area`.
        categories: leave out annotations of other categories; names as the file has them.
        caption_field: where the text is, in the annotation or else its image; by default the first that is there of
            caption, description, phrase, text.
    """

    task: Task = "recognition"
    question: str | tuple[str, ...] | None = None
    answer: str | None = None
    per_image: bool = False
    max_turns: int = 16
    max_masks: int = 5
    region: RegionKind = "auto"
    clip: bool = False
    skip_crowd: bool = True
    min_area_px: float = 0.0
    categories: tuple[str, ...] = ()
    caption_field: str | None = None

    def __post_init__(self) -> None:
        check_field(self.task in QUESTIONS, self, "task", f"one of {', '.join(QUESTIONS)}")
        check_field(self.region in _REGION_KINDS, self, "region", f"one of {', '.join(_REGION_KINDS)}")
        for name in ("max_turns", "max_masks"):
            value = getattr(self, name)
            check_field(isinstance(value, int) and value >= 1, self, name, "an integer >= 1")
        is_box = self.asks_for_masks and self.region == "box"
        check_field(not is_box, self, "region", f"mask or auto where masks are asked for, task={self.task}")
        check_field(0 <= self.min_area_px < math.inf, self, "min_area_px", "a number >= 0")
        for name in ("per_image", "clip", "skip_crowd"):
            check_field(isinstance(getattr(self, name), bool), self, name, "true or false")
        object.__setattr__(self, "categories", _texts(self, "categories"))
        _fill_in_templates(self)

    @property
    def asks_for_masks(self) -> bool:
        """Whether the annotations are what is answered, not what is shown."""
        return self.task in ("segment", "segment_phrase")

    @property
    def questions(self) -> tuple[str, ...]:
        """The templates of `question`, or the task's own."""
        assert isinstance(self.question, tuple), "__post_init__ fills it in"
        return self.question

    @property
    def answer_template(self) -> str:
        """The template of `answer`, or the task's own."""
        assert self.answer is not None, "__post_init__ fills it in"
        return self.answer


@dataclass(frozen=True)
class RefCocoConfig:
    """What is asked about the objects that RefCOCO, RefCOCO+, RefCOCOg and RefCLEF refer to.

    Attributes:
        task: `phrase`: the object is shown, the expression is the answer; `segment`: the expression is given, the
            object's mask is the answer.
        split: of the references: `train`, `val`, `test`, `testA`, `testB`; `test` is all that begin so.
        instances: the file of the annotations, by default `instances.json` beside the references.
        question: template of the question instead of the default ones, or several to choose from.
        answer: template of the answer; `{phrase}` is the expression, `{name}` the category, `{masks}` as for `coco`.
        per_image: as for `coco`.
        max_turns: as for `coco`.
        max_masks: as for `coco`.
        region: as for `coco`.
        clip: as for `coco`.
        coco_2017_names: read `COCO_train2014_000000000009.jpg` as `000000000009.jpg`, its name in COCO 2017.
    """

    task: RefCocoTask = "phrase"
    split: str = "train"
    instances: str | None = None
    question: str | tuple[str, ...] | None = None
    answer: str | None = None
    per_image: bool = False
    max_turns: int = 16
    max_masks: int = 5
    region: RegionKind = "auto"
    clip: bool = False
    coco_2017_names: bool = False

    def __post_init__(self) -> None:
        check_field(self.task in _TASKS_OF_REFCOCO, self, "task", f"one of {', '.join(_TASKS_OF_REFCOCO)}")
        check_field(isinstance(self.split, str) and bool(self.split), self, "split", "the name of a split")
        check_field(isinstance(self.coco_2017_names, bool), self, "coco_2017_names", "true or false")
        templates = self.as_coco()
        object.__setattr__(self, "question", templates.question)
        object.__setattr__(self, "answer", templates.answer)

    def as_coco(self) -> CocoConfig:
        """The same about annotations whose text is the expression."""
        return CocoConfig(
            task=_TASKS_OF_REFCOCO[self.task],
            question=self.question,
            answer=self.answer,
            per_image=self.per_image,
            max_turns=self.max_turns,
            max_masks=self.max_masks,
            region=self.region,
            clip=self.clip,
            skip_crowd=False,
            caption_field="phrase",
        )


def _texts(config: Any, name: str) -> tuple[str, ...]:
    given = getattr(config, name)
    texts = (given,) if isinstance(given, str) else tuple(given)
    check_field(all(isinstance(text, str) for text in texts), config, name, "a text or several")
    return texts


def _fill_in_templates(config: CocoConfig) -> None:
    if config.question is None:
        object.__setattr__(config, "question", QUESTIONS[config.task])
    if config.answer is None:
        object.__setattr__(config, "answer", ANSWERS[config.task])
    num_shown = 0 if config.asks_for_masks else 1
    object.__setattr__(config, "question", checked_questions(config, "question", num_shown=num_shown))
    rule = "a text in which {field} stands for a field, and {{ and }} for brackets"
    check_field(all(map(_is_template, config.questions)), config, "question", rule)
    check_field(_is_template(config.answer), config, "answer", rule)
    if config.asks_for_masks:
        answer = config.answer_template
        is_sound = answer.count("{masks}") == 1 and MASK_MARKER not in answer
        check_field(is_sound, config, "answer", f"a text with one {{masks}}, which becomes {MASK_MARKER}")
    if config.task == "segment":  # what is asked about together must not hang on which question is chosen
        named = {frozenset(name for _, name, _, _ in Formatter().parse(each) if name) for each in config.questions}
        check_field(len(named) == 1, config, "question", "questions that all name the same fields of a category")


def _is_template(text: Any) -> bool:
    """Whether its replacement fields are plain names: no attributes, indices, conversions or formats."""
    try:
        parts = list(Formatter().parse(text)) if isinstance(text, str) else [("", "", None, None)]
    except ValueError:  # a single bracket
        return False
    return all(
        name is None or (name.isidentifier() and not spec and not conversion) for _, name, spec, conversion in parts
    )
