"""Asks a model about the examples of a task, in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..model import RegionModel
from ..processor import RegionProcessor
from .tasks import Answers, Asked, Example, Given


@dataclass(frozen=True)
class Manner:
    """How a model is asked and told.

    Attributes:
        batch_size: questions that are asked together.
        max_new_tokens: of an answer.
        options: of its own processor, such as how pictures are cut.
        read: what an answer comes to.
    """

    batch_size: int = 32
    max_new_tokens: int = 4
    options: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[str], str] = str

    def inputs(
        self, model: RegionModel, processor: RegionProcessor, conversations: Any, regions: Any, **choices: Any
    ) -> Any:
        """A batch where the model is, of its type."""
        made = processor(conversations, regions, **choices, **self.options)
        return made.to(model.device, dtype=model.backbone.dtype)


def ask(
    model: RegionModel, processor: RegionProcessor, examples: Sequence[Example], manner: Manner | None = None
) -> Answers:
    """Ask all about every example, each in a conversation of its own; about what earlier answers found, last."""
    manner = manner or Manner()
    given: dict[Asked, Given] = {}
    for is_later in (False, True):
        wanted = [
            (example, asked)
            for example in examples
            for asked in example.asked
            if (asked.found_by is not None) == is_later
        ]
        for start in range(0, len(wanted), manner.batch_size):
            given |= _ask_together(model, processor, wanted[start : start + manner.batch_size], given, manner)
    return Answers(examples, [[given[each] for each in example.asked] for example in examples])


def _ask_together(
    model: RegionModel,
    processor: RegionProcessor,
    wanted: Sequence[tuple[Example, Asked]],
    earlier: Mapping[Asked, Given],
    manner: Manner,
) -> dict[Asked, Given]:
    """The answers of one batch; none to what is about a mask that an earlier answer did not give."""
    given = {}
    asked, conversations, regions = [], [], []
    for example, each in wanted:
        region = each.region if each.found_by is None else earlier[each.found_by].mask
        if each.found_by is not None and region is None:
            given[each] = Given("")
            continue
        asked.append(each)
        conversations.append([{"role": "user", "content": [example.part, {"type": "text", "text": each.question}]}])
        regions.append([] if region is None else [region])
    if asked:
        with_masks = any(each.mask is not None for each in asked)
        inputs = manner.inputs(model, processor, conversations, regions, segment=with_masks)
        generated = model.generate(**inputs, max_new_tokens=manner.max_new_tokens, do_sample=False)
        texts = map(manner.read, processor.decode(generated, inputs))
        objects = generated.objects if with_masks else [[] for _ in asked]
        masks = (found[0].region if found else None for found in objects)
        given.update(zip(asked, map(Given, texts, masks), strict=True))
    return given
