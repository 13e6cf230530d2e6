"""Ref-L4 with detailed descriptions, scored by CLAIR. Knows its files; knows no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import BenchmarkSpec

PLUGIN_API = 1


@hookimpl
def register_benchmarks(register: "Callable[[BenchmarkSpec], None]") -> None:
    from pixelrefer_plugin.authoring import BenchmarkSpec

    from .config import RefL4DetailedConfig
    from .prompts import prompts
    from .published import PUBLISHED
    from .records import FILES, open_questions, read_judged, read_predictions
    from .scores import score
    from .tiny import tiny

    register(
        BenchmarkSpec(
            name="ref_l4_detailed",
            about="Detailed descriptions of objects; a judge says how likely they and the references mean one picture.",
            config=RefL4DetailedConfig,
            files=FILES,
            open=open_questions,
            score=score,
            needs=("judge",),
            published=PUBLISHED,
            prompts=prompts,
            answer_formats={"pixelrefer": read_predictions},
            judged_formats={"clair": read_judged},
            tiny=tiny,
        )
    )
