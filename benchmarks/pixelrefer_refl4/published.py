"""Figures that others have published."""

from pixelrefer_plugin.authoring import PublishedFigure

_TABLE = "PixelRefer (arXiv 2510.23603), Table 1"
_JUDGE = "gpt-4-turbo-2024-04-09 (inferred: its code says gpt-4-0409)"
_SCORES = {
    "Ferret-7B": 45.2,
    "DAM-8B": 57.9,
    "SPHINX-V-13B": 51.2,
    "PixelRefer-Lite-2B": 63.5,
    "PixelRefer-Lite-7B": 56.2,
    "PixelRefer-2B": 60.9,
    "PixelRefer-7B": 60.8,
}

PUBLISHED = tuple(
    PublishedFigure(model, "clair", value / 100, _TABLE, judge=_JUDGE) for model, value in _SCORES.items()
)
