"""Every built-in backbone: what its tower gives, in which order, that its tiny model is real."""

import copy
import re
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pixelrefer_plugin import PixelReferError, Region, attach, get_backbone
from pixelrefer_plugin.authoring import NativeCall

LATER = ["qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe"]
BACKBONES = [
    *("videollama3", "qwen2_5_vl", "llava_onevision"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in LATER),
]
ADAPTERS = ["saot", "maskpool"]
DTYPES = [torch.float32, torch.bfloat16]
GREY, BRIGHT = 110, 250

pytestmark = pytest.mark.parametrize("name", BACKBONES)


@cache
def loaded(name, dtype=torch.float32):
    spec = get_backbone(name)
    model, processor = spec.tiny(0)
    return spec, model.to(dtype), processor


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def user(*parts):
    return [{"role": "user", "content": list(parts)}]


def text(words):
    return {"type": "text", "text": words}


def image(pixels):
    return {"type": "image", "image": pixels}


def native_inputs(processor, samples, words="what is it?", **media):
    """Native inputs of a batch; `samples` holds the images of each sample."""
    conversations = [user(*[{"type": "image"}] * len(images), text(words)) for images in samples]
    prompts = [processor.apply_chat_template(each, add_generation_prompt=True) for each in conversations]
    images = [images for images in samples if images]
    return processor(text=prompts, images=images or None, return_tensors="pt", padding=True, **media)


@torch.no_grad()
def captured_scene(name, samples, dtype=torch.float32):
    """The scene's grids, captured from the native pass, as the host does it."""
    spec, model, processor = loaded(name, dtype)
    inputs = native_inputs(processor, samples).to(dtype)
    outputs = []
    tower = model.get_submodule(spec.parts.vision_tower)
    handle = tower.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        model(**inputs)
    finally:
        handle.remove()
    call = NativeCall(model.config, inputs, model=model)
    return spec.images.grids(call, outputs), spec.images.grids_hw(call)


def scene_boxes(name, samples):
    spec, model, processor = loaded(name)
    images = [each for images in samples for each in images]
    if spec.images.boxes_xyxy is None:
        return [(0, 0, *each.size) for each in images]
    call = NativeCall(model.config, native_inputs(processor, samples))
    return spec.images.boxes_xyxy(call, [(each.height, each.width) for each in images])


def brightest(grid, plain):
    """The cell in which a grid of features differs most from the plain one."""
    difference = (grid - plain).float().norm(dim=-1)
    return divmod(int(difference.argmax()), grid.shape[1])


