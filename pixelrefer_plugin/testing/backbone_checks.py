"""Checks of a backbone alone, on its own `tiny` model. Each raises `AssertionError` and says what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..contracts.backbone import BackboneSpec, NativeCall, Scene, ShownMedium
from ..contracts.encoded import FeatureGrids
from ..conversation.token_ids import native_token_ids
from ..regions.mask import FloatBox
from ..tokens.scene import merged_cells
from .pairs import blots_of, user_message


def modules_are_where_the_spec_says(spec: BackboneSpec) -> None:
    """The model is of the spec's class, every dotted path exists, and every LoRA scope matches linear layers."""
    model, _ = spec.tiny(0)
    assert type(model) is spec.model_class, (
        f"{spec.name}: tiny() is a {type(model).__name__}, model_class is {spec.model_class.__name__}, as which "
        "checkpoints are loaded"
    )
    for part in ("vision_tower", "projector", "decoder", "token_embedding"):
        path = getattr(spec.parts, part)
        try:
            model.get_submodule(path)
        except AttributeError as error:
            raise AssertionError(f"{spec.name}: no {part} at '{path}': {error}") from error
    path = spec.parts.token_embedding
    embedding = model.get_submodule(path)
    assert isinstance(embedding, nn.Embedding), (
        f"{spec.name}: token_embedding '{path}' is a {type(embedding).__name__}, not an nn.Embedding"
    )
    assert embedding is model.get_input_embeddings(), (
        f"{spec.name}: token_embedding '{path}' is not what the model's get_input_embeddings() gives"
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
        part = getattr(spec.parts, scope) if own else spec.parts.decoder
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
    geometry = spec.crops.geometry(model.config)
    for shape in ((1, 3), (4, 2), (5, 6), (10, 12)):
        h, w = grid_hw = (shape[0] * geometry.grid_multiple, shape[1] * geometry.grid_multiple)
        for cell in ((0, 0), (0, w - 1), (h - 1, 0), (h // 2, w // 3), (h - 1, w - 1)):
            # Not zeros: layer norm would blow up what little of the bright patch reaches an all-zero one.
            plain = torch.full((3, *(side * geometry.patch_size for side in grid_hw)), 0.2)
            bright = plain.clone()
            # Half of the patch: where each is normalised by itself, an even one shows no brightness.
            px = geometry.patch_size
            bright[:, cell[0] * px : (cell[0] + 1) * px, cell[1] * px : cell[1] * px + px // 2] = 2.0
            with torch.no_grad():
                grids = spec.crops.encode(model, [plain, bright])
            assert grids.grids_hw == (grid_hw, grid_hw), f"{spec.name}: asked {grid_hw}, got {grids.grids_hw}"
            width, promised = grids.features.shape[1], spec.crops.width(model.config)
            assert width == promised, f"{spec.name}: crops.width is {promised}, crops.encode returns {width}"
            change = (grids[1] - grids[0]).norm(dim=-1)
            found = divmod(int(change.argmax()), grid_hw[1])
            assert found == cell, f"{spec.name}: patch {cell} of {grid_hw} lights up {found}"


def crops_do_not_see_each_other(spec: BackboneSpec) -> None:
    """Crops encoded together equal crops encoded alone."""
    model, _ = spec.tiny(0)
    patch = spec.crops.geometry(model.config).patch_size
    generator = torch.Generator().manual_seed(0)
    shapes = ((4, 6), (2, 2), (6, 4), (4, 6))
    crops = [torch.randn(3, h * patch, w * patch, generator=generator) for h, w in shapes]
    with torch.no_grad():
        together = spec.crops.encode(model, crops)
        alone = [spec.crops.encode(model, [crop])[0] for crop in crops]
    for index, grid in enumerate(alone):
        assert torch.allclose(together[index], grid, atol=1e-5), f"{spec.name}: crop {index} depends on the others"


def crops_and_scene_are_the_same_features(spec: BackboneSpec) -> None:
    """An image encoded as one crop has the features that the native pass gives it, patch by patch: nearly, where the
    native processor resizes it, and to rounding where it takes it as it is."""
    model, native = spec.tiny(0)
    patch = spec.crops.geometry(model.config).patch_size
    views = _seen_both_ways(spec, model, native, [blots_of((90, 130), seed=1), blots_of((130, 90), seed=2)])
    _check_same_features(spec, views, most=0.1)
    # Small random weights hardly attend, so hardly show where the tower believes patches are.
    for parameter in model.get_submodule(spec.parts.vision_tower).parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(8)
    for view in views:
        h, w = view.grid_hw
        (again,) = _seen_both_ways(spec, model, native, [blots_of((h * patch, w * patch), seed=3)])
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
            f"{spec.name}: crops.encode and images.grids see one picture differently (by {view.apart:.2f} of what "
            "its patches differ by; equal is 0). Is one of them in another order than raster order, taken at "
            "another layer, told other rows and columns, or fed in another way?"
        )


def _seen_both_ways(
    spec: BackboneSpec, model: Any, native: Any, pictures: list[Image.Image]
) -> tuple[_SeenBothWays, ...]:
    patch = spec.crops.geometry(model.config).patch_size
    with torch.no_grad():
        scene, inputs = _native_scene(spec, model, native, pictures)
    call = native_call(model, native, inputs, pictures)
    promised, got = spec.images.grids_hw(call), scene.grids_hw
    assert promised == got, f"{spec.name}: images.grids_hw says {promised}, images.grids {got}"
    assert len(got) == len(pictures), f"{spec.name}: images.grids gives {len(got)} grids for {len(pictures)} images"
    sizes_hw = [(each.height, each.width) for each in pictures]
    boxes = _boxes(spec.images, call, sizes_hw)
    images = native.image_processor
    mean, std = (torch.tensor(each)[:, None, None] for each in (images.image_mean, images.image_std))
    sizes = [(w * patch, h * patch) for h, w in scene.grids_hw]
    crops = []
    for picture, box, size in zip(pictures, boxes, sizes, strict=True):
        crop = picture.resize(size, Image.Resampling.BICUBIC, box=box)
        crops.append((torch.from_numpy(np.array(crop)).permute(2, 0, 1) / 255 - mean) / std)
    with torch.no_grad():
        grids = spec.crops.encode(model, crops)
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
    patch = spec.crops.geometry(model.config).patch_size * spec.crops.geometry(model.config).grid_multiple
    tower = model.get_submodule(spec.parts.vision_tower)

    def reached(grids: FeatureGrids) -> bool:
        model.zero_grad()
        if grids.features.requires_grad:
            grids.features.square().sum().backward()
        return any(each.grad is not None and bool(each.grad.any()) for each in tower.parameters())

    model.requires_grad_(True)
    crop = torch.randn(3, 2 * patch, 3 * patch, generator=torch.Generator().manual_seed(0))
    assert reached(spec.crops.encode(model, [crop])), f"{spec.name}: no gradient goes through crops.encode"
    scene, _ = _native_scene(spec, model, native, [blots_of((90, 130), seed=1)])
    assert reached(scene), f"{spec.name}: no gradient goes through images.grids"


def _native_scene(spec: BackboneSpec, model: Any, native: Any, pictures: list[Image.Image]) -> tuple[FeatureGrids, Any]:
    """The scene's grids of several samples of one image each, captured from the native pass."""
    inputs = _native_images(native, pictures)
    outputs = _outputs(spec, model, inputs, spec.parts.scene_source)
    try:
        return spec.images.grids(native_call(model, native, inputs, pictures), outputs), inputs
    except Exception as error:
        raise AssertionError(
            f"{spec.name}: images.grids fails on what the vision_tower '{spec.parts.scene_source}' returned, a "
            f"{type(outputs[0]).__name__}: {type(error).__name__}: {error}"
        ) from error


def _native_images(native: Any, pictures: Sequence[Image.Image]) -> Any:
    """Several samples of one image each."""
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}
    text = native.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    images = [[each] for each in pictures]
    return native(text=[text] * len(images), images=images, padding=True, return_tensors="pt")


def native_call(model: Any, native: Any, inputs: Any, media: Sequence[Image.Image | np.ndarray] = ()) -> NativeCall:
    """A call of the bare backbone, with one image or one video, its frames, in each sample, where they are given."""
    shown = tuple((_shown(each),) for each in media)
    return NativeCall(model.config, inputs, native_token_ids(native), model, shown)


def _shown(media: Image.Image | np.ndarray) -> ShownMedium:
    if isinstance(media, Image.Image):
        return ShownMedium("image", (media.height, media.width))
    return ShownMedium("video", (media.shape[1], media.shape[2]), len(media))


def _boxes(scene: Scene, call: NativeCall, sizes_hw: Sequence[tuple[int, int]]) -> Sequence[FloatBox]:
    if scene.boxes_xyxy is not None:
        return scene.boxes_xyxy(call, sizes_hw)
    return [(0, 0, width, height) for height, width in sizes_hw]


def final_norm_is_behind_the_last_layer(spec: BackboneSpec) -> None:
    """The norm behind the decoder's last layer is where the spec says: what it is given, normed, are the last hidden
    states. Adapters with a mask head read them there."""
    model, native = spec.tiny(0)
    path = spec.parts.norm
    try:
        norm = model.get_submodule(path)
    except AttributeError as error:
        raise AssertionError(
            f"{spec.name}: no norm at '{path}': {error}. Say Parts.final_norm, if '{spec.parts.decoder}' is the "
            "module that is called with inputs_embeds, as `decoder` must be."
        ) from error
    text = native.apply_chat_template([user_message("what is it?")], add_generation_prompt=True, tokenize=False)
    read: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    with torch.no_grad():
        states = model(**native(text=[text], return_tensors="pt"), output_hidden_states=True).hidden_states
        handle.remove()
        same = [each.shape == states[-1].shape and torch.allclose(norm(each), states[-1], atol=1e-5) for each in read]
    assert same == [True], (
        f"{spec.name}: '{path}' is run {len(same)} times in a forward and does not give the last hidden states. Say "
        "Parts.final_norm."
    )


def projector_reads_the_scenes_cells(spec: BackboneSpec) -> None:
    """Where `projector_layers` are named: they are linear layers of the projector that lead from the width of a cell of
    the scene, `cells.side` patches squared in a row or their mean, to the decoder's, and the first of them reads those
    very cells."""
    parts = spec.parts
    if not parts.projector_layers:
        return
    model, native = spec.tiny(0)
    width = spec.cell_patches(model.config) * spec.crops.width(model.config)
    for path in parts.projector_layers:
        layer = model.get_submodule(path)
        inside = isinstance(layer, nn.Linear) and path.startswith(parts.projector)
        assert inside, f"{spec.name}: '{path}' is not a linear layer of the projector '{parts.projector}'"
        assert layer.in_features == width, f"{spec.name}: '{path}' reads width {layer.in_features}, is given {width}"
        width = layer.out_features
    decoder_width = model.get_submodule(parts.token_embedding).embedding_dim
    assert width == decoder_width, f"{spec.name}: the projector ends in width {width}, the decoder's is {decoder_width}"
    read: list[Tensor] = []
    first = model.get_submodule(parts.projector_layers[0])
    handle = first.register_forward_pre_hook(lambda module, args: read.append(args[0].flatten(0, -2)))
    with torch.no_grad():
        scene, _ = _native_scene(spec, model, native, [blots_of((90, 130), seed=1), blots_of((130, 90), seed=2)])
    handle.remove()
    cells = merged_cells(model, spec, scene).features
    apart = torch.cdist(cells, read[0], compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
    assert apart.max() < 1e-3 * cells.norm(dim=1).mean(), (
        f"{spec.name}: the projector's first layer '{parts.projector_layers[0]}' does not read the cells of the scene. "
        "Is cells.side wrong, or a norm left out (of whole cells: cells.norm)?"
    )


_PLACES = ((0, 0), (1, 0), (0.5, 0.4), (1, 1))  # shares of a grid's rows and columns


def scenes_are_where_they_say(spec: BackboneSpec) -> None:
    """A picture with one bright cell lights up that cell of its grid, and no other's, in each way that the spec says of
    images: whole, in `tiles`, and as the projector makes them (`projected`)."""
    model, native = spec.tiny(0)
    for field, scene in (("images", spec.images), ("tiles", spec.tiles)):
        if scene is None:
            continue
        for projected in (False, True) if scene.projected else (False,):
            _check_images(spec, field, scene, model, native, projected=projected)


def _check_images(spec: BackboneSpec, field: str, scene: Scene, model: Any, native: Any, *, projected: bool) -> None:
    plain = [np.full((112, 168, 3), 100, dtype=np.uint8), np.full((168, 112, 3), 100, dtype=np.uint8)]

    def seen(pictures: Sequence[np.ndarray]) -> tuple[FeatureGrids, NativeCall]:
        images = [Image.fromarray(each) for each in pictures]
        call = native_call(model, native, _native_images(native, images), images)
        return _seen(spec, field, scene, call, projected=projected), call

    still, call = seen(plain)
    assert len(still) == len(plain), f"{spec.name}: {field} has {len(still)} grids for {len(plain)} images"
    boxes = _boxes(scene, call, [(each.shape[0], each.shape[1]) for each in plain])
    for index in range(len(plain)):
        h, w = still.grids_hw[index]
        for down, across in _PLACES:
            cell = (round(down * (h - 1)), round(across * (w - 1)))
            pixels = _pixels_of_cell(*cell, (h, w), boxes[index])
            if not all(
                0 <= each.start < each.stop <= side for each, side in zip(pixels, plain[index].shape[:2], strict=True)
            ):
                continue  # where the backbone pads
            bright = [each.copy() for each in plain]
            bright[index][pixels] = 255
            moved, _ = seen(bright)
            found = _most_changed(still, moved)
            assert found == (index, *cell), (
                f"{spec.name}: cell {cell} of image {index} lights up grid, row, column {found} of "
                f"{field}.{'projected' if projected else 'grids'}"
            )


def frames_are_where_videos_says(spec: BackboneSpec) -> None:
    """Where there is a scene of `videos`: a frame with one bright cell lights up that cell of its own grid, in the
    first as in the second of two videos, also as the projector makes them (`projected`)."""
    scene = spec.videos
    if scene is None:
        return
    model, native = spec.tiny(0)
    for projected in (False, True) if scene.projected else (False,):
        _check_frames(spec, scene, model, native, projected=projected)


def _check_frames(spec: BackboneSpec, scene: Scene, model: Any, native: Any, *, projected: bool) -> None:
    frames_per_grid = scene.frames_per_grid(model.config)
    plain = [np.full((4, 112, 168, 3), 100, dtype=np.uint8) for _ in range(2)]

    def seen(videos: Sequence[np.ndarray]) -> tuple[FeatureGrids, NativeCall]:
        call = native_call(model, native, _native_videos(native, videos), videos)
        return _seen(spec, "videos", scene, call, projected=projected), call

    still, call = seen(plain)
    grids_per_video = -(-len(plain[0]) // frames_per_grid)
    assert len(still) == 2 * grids_per_video, (
        f"{spec.name}: {len(still)} grids for two videos of {len(plain[0])} frames, {frames_per_grid} frames a grid"
    )
    boxes = _boxes(scene, call, [each.shape[1:3] for each in plain])
    for video, frame in ((0, 0), (0, 1), (0, 3), (1, 0), (1, 2)):
        grid = video * grids_per_video + frame // frames_per_grid
        h, w = still.grids_hw[grid]
        for row, column in ((0, 0), (h - 1, 0), (h // 2, w // 3), (h - 1, w - 1)):
            bright = [each.copy() for each in plain]
            bright[video][frame][_pixels_of_cell(row, column, (h, w), boxes[video])] = 255
            found = _most_changed(still, seen(bright)[0])
            assert found == (grid, row, column), (
                f"{spec.name}: cell {(row, column)} of frame {frame} of video {video} lights up grid, row, column "
                f"{found}, expected {(grid, row, column)}"
            )


def _most_changed(one: FeatureGrids, other: FeatureGrids) -> tuple[int, int, int]:
    """Grid, row and column of the cell that differs most."""
    change = [(other[index] - one[index]).norm(dim=-1) for index in range(len(one))]
    most = max(range(len(change)), key=lambda index: change[index].max().item())
    return (most, *divmod(int(change[most].argmax()), one.grids_hw[most][1]))


_INSET = 0.25


def _pixels_of_cell(row: int, column: int, grid_hw: tuple[int, int], box: FloatBox) -> tuple[slice, slice]:
    """Where one cell of a grid over `box` lies in its picture, less a share of it at each end: tiles may lose pixels
    there, and an evenly bright cell is not to be seen where each is normalised by itself."""
    x0, y0, x1, y1 = box
    rows = slice(*(round(y0 + at * (y1 - y0) / grid_hw[0]) for at in (row + _INSET, row + 1 - _INSET)))
    columns = slice(*(round(x0 + at * (x1 - x0) / grid_hw[1]) for at in (column + _INSET, column + 1 - _INSET)))
    return rows, columns


def _native_videos(native: Any, videos: Sequence[np.ndarray]) -> Any:
    """Several samples of one video each."""
    message = {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "what is it?"}]}
    text = native.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    metadata = [
        {"fps": 1.0, "total_num_frames": len(each), "frames_indices": list(range(len(each)))} for each in videos
    ]
    return native(
        text=[text] * len(videos),
        videos=list(videos),
        video_metadata=metadata,
        do_sample_frames=False,
        padding=True,
        return_tensors="pt",
    )


def _seen(spec: BackboneSpec, field: str, scene: Scene, call: NativeCall, *, projected: bool) -> FeatureGrids:
    """What the native pass shows of its media."""
    side = spec.cell_side(call.config) if projected else 1
    read = scene.projected if projected else scene.grids
    assert read is not None
    with torch.no_grad():
        path = spec.parts.projector if projected else spec.parts.scene_source
        outputs = _outputs(spec, call.model, call.inputs, path)
        grids = read(call, outputs)
    promised, got = tuple((h // side, w // side) for h, w in scene.grids_hw(call)), grids.grids_hw
    assert promised == got, (
        f"{spec.name}: {field}.grids_hw says {promised}, {field}.{'projected' if projected else 'grids'} gives {got}"
    )
    return grids


def _outputs(spec: BackboneSpec, model: Any, inputs: Any, path: str) -> tuple[Any, ...]:
    """What the module at `path` returns in the native pass, call by call."""
    outputs: list[Any] = []
    handle = model.get_submodule(path).register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        model(**inputs)
    finally:
        handle.remove()
    assert outputs, f"{spec.name}: the native pass of a picture does not call '{path}'"
    return tuple(outputs)


def _difference(one: Tensor, other: Tensor) -> float:
    """How far two grids are apart, as a share of how far `other`'s patches are from their mean."""
    return ((one - other).norm() / (other - other.mean(dim=(0, 1))).norm()).item()


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
    scenes_are_where_they_say,
    frames_are_where_videos_says,
)
