"""Every adapter, every backbone and every pair of them, through the public conformance kit."""

from dataclasses import replace
from itertools import count

import pytest
import tiled
import torch
from conftest import picture, user
from transformers import AutoTokenizer

from pixelrefer_plugin import Region, RegionProcessor, VideoRegion, get_adapter, get_backbone
from pixelrefer_plugin.authoring import PromptView, RegionPlan, SceneView
from pixelrefer_plugin.testing import (
    BACKBONE_CHECKS,
    PAIR_CHECKS,
    check_backbone,
    checks_of_adapter,
    checks_of_pair,
    make_pair,
    tiny_tokenizer,
)
from pixelrefer_plugin.testing.adapter_checks import drawn_regions_are_planned_purely
from pixelrefer_plugin.testing.backbone_checks import projector_reads_the_scenes_cells
from pixelrefer_plugin.testing.conformance import _without_padding

# A new plugin adds one name.
ADAPTERS = ["maskpool", "saot", "oci", "unipixel", "coordinates", "marks", "crops"]
BACKBONES = [
    *("videollama3", "qwen2_5_vl", "llava_onevision", "internvl", "idefics3", "smolvlm"),
    *("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "gemma3", "gemma4", "gemma4_unified"),
]


def _name(check):
    return check.__name__


def _with(checks):
    """Every adapter with each check that applies to it."""
    return [
        pytest.param(adapter, check, id=f"{adapter}-{check.__name__}")
        for adapter in ADAPTERS
        for check in checks(get_adapter(adapter))
    ]


@pytest.mark.parametrize(("adapter", "check"), _with(checks_of_adapter))
def test_adapter(adapter, check):
    check(get_adapter(adapter))


@pytest.mark.parametrize("check", BACKBONE_CHECKS, ids=_name)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_backbone(backbone, check):
    check(get_backbone(backbone))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_default_way_of_pointing_takes_all_media_of_the_backbone(backbone):
    spec = get_backbone(backbone)
    model, native = spec.tiny(0)
    processor = RegionProcessor(native, model.config, adapter=spec.pointing)
    pixels = picture(56, 84)
    media = [(pixels, Region.from_box((8, 8, 40, 30)))]
    if getattr(native, "video_processor", None) is not None:
        media.append(({"type": "video", "video": [pixels] * 4, "fps": 2}, VideoRegion({1: media[0][1]})))
    for medium, region in media:
        assert "<region>" not in str(processor.pointed([user(medium, "What is <region>?")], [region]))


# The pairs that run by default: those of these backbones and of this adapter. The others are marked slow, also those of
# families whose other members are fed alike.
LIKELY, LIKELIEST = {"videollama3", "qwen2_5_vl", "llava_onevision"}, "saot"
UNLIKELY = {"qwen3_vl_moe", "qwen3_5_moe", "gemma4_unified", "smolvlm"}


def _is_likely(backbone, adapter):
    return backbone in LIKELY or (adapter == LIKELIEST and backbone not in UNLIKELY)


def _pairs():
    return [
        pytest.param(
            backbone,
            *case.values,
            id=f"{backbone}-{case.id}",
            marks=() if _is_likely(backbone, case.values[0]) else pytest.mark.slow,
        )
        for backbone in BACKBONES
        for case in _with(checks_of_pair)
    ]


@pytest.mark.parametrize(("backbone", "adapter", "check"), _pairs())
def test_pair(backbone, adapter, check):
    check(adapter, backbone)


def test_a_backbone_with_tiles_and_a_norm_of_cells_conforms(monkeypatch):
    tiled.install(monkeypatch)
    assert check_backbone("tiled", adapter="unipixel")  # which reads merged cells


def test_a_backbone_that_does_not_mix_media_is_never_given_both(monkeypatch):
    spec = replace(get_backbone("llava_onevision"), mixes_media=False)
    for module in ("model", "processor"):
        monkeypatch.setattr(f"pixelrefer_plugin.{module}.backbone_for", lambda *_: spec)
    for check in PAIR_CHECKS:
        check("saot", "llava_onevision")


def test_no_answer_in_the_kit_says_a_picture_where_prompts_have_another_token_for_it():
    """Gemma 3's processor replaces one by others; a random model says any."""
    pair = make_pair("maskpool", "qwen2_5_vl")
    pair.native.image_token = "<|vision_start|>"
    wanted = [pair.model.backbone.config.image_token_id, pair.model.backbone.config.vision_start_token_id]
    assert set(wanted) < set(pair.media_ids)
    pair.model.detach()


def _padded(values, *shape):
    """Values in the upper left corner of zeros."""
    padded = torch.zeros(shape, dtype=values.dtype)
    padded[tuple(slice(side) for side in values.shape)] = values
    return padded


@pytest.mark.parametrize(
    ("alone", "mixed"),
    [
        ((4, 6), (9, 6)),  # patches
        ((1, 4, 6), (2, 7, 6)),  # patches of samples
        ((1, 3, 8, 8), (3, 3, 8, 8)),  # pictures
        ((1, 3, 8, 6), (2, 3, 8, 9)),  # of other sizes
        ((1, 2, 3, 8, 8), (1, 5, 3, 8, 8)),  # tiles
        ((1, 2, 3, 8, 6), (3, 5, 3, 9, 9)),
        ((1, 1, 2, 3, 8, 8), (2, 4, 5, 3, 8, 8)),  # tiles of pictures of samples
        ((3,), (5,)),
    ],
)
def test_pictures_are_compared_without_what_fills_a_batch_up(alone, mixed):
    values = torch.rand(alone, generator=torch.Generator().manual_seed(0)) + 1
    seen = _without_padding(values)
    assert torch.equal(seen, _without_padding(_padded(values, *mixed)))
    assert not torch.equal(seen, _without_padding(_padded(values.flip(-1), *mixed)))


def test_a_norm_of_cells_left_out_is_found():
    with pytest.raises(
        AssertionError, match=r"does not read the cells of the scene. .* \(of whole cells: cells.norm\)"
    ):
        projector_reads_the_scenes_cells(replace(tiled.SPEC, cells=replace(tiled.SPEC.cells, norm=None)))


def test_named_tokens_of_a_tiny_tokenizer_survive_saving(tmp_path):
    made = tiny_tokenizer(["a"], tiled.TOKENS, tiled.TEMPLATE, named_tokens=tiled.NAMED)
    made.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.video_token_id == made.video_token_id == made.convert_tokens_to_ids("<video>")
    with pytest.raises(ValueError, match=r"\['<clip>'\] must be among special_tokens"):
        tiny_tokenizer(["a"], tiled.TOKENS, tiled.TEMPLATE, named_tokens={"video_token": "<clip>"})


VIEWS = (None, PromptView())


@pytest.mark.parametrize(
    ("plan_of_call", "message"),
    [
        (lambda call: RegionPlan(1, VIEWS[1:]), "views .* for a drawn 'points', .* for a mask"),
        (lambda call: RegionPlan(1, (PromptView(), SceneView())), "views .* for a drawn 'points', .* for a mask"),
        (lambda call: RegionPlan(call, VIEWS), "'points' planned twice, 1 tokens and 2"),
    ],
    ids=["fewer views than for masks", "other views than for masks", "another number of tokens"],
)
def test_a_mistake_in_drawn_plans_has_a_clear_message(plan_of_call, message):
    calls = count(1)
    unipixel = get_adapter("unipixel")

    class Mistaken(unipixel.planner):
        def plan_drawn(self, region):
            return plan_of_call(next(calls))

    with pytest.raises(AssertionError, match=message):
        drawn_regions_are_planned_purely(replace(unipixel, planner=Mistaken))
