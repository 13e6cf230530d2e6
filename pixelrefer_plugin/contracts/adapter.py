"""What an adapter and a backbone promise: the two specs that plugins register, and the values in between.

The host speaks to plugins only in these terms. An adapter never sees a backbone, a backbone never an adapter.

Shape letters: R regions of a batch, P patches of a view (all its grids, concatenated), M (region, patch)
pairs inside a mask, C vision width, D decoder width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..errors import PixelReferError
from ..regions.mask import RegionMask
from ..regions.region import Region
from .masks import MaskHeadSpec
from .options import make_config
from .views import PatchGeometry, RegionPlan

if TYPE_CHECKING:
    from torch import nn


Framework = Literal["vision-object", "object-only"]
"""What the decoder sees: scene tokens and object tokens, or object tokens alone."""

_FRAMEWORKS = ("vision-object", "object-only")


_PRESET = "preset"


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


@dataclass(frozen=True, kw_only=True)
class AdapterSpec:
    """An adapter: how a region becomes object tokens.

    A region of a video is planned and tokenized frame by frame, as if each of its frames were an image.

    Attributes:
        name: what users call it.
        config: frozen dataclass of its options, each with a default; checks itself in `__post_init__`.
        plan: `plan(config, mask, geometry) -> RegionPlan`. Pure, on the CPU, one region at a time.
        build: `build(config, vision_width=C, decoder_width=D) -> nn.Module`. The module is called with one
            `EncodedView` per view and `counts`, the tokens promised per region, and returns `(sum(counts), D)`.
            A module with a method `set_attn_implementation(name)` is told what the backbone was loaded with; one with
            `start_from(projector_layers)` is given, when it is attached untrained, the linear layers of the backbone's
            projector, none where its plugin does not name them or they are quantized.
        framework: `vision-object` when scene tokens stay in the sequence. `object-only` when the decoder sees
            object tokens and text alone: the backbone's own image path is not run, so no view may be a
            `SceneView`.
        presets: named sets of options, such as those of published weights. Options beside a preset override it.
        plan_together: `plan_together(config, plans) -> plans`, for adapters whose regions on one picture depend on
            each other: the plans of one conversation's regions on one picture or video frame, in their order;
            as many come back. Pure. None: each region's plan stands.
        frame_label: `frame_label(config, time_s) -> str`, what stands before a frame's object tokens in an
            Object-Only video. None: `Time 1.0s:`.
        plan_drawn: `plan_drawn(config, region) -> RegionPlan | None`, for adapters that read clicks and boxes as they
            were drawn: the plan of a region whose tokens stand where its `<region>` does. None for one that is read by
            its mask, with `plan`: an object of the conversation's memory, introduced by a number before the first
            question. Without `plan_drawn` all regions are planned by their masks and stand where their `<region>` does.
        reads_merged: its scene views are on the grid of the decoder's scene tokens
            (`BackboneSpec.merged_side`), and `vision_width` is that of a merged cell. Frames of an object that share
            one such grid are planned together, by the union of their masks. No view may be a `CropView`.
        mask_head: what it reads in the decoder to give masks. None: it gives text alone.
        recipes: recipes of its own for `pixelrefer train`, by name.
        tiny: options that make it small, for tests and the conformance kit, as `BackboneSpec.tiny` makes a backbone.
    """

    name: str
    config: type[Any]
    plan: Callable[[Any, RegionMask, PatchGeometry], RegionPlan]
    build: Callable[..., nn.Module]
    framework: Framework = "vision-object"
    presets: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    plan_together: Callable[[Any, Sequence[RegionPlan]], Sequence[RegionPlan]] | None = None
    frame_label: Callable[[Any, float], str] | None = None
    plan_drawn: Callable[[Any, Region], RegionPlan | None] | None = None
    reads_merged: bool = False
    mask_head: MaskHeadSpec | None = None
    recipes: Mapping[str, AdapterRecipe] = dataclasses.field(default_factory=dict)
    tiny: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.framework not in _FRAMEWORKS:
            raise PixelReferError(
                f"AdapterSpec.framework of '{self.name}' must be {' or '.join(map(repr, _FRAMEWORKS))}, "
                f"got {self.framework!r}."
            )
        if _PRESET in getattr(self.config, "__dataclass_fields__", {}):
            raise PixelReferError(
                f"{self.config.__name__} has an option '{_PRESET}', the word that names one of AdapterSpec.presets "
                "among an adapter's options. Call it something else."
            )

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
                f"Adapter '{self.name}' has no preset {name!r}. Its presets: {', '.join(self.presets) or 'none'}."
            )
        return self.presets[name]
