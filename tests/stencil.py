"""An adapter as a stranger might write it who wants masks: as little as the contract asks for, and no SAM 2.

A region's token is the mean of its crop. A mask is a stencil that the hidden state cuts, laid over the picture's grey.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from pixelrefer_plugin.authoring import (
    AdapterModule,
    AdapterSpec,
    CropView,
    Masks,
    MaskTargets,
    Planner,
    PredictedMasks,
    RegionPlan,
    hookimpl,
)

PLUGIN_API = 1

TOKEN = "<seg>"


@dataclass(frozen=True)
class StencilConfig:
    picture_px: int = 16
    max_objects: int = 4


class StencilPlanner(Planner[StencilConfig]):
    def plan(self, mask, geometry):
        x0, y0, x1, y1 = mask.box_xyxy
        grid_hw = tuple(geometry.whole_patches(side) for side in (y1 - y0, x1 - x0))
        return RegionPlan(num_tokens=1, views=(CropView(box_xyxy=mask.box_xyxy, grid_hw=grid_hw),))


class Stencil(AdapterModule):
    """Counts what it is asked: `pictures` is how many it has looked at, `objects` for how many masks."""

    def __init__(self, config, *, vision_width, decoder_width):
        super().__init__()
        self.side = config.picture_px
        self.region = nn.Linear(vision_width, decoder_width)
        self.eye = nn.Linear(3, 1)
        self.cut = nn.Linear(decoder_width, self.side**2)
        self.judge = nn.Linear(decoder_width, 2)
        self.pictures, self.objects = 0, 0
        self.started_from = None

    @classmethod
    def build(cls, config, shapes):
        return cls(config, vision_width=shapes.crop, decoder_width=shapes.decoder)

    def start_from(self, projector_layers):
        self.started_from = projector_layers

    def forward(self, views, counts):
        (crops,) = views
        means = torch.stack([crops.grids[grid].flatten(0, 1).mean(dim=0) for grid in crops.grid_of_region])
        return self.region(means.to(self.region.weight.dtype))

    def predict_masks(self, hidden, clips, clip_of_object):
        grey = self.eye(clips.pixels.permute(0, 2, 3, 1).to(self.eye.weight.dtype) / 255)[..., 0]
        self.pictures += len(grey)
        self.objects += len(hidden)
        hidden = nn.functional.normalize(hidden.to(self.cut.weight.dtype), dim=-1)
        of_clip = grey.split(clips.lengths)
        lengths = torch.tensor([clips.lengths[clip] for clip in clip_of_object])
        stencils = self.cut(hidden).view(-1, self.side, self.side)
        logits = [stencil + of_clip[clip] for stencil, clip in zip(stencils, clip_of_object, strict=True)]
        iou, presence = self.judge(hidden).repeat_interleave(lengths, dim=0).unbind(dim=1)
        return PredictedMasks(torch.cat(logits), iou.sigmoid(), presence)

    def mask_losses(self, hidden, clips, clip_of_object, targets):
        predicted = self.predict_masks(hidden, clips, clip_of_object)
        lengths = [clips.lengths[clip] for clip in clip_of_object]
        there = (targets.row_of_pair >= 0).to(predicted.presence.dtype)
        known = targets.row_of_pair != MaskTargets.UNKNOWN
        empty = targets.masks.new_zeros(2, *targets.masks.shape[1:])  # the rows -1, ABSENT, and -2, UNKNOWN
        masks = torch.cat([targets.masks, empty])[targets.row_of_pair].to(predicted.logits.dtype)
        masks = interpolate(masks[:, None], (self.side, self.side))[:, 0]
        shape = binary_cross_entropy_with_logits(predicted.logits, masks, reduction="none").mean(dim=(1, 2)) * there
        presence = binary_cross_entropy_with_logits(predicted.presence, there, reduction="none") * known
        return {
            name: torch.stack([each.mean() for each in loss.split(lengths)])
            for name, loss in (("shape", shape), ("presence", presence))
        }


SPEC = AdapterSpec(
    name="stencil",
    config=StencilConfig,
    planner=StencilPlanner,
    module=Stencil,
    masks=Masks(
        token=TOKEN,
        picture_px=lambda config: config.picture_px,
        max_objects=lambda config: config.max_objects,
    ),
)


@hookimpl
def register_adapters(register):
    register(SPEC)


def install(monkeypatch):
    """Installed, for the length of a test."""
    from conftest import install_plugin

    install_plugin(monkeypatch, "stencil", __name__)