def probe_cells(grid_hw):
    h, w = grid_hw
    return sorted({(0, 0), (0, w - 1), (h - 1, 0), (h // 2, w // 3), (h // 3, w // 2), (h - 2, w - 1)})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("grid_hw", [(2, 2), (4, 6), (8, 8), (10, 18), (20, 6)], ids=str)
@torch.no_grad()
def test_crop_features_are_in_raster_order(name, grid_hw, dtype):
    spec, model, _ = loaded(name, dtype)
    patch = spec.crops.geometry(model.config).patch_size
    plain = torch.full((3, grid_hw[0] * patch, grid_hw[1] * patch), 0.2, dtype=dtype)
    crops = [plain]
    for i, j in probe_cells(grid_hw):
        crop = plain.clone()
        crop[:, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch] = 2
        crops.append(crop)
    grids = spec.crops.encode(model, crops)
    assert grids.features.dtype == dtype
    found = [brightest(grids[index], grids[0]) for index in range(1, len(grids))]
    assert found == probe_cells(grid_hw)


@torch.no_grad()
def test_crops_encoded_together_are_as_each_alone(name):
    spec, model, _ = loaded(name)
    patch, width = spec.crops.geometry(model.config).patch_size, spec.crops.width(model.config)
    generator = torch.Generator().manual_seed(0)
    grids_hw = ((2, 2), (10, 6), (2, 14), (10, 6), (18, 4))
    crops = [torch.randn(3, h * patch, w * patch, generator=generator) for h, w in grids_hw]
    together = spec.crops.encode(model, crops)
    assert together.grids_hw == grids_hw
    assert together.features.shape == (sum(h * w for h, w in grids_hw), width)
    for index, crop in enumerate(crops):
        alone = spec.crops.encode(model, [crop])
        assert alone.grids_hw == grids_hw[index : index + 1]
        torch.testing.assert_close(together[index], alone[0], atol=1e-5, rtol=1e-5)


def grey_images(*sizes):
    return [Image.new("RGB", size, (GREY,) * 3) for size in sizes]


SCENES = {
    "one image": [grey_images((126, 126))],
    "wide": [grey_images((420, 110))],
    "tall": [grey_images((150, 301))],
    "two images in one sample": [grey_images((230, 140), (113, 180))],
    "three samples, one without": [grey_images((140, 230)), [], grey_images((180, 120), (252, 140))],
}


def cell_box(box_xyxy, grid_hw, cell):
    """Where one cell of a grid over a box lies in the picture, in whole pixels."""
    x0, y0, x1, y1 = box_xyxy
    height, width = (y1 - y0) / grid_hw[0], (x1 - x0) / grid_hw[1]
    left, top = x0 + cell[1] * width, y0 + cell[0] * height
    return tuple(map(round, (left, top, left + width, top + height)))


@pytest.mark.parametrize("samples", SCENES.values(), ids=SCENES)
def test_scene_features_are_in_raster_order(name, samples):
    plain, grids_hw = captured_scene(name, samples)
    assert plain.grids_hw == grids_hw
    flat = [each for images in samples for each in images]
    boxes = scene_boxes(name, samples)
    for index, (picture, box, grid_hw) in enumerate(zip(flat, boxes, grids_hw, strict=True)):
        h, w = grid_hw
        for i, j in [(h // 2, w // 2 - 1), (h // 2 - 1, w // 2), (h // 3, w // 3), (h - 1 - h // 3, w // 4)]:
            bright = picture.copy()
            bright.paste((BRIGHT,) * 3, cell_box(box, grid_hw, (i, j)))
            changed = [[bright if each is picture else each for each in images] for images in samples]
            grids, _ = captured_scene(name, changed)
            assert brightest(grids[index], plain[index]) == (i, j)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_native_pass_gives_the_promised_scene(name, dtype):
    sizes = [[(97, 151)], [], [(60, 80), (88, 40)]]
    samples = [[Image.fromarray(noise(*size)) for size in each] for each in sizes]
    spec, model, processor = loaded(name, dtype)
    grids, grids_hw = captured_scene(name, samples, dtype)
    promised = spec.images.grids_hw(NativeCall(model.config, native_inputs(processor, samples)))
    assert grids.grids_hw == grids_hw == promised
    assert grids.features.shape[1] == spec.crops.width(model.config)
    assert grids.features.dtype == dtype


@torch.no_grad()
def test_crop_of_what_the_scene_shows_has_its_features(name):
    """Crops are normalised and cut into patches as the backbone's own processor does it."""
    spec, model, processor = loaded(name)
    # Sizes that the native processor leaves as they are; of LLaVA's 90 px the patches take 84.
    side = spec.crops.geometry(model.config).patch_size
    height, width, seen_hw = (6 * side, 18 * side, (6 * side, 18 * side))
    if name == "llava_onevision":
        height, width, seen_hw = 90, 90, (84, 84)
    pixels = noise(height, width)
    mean, std = (np.array(getattr(processor.image_processor, each)) for each in ("image_mean", "image_std"))
    crop = torch.from_numpy((pixels / 255 - mean) / std).float().permute(2, 0, 1)
    scene, _ = captured_scene(name, [[Image.fromarray(pixels)]])
    crops = spec.crops.encode(model, [crop[:, : seen_hw[0], : seen_hw[1]]])
    assert crops.grids_hw == scene.grids_hw
    torch.testing.assert_close(crops.features, scene.features, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cells_of_the_scene_are_what_the_projector_reads(name, dtype):
    """Bit by bit, on pictures of several windows; and they become the decoder's scene tokens in their order."""
    spec, model, processor = loaded(name, dtype)
    samples = [[Image.fromarray(noise(280, 196))], [Image.fromarray(noise(97, 151, seed=1))]]
    first, read, embedded = model.get_submodule(spec.parts.projector_layers[0]), [], []
    handles = [
        first.register_forward_pre_hook(lambda module, args: read.append(args[0].flatten(0, -2))),
        model.get_submodule(spec.parts.decoder).register_forward_pre_hook(
            lambda module, args, kwargs: embedded.append(kwargs["inputs_embeds"]), with_kwargs=True
        ),
    ]
    try:
        scene, grids_hw = captured_scene(name, samples, dtype)
    finally:
        for handle in handles:
            handle.remove()
    side = spec.cell_side(model.config)
    cells = scene.merged(side)
    assert cells.grids_hw == tuple((h // side, w // side) for h, w in grids_hw)
    rows_read = {row.tobytes() for row in read[0].float().numpy()}
    assert all(row.tobytes() in rows_read for row in cells.features.float().numpy())
    if name == "llava_onevision":
        return  # whose scene tokens are those of an image's tiles, too
    ids = native_inputs(processor, samples)["input_ids"]
    tokens = embedded[0][ids == model.config.image_token_id]
    hidden = nn.functional.gelu(first(cells.features))
    torch.testing.assert_close(model.get_submodule(spec.parts.projector_layers[1])(hidden), tokens)


def test_projector_layers_lead_from_a_cell_to_the_decoder(name):
    spec, model, _ = loaded(name)
    layers = [model.get_submodule(path) for path in spec.parts.projector_layers]
    side = spec.cell_side(model.config)
    assert layers[0].in_features == layers[0].out_features == side**2 * spec.crops.width(model.config)
    assert layers[1].out_features == model.get_submodule(spec.parts.token_embedding).embedding_dim


def test_named_modules_are_there_and_lora_finds_layers(name):
    spec, model, _ = loaded(name)
    parts = spec.parts
    for path in (parts.vision_tower, parts.projector, parts.decoder, parts.token_embedding, parts.norm):
        model.get_submodule(path)
    assert isinstance(model.get_submodule(spec.parts.token_embedding), nn.Embedding)
    assert type(model) is spec.model_class
    assert model.config.model_type in spec.model_types
    linears = {each for each, module in model.named_modules() if isinstance(module, nn.Linear)}
    reached = {
        scope: {each for each in dict(model.named_modules()) if re.fullmatch(pattern, each)}
        for scope, pattern in spec.lora_targets.items()
    }
    assert all(reached.values())
    assert set().union(*reached.values()) <= linears
    # The output head is never adapted; everything else that is linear has a scope.
    assert linears - set().union(*reached.values()) == {"lm_head"}


def test_tiny_is_the_same_for_a_seed_and_leaves_no_trace(name):
    spec, first, _ = loaded(name)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    again, processor = spec.tiny(0)
    assert torch.equal(torch.rand(1), expected)
    other, _ = spec.tiny(1)
    embedding = first.get_input_embeddings().weight
    weights = zip(first.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)
    assert not torch.equal(embedding, other.get_input_embeddings().weight)
    assert not first.training
    assert sum(each.numel() for each in first.parameters()) < 1_000_000
    assert embedding.shape[0] - len(processor.tokenizer) >= 16


@torch.no_grad()
def test_tiny_answers_natively(name):
    _, model, processor = loaded(name)
    prompt = processor.apply_chat_template(
        user({"type": "video"}, text("where does it move?")), add_generation_prompt=True
    )
    frames = np.stack([noise(60, 100, seed) for seed in range(4)])
    video = processor(
        text=[prompt],
        videos=[frames],
        video_metadata=[{"fps": 2.0, "total_num_frames": 4, "frames_indices": [0, 1, 2, 3]}],
        return_tensors="pt",
    )
    pictures = native_inputs(processor, [[Image.fromarray(noise(97, 151))]])
    for inputs in (pictures, video, native_inputs(processor, [[]], words="yes or no?")):
        answer = model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)
        assert answer.shape == (1, inputs["input_ids"].shape[1] + 3)


CONVERSATIONS = {
    "two regions on one image": (
        user(image(noise(120, 200)), text("what is <region>? and <region>?")),
        [Region.from_box((10, 10, 50, 60)), Region.from_points([(199, 119)])],
    ),
    "no image": (user(text("hello")), []),
    "two images": (
        user(image(noise(80, 61, 1)), image(noise(60, 90, 2)), text("is <region> like <region>?")),
        [Region.from_box((0, 0, 9, 9)), Region.from_box((5, 5, 40, 55), image_index=1)],
    ),
    "an image without regions": (user(image(noise(64, 64, 3)), text("which colours are there?")), []),
}


@pytest.fixture
def attached(name):
    attached = []

    def attach_to(adapter, dtype=torch.float32):
        _, backbone, native = loaded(name, dtype)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model, processor = attach(backbone, native, adapter=adapter)
        attached.append(model)
        return model, processor

    yield attach_to
    for model in attached:
        model.detach()


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 2}], ids=["greedy", "beams"])
def test_mixed_batch_answers_as_each_alone(name, attached, adapter, options):
    model, processor = attached(adapter)
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, **options}
    conversations, regions = zip(*CONVERSATIONS.values(), strict=True)
    batch = processor(conversations, regions)
    answers = model.generate(**batch, **options)[:, -4:].view(len(conversations), -1, 4)
    for conversation, own, answer in zip(conversations, regions, answers, strict=True):
        alone = processor(conversation, own)
        assert torch.equal(model.generate(**alone, **options)[:, -4:], answer)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_prefill_in_bfloat16_is_close_to_float32(name, attached, adapter):
    logits = []
    for dtype in DTYPES:
        model, processor = attached(adapter, dtype)
        batch = processor(*zip(*CONVERSATIONS.values(), strict=True)).to(dtype)
        with torch.no_grad():
            output = model(**batch).logits
        assert output.dtype == dtype
        logits.append(output[batch["attention_mask"].bool()].float())
    exact, rounded = logits
    # On the mean: a k-means assignment that rounding tips over moves single tokens.
    assert (exact - rounded).abs().mean() < 0.05 * exact.std()


def test_region_that_the_scene_leaves_out_reads_its_nearest_patch(name, attached):
    _, processor = attached("maskpool")
    strip = Region.from_box((1198, 100, 1200, 200))
    view = processor(user(image(noise(300, 1200)), text("<region>")), [strip])["regions"].views[0]
    rows, columns = view.grids_hw[0]
    assert view.patches_per_region[0] > 0
    assert set(view.patch_ij[:, 1].tolist()) == {columns - 1}
    assert set(view.patch_ij[:, 0].tolist()) <= set(range(rows // 3 - 1, rows * 2 // 3 + 1))


def test_llava_reads_the_hidden_layers_that_its_projector_reads(name):
    if name != "llava_onevision":
        pytest.skip("one of LLaVA's options")
    spec, model, _ = loaded(name)
    config, crop = copy.deepcopy(model.config), torch.randn(3, 28, 56)
    config.vision_feature_layer = [-2, -1]
    two_layers = spec.model_class(config).eval()
    assert spec.crops.width(config) == 2 * spec.crops.width(model.config)
    with torch.no_grad():
        assert spec.crops.encode(two_layers, [crop]).features.shape == (8, spec.crops.width(config))
        two_layers.config.vision_feature_select_strategy = "default"
        with pytest.raises(PixelReferError, match="SigLIP has none and needs 'full'"):
            spec.crops.encode(two_layers, [crop])
