"""SAM 2.1 as a part that learns: prompt tokens in, masks on every picture of a clip out, through its video memory.

The steps are those of SAM 2 (`SAM2Base.track_step` of https://github.com/facebookresearch/sam2) for objects prompted on
the first picture, with prompt tokens beside the padding as UniPixel's authors have it. transformers' own loop over a
video runs in inference mode, so only its modules are used here. Knows no decoder and no text.

Shape letters: S objects, N those on one picture, K (object, picture) pairs, M candidate masks, C hidden width, L places
of the coarsest features, V width of a memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import Sam2VideoConfig, Sam2VideoModel

from pixelrefer_plugin.authoring import Clips, PredictedMasks

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
_NOWHERE = -1024.0  # logit of every pixel where the object is not on the picture
# That are encoded together: seven published pictures; more are no faster, and take memory. On a CPU, one: larger
# intermediate results are given back to the system each time, and their pages cleared again.
_PIXELS_AT_ONCE, _PIXELS_AT_ONCE_ON_CPU = 2**22, 2**17


@dataclass(frozen=True, eq=False)
class MaskCandidates(PredictedMasks):
    """`PredictedMasks`, and what they were chosen from by the highest predicted IoU.

    Attributes:
        candidate_logits: `(K, M, h, w)`, also where the object seems absent.
        candidate_iou: `(K, M)`.
    """

    candidate_logits: Tensor
    candidate_iou: Tensor


@dataclass(frozen=True, eq=False)
class _Memory:
    """What is remembered of one picture position: features `(L, N, V)` and object pointers `(N, C)`."""

    features: Tensor
    pointers: Tensor


class MaskDecoder(nn.Module):
    """SAM 2.1, given prompt tokens.

    As in SAM 2 with fewer than two clicks, three masks are made and the one with the highest predicted IoU is taken.
    With `multimask_output_in_sam=False` in the config, one is made.

    Args:
        config: SAM 2.1's.
        propagate: the prompts are given on a clip's first picture, and SAM 2's memory carries the masks through the
            others. Off, they are given on each picture and nothing is remembered.

    Attributes:
        sam2: the model.
        hidden_size: width C of a prompt token.
        picture_px: side of the square pictures.
    """

    def __init__(self, config: Sam2VideoConfig, *, propagate: bool = True) -> None:
        super().__init__()
        self.sam2 = sam2 = Sam2VideoModel(config)
        # As trained: clicks are placed by the same table as the picture.
        sam2.prompt_encoder.shared_embedding.positional_embedding.copy_(
            sam2.shared_image_embedding.positional_embedding
        )
        sam2.mask_decoder.dynamic_multimask_via_stability = False
        self.propagate = propagate
        self.hidden_size = sam2.mask_decoder.hidden_size
        assert isinstance(config.image_size, int), "pictures are square"
        self.picture_px = config.image_size

    def forward(self, prompts: Tensor, clips: Clips, clip_of_object: Sequence[int]) -> MaskCandidates:
        """Makes the masks of all objects; a picture with any object is encoded once.

        In evaluation, as in SAM 2, an object that seems absent has no mask on that picture, here and in the memory. In
        training its mask is remembered as it is, as UniPixel's authors do.

        Args:
            prompts: `(S, P, C)`, P prompt tokens of each object.
            clips: the pictures.
            clip_of_object: the clip of each object.

        Returns:
            float32 masks, a quarter of the pictures' side wide.
        """
        lengths = [clips.lengths[clip] for clip in clip_of_object]
        if not lengths:
            return self._nothing(prompts)
        used = sorted(set(clip_of_object))
        first_of_clip = dict(zip(used, accumulate([0, *(clips.lengths[clip] for clip in used)]), strict=False))
        levels = self._encode(_pictures_of(clips, used))
        # The longest clips first: those that go on are then always the first ones of the batch.
        order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
        lengths = [lengths[number] for number in order]
        first = torch.tensor([first_of_clip[clip_of_object[number]] for number in order])
        prompts = prompts[torch.tensor(order).to(prompts.device)]
        found: list[MaskCandidates] = []
        memories: list[_Memory] = []
        for position in range(lengths[0]):
            there, go_on = (sum(length > later for length in lengths) for later in (position, position + 1))
            pictures = (first[:there] + position).to(prompts.device)
            fine, middle, coarse = (level[pictures] for level in levels)
            seen = self._recall(coarse, memories, lengths[:there])
            made, tokens = self._decode(seen, [fine, middle], prompts[:there] if not memories else None)
            found.append(made)
            if self.propagate and go_on:
                memories.append(
                    self._remember(coarse[:go_on], made.logits[:go_on], made.presence[:go_on], tokens[:go_on])
                )
        return _by_object(found, order, lengths)

    def _nothing(self, prompts: Tensor) -> MaskCandidates:
        side = self.picture_px // 4
        sam2 = self.sam2
        count = sam2.mask_decoder.num_multimask_outputs if sam2.config.multimask_output_in_sam else 1
        candidates = prompts.new_zeros(0, count, side, side, dtype=torch.float32)
        masks, iou = candidates[:, 0], candidates[:, :, 0, 0]
        return MaskCandidates(masks, iou[:, 0], iou[:, 0], candidates, iou)

    def _encode(self, pixels: Tensor) -> list[Tensor]:
        """The features that the mask decoder takes: at a quarter, an eighth and a sixteenth of the pictures' side."""
        mean, std = (pixels.new_tensor(of, dtype=torch.float32).view(3, 1, 1) * 255 for of in (_MEAN, _STD))
        reader = self.sam2.mask_decoder
        at_once = _PIXELS_AT_ONCE_ON_CPU if pixels.device.type == "cpu" else _PIXELS_AT_ONCE
        parts = []
        for some in pixels.split(max(1, at_once // self.picture_px**2)):
            fine, middle, coarse = self.sam2.vision_encoder((some - mean) / std, return_dict=True).fpn_hidden_states
            parts.append((reader.conv_s0(fine), reader.conv_s1(middle), coarse))
        return [torch.cat(level) for level in zip(*parts, strict=True)]

    def _decode(self, seen: Tensor, finer: list[Tensor], prompts: Tensor | None) -> tuple[MaskCandidates, Tensor]:
        """The masks on one picture of each object, and the output tokens `(N, C)` that they come from."""
        count, device = len(seen), seen.device
        nowhere, no_label = torch.zeros(1, 1, 1, 2, device=device), torch.full((1, 1, 1), -1, device=device)
        padding, no_mask = self.sam2.prompt_encoder(nowhere, no_label, None, None)
        sparse = padding.expand(count, -1, -1, -1)
        if prompts is not None:
            sparse = torch.cat([sparse, prompts[:, None]], dim=2)
        logits, iou, tokens, presence = self.sam2.mask_decoder(
            image_embeddings=seen,
            image_positional_embeddings=self.sam2.get_image_wide_positional_embeddings().expand(count, -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=no_mask,
            multimask_output=self.sam2.config.multimask_output_in_sam,
            high_resolution_features=finer,
        )
        logits, iou, tokens, presence = logits[:, 0].float(), iou[:, 0].float(), tokens[:, 0], presence[:, 0, 0].float()
        chosen = torch.arange(count, device=device), iou.argmax(dim=1)
        masks = logits[chosen]
        if not self.training:
            masks = torch.where(presence[:, None, None] > 0, masks, _NOWHERE)
        return MaskCandidates(masks, iou[chosen], presence, logits, iou), tokens[chosen]

    def _remember(self, coarse: Tensor, logits: Tensor, presence: Tensor, tokens: Tensor) -> _Memory:
        sam2, there = self.sam2, presence[:, None] > 0
        pointers = torch.where(there, sam2.object_pointer_proj(tokens), sam2.no_object_pointer)
        masks = interpolate(logits[:, None], size=(self.picture_px,) * 2, mode="bilinear", align_corners=False)
        masks = masks.sigmoid() * sam2.config.sigmoid_scale_for_mem_enc + sam2.config.sigmoid_bias_for_mem_enc
        features, _ = sam2.memory_encoder(coarse, masks.to(coarse.dtype))
        features = features.flatten(2).permute(2, 0, 1)
        return _Memory(torch.where(there, features, features + sam2.occlusion_spatial_embedding_parameter), pointers)

    def _recall(self, coarse: Tensor, memories: Sequence[_Memory], lengths: Sequence[int]) -> Tensor:
        """The coarsest features `(N, C, h, w)` in the light of what is remembered of the first picture and the last."""
        sam2, count, now = self.sam2, len(coarse), len(memories)
        if not memories:
            return coarse + sam2.no_memory_embedding.view(1, -1, 1, 1)
        place = _table(sam2.memory_encoder.position_encoding, memories[0].features.shape[2], like=coarse)
        features, places = [], []
        for then in (0, *range(max(1, now - sam2.config.num_maskmem + 1), now)):
            age = now - then if then else 0  # the first picture, however old, has an embedding of its own: the last
            features.append(memories[then].features[:, :count])
            places.append((place + sam2.memory_temporal_positional_encoding[age - 1]).expand(-1, count, -1))
        pointers, pointer_places = self._pointers(memories, lengths)
        recalled = sam2.memory_attention(
            coarse.flatten(2).permute(2, 0, 1),
            torch.cat([*features, pointers]),
            _table(sam2.vision_encoder.neck.position_encoding, coarse.shape[1], like=coarse),
            torch.cat([*places, pointer_places]),
            num_object_pointer_tokens=len(pointers),
        )
        return recalled.reshape(count, -1, coarse.shape[1]).transpose(1, 2).reshape_as(coarse)

    def _pointers(self, memories: Sequence[_Memory], lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Object pointers, each cut into memories of width V, and their places in time, both `(pointers, N, V)`."""
        sam2, count, now = self.sam2, len(lengths), len(memories)
        most = sam2.config.max_object_pointers_in_encoder
        thens = (0, *range(max(1, now - most + 1), now))
        pointers = torch.stack([memories[then].pointers[:count] for then in thens])
        width = memories[0].features.shape[2]
        pieces = pointers.unflatten(2, (-1, width)).transpose(1, 2)
        ages = torch.tensor([now - then for then in thens])[:, None]
        longest = torch.tensor([min(length, most) - 1 for length in lengths])
        projection = sam2.temporal_positional_encoding_projection_layer
        places = projection(_sines(ages / longest, pointers.shape[2]).to(pointers.device, projection.weight.dtype))
        return pieces.flatten(0, 1), places.repeat_interleave(pieces.shape[1], dim=0)


def _pictures_of(clips: Clips, used: Sequence[int]) -> Tensor:
    parts = clips.pixels.split(clips.lengths)
    return clips.pixels if len(used) == len(parts) else torch.cat([parts[clip] for clip in used])


def _table(encoding: nn.Module, width: int, *, like: Tensor) -> Tensor:
    """The places of a picture's features, `(L, 1, width)`: made in float32, whatever the features are."""
    table = encoding(torch.Size((1, width, *like.shape[2:])), like.device, torch.float32)
    return table.flatten(2).permute(2, 0, 1).to(like.dtype)


def _sines(values: Tensor, width: int) -> Tensor:
    """Numbers as sines and cosines of `width / 4` wavelengths each, `(..., width)`."""
    waves = 10000 ** (torch.arange(width // 2).div(2, rounding_mode="floor") * 4 / width)
    angles = values[..., None] / waves
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _by_object(found: Sequence[MaskCandidates], order: Sequence[int], lengths: Sequence[int]) -> MaskCandidates:
    """What was found position by position, object by object and in the caller's order."""
    starts = [0, *accumulate(len(made.iou) for made in found)]
    place = {number: index for index, number in enumerate(order)}
    rows = [starts[at] + place[number] for number in range(len(order)) for at in range(lengths[place[number]])]
    pairs = torch.tensor(rows).to(found[0].iou.device)

    def join(name: str) -> Tensor:
        return torch.cat([getattr(made, name) for made in found])[pairs]

    return MaskCandidates(*map(join, ("logits", "iou", "presence", "candidate_logits", "candidate_iou")))
