"""Checks of masks in answers. Each raises `AssertionError` and says what is wrong."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..contracts.masks import Clips, MaskTargets, PredictedMasks, SegmentedObject
from ..masks.objects import GeneratedMasks
from ..model import RegionModel
from ..plugins import get_adapter, get_backbone
from ..regions.region import VideoRegion
from .pairs import NEW_TOKENS, Pair, make_pair, noise_picture, takes_videos, user_message, video_part


def masks_come_where_they_are_asked_for(adapter: str, backbone: str) -> None:
    """Where the adapter gives masks: an answer that is made to give one has an object with a presence for the picture,
    or for each sampled frame, and masks at the original size; an answer that gives none has no objects, and the head is
    not run."""
    if get_adapter(adapter).masks is None:
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
    yield (70, 120), [0], pair.processor([user_message(noise_picture((70, 120)), "segment it")], segment=True)
    if takes_videos(pair.native):
        yield (70, 70), [0, 1, 2, 3, 4], pair.processor([user_message(video_part(), "segment it")], segment=True)


def _masks(pair: Pair, inputs: Any, *, model: RegionModel | None = None, silent: bool = False) -> GeneratedMasks:
    """Answers that give a mask at their end, or, `silent`, none."""
    unwanted = [*pair.media_ids, pair.processor.tokens.mask] if silent else pair.media_ids
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": NEW_TOKENS, "suppress_tokens": unwanted}
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
    if spec.masks is None:
        return
    pair = make_pair(adapter, backbone)
    head: Any = pair.model.adapter
    px = spec.masks.picture_px(spec.make_config(spec.tiny))
    width = pair.model.backbone.get_submodule(get_backbone(backbone).parts.token_embedding).embedding_dim
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
    if get_adapter(adapter).masks is None:
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
