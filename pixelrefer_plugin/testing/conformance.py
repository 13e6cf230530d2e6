"""The checks of the conformance kit. Each is a function that raises `AssertionError` and says what is wrong.

They run on the backbone's own `tiny` model: the real classes with random weights, on a CPU, offline.
"""

from __future__ import annotations

import copy
import dataclasses
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import TextStreamer

from ..contracts.adapter import (
    AdapterSpec,
    BackboneSpec,
    Clips,
    CropView,
    EncodedView,
    FeatureGrids,
    MaskTargets,
    PatchGeometry,
    PredictedMasks,
    RegionPlan,
    SceneView,
    VideoScene,
    View,
)
from ..contracts.messages import MASK_MARKER
from ..errors import PixelReferError, SpliceError
from ..masks.objects import GeneratedMasks, SegmentedObject
from ..model import RegionModel
from ..plugins import get_adapter, get_backbone
from ..processor import RegionProcessor
from ..regions.region import FloatBox, Region, RegionMask, VideoRegion
from ..tokens.scene import merged_cells

DEFAULT_ADAPTER = "maskpool"
DEFAULT_BACKBONE = "videollama3"

_NEW_TOKENS = 6
# That the tower is given for one crop. With a preset as many as image processors let one picture have: weights may have
# been trained so.
_MOST_PATCHES, _MOST_PATCHES_OF_PRESETS = 4096, 8192
_SEQUENCES = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")  # as long as the text
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
            regions on two images and, where the backbone takes videos, two objects in different spans of one. For an
            adapter that reads clicks and boxes as they are drawn also a mask and a click on one image.
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
        options = {"max_new_tokens": _NEW_TOKENS, "min_new_tokens": _NEW_TOKENS, **options}
        generated: Tensor = self.model.generate(**inputs, **options)
        return generated[:, inputs["input_ids"].shape[1] :]

    @property
    def media_ids(self) -> list[int]:
        """Ids of the backbone's tokens for pictures and videos: in its prompts, and in what its processor makes of
        them, where these are others."""
        tokens = (getattr(self.native, name, None) for name in ("image_token", "video_token"))
        in_prompts = {self.processor.tokenizer.convert_tokens_to_ids(token) for token in tokens if token}
        expanded = (getattr(self.model.backbone.config, name, None) for name in ("image_token_id", "video_token_id"))
        return sorted(in_prompts | {each for each in expanded if each is not None})


