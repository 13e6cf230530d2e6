"""An adapter's contract: how a region becomes object tokens. It knows no backbone.

An adapter is a planner, which says on the CPU what must be encoded for a region and how many tokens it yields, and a
module (`contracts.module`), which makes those tokens of what was encoded. Or it makes none and needs no training: then
it is a pointer (`contracts.pointing`) alone.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from ..errors import PixelReferError, shown
from ..regions.mask import RegionMask
from ..regions.region import Region
from .checks import (
    require_callables,
    require_config,
    require_kinds,
    require_name,
    require_subclass,
    require_values,
)
from .masks import Masks
from .options import make_config
from .pointing import Pointer
from .views import PatchGeometry, RegionPlan

if TYPE_CHECKING:
    from torch import Tensor

    from .module import AdapterModule, Shapes

Framework = Literal["vision-object", "object-only"]
"""What the decoder sees: scene tokens and object tokens, or object tokens alone."""

_FRAMEWORKS = ("vision-object", "object-only")

SceneFeatures = Literal["patches", "cells", "projected"]
"""What the features of a `SceneView` are: the vision tower's patches, the cells that the projector's first layer reads
(one for each scene token), or what the projector makes of them."""

_SCENES = ("patches", "cells", "projected")

_DRAWN_KINDS = ("points", "box")

_PRESET = "preset"

Config = TypeVar("Config")


class Planner(ABC, Generic[Config]):
    """Says what each region costs, and how it is worded. One is made for a processor; all methods are pure.

    Args:
        config: the adapter's options.
    """

    def __init__(self, config: Config) -> None:
        self.config = config

    @abstractmethod
    def plan(self, mask: RegionMask, geometry: PatchGeometry) -> RegionPlan:
        """The plan of one region on one picture, by its mask.

        Args:
            mask: its pixels.
            geometry: the backbone's patches.
        """

    def plan_drawn(self, region: Region) -> RegionPlan:
        """The plan of a region that is read as it was drawn: one of a kind that `AdapterSpec.drawn` lists."""
        raise NotImplementedError("an adapter whose spec lists kinds in `drawn` plans them here")

    def together(self, plans: Sequence[RegionPlan]) -> Sequence[RegionPlan]:
        """The plans of one conversation's regions on one picture or video frame, where they depend on each other.

        Args:
            plans: in the order of their regions.

        Returns:
            As many, of the same kinds of views.
        """
        return plans

    def frame_label(self, time_s: float) -> str:
        """What stands before a frame's object tokens in an Object-Only video."""
        return f"Time {time_s:.1f}s:"

    def list_heading(self, *, num_frames: int | None) -> str:
        """What stands before the list of a conversation's objects, where the decoder sees what they lie on.

        Args:
            num_frames: sampled frames of their video; None where they lie on an image.
        """
        if num_frames is None:
            return "Here is an image with the following highlighted regions:\n"
        return (
            f"Here is a video with {num_frames} frames denoted as <1> to <{num_frames}>. "
            "The highlighted regions are as follows:\n"
        )


@dataclass(frozen=True, kw_only=True)
class AdapterRecipe:
    """What an adapter's authors train, and how fast.

    Attributes:
        about: what it is for, in a line.
        rates: learning rate of each parameter group that trains: those of `pixelrefer train`, or `adapter.PART` for
            a part of the adapter's module, by its dotted path there. None: that part stays as it is, though the whole
            trains.
        lora: options of `RegionModel.add_lora` that its LoRA has by default; None: it adds none.
    """

    about: str
    rates: Mapping[str, float | None]
    lora: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        require_kinds(self, about=str, rates=Mapping, lora=(Mapping, type(None)))
        require_values(self, "rates", int, float, type(None))


