"""The kit for data formats and region sources: those that are built in pass, and each check can fail.

This module is a plugin of both kinds, for the length of a test: what it registers is the test's.
"""

import json
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import install_plugin

from pixelrefer_plugin import DataError
from pixelrefer_plugin.authoring import (
    DataFormatSpec,
    Region,
    RegionSample,
    RegionSourceSpec,
    VideoRegion,
    check_field,
    hookimpl,
    read_sample,
)
from pixelrefer_plugin.plugins import get_data_format, list_data_formats
from pixelrefer_plugin.testing import (
    DATA_FORMAT_CHECKS,
    REGION_SOURCE_CHECKS,
    FormatCase,
    check_data_format,
    check_region_source,
    write_tiny_picture,
)

PLUGIN_API = 1
FORMATS = ["regions", "pixelrefer", "videorefer", "osprey", "dam", "dam_regions", "coco", "lvis", "refcoco", "refvos"]
registered = {"format": None, "source": None}


@hookimpl
def register_data_formats(register):
    register(registered["format"])


@hookimpl
def register_region_sources(register):
    register(registered["source"])


@pytest.fixture
def install(monkeypatch):
    """Installs a format or a source beside the built-in ones."""

    def installed(*, format=None, source=None):
        monkeypatch.setitem(registered, "format", format or FORMAT)
        monkeypatch.setitem(registered, "source", source or SOURCE)
        install_plugin(monkeypatch, "acme", __name__)

    return installed


# -- data formats ------------------------------------------------------------------------------------------


def _name(check):
    return check.__name__


def test_the_table_has_every_installed_format():
    assert sorted(FORMATS) == [spec.name for spec in list_data_formats()]


@pytest.mark.parametrize("check", DATA_FORMAT_CHECKS, ids=_name)
@pytest.mark.parametrize("format", FORMATS)
def test_data_format(format, check, tmp_path):
    spec = get_data_format(format)
    check(FormatCase(spec, spec.tiny(tmp_path)))


def test_a_format_is_checked_on_a_file_that_is_given_too(tmp_path):
    path = get_data_format("coco").tiny(tmp_path)
    before = {each: each.read_bytes() for each in tmp_path.iterdir()}
    passed = check_data_format("coco", path=path, region="box", per_image=True)
    assert passed == [check.__name__ for check in DATA_FORMAT_CHECKS]
    assert {each: each.read_bytes() for each in tmp_path.iterdir()} == before


@dataclass(frozen=True)
class Config:
    question: str = "What is <region>?"


@dataclass(frozen=True)
class Unruly:
    size: int = 0

    def __post_init__(self):
        check_field(self.size > 0, self, "size", "a number > 0")


def recognises(record):
    return "acme" in record


def read_record(config, record, place):
    messages = [{"role": "user", "content": config.question}, {"role": "assistant", "content": record.get("acme")}]
    given = {"id": record.get("id"), "image": record.get("file"), "regions": record.get("shown"), "messages": messages}
    return read_sample(given, place)


def tiny(folder):
    write_tiny_picture(folder / "a.png")
    records = [{"id": number, "acme": "A car.", "file": "a.png", "shown": [{"box": [1, 1, 9, 9]}]} for number in (1, 2)]
    path = folder / "acme.jsonl"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in records), encoding="utf-8")
    return path


FORMAT = DataFormatSpec(name="acme", config=Config, recognises=recognises, read_record=read_record, tiny=tiny)


class Whole:
    """The samples of a file that is read as a whole; what it does wrong its subclasses say."""

    def __init__(self, config, path, media_root):
        if not path.is_file():
            raise DataError(f"'{path}' cannot be read.")
        from pixelrefer_plugin.data.records import JsonRecords

        self.config, self.media_root, self.records = config, media_root, JsonRecords(path)

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        from pixelrefer_plugin.authoring import RecordPlace

        record, place = self.records[index], RecordPlace(self.records.where(index), index, self.media_root)
        return read_record(self.config, record if isinstance(record, dict) else {}, place)


class Unpicklable(Whole):
    def __init__(self, *args):
        super().__init__(*args)
        self.key = lambda: None


class Forgetful(Whole):
    def __setstate__(self, state):
        self.__dict__.update(state, config=Config(question="Another <region>?"))


class TooLong(Whole):
    def __len__(self):
        return len(self.records) + 1


class Counting(Whole):
    count = 0

    def __getitem__(self, index):
        Counting.count += 1
        return replace(super().__getitem__(index), id=str(Counting.count))


class Eager(Whole):
    """Reads all samples when it is opened."""

    def __init__(self, *args):
        super().__init__(*args)
        self.samples = [super(Eager, self).__getitem__(index) for index in range(len(self.records))]

    def __getitem__(self, index):
        return self.samples[index]


