"""Trains the quickstart's tiny SAM 2 from random weights on clicks and boxes.

    python scripts/pretrain_tiny_sam2.py --out pixelrefer_plugin/quickstart/tiny_sam2

First its mask decoder alone learns what a prompt's place is, with noise for features; then all of it learns the masks
of digits. The memory of videos is not trained. Writes an ordinary Hugging Face folder. Held-out digits and the right
strip of each photograph are never seen.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from pixelrefer_unipixel.losses import mask_losses
from pixelrefer_unipixel.sam2 import sam2_config
from pixelrefer_unipixel.tracking import MaskCandidates
from pretraining import descend, pick, save_halves, scene_pool
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import Sam2VideoModel

from pixelrefer_plugin.authoring import MaskTargets
from pixelrefer_plugin.evaluation.metrics.masks import MaskScores
from pixelrefer_plugin.quickstart.scenes import Scene, Split, make_scene

PICTURE_PX = 128
WEIGHTS = {"mask": 20.0, "dice": 1.0, "iou": 1.0, "presence": 1.0}
NOT_LEARNT = ("memory_", "mask_downsample", "object_pointer", "temporal", "occlusion", "no_object", "no_memory_pos")
_MEAN, _STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def random_start(model: Sam2VideoModel) -> None:
    """Wider weights than transformers', of which hardly any signal would be left in so narrow layers.

    Attention between prompts and picture starts by comparing them alike: queries and keys by one orthogonal matrix, so
    that a prompt looks where its place is.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                nn.init.normal_(module.weight, std=1 / module.kernel_size[0])
            else:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5)
    with torch.no_grad():
        for name, module in model.mask_decoder.named_modules():
            if name.endswith(("cross_attn_token_to_image", "cross_attn_image_to_token", "final_attn_token_to_image")):
                nn.init.orthogonal_(module.q_proj.weight, gain=2.0)
                module.k_proj.weight.copy_(module.q_proj.weight)
        for convolution in model.vision_encoder.neck.convs:
            convolution.weight.mul_(0.2)
        table = model.shared_image_embedding.positional_embedding
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(table)


def encode(model: Sam2VideoModel, scenes: Sequence[Scene]) -> list[Tensor]:
    """Features of three resolutions, as SAM 2's image predictor makes them."""
    pixels = torch.from_numpy(np.stack([scene.image_hwc for scene in scenes])).permute(0, 3, 1, 2) / 255
    pixels = interpolate(pixels, size=(PICTURE_PX, PICTURE_PX), mode="bilinear", antialias=True)
    pixels = (pixels - _MEAN.view(3, 1, 1)) / _STD.view(3, 1, 1)
    fine, middle, coarse = model.vision_encoder(pixels, return_dict=True).fpn_hidden_states
    reader = model.mask_decoder
    return [reader.conv_s0(fine), reader.conv_s1(middle), coarse + model.no_memory_embedding.view(1, -1, 1, 1)]


def decode(model: Sam2VideoModel, features: Sequence[Tensor], prompts: Tensor, several: bool) -> MaskCandidates:
    """The masks of prompts `(objects, tokens, width)`, each on its own features: three of each object, or one."""
    objects = len(prompts)
    fine, middle, coarse = features
    logits, iou, _, presence = model.mask_decoder(
        image_embeddings=coarse,
        image_positional_embeddings=model.get_image_wide_positional_embeddings().expand(objects, -1, -1, -1),
        sparse_prompt_embeddings=prompts[:, None],
        dense_prompt_embeddings=model.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1),
        multimask_output=several,
        high_resolution_features=[fine, middle],
    )
    logits, iou = logits[:, 0], iou[:, 0]
    best = torch.arange(objects), iou.argmax(1)
    return MaskCandidates(logits[best], iou[best], presence[:, 0, 0], logits, iou)


def click_prompts(model: Sam2VideoModel, clicks_xy: Tensor) -> Tensor:
    """Tokens of clicks `(objects, 2)` in pixels of SAM's square."""
    labels = torch.ones(len(clicks_xy), 1, 1, dtype=torch.int)
    tokens: Tensor = model.prompt_encoder(clicks_xy[:, None, None], labels, None, None)[0]
    return tokens[:, 0]


def box_prompts(model: Sam2VideoModel, boxes_xyxy: Tensor) -> Tensor:
    """Tokens of boxes `(objects, 4)` in pixels of SAM's square."""
    tokens: Tensor = model.prompt_encoder(None, None, boxes_xyxy[:, None], None)[0]
    return tokens[:, 0]


def cost(found: MaskCandidates, masks: Tensor) -> Tensor:
    """The loss of masks `(objects, side, side)` bool, a mean over the objects."""
    objects = len(masks)
    targets = MaskTargets(masks, torch.arange(objects))
    return sum(mask_losses(found, targets, [1] * objects, weights=WEIGHTS).values(), torch.zeros(objects)).mean()


