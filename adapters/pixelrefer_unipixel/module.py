"""UniPixel's four parts as one adapter: prompts and masks in, object tokens and masks out. Knows no backbone.

After UniPixel (arXiv:2509.18094) and its authors' code (https://github.com/PolyU-ChenLab/UniPixel).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pixelrefer_plugin.authoring import (
    AdapterModule,
    Clips,
    EncodedPrompts,
    EncodedView,
    MaskTargets,
    PredictedMasks,
    Shapes,
)

from .config import UniPixelConfig
from .losses import mask_losses
from .mask_head import MaskHead
from .memory import MemoryEncoder
from .prompts import SparsePromptEncoder, rows_with_last
from .sam2 import load_sam2_weights, sam2_config
from .tracking import MaskDecoder


class UniPixel(AdapterModule):
    """Object tokens of clicks, boxes and masks; masks from the decoder's hidden states.

    A part without work in a batch is not run: SAM 2 not without a `<seg>`, the memory not without a mask.

    Args:
        config: the options.
        vision_width: width C of the scene's cells.
        decoder_width: width D of object tokens and hidden states.
    """

    def __init__(self, config: UniPixelConfig, *, vision_width: int, decoder_width: int) -> None:
        super().__init__()
        self.config = config
        sam2 = sam2_config(config.sam2, picture_px=config.picture_px)
        self.mask_decoder = MaskDecoder(sam2, propagate=config.propagate)
        sam_width = self.mask_decoder.hidden_size
        self.prompt_encoder = SparsePromptEncoder(
            sam_width=sam_width, decoder_width=decoder_width, picture_px=config.picture_px
        )
        self.memory = MemoryEncoder(vision_width=vision_width, decoder_width=decoder_width)
        self.mask_head = MaskHead(decoder_width=decoder_width, sam_width=sam_width, prompt_tokens=config.prompt_tokens)

    @classmethod
    def build(cls, config: UniPixelConfig, shapes: Shapes) -> "UniPixel":
        """The module that a config describes, with random weights."""
        return cls(config, vision_width=shapes.scene, decoder_width=shapes.decoder)

    def start_from(self, projector_layers: Sequence[nn.Module]) -> None:
        """What the parts take over before they are trained: SAM 2's weights, its prompt encoder's for clicks and boxes,
        and the backbone's projector for the memory."""
        if self.config.start_checkpoint is not None:
            load_sam2_weights(self.mask_decoder.sam2, self.config.start_checkpoint, size=self.config.sam2)
        self.prompt_encoder.start_from(self.mask_decoder.sam2.prompt_encoder)
        self.memory.start_from(projector_layers)

    def forward(self, views: tuple[EncodedView | None, EncodedPrompts | None], counts: tuple[int, ...]) -> Tensor:
        """One token for each click, box, and mask on a picture.

        Args:
            views: the scene, of the regions that are masks; and the others as they were drawn.
            counts: tokens promised for each region.

        Returns:
            `(sum(counts), D)`, region by region.
        """
        scene, prompts = views
        if prompts is None:
            assert scene is not None, "a batch has regions"
            return self.memory(scene)
        drawn = self.prompt_encoder(prompts, [counts[region] for region in prompts.regions])
        if scene is None:
            return drawn
        is_mask = np.repeat(np.isin(np.arange(len(counts)), scene.regions), counts)
        rows = torch.from_numpy(rows_with_last(is_mask)).to(drawn.device, non_blocking=True)
        return torch.cat([drawn, self.memory(scene)])[rows]

    def predict_masks(self, hidden: Tensor, clips: Clips, clip_of_object: Sequence[int]) -> PredictedMasks:
        """The mask of each object on every picture of its clip; see `MaskModule`."""
        dtype = next(self.mask_head.parameters()).dtype
        return self.mask_decoder(self.mask_head(hidden.to(dtype)), clips, clip_of_object)

    def mask_losses(
        self, hidden: Tensor, clips: Clips, clip_of_object: Sequence[int], targets: MaskTargets
    ) -> dict[str, Tensor]:
        """Each object's weighted losses, by name; see `MaskModule`."""
        predicted = self.predict_masks(hidden, clips, clip_of_object)
        frames_per_object = [clips.lengths[clip] for clip in clip_of_object]
        return mask_losses(predicted, targets, frames_per_object, weights=self.config.loss_weights)
