"""`load_video`: every video gives the right frames at the right times, upright, or is refused with the reason."""

import contextlib
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from videos import HW, grey_frames, indices_of, remux, set_display_matrix, truncate, write_video

from pixelrefer_plugin.errors import PixelReferError, VideoError
from pixelrefer_plugin.media.video import ClipSampling, FrameSampling, frame_at, frame_times, load_video

BEDROOM = Path(__file__).parents[2] / "shared/data/bedroom"
GOP = {"g": "6", "bf": "2"}
ALL = FrameSampling(num_frames=1000, max_frames=1000)
ONE = FrameSampling(num_frames=1)


def write_folder(folder, pictures, name="{}.png"):
    folder.mkdir()
    for index, pixels in enumerate(pictures):
        Image.fromarray(pixels).save(folder / name.format(index))
    return folder


# -- which frames ------------------------------------------------------------------------------------------

TIMES = {
    "one frame": [0.0],
    "30 fps": [index / 30 for index in range(90)],
    "uneven": [0.0, 0.1, 0.5, 0.6, 2.0, 2.1],
}
SAMPLINGS = {
    "default": (FrameSampling(), "30 fps", 16),
    "fewer than asked": (FrameSampling(num_frames=20), "uneven", [0, 1, 2, 3, 4, 5]),
    "first and last": (FrameSampling(num_frames=2), "30 fps", [0, 89]),
    "one": (ONE, "30 fps", [0]),
    "one of one": (FrameSampling(), "one frame", [0]),
    "1 fps": (FrameSampling(fps=1), "30 fps", [0, 30, 60]),
    "10 fps": (FrameSampling(fps=10), "30 fps", list(range(0, 90, 3))),
    "fps of an uneven video": (FrameSampling(fps=2), "uneven", [0, 2, 3, 4]),
    "fps above the video's": (FrameSampling(fps=1e6), "uneven", [0, 1, 2, 3, 4, 5]),
    "fps of one frame": (FrameSampling(fps=2), "one frame", [0]),
    "fps beyond max_frames": (FrameSampling(fps=30, max_frames=2), "30 fps", [0, 89]),
    "num_frames beyond max_frames": (FrameSampling(num_frames=30, max_frames=2), "30 fps", [0, 89]),
}


@pytest.mark.parametrize(("sampling", "times", "expected"), SAMPLINGS.values(), ids=SAMPLINGS)
def test_sampling_chooses(sampling, times, expected):
    chosen = sampling.choose(TIMES[times])
    assert (len(chosen) if isinstance(expected, int) else chosen) == expected


@given(
    gaps=st.lists(st.floats(0.01, 3), max_size=40),
    num_frames=st.none() | st.integers(1, 50),
    fps=st.floats(0.05, 100),
    max_frames=st.integers(1, 50),
)
def test_sampled_frames_are_ascending_within_bounds_and_begin_at_the_first(gaps, num_frames, fps, max_frames):
    times_s = [0.0, *np.cumsum(gaps).tolist()]
    sampling = FrameSampling(num_frames, None if num_frames else fps, max_frames)
    chosen = sampling.choose(times_s)
    assert chosen == sorted(set(chosen))
    assert chosen[0] == 0
    assert chosen[-1] < len(times_s)
    assert len(chosen) <= max_frames
    assert [frame_at(times_s, time) for time in times_s] == list(range(len(times_s)))


def test_default_sampling_is_recorded():
    assert FrameSampling() == FrameSampling(num_frames=16)


BAD_SAMPLINGS = {
    "both": ({"num_frames": 2, "fps": 1}, "num_frames or fps, got both"),
    "none": ({"num_frames": 0}, "num_frames must be an integer >= 1, got 0"),
    "bool": ({"num_frames": True}, "num_frames must be an integer >= 1, got True"),
    "text": ({"num_frames": "8"}, "num_frames must be an integer >= 1, got '8'"),
    "fraction": ({"num_frames": 1.5}, "num_frames must be an integer >= 1, got 1.5"),
    "no room": ({"max_frames": 0}, "max_frames must be an integer >= 1, got 0"),
    "fps 0": ({"fps": 0}, "fps must be a finite number > 0, got 0"),
    "fps nan": ({"fps": float("nan")}, "fps must be a finite number > 0, got nan"),
    "fps inf": ({"fps": float("inf")}, "fps must be a finite number > 0, got inf"),
    "fps text": ({"fps": "2"}, "fps must be a finite number > 0, got '2'"),
    "fps bool": ({"fps": True}, "fps must be a finite number > 0, got True"),
}