def make_pair(adapter: str, backbone: str, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Pair:
    """Attach `adapter` to the tiny model of `backbone`."""
    bare, native = get_backbone(backbone).tiny(seed)
    spec = get_adapter(adapter)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = RegionModel.attach(bare.to(dtype), adapter=adapter, adapter_config=spec.tiny).eval()
    wide, tall = _picture((70, 120), seed=1), _picture((110, 60), seed=2)
    conversations = [
        [_user(wide, "what is <region>, and what is <region>?")],
        [_user("just text")],
        [_user(tall, "describe the picture")],
        [_user(wide, tall, "compare <region> to <region>")],
    ]
    regions: list[list[Any]] = [
        [Region.from_box((8, 8, 60, 50)), Region.from_points([(100, 40)], radius_px=6)],
        [],
        [],
        [Region.from_box((30, 20, 34, 23)), Region.from_box((5, 5, 55, 100), image_index=1)],
    ]
    if _takes_videos(native) and (get_backbone(backbone).video_scene or not _reads_scene(spec)):
        conversations.append([_user(_video(), "what does <region> do, and <region>?")])
        regions.append([VideoRegion(_VIDEO_BOXES), VideoRegion({3: Region.from_points([(50, 30)])})])
    if spec.plan_drawn is not None:
        conversations.append([_user(tall, "is <region> part of <region>?")])
        regions.append([Region.from_points([(20, 30)]), _TRIANGLE])
    return Pair(model, model.make_processor(native), native, conversations, regions)


def _takes_videos(native: Any) -> bool:
    return getattr(native, "video_processor", None) is not None


def _reads_scene(spec: AdapterSpec) -> bool:
    """Whether an adapter's plans ask for features of the backbone's own pass."""
    plan = spec.plan(spec.make_config(None), _awkward_masks()[0], PatchGeometry(patch_size=14, grid_multiple=2))
    return any(isinstance(view, SceneView) for view in plan.views)


def check_backbone(name: str, *, adapter: str = DEFAULT_ADAPTER) -> list[str]:
    """Run every check of a backbone, alone and together with an adapter.

    Args:
        name: the backbone plugin, installed.
        adapter: the adapter to pair it with.

    Returns:
        The names of the checks, all passed.

    Raises:
        AssertionError: the first check that fails, and what is wrong.
    """
    spec = get_backbone(name)
    passed = [_run(check, spec) for check in BACKBONE_CHECKS]
    return passed + [_run(check, adapter, name) for check in PAIR_CHECKS]


def check_adapter(name: str, *, backbone: str = DEFAULT_BACKBONE) -> list[str]:
    """Run every check of an adapter, alone and together with a backbone.

    Args:
        name: the adapter plugin, installed.
        backbone: the backbone to pair it with.

    Returns:
        The names of the checks, all passed.

    Raises:
        AssertionError: the first check that fails, and what is wrong.
    """
    spec = get_adapter(name)
    passed = [_run(check, spec) for check in ADAPTER_CHECKS]
    return passed + [_run(check, name, backbone) for check in PAIR_CHECKS]


def _run(check: Callable[..., None], *subject: Any) -> str:
    """Run one check; whatever it raises is reported with the check's name and what it demands."""
    try:
        check(*subject)
    except Exception as error:
        detail = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        demand = " ".join((check.__doc__ or "").split())
        raise AssertionError(f"{check.__name__}: {detail}\nThe check demands: {demand}") from error
    return check.__name__


# --- an adapter alone ---------------------------------------------------------------------------------------


def config_is_frozen_and_strict(spec: AdapterSpec) -> None:
    """The config is a frozen dataclass with defaults, and unknown options are refused by name."""
    assert dataclasses.is_dataclass(spec.config), f"{spec.name}: config must be a dataclass"
    assert spec.config.__dataclass_params__.frozen, f"{spec.name}: config must be frozen"  # type: ignore[attr-defined]
    spec.make_config(None)
    try:
        spec.make_config({"no_such_option": 1})
    except PixelReferError as error:
        if "no_such_option" in str(error):
            return
        raise AssertionError(f"{spec.name}: the refusal of an unknown option does not name it: {error}") from error
    raise AssertionError(f"{spec.name}: an unknown option was accepted")


def presets_are_options(spec: AdapterSpec) -> None:
    """Every preset makes a config, also beside options of the user's, which then count."""
    for name, options in spec.presets.items():
        config = spec.make_config(name)
        assert config == spec.make_config({"preset": name}), f"{spec.name}: preset '{name}' makes two configs"
        usual = spec.make_config(None)
        for option in options:
            overridden = spec.make_config({**options, option: getattr(usual, option)})
            same = overridden == spec.make_config({"preset": name, option: getattr(usual, option)})
            assert same, f"{spec.name}: {option} beside preset '{name}' is not what counts"


def plan_is_pure_and_bounded(spec: AdapterSpec) -> None:
    """Planning twice gives the same, by default and with each preset; every mask gets a token or more and the same
    kinds of view, by default also a patch; crops keep to the grid, and the tower is given 4096 patches at most for
    one, with a preset 8192."""
    for preset in (None, *spec.presets):
        usual, most_patches = None, _MOST_PATCHES if preset is None else _MOST_PATCHES_OF_PRESETS
        for multiple in (1, 2):
            geometry = PatchGeometry(patch_size=14, grid_multiple=multiple)
            for mask in _awkward_masks():
                first, second = (spec.plan(spec.make_config(preset), mask, geometry) for _ in range(2))
                _check_same_plan(spec.name, first, second, "planned twice")
                usual = usual or first.view_kinds
                _check_plan(spec, first, mask=mask, usual=usual, multiple=multiple, most_patches=most_patches)
                masks = [view.mask for view in first.views if isinstance(view, CropView) and view.mask is not None]
                seen = preset is not None or all(each.any() for each in masks)
                assert seen, f"{spec.name}: a crop's mask has no patch inside the region, it is all zero"


def _check_plan(
    spec: AdapterSpec,
    plan: RegionPlan,
    *,
    mask: RegionMask,
    usual: tuple[str, ...],
    multiple: int,
    most_patches: int,
) -> None:
    kinds = plan.view_kinds
    hidden = spec.framework == "object-only" and "SceneView" in kinds
    assert not hidden, f"{spec.name}: Object-Only, yet it asks for the scene, which is not run"
    assert kinds == usual, f"{spec.name}: views {kinds} for one mask, {usual} for another"
    for view in plan.views:
        if isinstance(view, CropView):
            _check_crop(spec.name, view, mask=mask, multiple=multiple, most_patches=most_patches)


def _check_same_plan(name: str, one: RegionPlan, other: RegionPlan, how: str) -> None:
    assert one.num_tokens == other.num_tokens, f"{name}: {how}, {one.num_tokens} tokens and {other.num_tokens}"
    for view, again in zip(one.views, other.views, strict=True):
        if isinstance(view, CropView) and isinstance(again, CropView):
            crops = [(each.box_xyxy, each.grid_hw, each.tower_hw, each.resample) for each in (view, again)]
            assert crops[0] == crops[1], f"{name}: {how}, the crops {crops[0]} and {crops[1]}"
            same = (view.mask is again.mask is None) or np.array_equal(np.asarray(view.mask), np.asarray(again.mask))
            assert same, f"{name}: {how}, two masks"


def _check_crop(name: str, crop: CropView, *, mask: RegionMask, multiple: int, most_patches: int) -> None:
    (x0, y0, x1, y1), (h, w), (height, width) = crop.box_xyxy, crop.tower_hw, mask.image_hw
    inside = 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height
    assert inside, f"{name}: the crop {crop.box_xyxy} is not inside its image of {width}x{height} pixels"
    assert (h % multiple, w % multiple) == (0, 0), (
        f"{name}: a crop of {h}x{w} patches where the grid must be multiples of {multiple}; "
        "size it with geometry.whole_patches()"
    )
    assert h * w <= most_patches, f"{name}: a crop of {h}x{w} patches"


def drawn_regions_are_planned_purely(spec: AdapterSpec) -> None:
    """Where there is `plan_drawn`: a click or a box gets a plan, planning a region twice gives the same, and its views
    are of the kinds that `plan` asks for, by default and with each preset."""
    if spec.plan_drawn is None:
        return
    geometry, mask = PatchGeometry(patch_size=14), _awkward_masks()[0]
    for preset in (None, *spec.presets):
        config = spec.make_config(preset)
        usual = spec.plan(config, mask, geometry).view_kinds
        plans = []
        for region in _drawn_regions():
            first, second = (spec.plan_drawn(config, region) for _ in range(2))
            if first is None or second is None:
                assert first is second, f"{spec.name}: a region of kind '{region.kind}' is drawn once and once not"
                continue
            _check_same_plan(spec.name, first, second, f"a region of kind '{region.kind}' planned twice")
            kinds = first.view_kinds
            assert kinds == usual, f"{spec.name}: views {kinds} for a drawn '{region.kind}', {usual} for a mask"
            plans.append(first)
        assert plans, f"{spec.name}: plan_drawn gives None for clicks and boxes alike; leave it out"


def plans_together_are_as_many(spec: AdapterSpec) -> None:
    """`plan_together` gives back a plan for each it is given, the same ones each time, for one region as for several,
    by default and with each preset."""
    if spec.plan_together is None:
        return
    geometry = PatchGeometry(patch_size=14, grid_multiple=2)
    masks = [mask for mask in _awkward_masks() if mask.image_hw == (90, 130)]
    for preset in (None, *spec.presets):
        config = spec.make_config(preset)
        alone = [spec.plan(config, mask, geometry) for mask in masks]
        for plans in (alone[:1], alone, alone[::-1]):
            first, second = (list(spec.plan_together(config, plans)) for _ in range(2))
            assert len(first) == len(plans), f"{spec.name}: {len(first)} plans for {len(plans)} regions"
            for one, other, given in zip(first, second, plans, strict=True):
                _check_same_plan(spec.name, one, other, "planned together twice")
                same = one.view_kinds == given.view_kinds
                assert same, f"{spec.name}: views {one.view_kinds} planned together, {given.view_kinds} alone"


# --- a backbone alone ---------------------------------------------------------------------------------------


def modules_are_where_the_spec_says(spec: BackboneSpec) -> None:
    """The model is of the spec's class, every dotted path exists, and every LoRA scope matches linear layers."""
    model, _ = spec.tiny(0)
    assert type(model) is spec.model_class, (
        f"{spec.name}: tiny() is a {type(model).__name__}, model_class is {spec.model_class.__name__}, as which "
        "checkpoints are loaded"
    )
    for part in ("vision_tower", "projector", "decoder", "token_embedding"):
        path = getattr(spec, part)
        try:
            model.get_submodule(path)
        except AttributeError as error:
            raise AssertionError(f"{spec.name}: no {part} at '{path}': {error}") from error
    embedding = model.get_submodule(spec.token_embedding)
    assert isinstance(embedding, nn.Embedding), (
        f"{spec.name}: token_embedding '{spec.token_embedding}' is a {type(embedding).__name__}, not an nn.Embedding"
    )
    assert embedding is model.get_input_embeddings(), (
        f"{spec.name}: token_embedding '{spec.token_embedding}' is not what the model's get_input_embeddings() gives"
    )
    assert "decoder" in spec.lora_targets, f"{spec.name}: lora_targets must have the scope 'decoder'"
    for scope, pattern in spec.lora_targets.items():
        matched = _matched(model, pattern)
        assert matched, f"{spec.name}: LoRA scope '{scope}' matches nothing"
        for name, module in matched.items():
            assert isinstance(module, nn.Linear), f"{spec.name}: scope '{scope}' matches {name}, not a linear layer"


def _matched(model: nn.Module, pattern: str) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if re.fullmatch(pattern, name)}


