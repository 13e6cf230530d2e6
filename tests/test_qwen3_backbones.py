"""Qwen3-VL and Qwen3.5: what the kit does not ask of them. Features handed to further layers, runs of a video's tokens
with their times, and a decoder whose state takes the place of keys and values."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from pixelrefer_plugin import Region, VideoRegion, get_backbone
from pixelrefer_plugin.authoring import NativeCall, SaidCoordinates, cell_by_cell
from pixelrefer_plugin.testing import make_pair

# Mixtures of experts differ from the dense models in what is not looked at here.
DEEPSTACK = ["qwen3_vl", pytest.param("qwen3_vl_moe", marks=pytest.mark.slow)]
HYBRID = ["qwen3_5", pytest.param("qwen3_5_moe", marks=pytest.mark.slow)]
QWEN3 = DEEPSTACK + HYBRID
PACKED = ["qwen2_5_vl", *QWEN3]

BOX = Region.from_box((8, 8, 30, 40))


def message(*parts):
    """A user's message of texts, pictures and clips, of two frames a second."""

    def written(part):
        if isinstance(part, str):
            return {"type": "text", "text": part}
        return {"type": "video", "video": part, "fps": 2.0} if part.ndim == 4 else {"type": "image", "image": part}

    return [{"role": "user", "content": [written(part) for part in parts]}]


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def calls_of(module, run):
    """The keyword arguments of every call of a module while something runs."""
    calls = []
    handle = module.register_forward_pre_hook(lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True)
    with torch.no_grad():
        run()
    handle.remove()
    return calls


def decoder_of(pair):
    return pair.model.backbone.get_submodule(pair.model.backbone_spec.parts.decoder)


def text_of(pair, inputs, row=0):
    """The prompt without its padding, each run of a picture's tokens as their number."""
    ids = inputs["input_ids"][row][inputs["attention_mask"][row].bool()]
    return re.sub(
        r"(<\|(?:image|video)_pad\|>)+", lambda run: f"({run[0].count('pad')})", pair.processor.tokenizer.decode(ids)
    )


# -- Order -------------------------------------------------------------------------------------------------


def test_a_planted_picture_is_cell_by_cell_as_the_native_processor_has_it():
    """Every patch of the picture has its number in raster order as its grey level."""
    vision = get_backbone("qwen3_vl").tiny(0)[0].config.vision_config
    h, w = 4, 6
    planted = np.kron(np.arange(h * w).reshape(h, w), np.ones((16, 16))).astype(np.uint8)
    processor = Qwen2VLImageProcessorPil(
        patch_size=16, do_normalize=False, do_rescale=False, size={"shortest_edge": 1, "longest_edge": 10**6}
    )
    fed = processor(Image.fromarray(planted).convert("RGB"), return_tensors="pt")["pixel_values"]
    assert torch.equal(cell_by_cell(vision, (h, w)), fed.mean(dim=1).long())


@pytest.mark.parametrize("backbone", PACKED)
def test_projected_scenes_are_the_tokens_that_the_decoder_gets(backbone):
    """Of two pictures and two videos of other sizes, an odd number of frames, in a batch with left padding."""
    pair = make_pair("maskpool", backbone)
    model, spec = pair.model.backbone, pair.model.backbone_spec
    clip = noise(5, 70, 130, seed=1)
    inputs = pair.processor(
        [
            message(noise(70, 120), clip, noise(90, 60), "what?"),
            message(noise(3, 64, 64, seed=2), "a longer question?"),
        ],
    )
    projected = []
    handle = model.get_submodule(spec.parts.projector).register_forward_hook(lambda *call: projected.append(call[2]))
    (call,) = calls_of(decoder_of(pair), lambda: model(**inputs))
    handle.remove()
    native = NativeCall(model.config, inputs, {}, model)
    for scene, token in ((spec.images, model.config.image_token_id), (spec.videos, model.config.video_token_id)):
        got = call["inputs_embeds"][inputs["input_ids"] == token]
        assert len(got)
        assert torch.allclose(got, scene.projected(native, projected).features, atol=1e-5)


