"""The door to region sources, on a source that paints each prompt as its mask: this module is its plugin."""

import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from conftest import picture
from PIL import Image

from pixelrefer_plugin import (
    ImageError,
    PixelReferError,
    PluginError,
    Region,
    RegionError,
    SourceError,
    Video,
    VideoError,
    VideoRegion,
    load_region_source,
    plugins,
)
from pixelrefer_plugin.authoring import RegionSourceSpec, hookimpl
from pixelrefer_plugin.plugins import GROUP, PluginHost
from pixelrefer_plugin.sources import CheckedSource

PLUGIN_API = 1
HEIGHT, WIDTH = 60, 90
FRAMES = (0, 4, 8, 12)
BOX, CLICK = Region.from_box((10, 10, 40, 30)), Region.from_points([(50, 20)])
OUTSIDE = {
    "click": (Region.from_points([(91, 20)]), r"The point reaches \(91, 20\), outside its image of width 90"),
    "box": (Region.from_box((200, 10, 210, 20)), r"The box .* reaches \(200, 10\), outside"),
    "mask of another size": (Region.from_mask(np.ones((4, 4))), "The mask is of width 4 and height 4"),
}


@dataclass(frozen=True)
class PaintConfig:
    """How the source misbehaves: loses an object, returns one too few, or a frame that nobody sampled."""

    loses: int | None = None
    forgets: bool = False
    stray_frame: int | None = None


class Paint:
    """Every prompt becomes its own mask, in a video on every sampled frame from its first one on."""

    runs = 0

    def __init__(self, config):
        self.config = config

    def segment(self, image, prompts):
        return self._misbehaved([Region("mask", prompt.to_mask((image.height, image.width))) for prompt in prompts])

    def track(self, video, prompts):
        return self._misbehaved([VideoRegion(self._painted(video, prompt)) for prompt in prompts])

    def _painted(self, video, prompt):
        first, region = next(iter(prompt.frames.items()))
        frames = [frame for frame in video.frame_indices if frame >= first]
        stray = [] if self.config.stray_frame is None else [self.config.stray_frame]
        return dict.fromkeys([*frames, *stray], Region("mask", region.to_mask(video.image_hw)))

    def _misbehaved(self, found):
        Paint.runs += 1
        kept = [None if number == self.config.loses else region for number, region in enumerate(found)]
        return kept[1:] if self.config.forgets else kept


@hookimpl
def register_region_sources(register):
    register(RegionSourceSpec(name="paint", config=PaintConfig, build=Paint))


@pytest.fixture(autouse=True)
def _installed(monkeypatch):
    served = PluginHost([metadata.EntryPoint("paint", __name__, GROUP)])
    monkeypatch.setattr(plugins, "host", lambda: served)
    monkeypatch.setattr(Paint, "runs", 0)


@pytest.fixture
def image():
    return Image.fromarray(picture(HEIGHT, WIDTH))


@pytest.fixture
def video():
    frames = np.stack([picture(HEIGHT, WIDTH, seed) for seed in FRAMES])
    times_s = tuple(float(frame) for frame in FRAMES)
    return Video(frames, FRAMES, times_s, num_source_frames=16, duration_s=16.0, name="clip")


# -- loading -----------------------------------------------------------------------------------------------


def test_an_unknown_source_lists_what_there_is():
    with pytest.raises(PluginError, match=r"No region source is called 'pain'\. Did you mean 'paint'\?"):
        load_region_source("pain")


def test_an_unknown_option_lists_the_known_ones():
    with pytest.raises(PixelReferError, match=r"Region source 'paint' has no option 'lose'\. Its options: loses, "):
        load_region_source("paint", lose=1)


def test_a_source_that_lacks_a_method_is_refused_when_it_is_loaded(monkeypatch):
    monkeypatch.delattr(Paint, "track")
    with pytest.raises(PluginError, match=r"'paint' must build something with .* track, got a Paint without track\."):
        load_region_source("paint")


# -- pictures ----------------------------------------------------------------------------------------------


def test_one_mask_per_prompt_in_order_on_the_prompts_image(image):
    found = load_region_source("paint").segment(image, [BOX.on_image(2), CLICK])
    assert [region.image_index for region in found] == [2, 0]
    assert [region.data for region in found] == [prompt.to_mask((HEIGHT, WIDTH)) for prompt in (BOX, CLICK)]


def test_a_picture_is_read_upright_and_in_colour():
    turned = Image.fromarray(picture(WIDTH, HEIGHT)[..., 0])
    turned.getexif()[0x0112] = 6
    [found] = load_region_source("paint").segment(turned, [BOX])
    assert found.data.image_hw == (HEIGHT, WIDTH)


def test_what_is_no_picture_is_refused():
    with pytest.raises(ImageError, match="must be a file path, a PIL image or a numpy array, got int"):
        load_region_source("paint").segment(7, [BOX])


@pytest.mark.parametrize(("prompt", "message"), OUTSIDE.values(), ids=OUTSIDE)
def test_a_prompt_outside_the_picture_is_refused_before_the_model_runs(image, prompt, message):
    with pytest.raises(RegionError, match=f"^object 1: {message}"):
        load_region_source("paint").segment(image, [BOX, prompt])
    assert Paint.runs == 0


def test_a_video_prompt_on_a_picture_is_refused(image):
    with pytest.raises(SourceError, match="^object 0: expected a Region, got VideoRegion.* use track"):
        load_region_source("paint").segment(image, [VideoRegion({0: BOX})])


def test_no_prompts_need_no_model(image, video):
    source = load_region_source("paint")
    assert source.segment(image, []) == []
    assert source.track(video, []) == []
    assert Paint.runs == 0


