"""Ferret-Bench: questions about regions, judged beside the answers of GPT-4. Knows its files; knows no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import BenchmarkSpec

PLUGIN_API = 1


@hookimpl
def register_benchmarks(register: "Callable[[BenchmarkSpec], None]") -> None:
    from pixelrefer_plugin.authoring import BenchmarkSpec

    from .config import FerretConfig
    from .files import FILES
    from .prompts import prompts
    from .published import PUBLISHED
    from .records import open_questions, read_predictions, read_reviews
    from .scores import score
    from .tiny import tiny

    register(
        BenchmarkSpec(
            name="ferret_reasoning",
            about="Questions about regions that need reasoning; a judge scores the answers beside those of GPT-4.",
            config=FerretConfig,
            files=FILES,
            open=open_questions,
            score=score,
            needs=("judge",),
            published=PUBLISHED,
            prompts=prompts,
            answer_formats={"ferret": read_predictions},
            judged_formats={"ferret": read_reviews},
            tiny=tiny,
        )
    )
