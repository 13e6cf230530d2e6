"""Regions of videos through processor and model: placeholders, times, frames, both frameworks, and what is refused."""

import dataclasses

import numpy as np
import pytest
import sketch
import torch
from conftest import picture, user
from PIL import Image

from pixelrefer_plugin import (
    FrameSampling,
    PluginError,
    PromptError,
    Region,
    RegionError,
    RegionProcessor,
    VideoError,
    VideoRegion,
    get_backbone,
    load_video,
)
from pixelrefer_plugin.authoring import NativeCall
from pixelrefer_plugin.testing import make_pair
from pixelrefer_plugin.tokens.scene import captured_scene

BACKBONES = ["videollama3", "qwen2_5_vl", "llava_onevision"]
BOX = Region.from_box((8, 8, 40, 30))
FRAMES = np.stack([picture(56, 84, seed=index) for index in range(20)])


def clip(frames=FRAMES, **options):
    return {"type": "video", "video": frames, "fps": 4.0, **options}


@pytest.fixture(scope="module", params=BACKBONES)
def oci(request):
    pair = make_pair("oci", request.param)
    yield pair
    pair.model.detach()


@pytest.fixture(scope="module", params=BACKBONES)
def saot(request):
    pair = make_pair("saot", request.param)
    yield pair
    pair.model.detach()


def prompt_text(pair, inputs):
    """The prompt, each run of placeholders as one `*`."""
    ids = inputs["input_ids"][0].tolist()
    kept = [each for at, each in enumerate(ids) if each != pair.processor.tokens.placeholder or ids[at - 1] != each]
    return pair.processor.tokenizer.decode(kept).replace("<|region_pad|>", "*")


def test_object_only_video_tells_the_time_of_each_frame(oci):
    first, second = VideoRegion({4: BOX, 8: BOX}), VideoRegion({19: BOX})
    inputs = oci.processor([user(clip(), "is <region> before <region>?")], [first, second])
    assert "is [Time 1.0s:*,Time 2.0s:*] before [Time 4.8s:*]?" in prompt_text(oci, inputs)
    assert not any(name.startswith("pixel_values") for name in inputs)
    assert inputs["regions"].frames_per_region == (2, 1)
    tokens = oci.processor.tokenizer("is [Time 1.0s:,Time 2.0s:] before [Time 4.8s:]?")["input_ids"]
    assert inputs["input_ids"].shape[1] <= sum(inputs["regions"].counts) + len(tokens) + 20


def test_vision_object_video_keeps_the_scene_and_puts_frames_side_by_side(saot):
    inputs = saot.processor([user(clip(), "what is <region>?")], [VideoRegion({4: BOX, 8: BOX})])
    assert "what is [*]?" in prompt_text(saot, inputs)
    assert "pixel_values_videos" in inputs
    assert inputs["regions"].tokens_per_region() == [sum(inputs["regions"].counts)]


def test_length_does_not_grow_with_video_or_picture(oci):
    lengths = set()
    for number, hw in ((5, (56, 84)), (16, (112, 168))):
        frames = np.stack([picture(*hw, seed=index) for index in range(number)])
        region = VideoRegion({frame: Region.from_box((8, 8, 40, 30)) for frame in (0, 4)})
        lengths.add(oci.processor([user(clip(frames), "<region>")], [region])["input_ids"].shape[1])
    assert len(lengths) == 1


def test_the_tower_sees_each_frame_once(oci):
    spec = get_backbone(oci.model._backbone_spec.name)
    tower = oci.model.backbone.get_submodule(spec.parts.vision_tower)
    objects = [VideoRegion(dict.fromkeys((3, 9), box)) for box in (BOX, Region.from_box((50, 10, 80, 50)))]
    inputs = oci.processor([user(clip(), "<region> and <region>")], objects)
    crops = inputs["regions"].crop_grids_hw
    whole = oci.model.adapter_config.global_px
    side = spec.crops.geometry(oci.model.backbone.config).whole_patches(whole)
    assert crops.count((side, side)) == 2  # two frames, whatever the number of objects
    encoded = []
    handle = tower.register_forward_hook(
        lambda module, args, output: encoded.append(output.last_hidden_state[..., 0].numel())
    )
    with torch.no_grad():
        oci.model.generate(**inputs, max_new_tokens=3, do_sample=False)
    handle.remove()
    assert sum(encoded) == sum(h * w for h, w in crops)


