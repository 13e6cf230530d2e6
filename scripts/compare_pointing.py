"""Held-out accuracy of each way to point at a digit, on one tiny model, by the digit's size.

    python scripts/pretrain_tiny_pointing.py --out runs/tiny_pointing
    python scripts/compare_pointing.py runs/tiny_pointing

Coordinates, marks and crops are asked without training. `maskpool` and `saot` are trained as the quickstart trains
them, with LoRA, on the same frozen model. All are asked "which digit is <region>?" about the quickstart's held-out
scenes. The model's coordinates are location tokens, so its pointer is here.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pretrain_tiny_grounded import PICTURE_PX, place_at
from pretrain_tiny_pointing import OPTIONS
from rich.console import Console

from pixelrefer_plugin import RegionModel, RegionProcessor, load
from pixelrefer_plugin.authoring import PointedMedium, PointedRegion, Pointer, Pointing
from pixelrefer_plugin.quickstart.asking import ask
from pixelrefer_plugin.quickstart.run import ADAPTER_OPTIONS, QuickstartOptions, train
from pixelrefer_plugin.quickstart.tasks import Example, WhichDigit

UNTRAINED, TRAINED = ("coordinates", "marks", "crops"), ("maskpool", "saot")


class LocationTokens(Pointer[None]):
    """A region is the location token of the middle of its box, as this model was trained to read it."""

    def point(self, on: PointedMedium, regions: Sequence[PointedRegion]) -> Pointing:
        height, width = on.image_hw
        words = []
        for region in regions:
            x0, y0, x1, y1 = region.places[0].mask.box_xyxy
            across, down = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height
            words.append(f"[{place_at(across * PICTURE_PX, down * PICTURE_PX)}]")
        return Pointing(tuple(words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of the model, or builtin:NAME")
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--steps", type=int, default=WhichDigit.steps, help="of the adapters that are trained")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", default=",".join((*UNTRAINED, *TRAINED)))
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    task = WhichDigit()
    examples = [task.example("held-out", np.random.default_rng([0, 2, at]), jitter=0.0) for at in range(args.scenes)]
    for way in args.ways.split(","):
        began = time.process_time()
        print(json.dumps({"way": way, **scores(args.model, way, args.steps, task, examples, began)}), flush=True)


def scores(
    source: str, way: str, steps: int, task: WhichDigit, examples: Sequence[Example], began: float
) -> dict[str, float]:
    """Accuracy of one way, and the processor seconds that its training took."""
    torch.manual_seed(0)
    model, processor = load(source, adapter=way, adapter_config={**OPTIONS, **ADAPTER_OPTIONS}.get(way))
    if way == "coordinates":
        processor._pointer = LocationTokens(None)
    seconds = 0.0
    if way in TRAINED:
        seconds = trained(model, processor, way, steps, task, began)
    answers = ask(model, processor, examples)
    return {"trained_s": round(seconds), **{name: round(score, 4) for name, score in task.scores(answers).items()}}


def trained(
    model: RegionModel, processor: RegionProcessor, way: str, steps: int, task: WhichDigit, began: float
) -> float:
    """Train an adapter and LoRA as the quickstart does."""
    model.add_lora(r=16, alpha=32)
    options = QuickstartOptions(adapter=way, steps=steps, out=Path("unused"))
    train(model, processor, task, options, Console(quiet=True))
    return time.process_time() - began


if __name__ == "__main__":
    main()
