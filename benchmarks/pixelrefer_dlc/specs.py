"""The two benchmarks as they are registered, and what others have published."""

from pixelrefer_plugin.authoring import BenchmarkSpec, PublishedFigure

from .config import DlcConfig, DlcPicturesConfig
from .exchange import read_judged, read_lines, read_predictions
from .items import FILES, open_questions
from .prompts import prompts_of
from .scoring import score
from .tiny import tiny

_LLAMA = "Llama-3.1-8B-Instruct"
_GPT_4 = "GPT-4 (gpt-4-0409 in the official script)"
_GPT_4O = "gpt-4o-2024-11-20, with pictures"
_PIXELREFER = "PixelRefer, Table 1"
_GAR_README = "README of Haochen-Wang409/Grasp-Any-Region, evaluation"
_DAM_README = "README of NVlabs/describe-anything, evaluation"


def _published(model: str, source: str, judge: str, *values: float) -> tuple[PublishedFigure, ...]:
    """Pos, neg and their mean."""
    return tuple(
        PublishedFigure(model, figure, value, source, judge)
        for figure, value in zip(("pos", "neg", "avg"), values, strict=True)
    )


_ANSWER_FORMATS = {"dam": read_predictions, "pixelrefer": read_lines}

TEXT_JUDGE = BenchmarkSpec(
    name="dlc_bench",
    about="Detailed descriptions of regions, judged by questions about what is there and what is not.",
    config=DlcConfig,
    files=FILES,
    open=open_questions,
    score=score,
    needs=("judge",),
    max_new_tokens=512,
    published=(
        *_published("PixelRefer-7B", _PIXELREFER, _GPT_4, 0.496, 0.870, 0.683),
        *_published("PixelRefer-2B", _PIXELREFER, _GPT_4, 0.468, 0.854, 0.661),
        *_published("PixelRefer-Lite-7B", _PIXELREFER, _GPT_4, 0.482, 0.724, 0.603),
        *_published("PixelRefer-Lite-2B", _PIXELREFER, _GPT_4, 0.411, 0.802, 0.607),
        *_published("DAM-3B", _PIXELREFER, _LLAMA, 0.523, 0.822, 0.673),
        *_published("nvidia/DAM-3B", _DAM_README, _LLAMA, 0.510, 0.830, 0.670),
        *_published("GAR-1B", _GAR_README, _LLAMA, 0.489, 0.870, 0.679),
        *_published("GAR-8B", _GAR_README, _LLAMA, 0.502, 0.846, 0.674),
    ),
    prompts=prompts_of,
    answer_formats=_ANSWER_FORMATS,
    judged_formats={"dam": read_judged},
    tiny=tiny,
)

PICTURE_JUDGE = BenchmarkSpec(
    name="dlc_bench_images",
    about="DLC-Bench, judged by one who sees the region: its surroundings, and its mask.",
    config=DlcPicturesConfig,
    files=FILES,
    open=open_questions,
    score=score,
    needs=("judge",),
    max_new_tokens=512,
    published=(
        *_published("GAR-1B", _GAR_README, _GPT_4O, 0.662, 0.880, 0.771),
        *_published("GAR-8B", _GAR_README, _GPT_4O, 0.680, 0.860, 0.770),
    ),
    prompts=prompts_of,
    answer_formats=_ANSWER_FORMATS,
    judged_formats={"dam": read_judged},
    tiny=tiny,
)