@dataclass(frozen=True, kw_only=True)
class AdapterLayout:
    """How a checkpoint that an adapter's authors published holds the adapter. The rest of it is a backbone's.

    The backbone's part is read by the `CheckpointLayout` for the same `model_type`.

    Attributes:
        model: what the authors call the model.
        prefix: what stands before the keys of the adapter's weights.
        recognises: `recognises(keys) -> bool`: whether weights are of this model, and not of another that is laid out
            alike. Keys are those of the adapter, without `prefix`.
        weights: `weights(state) -> dict`: the state dict of the adapter's module from weights under their own keys,
            without `prefix`. Raises `CheckpointError` where one is not the adapter's.
        options: `options(data) -> Mapping`: options of the adapter that `config.json` says, whose content `data` is.
        preset: the one of `AdapterSpec.presets` that these weights were trained with; `options` override it. None: the
            adapter's defaults.
        region_token: the token of the checkpoint's tokenizer that stands for an object token. None: one is added.
        is_greedy: whether the authors' code takes the likeliest token, whatever the checkpoint says of sampling.
    """

    model: str
    prefix: str
    recognises: Callable[[Collection[str]], bool]
    weights: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    options: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    preset: str | None = None
    region_token: str | None = None
    is_greedy: bool = False

    def __post_init__(self) -> None:
        text = (str, type(None))
        require_kinds(self, model=str, prefix=str, preset=text, region_token=text, is_greedy=bool)
        require_callables(self, "recognises", "weights", "options")


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """An adapter: how a region becomes object tokens, or is pointed at without them.

    It has a planner and a module, or a pointer alone. A region of a video is planned and tokenized frame by frame, as
    if each of its frames were an image.

    Attributes:
        name: what users call it.
        config: frozen dataclass of its options, each with a default; checks itself in `__post_init__`.
        planner: `planner(config) -> Planner`, usually the class.
        module: the `AdapterModule` class.
        pointer: `pointer(config) -> Pointer`, usually the class, of an adapter that points at regions in words and
            pictures: it has no tokens, no module and nothing to train.
        framework: `vision-object` when scene tokens stay in the sequence. `object-only` when the decoder sees
            object tokens and text alone: the backbone's own image path is not run, so no view may be a
            `SceneView`.
        scene: what the features of its scene views are. `cells` and `projected` are on the grid of the decoder's scene
            tokens; frames of an object that share one such grid are planned together, by the union of their masks.
        drawn: kinds of regions that are planned as they were drawn, with `Planner.plan_drawn`: `points`, `box`. Their
            tokens stand where their `<region>` does; every other region is then an object of the conversation's
            memory, introduced by a number before the first question. Empty: all regions are planned by their masks and
            stand where their `<region>` does.
        masks: what it reads in the decoder to give masks. None: it gives text alone.
        presets: named sets of options, such as those of published weights. Options beside a preset override it.
        recipes: recipes of its own for `pixelrefer train`, by name.
        layouts: checkpoints that its authors published, by the `model_type` of their `config.json`.
        tiny: options that make it small, for tests and the conformance kit, as `BackboneSpec.tiny` makes a backbone.
    """

    name: str
    config: type[Any]
    planner: Callable[[Any], Planner[Any]] | None = None
    module: type[AdapterModule] | None = None
    pointer: Callable[[Any], Pointer[Any]] | None = None
    framework: Framework = "vision-object"
    scene: SceneFeatures = "patches"
    drawn: tuple[str, ...] = ()
    masks: Masks | None = None
    presets: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    recipes: Mapping[str, AdapterRecipe] = dataclasses.field(default_factory=dict)
    layouts: Mapping[str, AdapterLayout] = dataclasses.field(default_factory=dict)
    tiny: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        from .module import AdapterModule, MaskModule  # with torch, which whoever has a module has imported

        require_name(self)
        require_config(self)
        if self.pointer is None:
            require_callables(self, "planner")
            require_subclass(self, "module", AdapterModule)
        else:
            require_callables(self, "pointer")
            self._require_no_tokens()
        require_kinds(self, masks=(Masks, type(None)), presets=Mapping, recipes=Mapping, layouts=Mapping, tiny=Mapping)
        require_values(self, "presets", Mapping)
        require_values(self, "recipes", AdapterRecipe)
        require_values(self, "layouts", AdapterLayout)
        if self.masks is not None and self.module is not None and not issubclass(self.module, MaskModule):
            raise PixelReferError(
                f"AdapterSpec.module of '{self.name}' must have the methods predict_masks and mask_losses, since "
                f"`masks` is given; {self.module.__name__} does not."
            )
        self._require_one_of("framework", self.framework, _FRAMEWORKS)
        self._require_one_of("scene", self.scene, _SCENES)
        if not isinstance(self.drawn, tuple) or not all(each in _DRAWN_KINDS for each in self.drawn):
            raise PixelReferError(
                f"AdapterSpec.drawn of '{self.name}' must be a tuple of {' and '.join(map(repr, _DRAWN_KINDS))}, "
                f"got {shown(self.drawn)}."
            )
        if _PRESET in self.config.__dataclass_fields__:
            raise PixelReferError(
                f"{self.config.__name__} has an option '{_PRESET}', the word that names one of AdapterSpec.presets "
                "among an adapter's options. Call it something else."
            )
        for layout in self.layouts.values():
            if layout.preset is not None:
                self._preset(layout.preset)

    def _require_one_of(self, field: str, value: Any, allowed: Sequence[str]) -> None:
        if value not in allowed:
            raise PixelReferError(
                f"AdapterSpec.{field} of '{self.name}' must be {' or '.join(map(repr, allowed))}, got {shown(value)}."
            )

    def _require_no_tokens(self) -> None:
        """Refuse what only object tokens have, of an adapter that makes none."""
        usual = {"planner": None, "module": None, "framework": _FRAMEWORKS[0], "scene": _SCENES[0], "masks": None}
        given = [field for field, value in usual.items() if getattr(self, field) != value]
        given += [field for field in ("drawn", "recipes", "layouts") if getattr(self, field)]
        if given:
            raise PixelReferError(
                f"AdapterSpec of '{self.name}' has a pointer, so it makes no object tokens: leave {', '.join(given)} "
                "out, or leave the pointer out."
            )

    @property
    def is_training_free(self) -> bool:
        """Whether it points in words and pictures: it makes no object tokens, and has nothing to train."""
        return self.pointer is not None

    def build(self, config: Any, shapes: Shapes) -> AdapterModule:
        """The module that a config describes; of an adapter that makes no tokens an empty one.

        Raises:
            PixelReferError: the config does not fit the shapes.
        """
        from .module import NoTokens

        return NoTokens() if self.module is None else self.module.build(config, shapes)

    def make_planner(self, config: Any) -> Planner[Any] | None:
        """Its planner; None where it makes no object tokens."""
        return None if self.planner is None else self.planner(config)

    @property
    def on_scene_tokens(self) -> bool:
        """Whether its scene views are on the grid of the decoder's scene tokens."""
        return self.scene != "patches"

    def make_config(self, options: Mapping[str, Any] | Any | None = None) -> Any:
        """A checked config from keyword options, from a preset, from a config object, or the default one.

        Args:
            options: options as a mapping, in which `preset` names a preset that the others override; the name of
                a preset; or a config object.

        Raises:
            PixelReferError: an unknown option or preset (the known ones are listed) or a value that breaks a rule.
        """
        if isinstance(options, str):
            options = self._preset(options)
        elif isinstance(options, Mapping) and _PRESET in options:
            own = {name: value for name, value in options.items() if name != _PRESET}
            options = {**self._preset(options[_PRESET]), **own}
        return make_config(self.config, options, owner=f"adapter '{self.name}'")

    def _preset(self, name: Any) -> Mapping[str, Any]:
        if not isinstance(name, str) or name not in self.presets:
            raise PixelReferError(
                f"Adapter '{self.name}' has no preset {shown(name)}. Its presets: {', '.join(self.presets) or 'none'}."
            )
        return self.presets[name]
