"""What is particular to Gemma 3 and Gemma 4: scaled embeddings, means of patches, windows, tables of each layer."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from conftest import assistant, picture, user
from pixelrefer_gemma4.tiny import tiny_config, tiny_processor
from transformers import Gemma4ForConditionalGeneration

from pixelrefer_plugin import PixelReferError, Region, VideoRegion, attach, get_backbone
from pixelrefer_plugin.testing import BACKBONE_CHECKS, make_pair
from pixelrefer_plugin.testing.backbone_checks import (
    crops_and_scene_are_the_same_features,
    lora_scopes_are_parts_of_the_model,
    modules_are_where_the_spec_says,
    native_call,
)

BACKBONES = ["gemma3", "gemma4"]
BOX = Region.from_box((8, 8, 60, 50))
QUESTION = "what is <region>?"
LONG = "which digit is red, green, blue, yellow, pink, white? " * 4
GREEDY = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}


@cache
def pair(adapter, backbone):
    return make_pair(adapter, backbone)


def ask(*parts):
    return [user(*parts)]


class Seen:
    """What a decoder is given in a forward, behind the splice."""

    def __init__(self, model, inputs):
        decoder = model.backbone.get_submodule(model.backbone_spec.parts.decoder)
        handles = [
            decoder.register_forward_pre_hook(self._keep_options, with_kwargs=True),
            decoder.layers[0].register_forward_pre_hook(self._keep_embeddings),
        ]
        with torch.no_grad():
            self.output = model(**inputs)
        for handle in handles:
            handle.remove()

    def _keep_options(self, module, args, kwargs):
        self.options = kwargs

    def _keep_embeddings(self, module, args):
        self.embeddings = args[0]


# -- prompts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("labels", [False, True])
def test_texts_begin_once(name, labels):
    made, turns = pair("saot", name), ask(picture(70, 120), "what is it?")
    turns += [assistant("red")] if labels else []
    ids = made.processor(turns, labels=labels)["input_ids"][0].tolist()
    bos = made.native.tokenizer.bos_token_id
    assert ids.count(bos) == 1
    assert ids[0] == bos


@pytest.mark.parametrize("name", BACKBONES)
def test_prompts_are_those_of_transformers_own_call(name):
    made, image = pair("saot", name), picture(70, 120)
    parts = [{"type": "image", "image": image}, {"type": "text", "text": "what is it?"}]
    turns = [{"role": "system", "content": [{"type": "text", "text": "left"}]}, {"role": "user", "content": parts}]
    native = made.native.apply_chat_template(
        turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    ours = made.processor(turns)
    for key in native:
        assert torch.equal(ours[key], native[key]), key


@pytest.mark.parametrize("name", BACKBONES)
def test_the_end_of_a_turn_is_learnt(name):
    made = pair("saot", name)
    inputs = made.processor([*ask(picture(70, 120), QUESTION), assistant("red")], [BOX], labels=True)
    learnt = inputs["input_ids"][inputs["labels"] != -100]
    end = {"gemma3": "<end_of_turn>", "gemma4": "<turn|>"}[name]
    assert made.native.tokenizer.decode(learnt) == f"red{end}"


# -- the splice ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
def test_words_are_scaled_and_neither_pictures_nor_object_tokens_are(name):
    made = pair("saot", name)
    model, inputs = made.model, made.processor(ask(picture(70, 120), QUESTION), [BOX])
    seen, config, ids = Seen(model, inputs).embeddings[0], model.backbone.config, inputs["input_ids"][0]
    placeholders, image = ids == model.tokens.placeholder, ids == config.image_token_id
    embedding = model.backbone.get_input_embeddings()
    with torch.no_grad():
        object_tokens = model.object_tokens(inputs["regions"])
        words = embedding.weight[ids] * config.get_text_config().hidden_size ** 0.5
        native = model.backbone.get_image_features(
            **{key: value for key, value in inputs.items() if key in ("pixel_values", "image_position_ids")}
        ).pooler_output
    rest = ~placeholders & ~image
    assert torch.allclose(seen[placeholders], object_tokens, atol=1e-5)
    assert torch.allclose(seen[rest], words[rest], atol=1e-5)
    assert torch.allclose(seen[image], native[0] if name == "gemma4" else native.flatten(0, 1), atol=1e-5)


def test_object_tokens_have_the_entry_of_pictures_in_the_tables_of_the_layers():
    made = pair("saot", "gemma4")
    model, inputs = made.model, made.processor(ask(picture(70, 120), QUESTION), [BOX])
    assert model.tokens.placeholder < model.backbone.get_input_embeddings().num_embeddings  # which has a row for it
    seen, config, ids = (
        Seen(model, inputs).options["per_layer_inputs"][0],
        model.backbone.config,
        inputs["input_ids"][0],
    )
    decoder = model.backbone.model.language_model
    padding = decoder.embed_tokens_per_layer(torch.tensor(config.text_config.pad_token_id)).view(seen.shape[1:])
    for token in (model.tokens.placeholder, config.image_token_id):
        assert (ids == token).any()
        assert torch.equal(seen[ids == token], padding.expand(int((ids == token).sum()), *padding.shape))
    words = (ids != model.tokens.placeholder) & (ids != config.image_token_id)
    assert (seen[words] != padding).flatten(1).any(dim=1).all()


@pytest.mark.parametrize("name", BACKBONES)
def test_rows_that_train_keep_the_scale_of_embeddings(name):
    made = make_pair("saot", name)
    inputs = made.processor(ask(picture(70, 120), QUESTION), [BOX])
    ids = [made.native.tokenizer.convert_tokens_to_ids("red"), int(inputs["input_ids"][0, -1])]
    with torch.no_grad():
        before = made.model(**inputs).logits
        made.model.add_lora(scopes=(), token_ids=ids)
        after = made.model(**inputs).logits
    made.model.detach()
    assert torch.allclose(before, after, atol=1e-5)


# -- attention -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kinds"), [("gemma3", "token_type_ids"), ("gemma4", "mm_token_type_ids")])
def test_only_pictures_are_marked_to_see_themselves_whole(name, kinds):
    made = pair("saot", name)
    conversations = [
        ask(picture(70, 120), f"{QUESTION} {LONG} {QUESTION}"),
        ask("is it?", picture(110, 60), QUESTION),
    ]
    inputs = made.processor(conversations, [[BOX, BOX], [BOX]])
    assert (inputs["input_ids"] == made.model.tokens.placeholder).any(dim=1).all()
    assert torch.equal(inputs[kinds] == 1, inputs["input_ids"] == made.model.backbone.config.image_token_id)


@pytest.mark.parametrize("name", BACKBONES)
def test_prompts_beyond_the_window_answer_alike_alone_padded_and_in_pieces(name):
    made = pair("saot", name)
    window = made.model.backbone.config.get_text_config().sliding_window
    conversations = [ask(picture(70, 120), f"{QUESTION} {LONG} {QUESTION}"), ask(picture(110, 60), QUESTION)]
    regions = [[BOX, Region.from_points([(100, 40)], radius_px=6)], [BOX]]
    together = made.processor(conversations, regions)
    assert (together["attention_mask"][1] == 0).sum() > window  # what fills the shorter one up is longer, too
    answers = made.answer(together)
    for index in range(2):
        inputs = made.processor(conversations[index], regions[index])
        assert torch.equal(made.answer(inputs)[0], answers[index])
    beams = {"num_beams": 3, "num_return_sequences": 2}
    alone = made.processor(conversations[0], regions[0])
    for options in ({"use_cache": False}, {"prefill_chunk_size": window - 5}):
        assert torch.equal(made.answer(alone, **options)[0], answers[0]), options
    assert torch.equal(made.answer(together, **beams)[:2], made.answer(alone, **beams))


# -- scenes --------------------------------------------------------------------------------------------------


def outputs_of(spec, model, path, inputs):
    outputs = []
    handle = model.get_submodule(path).register_forward_hook(lambda module, args, output: outputs.append(output))
    with torch.no_grad():
        model(**inputs)
    handle.remove()
    return outputs


def test_what_gemma_3_multiplies_is_the_scenes_cells():
    """There is no linear layer, by which the kit could tell."""
    made = pair("saot", "gemma3")
    model, spec = made.model.backbone, made.model.backbone_spec
    inputs = made.processor(ask(picture(70, 120), "what is it?"))
    call = native_call(model, made.native, inputs)
    patches = spec.images.grids(call, outputs_of(spec, model, spec.parts.vision_tower, inputs))
    (projected,) = outputs_of(spec, model, spec.parts.projector, inputs)
    assert patches.grids_hw == ((8, 8),)
    cells = patches.pooled(spec.cell_side(model.config))
    normed = model.get_submodule(spec.cells.norm)(cells.features)
    assert cells.grids_hw == ((2, 2),)
    weight = model.model.multi_modal_projector.mm_input_projection_weight
    assert torch.allclose(normed @ weight, projected[0], atol=1e-5)


WIDE = picture(520, 1300)


def test_pan_and_scan_is_refused_by_name_where_the_scene_is_read():
    made = pair("maskpool", "gemma3")
    with pytest.raises(PixelReferError, match=r"pan and scan \(do_pan_and_scan\) has made 4 images of the batch's 1"):
        made.processor(ask(WIDE, QUESTION), [BOX], do_pan_and_scan=True)


def test_adapters_that_read_crops_work_with_pan_and_scan():
    made = pair("saot", "gemma3")
    inputs = made.processor(ask(WIDE, QUESTION), [BOX], do_pan_and_scan=True)
    assert len(inputs["pixel_values"]) == 4
    assert made.answer(inputs).shape == (1, 6)


@pytest.mark.parametrize("budget", [70, 140])
def test_regions_are_found_at_each_budget_of_tokens(budget):
    """The picture is as high as three columns; the region is its right half."""
    made = pair("maskpool", "gemma4")
    image = picture(120, 360)
    inputs = made.processor(ask(image, QUESTION), [Region.from_box((180, 0, 360, 120))], max_soft_tokens=budget)
    (columns, rows) = (inputs["image_position_ids"][0].amax(dim=0) + 1).tolist()
    assert 2.5 < columns / rows < 4
    assert 0.7 * budget < rows * columns / 9 <= budget
    (layout,) = inputs["regions"].views
    assert inputs["regions"].scene.whole.grids_hw == ((rows, columns),)
    assert made.answer(inputs).shape == (1, 6)
    assert layout is not None


def test_patches_of_gemma_4_12b_see_no_other_one():
    """It has no tower: a picture's other half changes nothing in a patch."""
    spec, (model, _) = get_backbone("gemma4_unified"), get_backbone("gemma4_unified").tiny(0)
    crop = torch.rand(3, 96, 96, generator=torch.Generator().manual_seed(0))
    other = crop.clone()
    other[:, :, 48:] = crop[:, :, 48:].flip(-1)
    with torch.no_grad():
        grids = spec.crops.encode(model, [crop, other])
    assert torch.equal(grids[0][:, 0], grids[1][:, 0])
    assert not torch.equal(grids[0][:, 1], grids[1][:, 1])


