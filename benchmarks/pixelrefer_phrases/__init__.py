"""Visual Genome, Ref-L4 and HC-STVG: short captions of regions, compared with a person's. Knows their files; knows no
model."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pixelrefer_plugin.authoring import hookimpl

if TYPE_CHECKING:
    from pixelrefer_plugin.authoring import BenchmarkSpec

PLUGIN_API = 1


@hookimpl
def register_benchmarks(register: "Callable[[BenchmarkSpec], None]") -> None:
    from . import hc_stvg, ref_l4, visual_genome

    for module in (visual_genome, ref_l4, hc_stvg):
        register(module.SPEC)
