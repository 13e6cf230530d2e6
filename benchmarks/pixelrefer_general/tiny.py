"""Small files in the official layouts of POPE and MVBench, for the conformance kit."""

import json
from pathlib import Path
from typing import Any

from pixelrefer_plugin.testing import write_tiny_picture, write_tiny_video

from .tasks import SPLITS, TASKS


def pope(folder: Path) -> None:
    """Four questions in each split, about two pictures."""
    images = ("COCO_val2014_000000000001.jpg", "COCO_val2014_000000000002.jpg")
    for seed, image in enumerate(images):
        write_tiny_picture(folder / "val2014" / image, seed=seed)
    for split in SPLITS:
        lines = [
            {
                "question_id": number + 1,
                "image": images[number % 2],
                "text": f"Is there a {thing} in the image?",
                "label": label,
            }
            for number, (thing, label) in enumerate((("lamp", "yes"), ("rope", "no"), ("book", "yes"), ("cup", "no")))
        ]
        path = folder / f"coco_pope_{split}.json"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")


def mvbench(folder: Path) -> None:
    """A question of each task; that of TVQA is about a folder of frames."""
    for name, task in TASKS.items():
        videos = folder / "video" / task.videos
        is_folder = task.videos.startswith("tvqa")
        video = "clip" if is_folder else "clip.mp4"
        if is_folder:
            for frame in range(1, 10):
                write_tiny_picture(videos / video / f"{frame:05}.jpg", seed=frame)
        elif not (videos / video).exists():
            write_tiny_video(videos / video, frames=12)
        record: dict[str, Any] = {"video": video, "question": f"What of {name}?", "answer": "a rope"}
        record["candidates"] = ["a lamp", "a rope"]
        bounds = {"start": 0.5, "end": 2.0} if task.is_bound else {}
        path = folder / "json" / task.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps([record | bounds]), encoding="utf-8")