def test_frames_of_gemma_4_stand_behind_their_times():
    made = pair("saot", "gemma4")
    video = {"type": "video", "video": np.stack([picture(48, 96, seed) for seed in range(3)]), "fps": 0.5}
    region = VideoRegion({0: Region.from_box((4, 4, 40, 40)), 2: Region.from_box((50, 4, 90, 40))})
    inputs = made.processor(ask(video, QUESTION), [region])
    text = made.native.tokenizer.decode(inputs["input_ids"][0])
    first, second, third = (text.index(f"{time} <|image><|video|>") for time in ("00:00", "00:02", "00:04"))
    assert first < second < third
    kinds = inputs["mm_token_type_ids"]
    assert torch.equal(kinds == 2, inputs["input_ids"] == made.model.backbone.config.video_token_id)
    assert made.answer(inputs).shape == (1, 6)


def test_gemma_3_takes_no_videos():
    video = {"type": "video", "video": np.stack([picture(48, 96)] * 2), "fps": 1.0}
    with pytest.raises(PixelReferError, match="takes no videos"):
        pair("saot", "gemma3").processor(
            [{"role": "user", "content": [video, {"type": "text", "text": "what is it?"}]}]
        )


# -- coordinates ---------------------------------------------------------------------------------------------


def test_gemma_4_is_told_boxes_from_the_top_in_thousandths():
    bare, native = get_backbone("gemma4").tiny(0)
    model, processor = attach(bare, native, adapter="coordinates")
    inputs = processor(ask(picture(100, 200), QUESTION), [Region.from_box((20, 30, 100, 90))])
    assert '{"box_2d": [300, 100, 900, 500]}' in processor.tokenizer.decode(inputs["input_ids"][0])
    model.detach()


