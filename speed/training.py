"""What grouping by length saves a training step, and whether the data loader keeps up with the trainer.

The tiny VideoLLaMA3 of the real classes with SAOT, decoder LoRA and the whole adapter trained, on a mixed set written
to disk: pictures of 56 to 448 px, one to three turns with answers of 3 to 300 words, up to six regions as RLE masks.
Steps are timed on batches that are there already; the loader alone, from the files, with two workers.

    python speed/training.py --json training.json
"""

import argparse
import json
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from PIL import Image
from pycocotools import mask as coco
from region_tokens import environment
from torch.utils.data import DataLoader

from pixelrefer_plugin import attach, get_backbone
from pixelrefer_plugin.data import RegionDataset
from pixelrefer_plugin.training.collator import RegionCollator
from pixelrefer_plugin.training.sampling import LengthGroupedSampler, estimated_tokens

PICTURE_SIDES_PX, ANSWER_WORDS, MOST_REGIONS, MOST_TURNS = (56, 448), (3, 300), 6, 3
WORDS = ("red", "green", "blue", "yellow", "digit", "region", "left", "right", "above", "below", "yes", "no")
LEAST_SPEEDUP, LEAST_LOADER_TO_STEPS = 1.5, 10.0


def write_samples(folder, count, dice):
    """A JSON Lines file of our own schema, and its pictures."""
    records = []
    for index in range(count):
        hw = tuple(log_uniform(PICTURE_SIDES_PX, dice) for _ in range(2))
        Image.fromarray(blots(hw, dice)).save(folder / f"{index}.jpg", quality=90)
        regions = [{"rle": ellipse_rle(hw, dice)} for _ in range(dice.integers(0, MOST_REGIONS + 1))]
        records.append({"id": str(index), "image": f"{index}.jpg", "size": hw, "regions": regions})
        records[-1]["messages"] = conversation(len(regions), dice)
    path = folder / "samples.jsonl"
    path.write_text("\n".join(map(json.dumps, records)) + "\n")
    return path


def conversation(num_regions, dice):
    """Questions about the regions, spread over turns, and answers of very different lengths."""
    turns = int(dice.integers(1, MOST_TURNS + 1))
    words = log_uniform(ANSWER_WORDS, dice)
    messages = []
    for turn in range(turns):
        markers = " <region>" * len(range(turn, num_regions, turns))
        answer = " ".join(dice.choice(WORDS, max(1, words // turns)))
        messages += [{"role": "user", "content": f"what is{markers}?"}, {"role": "assistant", "content": answer}]
    return messages


def log_uniform(bounds, dice):
    return round(float(np.exp(dice.uniform(*np.log(bounds)))))


def blots(hw, dice):
    """A picture that compresses like a photograph rather than like noise."""
    coarse = Image.fromarray(dice.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    return np.asarray(coarse.resize((hw[1], hw[0]), Image.Resampling.BICUBIC))


def ellipse_rle(hw, dice):
    (height, width), (down, across) = hw, (dice.uniform(6, side / 2) for side in hw)
    y, x = np.mgrid[:height, :width]
    centre_y, centre_x = dice.uniform(down / 2, height - down / 2), dice.uniform(across / 2, width - across / 2)
    inside = ((y - centre_y) / (down / 2)) ** 2 + ((x - centre_x) / (across / 2)) ** 2 <= 1
    rle = coco.encode(np.asfortranarray(inside, dtype=np.uint8))
    return {"size": list(hw), "counts": rle["counts"].decode()}


def make_model(adapter="saot"):
    backbone, native = get_backbone("videollama3").tiny(0)
    torch.manual_seed(0)
    model, processor = attach(backbone, native, adapter=adapter)
    model.add_lora()
    return model.train(), processor


def orders(dataset, processor, batch_size):
    """Batches of indices: as shuffled, and as grouped by estimated length."""
    shuffled = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    length_of = partial(estimated_tokens, processor=processor)
    grouped = list(LengthGroupedSampler(dataset, batch_size=batch_size, length_of=length_of, seed=0))
    return {
        name: [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
        for name, order in (("shuffled", shuffled), ("grouped", grouped))
    }


def seconds_of_pass(model, optimizer, batches):
    """One pass over all batches: forward, backward and step."""
    start = time.perf_counter()
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if name not in ("sample_names", "skipped")}
        model(**inputs).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return time.perf_counter() - start


def padding_share(batches):
    masks = [batch["attention_mask"] for batch in batches]
    return 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)


def seconds_of_loading(loader):
    """One pass of the loader alone; its workers are there already."""
    start = time.perf_counter()
    for _ in loader:
        pass
    return time.perf_counter() - start


def measure(*, samples, batch_size, repeats, workers):
    """Passes in turns, so that a busy machine slows all; medians of each, and of the ratios within a turn."""
    model, processor = make_model()
    collate = RegionCollator(processor)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-5)
    with tempfile.TemporaryDirectory() as folder:
        dataset = RegionDataset.open(write_samples(Path(folder), samples, np.random.default_rng(0)))
        batches = {
            name: [collate(dataset.__getitems__(indices)) for indices in order]
            for name, order in orders(dataset, processor, batch_size).items()
        }
        loader = DataLoader(
            dataset, batch_size, shuffle=True, collate_fn=collate, num_workers=workers, persistent_workers=True
        )
        seconds_of_loading(loader)
        seconds_of_pass(model, optimizer, batches["grouped"][:1])
        turns = []
        for _ in range(repeats):
            turns.append({name: seconds_of_pass(model, optimizer, batches[name]) for name in batches})
            turns[-1]["loader"] = seconds_of_loading(loader)
    tokens = {name: sum(int(batch["attention_mask"].sum()) for batch in batches[name]) for name in batches}
    return {
        "samples_per_s": {name: samples / statistics.median(turn[name] for turn in turns) for name in turns[0]},
        "tokens": tokens,
        "padding": {name: padding_share(batches[name]) for name in batches},
        "grouped_to_shuffled": statistics.median(turn["shuffled"] / turn["grouped"] for turn in turns),
        "loader_to_steps": statistics.median(turn["grouped"] / turn["loader"] for turn in turns),
    }


def print_result(result):
    print(f"\n{'':12}{'samples/s':>12}{'padding':>12}")
    for name, rate in result["samples_per_s"].items():
        padding = f"{result['padding'][name]:.1%}" if name in result["padding"] else ""
        print(f"{name:12}{rate:>12.1f}{padding:>12}")
    for what, name, least in (
        ("steps on grouped batches to steps on shuffled ones", "grouped_to_shuffled", LEAST_SPEEDUP),
        ("loader to steps on grouped batches", "loader_to_steps", LEAST_LOADER_TO_STEPS),
    ):
        print(f"{what}: {result[name]:.2f} x, {'pass' if result[name] >= least else 'FAIL'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = {"environment": environment(options.threads)}
    report["environment"]["versions"]["transformers"] = transformers.__version__
    print(json.dumps(report["environment"], indent=2))
    print(
        f"{options.samples} samples, {options.batch_size} in a batch, {options.workers} workers, medians of "
        f"{options.repeats}\nrequired: grouped >= {LEAST_SPEEDUP} x shuffled, "
        f"loader >= {LEAST_LOADER_TO_STEPS:g} x the steps"
    )
    report["result"] = measure(
        samples=options.samples, batch_size=options.batch_size, repeats=options.repeats, workers=options.workers
    )
    print_result(report["result"])
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
