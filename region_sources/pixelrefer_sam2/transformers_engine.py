"""SAM 2 on transformers' own classes. Needs no further package."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict, cast

import numpy as np
import torch
from transformers import AutoConfig, Sam2VideoModel, Sam2VideoProcessor
from transformers.models.sam2_video.modeling_sam2_video import (
    Sam2VideoInferenceSession,
    Sam2VideoSegmentationOutput,
)

from .config import Sam2Config
from .loading import cannot_load, reported
from .prompts import Prompt

_MODEL_TYPE = "sam2_video"
_EXPECTED = f"a hub name or a folder with a model of type '{_MODEL_TYPE}', its weights and its processor"


class TransformersEngine:
    """`Sam2VideoModel`, for pictures too: the image encoder and the mask decoder are the same."""

    def __init__(self, model: Sam2VideoModel, processor: Sam2VideoProcessor) -> None:
        self.model = model
        self.processor = processor

    @classmethod
    def load(cls, config: Sam2Config, *, device: str) -> TransformersEngine:
        """Load the model and the processor of a hub name or folder.

        Raises:
            SourceError: there is none, or it is not a complete SAM 2 that can track.
        """
        name = config.checkpoint
        with reported(name, expected=_EXPECTED):
            model_type = AutoConfig.from_pretrained(name).model_type
        if model_type != _MODEL_TYPE:
            raise cannot_load(name, f"its model type is '{model_type}'", expected=_EXPECTED)
        with reported(name, expected=_EXPECTED):
            loaded = Sam2VideoModel.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
            model, report = cast("tuple[Sam2VideoModel, Mapping[str, Any]]", loaded)  # declared as the model alone
            processor = Sam2VideoProcessor.from_pretrained(name)
        if report["missing_keys"]:
            missing = f"weights are missing, among them {min(report['missing_keys'])}"
            raise cannot_load(name, missing, expected=_EXPECTED)
        return cls(model.eval().to(device), processor)

    @torch.inference_mode()
    def segment(self, image_hwc: np.ndarray, prompts: Sequence[Prompt]) -> Iterator[np.ndarray]:
        session = self.open(image_hwc[None])
        self._prompt(session, 0, dict(enumerate(prompts)))
        found = self.model(session, frame_idx=0, run_mem_encoder=False)
        yield from self._masks(session, found).values()

    def open(self, frames_nhwc: np.ndarray) -> Sam2VideoInferenceSession:
        frames = np.require(frames_nhwc, requirements="W")  # torch wants it so
        return self.processor.init_video_session(frames, inference_device=self.model.device)

    def reset(self, state: Sam2VideoInferenceSession) -> None:
        state.reset_tracking_data()

    def add(self, state: Sam2VideoInferenceSession, prompts: Mapping[int, Mapping[int, Prompt]]) -> None:
        for position in sorted({position for each in prompts.values() for position in each}):
            there = {number: each[position] for number, each in prompts.items() if position in each}
            with _others_unchanged(state, there):
                self._prompt(state, position, there)
                self.model(state, frame_idx=position)

    def propagate(
        self, state: Sam2VideoInferenceSession, *, start: int, reverse: bool
    ) -> Iterator[tuple[int, dict[int, np.ndarray]]]:
        for found in self.model.propagate_in_video_iterator(state, start_frame_idx=start, reverse=reverse):
            yield found.frame_idx, self._masks(state, found)

    def _prompt(self, session: Sam2VideoInferenceSession, position: int, prompts: Mapping[int, Prompt]) -> None:
        for number, prompt in prompts.items():
            self.processor.add_inputs_to_inference_session(session, position, number, **_as_inputs(prompt))
        session.obj_with_new_inputs = list(prompts)  # each call above forgets the objects before it

    def _masks(self, session: Sam2VideoInferenceSession, found: Sam2VideoSegmentationOutput) -> dict[int, np.ndarray]:
        """The mask of each object at the size of the video, `(H, W)` bool."""
        size_hw = (session.video_height, session.video_width)
        assert found.object_ids is not None, "the model names the objects of every output"
        [masks_n1hw] = self.processor.post_process_masks([found.pred_masks], [size_hw])
        return {number: mask[0].cpu().numpy() for number, mask in zip(found.object_ids, masks_n1hw, strict=True)}


@contextmanager
def _others_unchanged(session: Sam2VideoInferenceSession, prompted: Container[int]) -> Iterator[None]:
    """transformers runs all objects on a frame that one is prompted on: what the others remember of it is dropped."""
    kept = {
        index: (dict(outputs["non_cond_frame_outputs"]), dict(session.frames_tracked_per_obj[index]))
        for index, outputs in session.output_dict_per_obj.items()
        if session.obj_idx_to_id(index) not in prompted
    }
    yield
    for index, (outputs, tracked) in kept.items():
        session.output_dict_per_obj[index]["non_cond_frame_outputs"] = outputs
        session.frames_tracked_per_obj[index] = tracked


class _Inputs(TypedDict, total=False):
    """What the processor is given of a prompt."""

    input_masks: np.ndarray
    input_boxes: list[list[list[float]]]
    input_points: list[list[list[list[float]]]]
    input_labels: list[list[list[int]]]


def _as_inputs(prompt: Prompt) -> _Inputs:
    """A prompt as the processor takes it: image level, object level, then points or coordinates."""
    if prompt.mask is not None:
        return {"input_masks": prompt.mask.dense()}
    if prompt.box_xyxy is not None:
        return {"input_boxes": [[prompt.box_xyxy.tolist()]]}
    assert prompt.points_xy is not None, "a prompt is one of three"
    points = prompt.points_xy.tolist()
    return {"input_points": [[points]], "input_labels": [[[1] * len(points)]]}
