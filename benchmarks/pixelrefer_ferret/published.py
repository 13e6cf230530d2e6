"""Figures that others have published."""

from pixelrefer_plugin.authoring import PublishedFigure

_TABLE = "PixelRefer (arXiv 2510.23603), Table 1"
_JUDGE = "gpt-4-turbo-2024-04-09 (inferred: its code says gpt-4-0409)"
_SCORES = {
    "Osprey-7B": 67.8,
    "Ferret-7B": 67.3,
    "SPHINX-V-13B": 70.4,
    "PixelRefer-Lite-2B": 74.5,
    "PixelRefer-Lite-7B": 78.1,
    "PixelRefer-2B": 78.5,
    "PixelRefer-7B": 83.1,
}

PUBLISHED = tuple(PublishedFigure(model, "score", value, _TABLE, judge=_JUDGE) for model, value in _SCORES.items())
