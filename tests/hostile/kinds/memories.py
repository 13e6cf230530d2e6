"""Files of object memories."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
from PIL import Image

from pixelrefer_plugin import ObjectMemory, Region, VideoRegion, load_video

from ..cases import Try, kind, replaced
from ..mutate import changed_json


@kind("memories", share=5)
def memories(rng: random.Random, folder: Path) -> Try:
    boxes = [Region.from_box((5, 5, 30, 40)), Region.from_points([(8, 8)])]
    if rng.random() < 0.5:
        media = Image.new("RGB", (80, 60))
    else:
        media = load_video(np.zeros((4, 60, 80, 3), np.uint8), fps=1)
        boxes = [VideoRegion({0: each, 3: each}, absent=(1,)) for each in boxes]
    memory = ObjectMemory(media)
    for each in boxes:
        memory.add(each, name="cat")
    path = folder / "memory.json"
    memory.save(path)
    replaced(path, changed_json(rng, json.loads(path.read_text())))

    def try_it() -> None:
        loaded = ObjectMemory.load(path, media)
        loaded.save(folder / "again.json")

    return try_it
