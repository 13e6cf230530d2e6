"""The benchmarks: their files, published figures, and prompts."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from pixelrefer_plugin.authoring import BenchmarkSpec, Prompt, PublishedFigure

from . import tiny
from .config import ReasonSegConfig, RefcocoConfig, RefcocogConfig
from .reasonseg import FILES, open_reasonseg
from .refcoco import files_of, open_refcoco
from .scoring import score_reasonseg, score_refcoco

_UNIPIXEL = "UniPixel's README (github.com/PolyU-ChenLab/UniPixel), Public Benchmarks"


def _published(split: str, **values: tuple[float, float]) -> tuple[PublishedFigure, ...]:
    return tuple(
        PublishedFigure(model, name, of_models[index] / 100, f"{_UNIPIXEL}, split {split}")
        for index, model in enumerate(("UniPixel-3B", "UniPixel-7B"))
        for name, of_models in values.items()
    )


def _prompts(config: Any) -> Sequence[Prompt]:
    sentence = getattr(config, "sentence", None)
    return [
        Prompt("question", config.question),
        *([Prompt("question, where the text is a sentence", sentence)] if sentence else []),
    ]


def _refcoco(
    name: str, title: str, place: str, author: str, config: type[RefcocoConfig], published: tuple[PublishedFigure, ...]
) -> BenchmarkSpec:
    files = files_of(place, author)
    return BenchmarkSpec(
        name=name,
        about=f"{title}: the mask of the object that an expression means, in a picture.",
        config=config,
        files=files,
        open=partial(open_refcoco, files=files),
        score=score_refcoco,
        needs=("masks",),
        max_new_tokens=512,
        published=published,
        prompts=_prompts,
        tiny=partial(tiny.refcoco, files=files, splits=config.SPLITS),
    )


SPECS = (
    BenchmarkSpec(
        name="reasonseg",
        about="ReasonSeg: the mask of what a text means that takes reasoning, in a picture.",
        config=ReasonSegConfig,
        files=FILES,
        open=open_reasonseg,
        score=score_reasonseg,
        needs=("masks",),
        max_new_tokens=512,
        published=_published("val", giou=(64.0, 60.5), ciou=(56.2, 58.7)),
        prompts=_prompts,
        tiny=tiny.reasonseg,
    ),
    _refcoco(
        "refcoco",
        "RefCOCO",
        "refcoco",
        "unc",
        RefcocoConfig,
        (
            *_published("val", ciou=(80.5, 80.8)),
            *_published("testA", ciou=(82.6, 83.0)),
            *_published("testB", ciou=(76.9, 77.4)),
        ),
    ),
    _refcoco(
        "refcoco_plus",
        "RefCOCO+",
        "refcoco+",
        "unc",
        RefcocoConfig,
        (
            *_published("val", ciou=(74.3, 75.3)),
            *_published("testA", ciou=(78.9, 80.1)),
            *_published("testB", ciou=(68.4, 70.0)),
        ),
    ),
    _refcoco(
        "refcocog",
        "RefCOCOg",
        "refcocog",
        "umd",
        RefcocogConfig,
        (*_published("val", ciou=(76.3, 76.4)), *_published("test", ciou=(77.0, 77.1))),
    ),
)
