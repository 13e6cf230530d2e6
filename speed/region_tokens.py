"""How long it takes to turn regions into object tokens, beside the official PixelRefer code.

Times what SAOT and OCI add to a model: masks, plans, crops and the tokenizer; the vision tower is not counted. One
1280x720 photograph, tower width 1152, decoder width 1536, n = 32, float32. On a GPU the tokenizers alone, forward and
forward + backward.

    python speed/region_tokens.py --json region_tokens.json
    python speed/region_tokens.py --device cuda
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from unittest.mock import patch

import numpy as np
import PIL
import torch
from PIL import Image
from pixelrefer_oci.attention import GridAttention, absorbing_is_cheaper
from pixelrefer_saot.kmeans import KMeans
from pixelrefer_saot.linear import Linear
from torch import nn
from torch.nn.functional import interpolate

from pixelrefer_plugin import Region, get_adapter
from pixelrefer_plugin.authoring import FeatureGrids, PatchGeometry, Shapes
from pixelrefer_plugin.tokens import region_batch
from pixelrefer_plugin.tokens.layouts import Features

IMAGE_HW = (720, 1280)
PATCH_PX = 14
GEOMETRY = PatchGeometry(PATCH_PX)
NUM_TOKENS = 32
REGIONS = {"cpu": (1, 8, 32), "cuda": (1, 32, 256)}
OBJECT_WIDTHS_PX = (40, 500)

# Preprocessing, ms. Measured, like the tokenizers' times below, with the official PixelRefer code (November 2025) on
# the same kind of machine (2 CPU threads), medians of 5. Its object sizes are not known; ours spread evenly on a
# logarithmic scale over OBJECT_WIDTHS_PX. Lite's preprocessing was not measured; it does more than the full model's,
# whose time stands in for it.
OFFICIAL_PREPROCESSING_MS = {1: 3.8, 8: 27.0, 32: 99.0}
# Tokenizer, ms, by kind of features. Of Lite's the kind is not known.
OFFICIAL_TOKENIZER_MS = {
    "saot": {"random": {1: 20.0, 8: 139.0, 32: 477.0}, "smooth": {1: 39.0, 8: 214.0, 32: 797.0}},
    "oci": {kind: {1: 36.0, 8: 257.0, 32: 1120.0} for kind in ("random", "smooth")},
}


@dataclass(frozen=True)
class Widths:
    """Width of the tower's features and of the decoder."""

    vision: int
    decoder: int


REAL, TINY = Widths(1152, 1536), Widths(48, 64)


class Subject:
    """One adapter with its options, and its module at these widths."""

    def __init__(self, name, widths, *, preset=None, device="cpu"):
        self.name, self.widths = name, widths
        self.spec = get_adapter(name)
        self.config = self.spec.make_config(({"preset": preset} if preset else {}) | {"num_tokens": NUM_TOKENS})
        made = self.spec.module.build(
            self.config, Shapes(crop=widths.vision, scene=widths.vision, decoder=widths.decoder)
        )
        self.module = made.eval().to(device)

    @property
    def tokenizer(self):
        return self.module.saot if self.name == "oci" else self.module

    def plans(self, regions):
        planner = self.spec.planner(self.config)
        return planner.together([planner.plan(mask, GEOMETRY) for mask in regions])


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


def make_features(kind, grids_hw, width):
    """One `(h * w, C)` per grid: independent numbers, or low-frequency fields with a little noise."""
    generator = torch.Generator().manual_seed(0)
    grids = []
    for h, w in grids_hw:
        features = torch.randn(h * w, width, generator=generator)
        if kind == "smooth":
            coarse = torch.randn(1, width, 4, 4, generator=generator)
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


def plan_and_crop(subject, masks, image, watch):
    """What the processor does for the regions of one image."""
    with watch("region to mask"):
        regions = [Region.from_mask(mask).to_mask(IMAGE_HW) for mask in masks]
    with watch("plan"):
        plans = subject.plans(regions)
    planned = [
        [region_batch.PlannedRegion(mask, mask.box_xyxy, plan, 0)] for mask, plan in zip(regions, plans, strict=True)
    ]
    with (
        watch("crop and layout"),
        patch.object(region_batch, "cut_crops", watch.wrap("crop", region_batch.cut_crops)),
    ):
        batch = region_batch.make_region_batch(
            [planned],
            adapter=subject.name,
            placeholder_id=0,
            pictures=[image],
            geometry=GEOMETRY,
            pixel_mean=[0.5] * 3,
            pixel_std=[0.5] * 3,
        )
    with watch("normalise"):
        batch.normalised_crops(torch.float32)
    return batch