def lora_scopes_are_parts_of_the_model(spec: BackboneSpec) -> None:
    """The LoRA scopes `decoder` and `vision_tower` match layers of that part alone, the others none of the decoder, and
    no layer is in two scopes."""
    model, _ = spec.tiny(0)
    scope_of: dict[str, str] = {}
    for scope, pattern in spec.lora_targets.items():
        own = scope in ("decoder", "vision_tower")
        part = getattr(spec, scope) if own else spec.decoder
        for name in _matched(model, pattern):
            inside = name.startswith(f"{part}.")
            assert inside == own, (
                f"{spec.name}: LoRA scope '{scope}' matches {name}, which is {'in' if inside else 'not in'} '{part}'"
            )
            other = scope_of.setdefault(name, scope)
            assert other == scope, f"{spec.name}: the LoRA scopes '{other}' and '{scope}' both match {name}"


def tiny_is_deterministic(spec: BackboneSpec) -> None:
    """One seed, one model, in eval mode; the global random state is left alone; the type is one that the spec
    serves."""
    state = torch.get_rng_state()
    (one, _), (same, _), (other, _) = spec.tiny(0), spec.tiny(0), spec.tiny(1)
    assert torch.equal(state, torch.get_rng_state()), f"{spec.name}: tiny() moves torch's global random state"
    model_type = one.config.model_type
    served = spec.model_types
    assert model_type in served, f"{spec.name}: tiny() is a '{model_type}', not one of {served}"
    assert _same_weights(one, same), f"{spec.name}: tiny(0) gives other weights each time"
    assert not _same_weights(one, other), f"{spec.name}: tiny(0) and tiny(1) are the same model"
    assert not one.training, f"{spec.name}: tiny() is in training mode; call eval()"


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def crops_come_back_in_raster_order(spec: BackboneSpec) -> None:
    """A crop with one bright patch lights up that cell of its grid, from the smallest grid of `geometry` on."""
    model, _ = spec.tiny(0)
    geometry = spec.geometry(model.config)
    for shape in ((1, 3), (4, 2), (5, 6), (10, 12)):
        h, w = grid_hw = (shape[0] * geometry.grid_multiple, shape[1] * geometry.grid_multiple)
        for cell in ((0, 0), (0, w - 1), (h - 1, 0), (h // 2, w // 3), (h - 1, w - 1)):
            # Not zeros: layer norm would blow up what little of the bright patch reaches an all-zero one.
            plain = torch.full((3, *(side * geometry.patch_size for side in grid_hw)), 0.2)
            bright = plain.clone()
            rows, columns = (slice(at * geometry.patch_size, (at + 1) * geometry.patch_size) for at in cell)
            bright[:, rows, columns] = 2.0
            with torch.no_grad():
                grids = spec.encode_crops(model, [plain, bright])
            assert grids.grids_hw == (grid_hw, grid_hw), f"{spec.name}: asked {grid_hw}, got {grids.grids_hw}"
            width, promised = grids.features.shape[1], spec.vision_width(model.config)
            assert width == promised, f"{spec.name}: vision_width is {promised}, encode_crops returns {width}"
            change = (grids[1] - grids[0]).norm(dim=-1)
            found = divmod(int(change.argmax()), grid_hw[1])
            assert found == cell, f"{spec.name}: patch {cell} of {grid_hw} lights up {found}"


def crops_do_not_see_each_other(spec: BackboneSpec) -> None:
    """Crops encoded together equal crops encoded alone."""
    model, _ = spec.tiny(0)
    patch = spec.geometry(model.config).patch_size
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 6), (2, 2), (6, 4), (4, 6))
    crops = [torch.randn(3, h * patch, w * patch, generator=generator) for h, w in shapes]
    with torch.no_grad():
        together = spec.encode_crops(model, crops)
        alone = [spec.encode_crops(model, [crop])[0] for crop in crops]
    for index, grid in enumerate(alone):
        assert torch.allclose(together[index], grid, atol=1e-5), f"{spec.name}: crop {index} depends on the others"


def crops_and_scene_are_the_same_features(spec: BackboneSpec) -> None:
    """An image encoded as one crop has the features that the native pass gives it, patch by patch: nearly, where the
    native processor resizes it, and to rounding where it takes it as it is."""
    model, native = spec.tiny(0)
    patch = spec.geometry(model.config).patch_size
    views = _seen_both_ways(spec, model, native, [_blots((90, 130), seed=1), _blots((130, 90), seed=2)])
    _check_same_features(spec, views, most=0.1)
    # Small random weights hardly attend, so hardly show where the tower believes patches are.
    for parameter in model.get_submodule(spec.vision_tower).parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(8)
    for view in views:
        h, w = view.grid_hw
        (again,) = _seen_both_ways(spec, model, native, [_blots((h * patch, w * patch), seed=3)])
        if again.as_it_is:
            _check_same_features(spec, [again], most=0.01)


@dataclass(frozen=True)
class _SeenBothWays:
    """A picture's features: how far those of the crop are from those of the scene, as a share of what its patches
    differ by, and whether it is the tower's input as it is."""

    grid_hw: tuple[int, int]
    apart: float
    as_it_is: bool


def _check_same_features(spec: BackboneSpec, views: Sequence[_SeenBothWays], *, most: float) -> None:
    for view in views:
        assert view.apart < most, (
            f"{spec.name}: encode_crops and scene_grids see one picture differently (by {view.apart:.2f} of what "
            "its patches differ by; equal is 0). Is one of them in another order than raster order, taken at "
            "another layer, told other rows and columns, or fed in another way?"
        )


def _seen_both_ways(
    spec: BackboneSpec, model: Any, native: Any, pictures: list[Image.Image]
) -> tuple[_SeenBothWays, ...]:
    patch = spec.geometry(model.config).patch_size
    with torch.no_grad():
        scene, inputs = _native_scene(spec, model, native, pictures)
    promised, got = spec.scene_grids_hw(model.config, inputs), scene.grids_hw
    assert promised == got, f"{spec.name}: scene_grids_hw says {promised}, scene_grids {got}"
    assert len(got) == len(pictures), f"{spec.name}: scene_grids gives {len(got)} grids for {len(pictures)} images"
    boxes: Sequence[FloatBox] = [(0, 0, *each.size) for each in pictures]
    if spec.scene_boxes_xyxy:
        boxes = spec.scene_boxes_xyxy(model.config, inputs)
    images = native.image_processor
    mean, std = (torch.tensor(each)[:, None, None] for each in (images.image_mean, images.image_std))
    sizes = [(w * patch, h * patch) for h, w in scene.grids_hw]
    crops = []
    for picture, box, size in zip(pictures, boxes, sizes, strict=True):
        crop = picture.resize(size, Image.Resampling.BICUBIC, box=box)
        crops.append((torch.from_numpy(np.array(crop)).permute(2, 0, 1) / 255 - mean) / std)
    with torch.no_grad():
        grids = spec.encode_crops(model, crops)
    return tuple(
        _SeenBothWays(
            grid_hw=scene.grids_hw[index],
            apart=_difference(grids[index], scene[index]),
            as_it_is=pictures[index].size == sizes[index] and tuple(boxes[index]) == (0, 0, *sizes[index]),
        )
        for index in range(len(pictures))
    )