@pytest.mark.parametrize(("options", "message"), BAD_SAMPLINGS.values(), ids=BAD_SAMPLINGS)
def test_bad_sampling_is_refused(options, message):
    with pytest.raises(VideoError, match=message):
        FrameSampling(**options)


@pytest.mark.parametrize(("seconds", "index"), [(0, 0), (0.09, 0), (0.1, 1), (0.55, 2), (2.1, 5), (2.19, 5)])
def test_frame_at(seconds, index):
    assert frame_at(TIMES["uneven"], seconds) == index


@pytest.mark.parametrize("seconds", [-0.1, 2.3, float("nan")])
def test_no_frame_outside_the_video(seconds):
    with pytest.raises(VideoError, match=r"No frame is on screen at .* has 6 frames, from 0 to 2.200 s"):
        frame_at(TIMES["uneven"], seconds)


def test_named_frames_take_the_place_of_the_sampled_ones_nearest_to_them():
    video = load_video(grey_frames(40), fps=10, sampling=FrameSampling(num_frames=5), frames=[7, np.int64(31), 7])
    assert FrameSampling(num_frames=5).choose([index / 10 for index in range(40)]) == [0, 10, 20, 29, 39]
    assert video.frame_indices == (0, 7, 20, 31, 39)
    assert indices_of(video.frames_nhwc) == [0, 7, 20, 31, 39]
    assert video.position(31) == 3
    with pytest.raises(VideoError, match=r"array of frames: frame 8 is not among the sampled frames 0, 7, 20, 31, 39"):
        video.position(8)


@given(
    num_source=st.integers(1, 60),
    num_frames=st.integers(1, 20),
    named=st.sets(st.integers(0, 59), max_size=20),
)
def test_the_number_of_frames_stays_unless_more_are_named(num_source, num_frames, named):
    named = {frame for frame in named if frame < num_source}
    sampling = FrameSampling(num_frames=num_frames)
    video = load_video(grey_frames(num_source), fps=10, sampling=sampling, frames=named)
    assert named <= set(video.frame_indices)
    assert len(video) == max(min(num_frames, num_source), len(named))


def test_more_named_than_allowed():
    sampling = FrameSampling(num_frames=8, max_frames=4)
    assert load_video(grey_frames(40), fps=10, sampling=sampling, frames=[1, 2, 3, 4]).frame_indices == (1, 2, 3, 4)
    with pytest.raises(VideoError, match=r"9 frames are named but max_frames is 4. Name fewer \(VideoRegion.thinned"):
        load_video(grey_frames(40), fps=10, sampling=sampling, frames=range(9))


def test_numpys_numbers_become_pythons():
    sampling = FrameSampling(num_frames=np.int64(4), max_frames=np.int32(9))
    assert json.dumps(asdict(sampling)) == json.dumps({"num_frames": 4, "fps": None, "max_frames": 9})
    assert type(FrameSampling(fps=np.float32(2)).fps) is float


@pytest.mark.parametrize("frames", [[-1], [True], ["1"], "1", [1.0]], ids=repr)
def test_frame_indices_are_integers(frames):
    with pytest.raises(VideoError, match="frames must be integers counted from 0"):
        load_video(grey_frames(4), fps=1, frames=frames)


def test_frame_past_the_end():
    with pytest.raises(VideoError, match="has 4 frames, counted from 0: there is no frame 4"):
        load_video(grey_frames(4), fps=1, frames=[4])


# -- files -------------------------------------------------------------------------------------------------

