"""The FLOP counts of `speed/paper_efficiency.py`, derived again from the shapes of the matrices; and that
`speed/training.py` compares like with like, and `speed/lora_step.py` runs."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "speed"))

from joint_training import measure_all as measure_joint_training
from joint_training import summary as summary_of_joint_training
from lora_step import measure as measure_lora_step
from many_masks import TINY as TINY_FRAMES
from many_masks import measure as measure_many_masks
from paper_efficiency import (  # scripts, not a package
    GLOBAL_TOKENS,
    LOCAL_TOKENS,
    ROWS,
    SHAPES,
    TINY,
    Tokens,
    by_part,
    count_by_module,
    decoder_macs,
    formula_macs,
    infusion_macs,
    make_config,
    make_inputs,
    make_model,
    make_native_processor,
    measure,
)
from region_tokens import TINY as TINY_WIDTHS
from region_tokens import Subject
from region_tokens import measure as measure_region_tokens
from training import measure as measure_training

ROW = {row.name: row for row in ROWS}


@pytest.fixture(scope="module")
def native():
    return make_native_processor()


LITE = ["2B-Lite, image", "2B-Lite, video"]


@pytest.fixture(scope="module")
def counted(request, native):
    """The inputs of a row, its tokens, and its FLOPs by module."""
    row = ROW[request.param]
    model = make_model(SHAPES["2B"], row.adapter, native, "meta")
    inputs = make_inputs(row, native, model.backbone.config)
    return inputs, Tokens.of(inputs, model.backbone.config), count_by_module(model, inputs)


@pytest.mark.parametrize("counted", ["2B, image", *LITE], indirect=True)
def test_attention_and_ffn_are_twice_the_formula(counted):
    _, tokens, counts = counted
    assert by_part(counts)["layers"] == 2 * decoder_macs(SHAPES["2B"], tokens.all, ffn_matrices=3)


@pytest.mark.parametrize("counted", ["2B, image", *LITE], indirect=True)
def test_all_other_parts(counted):
    """What the formulas leave out: the head, the projector and the tower."""
    inputs, tokens, counts = counted
    shape, parts = SHAPES["2B"], by_part(counts)
    scene_grids = [(h, w) for t, h, w in inputs.get("image_grid_thw", [])]
    per_image = [int(h * w) for h, w in [*scene_grids, *inputs["regions"].crop_grids_hw]]
    c, patches = shape.vision_hidden, sum(per_image)
    tower_layer = patches * (4 * c * c + 2 * c * shape.vision_ffn) + 2 * c * sum(each**2 for each in per_image)
    assert parts["vision_tower"] == 2 * (shape.vision_layers * tower_layer + patches * 3 * 14 * 14 * c)
    assert parts["lm_head"] == 2 * tokens.all * shape.hidden * shape.vocab
    assert parts["projector"] == 2 * tokens.scene * (c * shape.hidden + shape.hidden**2)
    assert parts["all"] == sum(parts.values()) - parts["all"]


@pytest.mark.parametrize("counted", LITE, indirect=True)
def test_infusion_is_less_than_eq_10_since_few_tokens_take_the_projections_upon_themselves(counted):
    inputs, tokens, counts = counted
    width, frames, num_heads = SHAPES["2B"].vision_hidden, inputs["regions"].frames_per_region[0], 8
    for context, context_tokens in (("local", LOCAL_TOKENS), ("global", GLOBAL_TOKENS)):
        in_and_out = 2 * tokens.objects * width**2
        absorbed = 2 * tokens.objects * width * (width + num_heads * context_tokens)
        counted_here = counts[f"RegionModel.adapter.attentions.{context}"]
        assert counted_here == 2 * (in_and_out + absorbed)
        projections = infusion_macs(width, tokens.objects, frames * context_tokens)
        products = 2 * tokens.objects * context_tokens * width
        assert counted_here < projections + products, "half of the formula's"


@pytest.mark.parametrize("row", [row for row in ROWS if not (row.is_lite and row.media == "video")], ids=str)
def test_the_papers_figures_are_multiply_adds_with_two_ffn_matrices(row):
    scene = {"image": 1408, "video": 7185}[row.media] * (not row.is_lite)
    sizes = {"object_tokens": 32, "scene_tokens": scene, "frames": 1}
    assert formula_macs(row, **sizes, ffn_matrices=2) / 1e12 == pytest.approx(row.paper_tflops, abs=0.0051)
    assert formula_macs(row, **sizes, ffn_matrices=3) / 1e12 > row.paper_tflops + 0.0051


def test_eq_10_counts_the_infusion_at_the_width_of_the_decoder():
    shape = SHAPES["7B"]
    at_towers_width = decoder_macs(shape, 32, ffn_matrices=2) + sum(
        infusion_macs(shape.vision_hidden, 32, context_tokens) for context_tokens in (LOCAL_TOKENS, GLOBAL_TOKENS)
    )
    assert round(at_towers_width / 1e12, 2) == 0.15 < ROW["7B-Lite, image"].paper_tflops


def test_the_video_has_as_many_scene_tokens_as_the_papers(native):
    config = make_config(TINY, native.tokenizer)
    tokens = Tokens.of(make_inputs(ROW["2B, video"], native, config), config)
    assert (tokens.objects, tokens.scene) == (32, 7185)


def test_the_measuring_code_runs_without_a_gpu(native):
    result = measure(ROW["2B-Lite, image"], native, "cpu", shape=TINY, repeats=1)
    assert result["peak_gib"] is None
    assert 0 < result["weights_gib"] < 0.01


def test_grouping_trains_on_the_same_tokens_with_less_padding():
    result = measure_training(samples=12, batch_size=3, repeats=1, workers=1)
    assert result["tokens"]["grouped"] == result["tokens"]["shuffled"] > 0
    assert result["padding"]["grouped"] < result["padding"]["shuffled"]
    assert result["samples_per_s"].keys() == {"grouped", "shuffled", "loader"}


@pytest.mark.filterwarnings("ignore:.*checkpointing.*deprecated:FutureWarning")  # the older name works in every version
def test_lora_steps_are_measured():
    result = measure_lora_step(TINY, "cpu", batch_size=2, steps=1, image_hw=(56, 84))
    assert result["regions"] == 16
    assert result["achieved_tflops"] * result["step_s"] > 0
    assert result["samples_per_s"] == pytest.approx(2 / result["step_s"])


def test_masks_are_measured_beside_dense_ones():
    result = measure_many_masks("noise", **TINY_FRAMES)
    assert result["regions"] == 10
    assert result["memory_ratio"] > 5  # a bit for each pixel instead of a byte
    assert result["time_ratio"] == pytest.approx(result["dense_ms"] / result["compact_ms"])


@pytest.mark.parametrize("preset", [None, "official"])
@pytest.mark.parametrize("adapter", ["saot", "oci"])
def test_region_tokens_are_measured_beside_the_plain_way_and_the_floor(adapter, preset):
    result = measure_region_tokens(Subject(adapter, TINY_WIDTHS, preset=preset), 3, "smooth", repeats=1)
    stages = result["ours_ms"]
    assert stages["sum"] == pytest.approx(sum(stages.values()) - stages["sum"])
    assert (stages["attention"] > 0) == (adapter == "oci")
    assert set(result["floor"]["gflop"]) == {"mlp", "k-means"} | ({"local", "global"} if adapter == "oci" else set())
    assert result["peak_mb_per_region"] > 0
    assert result["crops_mb_per_region"] > (0.15 if adapter == "oci" else 0)  # 224² pixels by themselves are that
    quality = result["kmeans_squares_over_random_start"]
    assert 0 < quality["scikit-learn"] < 1.05
    assert 0 < quality["ours"] < (1.5 if preset else 1)  # the preset's start is a random one


def test_clicks_and_masks_are_learnt_apart_and_together():
    runs = list(measure_joint_training([0], steps=4, num_scenes=2))
    assert [(run["how"], run["steps"]) for run in runs] == [
        ("apart", 4),
        ("apart", 3),
        ("together", 4),
        ("half as long", 2),
    ]
    apart = {**runs[0]["scores"], **runs[1]["scores"]}
    assert apart.keys() == runs[2]["scores"].keys() == runs[3]["scores"].keys()
    table = summary_of_joint_training(runs)
    assert {tuple(sorted(row)) for row in table.values()} == {("apart", "half as long", "together")}
