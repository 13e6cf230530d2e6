"""The two tasks of `examples/ablations` as files: handwritten digits, and coloured shapes on photographs.

    python -m pixelrefer_plugin.quickstart.ablation_data ablation-data

makes `digits/train.jsonl`, `digits/held_out.jsonl`, and the same below `shapes/`. Held-out pictures lie on parts of the
photographs that no training has seen, and show digits that none has seen. Each region is asked about by its box.
Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .scenes import SPLITS, Split, make_scene
from .shapes import CATEGORIES, write_coco

FILES: dict[Split, str] = {"train": "train.jsonl", "held-out": "held_out.jsonl"}

Box = Sequence[float]
Task = Callable[[Path, Split, int], Iterator[dict[str, Any]]]


def digits(folder: Path, split: Split, count: int) -> Iterator[dict[str, Any]]:
    """Scenes as the quickstart's, several digits each."""
    for index in range(count):
        dice = np.random.default_rng([SPLITS.index(split), index])
        scene = make_scene(split, dice, jitter=1.0 if split == "train" else 0.0)
        name = f"images/{split}-{index:05}.png"
        Image.fromarray(scene.image_hwc).save(folder / name)
        asked = [([int(each) for each in digit.box_xyxy], str(digit.label)) for digit in scene.digits]
        yield _record(f"{split}-{index}", name, asked, "which digit is <region>?")


def shapes(folder: Path, split: Split, count: int) -> Iterator[dict[str, Any]]:
    """The pictures of docs/own-data.md."""
    data = json.loads(write_coco(folder, num_pictures=count, split=split).read_text())
    for image in data["images"]:
        asked = []
        for each in data["annotations"]:
            if each["image_id"] == image["id"]:
                x, y, width, height = each["bbox"]
                asked.append(([x, y, x + width, y + height], CATEGORIES[each["category_id"] - 1]))
        yield _record(image["file_name"], f"images/{image['file_name']}", asked, "which shape is <region>?")


TASKS: dict[str, Task] = {"digits": digits, "shapes": shapes}


def _record(id: str, image: str, asked: Sequence[tuple[Box, str]], question: str) -> dict[str, Any]:
    """A sample that asks for each box of a picture in turn."""
    messages = []
    for _, answer in asked:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": id, "image": image, "regions": [{"box": box} for box, _ in asked], "messages": messages}


def write_task(folder: Path, name: str, *, pictures: int, held_out: int) -> list[Path]:
    """Write a task's pictures and files below a folder; returns the files."""
    (folder / name / "images").mkdir(parents=True, exist_ok=True)
    numbers: dict[Split, int] = {"train": pictures, "held-out": held_out}
    for split, count in numbers.items():
        records = [each for each in TASKS[name](folder / name, split, count) if each["messages"]]
        text = "".join(json.dumps(each) + "\n" for each in records)
        (folder / name / FILES[split]).write_text(text, encoding="utf-8")
    return [folder / name / FILES[split] for split in numbers]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pixelrefer_plugin.quickstart.ablation_data",
        description="Writes the tasks of examples/ablations.",
    )
    parser.add_argument("folder", type=Path, help="folder to write; files in it are replaced")
    parser.add_argument("--pictures", type=int, default=1600, help="to train on, of each task")
    parser.add_argument("--held-out", type=int, default=120, help="to ask about, of each task")
    arguments = parser.parse_args()
    for name in TASKS:
        for path in write_task(arguments.folder, name, pictures=arguments.pictures, held_out=arguments.held_out):
            print(path)


if __name__ == "__main__":
    main()