FILES = {
    "mp4, B-frames": ("a.mp4", {"options": GOP}),
    "mp4, open GOPs": ("a.mp4", {"options": {**GOP, "x264-params": "open-gop=1"}}),
    "mp4, one key frame": ("a.mp4", {"options": {"bf": "2"}}),
    "mp4, fragments": ("a.mp4", {"options": GOP, "container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    "mkv, times in ms": ("a.mkv", {"options": GOP}),
    "transport stream": ("a.ts", {"options": GOP}),
    "avi": ("a.avi", {"codec": "mpeg4", "options": {"b": "4000000", "g": "6"}}),
    "avi, B-frames": ("a.avi", {"codec": "mpeg4", "options": {**GOP, "b": "4000000"}}),
    "webm": ("a.webm", {"codec": "libvpx-vp9", "options": {"g": "6"}}),
    "gif": ("a.gif", {"codec": "gif", "pix_fmt": "gray", "fps": 10}),
    "mjpeg": ("a.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
}


@pytest.mark.parametrize(("name", "options"), FILES.values(), ids=FILES)
def test_files_read_the_same_by_seeking_as_from_start_to_end(tmp_path, name, options):
    path = write_video(tmp_path / name, 24, **options)
    video = load_video(path, sampling=ALL)
    assert video.frame_indices == tuple(range(24))
    assert indices_of(video.frames_nhwc) == list(range(24))
    assert video.image_hw == HW
    assert video.times_s == pytest.approx([index / options.get("fps", 30) for index in range(24)], abs=1e-3)
    assert video.fps == pytest.approx(options.get("fps", 30), rel=2e-3)
    assert frame_times(path) == video.times_s
    for index in (1, 6, 11, 12, 23):
        alone = load_video(path, sampling=ONE, frames=[index])
        assert np.array_equal(alone.frames_nhwc[-1], video.frames_nhwc[index])


def test_variable_frame_rate(tmp_path):
    ticks = [0, 1, 2, 30, 31, 90]
    path = write_video(tmp_path / "a.mp4", 6, ticks=ticks, options=GOP)
    video = load_video(path, sampling=FrameSampling(fps=1))
    assert frame_times(path) == pytest.approx([tick / 30 for tick in ticks])
    assert video.frame_indices == (0, 3, 4, 5)
    assert indices_of(video.frames_nhwc) == [0, 3, 4, 5]


@pytest.mark.parametrize(("shift", "first"), [(-5 * 512, 5), (7 * 512, 0)], ids=["cut by an edit list", "starts late"])
def test_time_begins_at_the_first_shown_frame(tmp_path, shift, first):
    path = remux(write_video(tmp_path / "a.mp4", 24, options=GOP), tmp_path / "b.mp4", shift=shift)
    video = load_video(path, sampling=ALL)
    assert indices_of(video.frames_nhwc) == list(range(first, 24))
    assert video.times_s == pytest.approx([index / 30 for index in range(24 - first)])


# The numbers a, b, c, d of a track header's matrix.
MATRICES = {
    "upright": (1, 0, 0, 1),
    "90 degrees": (0, 1, -1, 0),
    "180 degrees": (-1, 0, 0, -1),
    "270 degrees": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transversed": (0, -1, -1, 0),
}


@pytest.mark.parametrize("matrix", MATRICES.values(), ids=MATRICES)
def test_frames_are_upright(tmp_path, matrix):
    height, width = HW
    pixels = np.zeros((2, *HW, 3), np.uint8)
    pixels[:, 4, 20] = 255  # expected where the matrix of ISO/IEC 14496-12 sends that point
    pixels[:, 3:8, 19:24] = 255
    path = write_video(tmp_path / "a.mp4", pixels, options={"crf": "1"})
    a, b, c, d = matrix
    shift_x, shift_y = -min(0, a * width + c * height), -min(0, b * width + d * height)
    set_display_matrix(path, (a, b, 0, c, d, 0, shift_x, shift_y, 1))

    video = load_video(path)

    assert video.image_hw == ((width, height) if a == 0 else (height, width))
    x, y = 21.5, 5.5  # the bright square's centre
    seen = np.argwhere(video.frames_nhwc[0, ..., 0] > 127).mean(axis=0) + 0.5
    assert seen == pytest.approx([b * x + d * y + shift_y, a * x + c * y + shift_x], abs=0.6)
    with av.open(str(path)) as container:  # FFmpeg's own reading of a matrix, which knows turns only
        frame = next(container.decode(video=0))
        if a * d - b * c == 1:
            turned = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
            assert np.array_equal(video.frames_nhwc[0], turned)


PIXELS = {
    "10 bits": ("a.mp4", {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": {"x265-params": "log-level=none"}}),
    "grey": ("a.mkv", {"codec": "ffv1", "pix_fmt": "gray"}),
    "4:4:4": ("a.mp4", {"pix_fmt": "yuv444p"}),
    "RGB": ("a.mkv", {"codec": "ffv1", "pix_fmt": "bgr0"}),
}


@pytest.mark.parametrize(("name", "options"), PIXELS.values(), ids=PIXELS)
def test_pixel_formats(tmp_path, name, options):
    video = load_video(write_video(tmp_path / name, 6, **options))
    assert indices_of(video.frames_nhwc) == list(range(6))


def test_odd_sizes(tmp_path):
    video = load_video(write_video(tmp_path / "a.mkv", grey_frames(3, hw=(33, 47)), codec="ffv1", pix_fmt="yuv420p"))
    assert video.image_hw == (33, 47)
    assert indices_of(video.frames_nhwc) == [0, 1, 2]


def test_transparency_is_laid_over_white(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, 4:, 3] = 255
    pictures = [Image.fromarray(np.roll(pixels, index, axis=0)) for index in range(2)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100, disposal=2)
    frame = load_video(tmp_path / "a.gif").frames_nhwc[0]
    assert (frame[:, :4] == 255).all()
    assert (frame[:, 4:] == 0).all()


def test_a_sampled_video_passes_through(tmp_path):
    video = load_video(write_video(tmp_path / "a.mp4", 3))
    assert load_video(video, frames=[2]) is video
    assert np.array_equal(np.asarray(video.picture(1)), video.frames_nhwc[1])
    with pytest.raises(VideoError, match="frame 3 is not among the sampled frames 0, 1, 2"):
        load_video(video, frames=[3])
    with pytest.raises(VideoError, match="got Video"):
        frame_times(video)


MEASURE = """
import re, sys
from dataclasses import asdict
from pathlib import Path
from pixelrefer_plugin.media.video import FrameSampling, load_video
load_video(sys.argv[1])  # what libraries take once
# Not getrusage's ru_maxrss: that one starts at the size of the process that started this one.
peak = lambda: 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
before = peak()
video = load_video(sys.argv[2], sampling=FrameSampling(num_frames=20))
print(len(video), video.duration_s, (peak() - before) / video.frames_nhwc.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_memory_is_that_of_the_sampled_frames(tmp_path):
    small = write_video(tmp_path / "small.mp4", 3)
    clip = write_video(
        tmp_path / "clip.mp4", grey_frames(30, hw=(720, 1280)), options={"preset": "ultrafast", "g": "30"}
    )
    path = remux(clip, tmp_path / "ten_minutes.mp4", times=600)
    command = [sys.executable, "-c", MEASURE, str(small), str(path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    num_frames, duration_s, share = map(float, out.split())
    assert (num_frames, duration_s) == (20, pytest.approx(600))
    assert share < 1.5


# -- folders, arrays, lists --------------------------------------------------------------------------------


def test_folder_is_in_natural_order(tmp_path, caplog):
    folder = write_folder(tmp_path / "frames", grey_frames(12))
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".hidden.png").write_bytes(b"")
    video = load_video(folder, sampling=ALL)
    assert indices_of(video.frames_nhwc) == list(range(12))
    assert video.times_s == tuple(range(12))
    assert "taken as 1 frame per second" in caplog.text


SOURCES = {
    "array": lambda tmp_path: grey_frames(6),
    "tensor": lambda tmp_path: pytest.importorskip("torch").from_numpy(grey_frames(6)),
    "arrays": lambda tmp_path: list(grey_frames(6)),
    "pictures": lambda tmp_path: tuple(map(Image.fromarray, grey_frames(6))),
    "folder": lambda tmp_path: write_folder(tmp_path / "frames", grey_frames(6)),
}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_times_of_sources_without_their_own(tmp_path, make):
    source = make(tmp_path)
    at_fps = load_video(source, fps=4)
    at_times = load_video(source, times_s=[3, 4, 5, 6, 8, 9.5])
    assert indices_of(at_fps.frames_nhwc) == list(range(6))
    assert (at_fps.times_s, at_fps.duration_s, at_fps.fps) == ((0, 0.25, 0.5, 0.75, 1, 1.25), 1.5, 4)
    assert (at_times.times_s, at_times.duration_s) == ((0, 1, 2, 3, 5, 6.5), 8)
    assert frame_times(source, fps=4) == at_fps.times_s


BAD_TIMES = {
    "neither": ({}, "says nothing about time: give fps or times_s, got neither"),
    "both": ({"fps": 1, "times_s": [0, 1, 2]}, "got both"),
    "fps 0": ({"fps": 0}, "fps must be a finite number > 0, got 0"),
    "too few": ({"times_s": [0, 1]}, r"has 3 frames, so times_s must be as many, got shape \(2,\)"),
    "equal": ({"times_s": [0, 1, 1]}, "each greater than the one before"),
    "nan": ({"times_s": [0, 1, float("nan")]}, "finite numbers"),
    "texts": ({"times_s": ["0", "1", "2"]}, "finite numbers"),
}


@pytest.mark.parametrize(("options", "message"), BAD_TIMES.values(), ids=BAD_TIMES)
def test_bad_times_are_refused(options, message):
    with pytest.raises(VideoError, match=message):
        load_video(grey_frames(3), **options)


def test_real_frames():
    if not BEDROOM.is_dir():
        pytest.skip("the real frames are not there")
    video = load_video(BEDROOM, fps=2, sampling=FrameSampling(num_frames=4), frames=[1])
    assert video.image_hw == (540, 960)
    assert 1 in video.frame_indices
    assert np.array_equal(video.frames_nhwc[video.position(1)], Image.open(BEDROOM / "00015.jpg"))


# -- bad input ---------------------------------------------------------------------------------------------


def raw_h264(folder):
    return write_video(folder / "a.h264", options=GOP)


def text(folder, name="a.mp4"):
    (folder / name).write_text("no video\n" * 99)
    return folder / name


def picture_file(folder):
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    return folder / "a.png"


def sound(folder):
    with av.open(str(folder / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    return folder / "a.wav"


def unknown_codec(folder):
    path = write_video(folder / "a.mkv")
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/???"))
    return path


def two_sizes(folder):
    return write_folder(folder / "frames", [*grey_frames(2), *grey_frames(1, hw=(5, 7))])


def broken_picture(folder):
    write_folder(folder / "frames", grey_frames(2))
    (folder / "frames" / "1.png").write_bytes(b"x")
    return folder / "frames"


def cut_front_header(folder):
    path = write_video(folder / "a.mp4", 30, options=GOP, container_options={"movflags": "faststart"})
    return truncate(path, 0.8)


BAD_SOURCES = {
    "missing": (lambda folder: folder / "none.mp4", r"Video '.*none.mp4' does not exist"),
    "address": (lambda folder: "http://localhost/a.mp4", "does not exist"),
    "text": (text, r"Video '.*a.mp4' cannot be read as a video"),
    "text that plays": (lambda folder: text(folder, "a.txt"), "is not a video: its format is Tele-typewriter"),
    "picture": (picture_file, "is not a video: its format is piped png"),
    "empty": (lambda folder: truncate(text(folder), 0), "cannot be read as a video"),
    "unknown codec": (unknown_codec, "a codec that FFmpeg does not know"),
    "sound": (sound, "has no video stream"),
    "no times": (raw_h264, r"a.h264' has no presentation times: .*ffmpeg -i"),
    "AVI with H.264 B-frames": (
        lambda folder: write_video(folder / "a.avi", options=GOP),
        r"a.avi' has no presentation times",
    ),
    "header lost": (lambda folder: truncate(write_video(folder / "a.mp4", 30), 0.8), "cannot be read as a video"),
    "cut, header first": (cut_front_header, r"is truncated: it ends after 0\.\d+ s, frame \d+"),
    "cut mkv": (lambda folder: truncate(write_video(folder / "a.mkv", 40, fps=5), 0.7), "is truncated"),
    "cut avi": (lambda folder: truncate(write_video(folder / "a.avi", 40, codec="mpeg4"), 0.8), "is truncated"),
    "empty folder": (lambda folder: folder, "has no frames"),
    "two sizes": (two_sizes, "frame 2 is 7x5, expected 64x48 as frame 0"),
    "broken picture": (broken_picture, r"frame 1 cannot be read. Image '.*1.png' is not a picture"),
    "device": (lambda folder: "/dev/null", "neither a file nor a folder"),
    "number": (lambda folder: 3, "A video must be the path .* got int"),
}


@pytest.mark.parametrize(("make", "message"), BAD_SOURCES.values(), ids=BAD_SOURCES)
def test_bad_sources_are_refused(tmp_path, make, message):
    with pytest.raises(VideoError, match=message) as refusal:
        load_video(make(tmp_path))
    assert "\n" not in str(refusal.value)


def test_bad_arrays_are_refused():
    with pytest.raises(VideoError, match=r"must be uint8 of shape \(N, H, W, 3\), got float64 \(2, 4, 4, 3\)"):
        load_video(np.zeros((2, 4, 4, 3)), fps=1)
    with pytest.raises(VideoError, match="has no frames"):
        load_video(np.zeros((0, 4, 4, 3), np.uint8), fps=1)
    with pytest.raises(VideoError, match="has no frames"):
        load_video([], fps=1)


def test_a_file_has_its_own_times(tmp_path):
    with pytest.raises(VideoError, match="is a file and has its own times"):
        load_video(write_video(tmp_path / "a.mp4"), fps=30)


def test_a_damaged_frame_is_named(tmp_path):
    path = write_video(tmp_path / "a.mkv", 12, codec="ffv1", pix_fmt="gray")
    with av.open(str(path)) as container:
        packet = bytes(next(packet for packet in container.demux(video=0) if packet.pts and packet.pts > 150))
    path.write_bytes(path.read_bytes().replace(packet, b"\xff" * len(packet)))
    with pytest.raises(VideoError, match=r"a.mkv': frame 5, at 0.167 s, cannot be decoded"):
        load_video(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_hostile_bytes_give_a_video_or_our_error(tmp_path, name):
    data = write_video(tmp_path / name, 12, options=GOP).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / f"hostile_{name}"
    for _ in range(40):
        damaged = bytearray(data[: rng.integers(len(data) // 2, len(data) + 1)])
        for position in rng.integers(0, len(damaged), rng.integers(1, 9)):
            damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with contextlib.suppress(PixelReferError):
            load_video(path)


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ({"start_s": 1.0}, [4, 5, 6, 7, 8, 9]),
        ({"start_s": 1.1}, [4, 5, 6, 7, 8, 9]),  # the frame that is on screen then is in it
        ({"start_s": 1, "end_s": 1.5}, [4, 5]),
        ({"end_s": 0.6}, [0, 1, 2]),
        ({"start_s": 0.3, "end_s": 0.4}, [1]),
        ({"start_s": 1.0, "end_s": 99}, [4, 5, 6, 7, 8, 9]),
        ({"start_s": 1.0, "num_frames": 2}, [4, 9]),
        ({"start_s": 0.5, "num_frames": None, "fps": 1.0}, [2, 6]),
        ({"start_s": 0.5, "num_frames": None, "fps": 4.0, "max_frames": 2}, [2, 9]),
    ],
)
def test_frames_are_sampled_of_a_part(options, chosen):
    times_s = [index / 4 for index in range(10)]
    assert ClipSampling(**{"num_frames": 16} | options).choose(times_s) == chosen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start_s": -1.0}, "begins and ends at seconds >= 0, got -1.0"),
        ({"end_s": float("nan")}, "seconds >= 0, got nan"),
        ({"start_s": 10**400}, "seconds >= 0, got 1000"),
        ({"start_s": "1"}, "seconds >= 0, got '1'"),
        ({"start_s": True}, "seconds >= 0, got True"),
        ({"start_s": 1.0, "end_s": 1.0}, "must end after it begins, got 1 to 1 s"),
        ({"fps": 0}, "FrameSampling.fps must be a finite number > 0"),
    ],
)
def test_a_part_that_is_none_is_refused(options, message):
    with pytest.raises(VideoError, match=message):
        ClipSampling(**options)
    with pytest.raises(VideoError, match="No frame is on screen at 2.5 s"):
        ClipSampling(start_s=2.5).choose([index / 4 for index in range(10)])
