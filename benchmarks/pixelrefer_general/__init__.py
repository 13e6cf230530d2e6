"""POPE and MVBench: whether a model sees what it saw before it learnt of regions. Knows their files; knows no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import BenchmarkSpec

PLUGIN_API = 1


@hookimpl
def register_benchmarks(register: "Callable[[BenchmarkSpec], None]") -> None:
    from pixelrefer_plugin.authoring import BenchmarkSpec

    from . import mvbench, pope, tiny
    from .config import MvbenchConfig, PopeConfig
    from .mvbench_scores import score_mvbench
    from .pope_scores import score_pope

    register(
        BenchmarkSpec(
            name="pope",
            about="POPE: whether objects are in pictures, yes or no; general ability, without regions.",
            config=PopeConfig,
            files=pope.FILES,
            open=pope.open_questions,
            score=score_pope,
            published=pope.PUBLISHED,
            prompts=pope.prompts,
            answer_formats={"pixelrefer": pope.read_predictions},
            tiny=tiny.pope,
        )
    )
    register(
        BenchmarkSpec(
            name="mvbench",
            about="MVBench: multiple choices about videos, of 20 tasks; general ability, without regions.",
            config=MvbenchConfig,
            files=mvbench.FILES,
            open=mvbench.open_questions,
            score=score_mvbench,
            published=mvbench.PUBLISHED,
            prompts=mvbench.prompts,
            answer_formats={"pixelrefer": mvbench.read_predictions},
            tiny=tiny.mvbench,
        )
    )
