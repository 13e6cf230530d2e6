"""A tiny model of one (adapter, backbone) pair, and the inputs that checks ask it about."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import TextStreamer

from ..contracts.adapter import AdapterSpec
from ..contracts.backbone import Coordinates
from ..contracts.messages import MASK_MARKER
from ..contracts.pointing import PlacedRegion, PointedMedium, PointedRegion, SaidCoordinates
from ..contracts.views import PatchGeometry
from ..entry import attach
from ..media.video import load_video
from ..model import RegionModel
from ..plugins import get_adapter, get_backbone
from ..processor import RegionProcessor
from ..regions.region import Region, VideoRegion

NEW_TOKENS = 6


_VIDEO_BOXES = {0: Region.from_box((8, 8, 30, 40)), 4: Region.from_box((40, 10, 62, 40))}


_TRIANGLE = Region.from_polygon([8, 10, 50, 12, 20, 60])


@dataclass(frozen=True, eq=False)
class Pair:
    """A tiny model of one (adapter, backbone) pair, and what is needed to ask it things.

    Attributes:
        model: the adapter attached to the backbone's tiny model, in eval mode.
        processor: its processor.
        native: the backbone's own processor, untouched.
        conversations: a batch of mixed kinds: two regions on one image, text only, an image without regions,
            regions on two images and, where the backbone takes videos beside pictures, two objects in different spans
            of one. For an adapter that reads clicks and boxes as they are drawn also a mask and a click on one image.
        regions: the regions of each.
    """

    model: RegionModel
    processor: RegionProcessor
    native: Any
    conversations: list[list[dict[str, Any]]]
    regions: list[list[Any]]

    def inputs(self, index: int | None = None, **options: Any) -> Any:
        """Model inputs of one of the conversations, or of all as a batch."""
        if index is None:
            return self.processor(self.conversations, self.regions, **options)
        return self.processor(self.conversations[index], self.regions[index], **options)

    def answer(self, inputs: Any, **options: Any) -> Tensor:
        """The ids generated for `inputs`, without the prompt; greedy unless `options` say otherwise."""
        # A random model says anything, also that here is a picture; without a cache it then looks for one.
        options = {"do_sample": False, "suppress_tokens": self.media_ids, **options}
        options = {"max_new_tokens": NEW_TOKENS, "min_new_tokens": NEW_TOKENS, **options}
        generated: Tensor = self.model.generate(**inputs, **options)
        return generated[:, inputs["input_ids"].shape[1] :]

    @property
    def media_ids(self) -> list[int]:
        """Ids of the backbone's tokens for pictures and videos: in its prompts, and in what its processor makes of
        them, where these are others. What stands for a video in prompts need not be a token."""
        tokens = (getattr(self.native, name, None) for name in ("image_token", "video_token"))
        in_prompts = {self.processor.tokenizer.convert_tokens_to_ids(token) for token in tokens if token}
        expanded = (getattr(self.model.backbone.config, name, None) for name in ("image_token_id", "video_token_id"))
        return sorted(each for each in in_prompts | set(expanded) if each is not None)


def make_pair(adapter: str, backbone: str, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Pair:
    """Attach `adapter` to the tiny model of `backbone`."""
    bare, native = get_backbone(backbone).tiny(seed)
    spec = get_adapter(adapter)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model, processor = attach(
            bare.to(dtype), native, adapter=adapter, adapter_config=spec.tiny, backbone_plugin=backbone
        )
    wide, tall = noise_picture((70, 120), seed=1), noise_picture((110, 60), seed=2)
    conversations = [
        [user_message(wide, "what is <region>, and what is <region>?")],
        [user_message("just text")],
        [user_message(tall, "describe the picture")],
        [user_message(wide, tall, "compare <region> to <region>")],
    ]
    regions: list[list[Any]] = [
        [Region.from_box((8, 8, 60, 50)), Region.from_points([(100, 40)], radius_px=6)],
        [],
        [],
        [Region.from_box((30, 20, 34, 23)), Region.from_box((5, 5, 55, 100), image_index=1)],
    ]
    if processor.mixes_media and asks_about_videos(adapter, backbone, native):
        conversations.append([user_message(video_part(), "what does <region> do, and <region>?")])
        regions.append([VideoRegion(_VIDEO_BOXES), VideoRegion({3: Region.from_points([(50, 30)])})])
    if spec.drawn:
        conversations.append([user_message(tall, "is <region> part of <region>?")])
        regions.append([Region.from_points([(20, 30)]), _TRIANGLE])
    return Pair(model.eval(), processor, native, conversations, regions)


def asks_about_videos(adapter: str, backbone: str, native: Any) -> bool:
    """Whether regions of videos can be asked about."""
    return takes_videos(native) and (
        get_backbone(backbone).videos is not None or not _reads_scene(get_adapter(adapter))
    )


def takes_videos(native: Any) -> bool:
    return getattr(native, "video_processor", None) is not None


def _reads_scene(spec: AdapterSpec) -> bool:
    """Whether an adapter's plans ask for features of the backbone's own pass."""
    planner = spec.make_planner(spec.make_config(None))
    if planner is None:
        return False
    plan = planner.plan(awkward_masks()[0], PatchGeometry(patch_size=14, grid_multiple=2))
    return any(view is not None and view.reads_scene for view in plan.views)


class Recorder(TextStreamer):
    """Keeps the ids that are streamed."""

    def __init__(self, tokenizer: Any, **options: Any) -> None:
        super().__init__(tokenizer, **options)
        self.ids: list[int] = []

    def put(self, value: Tensor) -> None:
        if self.next_tokens_are_prompt:
            self.next_tokens_are_prompt = False
            return
        self.ids += value.flatten().tolist()

    def end(self) -> None:
        """Nothing to print."""


def user_message(*parts: Any) -> dict[str, Any]:
    """A user's message of texts, pictures, and parts that are written out."""
    content = []
    for part in parts:
        if isinstance(part, dict):
            content.append(part)
        else:
            kind = "text" if isinstance(part, str) else "image"
            content.append({"type": kind, kind: part})
    return {"role": "user", "content": content}