def test_an_object_found_nowhere_names_itself(image):
    with pytest.raises(SourceError, match="^object 1: region source 'paint' finds it nowhere on the image"):
        load_region_source("paint", loses=1).segment(image, [BOX, CLICK])


def test_a_source_that_forgets_an_object_is_refused(image):
    with pytest.raises(SourceError, match="'paint' must return a list of one region per prompt, 2, got 1"):
        load_region_source("paint", forgets=True).segment(image, [BOX, CLICK])


# -- videos ------------------------------------------------------------------------------------------------


def test_one_object_per_prompt_in_order_on_the_prompts_video(video):
    prompts = [VideoRegion({8: BOX}, video_index=1), VideoRegion({0: CLICK, 4: BOX})]
    found = load_region_source("paint").track(video, prompts)
    assert [region.video_index for region in found] == [1, 0]
    assert [tuple(region.frames) for region in found] == [(8, 12), FRAMES]


def test_a_prompt_may_be_a_plain_mapping(video):
    source = load_region_source("paint")
    assert source.track(video, [{0: BOX}]) == source.track(video, [VideoRegion({0: BOX})])


def test_a_prompt_on_a_frame_that_is_not_sampled_is_refused(video):
    with pytest.raises(VideoError, match=r"^object 1: .*\b5\b"):
        load_region_source("paint").track(video, [VideoRegion({0: BOX}), VideoRegion({4: BOX, 5: BOX})])
    assert Paint.runs == 0


@pytest.mark.parametrize(("prompt", "message"), OUTSIDE.values(), ids=OUTSIDE)
def test_a_video_prompt_outside_the_picture_is_refused_before_the_model_runs(video, prompt, message):
    with pytest.raises(RegionError, match=f"^object 1, frame 4: {message}"):
        load_region_source("paint").track(video, [VideoRegion({0: BOX}), VideoRegion({0: BOX, 4: prompt})])
    assert Paint.runs == 0


def test_a_prompt_without_a_frame_is_refused(video):
    with pytest.raises(SourceError, match=r"^object 0: expected a VideoRegion, got Region.* {frame index"):
        load_region_source("paint").track(video, [BOX])


def test_an_object_absent_from_all_frames_names_itself(video):
    with pytest.raises(SourceError, match="^object 0: .* finds it nowhere on any sampled frame"):
        load_region_source("paint", loses=0).track(video, [VideoRegion({0: BOX}), VideoRegion({0: CLICK})])


def test_a_source_that_invents_frames_is_refused(video):
    with pytest.raises(
        SourceError, match="^object 0: region source 'paint' must return sampled frames only, got frame 7"
    ):
        load_region_source("paint", stray_frame=7).track(video, [VideoRegion({0: BOX})])


# -- sources that misbehave --------------------------------------------------------------------------------


class Returns:
    """A source that returns what it is told to."""

    def __init__(self, found):
        self.found = found

    def segment(self, image, prompts):
        return self.found

    def track(self, video, prompts):
        return self.found


SMALL = Region.from_mask(np.ones((5, 5)))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, "'bad' must return a list of one region per prompt, 1, got a NoneType"),
        (iter([BOX]), "must return a list of one region per prompt, 1, got a .*iterator"),
        ([np.ones((HEIGHT, WIDTH))], "object 0: region source 'bad' must return a Region or None, got ndarray"),
        ([SMALL], "object 0: region source 'bad' returned a region that does not fit its picture: The mask is of"),
    ],
    ids=["nothing", "iterator", "array", "size"],
)  # fmt: skip
def test_what_a_source_returns_on_a_picture_is_checked(image, found, message):
    with pytest.raises(SourceError, match=message):
        CheckedSource("bad", Returns(found)).segment(image, [BOX])


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([BOX], "object 0: region source 'bad' must return a VideoRegion or None, got Region"),
        ([VideoRegion({4: SMALL})], "object 0: .* does not fit its picture"),
        ([VideoRegion({1: BOX})], "object 0: .* must return sampled frames only, got frame 1"),
    ],
    ids=["no frames", "size", "position"],
)
def test_what_a_source_returns_on_a_video_is_checked(video, found, message):
    with pytest.raises(SourceError, match=message):
        CheckedSource("bad", Returns(found)).track(video, [{4: BOX}])


def test_media_and_prompts_have_their_types(image, video):
    source = load_region_source("paint")
    with pytest.raises(SourceError, match="expected a Video, got str. Note that track reads sampled frames"):
        source.track("clip.mp4", [{0: BOX}])
    with pytest.raises(SourceError, match="prompts must be a list, one for each object, got Region"):
        source.segment(image, BOX)
    with pytest.raises(SourceError, match="prompts must be a list, one for each object, got str"):
        source.segment(image, "boxes")
    with pytest.raises(SourceError, match="follows 1000 objects at once at most, .* got 1001. Ask for them in parts"):
        source.track(video, [{4: BOX}] * 1001)


def test_the_documented_source_works(image, video):
    text = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
    [code] = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "BoxSource" in block]
    registered, names = [], {"__name__": "documented"}
    exec(compile(code, "docs/plugins.md", "exec", dont_inherit=True), names)
    names["register_region_sources"](registered.append)
    [spec] = registered
    source = CheckedSource(spec.name, spec.build(spec.make_config()))
    [mask] = source.segment(image, [CLICK])
    assert mask.to_mask((HEIGHT, WIDTH)) == CLICK.to_mask((HEIGHT, WIDTH))
    [tracked] = source.track(video, [{4: BOX}])
    assert list(tracked.frames) == [4]
