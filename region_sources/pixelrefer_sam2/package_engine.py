"""SAM 2 on Meta's `sam2` package. Reads the official `.pt` checkpoints."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from PIL import Image
from sam2.build_sam import HF_MODEL_ID_TO_FILENAMES, build_sam2_video_predictor
from sam2.sam2_video_predictor import SAM2VideoPredictor

from pixelrefer_plugin.authoring import SourceError

from .config import Sam2Config
from .loading import reported
from .prompts import Prompt

# What the package's `apply_postprocessing` sets, but for filling holes, which needs its CUDA extension.
_POSTPROCESSING = (
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_via_stability=true",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_delta=0.05",
    "++model.sam_mask_decoder_extra_args.dynamic_multimask_stability_thresh=0.98",
    "++model.binarize_mask_from_pts_for_mem_enc=true",
)


class PackageEngine:
    """The package's video predictor, for pictures too: the image encoder and the mask decoder are the same."""

    def __init__(self, predictor: SAM2VideoPredictor) -> None:
        self.model = predictor

    @classmethod
    def load(cls, config: Sam2Config, *, device: str) -> PackageEngine:
        """Build the model and load its weights.

        Raises:
            SourceError: no such checkpoint or config, or they do not belong together.
        """
        config_file, weights = _config_and_weights(config)
        try:
            predictor = build_sam2_video_predictor(
                config_file,
                device="cpu",
                hydra_overrides_extra=[*_POSTPROCESSING, *config.overrides],
                apply_postprocessing=False,
            )
        except (HydraException, OmegaConfBaseException) as error:
            raise SourceError(f"SAM 2 config '{config_file}' cannot be used: {error}") from error
        _load_weights(predictor, weights, config_file)
        return cls(predictor.to(device))

    def segment(self, image_hwc: np.ndarray, prompts: Sequence[Prompt]) -> Iterator[np.ndarray]:
        state = self.open(image_hwc[None])
        for prompt in prompts:
            self.reset(state)  # one object at a time: each call upsamples the masks of all there are
            yield _as_mask(self._add_one(state, 0, 0, prompt)[0])

    def open(self, frames_nhwc: np.ndarray) -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="pixelrefer-sam2-") as folder:
            for position, frame in enumerate(frames_nhwc):
                # The package takes files called .jpg and reads them by content: PPM keeps every pixel as it is.
                Image.fromarray(frame).save(Path(folder, f"{position}.jpg"), format="PPM")
            return self.model.init_state(folder)  # has read all files when it returns

    def reset(self, state: dict[str, Any]) -> None:
        self.model.reset_state(state)

    def add(self, state: dict[str, Any], prompts: Mapping[int, Mapping[int, Prompt]]) -> None:
        # Frame by frame, since the package keeps the features of one frame only.
        for position, number in sorted((position, number) for number, each in prompts.items() for position in each):
            self._add_one(state, position, number, prompts[number][position])

    def propagate(
        self, state: dict[str, Any], *, start: int, reverse: bool
    ) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
        frames = self.model.propagate_in_video(state, start_frame_idx=start, reverse=reverse)
        for position, numbers, masks_n1hw in frames:
            yield position, {number: _as_mask(mask) for number, mask in zip(numbers, masks_n1hw, strict=True)}

    def _add_one(self, state: dict[str, Any], position: int, number: int, prompt: Prompt) -> torch.Tensor:
        """Prompt one object on one frame; the mask logits there of all objects so far, `(N, 1, H, W)`."""
        if prompt.mask is not None:
            return self.model.add_new_mask(state, position, number, prompt.mask.dense())[2]
        points = prompt.points_xy
        labels = None if points is None else np.ones(len(points), dtype=np.int32)
        return self.model.add_new_points_or_box(
            state, position, number, points=points, labels=labels, box=prompt.box_xyxy
        )[2]


def _as_mask(logits_1hw: torch.Tensor) -> np.ndarray:
    return (logits_1hw[0] > 0).cpu().numpy()


def _config_and_weights(config: Sam2Config) -> tuple[str, str]:
    """The package's config file and the path of the weights."""
    if config.checkpoint in HF_MODEL_ID_TO_FILENAMES:
        config_file, weights = HF_MODEL_ID_TO_FILENAMES[config.checkpoint]
        return config.config_file or config_file, _download(config.checkpoint, weights)
    if not Path(config.checkpoint).is_file():
        known = ", ".join(HF_MODEL_ID_TO_FILENAMES)
        raise SourceError(
            f"The sam2 package finds no checkpoint '{config.checkpoint}': expected a .pt file or one of {known}. "
            "A folder saved by transformers needs engine='transformers'."
        )
    of_official = {weights: config_file for config_file, weights in HF_MODEL_ID_TO_FILENAMES.values()}
    config_file = config.config_file or of_official.get(Path(config.checkpoint).name)
    if config_file is None:
        raise SourceError(
            f"SAM 2 checkpoint '{config.checkpoint}' has none of the official names ({', '.join(of_official)}). "
            "Say which config it belongs to: config_file='configs/sam2.1/sam2.1_hiera_s.yaml', for example."
        )
    return config_file, config.checkpoint


def _download(model_id: str, filename: str) -> str:
    with reported(model_id, expected="a connection, a model that was downloaded before, or another checkpoint=..."):
        return hf_hub_download(model_id, filename)


def _load_weights(predictor: SAM2VideoPredictor, path: str, config_file: str) -> None:
    with reported(path, expected=f"{{'model': weights}} that fit config '{config_file}'"):
        predictor.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["model"])
