"""What the quickstart's base learns of a new task from a COCO file, and what it then knows of its old one.

The task of docs/own-data.md, with its commands and its configuration: which shape is a region? The base has only ever
been asked about digits and colours of whole pictures.

    python speed/new_task.py --json new_task.json

Held out are pictures of the same photographs' parts (as `pixelrefer convert` splits them), and pictures made of parts
of the photographs that neither the base nor the training has seen, each region of which is asked about alone.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from region_tokens import environment
from transformers.utils import logging as transformers_logging

from pixelrefer_plugin import RegionDataset, RegionModel, load
from pixelrefer_plugin.evaluation.answers import HeldOutAnswers
from pixelrefer_plugin.quickstart.scenes import make_scene, scene_questions
from pixelrefer_plugin.quickstart.shapes import write_coco

BASE = "builtin:tiny_videollama3"
CONFIG = Path(__file__).parent.parent / "examples" / "own-data" / "shapes.yaml"
OPTIONS = ("--option", "question=which shape is <region>?", "--option", "region=box")
PICTURES, UNSEEN_PICTURES, OLD_SCENES = 1500, 100, 150
LEAST_EXACT, MOST_SECONDS = 0.90, 180


def run(folder, *arguments):
    """A `pixelrefer` command in a folder; returns its wall time, imports included."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pixelrefer_plugin", *map(str, arguments)], cwd=folder, check=True)
    return time.perf_counter() - started


def make_data(folder, *, pictures, unseen_pictures):
    """The tutorial's files, and `unseen.jsonl`, a sample for each region."""
    for name, split, count in (("shapes", "train", pictures), ("unseen", "held-out", unseen_pictures)):
        write_coco(folder / name, num_pictures=count, split=split)
    parts = ("--option", "per_image=true", "--held-out", "held_out.jsonl", "--held-out-share", "0.15")
    for name, out, more in (("shapes", "train.jsonl", parts), ("unseen", "unseen.jsonl", ())):
        run(folder, "convert", f"{name}/instances.json", out, "--media-root", f"{name}/images", *OPTIONS, *more)


def old_task(num_scenes):
    """What the base was pre-trained for: questions about whole scenes of held-out digits, each asked alone."""
    rows = []
    for index in range(num_scenes):
        dice = np.random.default_rng([1, index])
        scene = make_scene("held-out", dice)
        for number, question in enumerate(scene_questions(scene, dice)):
            turns = [{"role": "user", "content": question.text}, {"role": "assistant", "content": question.answer}]
            image = Image.fromarray(scene.image_hwc)
            rows.append({"id": f"{question.kind}/{index}-{number}", "image": image, "messages": turns})
    return RegionDataset.from_rows(rows)


def ask(model, processor, dataset):
    """What is answered to every question of a dataset."""
    answers = HeldOutAnswers(dataset, processor, samples=len(dataset), max_new_tokens=16, batch_size=32)
    answers(model)
    return answers.answers


def shares(answers, kind):
    """Share of exact answers, `all` and of each kind."""
    exact = defaultdict(list)
    for answer in answers:
        for name in ("all", kind(answer)):
            exact[name].append(answer.is_exact)
    return {name: sum(each) / len(each) for name, each in exact.items()}


def blind_share(dataset):
    """How often the commonest shape of its picture is the right answer: the most that the picture alone can tell."""
    shapes = defaultdict(Counter)
    for sample in dataset:
        shapes[sample.media("image")[0]["image"]][sample.messages[-1]["content"]] += 1
    return sum(max(each.values()) for each in shapes.values()) / len(dataset)


def measure(folder, *, pictures, unseen_pictures, scenes, settings):
    """Everything, in an empty folder."""
    make_data(folder, pictures=pictures, unseen_pictures=unseen_pictures)
    scenes, unseen = old_task(scenes), RegionDataset.open(folder / "unseen.jsonl")
    base, plain_processor = load(BASE, adapter="saot")
    old_before, new_before = ask(base, plain_processor, scenes), ask(base, plain_processor, unseen)
    base.detach()

    wall_s = run(folder, "train", CONFIG.resolve(), *settings)
    trained = folder / "runs" / "shapes"
    model, processor = load(trained / "model")
    old_after, new_after = ask(model, processor, scenes), ask(model, processor, unseen)

    plain = RegionModel.attach(model.detach(), adapter="saot", tokens=plain_processor.tokens).eval()
    detached = ask(plain, plain_processor, scenes)
    metrics = json.loads((trained / "metrics.json").read_text())
    return {
        "new_task": {
            "before, unseen photographs": shares(new_before, _expected)["all"],
            "guess without a region": blind_share(unseen),
            "held-out pictures": metrics["eval_exact_match"],
            "unseen photographs": shares(new_after, _expected)["all"],
        },
        "new_task_by_shape": shares(new_after, _expected),
        "old_task": {"before": shares(old_before, _kind), "after": shares(old_after, _kind)},
        "detached_is_base": [each.given for each in detached] == [each.given for each in old_before],
        "steps": metrics["steps"],
        "train_command_s": round(wall_s, 1),
    }


def _expected(answer):
    return answer.question.expected


def _kind(answer):
    return answer.question.asked.id.partition("/")[0]


def print_result(result):
    print(f"\n{'which shape is <region>?':30} {'exact':>8}")
    by_shape = {f"  {name}": share for name, share in result["new_task_by_shape"].items() if name != "all"}
    for name, share in (result["new_task"] | by_shape).items():
        print(f"{name:30} {share:8.1%}")
    before, after = result["old_task"]["before"], result["old_task"]["after"]
    print(f"\n{'old task, whole pictures':30} {'before':>8} {'after':>8}")
    for name in before:
        print(f"{name:30} {before[name]:8.1%} {after[name]:8.1%}")
    print(f"after detach() the base answers as before: {result['detached_is_base']}")
    print(
        f"pixelrefer train: {result['train_command_s']:.0f} s for {result['steps']} steps, imports and the questions "
        f"about held-out pictures included\n"
        f"required: {LEAST_EXACT:.0%} of held-out regions within {MOST_SECONDS} s on two idle cores"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--unseen-pictures", type=int, default=UNSEEN_PICTURES)
    parser.add_argument("--scenes", type=int, default=OLD_SCENES)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="written over examples/own-data/shapes.yaml")
    options = parser.parse_args()
    transformers_logging.disable_progress_bar()
    report = {"environment": environment(torch.get_num_threads())}
    with tempfile.TemporaryDirectory() as folder:
        report["result"] = measure(
            Path(folder),
            pictures=options.pictures,
            unseen_pictures=options.unseen_pictures,
            scenes=options.scenes,
            settings=options.settings,
        )
    print(json.dumps(report["environment"], indent=2))
    print_result(report["result"])
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
