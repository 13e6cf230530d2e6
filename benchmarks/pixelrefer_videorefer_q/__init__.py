"""VideoRefer-Bench-Q: multiple choices about objects in videos. Knows its files; knows no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import BenchmarkSpec

PLUGIN_API = 1


@hookimpl
def register_benchmarks(register: "Callable[[BenchmarkSpec], None]") -> None:
    from pixelrefer_plugin.authoring import BenchmarkSpec

    from .config import VideoReferQConfig
    from .predictions import read_pixelrefer, read_unipixel
    from .prompts import prompts
    from .published import PUBLISHED
    from .records import FILES, open_questions
    from .scores import score
    from .tiny import tiny

    register(
        BenchmarkSpec(
            name="videorefer_q",
            about="VideoRefer-Bench-Q: multiple choices about objects in videos, of five types.",
            config=VideoReferQConfig,
            files=FILES,
            open=open_questions,
            score=score,
            published=PUBLISHED,
            prompts=prompts,
            answer_formats={"pixelrefer": read_pixelrefer, "unipixel": read_unipixel},
            tiny=tiny,
        )
    )