def test_tokens_do_not_change_when_another_object_joins(oci):
    one, other = VideoRegion({3: BOX, 9: BOX}), VideoRegion({3: Region.from_box((50, 10, 80, 50))})
    alone = oci.processor([user(clip(), "<region>")], [one])
    joined = oci.processor([user(clip(), "<region> and <region>")], [other, one])
    with torch.no_grad():
        tokens = [oci.model.object_tokens(each["regions"]) for each in (alone, joined)]
    assert torch.allclose(tokens[0], tokens[1][-len(tokens[0]) :], atol=1e-5)


@pytest.fixture
def shown_frames(monkeypatch):
    """Asks a processor, and returns its inputs and what its native processor is told of the frames of a video."""

    def ask(processor, *args, **options):
        shown, native = [], type(processor.native)
        call = native.__call__
        with monkeypatch.context() as patch:
            patch.setattr(native, "__call__", lambda self, **given: shown.append(given) or call(self, **given))
            inputs = processor(*args, **options)
        ((metadata,),) = (each["video_metadata"] for each in shown)
        assert len(metadata["frames_indices"]) == len(shown[0]["videos"][0])
        return inputs, metadata

    return ask


def test_frames_named_are_sampled_and_shown_as_what_they_are(saot, shown_frames):
    regions = [VideoRegion({7: BOX}), {13: BOX}]
    conversation = [user(clip(), "<region> <region>")]
    _, shown = shown_frames(saot.processor, conversation, regions, sampling=FrameSampling(num_frames=4))
    assert {7, 13} <= set(shown["frames_indices"])
    assert shown["fps"] == 4.0


def test_named_frames_keep_the_number_of_frames(saot, shown_frames):
    conversation, sampling = [user(clip(), "<region>")], FrameSampling(num_frames=5)
    shown = [shown_frames(saot.processor, conversation, [{frame: BOX}], sampling=sampling)[1] for frame in (0, 1, 7)]
    assert {len(each["frames_indices"]) for each in shown} == {5}


def test_frames_between_are_seen_by_the_decoder_of_vision_object(saot):
    changed = FRAMES.copy()
    changed[10] = picture(56, 84, seed=99)
    logits = []
    for frames in (FRAMES, changed):
        video = load_video(frames, fps=4.0, sampling=FrameSampling(num_frames=20))
        inputs = saot.processor([user({"type": "video", "video": video}, "<region>")], [VideoRegion({0: BOX})])
        with torch.no_grad():
            logits.append(saot.model(**inputs).logits[0, -1])
    assert not torch.equal(*logits)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_pooling_reads_the_scene_of_the_frame_named(backbone):
    pair = make_pair("maskpool", backbone)
    changed = FRAMES.copy()
    changed[12:14] = picture(56, 84, seed=99)
    tokens = {}
    for name, frames in (("same", FRAMES), ("changed", changed)):
        video = load_video(frames, fps=4.0, sampling=FrameSampling(num_frames=20))
        inputs = pair.processor([user({"type": "video", "video": video}, "<region> <region>")], [{2: BOX}, {12: BOX}])
        with torch.no_grad():
            pair.model(**inputs)
            call = NativeCall(pair.model.backbone.config, inputs)
            spec = get_backbone(backbone)
            with captured_scene(pair.model.backbone, spec, inputs["regions"].scene, call) as scene:
                pair.model(**inputs)
                tokens[name] = pair.model.object_tokens(inputs["regions"], scene())
    assert torch.allclose(tokens["same"][0], tokens["changed"][0], atol=1e-5)
    assert not torch.allclose(tokens["same"][1], tokens["changed"][1], atol=1e-3)
    pair.model.detach()


def test_a_backbone_that_does_not_tell_how_it_sees_videos():
    pair = make_pair("maskpool", "videollama3")
    pair.processor._backbone = dataclasses.replace(pair.processor._backbone, videos=None)
    with pytest.raises(PluginError, match="does not say how its own pass sees videos"):
        pair.processor([user(clip(), "<region>")], [{2: BOX}])
    pair.model.detach()


