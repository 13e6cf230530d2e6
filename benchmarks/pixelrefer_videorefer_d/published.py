"""Figures that others have published."""

from pixelrefer_plugin.authoring import PublishedFigure

_NAMES = (
    "average",
    "subject_correspondence",
    "appearance_description",
    "temporal_description",
    "hallucination_detection",
)
_README = "VideoRefer, benchmark/README.md, one frame with a mask"
_ROWS = {
    "GPT-4o": (2.95, 3.34, 2.96, 3.01, 2.50),
    "InternVL2-26B": (2.84, 3.55, 2.99, 2.57, 2.25),
    "Qwen2-VL-7B": (2.39, 2.97, 2.24, 2.03, 2.31),
    "VideoRefer-7B": (3.42, 4.41, 3.27, 3.03, 2.97),
    "VideoRefer-VideoLLaMA3-7B": (3.72, 4.63, 3.59, 3.38, 3.29),
}
_TABLE = "PixelRefer (arXiv 2510.23603), Table 2"
_MISPRINTED = "; temporal description is printed as 2.28, which contradicts the average beside it"
_ROWS_OF_TABLE = {  # one frame with a mask, else several
    "Elysium-7B, one mask": (1.57, 2.35, 0.30, 0.02, 3.59),
    "Artemis-7B, one mask": (2.26, 3.42, 1.34, 1.39, 2.90),
    "PAM-3B, one mask": (3.14, 3.92, 2.84, 2.88, 2.94),
    "DAM-3B, several masks": (2.99, 3.62, 2.86, 2.81, 2.67),
    "DAM-8B, several masks": (3.68, 4.69, 3.61, 3.34, 3.09),
    "PixelRefer-Lite-2B, several masks": (3.53, 4.56, 3.41, 3.08, 3.12),
    "PixelRefer-Lite-7B, several masks": (3.64, 4.69, 3.56, 3.28, 3.06),
    "PixelRefer-2B, one mask": (3.58, 4.59, 3.40, 3.25, 3.09),
    "PixelRefer-7B, one mask": (3.70, 4.70, 3.59, 3.39, 3.13),
}

PUBLISHED = (
    *(
        PublishedFigure(model, name, value, _README, judge="gpt-4o")
        for model, row in _ROWS.items()
        for name, value in zip(_NAMES, row, strict=True)
    ),
    *(
        PublishedFigure(
            model,
            name,
            value,
            _TABLE + (_MISPRINTED if model.startswith("PixelRefer-Lite-7B") else ""),
            judge="gpt-4o-2024-08-06 (inferred: its code says gpt-4o-0806)",
        )
        for model, row in _ROWS_OF_TABLE.items()
        for name, value in zip(_NAMES, row, strict=True)
    ),
)
