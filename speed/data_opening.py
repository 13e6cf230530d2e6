"""How long a large data file takes to open and how much memory that needs, beside parsing all of it first.

A JSON Lines file and a JSON array of the same samples, about 300 bytes each. Every way of opening runs in a process of
its own, which then reads 1,000 samples at random; its peak memory is above that of a process which opens nothing.

    python speed/data_opening.py --samples 2000000 --json data_opening.json
"""

import argparse
import json
import multiprocessing
import platform
import random
import resource
import tempfile
import time
from pathlib import Path

from pixelrefer_plugin import RegionDataset

READ = 1000
MOST_SECONDS, MOST_MEMORY_SHARE = 30.0, 0.1  # of lazy opening; its memory, of that of parsing first


def record(index):
    left, top = index % 900, index % 500
    return {
        "id": f"sample-{index}",
        "image": f"images/{index % 1000:04d}/street-{index}.jpg",
        "size": [720, 1280],
        "regions": [{"box": [left, top, left + 100, top + 50]}],
        "messages": [
            {"role": "user", "content": 'What is <region>, "briefly"?'},
            {"role": "assistant", "content": f"A car, the {index}th of the street."},
        ],
    }


def write_files(folder, num_samples):
    lines, array = folder / "samples.jsonl", folder / "samples.json"
    with lines.open("w") as of_lines, array.open("w") as of_array:
        of_array.write("[\n")
        for index in range(num_samples):
            text = json.dumps(record(index))
            of_lines.write(f"{text}\n")
            of_array.write(f"{',' if index else ''}{text}\n")
        of_array.write("]\n")
    return {"JSON Lines": lines, "JSON array": array}


def open_lazily(path):
    return RegionDataset.open(path)


def parse_first(path):
    with path.open() as file:
        records = json.load(file) if path.suffix == ".json" else [json.loads(line) for line in file]
    return RegionDataset.from_rows(records)


def open_nothing(path):
    return [None] * READ


def run(opening, path, results):
    started_s = time.perf_counter()
    samples = opening(path)
    opened_s = time.perf_counter()
    for index in random.Random(0).choices(range(len(samples)), k=READ):
        samples[index]
    read_s = time.perf_counter()
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    results.put({"open_s": opened_s - started_s, "read_us": (read_s - opened_s) / READ * 1e6, "peak_mib": peak_mib})


def in_own_process(opening, path):
    context = multiprocessing.get_context("spawn")  # a forked one would count this process's memory
    results = context.SimpleQueue()
    process = context.Process(target=run, args=(opening, path, results))
    process.start()
    process.join()
    assert process.exitcode == 0
    return results.get()


def measure(path):
    idle_mib = in_own_process(open_nothing, path)["peak_mib"]
    found = {"lazy": in_own_process(open_lazily, path), "parsed first": in_own_process(parse_first, path)}
    for each in found.values():
        each["peak_mib"] -= idle_mib
    lazy, parsed = found["lazy"], found["parsed first"]
    shares = {"time_ratio": parsed["open_s"] / lazy["open_s"], "memory_share": lazy["peak_mib"] / parsed["peak_mib"]}
    return {**found, **shares, "passed": lazy["open_s"] < MOST_SECONDS and shares["memory_share"] < MOST_MEMORY_SHARE}


def print_result(kind, path, result):
    print(f"\n{kind}, {path.stat().st_size / 2**20:.0f} MiB{'open, s':>26}{'one sample, us':>16}{'memory, MiB':>14}")
    for way in ("lazy", "parsed first"):
        numbers = result[way]
        print(f"    {way:<34}{numbers['open_s']:>10.2f}{numbers['read_us']:>16.0f}{numbers['peak_mib']:>14.0f}")
    print(
        f"    lazy is {result['time_ratio']:.1f} x as fast, in {result['memory_share']:.1%} of the memory: "
        f"{'pass' if result['passed'] else 'FAIL'}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2_000_000)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    report = {"samples": options.samples, "python": platform.python_version(), "machine": platform.machine()}
    print(f"{options.samples} samples; required: open in {MOST_SECONDS:g} s, {MOST_MEMORY_SHARE:.0%} of the memory")
    with tempfile.TemporaryDirectory() as folder:
        for kind, path in write_files(Path(folder), options.samples).items():
            report[kind] = measure(path)
            print_result(kind, path, report[kind])
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