def test_the_sampling_is_saved_with_the_model(tmp_path):
    pair = make_pair("oci", "videollama3")
    processor = RegionProcessor(
        pair.native, pair.model.backbone.config, adapter="oci", sampling=FrameSampling(fps=2.0, max_frames=9)
    )
    pair.model.save_pretrained(tmp_path / "model", processor)
    assert RegionProcessor.from_pretrained(tmp_path / "model").sampling == FrameSampling(fps=2.0, max_frames=9)
    pair.model.detach()


SMALL = Region.from_mask(np.ones((10, 10)))


@pytest.mark.parametrize(
    ("parts", "regions", "error", "message"),
    [
        ([clip(), "<region>"], [{20: BOX}], VideoError, r"Sample 0, region 0: .*20 frames.*no frame 20"),
        ([clip(), "<region>"], [BOX], PromptError, r"0 images\. On a video, say on which frame"),
        ([clip(), "<region>"], [VideoRegion({0: BOX}, 1)], PromptError, "lies on video 1, but .* 1 videos"),
        ([clip(), "<region>"], [{3: SMALL}], RegionError, "region 0, frame 3: The mask is of width 10"),
        ([clip(), "<region>"], [{}], RegionError, "region 0: A VideoRegion maps one frame or more"),
        ([clip(), "<region>"], [{-1: BOX}], RegionError, "frames must be integers >= 0, got -1"),
        ([clip(), "<region>"], [{"a": BOX}], RegionError, "frames must be integers >= 0, got 'a'"),
        ([clip(), "<region>"], [{0: (1, 2, 3, 4)}], RegionError, "a Region on each frame"),
        ([clip(FRAMES[:0]), "<region>"], [{0: BOX}], VideoError, "no frames"),
        ([clip(fps=0.0), "<region>"], [{0: BOX}], VideoError, "fps must be a finite number > 0, got 0.0"),
        ([{"type": "video", "video": FRAMES}, "<region>"], [{0: BOX}], VideoError, "give fps or times_s"),
        ([{"type": "video", "video": "gone.mp4"}, "<region>"], [{0: BOX}], VideoError, "'gone.mp4' does not exist"),
    ],
    ids=[
        "past the end", "no frame given", "no such video", "size", "empty", "negative", "no index", "no region",
        "no frames", "fps 0", "no times", "missing",
    ],
)  # fmt: skip
def test_refused_videos(pair, parts, regions, error, message):
    with pytest.raises(error, match=message):
        pair.processor([user(*parts)], regions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling": {"num_frames": 2}}, "sampling must be a FrameSampling, such as"),
        ({"num_frames": 2}, r"option 'num_frames' of the native processor .* say sampling=FrameSampling"),
        ({"return_tensors": "np"}, "option 'return_tensors'"),
    ],
)
def test_options_that_are_decided_elsewhere(pair, options, message):
    with pytest.raises(PromptError, match=message):
        pair.processor([user(clip(), "<region>")], [{0: BOX}], **options)


def test_videos_of_two_lengths_on_a_backbone_that_stacks_them():
    pair = make_pair("saot", "llava_onevision")
    with pytest.raises(PromptError, match=r"Its videos have \[5, 6\] frames: some backbones take several only if all"):
        pair.processor([user(clip(FRAMES[:5]), clip(FRAMES[:6]), "<region>")], [{0: BOX}])
    pair.model.detach()


def test_a_backbone_without_videos_says_so(pair):
    pair.processor.native.video_processor = None
    with pytest.raises(PromptError, match="Backbone 'videollama3' takes no videos.*Ask about a frame"):
        pair.processor([user(clip(), "<region>")], [{0: BOX}])


def test_frames_three_pixels_high_are_not_taken_for_channels(pair):
    frames = np.stack([picture(3, 60, seed=index) for index in range(4)])
    inputs = pair.processor([user(clip(frames), "<region>")], [{0: Region.from_box((5, 0, 30, 3))}])
    _, height, width = inputs["video_grid_thw"][0].tolist()
    assert width > height


def test_object_only_refuses_what_it_would_not_see(oci):
    image = picture(56, 84)
    with pytest.raises(PromptError, match=r"Sample 0: image 1 has no region. With an Object-Only adapter"):
        oci.processor([user(image, image, "<region>")], [BOX])
    with pytest.raises(PromptError, match="video 0 has no region"):
        oci.processor([user(image, clip(), "<region>")], [BOX])