def gradients_reach_the_tower(spec: BackboneSpec) -> None:
    """Features of crops and of the scene carry gradients back to the vision tower, so that it can be trained."""
    model, native = spec.tiny(0)
    patch = spec.geometry(model.config).patch_size * spec.geometry(model.config).grid_multiple
    tower = model.get_submodule(spec.vision_tower)

    def reached(grids: FeatureGrids) -> bool:
        model.zero_grad()
        if grids.features.requires_grad:
            grids.features.square().sum().backward()
        return any(each.grad is not None and bool(each.grad.any()) for each in tower.parameters())

    model.requires_grad_(True)
    crop = torch.randn(3, 2 * patch, 3 * patch, generator=torch.Generator().manual_seed(0))
    assert reached(spec.encode_crops(model, [crop])), f"{spec.name}: no gradient goes through encode_crops"
    scene, _ = _native_scene(spec, model, native, [_blots((90, 130), seed=1)])
    assert reached(scene), f"{spec.name}: no gradient goes through scene_grids"


def _native_scene(spec: BackboneSpec, model: Any, native: Any, pictures: list[Image.Image]) -> tuple[FeatureGrids, Any]:
    """The scene's grids of several samples of one image each, captured from the native pass."""
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}
    text = native.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    images = [[each] for each in pictures]
    inputs = native(text=[text] * len(images), images=images, padding=True, return_tensors="pt")
    output = _tower_output(spec, model, inputs)
    try:
        return spec.scene_grids(model, inputs, output), inputs
    except Exception as error:
        raise AssertionError(
            f"{spec.name}: scene_grids fails on what the vision_tower '{spec.vision_tower}' returned, a "
            f"{type(output).__name__}: {type(error).__name__}: {error}"
        ) from error


def final_norm_is_behind_the_last_layer(spec: BackboneSpec) -> None:
    """The norm behind the decoder's last layer is where the spec says: what it is given, normed, are the last hidden
    states. Adapters with a mask head read them there."""
    model, native = spec.tiny(0)
    path = spec.final_norm or f"{spec.decoder}.norm"
    try:
        norm = model.get_submodule(path)
    except AttributeError as error:
        raise AssertionError(
            f"{spec.name}: no norm at '{path}': {error}. Say BackboneSpec.final_norm, if '{spec.decoder}' is the "
            "module that is called with inputs_embeds, as `decoder` must be."
        ) from error
    text = native.apply_chat_template([_user("what is it?")], add_generation_prompt=True, tokenize=False)
    read: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    with torch.no_grad():
        states = model(**native(text=[text], return_tensors="pt"), output_hidden_states=True).hidden_states
        handle.remove()
        same = [each.shape == states[-1].shape and torch.allclose(norm(each), states[-1], atol=1e-5) for each in read]
    assert same == [True], (
        f"{spec.name}: '{path}' is run {len(same)} times in a forward and does not give the last hidden states. Say "
        "BackboneSpec.final_norm."
    )


