"""Do clicks and masks help each other? The quickstart's model trained on either kind of question, and on both.

UniPixel's authors report so of the published model (arXiv:2509.18094, section 4.3). Each kind is asked as often in all
trainings; the joint one has the other's questions beside.

    python benchmarks/joint_training.py --seeds 3 --json joint_training.json

Earlier masks (`memory`) are the true ones here, so that answers do not hang on what a model segments.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from region_tokens import environment
from rich.console import Console

from pixelrefer_plugin.quickstart.run import QuickstartOptions, ask, make_model, train
from pixelrefer_plugin.quickstart.tasks import FindAndName

PARTS = {"clicks and masks in": ("click", "memory"), "masks out": ("segment", "largest")}
TRAININGS = {"apart": PARTS, "together": {"both": FindAndName.KINDS}}


def held_out(task, num_scenes):
    """The same scenes and clicks for all tasks."""
    rngs = (np.random.default_rng([0, 2, index]) for index in range(num_scenes))
    return [task.example("held-out", rng, jitter=0.0) for rng in rngs]


def measure(seed, *, steps, scenes, console):
    """Scores of each training by what was asked, and the seconds that it took."""
    options = QuickstartOptions(adapter="unipixel", seed=seed, steps=steps)
    results = {}
    for how, trainings in TRAININGS.items():
        found, seconds = {}, 0.0
        for kinds in trainings.values():
            model, processor = make_model(options)
            started = time.perf_counter()
            train(model, processor, FindAndName(kinds), options, console)
            seconds += time.perf_counter() - started
            for part in PARTS.values():
                if set(part) <= set(kinds):
                    task = FindAndName(part)
                    scores = task.scores(ask(model, processor, held_out(task, scenes)))
                    found |= {name: score for name, score in scores.items() if score == score}
        results[how] = {"scores": found, "seconds": round(seconds, 1)}
    return results


def summary(runs):
    """Mean and range over the seeds, and what training together changes."""
    names = runs[0]["apart"]["scores"]
    table = {}
    for name in names:
        columns = {how: [run[how]["scores"][name] for run in runs] for how in TRAININGS}
        changes = [together - apart for apart, together in zip(*columns.values(), strict=True)]
        table[name] = {how: float(np.mean(column)) for how, column in columns.items()} | {
            "change": float(np.mean(changes)),
            "changes": changes,
        }
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of each training, in place of the quickstart's")
    parser.add_argument("--scenes", type=int, default=120)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    console = Console(quiet=True)
    runs = []
    for seed in range(args.seeds):
        runs.append(measure(seed, steps=args.steps, scenes=args.scenes, console=console))
        print(f"seed {seed}: {json.dumps(runs[-1])}", flush=True)
    table = summary(runs)
    print(f"{'':45} {'apart':>8} {'together':>9} {'change':>8}  of each seed")
    for name, row in table.items():
        each = " ".join(f"{change:+.1%}" for change in row["changes"])
        print(f"{name:45} {row['apart']:8.1%} {row['together']:9.1%} {row['change']:+8.1%}  {each}")
    if args.json:
        args.json.write_text(
            json.dumps({"runs": runs, "summary": table, "environment": environment(torch.get_num_threads())}, indent=2)
        )


if __name__ == "__main__":
    main()
