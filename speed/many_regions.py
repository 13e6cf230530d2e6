"""What many regions of one image cost in one call, beside one region and beside as many calls of one region each.

A VideoLLaMA3 of the real classes and of the real tower's width, with few layers and random weights; one 1280x720
photograph at its native resolution (4,641 scene tokens), 64 ellipses. A call is the processor and a forward.

    python speed/many_regions.py --json many_regions.json
"""

import argparse
import json
import statistics
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
import transformers
from pixelrefer_videollama3.tiny import tiny_config, tiny_processor
from region_tokens import IMAGE_HW, OBJECT_WIDTHS_PX, Stopwatch, environment, medians, object_masks, photograph
from transformers import VideoLlama3ForConditionalGeneration

from pixelrefer_plugin import Region, attach
from pixelrefer_plugin.tokens.spliced_call import SplicedCall

REGIONS = 64
VISION_WIDTH, VISION_FFN, VISION_LAYERS, DECODER_WIDTH, DECODER_LAYERS, HEADS = 1152, 4304, 2, 512, 4, 16
# For 64 regions in one call: in Vision-Object times one region's call, in Object-Only of 64 single calls.
MOST_TIMES_ONE, MOST_OF_SINGLES = 4.0, 0.5


def make_backbone(native):
    config = tiny_config(
        native.tokenizer,
        vision_hidden=VISION_WIDTH,
        vision_layers=VISION_LAYERS,
        text_hidden=DECODER_WIDTH,
        text_layers=DECODER_LAYERS,
        heads=HEADS,
    )
    config.vision_config.intermediate_size = VISION_FFN
    config.vision_config.initializer_range = 0.02
    torch.manual_seed(0)
    return VideoLlama3ForConditionalGeneration(config).eval()


def make_native_processor():
    """It keeps the photograph's resolution, as VideoLLaMA3's own settings do."""
    native = tiny_processor()
    native.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": 1280 * 28 * 28}
    return native


@contextmanager
def timed_parts(region_model, watch):
    """Within this context the parts of a forward are timed. The projector counts to the native vision pass."""
    parts = {
        "crops through the tower": (SplicedCall, "encode"),
        "adapter": (SplicedCall, "tokenize"),
        "native vision pass": (region_model.backbone.model, "get_image_features"),
    }
    with ExitStack() as stack:
        for part, (owner, name) in parts.items():
            stack.enter_context(patch.object(owner, name, watch.wrap(part, getattr(owner, name))))
        yield


def call(region_model, processor, image, regions):
    """One call on all `regions`: milliseconds by part."""
    watch = Stopwatch()
    content = [{"type": "image", "image": image}, {"type": "text", "text": "compare" + " <region>" * len(regions)}]
    with watch("processor"):
        inputs = processor([{"role": "user", "content": content}], regions)
    with timed_parts(region_model, watch), watch("forward"):
        region_model(**inputs)
    ms = defaultdict(float, watch.ms)
    of_forward = ("crops through the tower", "native vision pass", "adapter")
    return {
        "processor": ms["processor"],
        **{part: ms[part] for part in of_forward},
        "decoder and rest": ms["forward"] - sum(ms[part] for part in of_forward),
        "sum": ms["processor"] + ms["forward"],
    }


def measure(region_model, processor, image, regions, *, singles, repeats):
    """One region at a time and all in one call, in turns, so that a busy machine slows both."""
    every = len(regions) // singles
    one, many = [], []
    call(region_model, processor, image, regions[:1])
    for _ in range(repeats):
        one += [call(region_model, processor, image, [region]) for region in regions[::every]]
        many.append(call(region_model, processor, image, regions))
    mean_of_one = statistics.mean(run["sum"] for run in one)
    one, many = medians(one), medians(many)
    return {
        "one_ms": one,
        "many_ms": many,
        "singles_ms": len(regions) * mean_of_one,
        "many_to_one": many["sum"] / one["sum"],
        "many_to_singles": many["sum"] / (len(regions) * mean_of_one),
    }


def difference_in_company(region_model, processor, image, regions, *, singles):
    """The largest difference of a region's tokens alone and among all, over their root mean square."""
    content = {"type": "image", "image": image}

    def tokens(chosen):
        text = {"type": "text", "text": "compare" + " <region>" * len(chosen)}
        batch = processor([{"role": "user", "content": [content, text]}], chosen)["regions"]
        return region_model.object_tokens(batch).split(batch.tokens_per_region())

    together = tokens(regions)
    every = len(regions) // singles
    pairs = [(tokens([regions[index]])[0], together[index]) for index in range(0, len(regions), every)]
    return max(float((alone - among).abs().max() / alone.square().mean().sqrt()) for alone, among in pairs)


def passes(adapter, result):
    if adapter == "saot":
        return result["many_to_one"] <= MOST_TIMES_ONE
    return result["many_to_singles"] <= MOST_OF_SINGLES


def print_result(adapter, result):
    print(f"\n{adapter}, ms: {'':24}{'1 region':>10}{f'{REGIONS} regions':>12}")
    for part, one_ms in result["one_ms"].items():
        print(f"    {part:<30}{one_ms:>10.0f}{result['many_ms'][part]:>12.0f}")
    print(
        f"    {REGIONS} in one call: {result['many_to_one']:.2f} x one region, "
        f"{result['many_to_singles']:.3f} of {REGIONS} single calls ({result['singles_ms']:.0f} ms)"
        f"\n    a region's tokens alone and among the others differ by {result['difference']:.1e} of their size"
        f"\n    {'pass' if passes(adapter, result) else 'FAIL'}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--singles", type=int, default=8, help=f"how many of the {REGIONS} single calls are made, a divisor; scaled up"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    native = make_native_processor()
    backbone, image = make_backbone(native), photograph()
    regions = [Region.from_mask(mask) for mask in object_masks(REGIONS)]
    report = {"environment": environment(options.threads), "results": {}}
    report["environment"]["versions"]["transformers"] = transformers.__version__
    report["environment"]["model"] = (
        f"VideoLlama3, tower {VISION_LAYERS} layers of width {VISION_WIDTH}, "
        f"decoder {DECODER_LAYERS} layers of width {DECODER_WIDTH}, random weights, float32"
    )
    print(json.dumps(report["environment"], indent=2))
    print(
        f"{REGIONS} ellipses {OBJECT_WIDTHS_PX[0]} to {OBJECT_WIDTHS_PX[1]} px wide on {IMAGE_HW[1]}x{IMAGE_HW[0]}; "
        f"medians of {options.repeats}; {options.singles} single calls in each, scaled to {REGIONS}\n"
        f"required: saot <= {MOST_TIMES_ONE} x one region, oci <= {MOST_OF_SINGLES} of the single calls"
    )
    for adapter in ("saot", "oci"):
        region_model, processor = attach(backbone, native, adapter=adapter)
        setting = (region_model.eval(), processor, image, regions)
        with torch.inference_mode():
            result = measure(*setting, singles=options.singles, repeats=options.repeats)
            result["difference"] = difference_in_company(*setting, singles=options.singles)
        report["results"][adapter] = result
        print_result(adapter, result)
        region_model.detach()
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