def projector_reads_the_scenes_cells(spec: BackboneSpec) -> None:
    """Where `projector_layers` are named: they are linear layers of the projector that lead from the width of a cell of
    the scene, `merged_side` patches squared, to the decoder's, and the first of them reads those very cells."""
    if not spec.projector_layers:
        return
    model, native = spec.tiny(0)
    side = spec.merged_side(model.config) if spec.merged_side else 1
    width = side**2 * spec.vision_width(model.config)
    for path in spec.projector_layers:
        layer = model.get_submodule(path)
        inside = isinstance(layer, nn.Linear) and path.startswith(spec.projector)
        assert inside, f"{spec.name}: '{path}' is not a linear layer of the projector '{spec.projector}'"
        assert layer.in_features == width, f"{spec.name}: '{path}' reads width {layer.in_features}, is given {width}"
        width = layer.out_features
    decoder_width = model.get_submodule(spec.token_embedding).embedding_dim
    assert width == decoder_width, f"{spec.name}: the projector ends in width {width}, the decoder's is {decoder_width}"
    read: list[Tensor] = []
    first = model.get_submodule(spec.projector_layers[0])
    handle = first.register_forward_pre_hook(lambda module, args: read.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        scene, _ = _native_scene(spec, model, native, [_blots((90, 130), seed=1), _blots((130, 90), seed=2)])
    handle.remove()
    cells = merged_cells(model, spec, scene, side).features
    apart = torch.cdist(cells, read[0], compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
    assert apart.max() < 1e-3 * cells.norm(dim=1).mean(), (
        f"{spec.name}: the projector's first layer '{spec.projector_layers[0]}' does not read the cells of the scene. "
        "Is merged_side wrong, or a norm left out (of cells: cell_norm)?"
    )


def frames_are_where_video_scene_says(spec: BackboneSpec) -> None:
    """Where there is a `video_scene`: a frame with one bright cell lights up that cell of its own grid, in the first
    as in the second of two videos."""
    if spec.video_scene is None:
        return
    model, native = spec.tiny(0)
    frames_per_grid = spec.video_scene.frames_per_grid(model.config)
    plain = [np.full((4, 112, 168, 3), 100, dtype=np.uint8) for _ in range(2)]
    still = _video_scene_grids(spec, spec.video_scene, model, native, plain)
    grids_per_video = -(-len(plain[0]) // frames_per_grid)
    assert len(still) == 2 * grids_per_video, (
        f"{spec.name}: {len(still)} grids for two videos of {len(plain[0])} frames, {frames_per_grid} frames a grid"
    )
    height, width = plain[0].shape[1:3]
    box = spec.video_scene.box_xyxy(model.config, (height, width)) if spec.video_scene.box_xyxy else None
    for video, frame in ((0, 0), (0, 1), (0, 3), (1, 0), (1, 2)):
        grid = video * grids_per_video + frame // frames_per_grid
        h, w = still.grids_hw[grid]
        for row, column in ((0, 0), (h - 1, 0), (h // 2, w // 3), (h - 1, w - 1)):
            cell = _pixels_of_cell(row, column, (h, w), box or (0, 0, width, height))
            bright = [each.copy() for each in plain]
            bright[video][frame][cell] = 255
            moved = _video_scene_grids(spec, spec.video_scene, model, native, bright)
            change = [(moved[index] - still[index]).norm(dim=-1) for index in range(len(still))]
            most = max(range(len(change)), key=lambda index: change[index].max().item())
            found = (most, *divmod(int(change[most].argmax()), w))
            assert found == (grid, row, column), (
                f"{spec.name}: cell {(row, column)} of frame {frame} of video {video} lights up grid, row, column "
                f"{found}, expected {(grid, row, column)}"
            )


def _pixels_of_cell(row: int, column: int, grid_hw: tuple[int, int], box: FloatBox) -> tuple[slice, slice]:
    """Where one cell of a grid over `box` lies in its frame."""
    x0, y0, x1, y1 = box
    rows = slice(*(round(y0 + at * (y1 - y0) / grid_hw[0]) for at in (row, row + 1)))
    columns = slice(*(round(x0 + at * (x1 - x0) / grid_hw[1]) for at in (column, column + 1)))
    return rows, columns


def _video_scene_grids(
    spec: BackboneSpec, scene: VideoScene, model: Any, native: Any, videos: list[np.ndarray]
) -> FeatureGrids:
    """The grids of several samples of one video each, from the native pass."""
    message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "what is it?"}]}
    text = native.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    metadata = [
        {"fps": 1.0, "total_num_frames": len(each), "frames_indices": list(range(len(each)))} for each in videos
    ]
    inputs = native(
        text=[text] * len(videos),
        videos=videos,
        video_metadata=metadata,
        do_sample_frames=False,
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        grids = scene.grids(model, inputs, _tower_output(spec, model, inputs))
    promised, got = scene.grids_hw(model.config, inputs), grids.grids_hw
    assert promised == got, f"{spec.name}: video_scene.grids_hw says {promised}, grids {got}"
    return grids


def _tower_output(spec: BackboneSpec, model: Any, inputs: Any) -> Any:
    """What the vision tower returns in the native pass."""
    outputs: list[Any] = []
    tower = model.get_submodule(spec.vision_tower)
    handle = tower.register_forward_hook(lambda module, args, output: outputs.append(output))
    model(**inputs)
    handle.remove()
    assert outputs, f"{spec.name}: a picture's native pass does not call the vision_tower '{spec.vision_tower}'"
    return outputs[-1]


def _difference(one: Tensor, other: Tensor) -> float:
    """How far two grids are apart, as a share of how far `other`'s patches are from their mean."""
    return ((one - other).norm() / (other - other.mean(dim=(0, 1))).norm()).item()


# --- a pair -------------------------------------------------------------------------------------------------


def no_regions_is_the_base_model(adapter: str, backbone: str) -> None:
    """Without regions: same inputs, logits and generated ids as the bare backbone, bit for bit."""
    for dtype in (torch.float32, torch.bfloat16):
        pair = make_pair(adapter, backbone, dtype=dtype)
        bare = pair.model.backbone
        for kind, ours, native in _without_regions(pair):
            assert "regions" not in ours
            assert set(ours) == set(native), f"{kind}: inputs {sorted(ours)} instead of {sorted(native)}"
            for name, value in native.items():
                assert torch.equal(ours[name], value), f"{kind}: input {name} differs from the native processor's"
            with torch.no_grad():
                expected, got = bare(**native).logits, pair.model(**ours).logits
            assert torch.equal(expected, got), f"{kind}, {dtype}: logits differ from the bare backbone's"
            options: dict[str, Any] = {"max_new_tokens": _NEW_TOKENS, "do_sample": False}
            same = torch.equal(bare.generate(**native, **options), pair.model.generate(**ours, **options))
            assert same, f"{kind}, {dtype}: generated ids differ from the bare backbone's"
        pair.model.detach()


def _without_regions(pair: Pair) -> Iterator[tuple[str, Any, Any]]:
    """A picture and, where the backbone takes them, a video: inputs of our processor and of the native one."""

    def native(kind: str, **media: Any) -> Any:
        parts = [{"type": kind}, {"type": "text", "text": "describe it"}]
        message = {"role": "user", "content": parts}
        text = pair.native.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        return pair.native(text=[text], **media, return_tensors="pt")

    picture = _picture((110, 60), seed=2)
    yield "picture", pair.processor([_user(picture, "describe it")]), native("image", images=[[_pil(picture)]])
    if _takes_videos(pair.native):
        video = _video()
        metadata = {"fps": 2.0, "total_num_frames": len(video["video"]), "frames_indices": [0, 1, 2, 3, 4]}
        expected = native("video", videos=[video["video"]], video_metadata=[metadata], do_sample_frames=False)
        yield "video", pair.processor([_user(video, "describe it")]), expected


def regions_reach_the_decoder(adapter: str, backbone: str) -> None:
    """Another region changes the logits after it and none before it; bfloat16 works as float32 does."""
    for dtype in (torch.float32, torch.bfloat16):
        pair = make_pair(adapter, backbone, dtype=dtype)
        conversation = pair.conversations[0]
        one, other = Region.from_box((2, 2, 40, 30)), Region.from_box((70, 30, 108, 58))
        inputs = [pair.processor(conversation, [each, pair.regions[0][1]]) for each in (one, other)]
        with torch.no_grad():
            logits = [pair.model(**each).logits[0] for each in inputs]
        assert all(torch.isfinite(each).all() for each in logits), f"{dtype}: logits are not finite"
        first = (inputs[0]["input_ids"][0] == pair.processor.placeholder_id).nonzero()[0].item()
        assert torch.equal(logits[0][:first], logits[1][:first]), "a region changes logits before it"
        assert not torch.equal(logits[0][-1], logits[1][-1]), "a region does not change the last logits"
        pair.model.detach()


def detach_leaves_no_trace(adapter: str, backbone: str) -> None:
    """After attach, LoRA, training, generation and detach, the backbone is what it was."""
    pair = make_pair(adapter, backbone)
    bare = pair.model.detach()
    inputs = pair.inputs(2)  # a picture and no region: what the bare backbone takes
    with torch.no_grad():
        logits = bare(**inputs).logits  # before the portrait: transformers adds hooks of its own at first use
    before = _portrait(bare)
    model = RegionModel.attach(bare, adapter=adapter, adapter_config=get_adapter(adapter).tiny)
    model.make_processor(pair.native)
    model.add_lora(scopes=tuple(get_backbone(backbone).lora_targets))
    model(**_with_answers(pair)).loss.backward()
    model.generate(**pair.inputs(0), max_new_tokens=2)
    returned = model.detach()
    assert returned is bare
    after = _portrait(bare)
    for name in before.keys() | after.keys():
        assert before.get(name) == after.get(name), f"detach left a trace at {name}"
    assert torch.equal(logits, bare(**inputs).logits), "logits differ after detach"


def a_batch_answers_as_its_samples_do(adapter: str, backbone: str) -> None:
    """Greedy answers of a mixed batch equal those of its samples alone."""
    pair = make_pair(adapter, backbone)
    together = pair.answer(pair.inputs())
    for index in range(len(pair.conversations)):
        alone = pair.answer(pair.inputs(index))[0]
        assert torch.equal(together[index], alone), f"sample {index}: {together[index]} in a batch, {alone} alone"
    pair.model.detach()


def generation_works_as_usual(adapter: str, backbone: str) -> None:
    """Beams, sampling several answers, streaming, and no cache."""
    pair = make_pair(adapter, backbone)
    inputs, single = pair.inputs(), pair.inputs(0)
    greedy = pair.answer(inputs)
    assert torch.equal(pair.answer(inputs, use_cache=False), greedy), "answers change without the cache"
    assert pair.answer(inputs, num_beams=3).shape == greedy.shape
    alone = pair.answer(single, num_beams=3)
    assert torch.equal(pair.answer(inputs, num_beams=3)[:1], alone), "beam search mixes samples"
    torch.manual_seed(0)
    assert len(pair.answer(inputs, do_sample=True, num_return_sequences=2)) == 2 * len(greedy)
    streamer = _Recorder(pair.processor.tokenizer, skip_prompt=True)
    ids = pair.answer(single, streamer=streamer)
    assert streamer.ids == ids[0].tolist(), "streamed ids differ from those returned"
    pair.model.detach()


def the_framework_is_kept(adapter: str, backbone: str) -> None:
    """Vision-Object leaves the pictures' inputs as they are; Object-Only shows the decoder text and object tokens
    alone, however large the picture, and only the conversations without regions their pictures."""
    pair, lengths = make_pair(adapter, backbone), []
    question, region = "what is <region>?", Region.from_box((8, 8, 30, 40))
    for hw in ((60, 60), (120, 180)):
        asked = pair.processor([_user(_picture(hw), question)], [region])
        bare = pair.processor([_user(_picture(hw), question.replace("<region>", "[]"))])
        if get_adapter(adapter).framework == "vision-object":
            for name in set(bare) - set(_SEQUENCES):
                assert torch.equal(asked[name], bare[name]), f"input {name} is another than without a region"
        else:
            assert not set(asked) & (set(bare) - set(_SEQUENCES)), "an Object-Only adapter's batch holds the picture"
            lengths.append(asked["input_ids"].shape[1] - sum(asked["regions"].counts))
    if lengths:
        only_text = pair.processor([_user(question.replace("<region>", "[]"))])["input_ids"].shape[1]
        assert len(set(lengths)) == 1, f"the length of the sequence depends on the picture's size: {lengths}"
        assert lengths[0] <= only_text + 1, f"{lengths[0]} tokens besides the object's, where the text has {only_text}"
        mixed = pair.processor([pair.conversations[0], pair.conversations[2]], [pair.regions[0], []])
        alone = pair.processor(pair.conversations[2])
        same = torch.equal(mixed["pixel_values"], alone["pixel_values"])
        assert same, "a batch shows other pictures than its samples"
    pair.model.detach()


def promised_is_delivered(adapter: str, backbone: str) -> None:
    """As many placeholders as object tokens, also for awkward masks; a lost placeholder is refused."""
    pair = make_pair(adapter, backbone)
    for mask in _awkward_masks():
        height, width = mask.image_hw
        inputs = pair.processor([_user(_picture((height, width)), "<region>")], [Region.from_mask(mask.dense())])
        with torch.no_grad():
            assert torch.isfinite(pair.model(**inputs).logits).all(), f"mask of {mask.area} px in {mask.image_hw}"
    inputs = pair.inputs(0)
    at = (inputs["input_ids"][0] == pair.processor.placeholder_id).nonzero()[0].item()
    inputs["input_ids"][0, at] = pair.processor.tokenizer.eos_token_id
    try:
        pair.model(**inputs)
    except SpliceError:
        pair.model.detach()
        return
    raise AssertionError("a sequence that lost a placeholder was accepted")


def a_region_is_the_same_in_company(adapter: str, backbone: str) -> None:
    """The object tokens of a region do not depend on the other regions of the batch."""
    pair = make_pair(adapter, backbone)
    together = _object_tokens(pair, pair.inputs())
    alone = [
        tokens
        for sample, regions in enumerate(pair.regions)
        if regions
        for tokens in _object_tokens(pair, pair.inputs(sample))
    ]
    for number, (tokens, expected) in enumerate(zip(together, alone, strict=True)):
        assert torch.allclose(tokens, expected, atol=1e-5), (
            f"the object tokens of region {number} are others when its sample is alone; does the adapter mix regions, "
            "or draw random numbers?"
        )
    pair.model.detach()


def stretched_features_are_read(adapter: str, backbone: str) -> None:
    """Where it asks for crops encoded at another size than their masks have (`CropView.encoded_hw`), the adapter reads
    the features stretched to the mask: it selects them with `EncodedView.patch_features`."""
    spec = get_adapter(adapter)
    if not _asks_for_stretched_features(spec):
        return
    pair = make_pair(adapter, backbone)
    width = get_backbone(backbone).vision_width(pair.model.backbone.config)
    pair.processor._adapter = dataclasses.replace(spec, plan=lambda *planned: _half_encoded(spec.plan(*planned)))
    batch = pair.inputs(0)["regions"]
    generator = torch.Generator().manual_seed(0)
    views = []
    for layout in batch.views:
        features = torch.randn(sum(h * w for h, w in layout.grids_hw), width, generator=generator)
        views.append(layout.encoded(FeatureGrids(features, layout.grids_hw)))
    with torch.no_grad():
        tokens = pair.model.adapter(tuple(views), batch.counts)
        expected = pair.model.adapter(tuple(map(_beforehand, views)), batch.counts)
    assert torch.allclose(tokens, expected, atol=1e-5), (
        "the adapter does not read the features stretched; where it selects grids.features[patch_rows] it should call "
        "patch_features()"
    )
    pair.model.detach()


def _asks_for_stretched_features(spec: AdapterSpec) -> bool:
    """Whether a plan of it does, by default or with a preset."""
    geometry = PatchGeometry(patch_size=14, grid_multiple=2)
    configs = [spec.make_config(preset) for preset in (None, *spec.presets)]
    plans = [spec.plan(config, mask, geometry) for config in configs for mask in _awkward_masks()]
    crops = [view for plan in plans for view in plan.views if isinstance(view, CropView)]
    return any(crop.tower_hw != crop.grid_hw for crop in crops)


def _half_encoded(plan: RegionPlan) -> RegionPlan:
    """The plan with the crops of its masks encoded in half as many rows and columns, still of even number."""
    return dataclasses.replace(plan, views=tuple(map(_half_encoded_view, plan.views)))


def _half_encoded_view(view: View) -> View:
    if not isinstance(view, CropView) or view.mask is None:
        return view
    rows, columns = (max(2, side // 4 * 2) for side in view.grid_hw)
    return dataclasses.replace(view, encoded_hw=(rows, columns))


def _beforehand(view: EncodedView) -> EncodedView:
    """The view with its stretched features as rows of a further grid, where plain selecting finds them."""
    if view.corners is None:
        return view
    stretched = view.patch_features()
    first = len(view.grids.features)
    return dataclasses.replace(
        view,
        grids=FeatureGrids(torch.cat([view.grids.features, stretched]), (*view.grids.grids_hw, (1, len(stretched)))),
        patch_rows=torch.arange(first, first + len(stretched)),
        corners=None,
    )


def _object_tokens(pair: Pair, inputs: Any) -> tuple[Tensor, ...]:
    """The object tokens of each region of a batch, frame by frame."""
    made: list[Tensor] = []
    hook = pair.model.adapter.register_forward_hook(lambda module, args, tokens: made.append(tokens))
    with torch.no_grad():
        pair.model(**inputs)
    hook.remove()
    (tokens,) = made
    return tokens.split(inputs["regions"].counts)


def gradients_reach_what_trains(adapter: str, backbone: str) -> None:
    """Adapter and LoRA get gradients, frozen weights none; with a mask head, every child of the adapter's module gets
    one from pictures and videos with masks to learn."""
    pair = make_pair(adapter, backbone)
    pair.model.add_lora()
    pair.model.train()(**_with_answers(pair)).loss.backward()
    for name, parameter in pair.model.named_parameters():
        if name.startswith("adapter.") or "lora_" in name or "trainable_tokens_" in name:
            assert parameter.grad is not None, f"no gradient reaches {name}"
        else:
            assert parameter.grad is None, f"a gradient reaches the frozen {name}"
    for name, gradients in _gradients(pair):
        assert any(each.any() for each in gradients), f"the gradient of adapter.{name} is zero"
    pair.model.detach()


def _gradients(pair: Pair) -> Iterator[tuple[str, list[Tensor]]]:
    """What must not be zero: the gradient of each of the adapter's parameters. A mask head may have some that this
    batch does not need; then those of each child of its module together."""
    parts: Any = pair.model.adapter.named_parameters()
    if pair.model.adapter_spec.mask_head is not None:
        parts = pair.model.adapter.named_children()
    for name, part in parts:
        parameters = part.parameters() if isinstance(part, nn.Module) else (part,)
        yield name, [each.grad for each in parameters if each.grad is not None]


def saving_and_loading_changes_nothing(adapter: str, backbone: str) -> None:
    """A saved folder, adapter and LoRA included, gives equal logits on a fresh backbone."""
    pair = make_pair(adapter, backbone)
    pair.model.add_lora()
    with torch.no_grad():
        for name, parameter in pair.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02, generator=torch.Generator().manual_seed(0))
        expected = pair.model(**pair.inputs()).logits
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        pair.model.save_pretrained(folder, pair.processor)
        files = [each.suffix for each in folder.rglob("*") if each.is_file()]
        assert not {".bin", ".pt", ".pth", ".pkl"} & set(files), f"the folder holds pickles: {files}"
        fresh, _ = get_backbone(backbone).tiny(0)
        loaded = RegionModel.from_pretrained(folder, backbone=fresh)
        processor = RegionProcessor.from_pretrained(folder)
        with torch.no_grad():
            got = loaded(**processor(pair.conversations, pair.regions)).logits
    assert torch.equal(expected, got), "logits differ after saving and loading"
    pair.model.detach()
    loaded.detach()


def masks_come_where_they_are_asked_for(adapter: str, backbone: str) -> None:
    """Where the adapter gives masks: an answer that is made to give one has an object with a presence for the picture,
    or for each sampled frame, and masks at the original size; an answer that gives none has no objects, and the head is
    not run."""
    if get_adapter(adapter).mask_head is None:
        return
    pair = make_pair(adapter, backbone)
    predicted = _recorded_masks(pair.model)
    for image_hw, frames, inputs in _segmentations(pair):
        (objects,) = _masks(pair, inputs).objects
        assert objects, "a forced answer gives no mask"
        for each in objects:
            _check_object(each, image_hw, frames)
        assert len(predicted) == 1, f"the head is run {len(predicted)} times for one batch"
        assert all(torch.isfinite(each).all() for each in _values(predicted[0])), (
            "a mask, IoU or presence is not finite"
        )
        predicted.clear()
        (objects,) = _masks(pair, inputs, silent=True).objects
        assert not objects, f"an answer without the mask's token has {len(objects)} objects"
        assert not predicted, "the mask head is run for answers that give no mask"
    pair.model.detach()


def _segmentations(pair: Pair) -> Iterator[tuple[tuple[int, int], list[int], Any]]:
    """Original size, sampled frames and inputs of a picture and, where the backbone takes them, of a video."""
    yield (70, 120), [0], pair.processor([_user(_picture((70, 120)), "segment it")], segment=True)
    if _takes_videos(pair.native):
        yield (70, 70), [0, 1, 2, 3, 4], pair.processor([_user(_video(), "segment it")], segment=True)


def _masks(pair: Pair, inputs: Any, *, model: RegionModel | None = None, silent: bool = False) -> GeneratedMasks:
    """Answers that give a mask at their end, or, `silent`, none."""
    unwanted = [*pair.media_ids, pair.processor.mask_token_id] if silent else pair.media_ids
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": _NEW_TOKENS, "suppress_tokens": unwanted}
    generated: GeneratedMasks = (model or pair.model).generate(**inputs, force_mask=not silent, **options)
    return generated


def _recorded_masks(model: RegionModel) -> list[PredictedMasks]:
    """A list that grows by what the head predicts with each call."""
    head: Any = model.adapter
    predicted, predict = [], head.predict_masks

    def recorded(hidden: Tensor, clips: Clips, clip_of_object: Sequence[int]) -> PredictedMasks:
        predicted.append(predict(hidden, clips, clip_of_object))
        return predicted[-1]

    head.predict_masks = recorded
    return predicted


def _values(predicted: PredictedMasks) -> tuple[Tensor, ...]:
    return predicted.logits, predicted.iou, predicted.presence


def _check_object(found: SegmentedObject, image_hw: tuple[int, int], frames: list[int]) -> None:
    assert list(found.presence) == frames, f"presence is known of frames {list(found.presence)}, expected {frames}"
    assert 0 <= found.score <= 1, f"the score {found.score} is not in 0..1"
    regions = found.region.frames if isinstance(found.region, VideoRegion) else {0: found.region}
    for region in regions.values():
        assert region is None or region.to_mask(image_hw).image_hw == image_hw


def masks_do_not_depend_on_company(adapter: str, backbone: str) -> None:
    """Where the adapter gives masks: those of several objects are those of each alone, object by object on all pictures
    of its clip in order, and so are their losses; they are logits, also of hidden states in bfloat16; what nothing is
    known of costs nothing."""
    spec = get_adapter(adapter)
    if spec.mask_head is None:
        return
    pair = make_pair(adapter, backbone)
    head: Any = pair.model.adapter
    px = spec.mask_head.picture_px(spec.make_config(spec.tiny))
    width = pair.model.backbone.get_submodule(get_backbone(backbone).token_embedding).embedding_dim
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(3, width, generator=generator)
    pixels = torch.randint(0, 256, (4, 3, px, px), generator=generator, dtype=torch.uint8)
    masks = torch.zeros(2, px, px, dtype=torch.bool)
    masks[0, : px // 2], masks[1, :, px // 4 : px // 2] = True, True
    of_clip = (Clips(pixels[:1], (1,)), Clips(pixels[1:], (3,)))
    clips, clip_of_object = Clips(pixels, (1, 3)), (1, 0, 1)
    absent, unknown = MaskTargets.ABSENT, MaskTargets.UNKNOWN
    rows = [torch.tensor(each) for each in ([0, absent, unknown], [1], [unknown] * 3)]
    with torch.no_grad():
        predicted = head.predict_masks(hidden, clips, clip_of_object)
        losses = head.mask_losses(hidden, clips, clip_of_object, MaskTargets(masks, torch.cat(rows)))
        nowhere = MaskTargets(masks[:0], torch.full((7,), absent))
        without_masks = head.mask_losses(hidden, clips, clip_of_object, nowhere)
        head.predict_masks(hidden.bfloat16(), clips, clip_of_object)
        start = 0
        for index, clip in enumerate(clip_of_object):
            own, end = (hidden[index : index + 1], of_clip[clip], (0,)), start + of_clip[clip].lengths[0]
            for one, alone in zip(_values(predicted), _values(head.predict_masks(*own)), strict=True):
                assert torch.allclose(one[start:end].float(), alone.float(), rtol=1e-3, atol=1e-4), (
                    f"the masks, IoUs or presences of object {index} are others when it is alone; are they in the "
                    "order of the objects, each on all pictures of its own clip?"
                )
            for name, loss in head.mask_losses(*own, MaskTargets(masks, rows[index])).items():
                assert torch.allclose(losses[name][index], loss[0], rtol=1e-3, atol=1e-4), (
                    f"the loss '{name}' of object {index} is {losses[name][index]:.4f}, alone {loss[0]:.4f}"
                )
            start = end
    logits = predicted.logits
    assert logits.min() < 0 or logits.max() > 1, "the masks' logits are all in 0..1; are they probabilities?"
    for name, loss in losses.items():
        assert not loss[2], f"the loss '{name}' of an object of which nothing is known is {loss[2]:.4f}, not 0"
    for name, loss in without_masks.items():
        assert torch.isfinite(loss).all(), f"the loss '{name}' is not finite where every object is known to be absent"
    pair.model.detach()


def masks_survive_saving(adapter: str, backbone: str) -> None:
    """Where the adapter gives masks: a saved folder predicts equal ones, and equal objects, on a fresh backbone."""
    if get_adapter(adapter).mask_head is None:
        return
    pair = make_pair(adapter, backbone)
    predicted = _recorded_masks(pair.model)
    wanted = [inputs for _, _, inputs in _segmentations(pair)]
    objects = [_masks(pair, inputs).objects for inputs in wanted]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        pair.model.save_pretrained(folder, pair.processor)
        fresh, _ = get_backbone(backbone).tiny(0)
        loaded = RegionModel.from_pretrained(folder, backbone=fresh)
    again = _recorded_masks(loaded)
    same = [_masks(pair, inputs, model=loaded).objects for inputs in wanted] == objects
    for one, other in zip(predicted, again, strict=True):
        same &= all(map(torch.equal, _values(one), _values(other)))
    assert same, "masks, scores or presences differ after saving and loading"
    pair.model.detach()
    loaded.detach()


ADAPTER_CHECKS: tuple[Callable[[AdapterSpec], None], ...] = (
    config_is_frozen_and_strict,
    presets_are_options,
    plan_is_pure_and_bounded,
    drawn_regions_are_planned_purely,
    plans_together_are_as_many,
)
BACKBONE_CHECKS: tuple[Callable[[BackboneSpec], None], ...] = (
    modules_are_where_the_spec_says,
    tiny_is_deterministic,
    crops_come_back_in_raster_order,
    crops_do_not_see_each_other,
    crops_and_scene_are_the_same_features,
    gradients_reach_the_tower,
    projector_reads_the_scenes_cells,
    final_norm_is_behind_the_last_layer,
    lora_scopes_are_parts_of_the_model,
    frames_are_where_video_scene_says,
)
PAIR_CHECKS: tuple[Callable[[str, str], None], ...] = (
    no_regions_is_the_base_model,
    regions_reach_the_decoder,
    the_framework_is_kept,
    promised_is_delivered,
    a_region_is_the_same_in_company,
    stretched_features_are_read,
    a_batch_answers_as_its_samples_do,
    generation_works_as_usual,
    gradients_reach_what_trains,
    detach_leaves_no_trace,
    saving_and_loading_changes_nothing,
    masks_come_where_they_are_asked_for,
    masks_do_not_depend_on_company,
    masks_survive_saving,
)


class _Recorder(TextStreamer):
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


def _user(*parts: Any) -> dict[str, Any]:
    """A user's message of texts, pictures, and parts that are written out."""
    content = []
    for part in parts:
        if isinstance(part, dict):
            content.append(part)
        else:
            kind = "text" if isinstance(part, str) else "image"
            content.append({"type": kind, kind: part})
    return {"role": "user", "content": content}


def _video() -> dict[str, Any]:
    """Five frames, an odd number for towers that join two, of moving blots."""
    blots = np.asarray(_blots((70, 130), seed=3))
    frames = np.stack([blots[:, 10 * index : 10 * index + 70] for index in range(5)])
    return {"type": "video", "video": frames, "fps": 2.0}


def _with_answers(pair: Pair) -> Any:
    """Something to learn of each conversation; where the adapter gives masks, a mask wherever there are regions."""
    gives_masks = pair.model.adapter_spec.mask_head is not None
    conversations, regions = [], []
    for conversation, own in zip(pair.conversations, pair.regions, strict=True):
        on_video = bool(own) and isinstance(own[0], VideoRegion)
        targets = [VideoRegion(_VIDEO_BOXES) if on_video else _TRIANGLE] if own and gives_masks else []
        text = f"a digit {MASK_MARKER}" if targets else "a digit"
        conversations.append([*conversation, {"role": "assistant", "content": [{"type": "text", "text": text}]}])
        regions.append([*own, *targets])
    return pair.processor(conversations, regions, labels=True)


def _picture(hw: tuple[int, int], *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*hw, 3), dtype=np.uint8)


def _blots(hw: tuple[int, int], *, seed: int) -> Image.Image:
    """Coloured blots: a picture that differs everywhere and survives resizing."""
    coarse = Image.fromarray(_picture((6, 6), seed=seed))
    return coarse.resize((hw[1], hw[0]), Image.Resampling.BICUBIC)


def _pil(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(picture)


def _drawn_regions() -> list[Region]:
    """A region of each kind that is not made of pixels."""
    return [
        Region.from_points([(3.5, 4)]),
        Region.from_points([(3, 4), (50, 80)], radius_px=1),
        Region.from_box((3, 4, 50.5, 80)),
        _TRIANGLE,
        Region.from_scribble([(3, 4), (50, 80)]),
    ]


def _awkward_masks() -> list[Any]:
    """One pixel, a whole image, an image smaller than a patch, a line, two far corners, a hole."""
    shapes = []
    for hw in ((90, 130), (5, 6), (40, 300)):
        one, whole, line, corners = (np.zeros(hw, dtype=bool) for _ in range(4))
        one[hw[0] - 1, 0] = whole[:] = line[hw[0] // 2] = corners[0, 0] = corners[-1, -1] = True
        shapes += [one, whole, line, corners]
    ring = np.ones((90, 130), dtype=bool)
    ring[20:70, 30:100] = False
    return [Region.from_mask(mask).to_mask((mask.shape[0], mask.shape[1])) for mask in [*shapes, ring]]


def _portrait(model: nn.Module) -> dict[str, Any]:
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
