"""Keys of content parts beside the picture or video, and options of the native processor: taken, or refused by name."""

import numpy as np
import pytest
from conftest import picture, user
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelrefer_plugin import (
    FrameSampling,
    ImageError,
    PixelReferError,
    PromptError,
    Region,
    VideoError,
    VideoRegion,
    attach,
    get_backbone,
    load_video,
)
from pixelrefer_plugin.contracts.messages import PART_OPTIONS
from pixelrefer_plugin.testing import make_pair

BOX = Region.from_box((10, 10, 60, 60))
CLIP = np.zeros((40, 64, 96, 3), np.uint8)


@pytest.fixture(scope="module")
def qwen():
    return make_pair("saot", "qwen2_5_vl").processor


def asked(processor, *parts, regions=None, **options):
    regions = [BOX] if regions is None else regions
    return processor([user(*parts, "What is <region>?")], regions, **options)


def image(**more):
    return {"type": "image", "image": picture(240, 320), **more}


def video(source=CLIP, **more):
    times = {} if isinstance(source, str) or not isinstance(source, np.ndarray) else {"fps": 25}
    return {"type": "video", "video": source, **times, **more}


def steps(processor, part):
    return int(asked(processor, part, regions=[VideoRegion({0: BOX})])["video_grid_thw"][0, 0])


@pytest.mark.parametrize("backbone", ["videollama3", "qwen2_5_vl"])
def test_the_area_of_a_picture_is_bounded(backbone):
    bare, native = get_backbone(backbone).tiny(0)
    model, processor = attach(bare, native, adapter="saot")
    patch = bare.config.vision_config.patch_size
    most = asked(processor, image(max_pixels=3136))
    least = asked(processor, image(min_pixels=np.int64(200_704), max_pixels=None))
    assert most["image_grid_thw"].prod() * patch**2 <= 3136
    assert least["image_grid_thw"].prod() * patch**2 >= 200_704
    assert model(**most).logits.shape[1] == most["input_ids"].shape[1]


def test_the_pictures_of_a_batch_are_bounded_alike(qwen):
    both = [[user(image(max_pixels=pixels), "What?")] for pixels in (3136, 3136)]
    assert (qwen(both)["image_grid_thw"].prod(dim=1) * 14**2 <= 3136).all()
    with pytest.raises(PromptError, match="max_pixels of a content part holds for all pictures of a batch"):
        asked(qwen, image(max_pixels=3136), image())
    with pytest.raises(PromptError, match="max_pixels is an option of the processor and of a content part as well"):
        asked(qwen, image(max_pixels=3136), images_kwargs={"max_pixels": 784})
    llava = make_pair("saot", "llava_onevision").processor
    with pytest.raises(PromptError, match="asks for max_pixels, but this backbone's .* does not size by area"):
        asked(llava, image(max_pixels=3136))


def test_the_frames_of_a_video_are_chosen(qwen, tmp_path):
    assert steps(qwen, video()) == 8
    assert steps(qwen, video(nframes=4)) == steps(qwen, video(max_frames=4)) == 2
    assert steps(qwen, video(nframes=20)) == 10
    as_frames = {"type": "video", "video": list(CLIP), "sample_fps": 2.0}
    assert steps(qwen, as_frames) == 8
    assert qwen.sampling == FrameSampling()


def test_frames_are_sampled_of_a_part_of_a_video(qwen):
    clip = {"type": "video", "video": list(CLIP), "sample_fps": 10.0}
    assert steps(qwen, clip | {"nframes": 20}) == 10
    assert steps(qwen, clip | {"nframes": 20, "video_start": 3.0}) == 5
    assert steps(qwen, clip | {"nframes": 20, "video_end": 0.4, "video_start": None}) == 2
    with pytest.raises(VideoError, match="must end after it begins, got 2 to 1 s"):
        steps(qwen, clip | {"video_start": 2, "video_end": 1})
    with pytest.raises(VideoError, match=r"No frame is on screen at 9 s: the video has 40 frames"):
        steps(qwen, clip | {"video_start": 9})


