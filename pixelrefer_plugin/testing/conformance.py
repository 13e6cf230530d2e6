"""The checks of the conformance kit. Each is a function that raises `AssertionError` and says what is wrong.

They run on the backbone's own `tiny` model: the real classes with random weights, on a CPU, offline.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..contracts.adapter import AdapterSpec, Planner
from ..contracts.encoded import EncodedView, FeatureGrids, PatchRows
from ..contracts.views import CropView, PatchGeometry, RegionPlan, View
from ..conversation.memory import ObjectMemory
from ..conversation.templates import render
from ..entry import attach, load
from ..errors import PromptError, SpliceError
from ..plugins import get_adapter, get_backbone
from ..regions.mask import RegionMask
from ..regions.region import Region
from ..tokens.layouts import Features
from .adapter_checks import ADAPTER_CHECKS, POINTER_CHECKS
from .backbone_checks import BACKBONE_CHECKS
from .mask_checks import masks_come_where_they_are_asked_for, masks_do_not_depend_on_company, masks_survive_saving
from .pairs import (
    NEW_TOKENS,
    Pair,
    Recorder,
    as_image,
    asks_about_videos,
    awkward_masks,
    make_pair,
    noise_picture,
    portrait_of,
    takes_videos,
    user_message,
    video_part,
    with_answers,
)
from .running import run_check

DEFAULT_ADAPTER = "maskpool"
DEFAULT_BACKBONE = "videollama3"

_SEQUENCES = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")  # as long as the text


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
    passed = [run_check(check, spec) for check in BACKBONE_CHECKS]
    return passed + [run_check(check, adapter, name) for check in checks_of_pair(get_adapter(adapter))]


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
    passed = [run_check(check, spec) for check in checks_of_adapter(spec)]
    return passed + [run_check(check, name, backbone) for check in checks_of_pair(spec)]


def checks_of_adapter(spec: AdapterSpec) -> tuple[Callable[[AdapterSpec], None], ...]:
    """The checks of an adapter alone."""
    return POINTER_CHECKS if spec.is_training_free else ADAPTER_CHECKS


def checks_of_pair(spec: AdapterSpec) -> tuple[Callable[[str, str], None], ...]:
    """The checks of an adapter together with a backbone."""
    return POINTER_PAIR_CHECKS if spec.is_training_free else PAIR_CHECKS


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
            options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
            same = torch.equal(bare.generate(**native, **options), pair.model.generate(**ours, **options))
            assert same, f"{kind}, {dtype}: generated ids differ from the bare backbone's"
        pair.model.detach()


def _without_regions(pair: Pair) -> Iterator[tuple[str, Any, Any]]:
    """A picture and, where the backbone takes them, a video: inputs of our processor and of the native one."""

    def native(kind: str, **media: Any) -> Any:
        parts = [{"type": kind}, {"type": "text", "text": "describe it"}]
        message = {"role": "user", "content": parts}
        text = render(pair.native, [message], add_generation_prompt=True)
        return pair.native(text=[text], **media, **_begun(pair.native, text), return_tensors="pt")

    picture = noise_picture((110, 60), seed=2)
    asked = pair.processor([user_message(picture, "describe it")])
    yield "picture", asked, native("image", images=[[as_image(picture)]])
    if takes_videos(pair.native):
        video = video_part()
        metadata = {"fps": 2.0, "total_num_frames": len(video["video"]), "frames_indices": [0, 1, 2, 3, 4]}
        expected = native("video", videos=[video["video"]], video_metadata=[metadata], do_sample_frames=False)
        yield "video", pair.processor([user_message(video, "describe it")]), expected


def _begun(native: Any, text: str) -> dict[str, bool]:
    """The option that transformers' own `apply_chat_template` takes where a template writes the token that a tokenizer
    begins texts with."""
    bos = native.tokenizer.bos_token
    return {"add_special_tokens": False} if bos is not None and text.startswith(bos) else {}


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
        first = (inputs[0]["input_ids"][0] == pair.processor.tokens.placeholder).nonzero()[0].item()
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
    before = portrait_of(bare)
    tiny = get_adapter(adapter).tiny
    model, _ = attach(bare, pair.native, adapter=adapter, adapter_config=tiny, backbone_plugin=backbone)
    model.add_lora(scopes=tuple(get_backbone(backbone).lora_targets))
    model(**with_answers(pair)).loss.backward()
    model.generate(**pair.inputs(0), max_new_tokens=2)
    returned = model.detach()
    assert returned is bare
    after = portrait_of(bare)
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


def media_are_mixed_as_the_spec_says(adapter: str, backbone: str) -> None:
    """Where a batch may not mix pictures and videos (`mixes_media`): one of videos answers as its samples do, and a
    mixed one is refused."""
    pair = make_pair(adapter, backbone)
    if pair.processor.mixes_media or not asks_about_videos(adapter, backbone, pair.native):
        return
    asked = [user_message(video_part(), "what does <region> do?")]
    regions = [[{0: Region.from_box((8, 8, 30, 40))}], [{4: Region.from_box((40, 10, 62, 40))}]]
    batch = pair.answer(pair.processor([asked, asked], regions))
    for answer, own in zip(batch, regions, strict=True):
        alone = pair.answer(pair.processor(asked, own))
        assert torch.equal(answer[None], alone), "a question about a video is answered otherwise in a batch"
    shown = [user_message(video_part(), "what happens?")]  # without regions, so that any adapter shows it
    try:
        pair.processor([shown, pair.conversations[2]])
    except PromptError:
        pair.model.detach()
        return
    raise AssertionError("a batch of a picture and a video was accepted")


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
    streamer = Recorder(pair.processor.tokenizer, skip_prompt=True)
    ids = pair.answer(single, streamer=streamer)
    assert streamer.ids == ids[0].tolist(), "streamed ids differ from those returned"
    pair.model.detach()


def the_framework_is_kept(adapter: str, backbone: str) -> None:
    """Vision-Object leaves the pictures' inputs as they are; Object-Only shows the decoder text and object tokens
    alone, however large the picture, and only the conversations without regions their pictures."""
    pair, lengths = make_pair(adapter, backbone), []
    question, region = "what is <region>?", Region.from_box((8, 8, 30, 40))
    for hw in ((60, 60), (120, 180)):
        asked = pair.processor([user_message(noise_picture(hw), question)], [region])
        bare = pair.processor([user_message(noise_picture(hw), question.replace("<region>", "[]"))])
        if get_adapter(adapter).framework == "vision-object":
            for name in set(bare) - set(_SEQUENCES):
                assert torch.equal(asked[name], bare[name]), f"input {name} is another than without a region"
        else:
            assert not set(asked) & (set(bare) - set(_SEQUENCES)), "an Object-Only adapter's batch holds the picture"
            lengths.append(asked["input_ids"].shape[1] - sum(asked["regions"].counts))
    if lengths:
        only_text = pair.processor([user_message(question.replace("<region>", "[]"))])["input_ids"].shape[1]
        assert len(set(lengths)) == 1, f"the length of the sequence depends on the picture's size: {lengths}"
        assert lengths[0] <= only_text + 1, f"{lengths[0]} tokens besides the object's, where the text has {only_text}"
        mixed = pair.processor([pair.conversations[0], pair.conversations[2]], [pair.regions[0], []])
        alone = pair.processor(pair.conversations[2])
        for name in sorted(set(alone) - set(_SEQUENCES)):
            same = torch.equal(_without_padding(mixed[name]), _without_padding(alone[name]))
            assert same, f"a batch shows other pictures than its samples: input {name} differs"
    pair.model.detach()


def _without_padding(values: Tensor) -> Tensor:
    """Pictures, tiles or patches that are not all zero, one after another. Where the samples of a batch have more and
    fewer of them, a processor may fill up with zeros: samples, their tiles, or rows and columns."""
    things = values.flatten(0, -4) if values.dim() > 3 else values.flatten(0, -2) if values.dim() > 1 else values
    things = things[things.flatten(1).any(dim=1)] if things.dim() > 1 else things[things != 0]
    for side in range(2, things.dim()):  # rows and columns of pictures
        seen = things.movedim(side, 0).flatten(1).any(dim=1).nonzero()
        things = things.narrow(side, 0, int(seen.max()) + 1 if len(seen) else 0)
    return things


def promised_is_delivered(adapter: str, backbone: str) -> None:
    """As many placeholders as object tokens, also for awkward masks; a lost placeholder is refused."""
    pair = make_pair(adapter, backbone)
    for mask in awkward_masks():
        height, width = mask.image_hw
        asked = [user_message(noise_picture((height, width)), "<region>")]
        inputs = pair.processor(asked, [Region.from_mask(mask.dense())])
        with torch.no_grad():
            assert torch.isfinite(pair.model(**inputs).logits).all(), f"mask of {mask.area} px in {mask.image_hw}"
    inputs = pair.inputs(0)
    at = (inputs["input_ids"][0] == pair.processor.tokens.placeholder).nonzero()[0].item()
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
    width = get_backbone(backbone).crops.width(pair.model.backbone.config)
    assert pair.processor._planner is not None, "an adapter that asks for crops has a planner"
    pair.processor._planner = _HalfEncoding(pair.processor._planner)
    batch = pair.inputs(0)["regions"]
    generator = torch.Generator().manual_seed(0)
    total = sum(h * w for h, w in batch.crop_grids_hw)
    crops = FeatureGrids(torch.randn(total, width, generator=generator), batch.crop_grids_hw)
    views = [layout.encoded(Features(crops)) for layout in batch.views]
    with torch.no_grad():
        tokens = pair.model.adapter(tuple(views), batch.counts)
        expected = pair.model.adapter(tuple(map(_beforehand, views)), batch.counts)
    assert torch.allclose(tokens, expected, atol=1e-5), (
        "the adapter does not read the features stretched; it should select them with patch_features() or pooled()"
    )
    pair.model.detach()


def _asks_for_stretched_features(spec: AdapterSpec) -> bool:
    """Whether a plan of it does, by default or with a preset."""
    geometry = PatchGeometry(patch_size=14, grid_multiple=2)
    planners = [spec.make_planner(spec.make_config(preset)) for preset in (None, *spec.presets)]
    plans = [planner.plan(mask, geometry) for planner in planners if planner for mask in awkward_masks()]
    crops = [view for plan in plans for view in plan.views if isinstance(view, CropView)]
    return any(crop.tower_hw != crop.grid_hw for crop in crops)


class _HalfEncoding(Planner[Any]):
    """Plans as another does, with the crops of masks encoded in half as many rows and columns, still of even number."""

    def __init__(self, planner: Planner[Any]) -> None:
        super().__init__(planner.config)
        self._planner = planner

    def plan(self, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
        plan = self._planner.plan(mask, geometry)
        return dataclasses.replace(plan, views=tuple(map(_half_encoded_view, plan.views)))

    def together(self, plans: Sequence[RegionPlan]) -> Sequence[RegionPlan]:
        return self._planner.together(plans)


def _half_encoded_view(view: View | None) -> View | None:
    if not isinstance(view, CropView) or view.mask is None:
        return view
    rows, columns = (max(2, side // 4 * 2) for side in view.grid_hw)
    return dataclasses.replace(view, encoded_hw=(rows, columns))


def _beforehand(view: EncodedView) -> EncodedView:
    """The view with its stretched features as rows of a further grid, where plain selecting finds them."""
    if view.rows.weights is None:
        return view
    stretched = view.patch_features()
    first = len(view.grids.features)
    return dataclasses.replace(
        view,
        grids=FeatureGrids(torch.cat([view.grids.features, stretched]), (*view.grids.grids_hw, (1, len(stretched)))),
        rows=PatchRows(torch.arange(first, first + len(stretched))),
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
    pair.model.train()(**with_answers(pair)).loss.backward()
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
    if pair.model.adapter_spec.masks is not None:
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
        loaded, processor = load(folder, backbone=fresh)
        with torch.no_grad():
            got = loaded(**processor(pair.conversations, pair.regions)).logits
    assert torch.equal(expected, got), "logits differ after saving and loading"
    pair.model.detach()
    loaded.detach()


def regions_are_pointed_at(adapter: str, backbone: str) -> None:
    """Another region changes what the model is given, a region that is called twice is one, and no placeholder and no
    object token is left; awkward masks are pointed at too, in float32 and bfloat16."""
    for dtype in (torch.float32, torch.bfloat16):
        pair = make_pair(adapter, backbone, dtype=dtype)
        conversation, kept = pair.conversations[0], pair.regions[0][1]
        one, other = Region.from_box((2, 2, 40, 30)), Region.from_box((70, 30, 108, 58))
        inputs = [pair.processor(conversation, [each, kept]) for each in (one, other)]
        for each in inputs:
            assert "regions" not in each, "an adapter that points makes no object tokens"
            assert not (each["input_ids"] == pair.processor.tokens.placeholder).any(), "a placeholder is left"
        assert not _alike(*inputs), "another region changes nothing that the model is given"
        again = pair.processor(conversation, [one, one])
        assert not _alike(again, pair.processor(conversation, [one, other])), "a region called twice passes for two"
        for mask in awkward_masks():
            height, width = mask.image_hw
            asked = [user_message(noise_picture((height, width)), "what is <region>?")]
            with torch.no_grad():
                logits = pair.model(**pair.processor(asked, [Region.from_mask(mask.dense())])).logits
            assert torch.isfinite(logits).all(), f"{dtype}: mask of {mask.area} px in {mask.image_hw}"
        pair.model.detach()


def _alike(one: Any, other: Any) -> bool:
    """Whether two batches are equal, tensor by tensor."""
    return set(one) == set(other) and all(
        one[name].shape == other[name].shape and torch.equal(one[name], other[name]) for name in one
    )


_TWO_BOXES = ((8, 8, 60, 50), (70, 30, 108, 58))


def pointed_objects_are_listed(adapter: str, backbone: str) -> None:
    """The objects of a memory are listed by their numbers, which a question calls; a turn that is asked later leaves
    the words for a region of an earlier one, which has been answered."""
    pair = make_pair(adapter, backbone)
    picture, one, other = as_image(noise_picture((70, 120), seed=1)), *map(Region.from_box, _TWO_BOXES)
    turns = [
        user_message(picture, "what is <region>?"),
        {"role": "assistant", "content": "a cup"},
        user_message("and <region>?"),
    ]
    first, more = pair.processor.pointed(turns[:1], [one]), pair.processor.pointed(turns, [one, other])
    before, after = (made[0]["content"][-1]["text"] for made in (first, more))
    assert before == after, f"a further region changes the words for an earlier one, {before!r}, to {after!r}"
    memory = ObjectMemory(picture)
    memory.add(one, id=7)
    asked = pair.processor([user_message(picture, "what is [7] beside?")], memory=memory)
    text = pair.processor.tokenizer.decode(asked["input_ids"][0])
    assert text.count("[7]") >= 2, f"object 7 is not listed: {text}"
    with torch.no_grad():
        assert torch.isfinite(pair.model(**asked).logits).all(), "logits are not finite"
    pair.model.detach()


PAIR_CHECKS: tuple[Callable[[str, str], None], ...] = (
    no_regions_is_the_base_model,
    regions_reach_the_decoder,
    the_framework_is_kept,
    promised_is_delivered,
    a_region_is_the_same_in_company,
    stretched_features_are_read,
    a_batch_answers_as_its_samples_do,
    media_are_mixed_as_the_spec_says,
    generation_works_as_usual,
    gradients_reach_what_trains,
    detach_leaves_no_trace,
    saving_and_loading_changes_nothing,
    masks_come_where_they_are_asked_for,
    masks_do_not_depend_on_company,
    masks_survive_saving,
)
"""Of an adapter that makes object tokens, together with a backbone."""

POINTER_PAIR_CHECKS: tuple[Callable[[str, str], None], ...] = (
    no_regions_is_the_base_model,
    regions_are_pointed_at,
    pointed_objects_are_listed,
    a_batch_answers_as_its_samples_do,
    media_are_mixed_as_the_spec_says,
    generation_works_as_usual,
    gradients_reach_what_trains,
    detach_leaves_no_trace,
    saving_and_loading_changes_nothing,
)
"""Of an adapter that points in words and pictures, together with a backbone."""
