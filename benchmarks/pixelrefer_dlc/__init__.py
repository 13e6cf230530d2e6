"""DLC-Bench: detailed descriptions of regions, judged by questions about them. Knows its files; knows no model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import BenchmarkSpec

PLUGIN_API = 1


@hookimpl
def register_benchmarks(register: "Callable[[BenchmarkSpec], None]") -> None:
    from .specs import PICTURE_JUDGE, TEXT_JUDGE

    register(TEXT_JUDGE)
    register(PICTURE_JUDGE)
