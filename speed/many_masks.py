"""What a thousand regions on a 4K frame cost until the tower runs: time and memory for each, beside dense masks.

A region here is a mask made compact and planned by a processor with `saot`. The dense baseline keeps one byte for
each pixel of the frame, and takes box, area and the share of each patch from that. Both see the same frames: ellipses
of 40 to 2000 pixels, and noise over the whole frame, the worst case.

    OMP_NUM_THREADS=1 python speed/many_masks.py --json many_masks.json
"""

import argparse
import json
import os
import statistics
import time
import tracemalloc
from pathlib import Path

import numpy as np
from pixelrefer_videollama3.tiny import tiny_config, tiny_processor
from region_tokens import environment

from pixelrefer_plugin import Region, RegionProcessor

FRAME_HW = (2160, 3840)
REGIONS = 1000
DENSE_REGIONS = 50  # so many are measured, and their memory scaled: 1000 dense masks take 8 GB
TINY = {"frame_hw": (216, 384), "regions": 10, "dense_regions": 5}
MIB = 2**20


def ellipse(frame_hw, dice):
    """A filled ellipse, of sizes spread evenly on a logarithmic scale."""
    height, width = frame_hw
    across, down = height * 2000 / 2160 * (40 / 2000) ** dice.random(2)
    y, x = np.ogrid[:height, :width]
    centre_x, centre_y = dice.uniform(across / 2, width - across / 2), dice.uniform(down / 2, height - down / 2)
    return ((x - centre_x) / across) ** 2 + ((y - centre_y) / down) ** 2 <= 0.25


def noise(frame_hw, dice):
    height, width = frame_hw
    return np.unpackbits(dice.integers(0, 256, height * width // 8, dtype=np.uint8)).reshape(frame_hw).view(bool)


SHAPES = {"ellipses": ellipse, "noise": noise}


def make_planner():
    native = tiny_processor()
    return RegionProcessor(native, tiny_config(native.tokenizer), adapter="saot").plan


def compact(frame, plan):
    mask = Region.from_mask(frame).to_mask(frame.shape)
    return mask, plan(mask)


def dense(frame, crop):
    """What a plan needs of a mask, plainly, for the crop and grid that were planned."""
    rows, columns = np.flatnonzero(frame.any(axis=1)), np.flatnonzero(frame.any(axis=0))
    box_xyxy = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    x0, y0, x1, y1 = crop.box_xyxy
    part = frame[y0:y1, x0:x1].astype(np.float32)
    down, across = shares(y1 - y0, crop.grid_hw[0]), shares(x1 - x0, crop.grid_hw[1])
    return frame, box_xyxy, np.count_nonzero(frame), down @ part @ across.T


def shares(pixels, cells):
    """`(cells, pixels)` float32: how much of each cell lies in each pixel."""
    edges = np.arange(cells + 1)[:, None] * pixels / cells
    shared = np.minimum(edges[1:], np.arange(1, pixels + 1)) - np.maximum(edges[:-1], np.arange(pixels))
    return (np.clip(shared, 0, None) * (cells / pixels)).astype(np.float32)


def measure(shape, *, frame_hw=FRAME_HW, regions=REGIONS, dense_regions=DENSE_REGIONS):
    """The median of the milliseconds a region, and the bytes that all of them take."""
    plan = make_planner()

    def frames(count):
        dice = np.random.default_rng(0)
        return (SHAPES[shape](frame_hw, dice) for _ in range(count))

    crops = [compact(frame, plan)[1].views[0] for frame in frames(dense_regions)]
    compact_ms = median_ms(lambda frame, _: compact(frame, plan), frames(dense_regions), crops)
    dense_ms = median_ms(dense, frames(dense_regions), crops)
    compact_bytes, peak_bytes = memory_bytes(lambda frame: compact(frame, plan), frames(regions))
    dense_bytes, _ = memory_bytes(lambda frame: dense(frame, crops[0]), frames(dense_regions))
    dense_bytes *= regions / dense_regions
    return {
        "regions": regions,
        "compact_ms": compact_ms,
        "dense_ms": dense_ms,
        "compact_bytes": compact_bytes,
        "peak_bytes": peak_bytes,
        "dense_bytes": dense_bytes,
        "time_ratio": dense_ms / compact_ms,
        "memory_ratio": dense_bytes / compact_bytes,
    }


def median_ms(step, frames, crops):
    times_s = []
    for frame, crop in zip(frames, crops, strict=True):
        start = time.perf_counter()
        step(frame, crop)
        times_s.append(time.perf_counter() - start)
    return statistics.median(times_s) * 1000


def memory_bytes(step, frames):
    """What all results take together, and the most that was taken on the way, the frame at hand counted."""
    tracemalloc.start()
    kept = [step(frame) for frame in frames]
    kept_bytes, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del kept
    return kept_bytes, peak_bytes


def print_result(shape, result):
    print(
        f"\n{result['regions']} {shape}, mask and plan"
        f"\n    compact {result['compact_ms']:8.3f} ms a region, {result['compact_bytes'] / MIB:8.1f} MiB kept, "
        f"{result['peak_bytes'] / MIB:8.1f} MiB at most"
        f"\n    dense   {result['dense_ms']:8.3f} ms a region, {result['dense_bytes'] / MIB:8.1f} MiB kept"
        f"\n    {result['time_ratio']:.1f} x faster, {result['memory_ratio']:.1f} x less memory"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--tiny", action="store_true", help="a small frame and few regions, to see that it runs")
    options = parser.parse_args()
    report = {"environment": environment(threads=os.environ.get("OMP_NUM_THREADS", "all")), "results": {}}
    print(json.dumps(report["environment"], indent=2))
    for shape in SHAPES:
        report["results"][shape] = measure(shape, **(TINY if options.tiny else {}))
        print_result(shape, report["results"][shape])
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
