"""A COCO data set of coloured shapes on photographs, for trying out training on regions of one's own.

    python -m pixelrefer_plugin.quickstart.shapes shapes

writes `shapes/instances.json` and `shapes/images/`. The photographs are those of `scenes.py`, so nothing is downloaded.
Colour, size and turn of a shape tell nothing about its category, and a picture shows several, so that only a look at
the region itself tells which one it is. The quickstart's base has never been asked about shapes.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from .scenes import SPLITS, Split, background, free_squares, paint, tight_box

CATEGORIES = ("circle", "square", "triangle", "star", "cross", "ring", "moon", "bar")
PICTURE_HW = (112, 112)
_NUM_SHAPES = (3, 6)
_SIZES_PX = (12, 48)
_SUPERSAMPLING = 4  # shapes are drawn so many times larger, then averaged down: soft edges
_SQUASH = (0.85, 1.0)


def write_coco(folder: Path, *, num_pictures: int, split: Split = "train", seed: int = 0) -> Path:
    """Writes the data set.

    Args:
        folder: Where; `instances.json` and `images/` in it are replaced.
        num_pictures: How many pictures of 3 to 6 shapes.
        split: Which part of the photographs to draw on.
        seed: Another seed draws other pictures.

    Returns:
        The path of `instances.json`.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image_id in range(1, num_pictures + 1):
        canvas = background(split, np.random.default_rng([seed, SPLITS.index(split), image_id, 0]), PICTURE_HW)
        shapes = draw_shapes(canvas, np.random.default_rng([seed, SPLITS.index(split), image_id, 1]))
        file_name = f"{split}-{image_id:05}.png"
        Image.fromarray(canvas.round().clip(0, 255).astype(np.uint8)).save(folder / "images" / file_name)
        images.append({"id": image_id, "file_name": file_name, "height": PICTURE_HW[0], "width": PICTURE_HW[1]})
        annotations += [{"id": len(annotations) + n, "image_id": image_id, **each} for n, each in enumerate(shapes, 1)]
    categories = [{"id": number, "name": name} for number, name in enumerate(CATEGORIES, 1)]
    path = folder / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def draw_shapes(canvas: NDArray[np.float32], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Paints some shapes that do not overlap; returns their annotations, ids apart."""
    height, width = canvas.shape[:2]
    wanted = int(rng.integers(_NUM_SHAPES[0], _NUM_SHAPES[1] + 1))
    smallest, largest = _SIZES_PX
    sizes = np.exp(rng.uniform(math.log(smallest), math.log(largest), wanted)).round().astype(int)
    annotations = []
    for x, y, size in free_squares(rng, (height, width), np.sort(sizes)[::-1]):
        category = int(rng.integers(len(CATEGORIES)))
        outlines = placed_outlines(CATEGORIES[category], x, y, size, rng)
        mask = paint(canvas, opacity(outlines, x, y, size), x, y, bright_colour(rng))
        annotations.append({"category_id": category + 1, **annotation(outlines, mask)})
    return annotations


def placed_outlines(name: str, x: int, y: int, size: int, rng: np.random.Generator) -> list[NDArray[np.float64]]:
    """The outlines of a shape, turned and a little squashed, as large as fits its square of `size` pixels."""
    angle = rng.uniform(0, 2 * math.pi)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    outlines = [outline @ np.diag([1, rng.uniform(*_SQUASH)]) @ turn for outline in unit_outlines(name)]
    low, high = outlines[0].min(0), outlines[0].max(0)
    return [(outline - (low + high) / 2) * (size / (high - low).max()) + (x, y) + size / 2 for outline in outlines]


def unit_outlines(name: str) -> list[NDArray[np.float64]]:
    """A shape's outline, and that of its hole where it has one, `(n, 2)` points x, y."""
    around = np.linspace(0, 2 * math.pi, 40, endpoint=False)
    circle = np.stack([np.cos(around), np.sin(around)], 1)
    match name:
        case "circle":
            return [circle]
        case "ring":
            return [circle, 0.6 * circle]
        case "square":
            return [_corners(4)]
        case "triangle":
            return [_corners(3)]
        case "star":
            return [_corners(10) * np.resize([1, 0.4], (10, 1))]
        case "cross":
            quarter = np.array([(0.3, 0.3), (0.3, 1), (-0.3, 1)])
            return [np.concatenate([quarter @ _quarter_turn(times) for times in range(4)])]
        case "moon":
            half = np.linspace(-math.pi / 2, math.pi / 2, 20)
            outer = np.stack([np.cos(half), np.sin(half)], 1)
            return [np.concatenate([outer, (outer * (0.45, 1))[::-1]])]
        case "bar":
            return [np.array([(-1, -0.3), (1, -0.3), (1, 0.3), (-1, 0.3)])]
    raise ValueError(f"Shapes are {', '.join(CATEGORIES)}; got '{name}'.")


def opacity(outlines: Sequence[NDArray[np.float64]], x: int, y: int, size: int) -> NDArray[np.float32]:
    """How much of each pixel of the square a shape covers, `(size, size)` from 0 to 1."""
    drawn = Image.new("L", (size * _SUPERSAMPLING,) * 2)
    for outline, value in zip(outlines, (255, 0), strict=False):
        points = (outline - (x, y)) * _SUPERSAMPLING - 0.5  # Pillow's coordinates are those of pixel centres
        ImageDraw.Draw(drawn).polygon([(float(px), float(py)) for px, py in points], fill=value)
    return np.asarray(drawn.reduce(_SUPERSAMPLING), dtype=np.float32) / np.float32(255)


def bright_colour(rng: np.random.Generator) -> NDArray[np.float64]:
    """Any colour whose strongest channel is bright: the photographs are dark."""
    rgb = rng.uniform(0, 1, 3)
    return rgb / rgb.max() * rng.uniform(200, 255)


def annotation(outlines: Sequence[NDArray[np.float64]], mask_hw: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's fields: polygons, or run lengths for a shape with a hole, which polygons cannot tell."""
    x1, y1, x2, y2 = tight_box(mask_hw)
    if len(outlines) == 1:
        segmentation: Any = [outlines[0].round(1).ravel().tolist()]
    else:
        run_lengths = coco_mask.encode(np.asfortranarray(mask_hw, dtype=np.uint8))
        segmentation = {"size": list(mask_hw.shape), "counts": run_lengths["counts"].decode()}
    return {
        "segmentation": segmentation,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": int(mask_hw.sum()),
        "iscrowd": 0,
    }


def _corners(count: int) -> NDArray[np.float64]:
    angles = np.arange(count) * 2 * math.pi / count
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def _quarter_turn(times: int) -> NDArray[np.float64]:
    return np.linalg.matrix_power(np.array([[0.0, 1.0], [-1.0, 0.0]]), times)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pixelrefer_plugin.quickstart.shapes", description="Writes a COCO data set of coloured shapes."
    )
    parser.add_argument("folder", type=Path, help="folder to write; files in it are replaced")
    parser.add_argument("--pictures", type=int, default=1500)
    parser.add_argument("--split", choices=SPLITS, default="train", help="which part of each photograph to draw on")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    path = write_coco(args.folder, num_pictures=args.pictures, split=args.split, seed=args.seed)
    print(f"{path}: {args.pictures} pictures of shapes, of {len(CATEGORIES)} categories")


if __name__ == "__main__":
    main()
