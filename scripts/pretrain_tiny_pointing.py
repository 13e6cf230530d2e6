"""Trains a tiny LLaVA-OneVision that knows places to read marks on a picture and crops beside it.

    python scripts/pretrain_tiny_pointing.py --out runs/tiny_pointing

It goes on from the quickstart's base, which reads location tokens, so that the three ways to point without training can
be compared on one model: coordinates, marks and crops. First the vision tower alone learns which patches belong to a
marked digit. Then the decoder learns to answer about the digit in the box, about the digit in the crop, and still about
the digit at a place. Pictures and words are made by the adapters' own pointers. Held-out digits and the right strip of
each photograph are never seen. The same seed and thread count give the same weights on one machine.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pretrain_tiny_grounded import encode, patch_shares, patch_targets, pictures, pixels_of, place_questions
from pretraining import descend, pick, scene_pool
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from pixelrefer_plugin import Region, RegionProcessor, get_adapter
from pixelrefer_plugin.authoring import PlacedRegion, PointedMedium, PointedRegion
from pixelrefer_plugin.quickstart.scenes import Scene
from pixelrefer_plugin.quickstart.tasks import WhichDigit
from pixelrefer_plugin.weights.loading import load_backbone, load_native_processor

BASE = "builtin:tiny_llava_onevision"
QUESTION = WhichDigit.title
# Pictures of 112 px: a number on them would hide the digits, and 2 px of outline are lost in patches of 14.
OPTIONS: dict[str, dict[str, Any]] = {
    "marks": {"style": "box", "numbers": False, "line_width": 0.027},
    "crops": {},
}
_BATCH = 32
_NO_DIGIT = 10
_OUTLINED = 0.5  # loss of the marked patches, beside that of the digits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower-steps", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--tower-lr", type=float, default=1e-3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; files in it are replaced")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    model, (native, config) = load_backbone(BASE), load_native_processor(BASE)
    processors = {
        name: RegionProcessor(native, config, adapter=name, adapter_config=options) for name, options in OPTIONS.items()
    }
    began = time.perf_counter()
    scenes = scene_pool(6000, seed=4, num_digits=(2, 5), sizes_px=(12, 60))
    train_tower(model, marked_pool(scenes, rng), args.tower_steps, args.tower_lr, rng)
    train_model(model, native, processors, scenes, args.steps, args.lr, rng)
    model.save_pretrained(args.out)
    native.save_pretrained(args.out)
    print(json.dumps({"seconds": round(time.perf_counter() - began)}))


def marked_pool(scenes: Sequence[Scene], rng: np.random.Generator) -> list[tuple[Scene, int]]:
    """Each scene with a mark on one of its digits, and which digit that is."""
    spec = get_adapter("marks")
    assert spec.pointer is not None, "marks points"
    pointer = spec.pointer(spec.make_config(OPTIONS["marks"]))
    marked = []
    for scene in scenes:
        number = int(rng.integers(len(scene.digits)))
        region, image = Region.from_box(scene.digits[number].box_xyxy), Image.fromarray(scene.image_hwc)
        placed = PlacedRegion(region, region.to_mask((image.height, image.width)))
        on = PointedMedium(media=image, number=1, has_others=False, coordinates=None)
        shown = pointer.point(on, [PointedRegion(1, (placed,))]).media
        marked.append((Scene(np.asarray(shown), scene.digits), number))
    return marked


def asked_about(scene: Scene, number: int) -> list[dict[str, Any]]:
    """The question about a digit of a scene, and its answer."""
    shown = {"type": "image", "image": scene.image_hwc}
    return [
        {"role": "user", "content": [shown, {"type": "text", "text": QUESTION}]},
        {"role": "assistant", "content": [{"type": "text", "text": str(scene.digits[number].label)}]},
    ]


def train_tower(
    model: Any, pool: Sequence[tuple[Scene, int]], steps: int, peak_lr: float, rng: np.random.Generator
) -> None:
    """First stage: the tower alone, with throw-away heads: each patch names its digit, and whether that is marked."""
    tower = model.model.vision_tower
    head = nn.Linear(96, 12)
    weights = torch.ones(11)
    weights[_NO_DIGIT] = 0.3

    def loss_at(progress: float) -> Tensor:
        chosen = pick(pool, _BATCH, rng)
        scenes = [scene for scene, _ in chosen]
        features = tower(pixels_of(scenes), return_dict=True).last_hidden_state
        digits, *_ = patch_targets(scenes)
        named, marked = head(features).split([11, 1], dim=-1)
        belongs = digits != _NO_DIGIT
        wanted = torch.stack([patch_shares(scene.digits[number]).flatten() > 0 for scene, number in chosen]).float()
        return cross_entropy(
            named.flatten(0, 1), digits.flatten(), weight=weights
        ) + _OUTLINED * binary_cross_entropy_with_logits(marked[..., 0][belongs], wanted[belongs])

    descend("tower", nn.ModuleList([tower, head]), loss_at, steps=steps, peak_lr=peak_lr)


def train_model(
    model: Any,
    native: Any,
    processors: dict[str, RegionProcessor],
    scenes: Sequence[Scene],
    steps: int,
    peak_lr: float,
    rng: np.random.Generator,
) -> None:
    """Second stage: projector and decoder, on digits that are marked, shown as crops, or at a place."""
    tower = model.model.vision_tower.requires_grad_(False)

    def loss_at(progress: float) -> Tensor:
        tower.eval()
        way = rng.choice(["marks", "crops", "places"], p=[0.5, 0.25, 0.25])
        chosen = pick(scenes, _BATCH, rng)
        if way == "places":
            batch = encode(native, [place_questions(scene, rng)[:6] for scene in chosen])
            return model(**batch, **pictures(chosen)).loss
        numbers = [int(rng.integers(len(scene.digits))) for scene in chosen]
        asked = [asked_about(scene, number) for scene, number in zip(chosen, numbers, strict=True)]
        regions = [
            [Region.from_box(scene.digits[number].box_xyxy)] for scene, number in zip(chosen, numbers, strict=True)
        ]
        return model(**processors[way](asked, regions, labels=True)).loss

    descend("model", model, loss_at, steps=steps, peak_lr=peak_lr)


if __name__ == "__main__":
    main()
