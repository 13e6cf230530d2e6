"""Trains the quickstart's tiny VideoLLaMA3 from random weights on questions about whole scenes.

    python scripts/pretrain_tiny.py --out pixelrefer_plugin/quickstart/tiny_videollama3

First the vision tower alone learns which digits and colours a picture shows, then the whole model to answer.
Writes an ordinary Hugging Face folder. The base learns scenes and nothing of regions: no question names a
place and no label belongs to one. Held-out digits and the right strip of each photograph are never seen. The
same seed and thread count give the same weights on one machine.
"""

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pixelrefer_videollama3.tiny import tiny_config, tiny_processor
from pretraining import answer_labels, conversation, descend, right_answers, save_halves
from torch import Tensor
from transformers import VideoLlama3ForConditionalGeneration, VideoLlama3Processor, VideoLlama3VisionModel
from transformers.modeling_utils import AttentionInterface

from pixelrefer_plugin.quickstart.scenes import COLOURS, Question, Scene, Split, make_scene, scene_questions

PATCH_PX = 14
SMALLEST_DIGIT_PX = 8


@dataclass(frozen=True)
class Kind:
    """One kind of training picture. All pictures of a step are of one kind and one size.

    `since` is the part of the stage after which the kind is drawn: easy pictures come first.
    """

    since: float
    share: float
    batch: int
    questions: int
    side_patches: tuple[int, int]
    num_digits: tuple[int, int]
    sizes_px: tuple[float, float]


TOWER_KINDS = (
    Kind(since=0, share=0.2, batch=64, questions=0, side_patches=(4, 4), num_digits=(1, 1), sizes_px=(44, 56)),
    Kind(since=0.2, share=0.4, batch=48, questions=0, side_patches=(4, 7), num_digits=(1, 1), sizes_px=(30, 72)),
    Kind(since=0.4, share=0.4, batch=24, questions=0, side_patches=(6, 9), num_digits=(2, 4), sizes_px=(12, 64)),
)
MODEL_KINDS = (
    Kind(since=0, share=0.3, batch=32, questions=2, side_patches=(4, 6), num_digits=(1, 1), sizes_px=(30, 72)),
    Kind(
        since=0.05,
        share=0.3,
        batch=20,
        questions=4,
        side_patches=(6, 8),
        num_digits=(2, 3),
        sizes_px=(16, 64),
    ),
    Kind(since=0.1, share=0.4, batch=16, questions=6, side_patches=(8, 9), num_digits=(3, 6), sizes_px=(8, 56)),
)
LARGEST_ZOOM = 6.0


def draw_scenes(kinds: Sequence[Kind], progress: float, rng: np.random.Generator) -> tuple[Kind, list[Scene]]:
    """A kind by its share among those that have begun, and a batch of its pictures, all of one size."""
    begun = [kind for kind in kinds if kind.since <= progress]
    shares = np.array([kind.share for kind in begun])
    kind = begun[int(rng.choice(len(begun), p=shares / shares.sum()))]
    height, width = (PATCH_PX * int(rng.integers(kind.side_patches[0], kind.side_patches[1] + 1)) for _ in range(2))
    return kind, [training_scene(kind, (height, width), rng) for _ in range(kind.batch)]


def training_scene(kind: Kind, picture_hw: tuple[int, int], rng: np.random.Generator) -> Scene:
    """A scene of this kind; half are drawn small and enlarged whole, as a zoomed-in crop would look."""
    height, width = picture_hw
    smallest, largest = kind.sizes_px[0], min(kind.sizes_px[1], height, width)
    zoom = 1.0
    if rng.random() < 0.5:
        zoom = math.exp(rng.uniform(0, math.log(min(LARGEST_ZOOM, largest / SMALLEST_DIGIT_PX))))
    scene = make_scene(
        "train",
        rng,
        picture_hw=(round(height / zoom), round(width / zoom)),
        num_digits=kind.num_digits,
        sizes_px=(max(smallest / zoom, SMALLEST_DIGIT_PX), largest / zoom),
        jitter=1.0,
    )
    image = Image.fromarray(scene.image_hwc).resize((width, height), Image.Resampling.BICUBIC)
    return Scene(np.asarray(image), scene.digits)


