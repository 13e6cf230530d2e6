"""How much of the time of `predict` is the model's: a tiny model, whose share is the least that can be, and pictures of
real size, three questions about each. With `--wide` a VideoLLaMA3 of the real tower's width with few layers.

    python speed/predict.py --questions 200 --batch-size 8
    python speed/predict.py --wide --questions 12 --batch-size 4 --side-px 1280

Prints a line of JSON: seconds in the model and around it, the share, and answers per second; with `--profile` what the
other time goes into.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from many_regions import make_backbone, make_native_processor
from PIL import Image

from pixelrefer_plugin import RegionDataset, RegionModel, RegionProcessor, attach
from pixelrefer_plugin.evaluation.asking.engine import ModelEngine
from pixelrefer_plugin.evaluation.asking.question_file import FileQuestions
from pixelrefer_plugin.evaluation.predicting.answering import answer_questions
from pixelrefer_plugin.testing import make_pair


class Timed(ModelEngine):
    """Counts the seconds in which the model works."""

    model_s = 0.0

    def finish(self, prepared: Any) -> Any:
        started = time.perf_counter()
        try:
            return super().finish(prepared)
        finally:
            self.model_s += time.perf_counter() - started


def write_data(folder: Path, number: int, side_px: int) -> Path:
    """Questions about regions of noise pictures, three of each picture."""
    generator = np.random.default_rng(0)
    records = []
    for index in range(number):
        name = f"{index // 3}.jpg"
        if index % 3 == 0:
            height, width = generator.integers(side_px // 2, side_px + 1, 2)
            Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / name)
        box = [4, 4, side_px // 4 + index % 20, side_px // 4]
        messages = [{"role": "user", "content": "word " * (index % 9) + "what is <region>?"}]
        records.append({"image": name, "regions": [{"box": box}], "messages": messages})
    path = folder / "data.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def make_model(backbone: str, *, wide: bool) -> tuple[RegionModel, RegionProcessor]:
    """The model that is asked, with its processor."""
    if not wide:
        pair = make_pair("saot", backbone)
        return pair.model, pair.processor
    native = make_native_processor()
    return attach(make_backbone(native), native, adapter="saot")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--side-px", type=int, default=448)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--backbone", default="qwen2_5_vl")
    parser.add_argument("--wide", action="store_true", help="a VideoLLaMA3 of the real tower's width")
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    model, processor = make_model(given.backbone, wide=given.wide)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    engine = Timed(model.eval().to(device), processor, max_new_tokens=given.max_new_tokens)
    with tempfile.TemporaryDirectory() as folder:
        path = write_data(Path(folder), given.questions, given.side_px)
        profile = cProfile.Profile()
        started = time.perf_counter()
        if given.profile:
            profile.enable()
        questions = FileQuestions([RegionDataset.open(path, use="ask")])
        answer_questions(
            engine, questions, Path(folder) / "out.jsonl", batch_size=given.batch_size, fingerprint={"model": "tiny"}
        )
        profile.disable()
        seconds = time.perf_counter() - started
    if given.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(15)
    share = engine.model_s / seconds
    print(
        json.dumps(
            {
                "device": device,
                "questions": given.questions,
                "seconds": round(seconds, 2),
                "model_s": round(engine.model_s, 2),
                "share": round(share, 4),
                "answers_per_s": round(given.questions / seconds, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
