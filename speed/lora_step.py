"""What a LoRA training step of a 2B VideoLLaMA3 costs: samples and tokens per second, MFU, peak memory.

The real class at the size of PixelRefer-2B with random weights in bfloat16, SAOT, LoRA on the decoder, gradient
checkpointing, AdamW; each sample a 1280x720 picture with eight regions, each asked about in a turn of its own.

    python speed/lora_step.py --peak-tflops 989 --json lora_step.json      # of an H100 or H200, dense bf16
    python speed/lora_step.py --device cpu --tiny                          # the same code without a GPU

MFU counts what the arithmetic needs, one forward and one backward; what gradient checkpointing computes twice is not
in it. The data loader is not timed (speed/training.py does).
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from paper_efficiency import GIB, SHAPES, TINY, make_config, make_native_processor
from region_tokens import environment
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForImageTextToText

from pixelrefer_plugin import Region, attach
from pixelrefer_plugin.data import RegionDataset
from pixelrefer_plugin.training.collator import RegionCollator

REGIONS, WARMUP_STEPS = 8, 2


def make_rows(count, image_hw):
    """Samples of noise; their boxes are of many sizes."""
    dice = np.random.default_rng(0)
    height, width = image_hw
    rows = []
    for _ in range(count):
        sides = np.geomspace(width / 40, width / 3, REGIONS)
        corners = [dice.uniform(0, (width - side, height - side / 2)) for side in sides]
        regions = [Region.from_box((x, y, x + side, y + side / 2)) for (x, y), side in zip(corners, sides, strict=True)]
        turns = [("user", "what is <region>?"), ("assistant", "something that was drawn by chance")] * REGIONS
        rows.append(
            {
                "image": dice.integers(0, 256, (height, width, 3), dtype=np.uint8),
                "regions": regions,
                "messages": [{"role": role, "content": text} for role, text in turns],
            }
        )
    return rows


def make_model(shape, native, device):
    """The recipe `lora`: frozen bfloat16 backbone, adapter and LoRA in float32; and its processor."""
    with torch.device(device):
        backbone = AutoModelForImageTextToText.from_config(make_config(shape, native.tokenizer), dtype=torch.bfloat16)
    model, processor = attach(backbone, native, adapter="saot")
    model.add_lora(r=16, alpha=32)
    return model.train(), processor


def step(model, batch, optimizer):
    """One optimizer step, as a trainer in bf16 takes it."""
    with torch.autocast(model.device.type, dtype=torch.bfloat16):
        loss = model(**batch, use_cache=False).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def count_flops(model, batch):
    """FLOPs of one forward and backward; a multiply-add is two."""
    with FlopCounterMode(display=False) as counter, torch.autocast(model.device.type, dtype=torch.bfloat16):
        model(**batch, use_cache=False).loss.backward()
    model.zero_grad()
    return counter.get_total_flops()


def measure(shape, device, *, batch_size, steps, image_hw=(720, 1280)):
    """Medians over `steps` steps on one batch."""
    model, processor = make_model(shape, make_native_processor(), device)
    rows = RegionDataset.from_rows(make_rows(batch_size, image_hw))
    batch = RegionCollator(processor)(rows.__getitems__(list(range(batch_size))))
    batch = {name: each.to(device) for name, each in batch.items() if hasattr(each, "to")}
    flops = count_flops(model, batch)  # while nothing is computed twice
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-4)
    on_gpu = torch.device(device).type == "cuda"
    seconds = []
    for number in range(WARMUP_STEPS + steps):
        if on_gpu and number == WARMUP_STEPS:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        step(model, batch, optimizer)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    step_s = statistics.median(seconds[WARMUP_STEPS:])
    tokens = int(batch["attention_mask"].sum())
    return {
        "batch_size": batch_size,
        "regions": REGIONS * batch_size,
        "tokens_per_sample": tokens / batch_size,
        "trainable_parameters": sum(each.numel() for each in model.parameters() if each.requires_grad),
        "step_s": step_s,
        "samples_per_s": batch_size / step_s,
        "tokens_per_s": tokens / step_s,
        "achieved_tflops": flops / step_s / 1e12,
        "peak_gib": torch.cuda.max_memory_allocated() / GIB if on_gpu else None,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and small pictures, to see that it runs")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--peak-tflops", type=float, help="of the device in dense bf16, for MFU")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    shape, image_hw = (TINY, (112, 168)) if options.tiny else (SHAPES["2B"], (720, 1280))
    results = []
    for batch_size in options.batch_sizes:
        result = measure(shape, options.device, batch_size=batch_size, steps=options.steps, image_hw=image_hw)
        if options.peak_tflops:
            result["mfu"] = result["achieved_tflops"] / options.peak_tflops
        results.append(result)
        print(", ".join(f"{name} {value:.4g}" for name, value in result.items() if value is not None))
    if options.json:
        device = torch.cuda.get_device_name() if torch.device(options.device).type == "cuda" else "cpu"
        report = {"environment": {**environment(), "device": device}, "results": results}
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