def test_object_only_without_regions_is_the_backbone(oci):
    image = picture(56, 84)
    inputs = oci.processor([user(image, "what is it?")])
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}
    text = oci.native.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
    native = oci.native(text=[text], images=[[Image.fromarray(image)]], return_tensors="pt")
    assert set(inputs) == set(native)
    with torch.no_grad():
        assert torch.equal(oci.model(**inputs).logits, oci.model.backbone(**native).logits)


# -- frames that one grid shows -----------------------------------------------------------------------------


@pytest.fixture
def merged(monkeypatch):
    """The processor of an adapter that reads what the decoder does, on a backbone whose grids show two frames."""
    sketch.install(monkeypatch)
    return sketch.make_processor("sketch-merged", "qwen2_5_vl")


def left_and_right():
    """A mask on the left half of a frame, and one on its right half."""
    masks = np.zeros((2, 56, 84), dtype=bool)
    masks[0, :, :42], masks[1, :, 42:] = True, True
    return [Region.from_mask(mask) for mask in masks]


def test_frames_of_one_grid_are_one_region_with_their_union(merged):
    video = load_video(FRAMES, fps=4.0, sampling=FrameSampling(num_frames=6))
    left, right = left_and_right()
    first, second, third, *_, last = video.frame_indices
    conversation = [user({"type": "video", "video": video}, "what does <region> do?")]
    inputs = merged(conversation, [{first: left, second: right, third: left, last: right}])
    batch = inputs["regions"]
    assert batch.frames_per_region == (3,)
    assert batch.counts == (1, 1, 1)
    layout, drawn = batch.views
    assert drawn is None
    assert layout.regions == (0, 1, 2)
    assert layout.grid_of_region == (0, 1, 2)
    assert layout.region_boxes_xyxy.tolist() == [[0, 0, 84, 56], [0, 0, 42, 56], [42, 0, 84, 56]]
    rows, columns = batch.scene.whole.grids_hw[0]
    assert layout.patches_per_region[0] == rows * columns > layout.patches_per_region[1]
    assert inputs["input_ids"].eq(merged.tokens.placeholder).sum() == 3


def test_clicks_on_frames_of_one_grid_stay_apart(merged):
    video = load_video(FRAMES, fps=4.0, sampling=FrameSampling(num_frames=6))
    first, second, *_ = video.frame_indices
    click, other = Region.from_points([(20, 20)]), Region.from_points([(60, 30), (70, 40)])
    inputs = merged([user({"type": "video", "video": video}, "<region>")], [{first: click, second: other}])
    prompts = inputs["regions"].views[1].prompts
    assert inputs["regions"].counts == (1, 2)
    assert prompts.points_xy.tolist() == [[20, 20], [60, 30], [70, 40]]
    assert prompts.frame_position.tolist() == [0, 1]
    assert prompts.num_frames.tolist() == [6, 6]


def test_an_object_that_is_drawn_on_some_frames_only_is_listed(merged):
    frames = {0: Region.from_points([(20, 20)]), 19: left_and_right()[0]}
    inputs = merged([user(clip(), "<region>")], [frames])
    scene, prompts = inputs["regions"].views
    assert prompts is None
    assert scene.regions == (0, 1)


def test_a_frame_that_does_not_fit_is_named_within_its_grid(merged):
    video = load_video(FRAMES, fps=4.0, sampling=FrameSampling(num_frames=6))
    first, second, *_ = video.frame_indices
    with pytest.raises(RegionError, match=f"Sample 0, region 0, frame {second}: The mask is of width 10"):
        merged([user({"type": "video", "video": video}, "<region>")], [{first: left_and_right()[0], second: SMALL}])


def test_absent_frames_say_nothing_of_a_region_in_a_question(saot, shown_frames):
    region = {4: BOX, 8: BOX}
    conversation = [user(clip(), "what is <region>?")]
    (plain, shown), (said, shown_too) = (
        shown_frames(saot.processor, conversation, [each])
        for each in (VideoRegion(region), VideoRegion(region, absent=[2, 3]))
    )
    assert shown["frames_indices"] == shown_too["frames_indices"]
    assert torch.equal(plain["input_ids"], said["input_ids"])
