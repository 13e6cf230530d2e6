"""Trains the quickstart's tiny LLaVA-OneVision from random weights on questions about scenes and places.

    python scripts/pretrain_tiny_grounded.py --out pixelrefer_plugin/quickstart/tiny_llava_onevision

First the vision tower alone learns what each patch belongs to, then the whole model to answer: which digit is at a
place, and where a digit is. A place is one of 64 location tokens, as in Kosmos-2 (arXiv:2306.14824). Writes an ordinary
Hugging Face folder. The base has never been given a click, a box or a mask, and makes none. Held-out digits and the
right strip of each photograph are never seen. The same seed and thread count give the same weights on one machine.
"""

import argparse
import itertools
import json
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from pretraining import (
    IGNORED,
    answer_labels,
    conversation,
    descend,
    pick,
    right_answers,
    save_halves,
    scene_pool,
)
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from pixelrefer_plugin.quickstart.scenes import (
    COLOURS,
    Digit,
    Question,
    Scene,
    Split,
    largest_digit,
    make_scene,
    scene_questions,
)
from pixelrefer_plugin.testing.tokenizer import TINY_CORPUS, tiny_tokenizer

PICTURE_PX = 112
PATCH_PX = 14
SIDE = PICTURE_PX // PATCH_PX
PLACES = tuple(f"<loc_{row}_{column}>" for row in range(SIDE) for column in range(SIDE))
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>", *PLACES)
CORPUS = (
    *TINY_CORPUS,
    "which digit is the largest? where is the largest digit? where is the digit?",
    "where is the red digit, the green digit, the blue digit, the yellow digit, the pink digit, the white digit?",
    "segment the largest digit and say which it is\nsegment [",
    "Here is an image. The highlighted regions are as follows:\n[",
)
# ChatML; unlike LLaVA-OneVision's own, it writes an answer's header alike before and after the answer is there.
CHAT_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] }}
    {%- else %}
        {%- for part in message['content'] %}
            {%- if part['type'] == 'text' %}
                {{- part['text'] }}
            {%- else %}
                {{- '<' + part['type'] + '>\\n' }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

_NO_DIGIT, _NO_COLOUR = 10, len(COLOURS)
_BATCH = 24
_TOKENS_PER_PICTURE = SIDE**2 + SIDE * (SIDE + 1)  # the base view, and its only tile with a token at each row's end
_LISTS_UNTIL = 0.4  # of the second stage
_COVERED = 0.05  # a patch with so much of it covered belongs to the digit


def tiny_processor() -> LlavaOnevisionProcessor:
    """The real processor around a tiny tokenizer, for one square size; images go through PIL, not torchvision."""
    size = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": PICTURE_PX, "width": PICTURE_PX}}
    return LlavaOnevisionProcessor(
        image_processor=LlavaOnevisionImageProcessorPil(image_grid_pinpoints=[[PICTURE_PX, PICTURE_PX]], **size),
        video_processor=LlavaOnevisionVideoProcessor(**size),
        tokenizer=tiny_tokenizer(CORPUS, SPECIAL_TOKENS, CHAT_TEMPLATE),
        num_image_tokens=SIDE**2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def tiny_config(tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionConfig:
    """The real config with small numbers; at least 16 rows of the embedding table are spare."""
    narrow = {"hidden_size": 96, "intermediate_size": 288, "num_attention_heads": 4, "initializer_range": 0.08}
    return LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model",
            "num_hidden_layers": 4,
            "image_size": PICTURE_PX,
            "patch_size": PATCH_PX,
            "vision_use_head": False,
            **narrow,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": -(-(len(tokenizer) + 16) // 64) * 64,
            "num_hidden_layers": 3,
            "num_key_value_heads": 4,
            "max_position_embeddings": 8192,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "tie_word_embeddings": True,
            **narrow,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=[[PICTURE_PX, PICTURE_PX]],
        tie_word_embeddings=True,
    )


def place_at(x: float, y: float) -> str:
    """The location token of a pixel."""
    return PLACES[int(y) // PATCH_PX * SIDE + int(x) // PATCH_PX]


def middle(digit: Digit) -> str:
    """The location token of the middle of a digit's box."""
    x1, y1, x2, y2 = digit.box_xyxy
    return place_at((x1 + x2) / 2, (y1 + y2) / 2)


def place_questions(scene: Scene, rng: np.random.Generator) -> list[Question]:
    """What is at a place on each digit's strokes, and where each digit is; which is the largest, and where."""
    labels = [digit.label for digit in scene.digits]
    questions = []
    for digit in scene.digits:
        ys, xs = np.nonzero(digit.mask_hw)
        one = int(rng.integers(len(xs)))
        at = f"[{place_at(xs[one], ys[one])}]"
        if rng.random() < 0.7:
            questions.append(Question("digit at", f"which digit is {at}?", str(digit.label)))
        else:
            questions.append(Question("colour at", f"what colour is {at}?", digit.colour))
        if labels.count(digit.label) == 1 and rng.random() < 0.7:
            questions.append(Question("where digit", f"where is the digit {digit.label}?", middle(digit)))
        else:
            questions.append(Question("where colour", f"where is the {digit.colour} digit?", middle(digit)))
    if (largest := largest_digit(scene)) is not None:
        questions.append(Question("which largest", "which digit is the largest?", str(largest.label)))
        questions.append(Question("where largest", "where is the largest digit?", middle(largest)))
    return [questions[index] for index in rng.permutation(len(questions))]


def pixels_of(scenes: Sequence[Scene]) -> Tensor:
    """What the image processor makes of pictures of its own size, `(n, 3, h, w)`."""
    return torch.from_numpy(np.stack([scene.image_hwc for scene in scenes])).permute(0, 3, 1, 2) / 127.5 - 1


def encode(processor: LlavaOnevisionProcessor, asked: Sequence[Sequence[Question]]) -> dict[str, Tensor]:
    """Ids of one conversation per scene, padded right, with labels on answers and their ends.

    There is no attention mask: right padding is never looked at under a causal mask.
    """
    texts = processor.tokenizer.apply_chat_template([conversation(each) for each in asked], tokenize=False)
    texts = [text.replace("<image>", "<image>" * _TOKENS_PER_PICTURE) for text in texts]
    ids = processor.tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")["input_ids"]
    return {"input_ids": ids, "labels": answer_labels(ids, processor.tokenizer)}


def pictures(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """Native inputs of the pictures: each is its own base view and its only tile."""
    return {
        "pixel_values": pixels_of(scenes)[:, None].expand(-1, 2, -1, -1, -1),
        "image_sizes": torch.tensor([[PICTURE_PX, PICTURE_PX]] * len(scenes)),
    }


def train_tower(
    model: LlavaOnevisionForConditionalGeneration,
    pools: Sequence[Sequence[Scene]],
    steps: int,
    peak_lr: float,
    rng: np.random.Generator,
) -> None:
    """First stage: the tower alone, with throw-away heads.

    Each patch names the digit and the colour that it belongs to, and tells the middle and the size of that digit; the
    mean of a digit's patches names it too.
    """
    tower = model.model.vision_tower
    heads = nn.ModuleDict({"patch": nn.Linear(96, 11 + 7 + 3), "digit": nn.Linear(96, 10)})
    weights = torch.ones(11)
    weights[_NO_DIGIT] = 0.3

    def loss_at(progress: float) -> Tensor:
        scenes = pick(pools[0 if progress < 0.2 else 1 if progress < 0.6 else 2], _BATCH, rng)
        features = tower(pixels_of(scenes), return_dict=True).last_hidden_state
        digits, colours, places, covers, scene_of, labels = patch_targets(scenes)
        of_digit, of_colour, of_place = heads["patch"](features).split([11, 7, 3], dim=-1)
        belongs = digits != _NO_DIGIT
        means = (features[scene_of] * covers[..., None]).sum(1)
        return (
            cross_entropy(of_digit.flatten(0, 1), digits.flatten(), weight=weights)
            + 0.5 * cross_entropy(of_colour.flatten(0, 1), colours.flatten())
            + 3 * smooth_l1_loss(of_place[belongs], places[belongs], beta=0.05)
            + cross_entropy(heads["digit"](means), labels)
        )

    descend("tower", nn.ModuleList([tower, heads]), loss_at, steps=steps, peak_lr=peak_lr)


def patch_targets(scenes: Sequence[Scene]) -> tuple[Tensor, ...]:
    """What the patches of some scenes belong to.

    Returns:
        Digits and colours `(scenes, patches)`; middles and log sizes `(scenes, patches, 3)`; of each digit its share
        in the patches `(digits, patches)`, its scene and its label.
    """
    digits = torch.full((len(scenes), SIDE**2), _NO_DIGIT)
    colours = torch.full_like(digits, _NO_COLOUR)
    places = torch.zeros(len(scenes), SIDE**2, 3)
    covers, scene_of, labels = [], [], []
    for number, scene in enumerate(scenes):
        for digit in scene.digits:
            cover = patch_shares(digit).flatten()
            own = cover > _COVERED
            x1, y1, x2, y2 = digit.box_xyxy
            digits[number, own] = digit.label
            colours[number, own] = list(COLOURS).index(digit.colour)
            size = math.log(digit.mask_hw.sum()) / 4
            places[number, own] = torch.tensor([(x1 + x2) / 2 / PICTURE_PX, (y1 + y2) / 2 / PICTURE_PX, size])
            covers.append(cover / cover.sum())
            scene_of.append(number)
            labels.append(digit.label)
    return digits, colours, places, torch.stack(covers), torch.tensor(scene_of), torch.tensor(labels)


def patch_shares(digit: Digit) -> Tensor:
    """The share of each patch that a digit's strokes cover, `(rows, columns)`."""
    mask = torch.from_numpy(digit.mask_hw).float()
    return mask.unflatten(1, (SIDE, -1)).unflatten(0, (SIDE, -1)).mean((1, 3))


def start_words(
    model: LlavaOnevisionForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    scenes: Sequence[Scene],
    features: Tensor,
) -> None:
    """Sets the rows of places, digits and colours to what the patches that they name look like on average.

    Attention then finds what a word names by likeness; from random rows it takes thousands of steps to find that words
    name anything in a picture.
    """
    patches = [
        (number, digit, (patch_shares(digit).flatten() > _COVERED).nonzero()[:, 0])
        for number, scene in enumerate(scenes)
        for digit in scene.digits
    ]
    rows = model.get_input_embeddings().weight
    with torch.no_grad():
        shown = model.model.multi_modal_projector(features)
        of_digit, of_colour = torch.zeros(10, shown.shape[2]), torch.zeros(len(COLOURS), shown.shape[2])
        for label in range(10):
            of_digit[label] = torch.cat([shown[n, own] for n, digit, own in patches if digit.label == label]).mean(0)
        for index, colour in enumerate(COLOURS):
            of_colour[index] = torch.cat([shown[n, own] for n, digit, own in patches if digit.colour == colour]).mean(0)
        spread = rows.std()
        for words, means in (
            (PLACES, shown.mean(0)),
            ("0123456789", of_digit),
            (COLOURS, of_colour),
            ([f" {colour}" for colour in COLOURS], of_colour),
        ):
            means = means - means.mean(0)
            ids = [tokenizer(word)["input_ids"] for word in words]
            assert all(len(each) == 1 for each in ids)
            rows[[each[0] for each in ids]] = means * (spread / means.std())


def start_attention(model: LlavaOnevisionForConditionalGeneration) -> None:
    """Has the first two layers' attention look for what is alike, and copy it: keys as queries, outputs as values.

    Random ones do neither, and for long no gradient tells either of them what the other would have to do.
    """
    with torch.no_grad():
        for layer in model.model.language_model.layers[:2]:
            attention = layer.self_attn
            nn.init.orthogonal_(attention.q_proj.weight)
            nn.init.orthogonal_(attention.v_proj.weight)
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            attention.o_proj.weight.copy_(attention.v_proj.weight.T)


def what_is_where(scene: Scene, rng: np.random.Generator) -> Question:
    """What lies at up to 24 covered places: many answers for one picture."""
    covered = []
    for digit in scene.digits:
        ys, xs = np.nonzero(patch_shares(digit).numpy() > _COVERED)
        covered += [f"{PLACES[y * SIDE + x]}{digit.label}{digit.colour}" for y, x in zip(ys, xs, strict=True)]
    return Question("list", "what is where?", "".join(rng.permutation(covered)[:24]))


def where_is_what(scene: Scene, rng: np.random.Generator) -> Question:
    """The middle of each digit, by its label and by its colour."""
    found = [
        "".join(rng.permutation([f"{digit.label}{middle(digit)}", f"{digit.colour}{middle(digit)}"]))
        for digit in scene.digits
    ]
    return Question("list", "where is what?", "".join(rng.permutation(found)))


def train_model(
    model: LlavaOnevisionForConditionalGeneration,
    processor: LlavaOnevisionProcessor,
    scenes: Sequence[Scene],
    steps: int,
    peak_lr: float,
    rng: np.random.Generator,
) -> None:
    """Second stage: the projector and the decoder, on lists of places at first and then on questions.

    The tower stays as it is, so that its features are made once.
    """
    tower, inner = model.model.vision_tower.requires_grad_(False).eval(), model.model
    with torch.no_grad():
        chunks = (pixels_of(scenes[start : start + 100]) for start in range(0, len(scenes), 100))
        features = torch.cat([tower(chunk, return_dict=True).last_hidden_state for chunk in chunks])
    start_words(model, processor.tokenizer, scenes, features)
    start_attention(model)
    done = itertools.count(1)

    def loss_at(progress: float) -> Tensor:
        if next(done) % 500 == 0:
            print(accuracy(model, processor, "train", num_scenes=30), flush=True)
            model.train()
            tower.eval()
        chosen = rng.integers(len(scenes), size=_BATCH)
        asked = []
        for scene in (scenes[index] for index in chosen):
            if progress < _LISTS_UNTIL or rng.random() < 0.25:
                questions = [(where_is_what if rng.random() < 0.6 else what_is_where)(scene, rng) for _ in range(2)]
            else:
                questions = place_questions(scene, rng)[:8] + scene_questions(scene, rng)[:1]
            asked.append([questions[index] for index in rng.permutation(len(questions))])
        batch = encode(processor, asked)
        shown = inner.multi_modal_projector(features[chosen])
        ends = inner.image_newline.expand(len(chosen), SIDE, 1, -1)
        tile = torch.cat([shown.unflatten(1, (SIDE, SIDE)), ends], 2).flatten(1, 2)
        words = model.get_input_embeddings()(batch["input_ids"])
        is_picture = (batch["input_ids"] == model.config.image_token_id)[..., None]
        embeds = words.masked_scatter(is_picture, torch.cat([shown, tile], 1))
        hidden = inner.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, :-1]
        labels = batch["labels"][:, 1:]
        learnt = labels != IGNORED
        return cross_entropy(model.lm_head(hidden[learnt]), labels[learnt])

    descend("model", model, loss_at, steps=steps, peak_lr=peak_lr)


@torch.inference_mode()
def accuracy(
    model: LlavaOnevisionForConditionalGeneration,
    processor: LlavaOnevisionProcessor,
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
        scene = make_scene(split, rng, num_digits=(2, 4), sizes_px=(20, 56))
        questions = place_questions(scene, rng) + scene_questions(scene, rng)
        batch = encode(processor, [[question] for question in questions])
        logits = model(input_ids=batch["input_ids"], **pictures([scene] * len(questions))).logits
        for question, good in zip(questions, right_answers(logits, batch["labels"]), strict=True):
            right[question.kind].append(good)
    return {kind: round(float(np.mean(answers)), 4) for kind, answers in sorted(right.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower-steps", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--tower-lr", type=float, default=2e-3)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--tower", type=Path, help="file of the trained tower: read if it is there, else written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="folder to write; files in it are replaced")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    processor = tiny_processor()
    model = LlavaOnevisionForConditionalGeneration(tiny_config(processor.tokenizer))
    model.generation_config.update(do_sample=False, max_new_tokens=32)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    began = time.perf_counter()
    pools = [
        scene_pool(4000, seed=1, num_digits=(3, 4), sizes_px=(40, 56), jitter=0.5),
        scene_pool(16000, seed=2, num_digits=(2, 5), sizes_px=(24, 60)),
        scene_pool(16000, seed=3, num_digits=(1, 6), sizes_px=(14, 60)),
    ]
    if args.tower is not None and args.tower.exists():
        safetensors.torch.load_model(model.model.vision_tower, args.tower)
    else:
        train_tower(model, pools, args.tower_steps, args.tower_lr, rng)
        if args.tower is not None:
            safetensors.torch.save_model(model.model.vision_tower, args.tower)
    train_model(model, processor, [*pools[1][:8000], *pools[2][:8000]], args.steps, args.lr, rng)
    seconds = round(time.perf_counter() - began)
    save_halves(model, args.out)
    processor.save_pretrained(args.out)
    stored = LlavaOnevisionForConditionalGeneration.from_pretrained(args.out, dtype=torch.float32)
    scores = {split: accuracy(stored, processor, split) for split in ("train", "held-out")}
    print(json.dumps({"seconds": seconds, "accuracy": scores}, indent=2))


if __name__ == "__main__":
    main()