# -- Gemma 4 as 26B-A4B and 31B are --------------------------------------------------------------------------


QUICK = {crops_and_scene_are_the_same_features, modules_are_where_the_spec_says, lora_scopes_are_parts_of_the_model}


def large(seed):
    """Experts, keys for values, pictures that see themselves whole, standardised patches; no tables of layers."""
    processor = tiny_processor()
    data = tiny_config(processor.tokenizer).to_dict()
    text = data["text_config"] | {
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": 0,
        "use_double_wide_mlp": False,
        "num_key_value_heads": 2,
        "num_global_key_value_heads": 1,
        "attention_k_eq_v": True,
        "use_bidirectional_attention": "vision",
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 32,
    }
    text.pop("per_layer_config", None)
    vision = data["vision_config"] | {"standardize": True, "use_clipped_linears": False}
    config = type(tiny_config(processor.tokenizer))(
        **(data | {"text_config": text, "vision_config": vision, "audio_config": None})
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Gemma4ForConditionalGeneration(config)
        torch.nn.init.normal_(model.model.vision_tower.std_bias)
        torch.nn.init.uniform_(model.model.vision_tower.std_scale, 0.05, 0.2)
    return model.eval(), processor


@pytest.mark.parametrize(
    "check",
    [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow, id=each.__name__) for each in BACKBONE_CHECKS],
)
def test_the_large_layout_conforms(check):
    check(replace(get_backbone("gemma4"), tiny=large))


def test_the_large_layout_answers_in_batches_and_beams():
    bare, native = large(0)
    model, processor = attach(bare, native, adapter="saot")
    model.eval()
    conversations = [ask(picture(70, 120), f"{QUESTION} {LONG} {QUESTION}"), ask(picture(110, 60), QUESTION)]
    regions = [[BOX, BOX], [BOX]]
    media = [bare.config.image_token_id, bare.config.video_token_id]

    def answers(index=None, **options):
        chosen = (conversations, regions) if index is None else (conversations[index], regions[index])
        inputs = processor(*chosen)
        generated = model.generate(**inputs, **GREEDY, suppress_tokens=media, **options)
        return generated[:, inputs["input_ids"].shape[1] :]

    together = answers()
    for index in range(2):
        assert torch.equal(answers(index)[0], together[index])
    assert torch.equal(answers(num_beams=3)[0], answers(0, num_beams=3)[0])
    model.detach()
