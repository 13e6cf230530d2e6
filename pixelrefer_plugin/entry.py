"""The way in: a model and its processor, made together from one value of token ids.

`attach` takes a backbone and its own processor, `load` a model folder or a plain backbone. `RegionModel` and
`RegionProcessor` make one of the two alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .media.video import FrameSampling
from .model import RegionModel
from .processor import RegionProcessor
from .weights.hub import where_options
from .weights.opening import open_checkpoint


def attach(
    backbone: Any,
    native_processor: Any,
    *,
    adapter: str,
    adapter_config: Mapping[str, Any] | str | Any | None = None,
    backbone_plugin: str | None = None,
    region_token: str | None = None,
    sampling: FrameSampling | None = None,
    train_backbone: bool = False,
) -> tuple[RegionModel, RegionProcessor]:
    """Give a backbone region referring, and its processor regions. `RegionModel.detach` gives the backbone back.

        model, processor = attach(backbone, native_processor, adapter="NAME")

    Args:
        backbone: a Hugging Face model that a backbone plugin serves.
        native_processor: its own processor, which is copied.
        adapter: name of the adapter; its weights start at random, or as its options say.
        adapter_config: its options: a mapping, the name of a preset, or its config object. The key `preset` of a
            mapping names a preset that the other options override.
        backbone_plugin: name of the backbone plugin; by default found by `backbone.config.model_type`.
        region_token: a token that the tokenizer has for object tokens already; by default one is added.
        sampling: which frames of a video are read; by default 16, spread evenly.
        train_backbone: leave the backbone's own weights trainable; by default they are frozen.

    Raises:
        AttachError: the backbone already has an adapter, or lacks a module that its plugin names.
        PluginError: no plugin of that name, or none that serves this backbone.
        PromptError: the tokenizer does not have `region_token`, or no room for the token that stands for a mask.
    """
    processor = RegionProcessor(
        native_processor,
        backbone.config,
        adapter=adapter,
        adapter_config=adapter_config,
        backbone_plugin=backbone_plugin,
        sampling=sampling,
        region_token=region_token,
    )
    model = RegionModel.attach(
        backbone,
        adapter=adapter,
        tokens=processor.tokens,
        adapter_config=adapter_config,
        backbone_plugin=backbone_plugin,
        train_backbone=train_backbone,
    )
    return model, processor


def load(
    source: str | os.PathLike[str],
    *,
    adapter: str | None = None,
    adapter_config: Mapping[str, Any] | str | None = None,
    backbone: Any = None,
    backbone_plugin: str | None = None,
    region_token: str | None = None,
    processor_options: Mapping[str, Any] | None = None,
    **backbone_options: Any,
) -> tuple[RegionModel, RegionProcessor]:
    """Load a folder that `RegionModel.save_pretrained` wrote, or attach an untrained adapter to a plain backbone.

        model, processor = load("runs/street/model", dtype="bfloat16")

    Args:
        source: a model folder, on disk or on the hub, or the id or path of a plain backbone.
        adapter: name of the adapter. A plain backbone needs one; for a model folder it must be the one that it was
            made with.
        adapter_config: its options or the name of a preset, only for a plain backbone.
        backbone: where the backbone of a model folder is, or the loaded model itself; by default what the folder says.
        backbone_plugin: name of the backbone plugin; by default the folder's own, or found by the model type.
        region_token: a token of the tokenizer's that stands for object tokens, only for a plain backbone; by default
            one is added.
        processor_options: options of `AutoProcessor.from_pretrained`.
        **backbone_options: options of the backbone's `from_pretrained`, such as `dtype` or `device_map`. Those that say
            where files come from (`revision`, `token`, ...) are also for the processor, and for a folder on the hub.

    Returns:
        The model, in eval mode, and its processor.

    Raises:
        CheckpointError: files or weights are missing, damaged, left over, of a newer format, or made for another
            adapter or backbone.
        PluginError: a plain backbone without `adapter`, or no plugin serves this backbone or adapter.
    """
    opened = open_checkpoint(
        source,
        backbone_options,
        adapter=adapter,
        adapter_config=adapter_config,
        backbone_plugin=backbone_plugin,
        region_token=region_token,
    )
    processor = RegionProcessor.from_opened(opened, {**where_options(backbone_options), **(processor_options or {})})
    return RegionModel.from_opened(opened, processor.tokens, backbone, backbone_options), processor
