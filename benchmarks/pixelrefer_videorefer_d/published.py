"""Figures that others have published."""

from pixelrefer_plugin.authoring import PublishedFigure

_NAMES = ("average", "subject_correspondence", "appearance_description", "temporal_description")
_README = "VideoRefer, benchmark/README.md, one frame with a mask"
_ROWS = {
    "GPT-4o": (2.95, 3.34, 2.96, 3.01, 2.50),
    "InternVL2-26B": (2.84, 3.55, 2.99, 2.57, 2.25),
    "Qwen2-VL-7B": (2.39, 2.97, 2.24, 2.03, 2.31),
    "VideoRefer-7B": (3.42, 4.41, 3.27, 3.03, 2.97),
    "VideoRefer-VideoLLaMA3-7B": (3.72, 4.63, 3.59, 3.38, 3.29),
}

PUBLISHED = (
    *(
        PublishedFigure(model, name, value, _README, judge="gpt-4o")
        for model, row in _ROWS.items()
        for name, value in zip((*_NAMES, "hallucination_detection"), row, strict=True)
    ),
    PublishedFigure(
        "PixelRefer-Lite-7B",
        "temporal_description",
        3.28,
        "PixelRefer (arXiv 2510.23603), Table 2; printed as 2.28, which contradicts the average beside it",
        judge="gpt-4o-2024-08-06 (inferred: its code says gpt-4o-0806)",
    ),
)
