"""Writes the two tasks of these ablations: handwritten digits, and coloured shapes on photographs.

    python examples/ablations/make_data.py ablation-data

makes `digits/train.jsonl`, `digits/held_out.jsonl`, and the same below `shapes/`. Held-out pictures lie on parts of the
photographs that no training has seen, and show digits that none has seen. Each region is asked about by its box.
Nothing is downloaded.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from pixelrefer_plugin.quickstart.scenes import SPLITS, make_scene
from pixelrefer_plugin.quickstart.shapes import CATEGORIES, write_coco

FILES = {"train": "train.jsonl", "held-out": "held_out.jsonl"}


def record(id, image, asked, question):
    """A sample that asks for each box of a picture in turn."""
    messages = []
    for _, answer in asked:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": id, "image": image, "regions": [{"box": box} for box, _ in asked], "messages": messages}


def digits(folder, split, count):
    """Scenes as the quickstart's, several digits each."""
    for index in range(count):
        dice = np.random.default_rng([SPLITS.index(split), index])
        scene = make_scene(split, dice, jitter=1.0 if split == "train" else 0.0)
        name = f"images/{split}-{index:05}.png"
        Image.fromarray(scene.image_hwc).save(folder / name)
        asked = [([int(each) for each in digit.box_xyxy], str(digit.label)) for digit in scene.digits]
        yield record(f"{split}-{index}", name, asked, "which digit is <region>?")


def shapes(folder, split, count):
    """The pictures of docs/own-data.md."""
    data = json.loads(write_coco(folder, num_pictures=count, split=split).read_text())
    for image in data["images"]:
        asked = []
        for each in data["annotations"]:
            if each["image_id"] == image["id"]:
                x, y, width, height = each["bbox"]
                asked.append(([x, y, x + width, y + height], CATEGORIES[each["category_id"] - 1]))
        yield record(image["file_name"], f"images/{image['file_name']}", asked, "which shape is <region>?")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=1600, help="to train on, of each task")
    parser.add_argument("--held-out", type=int, default=120, help="to ask about, of each task")
    arguments = parser.parse_args()
    for task in (digits, shapes):
        folder = arguments.folder / task.__name__
        (folder / "images").mkdir(parents=True, exist_ok=True)
        for split, count in (("train", arguments.pictures), ("held-out", arguments.held_out)):
            lines = [json.dumps(each) + "\n" for each in task(folder, split, count) if each["messages"]]
            (folder / FILES[split]).write_text("".join(lines), encoding="utf-8")
            print(f"{folder / FILES[split]}: {len(lines)} pictures")


if __name__ == "__main__":
    main()
