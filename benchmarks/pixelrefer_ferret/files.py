"""The official files of Ferret-Bench: regions by Osprey, and questions, contexts, answers and rules by Ferret."""

from pathlib import Path

from pixelrefer_plugin.authoring import BenchmarkFile

from .config import FerretConfig

_OSPREY = "https://github.com/CircleRadon/Osprey, osprey/eval/ferret-bench"
_FERRET = "https://github.com/apple/ml-ferret, ferret/eval/ferret_gpt4_data (option data)"

FILES = (
    BenchmarkFile("box_refer_reason.json", f"the questions with their regions, from {_OSPREY}."),
    BenchmarkFile("refer_reason/question.jsonl", f"the questions as the judge sees them, from {_FERRET}."),
    BenchmarkFile("refer_reason/context.jsonl", f"what the judge is told of each picture, from {_FERRET}."),
    BenchmarkFile("refer_reason/answer.jsonl", f"the answers of GPT-4, from {_FERRET}."),
    BenchmarkFile("rule.json", f"what the judge is told to do, from {_FERRET}."),
    BenchmarkFile("val2017", "folder of the pictures of COCO 2017, from https://cocodataset.org (option images)."),
    BenchmarkFile("box_refer_caption.json", f"the same for task=description, from {_OSPREY}.", optional=True),
    BenchmarkFile("refer_desc", f"the same for task=description, from {_FERRET}.", optional=True),
)
_CATEGORIES = {"reason": "refer_reason", "description": "refer_desc"}
_FOLDERS = {"reason": ("refer_reason",), "description": ("refer_desc", "refer_caption")}


def regions_file(config: FerretConfig) -> BenchmarkFile:
    """Osprey's file of a task."""
    return FILES[0] if config.task == "reason" else FILES[6]


def judge_file(config: FerretConfig, folder: Path, name: str) -> BenchmarkFile:
    """Ferret's file of a task, below the folder of its data: `question`, `context` or `answer`."""
    about = next(file.about for file in FILES if file.path.endswith(f"{name}.jsonl"))
    paths = [f"{each}/{name}.jsonl" for each in _FOLDERS[config.task]]
    return BenchmarkFile(next((path for path in paths if (folder / path).exists()), paths[0]), about)


def category_of(config: FerretConfig) -> str:
    """What Ferret calls a task."""
    return _CATEGORIES[config.task]


RULES = FILES[4]
