"""`Way`: one way of pointing at regions, as users write it: an adapter that needs no training, or a trained model.

    marks                       an adapter that needs no training
    marks[style=box]            with options
    boxes=marks[style=box]      called otherwise
    saot=runs/mine/model        the folder of a trained model

It knows adapters by name and model folders by their manifest; nothing is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...contracts.adapter import AdapterSpec
from ...errors import CheckpointError, EvaluationError, counted, did_you_mean, shown
from ...json_text import parse_json
from ...plugins import backbone_for, get_adapter, in_plugin, installed, training_free
from ...weights import hub
from ...weights.model_folder import BACKBONE_FOLDER, MANIFEST_FILE, Manifest
from ...weights.opening import open_checkpoint

_WAY = re.compile(r"(?:(?P<label>[^=\[\],]+)=)?(?P<what>[^=\[\],]+)(?P<options>\[[^\[\]]*\])?")
_BETWEEN = re.compile(r",(?![^\[\]]*\])")  # commas, but for those within brackets
_WRITTEN = "NAME, NAME[OPTION=VALUE,...], LABEL=NAME, or NAME=FOLDER of a trained model"


@dataclass(frozen=True, eq=False)
class Way:
    """One way of pointing at regions.

    Attributes:
        label: what to call it.
        adapter: name of the adapter.
        options: of an adapter that needs no training.
        folder: of a trained model; empty where nothing is trained.
        manifest: what that folder says.
    """

    label: str
    adapter: str
    options: Mapping[str, Any] = field(default_factory=dict)
    folder: str = ""
    manifest: Manifest | None = None

    @property
    def spec(self) -> AdapterSpec:
        """What the adapter's plugin says of it."""
        return get_adapter(self.adapter)

    @property
    def name_of_folder(self) -> str:
        """Its label as a folder may be called."""
        return re.sub(r"[^A-Za-z0-9_]+", "-", self.label).strip("-") or "way"

    @property
    def has_own_backbone(self) -> bool:
        """Whether its folder holds the backbone's weights too, as those of trained ones do."""
        return self.manifest is not None and self.manifest.backbone_id == BACKBONE_FOLDER


def read_ways(written: str | Sequence[str]) -> list[Way]:
    """Ways as users write them, each checked as far as that goes without the model.

    Args:
        written: one text with commas between the ways, or several.

    Raises:
        EvaluationError: a text is none, two ways are called alike, or an adapter that has to be trained has no folder.
        PluginError: no adapter is called so.
        PixelReferError: an option does not fit.
        CheckpointError: a folder is none of a trained model.
    """
    texts = [written] if isinstance(written, str) else list(written)
    parts = [part.strip() for text in texts for part in _BETWEEN.split(text) if part.strip()]
    if not parts:
        raise EvaluationError(f"There is no adapter to compare. Write {_WRITTEN}, with commas between them.")
    ways = [_read(part) for part in parts]
    names = [way.name_of_folder.lower() for way in ways]
    for way, name in zip(ways, names, strict=True):
        if names.count(name) > 1:
            raise EvaluationError(
                f"{counted(names.count(name), 'way')} of pointing would be called {shown(way.label)}. Give each a name "
                f"of its own: LABEL={way.folder or way.adapter}."
            )
    return ways


def _read(text: str) -> Way:
    found = _WAY.fullmatch(text)
    if found is None:
        raise EvaluationError(f"Expected {_WRITTEN}, got {shown(text)}.")
    label, what = found["label"], found["what"].strip()
    if label is not None and not found["options"] and _is_folder(what):
        return _trained(label.strip(), what)
    options = dict(_options(found["options"][1:-1], text)) if found["options"] else {}
    _require_training_free(what, label)
    with in_plugin("adapter", what, "config"):
        get_adapter(what).make_config(options)
    return Way(text if label is None else label.strip(), what, options)


def _is_folder(what: str) -> bool:
    """Whether a text names a folder, here or on the hub, and no adapter."""
    return Path(what).is_dir() or what not in installed("adapter")


def _options(text: str, where: str) -> Iterator[tuple[str, Any]]:
    for each in filter(str.strip, text.split(",")):
        key, equals, value = each.partition("=")
        if not equals or not key.strip():
            raise EvaluationError(f"{shown(where)}: expected OPTION=VALUE in the brackets, got {shown(each)}.")
        try:
            yield key.strip(), parse_json(value)
        except ValueError:
            yield key.strip(), value.strip()


def _require_training_free(name: str, label: str | None) -> None:
    if get_adapter(name).is_training_free:
        return
    free = ", ".join(training_free()) or "none"
    raise EvaluationError(
        f"Adapter '{name}' has to be trained: untrained, what it says about regions of a plain backbone means nothing. "
        f"Give the folder of a model that was trained with it, {label or name}=FOLDER. Adapters that need no training: "
        f"{free}."
    )


def _trained(label: str, folder: str) -> Way:
    if "/" not in folder and not Path(folder).is_dir():
        known = installed("adapter")
        raise EvaluationError(
            f"{label}={folder}: there is no folder {shown(folder)} here, and no adapter is called so."
            f"{did_you_mean(folder, known)} Installed adapters: {', '.join(known)}."
        )
    if hub.find_model_folder(folder, {}) is None:
        raise CheckpointError(
            f"{label}={folder}: it is no folder of a trained model, which has a {MANIFEST_FILE}. A plain backbone is "
            "asked by an adapter that needs no training, NAME alone."
        )
    opened = open_checkpoint(folder, {}, adapter=label if label in installed("adapter") else None)
    return Way(label, opened.adapter, folder=folder, manifest=opened.manifest)


def require_same_backbone(way: Way, source: str, config: Any) -> None:
    """Refuse a trained model that was made for another backbone than the one that is asked.

    Args:
        way: with its manifest; others are taken.
        source: what the user calls the backbone.
        config: the backbone's.

    Raises:
        CheckpointError: the backbone is of another type or size.
    """
    if way.manifest is None:
        return
    made_on = f"'{way.manifest.backbone_id}'" if way.manifest.backbone_id and not way.has_own_backbone else "its own"
    start = f"{way.label}={way.folder}: the folder was made for a backbone"
    if way.manifest.model_type != config.model_type:
        raise CheckpointError(
            f"{start} of type '{way.manifest.model_type}', but '{source}' is of type '{config.model_type}'. Models are "
            f"compared on one backbone: leave it out, or compare on {made_on}."
        )
    has, made = _widths(way, config), (way.manifest.vision_width, way.manifest.decoder_width)
    if has != made:
        raise CheckpointError(
            f"{start} with patch features of width {made[0]} and a decoder of width {made[1]}, but '{source}' has "
            f"widths {has[0]} and {has[1]}: it is a model of another size. Leave it out, or compare on {made_on}."
        )


def _widths(way: Way, config: Any) -> tuple[int, int]:
    """Widths of the features that the adapter reads, and of the decoder, as a config says them."""
    backbone = backbone_for(config.model_type)
    crop, decoder = backbone.crops.width(config), config.get_text_config().hidden_size
    side = backbone.cell_side(config)
    return {"patches": crop, "cells": crop * side**2, "projected": decoder}[way.spec.scene], decoder
