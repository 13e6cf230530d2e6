"""Specs of adapters and backbones, and their parts, refuse what breaks the contract, and say what it demands."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from conftest import assistant, picture, user

from pixelrefer_plugin import Region, __version__, attach, get_adapter, get_backbone
from pixelrefer_plugin.authoring import (
    BenchmarkFile,
    BenchmarkSpec,
    Cells,
    Crops,
    Masks,
    PackedTower,
    Parts,
    PublishedFigure,
    Question,
    RegionPlan,
    Scene,
)
from pixelrefer_plugin.cli.reporting import told
from pixelrefer_plugin.contracts.messages import read_turns
from pixelrefer_plugin.errors import PixelReferError, PluginError, PromptError, SpliceError


class NoDataclass:
    pass


@dataclass
class CanChange:
    size: int = 1


@dataclass(frozen=True)
class Empty:
    pass


@dataclass(frozen=True)
class NoDefault:
    size: int


@dataclass(frozen=True)
class OwnPreset:
    preset: str = "few"


ADAPTERS = {
    "no name": ({"name": None}, r"AdapterSpec\.name must be a text of lowercase letters.*got None"),
    "no dataclass": ({"config": NoDataclass}, r"config of 'maskpool' must be a frozen dataclass .* is no dataclass"),
    "a config that changes": (
        {"config": CanChange},
        r"got CanChange, which can be changed\. Write @dataclass\(frozen=",
    ),
    "no default": ({"config": NoDefault}, "got NoDefault, which has no default for size"),
    "an option named preset": ({"config": OwnPreset}, "OwnPreset has an option 'preset'"),
    "no planner": ({"planner": None}, r"AdapterSpec\.planner of 'maskpool' must be a function, got None"),
    "a bare module": (
        {"module": torch.nn.Linear},
        r"AdapterSpec\.module of 'maskpool' must be a class derived from AdapterModule, got .*Linear",
    ),
    "a module object": ({"module": torch.nn.Linear(1, 1)}, "must be a class derived from AdapterModule, got Linear"),
    "masks without methods": (
        {"masks": Masks(token="<seg>", picture_px=len, max_objects=len)},
        "must have the methods predict_masks and mask_losses, since `masks` is given; MaskPool does not",
    ),
    "masks by name": ({"masks": "<seg>"}, "masks of 'maskpool' must be a Masks or None, got '<seg>'"),
    "no presets": ({"presets": None}, "presets of 'maskpool' must be a Mapping, got None"),
    "recipes in a list": ({"recipes": []}, r"recipes of 'maskpool' must be a Mapping, got \[\]"),
    "no kinds": ({"drawn": None}, "drawn of 'maskpool' must be a tuple of 'points' and 'box', got None"),
    "kinds in a list": ({"drawn": ["box"]}, r"must be a tuple of 'points' and 'box', got \['box'\]"),
    "kinds of kinds": ({"drawn": (["box"],)}, r"must be a tuple of 'points' and 'box', got \(\['box'\],\)"),
    "another framework": ({"framework": "both"}, "must be 'vision-object' or 'object-only', got 'both'"),
    "another scene": ({"scene": ["cells"]}, r"must be 'patches' or 'cells' or 'projected', got \['cells'\]"),
}


@pytest.mark.parametrize(("changes", "message"), ADAPTERS.values(), ids=ADAPTERS)
def test_an_adapter_says_what_it_must_be(changes, message):
    with pytest.raises(PixelReferError, match=message):
        replace(get_adapter("maskpool"), **changes)


BACKBONES = {
    "a name in capitals": ({"name": "LLaVA"}, r"BackboneSpec\.name must be .* got 'LLaVA'"),
    "one model type": ({"model_types": "llava"}, r"must be a tuple of names, got 'llava'\. Write \('llava',\)"),
    "no model type": ({"model_types": ()}, r"model_types of 'llava_onevision' must be a tuple of names, got \(\)"),
    "a model class by name": ({"model_class": "Llava"}, "model_class of 'llava_onevision' must be a type, got 'Llava'"),
    "paths in a mapping": ({"parts": {"decoder": "model"}}, "parts of .* must be a Parts, got {'decoder': 'model'}"),
    "no images": ({"images": None}, "images of .* must be a Scene, got None"),
    "a function for tiles": ({"tiles": len}, "tiles of .* must be a Scene or None, got <built-in function len>"),
    "a side for cells": ({"cells": 2}, "cells of .* must be a Cells or None, got 2"),
    "a bad pattern": (
        {"lora_targets": {"decoder": "q_proj)"}},
        r"lora_targets\['decoder'\] of 'llava_onevision' must be a regular expression, got 'q_proj\)': unbalanced",
    ),
    "an unknown scope": (
        {"lora_targets": {"decodre": "q_proj"}},
        "lora_targets of 'llava_onevision' must be among decoder, projector, vision_tower, got 'decodre'",
    ),
    "no scopes": ({"lora_targets": None}, "must be a mapping of names to regular expressions, got None"),
    "a pair for tiny": ({"tiny": (1, 2)}, r"tiny of 'llava_onevision' must be a function, got \(1, 2\)"),
    "no layouts": ({"layouts": None}, "layouts of 'llava_onevision' must be a Mapping, got None"),
    "a text for a yes": ({"mixes_media": "no"}, "mixes_media of 'llava_onevision' must be a bool, got 'no'"),
}


@pytest.mark.parametrize(("changes", "message"), BACKBONES.values(), ids=BACKBONES)
def test_a_backbone_says_what_it_must_be(changes, message):
    with pytest.raises(PixelReferError, match=message):
        replace(get_backbone("llava_onevision"), **changes)


PATHS = {"vision_tower": "a", "projector": "b", "decoder": "c", "token_embedding": "d"}
PARTS = {
    "no path": (lambda: Parts(**PATHS | {"decoder": None}), r"Parts\.decoder must be a str, got None"),
    "one layer": (lambda: Parts(**PATHS, projector_layers="a.b"), r"projector_layers must be .* Write \('a.b',\)"),
    "a norm": (lambda: Parts(**PATHS, final_norm=1), r"Parts\.final_norm must be a str or None, got 1"),
    "a width": (lambda: Crops(geometry=len, width=64, encode=len), r"Crops\.width must be a function, got 64"),
    "no tower": (lambda: PackedTower(path=None), r"PackedTower\.path must be a str, got None"),
    "an order": (lambda: PackedTower(path="a", order=2), r"PackedTower\.order must be a function, got 2"),
    "no frames": (
        lambda: Scene(grids_hw=len, grids=len, least_frames=0),
        r"Scene\.least_frames must be 1 or more, got 0",
    ),
    "no grids": (lambda: Scene(grids_hw=len, grids=None), r"Scene\.grids must be a function, got None"),
    "boxes": (
        lambda: Scene(grids_hw=len, grids=len, boxes_xyxy=()),
        r"boxes_xyxy must be a function or None, got \(\)",
    ),
    "a side": (lambda: Cells(side=2), r"Cells\.side must be a function, got 2"),
    "a size": (
        lambda: Masks(token="t", picture_px=32, max_objects=len),
        r"Masks\.picture_px must be a function, got 32",
    ),
    "no token": (lambda: Masks(token=None, picture_px=len, max_objects=len), r"Masks\.token must be a str, got None"),
    "a path": (lambda: BenchmarkFile(Path("a"), "A file."), r"BenchmarkFile\.path must be a str"),
    "words": (lambda: PublishedFigure("a", "b", "c", "d"), r"PublishedFigure\.value must be a int or a float, got 'c'"),
    "no masks": (
        lambda: Question(id="a", asked=None, localize=True),
        "Question 'a' has localize=True, which needs segment=True",
    ),
    "nothing": (lambda: PublishedFigure("a", "b", float("nan"), "d"), r"value must be a finite number, got nan"),
}


BENCHMARKS = {
    "a file's path": (
        {"files": ("a.json",)},
        r"BenchmarkSpec\.files\[0\] of 'a' must be a BenchmarkFile, got 'a.json'",
    ),
    "a number": ({"published": (0.5,)}, r"published\[0\] of 'a' must be a PublishedFigure, got 0\.5"),
    "a format's name": ({"answer_formats": {"x": "y"}}, r"answer_formats\['x'\] of 'a' must be a function, got 'y'"),
    "a format without one": ({"judged_formats": {1: len}}, r"judged_formats of 'a' must be a mapping by texts"),
    "no tokens": ({"max_new_tokens": 0}, "must be an integer >= 1, got 0"),
    "a need": ({"needs": ("luck",)}, "needs of 'a' must be among masks, judge, java, sentences, got 'luck'"),
    "no export": ({"export": 3}, "export of 'a' must be a function or None, got 3"),
}


@pytest.mark.parametrize(("changes", "message"), BENCHMARKS.values(), ids=BENCHMARKS)
def test_a_benchmark_says_what_it_must_be(changes, message):
    spec = BenchmarkSpec(name="a", about="A.", config=Empty, files=(), open=len, score=len)
    with pytest.raises(PixelReferError, match=message):
        replace(spec, **changes)


@pytest.mark.parametrize(("make", "message"), PARTS.values(), ids=PARTS)
def test_a_part_says_what_it_must_be(make, message):
    with pytest.raises(PixelReferError, match=message):
        make()


def test_a_backbone_need_not_name_its_projectors_layers():
    assert Parts(**PATHS).projector_layers == ()


# -- what the classes of a spec make -----------------------------------------------------------------------

QUESTION = [user(picture(60, 90), "what is <region>?")]
BOX = Region.from_box((5, 5, 40, 30))


@pytest.fixture
def serve(monkeypatch):
    """Attaches `maskpool` with something else in its spec."""

    def with_changes(**changes):
        spec = replace(get_adapter("maskpool"), **changes)
        monkeypatch.setattr("pixelrefer_plugin.plugins.PluginHost.adapter", lambda host, name: spec)
        model, native = get_backbone("llava_onevision").tiny(0)
        return attach(model, native, adapter="maskpool")

    return with_changes


def test_a_planner_that_is_none_is_refused(serve):
    with pytest.raises(
        PluginError, match="AdapterSpec.planner of 'maskpool' must make a Planner, got a dict"
    ) as caught:
        serve(planner=lambda config: {})
    assert (caught.value.plugin, caught.value.step) == ("adapter 'maskpool'", "planner")


def test_a_build_that_makes_something_else_is_refused(serve):
    class Other(get_adapter("maskpool").module):
        @classmethod
        def build(cls, config, shapes):
            return torch.nn.Linear(shapes.crop, shapes.decoder)

    with pytest.raises(PluginError, match="Other.build of adapter 'maskpool' must make an AdapterModule, got a Linear"):
        serve(module=Other)


RETURNED = {
    "nothing": (lambda out: None, "NoneType"),
    "a tuple": (lambda out: (out,), "tuple"),
    "whole numbers": (lambda out: out.long(), "int64"),
    "another width": (lambda out: out[:, :-1], r"\(\d+, 63\)"),
    "too few": (lambda out: out[:-1], r"\(0, 64\)"),
    "one vector": (lambda out: out[0], r"\(64,\)"),
}


@pytest.mark.parametrize(("change", "told"), RETURNED.values(), ids=RETURNED)
def test_a_module_that_returns_something_else_is_named(serve, change, told):
    class Other(get_adapter("maskpool").module):
        def forward(self, views, counts):
            return change(super().forward(views, counts))

    model, processor = serve(module=Other)
    inputs = processor([*QUESTION, assistant("a cat")], [BOX])
    with pytest.raises(
        SpliceError, match=rf"Adapter 'maskpool' promised \d+ object tokens of width 64 .*{told}"
    ) as caught:
        model(**inputs)
    assert (caught.value.plugin, caught.value.step) == ("adapter 'maskpool'", "forward")


def test_the_distribution_of_a_plugin_that_breaks_its_contract_is_told(serve):
    class Other(get_adapter("maskpool").planner):
        def plan(self, mask, geometry):
            return [super().plan(mask, geometry)]

    _, processor = serve(planner=Other)
    with pytest.raises(PluginError) as caught:
        processor(QUESTION, [BOX])
    assert caught.value.distribution == f"pixelrefer-plugin {__version__}"
    note = f"The adapter 'maskpool' is from pixelrefer-plugin {__version__}."
    assert caught.value.__notes__ == [note]
    assert told(caught.value).splitlines() == [str(caught.value), note]


PLANS = {
    "a list": (lambda plan: [plan], "must plan a RegionPlan, got \\[RegionPlan"),
    "nothing": (lambda plan: None, "must plan a RegionPlan, got None"),
    "a number": (lambda plan: plan.num_tokens, "must plan a RegionPlan, got 1"),
    "no views": (lambda plan: RegionPlan(1, (None,)), "RegionPlan.views must be a tuple of views, at least one"),
}


@pytest.mark.parametrize(("change", "message"), PLANS.values(), ids=PLANS)
def test_a_planner_that_plans_something_else_is_named(serve, change, message):
    class Other(get_adapter("maskpool").planner):
        def plan(self, mask, geometry):
            return change(super().plan(mask, geometry))

    _, processor = serve(planner=Other)
    with pytest.raises(PixelReferError, match=message) as caught:
        processor(QUESTION, [BOX])
    assert caught.value.region == 0


DEEP = [[]]
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        (5, "a conversation must be a list of messages, got 5"),
        (None, "a conversation must be a list of messages, got None"),
        ("text", "a conversation must be a list of messages, got 'text'"),
        ([5], "a message must have 'role' and 'content', got 5"),
        ([{"role": None, "content": "x"}], "a message's role must be a text such as 'user', got None"),
        ([{"role": "user", "content": 5}], "a message's content must be text or a list of parts, got 5"),
        ([{"role": "user", "content": DEEP}], "a message's content must be text or a list of parts, got "),
        ([{"role": "user", "content": [{"type": DEEP}]}], "a content part must be text, image or video"),
        (
            [{"role": "user", "content": [{"type": "text", "text": b"x" * 10**6}]}],
            "a text part must be a string, got b'x",
        ),
    ],
)
def test_a_message_that_is_none_is_shown_in_short(conversation, message):
    with pytest.raises(PromptError, match=message) as caught:
        read_turns(conversation)
    assert len(str(caught.value)) < 300
