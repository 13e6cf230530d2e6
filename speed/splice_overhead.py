"""What `RegionModel` and the splice cost on top of the backbone's own forward.

A VideoLLaMA3 of the real class with random weights, large enough that a forward is a forward, about 1,600
tokens long. Two questions: how much longer a forward without regions takes than the bare backbone's, and what
share of a forward the splice itself takes with 32 regions of about 32 tokens: finding the slots, and the decoder
hook without the encoding of the regions that it starts.

    python speed/splice_overhead.py --json splice_overhead.json
"""

import argparse
import json
import statistics
import time
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import transformers
from PIL import Image
from pixelrefer_videollama3.tiny import tiny_config, tiny_processor
from region_tokens import environment
from transformers import VideoLlama3ForConditionalGeneration

from pixelrefer_plugin import Region, attach
from pixelrefer_plugin.tokens import spliced_call
from pixelrefer_plugin.tokens.spliced_call import SplicedCall

HIDDEN, LAYERS, HEADS = 512, 6, 8
REGIONS = 32
IMAGE_PX = 322  # 23 x 23 patches


def make_model():
    processor = tiny_processor()
    config = tiny_config(processor.tokenizer, text_hidden=HIDDEN, text_layers=LAYERS, heads=HEADS)
    torch.manual_seed(0)
    backbone = VideoLlama3ForConditionalGeneration(config).eval()
    region_model, region_processor = attach(backbone, processor, adapter="saot")
    return region_model.eval(), region_processor


def make_inputs(processor, regions):
    """One picture, and as many regions; without any, as much text instead."""
    dice = np.random.default_rng(0)
    picture = Image.fromarray(dice.integers(0, 256, (IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8))
    text = "compare" + " <region>" * regions if regions else "digit " * 1050
    content = [{"type": "image", "image": picture}, {"type": "text", "text": text}]
    places = dice.integers(0, IMAGE_PX - 120, (regions, 2)).tolist()
    boxes = [Region.from_box((x, y, x + 100, y + 80)) for x, y in places]
    return processor([{"role": "user", "content": content}], boxes)


def milliseconds(function, **inputs):
    """Time of one call; what it returns is freed after the clock stops."""
    start = time.perf_counter()
    output = function(**inputs)
    elapsed = (time.perf_counter() - start) * 1e3
    del output
    return elapsed


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def without_regions(region_model, inputs, repeats):
    """Forwards of the two in turns, and what `RegionModel.forward` does outside the backbone's own."""
    backbone, inner = region_model.backbone, []
    own_forward = type(backbone).forward

    def timed(*args, **kwargs):
        start = time.perf_counter()
        output = own_forward(*args, **kwargs)
        inner.append((time.perf_counter() - start) * 1e3)
        return output

    bare, ours, outside = [], [], []
    for _ in range(repeats):
        bare.append(milliseconds(backbone, **inputs))
        ours.append(milliseconds(region_model, **inputs))
        with patch.object(type(backbone), "forward", timed):
            outside.append(milliseconds(region_model, **inputs) - inner[-1])
    ratios = [after / before for before, after in zip(bare, ours, strict=True)]
    return {
        "tokens": inputs["input_ids"].shape[1],
        "bare_ms": summary(bare),
        "region_model_ms": summary(ours),
        "overhead_percent": summary([(ratio - 1) * 100 for ratio in ratios]),
        "outside_the_backbone_ms": summary(outside),
        "outside_the_backbone_percent": 100 * statistics.median(outside) / statistics.median(bare),
    }


class SpliceClock:
    """Adds up what a forward spends on the splice: numbering the slots, and the hook less the encoding."""

    def __init__(self):
        self.splice_ms = self.tokenize_ms = 0.0

    @contextmanager
    def running(self):
        numbering, splicing, tokenizing = spliced_call.number_slots, spliced_call.spliced, SplicedCall.tokenize

        def number_slots(*args):
            start = time.perf_counter()
            slots = numbering(*args)
            self.splice_ms += (time.perf_counter() - start) * 1e3
            return slots

        def tokenize(*args):
            start = time.perf_counter()
            tokens = tokenizing(*args)
            self.tokenize_ms += (time.perf_counter() - start) * 1e3
            return tokens

        @contextmanager
        def spliced(decoder, *args):
            started = []
            before = decoder.register_forward_pre_hook(lambda *_: started.append(time.perf_counter()))
            with splicing(decoder, *args):
                after = decoder.register_forward_pre_hook(
                    lambda *_: setattr(self, "splice_ms", self.splice_ms + (time.perf_counter() - started[-1]) * 1e3)
                )
                yield
            before.remove()
            after.remove()

        with (
            patch.object(spliced_call, "number_slots", number_slots),
            patch.object(spliced_call, "spliced", spliced),
            patch.object(SplicedCall, "tokenize", tokenize),
        ):
            yield
        self.splice_ms -= self.tokenize_ms


def with_regions(region_model, inputs, repeats):
    """The splice's share of the bare backbone's forward on the same tokens."""
    bare_inputs = {name: value for name, value in inputs.items() if name != "regions"}
    bare, ours, splice = [], [], []
    for _ in range(repeats):
        bare.append(milliseconds(region_model.backbone, **bare_inputs))
        clock = SpliceClock()
        with clock.running():
            ours.append(milliseconds(region_model, **inputs))
        splice.append(clock.splice_ms)
    return {
        "tokens": inputs["input_ids"].shape[1],
        "object_tokens": sum(inputs["regions"].counts),
        "bare_ms": summary(bare),
        "region_model_ms": summary(ours),
        "splice_ms": summary(splice),
        "splice_percent_of_bare": 100 * statistics.median(splice) / statistics.median(bare),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=11)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    region_model, processor = make_model()
    report = {"environment": environment(options.threads), "results": {}}
    report["environment"]["versions"]["transformers"] = transformers.__version__
    report["environment"]["model"] = f"VideoLlama3, decoder {LAYERS} layers of width {HIDDEN}, random weights"
    with torch.inference_mode():
        for name, regions, measure in (
            ("0 regions", 0, without_regions),
            ("32 regions", REGIONS, with_regions),
        ):
            inputs = dict(make_inputs(processor, regions))
            measure(region_model, inputs, 1)
            report["results"][name] = measure(region_model, inputs, options.repeats)
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
