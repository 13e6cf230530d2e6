"""A region source's contract: how a box or a click becomes a mask. It knows no backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..regions.region import Region, VideoRegion
from .checks import require_callables, require_config, require_name
from .options import make_config

if TYPE_CHECKING:
    from PIL import Image

    from ..media.video import Video


class RegionSource(Protocol):
    """Turns prompts (boxes, clicks, rough masks) into masks. What a `RegionSourceSpec` builds.

    Prompts lie inside their pictures and on sampled frames: the host sees to that, and names an object for which
    None is returned. Without prompts nothing is returned.
    """

    def segment(self, image: Image.Image, prompts: Sequence[Region]) -> Sequence[Region | None]:
        """The mask of each prompt on one picture, which is encoded once; None where nothing is found."""
        ...

    def track(self, video: Video, prompts: Sequence[VideoRegion]) -> Sequence[VideoRegion | None]:
        """The mask of each prompt on every sampled frame where the object is seen, before and after the
        frames that the prompt names; all objects in one pass. None where it is seen nowhere."""
        ...


@dataclass(frozen=True, kw_only=True)
class RegionSourceSpec:
    """A region source: a model that finds an object's mask from a box or clicks.

    Attributes:
        name: what users call it.
        config: frozen dataclass of its options, each with a default; checks itself in `__post_init__`.
        build: `build(config) -> RegionSource`: loads the model.
    """

    name: str
    config: type[Any]
    build: Callable[[Any], RegionSource]

    def __post_init__(self) -> None:
        require_name(self)
        require_config(self)
        require_callables(self, "build")

    def make_config(self, options: Mapping[str, Any] | Any | None = None) -> Any:
        """As `AdapterSpec.make_config`."""
        return make_config(self.config, options, owner=f"region source '{self.name}'")
