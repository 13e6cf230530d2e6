"""What `pixelrefer plugins --check` tries of each thing that is registered: to make what needs no real model.

It is quick, and no substitute for the conformance kit. A region source's model is not loaded.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..contracts.adapter import AdapterSpec, Planner
from ..contracts.backbone import BackboneSpec
from ..contracts.benchmark import BenchmarkSpec
from ..contracts.data_format import DataFormatSpec
from ..contracts.module import Shapes
from ..contracts.pointing import Pointer, Pointing
from ..contracts.region_source import RegionSourceSpec
from ..contracts.views import PatchGeometry, RegionPlan
from ..data.dataset import RegionDataset
from ..errors import PixelReferError, PluginCodeError, PluginError, text_of
from ..plugins import (
    Kind,
    get_adapter,
    get_backbone,
    get_benchmark,
    get_data_format,
    get_region_source,
    in_plugin,
    result_of,
)
from ..regions.region import Region
from .backbone_checks import modules_are_where_the_spec_says
from .pairs import pointed_media

_MOST_CHARACTERS = 500
_WIDTH = 32


def why_it_cannot_run(kind: Kind, name: str) -> str:
    """What keeps something that is registered from running, as far as a trial shows; empty where nothing does."""
    try:
        _TRIALS[kind](name)
    except (PixelReferError, AssertionError) as error:
        return text_of(error, _MOST_CHARACTERS).rstrip(".")
    except Exception as error:
        return f"{type(error).__name__}: {text_of(error, _MOST_CHARACTERS)}".rstrip(".")
    return ""


def _try_adapter(name: str) -> None:
    spec: AdapterSpec = get_adapter(name)
    with in_plugin("adapter", name, "config"):
        for preset in spec.presets:
            spec.make_config(preset)
        config, small = spec.make_config(None), spec.make_config(spec.tiny)
    if spec.pointer is not None:
        pointer = result_of("adapter", name, "pointer", Pointer, spec.pointer, config)
        on, regions = pointed_media()[0]
        result_of("adapter", name, "point", Pointing, pointer.point, on, regions)
        return
    assert spec.planner is not None, "an adapter without a pointer has one"
    assert spec.module is not None, "an adapter without a pointer has one"
    planner = result_of("adapter", name, "planner", Planner, spec.planner, config)
    mask, geometry = Region.from_box((10, 10, 40, 50)).to_mask((90, 60)), PatchGeometry(patch_size=14, grid_multiple=2)
    result_of("adapter", name, "plan", RegionPlan, planner.plan, mask, geometry)
    if inspect.isabstract(spec.module):
        missing = ", ".join(sorted(spec.module.__abstractmethods__))
        raise PluginError(f"{spec.module.__name__} of adapter '{name}' does not implement {missing}")
    if spec.tiny:
        _try_build(spec, small)


def _try_build(spec: AdapterSpec, config: Any) -> None:
    """Build its module at a small size. That a module does not take these widths is no fault."""
    shapes = Shapes(crop=_WIDTH, scene=_WIDTH, decoder=_WIDTH, projector=((_WIDTH, _WIDTH), (_WIDTH, _WIDTH)))
    try:
        with torch.random.fork_rng(), in_plugin("adapter", spec.name, "build"):
            spec.build(config, shapes)
    except PixelReferError as error:
        if isinstance(error, PluginCodeError):
            raise


def _try_backbone(name: str) -> None:
    spec: BackboneSpec = get_backbone(name)
    result_of("backbone", name, "tiny", tuple, spec.tiny, 0)
    modules_are_where_the_spec_says(spec)


def _try_region_source(name: str) -> None:
    spec: RegionSourceSpec = get_region_source(name)
    with in_plugin("region source", name, "config"):
        spec.make_config(None)


def _try_data_format(name: str) -> None:
    spec: DataFormatSpec = get_data_format(name)
    with in_plugin("data format", name, "config"):
        spec.make_config(None)
    with in_plugin("data format", name, "recognises"):
        bool(spec.recognises({}))
    if spec.tiny is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        with in_plugin("data format", name, "tiny"):
            path = Path(spec.tiny(Path(folder)))
        samples = RegionDataset.open(path, format=name)
        if not len(samples):
            raise PluginError(f"Data format '{name}': the file of its own tiny has no samples")
        samples[0]


def _try_benchmark(name: str) -> None:
    spec: BenchmarkSpec = get_benchmark(name)
    with in_plugin("benchmark", name, "config"):
        config = spec.make_config(None)
    if spec.prompts is not None:
        with in_plugin("benchmark", name, "prompts"):
            list(spec.prompts(config))
    if spec.tiny is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        with in_plugin("benchmark", name, "tiny"):
            spec.tiny(Path(folder))
        with in_plugin("benchmark", name, "open"):
            questions = spec.open(config, Path(folder))
            if not len(questions):
                raise PluginError(f"Benchmark '{name}': the files of its own tiny have no questions")
            questions[0]


_TRIALS: Mapping[Kind, Callable[[str], None]] = {
    "adapter": _try_adapter,
    "backbone": _try_backbone,
    "region source": _try_region_source,
    "data format": _try_data_format,
    "benchmark": _try_benchmark,
}
