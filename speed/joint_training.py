"""Do clicks and masks help each other? The quickstart's model trained on either kind of question, and on both.

UniPixel's authors report so of the published model (arXiv:2509.18094, section 4.3). Trained together, each kind is
asked as often as in the training of its own, so there are twice as many questions in all; with half the steps, there
are as many in all, and each kind is asked half as often. Where clicks are asked about, a first stage asks about them
alone; masks out alone take the other steps.

    OMP_NUM_THREADS=1 python speed/joint_training.py --seeds 0 1 2 --processes 2 --json joint_training.json

A seed is that of the weights and of all training questions; held-out scenes are the same for all. Earlier masks
(`memory`) are the true ones here, so that answers do not hang on what a model segments.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from region_tokens import environment
from rich.console import Console

from pixelrefer_plugin.quickstart.run import QuickstartOptions, ask, make_model, train
from pixelrefer_plugin.quickstart.tasks import FindAndName

PARTS = (("click", "memory"), ("segment", "largest"))
"""What is asked: clicks and masks in, masks out."""
# How, on what, and with which share of the steps.
TRAININGS = (
    ("apart", PARTS[0], 1.0),
    ("apart", PARTS[1], FindAndName.ALL.share),
    ("together", FindAndName.KINDS, 1.0),
    ("half as long", FindAndName.KINDS, 0.5),
)


def held_out(task, num_scenes):
    """The same scenes and clicks for all tasks."""
    rngs = (np.random.default_rng([0, 2, index]) for index in range(num_scenes))
    return [task.example("held-out", rng, jitter=0.0) for rng in rngs]


def measure(seed_and_training, *, steps, num_scenes):
    """Trains one model; its scores by what was asked."""
    seed, (how, kinds, share) = seed_and_training
    options = QuickstartOptions(adapter="unipixel", seed=seed, steps=max(1, round(steps * share)))
    model, processor = make_model(options)
    started = time.perf_counter()
    train(model, processor, FindAndName(kinds), options, Console(quiet=True))
    seconds = time.perf_counter() - started
    scores = {}
    for part in PARTS:
        if set(part) <= set(kinds):
            task = FindAndName(part)
            found = task.scores(ask(model, processor, held_out(task, num_scenes)))
            scores |= {name: score for name, score in found.items() if not math.isnan(score)}
    return {"seed": seed, "how": how, "kinds": kinds, "steps": options.steps, "seconds": seconds, "scores": scores}


def measure_all(seeds, *, steps, num_scenes, processes=1):
    """Every training with every seed."""
    jobs = list(product(seeds, TRAININGS))
    work = partial(measure, steps=steps, num_scenes=num_scenes)
    if processes == 1:
        yield from map(work, jobs)
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as executor:
        yield from executor.map(work, jobs)


def summary(runs):
    """Of each score, by how it was trained: all seeds' in order, and their mean."""
    table = {}
    for run in sorted(runs, key=lambda run: run["seed"]):
        for name, score in run["scores"].items():
            table.setdefault(name, {}).setdefault(run["how"], []).append(score)
    return {
        name: {how: {"mean": statistics.mean(scores), "seeds": scores} for how, scores in row.items()}
        for name, row in table.items()
    }


def print_table(table):
    for name, row in table.items():
        print(f"\n{name}")
        for how, scores in row.items():
            changes = [score - apart for score, apart in zip(scores["seeds"], row["apart"]["seeds"], strict=True)]
            each = ", ".join(f"{score:.1%}" for score in scores["seeds"])
            print(f"    {how:13} {scores['mean']:6.1%}  {statistics.mean(changes):+6.1%}  ({each})")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="SEED")
    parser.add_argument("--steps", type=int, default=FindAndName.steps, help="of a training (default: %(default)s)")
    parser.add_argument("--scenes", type=int, default=120, help="held-out ones (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="trainings at once (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    args = parser.parse_args()
    runs = []
    for run in measure_all(args.seeds, steps=args.steps, num_scenes=args.scenes, processes=args.processes):
        runs.append(run)
        print(json.dumps(run), flush=True)
    table = summary(runs)
    print_table(table)
    if args.json:
        report = {"environment": environment(torch.get_num_threads()), "runs": runs, "summary": table}
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