def video_part() -> dict[str, Any]:
    """Five frames, an odd number for towers that join two, of moving blots."""
    blots = np.asarray(blots_of((70, 130), seed=3))
    frames = np.stack([blots[:, 10 * index : 10 * index + 70] for index in range(5)])
    return {"type": "video", "video": frames, "fps": 2.0}


def with_answers(pair: Pair) -> Any:
    """Something to learn of each conversation; where the adapter gives masks, a mask wherever there are regions."""
    gives_masks = pair.model.adapter_spec.masks is not None
    conversations, regions = [], []
    for conversation, own in zip(pair.conversations, pair.regions, strict=True):
        on_video = bool(own) and isinstance(own[0], VideoRegion)
        targets = [VideoRegion(_VIDEO_BOXES) if on_video else _TRIANGLE] if own and gives_masks else []
        text = f"a digit {MASK_MARKER}" if targets else "a digit"
        conversations.append([*conversation, {"role": "assistant", "content": [{"type": "text", "text": text}]}])
        regions.append([*own, *targets])
    return pair.processor(conversations, regions, labels=True)


def noise_picture(hw: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)


def blots_of(hw: tuple[int, int], *, seed: int) -> Image.Image:
    """Coloured blots: a picture that differs everywhere and survives resizing."""
    coarse = Image.fromarray(noise_picture((6, 6), seed=seed))
    return coarse.resize((hw[1], hw[0]), Image.Resampling.BICUBIC)


def as_image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture)


def drawn_regions() -> list[Region]:
    """A region of each kind that is not made of pixels."""
    return [
        Region.from_points([(3.5, 4)]),
        Region.from_points([(3, 4), (50, 80)], radius_px=1),
        Region.from_box((3, 4, 50.5, 80)),
        _TRIANGLE,
        Region.from_scribble([(3, 4), (50, 80)]),
    ]


def awkward_masks() -> list[Any]:
    """One pixel, a whole image, an image smaller than a patch, a line, two far corners, a hole."""
    shapes = []
    for hw in ((90, 130), (5, 6), (40, 300)):
        one, whole, line, corners = (np.zeros(hw, dtype=bool) for _ in range(4))
        one[hw[0] - 1, 0] = whole[:] = line[hw[0] // 2] = corners[0, 0] = corners[-1, -1] = True
        shapes += [one, whole, line, corners]
    ring = np.ones((90, 130), dtype=bool)
    ring[20:70, 30:100] = False
    return [Region.from_mask(mask).to_mask((mask.shape[0], mask.shape[1])) for mask in [*shapes, ring]]


def pointed_media() -> list[tuple[PointedMedium, list[PointedRegion]]]:
    """Images with regions of every kind, and a video with regions on some of its frames and on all; with a convention
    for coordinates and without."""
    said = Coordinates(
        unit="thousandths", box="[{x0}, {y0}, {x1}, {y1}]", point="({x}, {y})", frame="{time_s:.1f} s: ", source="kit"
    )
    media: list[tuple[PointedMedium, list[PointedRegion]]] = []
    hw = (90, 130)
    shapes = [*drawn_regions(), *(Region.from_mask(each.dense()) for each in awkward_masks() if each.image_hw == hw)]
    regions = [PointedRegion(number, (_placed(each, hw),)) for number, each in enumerate(shapes, 1)]
    video = load_video(video_part()["video"], fps=2.0)
    boxes = [_VIDEO_BOXES, dict.fromkeys(range(len(video)), Region.from_box((8, 8, 30, 40)))]
    on_video = [
        PointedRegion(number, tuple(_placed(each, video.image_hw, at, video.times_s[at]) for at, each in own.items()))
        for number, own in enumerate(boxes, 1)
    ]
    for convention in (said, None):
        for shown, own in ((blots_of(hw, seed=4), regions), (video, on_video)):
            size = video.image_hw if shown is video else hw
            told = None if convention is None else SaidCoordinates(convention, size, size)
            medium = PointedMedium(media=shown, number=1, has_others=False, coordinates=told)
            media += [(medium, own), (medium, own[:1])]
    return media


def _placed(region: Region, image_hw: tuple[int, int], position: int = 0, time_s: float | None = None) -> PlacedRegion:
    return PlacedRegion(region, region.to_mask(image_hw), position, time_s)


def portrait_of(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that detach must restore: types, attributes, hooks, values, flags."""
    portrait: dict[str, Any] = {}
    for name, module in model.named_modules():
        portrait[f"{name} type"] = type(module)
        portrait[f"{name} attributes"] = sorted(vars(module))
        portrait[f"{name} mode"] = module.training
        hooks = [key for key in vars(module) if key.endswith("_hooks")]
        portrait[f"{name} hooks"] = {key: len(vars(module)[key]) for key in hooks}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        portrait[f"{name} flag"] = tensor.requires_grad
        portrait[f"{name} gradient"] = tensor.grad is None
        portrait[f"{name} value"] = copy.deepcopy(tensor.detach().numpy().tobytes())
    return portrait