def encode(
    processor: VideoLlama3Processor, scenes: Sequence[Scene], asked: Sequence[Sequence[Question]]
) -> dict[str, Tensor]:
    """Native inputs of one conversation per scene, padded right, with labels on answers and their ends."""
    text = processor.apply_chat_template([conversation(questions) for questions in asked])
    images = [scene.image_hwc for scene in scenes]
    batch = dict(processor(text=text, images=images, padding=True, padding_side="right", return_tensors="pt"))
    batch["labels"] = answer_labels(batch["input_ids"], processor.tokenizer)
    del batch["attention_mask"]  # right padding is never looked at under a causal mask
    return batch


def equal_grid_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    scaling: float,
    num_pictures: int,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of pictures of one size in one call, where the native loop makes one per picture.

    Tensors are `(1, heads, num_pictures * patches, head width)`, as the tower passes them for a single chunk.
    """

    def split(x: Tensor) -> Tensor:
        return x[0].unflatten(1, (num_pictures, -1)).transpose(0, 1)

    mixed = F.scaled_dot_product_attention(split(query), split(key), split(value), scale=scaling)
    return mixed.transpose(1, 2).reshape(1, query.shape[2], query.shape[1], -1), None


def look_at_neighbours(tower: VideoLlama3VisionModel, gain: float = 4.0) -> None:
    """Sets query and key biases so that each head begins by looking at one neighbouring patch.

    The tower's only sense of place is its rotary embedding; without this start it takes thousands of steps to
    find that neighbours matter. After ConViT's gated positional start (d'Ascoli et al. 2021,
    arXiv:2103.10697), here for rotary positions.
    """
    sides = [(0, 1), (0, -1), (1, 0), (-1, 0)]
    corners = [(1, 1), (-1, -1), (1, -1), (-1, 1)]
    frequencies = tower.rotary_pos_emb.inv_freq
    with torch.no_grad():
        for index, layer in enumerate(tower.encoder.layers):
            for head, (down, right) in enumerate(corners if index % 2 else sides):
                rows = slice(head * layer.self_attn.head_dim, (head + 1) * layer.self_attn.head_dim)
                turn = torch.cat([frequencies * down, frequencies * right])
                layer.self_attn.q_proj.bias[rows] = gain * torch.cat([torch.ones_like(turn), torch.zeros_like(turn)])
                layer.self_attn.k_proj.bias[rows] = gain * torch.cat([turn.cos(), -turn.sin()])


def train_tower(
    model: VideoLlama3ForConditionalGeneration, steps: int, peak_lr: float, rng: np.random.Generator
) -> None:
    """First stage, as towers are trained before their MLLM: the tower alone, on what a picture shows.

    A throw-away linear head reads every patch; its logits, pooled over a picture by log-mean-exp, must name
    the digits and colours that are in it. Labels belong to whole pictures: the place of nothing is given.
    """
    tower = model.model.vision_model
    head = torch.nn.Linear(tower.config.hidden_size, 10 + len(COLOURS))

    def loss_at(progress: float) -> Tensor:
        _, scenes = draw_scenes(TOWER_KINDS, progress, rng)
        pixels, grids = patches_of(scenes)
        one_chunk = torch.tensor([0, len(pixels)])
        ones = torch.ones(len(scenes), dtype=torch.long)
        features = tower(pixels, grids, ones, cu_seqlens=one_chunk, num_pictures=len(scenes)).last_hidden_state
        logits = head(features).unflatten(0, (len(scenes), -1))
        pooled = logits.logsumexp(1) - math.log(logits.shape[1])
        targets = torch.stack([shown(scene) for scene in scenes])
        digits = F.cross_entropy(pooled[:, :10], targets[:, :10])
        return digits + 0.5 * F.cross_entropy(pooled[:, 10:], targets[:, 10:])

    look_at_neighbours(tower)
    AttentionInterface.register("equal_grids", equal_grid_attention)
    tower.set_attn_implementation("equal_grids")
    descend("tower", torch.nn.ModuleList([tower, head]), loss_at, steps=steps, peak_lr=peak_lr)
    tower.set_attn_implementation("sdpa")


def patches_of(scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
    """What the image processor makes of pictures of one size, all at once: patches `(n, 588)` and grids."""
    pixels = torch.from_numpy(np.stack([scene.image_hwc for scene in scenes])).float() / 127.5 - 1
    pixels = pixels.unflatten(2, (-1, PATCH_PX)).unflatten(1, (-1, PATCH_PX))
    num, rows, _, columns = pixels.shape[:4]
    patches = pixels.permute(0, 1, 3, 5, 2, 4).reshape(num * rows * columns, -1)
    return patches, torch.tensor([[1, rows, columns]] * num)


def shown(scene: Scene) -> Tensor:
    """Which digits and which colours are in a picture: two uniform distributions, `(10 + colours,)`."""
    digits, colours = torch.zeros(10), torch.zeros(len(COLOURS))
    digits[[digit.label for digit in scene.digits]] = 1
    colours[[list(COLOURS).index(digit.colour) for digit in scene.digits]] = 1
    return torch.cat([digits / digits.sum(), colours / colours.sum()])


def train_model(
    model: VideoLlama3ForConditionalGeneration,
    processor: VideoLlama3Processor,
    steps: int,
    peak_lr: float,
    rng: np.random.Generator,
) -> None:
    """Second stage: the whole model on scene questions, the tower more gently."""

    def loss_at(progress: float) -> Tensor:
        kind, scenes = draw_scenes(MODEL_KINDS, progress, rng)
        asked = [scene_questions(scene, rng)[: kind.questions] for scene in scenes]
        return model(**encode(processor, scenes, asked)).loss

    descend("model", model, loss_at, steps=steps, peak_lr=peak_lr, slow="vision_model", slow_share=0.3)


@torch.inference_mode()
def accuracy(
    model: VideoLlama3ForConditionalGeneration,
    processor: VideoLlama3Processor,
    split: Split,
    *,
    num_scenes: int = 200,
    seed: int = 1,
) -> dict[str, float]:
    """Share of questions, each asked alone, that greedy decoding would answer exactly, by kind."""
    rng = np.random.default_rng(seed)
    model.eval()
    right = defaultdict(list)
    for _ in range(num_scenes):
        scene = make_scene(split, rng)
        questions = scene_questions(scene, rng)
        batch = encode(processor, [scene] * len(questions), [[question] for question in questions])
        labels = batch.pop("labels")
        for question, good in zip(questions, right_answers(model(**batch).logits, labels), strict=True):
            right[question.kind].append(good)
    return {kind: round(float(np.mean(answers)), 4) for kind, answers in sorted(right.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower-steps", type=int, default=2500)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--tower-lr", type=float, default=2e-3)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; files in it are replaced")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    processor = tiny_processor()
    model = VideoLlama3ForConditionalGeneration(tiny_config(processor.tokenizer))
    model.generation_config.update(do_sample=False, max_new_tokens=32)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    began = time.perf_counter()
    rng = np.random.default_rng(args.seed)
    train_tower(model, args.tower_steps, args.tower_lr, rng)
    train_model(model, processor, args.steps, args.lr, rng)
    seconds = round(time.perf_counter() - began)
    save_halves(model, args.out)
    processor.save_pretrained(args.out)
    stored = VideoLlama3ForConditionalGeneration.from_pretrained(args.out, dtype=torch.float32)
    scores = {split: accuracy(stored, processor, split) for split in ("train", "held-out")}
    print(json.dumps({"seconds": seconds, "accuracy": scores}, indent=2))


if __name__ == "__main__":
    main()
