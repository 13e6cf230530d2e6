"""A plugin of every kind whose code does what a test says: each of its functions asks `FAULTS` first, by its step."""

import dataclasses
import json
from dataclasses import dataclass

from pixelrefer_videollama3.backbone import SPEC as BACKBONE
from stencil import Stencil, StencilConfig

from pixelrefer_plugin import Region
from pixelrefer_plugin.authoring import (
    AdapterSpec,
    BackboneSpec,
    Cells,
    Crops,
    CropView,
    DataFormatSpec,
    Masks,
    Planner,
    RegionPlan,
    RegionSample,
    RegionSourceSpec,
    Scene,
    SceneView,
    VideoRegion,
    hookimpl,
)

PLUGIN_API = 1

FAULTS = {}
"""What to do in a step, in place of what is right: `{step: function}`."""


def of_step(step, sound):
    """A function that does what is right, unless there is a fault for its step."""

    def call(*args, **options):
        return FAULTS[step]() if step in FAULTS else sound(*args, **options)

    return call


@dataclass(frozen=True)
class Config(StencilConfig):
    def __post_init__(self):
        of_step("config", bool)()


class View(CropView):
    @classmethod
    def lay_out(cls, batch, numbers, views):
        return of_step("lay_out", batch.on_crops)(numbers, views)


class FaultyPlanner(Planner):
    def plan(self, mask, geometry):
        return of_step("plan", self._plan)(mask.box_xyxy)

    def plan_drawn(self, region):
        x0, y0, x1, y1 = region.data
        return of_step("plan_drawn", self._plan)((int(x0), int(y0), int(x1), int(y1)))

    def _plan(self, box_xyxy):
        return RegionPlan(1, (View(box_xyxy=box_xyxy, grid_hw=(2, 2)),))

    def together(self, plans):
        return of_step("together", list)(plans)

    def list_heading(self, *, num_frames):
        return of_step("list_heading", super().list_heading)(num_frames=num_frames)

    def frame_label(self, time_s):
        return of_step("frame_label", super().frame_label)(time_s)


class ScenePlanner(FaultyPlanner):
    def _plan(self, box_xyxy):
        return RegionPlan(1, (View(box_xyxy=box_xyxy, grid_hw=(2, 2)), SceneView()))


class FaultyModule(Stencil):
    @classmethod
    def build(cls, config, shapes):
        return of_step("build", super().build)(config, shapes)

    def start_from(self, projector_layers):
        of_step("start_from", super().start_from)(projector_layers)

    def set_attn_implementation(self, name):
        of_step("set_attn_implementation", super().set_attn_implementation)(name)

    def forward(self, views, counts):
        return of_step("forward", super().forward)(views[:1], counts)

    def predict_masks(self, *args):
        return of_step("predict_masks", super().predict_masks)(*args)

    def mask_losses(self, *args):
        return of_step("mask_losses", self._mask_losses)(*args)

    def _mask_losses(self, hidden, clips, clip_of_object, targets):
        zero = 0 * super().predict_masks(hidden, clips, clip_of_object).presence.sum()
        return {"shape": hidden.new_zeros(len(hidden)) + zero}


def adapter(name, planner, **fields):
    return AdapterSpec(name=name, config=Config, planner=of_step("planner", planner), module=FaultyModule, **fields)


MASKS = Masks(
    token="<seg>",
    picture_px=of_step("masks.picture_px", lambda config: config.picture_px),
    max_objects=of_step("masks.max_objects", lambda config: config.max_objects),
)
ADAPTERS = (
    adapter("faulty", ScenePlanner, scene="cells", drawn=("box",), masks=MASKS),
    adapter("faulty-projected", ScenePlanner, scene="projected"),
    adapter("faulty-alone", FaultyPlanner, framework="object-only"),
)


def scene(field, sound, **fields):
    """A scene whose functions are those of another."""
    sound = {
        "grids_hw": sound.grids_hw,
        "grids": sound.grids,
        "boxes_xyxy": lambda call, sizes_hw: [(0, 0, width, height) for height, width in sizes_hw],
        "projected": sound.projected,
        **fields,
    }
    return Scene(**{name: of_step(f"{field}.{name}", each) for name, each in sound.items()})


def faulty_backbone():
    fields = {each.name: getattr(BACKBONE, each.name) for each in dataclasses.fields(BACKBONE)}
    crops = {name: getattr(BACKBONE.crops, name) for name in ("geometry", "width", "encode")}
    videos = BACKBONE.videos
    changed = {
        "name": "faulty",
        "model_types": ("faulty_vl",),
        "crops": Crops(**{name: of_step(f"crops.{name}", each) for name, each in crops.items()}),
        "images": scene("images", BACKBONE.images),
        "videos": scene("videos", videos, frames_per_grid=videos.frames_per_grid, resize_frames=videos.resize_frames),
        "cells": Cells(side=of_step("cells.side", lambda config: 1)),
        "tiny": of_step("tiny", BACKBONE.tiny),
        "layouts": {},
    }
    return BackboneSpec(**fields | changed)


class Source:
    def segment(self, image, prompts):
        return of_step("segment", list)([Region.from_mask(each.to_mask(image.size[::-1]).dense()) for each in prompts])

    def track(self, video, prompts):
        return of_step("track", list)([VideoRegion(dict(each.frames)) for each in prompts])


def read_record(config, record, place):
    return of_step("read_record", read)(record, place)


def read(record, place):
    turns = ({"role": "user", "content": f"{record['faulty']}?"}, {"role": "assistant", "content": "Yes."})
    return RegionSample(id=str(place.index), messages=turns, where=place.where)


class Reader:
    def __init__(self, config, path, media_root):
        self.records = json.loads(path.read_text())["whole"]

    def __len__(self):
        return of_step("__len__", len)(self.records)

    def __getitem__(self, index):
        turns = ({"role": "user", "content": "Yes?"}, {"role": "assistant", "content": self.records[index]})
        return of_step("__getitem__", RegionSample)(id=str(index), messages=turns, where=f"record {index}")


@hookimpl
def register_adapters(register):
    for spec in ADAPTERS:
        register(spec)


@hookimpl
def register_backbones(register):
    register(faulty_backbone())


@hookimpl
def register_region_sources(register):
    register(RegionSourceSpec(name="faulty", config=Config, build=of_step("build", lambda config: Source())))


@hookimpl
def register_data_formats(register):
    recognises = of_step("recognises", lambda record: "faulty" in record)
    register(DataFormatSpec(name="faulty", config=Config, recognises=recognises, read_record=read_record))
    whole = of_step("open_file", Reader)
    register(DataFormatSpec(name="faulty-whole", config=Config, recognises=lambda record: False, open_file=whole))
