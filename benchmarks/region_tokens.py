"""How long it takes to turn regions into object tokens, beside the official PixelRefer code.

Times what SAOT adds to a model: masks, plans, crops and the tokenizer; the vision tower is not counted. One
1280x720 photograph, tower width 1152, decoder width 1536, n = 32, float32.

    python benchmarks/region_tokens.py --json region_tokens.json
"""

import argparse
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import PIL
import pixelrefer_saot.module as saot_module
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate

from pixelrefer_plugin import FeatureGrids, PatchGeometry, Region, get_adapter, region_batch

IMAGE_HW = (720, 1280)
PATCH_PX = 14
VISION_WIDTH, DECODER_WIDTH, NUM_TOKENS = 1152, 1536, 32
REGIONS = (1, 8, 32)
OBJECT_WIDTHS_PX = (40, 500)

# (preprocessing, tokenizer on random features, on smooth ones), ms. Measured with the official PixelRefer code
# (November 2025) on the same kind of machine (2 CPU threads), medians of 5. Its object sizes are not known; ours
# spread evenly on a logarithmic scale over OBJECT_WIDTHS_PX.
OFFICIAL_MS = {1: (3.8, 20.0, 39.0), 8: (27.0, 139.0, 214.0), 32: (99.0, 477.0, 797.0)}

SAOT = get_adapter("saot")
CONFIG = SAOT.make_config({"num_tokens": NUM_TOKENS})
GEOMETRY = PatchGeometry(PATCH_PX)


def object_masks(count):
    """Filled ellipses of a spread of sizes, all over the image."""
    dice = np.random.default_rng(0)
    height, width = IMAGE_HW
    y, x = np.mgrid[:height, :width]
    wide = np.geomspace(*OBJECT_WIDTHS_PX, count) if count > 1 else np.array([math.prod(OBJECT_WIDTHS_PX) ** 0.5])
    masks = []
    for across in wide:
        down = min(across * dice.uniform(0.6, 1.4), height - 2)
        centre_x, centre_y = (
            dice.uniform(across / 2, width - across / 2),
            dice.uniform(down / 2, height - down / 2),
        )
        masks.append(((x - centre_x) / across) ** 2 + ((y - centre_y) / down) ** 2 <= 0.25)
    return masks


def photograph():
    from skimage.data import astronaut

    return Image.fromarray(astronaut()).resize(IMAGE_HW[::-1], Image.Resampling.BICUBIC)


def make_features(kind, grids_hw):
    """One `(h * w, C)` per grid: independent numbers, or low-frequency fields with a little noise."""
    generator = torch.Generator().manual_seed(0)
    grids = []
    for h, w in grids_hw:
        features = torch.randn(h * w, VISION_WIDTH, generator=generator)
        if kind == "smooth":
            coarse = torch.randn(1, VISION_WIDTH, 4, 4, generator=generator)
            field = interpolate(coarse, (h, w), mode="bicubic")[0].flatten(1).T
            features = field + 0.05 * features
        grids.append(features)
    return grids


class Stopwatch:
    """Adds up milliseconds by stage."""

    clock = time.perf_counter

    def __init__(self):
        self.ms = defaultdict(float)

    @contextmanager
    def __call__(self, stage):
        start = Stopwatch.clock()
        yield
        self.ms[stage] += (Stopwatch.clock() - start) * 1e3

    def wrap(self, stage, function):
        def timed(*args, **kwargs):
            with self(stage):
                return function(*args, **kwargs)

        return timed


# --- ours ---------------------------------------------------------------------------------------------------


