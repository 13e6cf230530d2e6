"""The `sam2` region source: prompts in, masks out, on whichever engine runs the model.

Torch is imported when a model is loaded, not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pixelrefer_plugin.authoring import Region, RegionMask, RegionSourceSpec, SourceError, VideoRegion

from .config import Sam2Config
from .prompts import Prompt, prompt_of

if TYPE_CHECKING:
    from PIL import Image

    from pixelrefer_plugin.authoring import Video

INSTALL_HINT = "pip install 'pixelrefer-plugin[sam2]'"


class Engine(Protocol):
    """A SAM 2 model and what runs it. Frames are `(T, H, W, 3)` uint8 RGB, masks `(H, W)` bool at their size.

    Objects go by number, frames by their position among those given.
    """

    def segment(self, image_hwc: np.ndarray, prompts: Sequence[Prompt]) -> Iterator[np.ndarray]:
        """The mask of each prompt, the picture encoded once; empty where nothing is found."""
        ...

    def open(self, frames_nhwc: np.ndarray) -> Any:
        """A state for tracking through these frames."""
        ...

    def reset(self, state: Any) -> None:
        """Forget the objects, keep the frames."""
        ...

    def add(self, state: Any, prompts: Mapping[int, Mapping[int, Prompt]]) -> None:
        """Add objects: number -> position -> prompt."""
        ...

    def propagate(self, state: Any, *, start: int, reverse: bool) -> Iterator[tuple[int, Mapping[int, np.ndarray]]]:
        """Position and masks of all objects, from `start` to the last frame or, in reverse, to the first."""
        ...


class Sam2Source:
    """A `RegionSource` on one SAM 2 model.

    To SAM 2 a picture is a video of one frame, so that one model serves both.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def segment(self, image: Image.Image, prompts: Sequence[Region]) -> list[Region | None]:
        """The mask of each prompt on one picture; None where the model finds nothing. Masks stay as they are."""
        given = [prompt_of(prompt, (image.height, image.width)) for prompt in prompts]
        found = self.engine.segment(np.asarray(image), [prompt for prompt in given if prompt.mask is None])
        return [_as_region(prompt.mask or next(found)) for prompt in given]

    def track(self, video: Video, prompts: Sequence[VideoRegion]) -> list[VideoRegion | None]:
        """The mask of each prompt on the sampled frames where it is seen; None where it never is.

        One pass goes forwards and one backwards, each with all objects. An object joins a pass at the first
        frame that its prompt names, so that its masks do not depend on where other objects begin. On the frame
        of a mask that is the object's mask.
        """
        given = [_by_position(prompt, video) for prompt in prompts]
        state = self.engine.open(video.frames_nhwc)
        seen: list[dict[int, Region]] = [{} for _ in prompts]
        for reverse in (False, True):
            for position, masks in self._sweep(state, given, num_frames=len(video), reverse=reverse):
                for number, mask in masks.items():
                    prompt = given[number].get(position, Prompt())
                    if region := _as_region(prompt.mask or mask):
                        seen[number][video.frame_indices[position]] = region
        return [VideoRegion(frames) if frames else None for frames in seen]

    def _sweep(
        self, state: Any, prompts: Sequence[Mapping[int, Prompt]], *, num_frames: int, reverse: bool
    ) -> Iterator[tuple[int, Mapping[int, np.ndarray]]]:
        """One pass over the frames, stopping wherever objects join."""
        self.engine.reset(state)
        starts = sorted({min(prompt) for prompt in prompts}, reverse=reverse)
        if reverse:
            starts = [start for start in starts if start > 0]  # no frame comes before the first
        for start, stop in pairwise([*starts, -1 if reverse else num_frames]):
            joining = {number: prompt for number, prompt in enumerate(prompts) if min(prompt) == start}
            self.engine.add(state, joining)
            yield from islice(self.engine.propagate(state, start=start, reverse=reverse), abs(stop - start))


def _by_position(prompt: VideoRegion, video: Video) -> dict[int, Prompt]:
    """What is asked about one object, by position among the sampled frames."""
    return {video.position(frame): prompt_of(region, video.image_hw) for frame, region in prompt.frames.items()}


def _as_region(mask: RegionMask | np.ndarray) -> Region | None:
    if isinstance(mask, RegionMask):
        return Region("mask", mask)
    return Region.from_mask(mask) if mask.any() else None


def build(config: Sam2Config) -> Sam2Source:
    """Load the model on the engine that `config` asks for.

    Raises:
        SourceError: the `sam2` package is needed and not installed, or the checkpoint is missing or of another kind.
    """
    if wants_package(config):
        from .package_engine import PackageEngine

        return Sam2Source(PackageEngine.load(config, device=_device(config.device)))
    from .transformers_engine import TransformersEngine

    return Sam2Source(TransformersEngine.load(config, device=_device(config.device)))


def _device(name: str) -> str:
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without CUDA
        raise SourceError(f"Sam2Config.device '{name}' cannot be used: {str(error).splitlines()[0]}") from error
    return name


def wants_package(config: Sam2Config) -> bool:
    """Whether the `sam2` package shall run the model, rather than transformers.

    Raises:
        SourceError: it must and is not installed, or it must not and only it can.
    """
    is_file = Path(config.checkpoint).suffix == ".pt"
    only_package = is_file or config.config_file is not None or bool(config.overrides)
    if config.engine == "transformers":
        if only_package:
            raise SourceError(
                f"Engine 'transformers' reads a hub name or a folder and takes no config_file or overrides, "
                f"got checkpoint '{config.checkpoint}'. Use engine='sam2'."
            )
        return False
    installed = _package_is_installed()
    if not installed and (only_package or config.engine == "sam2"):
        raise SourceError(
            f"SAM 2 checkpoint '{config.checkpoint}' needs the sam2 package, which is not installed: {INSTALL_HINT}."
        )
    return only_package or config.engine == "sam2" or (installed and _is_official(config.checkpoint))


def _package_is_installed() -> bool:
    try:
        import sam2.build_sam  # noqa: F401
    except ImportError:
        return False
    return True


def _is_official(checkpoint: str) -> bool:
    from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES

    return checkpoint in HF_MODEL_ID_TO_FILENAMES


SPEC = RegionSourceSpec(name="sam2", config=Sam2Config, build=build)