class Opening(Whole):
    def __init__(self, config, path, media_root):
        path.read_bytes()
        super().__init__(config, path, media_root)


def whole(opened):
    return {"read_record": None, "open_file": opened}


def changed_sample(**changes):
    return {"read_record": lambda *args: replace(read_record(*args), **changes)}


def picky(record):
    return "acme" in record and record["acme"].startswith("A")


def greedy(config, record, place):
    return read_record(config, {**record, "shown": record["shown"]}, place)


def forgiving(config, record, place):
    """Makes something up for whatever is missing."""
    try:
        return read_record(config, record, place)
    except DataError:
        sound = {"id": 1, "acme": "A car.", "file": "a.png", "shown": [{"box": [1, 1, 9, 9]}]}
        return read_record(config, sound, place)


def placeless(config, record, place):
    return read_record(config, record, replace(place, where=""))


SHOWN = Region.from_box((1, 1, 9, 9))
BROKEN_FORMATS = {
    "defaults that break a rule": (
        {"config": Unruly},
        "options_are_strict",
        r"Unruly\.size must be a number > 0, got 0",
    ),
    "not its own file": (
        {"recognises": lambda record: False},
        "its_own_file_is_recognised",
        "recognises says no to its own file, ",
    ),
    "taken by another": (
        {"tiny": lambda folder: get_data_format("osprey").tiny(folder), "recognises": lambda record: True},
        "its_own_file_is_recognised",
        "its file is recognised by osprey as well",
    ),
    "an empty record": (
        {"recognises": lambda record: True},
        "nothing_else_is_recognised",
        "says yes to an empty record",
    ),
    "another's file": (
        {"recognises": lambda record: bool({"acme", "conversations"} & set(record))},
        "nothing_else_is_recognised",
        r"says yes to a file of format '(osprey|pixelrefer|videorefer)'",
    ),
    "no yes and no no": (
        {"recognises": lambda record: record.get("acme")},
        "nothing_else_is_recognised",
        "recognises says None, expected True or False",
    ),
    "recognising raises": (
        {"recognises": picky},
        "nothing_else_is_recognised",
        "recognises raises AttributeError: .* for {'id': 1, 'acme': None",
    ),
    "not to be pickled": (whole(Unpicklable), "reading_is_the_same_in_a_worker", "pickle"),
    "other after pickling": (
        whole(Forgetful),
        "reading_is_the_same_in_a_worker",
        "sample 0 is another when pickled before it is read",
    ),
    "too long": (whole(TooLong), "the_length_is_true", "there is no record 2"),
    "no samples": (
        {"read_record": None, "open_file": lambda *args: []},
        "the_length_is_true",
        "the example has no samples",
    ),
    "other each time": (whole(Counting), "the_length_is_true", "sample 0 is another when it is read again"),
    "no sample": (
        {"read_record": lambda *args: None},
        "samples_can_be_learnt_from",
        "must read a RegionSample, got None",
    ),
    "a region too many": (
        changed_sample(regions=(SHOWN, SHOWN)),
        "samples_can_be_learnt_from",
        "its texts have 1 <region> but 2 regions were given",
    ),
    "a region outside": (
        changed_sample(regions=(Region.from_box((500, 1, 509, 9)),)),
        "samples_can_be_learnt_from",
        "sample 0, .*outside",
    ),
    "another size": (changed_sample(media_hw=((7, 7),)), "samples_can_be_learnt_from", "7"),
    "no place": ({"read_record": placeless}, "samples_can_be_learnt_from", "does not say where it was read"),
    "a picture that is not there": (
        {"read_record": lambda config, record, place: read_record(config, {**record, "file": "b.png"}, place)},
        "samples_can_be_learnt_from",
        "b.png",
    ),
    "another error": (
        {"read_record": greedy},
        "a_broken_record_harms_no_other",
        r"\[0\] = .*: KeyError: 'shown', expected a SampleError|AttributeError",
    ),
    "an error without a place": (
        {"read_record": placeless},
        "a_broken_record_harms_no_other",
        "the error does not say its id, place and defects",
    ),
    "no error": ({"read_record": forgiving}, "a_broken_record_harms_no_other", "there is never a SampleError"),
    "no other": (whole(Eager), "a_broken_record_harms_no_other", "no sample can be read, for one is broken"),
    "a file that is not there": (
        whole(Opening),
        "what_is_not_there_is_a_data_error",
        "FileNotFoundError: .* expected a DataError",
    ),
}