def plan_and_crop(masks, image, watch):
    """What the processor does for the regions of one image."""
    with watch("region to mask"):
        regions = [Region.from_mask(mask).to_mask(IMAGE_HW) for mask in masks]
    with watch("plan"):
        plans = [SAOT.plan(CONFIG, mask, GEOMETRY) for mask in regions]
    planned = [[region_batch.PlannedRegion(mask, plan, 0)] for mask, plan in zip(regions, plans, strict=True)]
    with (
        watch("crop and layout"),
        patch.object(region_batch, "_cut", watch.wrap("crop", region_batch._cut)),
    ):
        batch = region_batch.make_region_batch(
            [planned],
            adapter="saot",
            placeholder_id=0,
            pictures=[image],
            geometry=GEOMETRY,
            pixel_mean=[0.5] * 3,
            pixel_std=[0.5] * 3,
        )
    with watch("normalise"):
        batch.normalised_crops(torch.float32)
    return batch


def tokenize(module, batch, features, watch):
    """What the model does with the tower's features."""
    timed_mlp = watch.wrap("mlp", nn.Sequential.forward)
    with (
        patch.object(saot_module, "aggregate", watch.wrap("k-means", saot_module.aggregate)),
        patch.object(nn.Sequential, "forward", timed_mlp),
        watch("tokenizer"),
    ):
        (layout,) = batch.views
        return module((layout.encoded(FeatureGrids(features, layout.grids_hw)),), batch.counts)


def our_times(module, masks, image, kind):
    watch = Stopwatch()
    batch = plan_and_crop(masks, image, watch)
    features = torch.cat(make_features(kind, batch.crop_grids_hw))
    tokenize(module, batch, features, watch)
    ms = watch.ms
    return {
        "region to mask": ms["region to mask"],
        "plan": ms["plan"],
        "crop": ms["crop"],
        "layout": ms["crop and layout"] - ms["crop"],
        "normalise": ms["normalise"],
        "k-means": ms["k-means"],
        "mlp": ms["mlp"],
        "rest": ms["tokenizer"] - ms["k-means"] - ms["mlp"],
        "sum": ms["region to mask"] + ms["plan"] + ms["crop and layout"] + ms["normalise"] + ms["tokenizer"],
    }


# --- the plain way ------------------------------------------------------------------------------------------
# Written from the paper and from what the official code is known to do, not copied from it.


def plain_plan_and_crop(masks, image):
    """Per object: the box by `np.where` on the whole mask, crop, bilinear resize, mask likewise."""
    pixels = np.asarray(image)
    crops, grids = [], []
    for mask in masks:
        rows, columns = np.where(mask)
        area = len(rows)
        top, left = max(0, rows.min() - 2 * PATCH_PX), max(0, columns.min() - 2 * PATCH_PX)
        bottom, right = rows.max() + 1 + 2 * PATCH_PX, columns.max() + 1 + 2 * PATCH_PX
        omega = PATCH_PX * PATCH_PX
        scale = 1.0
        if area > 100 * omega:
            scale = math.sqrt(100 * omega / area)
        elif area < NUM_TOKENS * omega:
            scale = math.sqrt(NUM_TOKENS * omega / area)
        crop = Image.fromarray(pixels[top:bottom, left:right])
        grid_hw = tuple(math.ceil(side * scale / PATCH_PX) for side in (crop.height, crop.width))
        crop = crop.resize((grid_hw[1] * PATCH_PX, grid_hw[0] * PATCH_PX), Image.Resampling.BILINEAR)
        crops.append(np.asarray(crop, dtype=np.float32) / 127.5 - 1)
        small = Image.fromarray(mask[top:bottom, left:right].astype(np.float32)).resize(grid_hw[::-1])
        grids.append((np.asarray(small) > 0.5, (left, top, right, bottom)))
    return crops, grids


def plain_tokenize(module, grids, features):
    """Per object: positions, k-means by broadcast distances and a loop over clusters, MLP."""
    height, width = IMAGE_HW
    out = []
    for (inside, (left, top, right, bottom)), grid_features in zip(grids, features, strict=True):
        rows, columns = inside.shape
        i, j = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        x = (j / columns * (right - left) + left) / (width - 1)
        y = (i / rows * (bottom - top) + top) / (height - 1)
        placed = grid_features + module.position(torch.stack([x, y], dim=-1).flatten(0, 1))
        tokens = placed[torch.from_numpy(inside).flatten()]
        if len(tokens) > NUM_TOKENS:
            tokens = plain_kmeans(tokens)
        out.append(module.mlp(tokens))
    return torch.cat(out)


