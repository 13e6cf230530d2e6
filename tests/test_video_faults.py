"""Videos whose times or files are not what they should be, and folders in which not every picture is a frame."""

import re
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from videos import grey_frames, indices_of, write_video

from pixelrefer_plugin import FrameSampling, VideoError, load_video
from pixelrefer_plugin.media.video import frame_times

ALL = FrameSampling(num_frames=1000, max_frames=1000)
GOP = {"g": "12", "bf": "2"}


def write_times(path, times, codec, *, pix_fmt="yuv420p"):
    """A video of intra-coded grey frames whose packets have these times, in any order; the container may round them."""
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as container:
        stream = container.add_stream(codec, rate=25 if codec == "mpeg2video" else 1000, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        if codec != "mpeg2video":  # knows a few frame rates only
            stream.codec_context.time_base = Fraction(1, 1000)
        packets = []
        for index, pixels in enumerate(grey_frames(len(times))):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 25 if codec == "mpeg2video" else 1000)
            packets += stream.encode(frame)
        packets += stream.encode()
        base = min(0, *times) - len(times)
        for index, packet in enumerate(packets):
            packet.time_base = Fraction(1, 1000)
            packet.dts, packet.pts = base + index, times[index]
            container.mux(packet)
    return path


def decoded_in_order(path):
    """What PyAV decodes from the file, from its beginning on."""
    with av.open(str(path)) as container:
        return indices_of([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


CONTAINERS = {"mkv": "ffv1", "mp4": "mpeg4", "mov": "mjpeg", "ts": "mpeg2video", "webm": "libvpx", "avi": "mjpeg"}
TIMES = st.one_of(
    st.lists(st.integers(0, 400), min_size=2, max_size=16),  # equal and backward ones
    st.integers(2, 16).flatmap(lambda n: st.permutations([40 * index for index in range(n)])),
    st.tuples(st.integers(2, 8), st.integers(2, 8)).map(  # a clock that starts again
        lambda ns: [40 * index for n in ns for index in range(n)]
    ),
    st.lists(st.integers(1, 10**6), min_size=2, max_size=12).map(lambda steps: np.cumsum(steps).tolist()),
    st.lists(st.integers(-5000, 10**9), min_size=2, max_size=12),
    st.lists(st.just(80), min_size=2, max_size=6),
)


@pytest.mark.parametrize("kind", CONTAINERS)
@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(times=TIMES)
def test_each_frame_is_itself_whatever_the_times_say(tmp_path, kind, times):
    pix_fmt = "yuvj420p" if kind in ("mov", "avi") else "yuv420p"
    try:
        path = write_times(tmp_path / f"a.{kind}", times, CONTAINERS[kind], pix_fmt=pix_fmt)
        expected = decoded_in_order(path)
    except av.FFmpegError:
        return  # the container takes no such times
    try:
        video = load_video(path, sampling=ALL)
    except VideoError as error:
        assert re.search("no presentation times|is truncated|has no frames", str(error)), error  # noqa: PT017
        return
    got = indices_of(video.frames_nhwc)
    assert got in (expected, sorted(expected))
    assert len(got) == len(expected) == video.num_source_frames
    assert (np.diff(video.times_s) > 0).all()
    for index in (0, len(got) // 2, len(got) - 1):
        one = load_video(path, sampling=FrameSampling(num_frames=1), frames=[index])
        assert indices_of(one.frames_nhwc) == [got[index]]


@pytest.mark.parametrize("kind", ["mkv", "mp4", "ts"])
def test_frames_of_one_time_are_told_apart_by_their_order(tmp_path, kind):
    times = [80 * (index // 2) for index in range(40)]
    path = write_times(tmp_path / f"a.{kind}", times, CONTAINERS[kind])
    expected = decoded_in_order(path)
    video = load_video(path, frames=[10, 11])
    assert video.num_source_frames == len(expected) >= 39  # writing such an mp4 cuts a frame off
    assert indices_of(video.frames_nhwc) == [expected[index] for index in video.frame_indices]
    assert {10, 11} <= set(video.frame_indices)
    assert np.abs(np.diff(frame_times(path)) - 0.04).max() < (0.06 if kind == "mp4" else 2e-3)


def test_a_joined_stream_goes_on_where_the_first_one_stopped(tmp_path):
    first, second = (write_video(tmp_path / f"{name}.ts", 10, fps=25, options=GOP) for name in "ab")
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    video = load_video(joined, sampling=ALL)
    assert indices_of(video.frames_nhwc) == decoded_in_order(joined)
    assert (np.diff(video.times_s) > 0).all()


@pytest.mark.parametrize("kind", ["mp4", "mkv", "ts"])
def test_a_file_that_begins_between_key_frames(tmp_path, kind, caplog):
    whole = write_video(tmp_path / "whole.mp4", 40, fps=25, options={**GOP, "sc_threshold": "0"})
    cut = tmp_path / f"cut.{kind}"
    with av.open(str(whole)) as reader, av.open(str(cut), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        packets = [packet for packet in reader.demux(video=0) if packet.size]
        for packet in packets[5:]:
            packet.stream = stream
            writer.mux(packet)
    expected = decoded_in_order(cut)
    assert expected[0] in (12, 13)
    video = load_video(cut, sampling=ALL)
    assert indices_of(video.frames_nhwc) == expected
    assert video.times_s[0] == 0
    assert indices_of(load_video(cut, sampling=FrameSampling(num_frames=1), frames=[5]).frames_nhwc) == [expected[5]]
    if kind != "mkv":  # whose writer leaves them out itself
        assert "begins between key frames" in caplog.text


def test_a_file_without_any_key_frame_says_what_to_do(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", 12, options=GOP)
    with av.open(str(whole)) as reader, av.open(str(tmp_path / "cut.mp4"), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in [packet for packet in reader.demux(video=0) if packet.size][3:]:
            packet.stream = stream
            writer.mux(packet)
    with pytest.raises(VideoError, match=r"frame 0.*ffmpeg -i INPUT OUTPUT\.mp4"):
        load_video(tmp_path / "cut.mp4")


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("kind", ["gray", "yuv420p", "yuv444p", "gbrp"])
def test_videos_of_more_than_8_bits_have_the_right_brightness(tmp_path, kind, bits):
    frames = grey_frames(12)
    path = write_video(tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt=f"{kind}{bits}le")
    assert np.abs(load_video(path, sampling=ALL).frames_nhwc.astype(int) - frames).max() <= 3


def test_sampled_frames_that_take_too_much_memory_are_refused(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4", 12)
    monkeypatch.setattr("pixelrefer_plugin.media.video_file._MOST_SAMPLED_PIXELS", 5 * 48 * 64)
    assert len(load_video(path, sampling=FrameSampling(num_frames=5))) == 5
    with pytest.raises(VideoError, match=r"12 frames of 64x48 take .* GB\. Sample fewer .*num_frames=5\) fits"):
        load_video(path)


# -- folders of frames -------------------------------------------------------------------------------------


def write_pictures(folder, names):
    """A folder in which picture i shows the grey of frame i."""
    folder.mkdir(parents=True)
    for name, pixels in zip(names, grey_frames(len(names)), strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return folder


@pytest.mark.parametrize(
    "names",
    [
        [f"{index}.png" for index in range(12)],
        [f"{index:05d}.jpg" for index in range(12)],
        [f"frame_{index}.png" for index in range(8, 12)],
        [f"shot1_frame{index}_left.png" for index in range(3)],
        ["0.png", "1.jpg", "2.bmp"],
        ["Frame1.PNG", "frame2.png", "FRAME10.png"],
        [f"{second}.{part}.png" for second in range(2) for part in range(3)],
        ["a.png", "b.png", "c.png"],
        ["only.png"],
    ],
)
def test_frames_in_their_order(tmp_path, names):
    folder = write_pictures(tmp_path / "frames", names)
    for name in ("Thumbs.db", "notes.txt", ".hidden.png", "._00000.jpg", ".DS_Store"):
        (folder / name).write_bytes(b"x")
    write_pictures(folder / "masks", names)
    (folder / "9999.png").mkdir()
    video = load_video(folder, fps=2, sampling=ALL)
    assert indices_of(video.frames_nhwc) == list(range(len(names)))


@pytest.mark.parametrize("cover", ["cover.jpg", "thumbnail.png", "Folder.JPG"])
def test_a_picture_without_a_number_is_left_out_and_told(tmp_path, caplog, cover):
    folder = write_pictures(tmp_path / "frames", [*(f"{index:05d}.jpg" for index in range(6)), cover])
    video = load_video(folder, fps=2, sampling=ALL)
    assert indices_of(video.frames_nhwc) == list(range(6))
    assert f"'{cover}' has no number as the 6 frames have, and is left out" in caplog.text


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["00000.jpg", "00000.png", "00001.jpg", "00001.png"],
            "two pictures for one frame: '00000.jpg' and '00000.png'",
        ),
        (["0.jpg", "00.jpg", "1.jpg"], "two pictures for one frame: '0.jpg' and '00.jpg'"),
        (["7.jpg", "8.jpg", "8.webp"], "two pictures for one frame: '8.jpg' and '8.webp'"),
        (
            ["0.jpg", "0_mask.png", "1.jpg", "1_mask.png"],
            "numbered in different ways: '0.jpg' .2 of its kind. and '0_mask",
        ),
        (
            ["0.jpg", "1.jpg", "2.jpg", "overlay_0.jpg"],
            "numbered in different ways: .* and 'overlay_0.jpg' .1 of its kind",
        ),
        (["0.jpg", "cover.jpg"], "pictures with numbers, such as '0.jpg', and as many without, such as 'cover.jpg'"),
        (["a.jpg", "a.png"], "two pictures for one frame: 'a.jpg' and 'a.png'"),
    ],
)
def test_folders_in_which_not_every_picture_is_a_frame(tmp_path, names, message):
    folder = write_pictures(tmp_path / "frames", names)
    for read in (load_video, frame_times):
        with pytest.raises(
            VideoError, match=f"Folder '.*frames' has .*{message}.*Keep the frames in a folder of their"
        ):
            read(folder, fps=2)


def test_a_frame_of_very_many_digits_is_shown_short():
    with pytest.raises(VideoError, match="there is no frame an integer of 16610 bits"):
        load_video(np.zeros((2, 4, 4, 3), np.uint8), fps=2, frames=[10**5000])