# -- Deepstack ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", DEEPSTACK)
@pytest.mark.parametrize("beams", [1, 3])
def test_features_of_further_layers_go_to_pictures_and_never_to_objects(backbone, beams):
    pair = make_pair("saot", backbone)
    inputs = pair.inputs()
    prompt, *steps = calls_of(decoder_of(pair), lambda: pair.answer(inputs, num_beams=beams))
    ids, config = inputs["input_ids"].repeat_interleave(beams, dim=0), pair.model.backbone.config
    at_pictures = (ids == config.image_token_id) | (ids == config.video_token_id)
    mask = prompt["visual_pos_masks"]
    assert torch.equal(mask, at_pictures)
    at_objects = inputs["input_ids"] == pair.processor.tokens.placeholder
    assert at_objects.any()
    assert not inputs["mm_token_type_ids"][at_objects].any()  # which would count as rows and columns
    assert [len(each) for each in prompt["deepstack_visual_embeds"]] == [int(mask.sum())] * 2
    assert steps
    assert all(step.get("deepstack_visual_embeds") is None for step in steps)


@pytest.mark.parametrize("backbone", DEEPSTACK)
def test_spliced_rows_and_further_layers_are_aligned(backbone):
    """The decoder, called by hand with object tokens put where the placeholders stand, gives the same."""
    pair = make_pair("saot", backbone)
    inputs = pair.inputs(padding_side="left")
    decoder, got = decoder_of(pair), []
    keep = decoder.register_forward_hook(lambda *call: got.append(call[2].last_hidden_state))
    (call,) = calls_of(decoder, lambda: pair.model(**inputs))  # as it is before the splice
    keep.remove()
    with torch.no_grad():
        embeds = call["inputs_embeds"].clone()
        embeds[inputs["input_ids"] == pair.processor.tokens.placeholder] = pair.model.object_tokens(inputs["regions"])
        by_hand = decoder(**{**call, "inputs_embeds": embeds, "cache": None}).last_hidden_state
        moved = torch.roll(call["visual_pos_masks"], 1, dims=1)
        elsewhere = decoder(**{**call, "inputs_embeds": embeds, "visual_pos_masks": moved, "cache": None})
    seen = inputs["attention_mask"].bool()
    assert torch.allclose(got[0][seen], by_hand[seen], atol=1e-5)
    assert not torch.allclose(got[0][seen], elsewhere.last_hidden_state[seen], atol=1e-3)


# -- Videos ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", QWEN3)
@pytest.mark.parametrize(
    ("num_frames", "times"),
    [(1, ["0.0"]), (2, ["0.2"]), (3, ["0.2", "1.0"]), (4, ["0.2", "1.2"]), (5, ["0.2", "1.2", "2.0"])],
)
def test_each_two_frames_are_a_run_of_tokens_behind_their_time(backbone, num_frames, times):
    pair = make_pair("maskpool", backbone)
    inputs = pair.processor(message(noise(num_frames, 64, 96), "what?"))
    runs = re.findall(r"<([\d.]+) seconds><\|vision_start\|>\((\d+)\)<\|vision_end\|>", text_of(pair, inputs))
    assert runs == [(time, "6") for time in times]
    assert torch.equal((inputs["mm_token_type_ids"] == 2).sum(), torch.tensor(6 * len(times)))


@pytest.mark.parametrize("backbone", QWEN3)
def test_a_region_reads_its_own_frames_of_its_own_video(backbone):
    """Of two videos and a picture between them: what else changes, its object token does not."""
    pair = make_pair("maskpool", backbone)
    kept = []
    pair.model.adapter.register_forward_hook(lambda *call: kept.append(call[2]))
    region = VideoRegion({4: BOX}, video_index=1)

    def token(first, picture, second):
        inputs = pair.processor(message(first, picture, second, "what is <region>?"), [region])
        with torch.no_grad():
            pair.model(**inputs)
        return kept.pop()

    first, picture, second = noise(3, 64, 64, seed=1), noise(70, 120, seed=2), noise(5, 64, 96, seed=3)
    other = second.copy()
    other[:4] = noise(4, 64, 96, seed=4)
    own = second.copy()
    own[4] = noise(64, 96, seed=5)
    said = token(first, picture, second)
    assert torch.allclose(said, token(255 - first, 255 - picture, second), atol=1e-5)
    assert torch.allclose(said, token(first, picture, other), atol=1e-5)
    assert not torch.allclose(said, token(first, picture, own), atol=1e-3)


# -- Words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", QWEN3)
def test_coordinates_are_thousandths_in_json(backbone):
    said = SaidCoordinates(get_backbone(backbone).coordinates, image_hw=(100, 200), seen_hw=(64, 96))
    assert said.box((20, 10, 100, 100)) == '{"bbox_2d": [100, 100, 500, 1000]}'
    assert said.point(150, 50) == '{"point_2d": [750, 500]}'
    assert said.frame(number=4, time_s=1.5) == "at 1.5 seconds "


