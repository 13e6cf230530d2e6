"""Options of the `sam2` region source."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pixelrefer_plugin.authoring import check_field

Engine = Literal["auto", "sam2", "transformers"]
_ENGINES = ("auto", "sam2", "transformers")


@dataclass(frozen=True)
class Sam2Config:
    """Which SAM 2 to load, and what runs it.

    Attributes:
        checkpoint: a model of the Hugging Face hub, a folder that transformers saved, or an official `.pt` file.
        engine: `sam2`, Meta's package; `transformers`, its own SAM 2 classes; or `auto`: the package where it is
            installed and can read the checkpoint, else transformers.
        device: where the model runs, as torch names it; `auto` is CUDA where there is any, else the CPU.
        config_file: for a `.pt` file under a name that is not an official one: the package's config that it
            belongs to, e.g. `configs/sam2.1/sam2.1_hiera_s.yaml`.
        overrides: changes to that config as Hydra takes them, e.g. `++model.image_size=512`; engine `sam2` only.
    """

    checkpoint: str = "facebook/sam2.1-hiera-small"
    engine: Engine = "auto"
    device: str = "auto"
    config_file: str | None = None
    overrides: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        is_path = isinstance(self.checkpoint, str | Path) and bool(str(self.checkpoint))
        check_field(is_path, self, "checkpoint", "a hub name, a folder or a .pt file")
        object.__setattr__(self, "checkpoint", str(self.checkpoint))
        check_field(self.engine in _ENGINES, self, "engine", f"one of {', '.join(_ENGINES)}")
        check_field(isinstance(self.device, str), self, "device", "a device as torch names it, or auto")
        check_field(isinstance(self.config_file, str | None), self, "config_file", "the name of a config")
        is_list = isinstance(self.overrides, Sequence) and not isinstance(self.overrides, str)
        sound = is_list and all(isinstance(each, str) for each in self.overrides)
        check_field(sound, self, "overrides", "a sequence of strings")
        object.__setattr__(self, "overrides", tuple(self.overrides))
