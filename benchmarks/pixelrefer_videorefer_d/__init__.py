"""VideoRefer-Bench-D: descriptions of objects in videos, judged on four dimensions. Knows its files; knows no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import BenchmarkSpec

PLUGIN_API = 1


@hookimpl
def register_benchmarks(register: "Callable[[BenchmarkSpec], None]") -> None:
    from pixelrefer_plugin.authoring import BenchmarkSpec

    from .config import VideoReferDConfig
    from .prompts import prompts
    from .published import PUBLISHED
    from .records import FILES, open_questions, read_judged, read_predictions
    from .scores import score
    from .tiny import tiny

    register(
        BenchmarkSpec(
            name="videorefer_d",
            about="Descriptions of objects in videos; a judge compares them with a person's, 0 to 5, in four ways.",
            config=VideoReferDConfig,
            files=FILES,
            open=open_questions,
            score=score,
            needs=("judge",),
            published=PUBLISHED,
            prompts=prompts,
            answer_formats={"videorefer": read_predictions},
            judged_formats={"videorefer": read_judged},
            tiny=tiny,
        )
    )
