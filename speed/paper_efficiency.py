"""What PixelRefer costs: the paper's formulas (eq. 9 and 10), its figures (Tables 5 and 6), and this code.

FLOPs are counted on the real modules without memory for them (`meta` tensors): VideoLLaMA3 of 2B and 7B, pictures
that go through the real processor and planner. Peak memory and time need a GPU and are measured with random weights.

    python speed/paper_efficiency.py --json paper_efficiency.json
    python speed/paper_efficiency.py --gpu --json paper_efficiency.json
    python speed/paper_efficiency.py --gpu --device cpu --tiny      # the same code on a machine without one
"""

import argparse
import gc
import json
import re
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from pixelrefer_videollama3.tiny import tiny_processor
from region_tokens import environment
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText, VideoLlama3Config

from pixelrefer_plugin import FrameSampling, Region, RegionProcessor, attach

LOCAL_TOKENS, GLOBAL_TOKENS = 256, 576  # L_ZL and L_ZG of Table 5
NEW_TOKENS = 64
GIB = 2**30  # the paper's "GB": the 7B's weights alone are more than 15.8 * 10^9 bytes

IMAGE_HW = (32 * 14, 44 * 14)  # 1,408 patches, each a scene token
FRAMES, FRAME_HW = 20, (14 * 28, 26 * 28)  # 364 scene tokens a frame, before repetitions are dropped
STILL_TOKENS = FRAMES * 14 * 26 - 7185  # so many of one frame's tokens repeat the frame before
BOX_XYXY = (200, 140, 420, 300)  # more than 100 patches: SAOT shrinks it and makes 32 tokens of it
# Object-Only needs the object on several frames; of 32 tokens each, 4 come nearest to the paper's FLOPs.
OBJECT_FRAMES = (0, 5, 10, 15)


@dataclass(frozen=True)
class Shape:
    """The numbers of a VideoLLaMA3: its decoder's, and its tower's."""

    hidden: int
    heads: int
    kv_heads: int
    ffn: int
    vocab: int
    tied: bool
    layers: int = 28
    vision_hidden: int = 1152
    vision_ffn: int = 4304
    vision_layers: int = 27
    vision_heads: int = 16

    @property
    def kv_width(self):
        return self.hidden // self.heads * self.kv_heads


