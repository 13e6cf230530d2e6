"""Messages, regions and options that a processor is given in Python."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pixelrefer_plugin import Chat, ObjectMemory, Region, RegionModel, RegionProcessor, VideoRegion, load_video

from ..cases import Try, kind
from ..mutate import NUMBERS, changed
from .models import model_folder
from .regions import any_value

_BOX = {"box": (5, 5, 30, 40)}
_TURNS: list[Any] = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [{"type": "image", "image": "IMAGE"}, {"type": "text", "text": "What is <region>?"}]},
    {"role": "assistant", "content": "A car beside [1]."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "And <region>?"}, {"type": "video", "video": "VIDEO", "fps": 1}],
    },
    {"role": "assistant", "content": [{"type": "text", "text": "A bus."}]},
]
_KEYS = (
    "max_pixels", "min_pixels", "nframes", "fps", "video_start", "video_end", "resized_height", "total_pixels",
    "times_s", "image_url", "path", "url", "cache_control", "tool_calls", "name",
)  # fmt: skip
_OPTIONS = (
    "text", "images", "videos", "return_tensors", "padding", "truncation", "max_length", "add_generation_prompt",
    "attention_mask", "return_mm_token_type_ids", "video_metadata", "do_resize", "size", "images_kwargs", "tokenize",
    "chat_template", "add_special_tokens", "sampling", "memory", "padding_side", "segment", "labels", "min_pixels",
)  # fmt: skip


@cache
def small_processor() -> RegionProcessor:
    return RegionProcessor.from_pretrained(model_folder())


@cache
def _model() -> RegionModel:
    return RegionModel.from_pretrained(model_folder())


def _filled(value: Any) -> Any:
    """Messages with a picture and a video where their names stand."""
    if isinstance(value, dict):
        return {key: _filled(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each) for each in value]
    if value == "IMAGE":
        return Image.new("RGB", (80, 60))
    return np.zeros((3, 60, 80, 3), np.uint8) if value == "VIDEO" else value


@kind("conversations", share=12)
def conversations(rng: random.Random, folder: Path) -> Try:
    processor = small_processor()
    box = Region.from_box(_BOX["box"])
    turns: Any = _TURNS[: rng.choice((2, 2, 3, 5))]
    regions: Any = [box, VideoRegion({0: box, 2: box})][: 1 if len(turns) < 4 else 2]
    options: dict[str, Any] = {}
    for change in rng.sample(("messages", "messages", "regions", "options", "key"), rng.choice((1, 1, 2))):
        if change == "messages":
            turns = changed(rng, turns)
        elif change == "regions":
            regions = any_value(rng) if rng.random() < 0.5 else [any_value(rng), *regions[1:]]
        elif change == "options":
            options[rng.choice(_OPTIONS)] = any_value(rng)
        elif isinstance(turns, list) and isinstance(turns[1:] and turns[1], dict):
            turns = [turns[0], {**turns[1], rng.choice(_KEYS): rng.choice(NUMBERS)}, *turns[2:]]
            if isinstance(parts := turns[1].get("content"), list) and parts and isinstance(parts[0], dict):
                turns[1]["content"] = [{**parts[0], rng.choice(_KEYS): rng.choice((*NUMBERS, "x"))}, *parts[1:]]
    return lambda: processor(_filled(turns), regions, **options)


@kind("deep values", share=1)
def deep_values(rng: random.Random, folder: Path) -> Try:
    processor, place, depth = (
        small_processor(),
        rng.choice(("content", "role", "text", "all")),
        rng.choice((900, 3_000)),
    )
    value: Any = "x"
    for _ in range(depth):
        value = [value] if rng.random() < 0.9 else {"content": value}
    turn: Any = {"role": "user", "content": "x"}
    turn = value if place == "all" else {**turn, place: value} if place != "text" else {
        "role": "user", "content": [{"type": "text", "text": value}]}  # fmt: skip
    return lambda: processor([turn])


@kind("chats", share=2)
def chats(rng: random.Random, folder: Path) -> Try:
    """Questions about a picture or a video, with any regions and ids."""
    media: Any = Image.new("RGB", (80, 60))
    box: Any = Region.from_box(_BOX["box"])
    if rng.random() < 0.3:
        media, box = load_video(np.zeros((3, 60, 80, 3), np.uint8), fps=1), VideoRegion({0: box})
    memory = ObjectMemory(media)
    memory.add(box)
    questions = (
        "What is [1]?",
        "[2]",
        "[0] <region>",
        "<region>",
        "[999999999999]",
        "",
        " ",
        "<seg>",
        "<image>",
        "\ud800",
    )
    question = rng.choice(questions) if rng.random() < 0.8 else any_value(rng)
    question = question[:1_000] if isinstance(question, str) else question  # a long one may take long
    regions = [box] if isinstance(question, str) and "<region>" in question else []
    regions = regions if rng.random() < 0.8 else any_value(rng)
    name = rng.choice((None, "a", any_value(rng)))
    id = rng.choice((None, 5, any_value(rng)))

    def try_it() -> None:
        memory.add(box, id=id, name=name)
        Chat(_model(), small_processor(), media, memory=memory).ask(question, regions, max_new_tokens=2)

    return try_it