def plain_kmeans(tokens):
    centroids = tokens[torch.randperm(len(tokens))[:NUM_TOKENS]]
    for _ in range(CONFIG.kmeans_iterations):
        nearest = (tokens[:, None] - centroids[None]).square().sum(dim=-1).argmin(dim=1)
        means = [tokens[nearest == k].mean(dim=0) if (nearest == k).any() else centroids[k] for k in range(NUM_TOKENS)]
        moved, centroids = centroids, torch.stack(means)
        if torch.allclose(moved, centroids, atol=1e-6):
            break
    return centroids


def plain_times(module, masks, image, kind):
    watch = Stopwatch()
    with watch("preprocessing"):
        _, grids = plain_plan_and_crop(masks, image)
    features = make_features(kind, [inside.shape for inside, _ in grids])
    with watch("tokenizer"):
        plain_tokenize(module, grids, features)
    return {**watch.ms, "sum": sum(watch.ms.values())}


# --- report -------------------------------------------------------------------------------------------------


def medians(runs):
    return {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}


@torch.inference_mode()
def measure(count, kind, repeats):
    """Ours and the plain way in turns, so that a busy machine slows both."""
    module = SAOT.build(CONFIG, vision_width=VISION_WIDTH, decoder_width=DECODER_WIDTH).eval()
    masks, image = object_masks(count), photograph()
    runs = [
        (our_times(module, masks, image, kind), plain_times(module, masks, image, kind)) for _ in range(repeats + 1)
    ][1:]
    ours, plain = medians([run[0] for run in runs]), medians([run[1] for run in runs])
    sums, plain_sums = ([run[which]["sum"] for run in runs] for which in (0, 1))
    preprocessing, on_random, on_smooth = OFFICIAL_MS[count]
    official = preprocessing + (on_random if kind == "random" else on_smooth)
    return {
        "regions": count,
        "features": kind,
        "ours_ms": ours,
        "ours_sum_min_max_ms": [min(sums), max(sums)],
        "plain_ms": plain,
        "official_ms": official,
        "times_faster_than_plain": statistics.median(b / a for a, b in zip(sums, plain_sums, strict=True)),
        "times_faster_than_official": official / ours["sum"],
    }


def environment(threads):
    """What the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    changed = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, check=False)
    return {
        "command": " ".join(["python", *sys.argv]),
        "commit": head.stdout.strip() + (" + working tree" if changed.stdout else ""),
        "date": time.strftime("%Y-%m-%d"),
        "cpu": f"{len(models)} x {models[0]}",
        "threads": threads,
        "load_average_1min": Path("/proc/loadavg").read_text().split()[0],
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
        },
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="count the process's CPU time; with --threads 1, for a machine that is busy with other things",
    )
    options = parser.parse_args()
    if options.cpu_time:
        Stopwatch.clock = time.process_time
    torch.set_num_threads(options.threads)
    report = {"environment": environment(options.threads), "results": []}
    print(json.dumps(report["environment"], indent=2))
    print(f"ellipses {OBJECT_WIDTHS_PX[0]} to {OBJECT_WIDTHS_PX[1]} px wide; medians of {options.repeats}, ms")
    for kind in ("random", "smooth"):
        for count in REGIONS:
            result = measure(count, kind, options.repeats)
            report["results"].append(result)
            stages = "  ".join(f"{stage} {ms:.1f}" for stage, ms in result["ours_ms"].items())
            low, high = result["ours_sum_min_max_ms"]
            print(f"{count:2} regions, {kind} features: {stages} (from {low:.1f} to {high:.1f})")
            print(
                f"    {result['times_faster_than_official']:.1f}x faster than the official code "
                f"({result['official_ms']:.0f} ms), {result['times_faster_than_plain']:.1f}x than the plain "
                f"way ({result['plain_ms']['sum']:.0f} ms in this run)"
            )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
