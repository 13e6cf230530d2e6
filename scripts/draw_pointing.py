"""Draws what a model is shown by the adapters that need no training, on a picture that ships.

python scripts/draw_pointing.py --out docs/images/pointing.png
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from pixelrefer_plugin import RegionDataset, RegionProcessor, get_backbone
from pixelrefer_plugin.contracts.messages import read_texts
from pixelrefer_plugin.contracts.samples import RegionSample
from pixelrefer_plugin.data.preview import Pen, Run, arranged, pictures_of, stacked
from pixelrefer_plugin.samples.writing import Samples, write_samples

BACKBONE, SIZE = "qwen2_5_vl", {"shortest_edge": 3136, "longest_edge": 12845056}  # as Qwen2.5-VL-3B-Instruct has it
WAYS: tuple[tuple[str, dict[str, str]], ...] = (
    ("coordinates", {}),
    ("marks", {}),
    ("marks", {"style": "both"}),
    ("crops", {"background": "dim"}),
)
QUESTION = 2  # of street.jsonl
_NUM_COLOURS = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="PNG to write; it is replaced")
    out: Path = parser.parse_args().out
    pen = Pen.load(None)
    with tempfile.TemporaryDirectory() as folder:
        write_samples(Samples(Path(folder), num_pictures=1, num_frames=1))
        sample = RegionDataset.open(Path(folder) / "street.jsonl")[QUESTION]
        sheet = arranged([_tile(sample, adapter, options, pen) for adapter, options in WAYS], _asked(sample), pen)
    sheet.quantize(_NUM_COLOURS, kmeans=4, dither=Image.Dither.NONE).save(out, optimize=True)


def _asked(sample: RegionSample) -> str:
    return f'"{read_texts(sample.messages)[0][1]}"'


def _tile(sample: RegionSample, adapter: str, options: dict[str, str], pen: Pen) -> Image.Image:
    """The pictures and the words of a question as one way of pointing has them, below its name."""
    model, native = get_backbone(BACKBONE).tiny(0)
    native.image_processor.size = SIZE
    processor = RegionProcessor(native, model.config, adapter=adapter, adapter_config=options)
    messages = tuple(processor.pointed(sample.messages[:1], sample.regions))
    shown = replace(sample, messages=messages, regions=(), media_hw=())
    title = [Run(" ".join([adapter, *(f"{key}={value}" for key, value in options.items())]))]
    words: Sequence[Sequence[Run]] = pen.wrapped([Run(text) for _, text in read_texts(messages)])
    return stacked([title], pictures_of(shown, (), (), pen, first=1), words, pen)


if __name__ == "__main__":
    main()