@pytest.mark.parametrize(("changes", "check", "message"), BROKEN_FORMATS.values(), ids=BROKEN_FORMATS)
def test_a_mistake_in_a_data_format_has_a_clear_message(install, tmp_path, changes, check, message):
    spec = replace(FORMAT, **changes)
    install(format=spec)
    (found,) = [each for each in DATA_FORMAT_CHECKS if each.__name__ == check]
    with _failing(message):
        found(FormatCase(spec, spec.tiny(tmp_path)))


@contextmanager
def _failing(message):
    """As the kit runs a check, any exception fails it."""
    with pytest.raises(Exception, match=message):
        yield


def test_every_check_of_a_data_format_can_fail():
    assert {check for _, check, _ in BROKEN_FORMATS.values()} == {check.__name__ for check in DATA_FORMAT_CHECKS}


def test_a_sound_format_passes_and_a_broken_one_is_told_what_is_demanded(install):
    install()
    assert check_data_format("acme") == [check.__name__ for check in DATA_FORMAT_CHECKS]
    install(format=replace(FORMAT, recognises=lambda record: False))
    with pytest.raises(AssertionError, match=r"^its_own_file_is_recognised: acme: .*\nThe check demands: `recog"):
        check_data_format("acme")


def test_a_format_without_an_example_needs_a_path(install, tmp_path):
    install(format=replace(FORMAT, tiny=None))
    with pytest.raises(AssertionError, match=r"there is no file to read: set DataFormatSpec\.tiny, or give path="):
        check_data_format("acme")
    assert check_data_format("acme", path=str(tiny(tmp_path)))


class Folder:
    """The samples of a folder of files."""

    def __init__(self, config, path, media_root):
        if not path.exists():
            raise DataError(f"'{path}' is not there.")
        self.config, self.media_root, self.files = config, media_root, sorted(path.glob("*.json"))

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        from pixelrefer_plugin.authoring import RecordPlace

        record = json.loads(self.files[index].read_text(encoding="utf-8"))
        return read_record(self.config, record, RecordPlace(self.files[index].name, index, self.media_root))


def tiny_folder(folder):
    write_tiny_picture(folder / "a.png")
    (folder / "records").mkdir()
    for number in (1, 2):
        record = {"id": number, "acme": "A car.", "file": "a.png", "shown": [{"box": [1, 1, 9, 9]}]}
        (folder / "records" / f"{number}.json").write_text(json.dumps(record), encoding="utf-8")
    return folder / "records"


def test_a_format_may_take_folders(install):
    install(format=replace(FORMAT, read_record=None, open_file=Folder, tiny=tiny_folder))
    assert check_data_format("acme")


# -- region sources ----------------------------------------------------------------------------------------


class Paint:
    """Every prompt becomes its own mask, on all sampled frames."""

    def __init__(self, config=None):
        pass

    def segment(self, image, prompts):
        return [Region("mask", prompt.to_mask((image.height, image.width))) for prompt in prompts]

    def track(self, video, prompts):
        return [self.tracked(video, next(iter(prompt.frames.values()))) for prompt in prompts]

    def tracked(self, video, region):
        return VideoRegion(dict.fromkeys(video.frame_indices, Region("mask", region.to_mask(video.image_hw))))


SOURCE = RegionSourceSpec(name="acme", config=Config, build=Paint)


def misbehaving(**methods):
    return {"build": lambda config: type("Wrong", (Paint,), methods)()}


class Untracked:
    def segment(self, image, prompts):
        return [None for _ in prompts]


def painted(change):
    """`segment` whose result is changed."""
    return misbehaving(segment=lambda self, image, prompts: change(Paint.segment(self, image, prompts)))


def tracked(change):
    """`track` whose result is changed."""
    return misbehaving(track=lambda self, video, prompts: change(Paint.track(self, video, prompts)))


def scribbling(self, image, prompts):
    image.paste((1, 2, 3), (0, 0, 5, 5))
    return Paint.segment(self, image, prompts)


def writing(self, video, prompts):
    video.frames_nhwc[0, 0, 0] = 0
    return Paint.track(self, video, prompts)


def emptying(self, video, prompts):
    found = Paint.track(self, video, prompts)
    prompts.clear()
    return found


class Wavering(Paint):
    calls = 0

    def segment(self, image, prompts):
        Wavering.calls += 1
        shift = Wavering.calls % 2
        return [Region.from_box((1, 1, 9 + shift, 9)) for _ in prompts]


class WaveringOnVideo(Paint):
    calls = 0

    def tracked(self, video, region):
        WaveringOnVideo.calls += 1
        return VideoRegion({0: Region.from_box((1, 1, 9 + WaveringOnVideo.calls % 7, 9))})


