"""Errors know their place: attributes, the text made of them, pickling, and exceptions of plugins' code."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from pixelrefer_plugin import PromptError, RegionError, SampleError
from pixelrefer_plugin.chat import RememberError
from pixelrefer_plugin.errors import Defect, FrameError, PixelReferError, PluginCodeError, in_plugin, placed


def raised(error, *places):
    """An error after it went through places, the inner one first."""
    for place in places:
        with pytest.raises(type(error)) as caught, placed(**place):
            raise error
        assert caught.value is error
    return error


@pytest.mark.parametrize(
    ("places", "text"),
    [
        ([], "no."),
        ([{"sample": 0}], "Sample 0: no."),
        ([{"frame": 5}, {"region": 2}, {"sample": 0}], "Sample 0, region 2, frame 5: no."),
        ([{"sample": 1, "region": 0, "frame": None}], "Sample 1, region 0: no."),
        ([{"object_id": 3}, {"sample": 0}], "Sample 0, object 3 of the memory: no."),
        ([{"object_id": 3}], "Object 3: no."),
        ([{"frame": 5}], "Frame 5: no."),
        ([{"subject": "--out"}], "--out: no."),
        ([{"region": 1, "subject": "object 1"}, {"frame": 4}], "object 1, frame 4: no."),
        ([{"region": 2}, {"sample": 0}, {"sample": 7, "subject": "a.jsonl line 3"}], "Sample 0, region 2: no."),
        ([{"region": 2}, {"sample": 0}, {"sample": 0, "subject": "a.jsonl line 3"}], "a.jsonl line 3, region 2: no."),
        ([{"region": 2}, {"region": 1, "subject": "--box 1,2,3,4"}], "Region 2: no."),
    ],
)
def test_the_text_is_made_of_the_place(places, text):
    error = raised(RegionError("no."), *places)
    assert str(error) == text
    assert error.message == "no."


def test_what_is_nearer_counts():
    error = raised(RegionError("no.", region=1), {"region": 2, "sample": 0}, {"sample": 3, "frame": 4})
    assert (error.sample, error.region, error.frame, error.object_id, error.plugin) == (0, 1, 4, None, None)


def test_a_text_reads_on_behind_its_samples_name():
    error = raised(RegionError("no.", region=1, frame=3), {"sample": 0})
    assert error.in_sample == "region 1, frame 3: no."
    assert PromptError("no.", sample=0).in_sample == "no."


def test_a_frame_error_names_its_frame_itself():
    error = raised(FrameError("clip.mp4: frame 5 is not sampled.", frame=5), {"region": 0, "sample": 0})
    assert str(error) == "Sample 0, region 0: clip.mp4: frame 5 is not sampled."
    assert error.frame == 5


ERRORS = {
    "placed": raised(RegionError("no.", region=1), {"sample": 0, "subject": "row 3"}),
    "frame": raised(FrameError("no.", frame=3), {"sample": 0}),
    "sample": SampleError("a", "rows 1", [Defect("media", "no.")]),
    "with arguments of its own": RememberError("no.", reply="reply"),
    "of a plugin": PluginCodeError.of(KeyError("x"), "adapter 'saot'", "plan").set_place(sample=2),
}


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_errors_travel_between_processes(name, again):
    error = ERRORS[name]
    came = again(error)
    assert type(came) is type(error)
    assert str(came) == str(error)
    assert vars(came) == vars(error)


# -- plugins -----------------------------------------------------------------------------------------------


def failed(exception, *steps):
    """What comes of an exception that goes through plugins' steps, the inner one first."""
    for plugin, step in steps:
        with pytest.raises(PixelReferError) as caught, in_plugin(plugin, step):
            raise exception
        exception = caught.value
    return exception


def test_an_exception_of_a_plugins_code_is_wrapped_once():
    cause = ZeroDivisionError("division by zero")
    error = failed(cause, ("adapter 'x'", "plan"), ("region source 'y'", "segment"))
    assert str(error) == "Adapter 'x' failed in plan: ZeroDivisionError: division by zero."
    assert (type(error), error.plugin, error.step) == (PluginCodeError, "adapter 'x'", "plan")
    assert error.cause == "ZeroDivisionError: division by zero"
    assert error.__cause__ is cause
    assert str(raised(error, {"sample": 0, "region": 1})).startswith(
        "Sample 0, region 1: Adapter 'x' failed in plan: Z"
    )


@pytest.mark.parametrize(
    ("exception", "text"),
    [
        (AssertionError(), "Adapter 'x' failed in plan: AssertionError."),
        (ValueError("a\n  b."), "Adapter 'x' failed in plan: ValueError: a b."),
        (RuntimeError("y" * 300), f"Adapter 'x' failed in plan: RuntimeError: {'y' * 197}."),
        (StopIteration(3), "Adapter 'x' failed in plan: StopIteration: 3."),
    ],
    ids=["no text", "lines", "long", "stop iteration"],
)
def test_the_text_of_a_cause(exception, text):
    assert str(failed(exception, ("adapter 'x'", "plan"))) == text


def test_an_error_of_this_package_passes_a_plugin():
    error = RegionError("no.", region=0)
    assert failed(error, ("adapter 'x'", "plan"), ("region source 'y'", "track")) is error
    assert (str(error), error.plugin, error.step) == ("Region 0: no.", "adapter 'x'", "plan")


def test_ctrl_c_passes_a_plugin():
    with pytest.raises(KeyboardInterrupt), in_plugin("adapter 'x'", "plan"):
        raise KeyboardInterrupt


def test_places_in_threads_do_not_mix():
    def place(index):
        with placed(sample=index), in_plugin(f"adapter '{index}'", "plan"):
            raise RuntimeError("no")

    with ThreadPoolExecutor(4) as pool:
        for index, future in enumerate([pool.submit(place, index) for index in range(20)]):
            error = future.exception()
            assert (error.sample, error.plugin) == (index, f"adapter '{index}'")
