"""The whole extension surface. A plugin module implements any of these with `@hookimpl`."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from pluggy import HookimplMarker, HookspecMarker

if TYPE_CHECKING:
    from .contracts.adapter import AdapterSpec
    from .contracts.backbone import BackboneSpec
    from .contracts.benchmark import BenchmarkSpec
    from .contracts.data_format import DataFormatSpec
    from .contracts.region_source import RegionSourceSpec

PROJECT = "pixelrefer_plugin"

hookspec = HookspecMarker(PROJECT)
hookimpl = HookimplMarker(PROJECT)


@hookspec
def register_adapters(register: "Callable[[AdapterSpec], None]") -> None:
    """Register adapters: how a region becomes object tokens.

    Call `register(AdapterSpec(name=..., config=..., planner=..., module=...))` once per adapter.
    """


@hookspec
def register_backbones(register: "Callable[[BackboneSpec], None]") -> None:
    """Register backbones: how one family of multimodal LLMs is read and fed.

    Call `register(BackboneSpec(name=..., model_types=..., ...))` once per backbone.
    """


@hookspec
def register_region_sources(register: "Callable[[RegionSourceSpec], None]") -> None:
    """Register region sources: models that find an object's mask from a box or clicks.

    Call `register(RegionSourceSpec(name=..., config=..., build=...))` once per source.
    """


@hookspec
def register_data_formats(register: "Callable[[DataFormatSpec], None]") -> None:
    """Register data formats: how the records of a file become training samples.

    Call `register(DataFormatSpec(name=..., config=..., recognises=..., read_record=...))` once per format.
    """


@hookspec
def register_benchmarks(register: "Callable[[BenchmarkSpec], None]") -> None:
    """Register benchmarks: what a model is asked, and how its answers are scored.

    Call `register(BenchmarkSpec(name=..., about=..., config=..., files=..., open=..., score=...))` once per benchmark.
    """