BROKEN_SOURCES = {
    "defaults that break a rule": ({"config": Unruly}, "options_are_strict", "Unruly.size must be a number > 0"),
    "no track": (
        {"build": lambda config: Untracked()},
        "source_can_segment_and_track",
        "acme: build returned a Untracked, which has no method track",
    ),
    "one too few": (
        painted(lambda found: found[1:]),
        "pictures_give_a_mask_for_each_prompt",
        "acme: a box: segment returned 0 regions for 1 prompts",
    ),
    "a generator": (painted(iter), "pictures_give_a_mask_for_each_prompt", "returned a list_iterator, expected a list"),
    "arrays": (
        painted(lambda found: [each.data.dense() for each in found]),
        "pictures_give_a_mask_for_each_prompt",
        "object 0: ndarray, expected a Region",
    ),
    "another size": (
        painted(lambda found: [Region("mask", Region.from_box((0, 0, 2, 2)).to_mask((9, 9))) for _ in found]),
        "pictures_give_a_mask_for_each_prompt",
        "its region does not fit its picture",
    ),
    "no prompts": (
        painted(lambda found: found or [None]),
        "pictures_give_a_mask_for_each_prompt",
        "no object: segment returned 1 regions for 0 prompts",
    ),
    "none on a video": (
        tracked(lambda found: None),
        "videos_give_masks_on_sampled_frames",
        "track returned a NoneType, expected a list",
    ),
    "regions of pictures": (
        tracked(lambda found: [Region.from_box((1, 1, 9, 9)) for _ in found]),
        "videos_give_masks_on_sampled_frames",
        "object 0: Region, expected a VideoRegion",
    ),
    "positions for frames": (
        tracked(lambda found: [VideoRegion({1: SHOWN}) for _ in found]),
        "videos_give_masks_on_sampled_frames",
        r"frame 1 is not one of the sampled frames \(0, 3, 6, 9, 12\)",
    ),
    "outside": (
        tracked(lambda found: [VideoRegion({3: Region.from_box((900, 1, 910, 9))}) for _ in found]),
        "videos_give_masks_on_sampled_frames",
        "frame 3: its region does not fit its picture",
    ),
    "other each time": (
        {"build": lambda config: Wavering()},
        "the_same_prompts_give_the_same_masks",
        "segment finds other masks when it is asked again",
    ),
    "other each time on a video": (
        {"build": lambda config: WaveringOnVideo()},
        "the_same_prompts_give_the_same_masks",
        "track finds other masks when it is asked again",
    ),
    "a picture is drawn on": (
        misbehaving(segment=scribbling),
        "what_is_given_stays_as_it_is",
        "segment changes its picture",
    ),
    "frames are written to": (misbehaving(track=writing), "what_is_given_stays_as_it_is", "track changes its frames"),
    "prompts are taken": (misbehaving(track=emptying), "what_is_given_stays_as_it_is", "the prompts are others"),
}


@pytest.mark.parametrize(("changes", "check", "message"), BROKEN_SOURCES.values(), ids=BROKEN_SOURCES)
def test_a_mistake_in_a_region_source_has_a_clear_message(install, changes, check, message):
    install(source=replace(SOURCE, **changes))
    with pytest.raises(AssertionError, match=rf"^{check}: .*{message}.*\nThe check demands: "):
        check_region_source("acme")


def test_every_check_of_a_region_source_can_fail():
    assert {check for _, check, _ in BROKEN_SOURCES.values()} == {check.__name__ for check in REGION_SOURCE_CHECKS}


def test_a_sound_source_passes_and_may_find_nothing(install):
    install()
    assert check_region_source("acme", question="Which?") == [check.__name__ for check in REGION_SOURCE_CHECKS]
    nothing = {
        "segment": lambda self, image, prompts: [None] * len(prompts),
        "track": lambda self, video, prompts: tuple(None for _ in prompts),
    }
    install(source=replace(SOURCE, **misbehaving(**nothing)))
    assert check_region_source("acme")


def test_samples_of_the_kit_are_samples(tmp_path):
    for format in FORMATS:
        folder = tmp_path / format
        folder.mkdir()
        case = FormatCase(get_data_format(format), get_data_format(format).tiny(Path(folder)))
        assert all(isinstance(sample, RegionSample) for sample in case.open())
        assert len(case.open()) >= 2


@pytest.mark.parametrize("field", ["recognises", "tiny"])
def test_a_format_whose_code_fails_spoils_no_other_formats_kit(install, field):
    def fail(*args):
        raise SystemExit("no luck")

    install(format=replace(FORMAT, **{field: fail}))
    assert check_data_format("regions")