def encoded_views(batch, kind, width, device="cpu"):
    """The batch's views with made-up features."""
    crops = torch.cat([part for view in batch.views for part in make_features(kind, view.grids_hw, width)])
    features = Features(FeatureGrids(crops.to(device), batch.crop_grids_hw))
    return tuple(layout.encoded(features) for layout in batch.to(device).views)


def tokenize(subject, views, counts, watch):
    """What the model does with the tower's features."""
    parts = {"k-means": KMeans, "attention": GridAttention, "mlp": nn.Sequential}
    with ExitStack() as stack:
        for stage, kind in parts.items():
            stack.enter_context(patch.object(kind, "forward", watch.wrap(stage, kind.forward)))
        stack.enter_context(watch("tokenizer"))
        return subject.module(views, counts)


def our_times(subject, masks, image, kind):
    watch = Stopwatch()
    batch = plan_and_crop(subject, masks, image, watch)
    tokenize(subject, encoded_views(batch, kind, subject.widths.vision), batch.counts, watch)
    ms = watch.ms
    stages = {
        "region to mask": ms["region to mask"],
        "plan": ms["plan"],
        "crop": ms["crop"],
        "layout": ms["crop and layout"] - ms["crop"],
        "normalise": ms["normalise"],
        "k-means": ms["k-means"],
        "attention": ms["attention"],
        "mlp": ms["mlp"],
        "rest": ms["tokenizer"] - ms["k-means"] - ms["attention"] - ms["mlp"],
    }
    return {**stages, "sum": sum(stages.values())}


# --- the plain way ------------------------------------------------------------------------------------------
# Written from the paper and from what the official code is known to do, not copied from it.


def plain_plan_and_crop(subject, masks, image):
    """Per object: the box by `np.where` on the whole mask, crop, bilinear resize, mask likewise; for OCI its
    surroundings and the whole image too."""
    pixels, config = np.asarray(image), subject.config
    omega, large = PATCH_PX * PATCH_PX, config.large_patches
    grids = []
    for mask in masks:
        rows, columns = np.where(mask)
        area = len(rows)
        top, left = max(0, rows.min() - 2 * PATCH_PX), max(0, columns.min() - 2 * PATCH_PX)
        bottom, right = rows.max() + 1 + 2 * PATCH_PX, columns.max() + 1 + 2 * PATCH_PX
        scale = 1.0
        if area > large * omega:
            scale = math.sqrt(large * omega / area)
        elif area < NUM_TOKENS * omega:
            scale = math.sqrt(NUM_TOKENS * omega / area)
        crop = Image.fromarray(pixels[top:bottom, left:right])
        grid_hw = tuple(math.ceil(side * scale / PATCH_PX) for side in (crop.height, crop.width))
        resized = [crop.resize((grid_hw[1] * PATCH_PX, grid_hw[0] * PATCH_PX), Image.Resampling.BILINEAR)]
        if subject.name == "oci":
            for part, side_px in ((crop, config.local_px), (image, config.global_px)):
                resized.append(part.resize((side_px, side_px), Image.Resampling.BILINEAR))
        for each in resized:
            np.asarray(each, dtype=np.float32) / 127.5 - 1
        small = Image.fromarray(mask[top:bottom, left:right].astype(np.float32)).resize(grid_hw[::-1])
        grids.append((np.asarray(small) > 0.5, (left, top, right, bottom)))
    return grids


def plain_object_features(tokenizer, grids, features):
    """Per object: positions, k-means by broadcast distances and a loop over clusters."""
    height, width = IMAGE_HW
    device = features[0].device
    for (inside, (left, top, right, bottom)), grid_features in zip(grids, features, strict=True):
        rows, columns = inside.shape
        i, j = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        x = (j / columns * (right - left) + left) / (width - 1)
        y = (i / rows * (bottom - top) + top) / (height - 1)
        position = torch.stack([x, y], dim=-1).flatten(0, 1).to(device)
        placed = grid_features + nn.Linear.forward(tokenizer.position, position)
        tokens = placed[torch.from_numpy(inside).flatten().to(device)]
        yield plain_kmeans(tokens, tokenizer.kmeans.iterations) if len(tokens) > NUM_TOKENS else tokens


