"""MeViS, Ref-YouTube-VOS, Ref-DAVIS17, ReVOS and Ref-SAV: masks for expressions about videos. Knows no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import BenchmarkSpec

PLUGIN_API = 1


@hookimpl
def register_benchmarks(register: "Callable[[BenchmarkSpec], None]") -> None:
    from .benchmarks import SPECS

    for spec in SPECS:
        register(spec)
