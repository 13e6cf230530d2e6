"""The benchmark."""

from collections.abc import Sequence

from pixelrefer_plugin.authoring import BenchmarkFile, BenchmarkSpec, Prompt

from .config import PixelQAConfig
from .records import ABOUT, FILE, open_questions
from .scoring import score
from .tiny import tiny


def _prompts(config: PixelQAConfig) -> Sequence[Prompt]:
    return [Prompt("question", config.question)]


SPEC = BenchmarkSpec(
    name="pixelqa",
    about="PixelQA: which option is right about objects of a video that are pointed at, and their masks.",
    config=PixelQAConfig,
    files=(
        BenchmarkFile(FILE, ABOUT),
        BenchmarkFile("videos", "The videos of VideoRefer-Bench, from the same place.", True),
    ),
    open=open_questions,
    score=score,
    needs=("masks",),
    max_new_tokens=512,
    prompts=_prompts,
    tiny=tiny,
)
