"""Settings and helpers for all tests."""

from importlib import metadata

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

# Tiny models gain nothing from threads, and two test processes on two cores lose a lot to spinning ones.
torch.set_num_threads(1)


def picture(height, width, seed=0):
    """A noise picture, `(height, width, 3)` uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def user(*parts):
    """A user's message of texts, pictures, and parts that are written out."""
    kinds = {str: "text", dict: None}
    content = []
    for part in parts:
        kind = kinds.get(type(part), "image")
        content.append({"type": kind, kind: part} if kind else part)
    return {"role": "user", "content": content}


def assistant(text):
    """An assistant's message."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def install_plugin(monkeypatch, name, module):
    """Have a plugin be there for one test, beside the installed ones: its entry point names a module."""
    from pixelrefer_plugin import plugins

    point = metadata.EntryPoint(name, module, plugins.GROUP)
    host = plugins.PluginHost([*metadata.entry_points(group=plugins.GROUP), point])
    monkeypatch.setattr(plugins, "host", lambda: host)


@pytest.fixture
def without_java(monkeypatch, tmp_path_factory):
    """As on a machine without Java: its programs take seconds to start, and most tests do not need them."""
    from pixelrefer_plugin.evaluation.metrics.java import find_java

    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("no-java")))
    find_java.cache_clear()
    yield
    find_java.cache_clear()


def scene_of(images, grids_hw):
    """The scene of one sample's images, each seen whole on its grid."""
    from pixelrefer_plugin.tokens.layouts import SceneGrids, SceneLayout

    return SceneLayout(
        whole=SceneGrids(tuple(grids_hw), tuple((0, 0, *image.size) for image in images)),
        tiled=None,
        grid_of_picture=tuple(range(len(images))),
        image_grids_per_sample=(len(images),),
        video_grids_per_sample=(0,),
    )


class CountOps(TorchDispatchMode):
    """Counts the torch operations that run inside it."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture
def pair():
    """SAOT on a tiny VideoLLaMA3, detached afterwards."""
    from pixelrefer_plugin.testing import make_pair

    made = make_pair("saot", "videollama3")
    yield made
    made.model.detach()