def test_fps_of_a_file_samples_it(qwen, tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=10)
        stream.width, stream.height = 96, 64
        for frame in CLIP:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    assert steps(qwen, video(str(path), fps=1)) == 2  # four frames in four seconds, two in each step
    assert steps(qwen, video(path.as_uri(), fps=1, max_frames=2)) == 1
    with pytest.raises(PromptError, match="'nframes' or 'fps', got both"):
        steps(qwen, video(str(path), fps=1, nframes=4))
    with pytest.raises(PromptError, match="'sample_fps' is of a video that is given as frames"):
        steps(qwen, video(str(path), sample_fps=1))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (video(total_pixels=6272), "'total_pixels'.*videos_kwargs"),
        (video(max_pixels=6272), "'max_pixels'.*videos_kwargs"),
        (video(min_frames=4), "'min_frames'.*Give nframes"),
        (video(nframe=4), "no option 'nframe'.*Did you mean 'nframes'"),
        (image(resized_height=56), "'resized_height'.*Bound a picture's area"),
        (image(max_pixel=56), "no option 'max_pixel'.*Did you mean 'max_pixels'"),
        (image(detail="low"), "no option 'detail'. It takes min_pixels, max_pixels. Leave it out"),
        (image(text="and this"), "no option 'text'"),
        ({"type": "text", "text": "hi", "image": "a.png"}, "with text has no option 'image'. It takes none"),
        ({"type": "image_url", "image_url": {"url": "x"}}, "must be text, image or video with a key of that name"),
        (image(max_pixels=0), r"max_pixels of a content part must be a whole number from 1 to .*, got 0"),
        (image(max_pixels="3136"), "got '3136'"),
        (image(min_pixels=10**12), "got 1000000000000"),
        (video(nframes=2.5), "nframes of a content part must be a whole number"),
        (video(nframes=10**100), "nframes of a content part must be a whole number"),
        (video(sample_fps=2), "'sample_fps' is of a video that is given as frames, without 'fps'"),
    ],
)
def test_other_keys_are_refused_by_name(qwen, part, message):
    with pytest.raises(PromptError, match=message):
        qwen([user(part, "What?")])


def test_the_frames_of_a_video_that_was_read_are_fixed(qwen):
    loaded = load_video(CLIP, fps=25)
    for key, value in {"fps": 2, "nframes": 4, "times_s": [1.0]}.items():
        with pytest.raises(PromptError, match=f"sampled already, '{key}' has no effect"):
            qwen([user({"type": "video", "video": loaded, key: value}, "What?")])


def test_a_key_without_a_value_is_none(qwen):
    """As tables of data have it, where all parts have all columns."""
    part = {"type": "text", "text": "What is <region>?", "image": None, "video": None, "fps": None}
    message = {"role": "user", "content": [image(text=None, video=None), part], "name": None}
    assert "regions" in qwen([message], [BOX])


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["text", "image", "video"]),
    key=st.text(max_size=20) | st.sampled_from(["Max_Pixels", "fps ", "image", "url", "path"]) | st.integers(),
    value=st.integers() | st.text(max_size=5) | st.binary(max_size=5) | st.lists(st.integers(), max_size=2),
)
def test_any_unknown_key_is_refused(qwen, kind, key, value):
    part = {"text": {"type": "text", "text": "hi"}, "image": image(), "video": video()}[kind]
    if key in ("type", kind, *PART_OPTIONS[kind]):
        return
    with pytest.raises(PromptError, match="has no option"):
        qwen([user({**part, key: value}, "What?")])