def plain_kmeans(tokens, iterations):
    centroids = tokens[torch.randperm(len(tokens))[:NUM_TOKENS]]
    for _ in range(iterations):
        nearest = (tokens[:, None] - centroids[None]).square().sum(dim=-1).argmin(dim=1)
        means = [tokens[nearest == k].mean(dim=0) if (nearest == k).any() else centroids[k] for k in range(NUM_TOKENS)]
        moved, centroids = centroids, torch.stack(means)
        if torch.allclose(moved, centroids, atol=1e-6):
            break
    return centroids


def plain_attentions(module):
    """torch's own attentions of the same shapes."""
    made = {}
    for name, attention in module.attentions.items():
        width = attention.q.in_features
        made[name] = nn.MultiheadAttention(
            width, attention.num_heads, batch_first=True, device=attention.q.weight.device
        )
    return made


def plain_tokenize(subject, grids, features, contexts, attentions):
    """Object by object; every object has its grids projected for itself."""
    first, activation, last = subject.tokenizer.mlp
    out = []
    for index, tokens in enumerate(plain_object_features(subject.tokenizer, grids, features)):
        for name, attention in attentions.items():
            grid = contexts[name][index % len(contexts[name])]
            tokens = tokens + attention(subject.module.attentions[name].norm(tokens), grid, grid)[0]
        out.append(nn.Linear.forward(last, activation(nn.Linear.forward(first, tokens))))
    return torch.cat(out)