SHAPES = {
    "2B": Shape(hidden=1536, heads=12, kv_heads=2, ffn=8960, vocab=151936, tied=True),
    "7B": Shape(hidden=3584, heads=28, kv_heads=4, ffn=18944, vocab=152064, tied=False),
}
TINY = Shape(
    hidden=64, heads=4, kv_heads=2, ffn=128, vocab=1024, tied=True, layers=2,
    vision_hidden=64, vision_ffn=128, vision_layers=2, vision_heads=4,
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A row of Tables 5 and 6 (one A100 80 GB): FLOPs in units of 10^12, peak memory, seconds per item."""

    shape: str
    media: str
    adapter: str
    paper_tflops: float
    paper_gib: float
    paper_s: float

    @property
    def is_lite(self):
        return self.adapter == "oci"

    @property
    def name(self):
        return f"{self.shape}{'-Lite' if self.is_lite else ''}, {self.media}"


ROWS = (
    Row("2B", "image", "saot", 1.51, 13.2, 1.04),
    Row("2B", "image", "oci", 0.03, 4.9, 0.88),
    Row("7B", "image", "saot", 7.08, 25.1, 1.44),
    Row("7B", "image", "oci", 0.17, 15.8, 1.10),
    Row("2B", "video", "saot", 11.15, 24.6, 0.82),
    Row("2B", "video", "oci", 0.11, 5.1, 0.68),  # 5.1 GB in Table 5, 5.2 in Table 6
    Row("7B", "video", "saot", 43.83, 36.9, 1.25),
    Row("7B", "video", "oci", 0.61, 17.6, 0.74),
)


# --- the paper's formulas, in multiply-adds -----------------------------------------------------------------


def decoder_macs(shape, num_tokens, *, ffn_matrices):
    """Attention and FFN of all layers: `2nd² + 2nd·d_kv + 2n²d + 3ndm` each (§6.1, eq. 9)."""
    n, d = num_tokens, shape.hidden
    per_layer = 2 * n * d * d + 2 * n * d * shape.kv_width + 2 * n * n * d + ffn_matrices * n * d * shape.ffn
    return shape.layers * per_layer


def infusion_macs(width, object_tokens, context_tokens):
    """One of the two last terms of eq. 10: queries and outputs of the objects, keys and values of the context."""
    return 2 * (object_tokens + context_tokens) * width**2


def formula_macs(row, *, object_tokens, scene_tokens, frames, ffn_matrices):
    """Eq. 9, or eq. 10 with the context of each of the object's frames."""
    shape = SHAPES[row.shape]
    macs = decoder_macs(shape, object_tokens + scene_tokens, ffn_matrices=ffn_matrices)
    if row.is_lite:
        for context_tokens in (LOCAL_TOKENS, GLOBAL_TOKENS):
            macs += infusion_macs(shape.hidden, object_tokens, frames * context_tokens)
    return macs


def object_tokens_of_paper(row):
    """The fewest and the most object tokens for which eq. 10, each L_Z counted once, rounds to the paper's figure."""
    fits = [
        count
        for count in range(1, 1000)
        if round(
            formula_macs(row, object_tokens=count, scene_tokens=0, frames=1, ffn_matrices=2) / 1e12,
            2,
        )
        == row.paper_tflops
    ]
    return fits[0], fits[-1]


# --- model and inputs ---------------------------------------------------------------------------------------


def make_native_processor():
    """The real processor; it neither shrinks nor enlarges the pictures of this benchmark."""
    native = tiny_processor()
    for part in (native.image_processor, native.video_processor):
        part.size = {"shortest_edge": 28 * 28, "longest_edge": FRAMES * 28 * 28 * 1000}
    return native


def make_config(shape, tokenizer):
    return VideoLlama3Config(
        vision_config={
            "hidden_size": shape.vision_hidden,
            "intermediate_size": shape.vision_ffn,
            "num_hidden_layers": shape.vision_layers,
            "num_attention_heads": shape.vision_heads,
            "patch_size": 14,
        },
        text_config={
            "model_type": "qwen2",
            "vocab_size": shape.vocab,
            "hidden_size": shape.hidden,
            "intermediate_size": shape.ffn,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "max_position_embeddings": 32768,
            "tie_word_embeddings": shape.tied,
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        tie_word_embeddings=shape.tied,
    )


def make_model(shape, adapter, native, device):
    """Random weights, the backbone's in bfloat16."""
    with torch.device(device):
        backbone = AutoModelForImageTextToText.from_config(make_config(shape, native.tokenizer), dtype=torch.bfloat16)
    model, _ = attach(backbone, native, adapter=adapter)
    return model.eval()


def make_frames():
    """Frames of noise; the first tokens of the second frame stand still, so that the backbone drops them."""
    frames_nhwc = np.random.default_rng(0).integers(0, 256, (FRAMES, *FRAME_HW, 3), dtype=np.uint8)
    full_rows, rest = (28 * tokens for tokens in divmod(STILL_TOKENS, FRAME_HW[1] // 28))
    for still in (np.s_[:full_rows], np.s_[full_rows : full_rows + 28, :rest]):
        frames_nhwc[1][still] = frames_nhwc[0][still]
    return frames_nhwc


def make_inputs(row, native, config):
    """One object in one picture or video."""
    box = Region.from_box(BOX_XYXY)
    if row.media == "image":
        picture = np.random.default_rng(0).integers(0, 256, (*IMAGE_HW, 3), dtype=np.uint8)
        media, region = {"type": "image", "image": picture}, box
    else:
        media = {"type": "video", "video": make_frames(), "fps": 2.0}
        region = dict.fromkeys(OBJECT_FRAMES if row.is_lite else OBJECT_FRAMES[:1], box)
    processor = RegionProcessor(native, config, adapter=row.adapter, sampling=FrameSampling(num_frames=FRAMES))
    content = [media, {"type": "text", "text": "what is <region>?"}]
    return dict(processor([{"role": "user", "content": content}], [region]))


@dataclass(frozen=True)
class Tokens:
    """What the decoder reads."""

    objects: int
    scene: int
    text: int

    @classmethod
    def of(cls, inputs, config):
        ids = inputs["input_ids"]
        objects = sum(inputs["regions"].counts)
        scene = int(((ids == config.image_token_id) | (ids == config.video_token_id)).sum())
        return cls(objects, scene, ids.numel() - objects - scene)

    @property
    def all(self):
        return self.objects + self.scene + self.text


# --- counting -----------------------------------------------------------------------------------------------

PARTS = {
    "layers": r"RegionModel\.backbone\.model\.language_model\.layers\.\d+",
    "lm_head": r"RegionModel\.backbone\.lm_head",
    "vision_tower": r"RegionModel\.backbone\.model\.vision_model",
    "projector": r"RegionModel\.backbone\.model\.projector",
    "adapter": r"RegionModel\.adapter",
}


class WithoutWeights(TorchFunctionMode):
    """Lets code that reads values (sizes of grids, masks) run on a model whose weights are on `meta`.

    Tensors with values keep them until they meet one without; to the code all of them are on the CPU.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func == Tensor.device.__get__:
            return torch.device("cpu")
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        # Indexing takes indices and boolean masks from the CPU; the size of what a mask selects needs its values.
        if func is not Tensor.__getitem__ and any(each.is_meta for each in tensors):
            meta = torch.device("meta")
            args, kwargs = tree_map_only(torch.device, lambda _: meta, (args, kwargs))
            args, kwargs = tree_map_only(Tensor, lambda each: each.to(meta) if each.ndim else each, (args, kwargs))
        return func(*args, **kwargs)


def count_by_module(model, inputs):
    """FLOPs of one forward (a multiply-add is two), by the full name of each module; `Global` is all of them."""
    with torch.no_grad(), WithoutWeights(), FlopCounterMode(display=False, depth=None) as counter:
        model(**inputs)
    return {name: sum(by_operation.values()) for name, by_operation in counter.get_flop_counts().items()}


def by_part(counts):
    parts = {
        part: sum(count for name, count in counts.items() if re.fullmatch(pattern, name))
        for part, pattern in PARTS.items()
    }
    return {**parts, "all": counts["Global"]}


def count(row, native):
    """One row: the formula as the paper evaluates it and as it is printed, and the counted FLOPs."""
    model = make_model(SHAPES[row.shape], row.adapter, native, "meta")
    inputs = make_inputs(row, native, model.backbone.config)
    tokens = Tokens.of(inputs, model.backbone.config)
    sizes = {
        "object_tokens": tokens.objects,
        "scene_tokens": tokens.scene,
        "frames": inputs["regions"].frames_per_region[0],
    }
    return {
        "row": row.name,
        "paper_tflops": row.paper_tflops,
        "tokens": asdict(tokens),
        "formula_2ndm_tmacs": formula_macs(row, **sizes, ffn_matrices=2) / 1e12,
        "formula_tmacs": formula_macs(row, **sizes, ffn_matrices=3) / 1e12,
        "counted_tflops": {part: flops / 1e12 for part, flops in by_part(count_by_module(model, inputs)).items()},
    }


# --- memory and time ----------------------------------------------------------------------------------------


def seconds_and_peak(model, inputs, device):
    """One `generate`; bytes are None where torch does not count them."""
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    start = time.perf_counter()
    model.generate(**inputs, do_sample=False, min_new_tokens=NEW_TOKENS, max_new_tokens=NEW_TOKENS)
    if on_gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() if on_gpu else None


@torch.inference_mode()
def measure(row, native, device, *, shape, repeats):
    """Peak memory and seconds of the model's part; the processor's is told apart."""
    gc.collect()  # the model of the row before would count
    model = make_model(shape, row.adapter, native, device)
    start = time.perf_counter()
    inputs = make_inputs(row, native, model.backbone.config)
    processor_s = time.perf_counter() - start
    inputs = {name: value.to(device) for name, value in inputs.items()}
    seconds, peaks = zip(*(seconds_and_peak(model, inputs, device) for _ in range(repeats + 1)), strict=True)
    return {
        "row": row.name,
        "paper_gib": row.paper_gib,
        "paper_s": row.paper_s,
        "weights_gib": sum(each.numel() * each.element_size() for each in model.parameters()) / GIB,
        "peak_gib": max(peaks) / GIB if all(peaks) else None,
        "generate_s": statistics.median(seconds[1:]),  # the first call also warms up
        "processor_s": processor_s,
    }


def passes(result, row):
    """No more memory than the paper's; Object-Only within 15 % of the bytes of the weights."""
    return result["peak_gib"] <= row.paper_gib and (
        not row.is_lite or result["peak_gib"] <= 1.15 * result["weights_gib"]
    )


# --- report -------------------------------------------------------------------------------------------------

DIFFERENCES = """
Where formula, count and paper differ:
- The paper's figures are multiply-adds, and of 2ndm for the FFN: with the 3ndm that eq. 9 and 10 print (Qwen2's FFN
  has three matrices) every row comes out higher. A FLOP counter counts a multiply-add as two.
- Attention and FFN counted here are exactly twice `3ndm` for all tokens that the decoder reads, text too (one
  decoder: S = 1 stage of K = 28 layers). Attention is counted in full, without the causal half.
- Not in the formulas: the LM head (the native forward applies it to every token), the projector, the vision tower.
  In Object-Only the tower is most of the work.
- Eq. 10's last terms hold the four projections of each attention, not its two products, and give the 7B figure only
  with the decoder's d. Here the attentions have the tower's width, 1152: the whole adapter, with those products and
  SAOT's k-means and MLP, which eq. 10 leaves out, still takes less than these terms."""


def print_counts(results):
    print("\nFLOPs of one forward, in units of 10^12; the formula counts multiply-adds, the counter two for each")
    head = (" " * 14, "paper", "eq. 2ndm", "eq. 3ndm", *PARTS, "all", "objects+scene+text")
    print(" | ".join(f"{each:>12}" for each in head))
    for result in results:
        cells = [result["paper_tflops"], result["formula_2ndm_tmacs"], result["formula_tmacs"]]
        cells += result["counted_tflops"].values()
        tokens = "+".join(str(result["tokens"][kind]) for kind in ("objects", "scene", "text"))
        print(f"{result['row']:>14} | " + " | ".join(f"{each:12.3f}" for each in cells) + f" | {tokens}")
    print(DIFFERENCES)
    for row in ROWS:
        if row.is_lite and row.media == "video":
            fewest, most = object_tokens_of_paper(row)
            print(
                f"- {row.name}: L_R = 32, as in Table 5, does not give {row.paper_tflops}; eq. 10, each L_Z counted\n"
                f"  once, does from {fewest} to {most} object tokens. Counted here: {len(OBJECT_FRAMES)} frames of 32."
            )


def print_measured(result, row):
    if result["peak_gib"] is None:
        memory = "peak memory is measured on a GPU only"
    else:
        of_weights = result["peak_gib"] / result["weights_gib"]
        memory = (
            f"peak {result['peak_gib']:.2f} GiB (paper {row.paper_gib}), {of_weights:.3f} of the weights' "
            f"{result['weights_gib']:.2f} GiB: {'pass' if passes(result, row) else 'FAIL'}"
        )
    print(
        f"{row.name}: {memory}; {result['generate_s']:.2f} s for {NEW_TOKENS} tokens (paper {row.paper_s} s an item), "
        f"processor {result['processor_s']:.2f} s"
    )


def measure_all(native, options):
    if options.device == "cuda" and not torch.cuda.is_available():
        print("\nMemory and time: skipped, torch finds no GPU here.")
        return []
    model = "a tiny model" if options.tiny else "the model"
    print(
        f"\nOne item, {model} with random weights in bfloat16. Required: no more memory than the paper, and in Lite "
        "<= 1.15 of the weights"
    )
    results = []
    for row in ROWS:
        shape = TINY if options.tiny else SHAPES[row.shape]
        results.append(measure(row, native, options.device, shape=shape, repeats=options.repeats))
        print_measured(results[-1], row)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--gpu", action="store_true", help="measure memory and time too")
    parser.add_argument("--device", default="cuda", help="where to measure")
    parser.add_argument("--tiny", action="store_true", help="measure a tiny model, to see that it runs")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    native = make_native_processor()
    report = {"environment": environment(torch.get_num_threads())}
    report["environment"]["versions"]["transformers"] = transformers.__version__
    if torch.cuda.is_available():
        report["environment"]["gpu"] = torch.cuda.get_device_name()
    print(json.dumps(report["environment"], indent=2))
    report["flops"] = [count(row, native) for row in ROWS]
    print_counts(report["flops"])
    if options.gpu:
        report["measured"] = measure_all(native, options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