@pytest.mark.parametrize(
    ("part", "error", "message"),
    [
        ({"type": "image", "image": "data:image/png;base64," + "A" * 600_000}, ImageError, "cannot be a data: URL"),
        ({"type": "image", "image": "https://example.org/a.png"}, ImageError, "cannot be an address on the net"),
        ({"type": "image", "image": b"\x89PNG" + b"\0" * 600_000}, ImageError, "cannot be bytes of a file"),
        ({"type": "video", "video": "HTTP://example.org/a.mp4"}, VideoError, "cannot be an address on the net"),
        ({"type": "video", "video": b"\0" * 600_000}, VideoError, "cannot be bytes of a file"),
    ],
)
def test_what_is_no_path_is_named(qwen, part, error, message):
    with pytest.raises(error, match=message) as caught:
        qwen([user(part, "What?")])
    assert len(str(caught.value)) < 400


def test_a_file_address_is_its_path(qwen, tmp_path):
    path = tmp_path / "a picture.png"
    Image.fromarray(picture(60, 80)).save(path)
    assert "pixel_values" in qwen([user({"type": "image", "image": path.as_uri()}, "What?")])


def deep(depth):
    value = "x"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "conversations",
    [
        *([5], [None], "x", b"x", 5, {"role": "user"}, [[5]], [[[]]], deep(3000)),
        [{"role": "user", "content": deep(3000)}],
        [{"role": "user", "content": [{"type": "image", "image": deep(3000)}]}],
        [{"role": "user", "content": [{"type": deep(10), "text": "x"}]}],
        [{"role": "user", "content": [{"type": "text", "text": deep(3000)}]}],
        [{"role": 5, "content": "x"}],
        [{"role": None, "content": "x"}],
        [{"role": "user", "content": np.zeros((600, 600))}],
        [{"role": "user", "content": [b"\0" * 600_000]}],
        [{"role": "user", "content": "x", "tool_calls": deep(3000)}],
    ],
)
def test_malformed_messages_are_named_in_short(qwen, conversations):
    with pytest.raises(PixelReferError) as caught:
        qwen(conversations)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        *dict.fromkeys(("text", "images", "videos"), "are those of the conversations").items(),
        *dict.fromkeys(("padding", "return_tensors", "return_attention_mask"), "always padded tensors").items(),
        *dict.fromkeys(("truncation", "max_length", "add_special_tokens"), "tokenised and padded here").items(),
        *dict.fromkeys(("return_mm_token_type_ids", "text_kwargs", "stride"), "tokenised and padded here").items(),
        ("add_generation_prompt", "labels=True asks for a batch to learn from"),
        *dict.fromkeys(("num_frames", "fps", "do_sample_frames"), r"say sampling=FrameSampling").items(),
    ],
)
def test_native_options_that_are_decided_here_are_refused(qwen, name, hint):
    with pytest.raises(PromptError, match=f"'{name}' of the native processor is not to be given: .*{hint}"):
        asked(qwen, image(), **{name: False})
    if name not in ("text", "images", "videos"):
        with pytest.raises(PromptError, match=f"'{name}' in videos_kwargs of the native processor is not to be given"):
            asked(qwen, image(), videos_kwargs={name: False})


def test_native_options_that_do_not_exist_are_refused(qwen):
    with pytest.raises(PromptError, match="no option 'max_pixel'. Did you mean 'max_pixels'"):
        asked(qwen, image(), max_pixel=3)
    with pytest.raises(PromptError, match="no option 'max_pixel' in images_kwargs. Did you mean 'max_pixels'"):
        asked(qwen, image(), images_kwargs={"max_pixel": 3})
    with pytest.raises(PromptError, match="'images_kwargs' must be a mapping"):
        asked(qwen, image(), images_kwargs=3)


@pytest.mark.parametrize("value", [-1, "x", [], {}, 0.5, None])
def test_whatever_the_native_processor_raises_has_a_name(qwen, value):
    for name in ("size", "max_pixels", "patch_size", "image_mean"):
        try:
            asked(qwen, image(), **{name: value})
        except PixelReferError:
            continue