def plain_inputs(subject, grids, kind, device="cpu"):
    """Made-up features of the objects' crops and of what OCI reads besides, the whole image once."""
    width, config = subject.widths.vision, subject.config
    of_crops = [each.to(device) for each in make_features(kind, [inside.shape for inside, _ in grids], width)]
    contexts = {}
    if subject.name == "oci":
        for name, side_px, copies in (("local", config.local_px, len(grids)), ("global", config.global_px, 1)):
            made = make_features(kind, [(side_px // PATCH_PX,) * 2] * copies, width)
            contexts[name] = [each.to(device) for each in made]
    return of_crops, contexts


def plain_times(subject, masks, image, kind, attentions):
    watch = Stopwatch()
    with watch("preprocessing"):
        grids = plain_plan_and_crop(subject, masks, image)
    features, contexts = plain_inputs(subject, grids, kind)
    with watch("tokenizer"):
        plain_tokenize(subject, grids, features, contexts, attentions)
    return {**watch.ms, "sum": sum(watch.ms.values())}


# --- the floor ----------------------------------------------------------------------------------------------


def floor(subject, views, counts):
    """The matrix products that no way around is known of, and the bytes that must be read or written once."""
    c, d = subject.widths.vision, subject.widths.decoder
    tokens = sum(counts)
    crowded = [patches for patches in views[0].patches_per_region if patches > NUM_TOKENS]
    multiplications = {
        "mlp": tokens * (c * d + d * d),
        "k-means": sum(patches**2 * c for patches in crowded),
    }
    for name, view in zip(getattr(subject.module, "attentions", {}), views[1:], strict=True):
        multiplications[name] = 2 * tokens * c * c + _reading_grids(view, counts, subject.config.num_heads, c)
    weights = sum(parameter.numel() for parameter in subject.module.parameters())
    numbers = weights + sum(view.grids.features.numel() for view in views) + tokens * d
    return {"gflop": {name: 2 * each / 1e9 for name, each in multiplications.items()}, "mb": 4 * numbers / 1e6}


def _reading_grids(view, counts, num_heads, c):
    """Multiplications of keys, values and the attention itself, in the cheaper of the two ways."""
    patches = math.prod(view.grids.grids_hw[0])
    tokens_of_grid = defaultdict(int)
    for grid, count in zip(view.grid_of_region, counts, strict=True):
        tokens_of_grid[grid] += count
    return sum(
        2 * c * (tokens * (c + num_heads * patches))
        if absorbing_is_cheaper(tokens, num_patches=patches, width=c, num_heads=num_heads)
        else 2 * c * patches * (c + tokens)
        for tokens in tokens_of_grid.values()
    )


def matmul_gflops_per_s(widths, device="cpu"):
    """The rate of a large product, by the faster of the two ways that our layers take."""
    layer = Linear(widths.vision, widths.decoder).to(device)
    tokens = torch.randn(1024, widths.vision, device=device)
    return 2 * 1024 * widths.vision * widths.decoder / 1e6 / best_ms(lambda: layer(tokens), device)


def best_ms(run, device, repeats=5):
    times = []
    for _ in range(repeats + 1):
        watch = Stopwatch()
        with watch("run"):
            run()
            if device == "cuda":
                torch.cuda.synchronize()
        times.append(watch.ms["run"])
    return min(times[1:])


def peak_mb(run, device):
    """Most memory that is allocated at one time while it runs, beyond what was before."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = run()
    del kept
    events = [each for each in profiler.profiler.kineto_results.events() if each.name() == "[memory]"]
    return max(accumulate(each.nbytes() for each in sorted(events, key=lambda each: each.start_ns()))) / 1e6


# --- how good k-means is --------------------------------------------------------------------------------------


def within_cluster_squares(tokens, centroids):
    return float((torch.cdist(tokens, centroids) ** 2).min(dim=1).values.sum())


def kmeans_quality(subject, views, random_starts=100):
    """Mean within-cluster sum of squares of ours, and of scikit-learn's, over that of random starts."""
    from pixelrefer_saot.kmeans import groups_of
    from sklearn.cluster import KMeans as SklearnKMeans

    crops, tokenizer = views[0], subject.tokenizer
    tokens = tokenizer.placed_features(crops).split(crops.patches_per_region)
    ours, sklearn = [], []
    for each in tokens:
        if len(each) <= NUM_TOKENS:
            continue
        (group,) = groups_of([len(each)], num_clusters=NUM_TOKENS, start=tokenizer.kmeans_start, device=each.device)
        (means,) = tokenizer.kmeans(each, *map(torch.from_numpy, group.arrays))
        from_random = KMeans.started("random", iterations=tokenizer.kmeans.iterations)
        rows, lengths = map(torch.from_numpy, group.arrays[:2])
        seeds = torch.stack([torch.randperm(len(each))[:NUM_TOKENS] for _ in range(random_starts)])
        started = [from_random(each, rows, lengths, seed[None])[0] for seed in seeds]
        random = statistics.mean(within_cluster_squares(each, one) for one in started)
        fitted = SklearnKMeans(NUM_TOKENS, random_state=0).fit(each.numpy())
        ours.append(within_cluster_squares(each, means) / random)
        sklearn.append(within_cluster_squares(each, torch.from_numpy(fitted.cluster_centers_)) / random)
    if not ours:
        return None
    return {"regions": len(ours), "ours": statistics.mean(ours), "scikit-learn": statistics.mean(sklearn)}


# --- report -------------------------------------------------------------------------------------------------


def medians(runs):
    return {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}


@torch.inference_mode()
def measure(subject, count, kind, repeats, *, with_quality=True):
    """Ours and the plain way in turns, so that a busy machine slows both."""
    masks, image = object_masks(count), photograph()
    attentions = plain_attentions(subject.module) if subject.name == "oci" else {}
    runs = [
        (our_times(subject, masks, image, kind), plain_times(subject, masks, image, kind, attentions))
        for _ in range(repeats + 1)
    ][1:]
    ours, plain = medians([run[0] for run in runs]), medians([run[1] for run in runs])
    sums, plain_sums = ([run[which]["sum"] for run in runs] for which in (0, 1))
    batch = plan_and_crop(subject, masks, image, Stopwatch())
    views = encoded_views(batch, kind, subject.widths.vision)
    least = floor(subject, views, batch.counts)
    gflops_per_s = matmul_gflops_per_s(subject.widths)
    result = {
        "adapter": subject.name,
        "regions": count,
        "features": kind,
        "ours_ms": ours,
        "ours_sum_min_max_ms": [min(sums), max(sums)],
        "ours_ms_per_region": ours["sum"] / count,
        "plain_ms": plain,
        "times_faster_than_plain": statistics.median(b / a for a, b in zip(sums, plain_sums, strict=True)),
        "floor": {
            **least,
            "gflop_per_s_of_a_matmul": gflops_per_s,
            "ms": sum(least["gflop"].values()) / gflops_per_s * 1e3,
        },
        "peak_mb_per_region": peak_mb(lambda: subject.module(views, batch.counts), "cpu") / count,
        "crops_mb_per_region": sum(crop.numel() for crop in batch.crops) / 1e6 / count,
    }
    if count in OFFICIAL_PREPROCESSING_MS and subject.widths == REAL:
        result["official_ms"] = OFFICIAL_PREPROCESSING_MS[count] + OFFICIAL_TOKENIZER_MS[subject.name][kind][count]
        result["times_faster_than_official"] = result["official_ms"] / ours["sum"]
    if with_quality:
        result["kmeans_squares_over_random_start"] = kmeans_quality(subject, views)
    return result


def print_result(result):
    stages = "  ".join(f"{stage} {ms:.1f}" for stage, ms in result["ours_ms"].items())
    low, high = result["ours_sum_min_max_ms"]
    print(f"{result['adapter']}, {result['regions']} regions, {result['features']} features, ms: {stages}")
    print(f"    sum from {low:.1f} to {high:.1f}; {result['ours_ms_per_region']:.2f} per region")
    print(f"    {result['times_faster_than_plain']:.1f}x the plain way ({result['plain_ms']['sum']:.0f} in this run)")
    if "official_ms" in result:
        faster, official = result["times_faster_than_official"], result["official_ms"]
        print(f"    {faster:.1f}x the official code ({official:.0f} as it was measured, on 2 threads)")
    least = result["floor"]
    parts = ", ".join(f"{name} {gflop:.2f}" for name, gflop in least["gflop"].items())
    print(
        f"    floor of the tokenizer: {least['ms']:.1f} for GFLOP of {parts} at {least['gflop_per_s_of_a_matmul']:.0f} "
        f"GFLOP/s; {least['mb']:.0f} MB read or written once"
    )
    print(
        f"    memory per region, MB: tokenizer's peak {result['peak_mb_per_region']:.2f}, "
        f"crops {result['crops_mb_per_region']:.2f}"
    )
    if quality := result.get("kmeans_squares_over_random_start"):
        print(
            f"    within-cluster squares over those of random starts: {quality['ours']:.3f}, "
            f"scikit-learn's {quality['scikit-learn']:.3f}"
        )


def measure_on_gpu(subject, count, kind, repeats):
    """The tokenizer alone, ours and the plain way; forward, and forward + backward."""
    masks, image = object_masks(count), photograph()
    batch = plan_and_crop(subject, masks, image, Stopwatch())
    views = encoded_views(batch, kind, subject.widths.vision, "cuda")
    grids = plain_plan_and_crop(subject, masks, image)
    features, contexts = plain_inputs(subject, grids, kind, "cuda")
    attentions = plain_attentions(subject.module) if subject.name == "oci" else {}
    ways = {
        "ours": lambda: subject.module(views, batch.counts),
        "plain": lambda: plain_tokenize(subject, grids, features, contexts, attentions),
    }
    result = {"adapter": subject.name, "regions": count, "features": kind}
    for way, run in ways.items():
        with torch.inference_mode():
            result[f"{way}_forward_ms"] = best_ms(run, "cuda", repeats)
            result[f"{way}_forward_peak_mb"] = peak_mb(run, "cuda")
        result[f"{way}_forward_backward_ms"] = best_ms(lambda run=run: run().sum().backward(), "cuda", repeats)
        result[f"{way}_forward_backward_peak_mb"] = peak_mb(lambda run=run: run().sum().backward(), "cuda")
    return result


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
    parser.add_argument("--adapter", choices=("saot", "oci", "both"), default="both")
    parser.add_argument("--preset", help="a preset of the adapters' options, such as 'official'")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tiny", action="store_true", help="small widths and few regions, to see that it runs")
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
    print("Lite's official preprocessing was not measured: the full model's stands in for it")
    report["results"] = list(run(options))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


def run(options):
    """Every adapter, number of regions and kind of features; printed as they come."""
    widths, counts = (TINY, (1, 3)) if options.tiny else (REAL, REGIONS[options.device])
    for name in ("saot", "oci") if options.adapter == "both" else (options.adapter,):
        subject = Subject(name, widths, preset=options.preset, device=options.device)
        for kind in ("random", "smooth"):
            for count in counts:
                if options.device == "cuda":
                    result = measure_on_gpu(subject, count, kind, options.repeats)
                    print(json.dumps(result))
                else:
                    result = measure(subject, count, kind, options.repeats)
                    print_result(result)
                yield result


if __name__ == "__main__":
    main()