def train_places(model: Sam2VideoModel, steps: int, peak_lr: float) -> None:
    """First stage: discs about clicks and the insides of boxes, on noise. Only prompts tell where."""
    side, width = PICTURE_PX // 4, model.config.mask_decoder_config.hidden_size
    shapes = [(width // 8, side, side), (width // 4, side // 2, side // 2), (width, side // 4, side // 4)]
    y, x = torch.meshgrid(torch.arange(PICTURE_PX) + 0.5, torch.arange(PICTURE_PX) + 0.5, indexing="ij")

    def loss_at(progress: float) -> Tensor:
        noise = [0.3 * torch.randn(1, *shape).expand(32, -1, -1, -1) for shape in shapes]
        places = torch.rand(32, 2) * PICTURE_PX
        if torch.rand(()) < 0.6:
            masks = (x - places[:, 0, None, None]) ** 2 + (y - places[:, 1, None, None]) ** 2 < (PICTURE_PX / 8) ** 2
            prompts = click_prompts(model, places)
        else:
            half = (torch.rand(32, 2) * 0.2 + 0.06) * PICTURE_PX
            boxes = torch.cat([places - half, places + half], 1).clamp(0, PICTURE_PX)
            left, top, right, bottom = boxes[:, :, None, None].unbind(1)
            masks = (x > left) & (x < right) & (y > top) & (y < bottom)
            prompts = box_prompts(model, boxes)
        return cost(decode(model, noise, prompts, several=bool(torch.rand(()) < 0.5)), masks)

    descend("places", nn.ModuleList([model.prompt_encoder, model.mask_decoder]), loss_at, steps=steps, peak_lr=peak_lr)


def train_masks(model: Sam2VideoModel, steps: int, peak_lr: float, batch: int, rng: np.random.Generator) -> None:
    """Second stage: the digits of scenes, each from a click on its strokes or its box, moved a little."""
    scenes = scene_pool(8000, seed=1, num_digits=(1, 5), sizes_px=(12, 64))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith(NOT_LEARNT))

    def loss_at(progress: float) -> Tensor:
        some = pick(scenes, batch, rng)
        pictures, masks, clicks, boxes = prompted(some, rng, shake=0.1)
        by_box = torch.from_numpy(rng.random(len(masks)) < 0.4)
        features = encode(model, some)
        total = torch.zeros(())
        for chosen, prompts in ((by_box, box_prompts(model, boxes)), (~by_box, click_prompts(model, clicks))):
            if chosen.any():
                own = [level[pictures[chosen]] for level in features]
                found = decode(model, own, prompts[chosen], several=bool(rng.random() < 0.5))
                total = total + cost(found, masks[chosen]) * chosen.sum()
        return total / len(masks)

    descend("masks", model, loss_at, steps=steps, peak_lr=peak_lr)


def prompted(
    scenes: Sequence[Scene], rng: np.random.Generator, *, shake: float = 0.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each digit of some scenes: the scene, the mask on SAM's square, a click, and the box, moved by a share."""
    pictures, masks, clicks, boxes = [], [], [], []
    for number, scene in enumerate(scenes):
        to_square = PICTURE_PX / scene.image_hwc.shape[0]
        for digit in scene.digits:
            ys, xs = np.nonzero(digit.mask_hw)
            one = int(rng.integers(len(xs)))
            x1, y1, x2, y2 = digit.box_xyxy
            moved = np.array(digit.box_xyxy) + rng.uniform(-shake, shake, 4) * [x2 - x1, y2 - y1, x2 - x1, y2 - y1]
            pictures.append(number)
            masks.append(torch.from_numpy(digit.mask_hw))
            clicks.append(((xs[one] + 0.5) * to_square - 0.5, (ys[one] + 0.5) * to_square - 0.5))
            boxes.append(moved * to_square)
    on_square = interpolate(torch.stack(masks)[:, None].float(), size=(PICTURE_PX, PICTURE_PX), mode="bilinear")[:, 0]
    points = (torch.from_numpy(np.array(each, dtype=np.float32)) for each in (clicks, boxes))
    return torch.tensor(pictures), on_square >= 0.5, *points


@torch.inference_mode()
def scores(model: Sam2VideoModel, split: Split, *, num_scenes: int = 200, seed: int = 1) -> dict[str, float]:
    """cIoU at the pictures' own size, of scenes as the quickstart asks about them, by prompt and candidate masks."""
    rng = np.random.default_rng(seed)
    model.eval()
    kept = {(kind, several): MaskScores() for kind in ("click", "box") for several in (False, True)}
    for _ in range(num_scenes):
        scene = make_scene(split, rng, num_digits=(2, 4), sizes_px=(20, 56))
        pictures, _, clicks, boxes = prompted([scene], rng)
        features = [level[pictures] for level in encode(model, [scene])]
        for (kind, several), score in kept.items():
            prompts = click_prompts(model, clicks) if kind == "click" else box_prompts(model, boxes)
            logits = decode(model, features, prompts, several).logits[:, None]
            found = interpolate(logits, size=scene.image_hwc.shape[:2], mode="bilinear")[:, 0] > 0
            for mask, digit in zip(found.numpy(), scene.digits, strict=True):
                score.add(mask, digit.mask_hw)
    return {f"{kind}, best of 3" if several else kind: round(each.ciou, 4) for (kind, several), each in kept.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--place-steps", type=int, default=400)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; files in it are replaced")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    model = Sam2VideoModel(sam2_config("micro", picture_px=PICTURE_PX))
    random_start(model)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    began = time.perf_counter()
    train_places(model, args.place_steps, args.lr)
    train_masks(model, args.steps, args.lr, args.batch, np.random.default_rng(args.seed))
    seconds = round(time.perf_counter() - began)
    save_halves(model, args.out)
    stored = Sam2VideoModel.from_pretrained(args.out, dtype=torch.float32)
    found = {split: scores(stored, split) for split in ("train", "held-out")}
    print(json.dumps({"seconds": seconds, "cIoU": found}, indent=2))


if __name__ == "__main__":
    main()