@pytest.mark.parametrize("backbone", HYBRID)
def test_answers_are_asked_for_as_they_are_learnt(backbone):
    """Without thoughts, where a template offers the choice; Qwen3.5's own opens one otherwise."""
    pair = make_pair("maskpool", backbone)
    asked = message(noise(70, 120), "what is <region>?")
    prompt = pair.processor(asked, [BOX])["input_ids"][0]
    assert pair.processor.tokenizer.decode(prompt).endswith("assistant\n<think>\n\n</think>\n\n")
    answer = {"role": "assistant", "content": [{"type": "text", "text": "a digit"}]}
    learnt = pair.processor([*asked, answer], [BOX], labels=True)
    first = int((learnt["labels"][0] != -100).nonzero()[0])
    assert torch.equal(learnt["input_ids"][0, :first], prompt)


# -- Hybrid decoders ---------------------------------------------------------------------------------------


def logits_of_steps(pair, inputs, **options):
    """`(steps, rows, V)`: what each step of a greedy answer was chosen by."""
    made = pair.model.generate(
        **inputs,
        do_sample=False,
        max_new_tokens=4,
        min_new_tokens=4,
        suppress_tokens=pair.media_ids,
        return_dict_in_generate=True,
        output_logits=True,
        **options,
    )
    return torch.stack(made.logits)


@pytest.mark.parametrize("backbone", PACKED)
def test_a_prompt_read_in_pieces_is_read_as_a_whole(backbone):
    """Also where a piece ends within the object tokens, or within a picture's."""
    pair = make_pair("saot", backbone)
    inputs = pair.inputs()
    whole = logits_of_steps(pair, inputs)
    at = (inputs["input_ids"][0] == pair.processor.tokens.placeholder).nonzero().flatten()
    for size in (5, 33, int(at[1]) + 1, inputs["input_ids"].shape[1]):
        assert torch.allclose(logits_of_steps(pair, inputs, prefill_chunk_size=size), whole, atol=1e-4), size
    other = pair.processor(pair.conversations[0], [BOX, pair.regions[0][1]])
    alone = pair.inputs(0)
    difference = logits_of_steps(pair, other, prefill_chunk_size=5) - logits_of_steps(pair, alone, prefill_chunk_size=5)
    assert difference.abs().max() > 1e-3  # logits say which region it is


@pytest.mark.parametrize("backbone", HYBRID)
def test_padding_does_not_reach_the_state_of_linear_attention(backbone):
    pair = make_pair("saot", backbone)
    batch = pair.inputs()
    together = logits_of_steps(pair, batch)
    for row in range(len(pair.conversations)):
        alone = logits_of_steps(pair, pair.inputs(row))
        assert torch.allclose(together[:, row], alone[:, 0], atol=1e-4), row
    shortest = 1  # "just text"
    assert not batch["attention_mask"][shortest].all()
    unmasked = {**batch, "attention_mask": torch.ones_like(batch["attention_mask"])}
    assert (logits_of_steps(pair, unmasked)[:, shortest] - together[:, shortest]).abs().max() > 1e-3


@pytest.mark.parametrize("backbone", HYBRID)
def test_beams_carry_the_state_of_linear_attention_with_them(backbone):
    """With the cache, which beams reorder, they say what they say without one."""
    pair = make_pair("saot", backbone)
    inputs = pair.inputs()
    options = {"num_beams": 4, "num_return_sequences": 4, "max_new_tokens": 8, "min_new_tokens": 8}
    cached = pair.answer(inputs, **options)
    assert torch.equal(cached, pair.answer(inputs, use_cache=False, **options))
    assert torch.equal(cached, pair.answer(inputs, prefill_chunk_size=33, **options))
    assert len(cached.unique(dim=0)) > len(pair.conversations)


# -- LoRA --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "adapted"),
    [
        ("qwen3_vl", {"self_attn": 4, "mlp": 3}),
        ("qwen3_vl_moe", {"self_attn": 4}),
        ("qwen3_5", {"self_attn": 4, "linear_attn": 5, "mlp": 3}),
        ("qwen3_5_moe", {"self_attn": 4, "linear_attn": 5, "mlp": 4}),
    ],
)
def test_lora_adapts_what_is_linear_and_no_experts(backbone, adapted):
    pair = make_pair("maskpool", backbone)
    pair.model.add_lora()
    found = {}
    for name, parameter in pair.model.backbone.named_parameters():
        assert "experts" not in name or not parameter.requires_grad
        if part := re.search(r"layers\.\d+\.(\w+)\.(.*)\.lora_A", name):
            found.setdefault(part[1], set()).add(part[2])
    assert {part: len(layers) for part, layers in found.items()} == adapted
    pair.model.detach()
