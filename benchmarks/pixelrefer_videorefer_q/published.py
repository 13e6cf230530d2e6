"""Figures that others have published."""

from pixelrefer_plugin.authoring import PublishedFigure

_PIXELREFER = "PixelRefer (arXiv 2510.23603), Table 3"
_ACCURACIES = {
    "LongVU-7B": 61.0,
    "LongVA-7B": 61.8,
    "InternVL2-26B": 65.0,
    "GPT-4o-mini": 65.8,
    "Qwen2-VL-7B": 66.0,
    "LLaVA-OV-7B": 67.4,
    "GPT-4o": 71.3,
    "Osprey-7B": 39.9,
    "Ferret-7B": 48.8,
    "VideoRefer-7B": 71.9,
    "PixelRefer-Lite-2B": 65.7,
    "PixelRefer-Lite-7B": 76.9,
    "PixelRefer-2B": 76.5,
    "PixelRefer-7B": 79.4,
}
_UNIPIXEL = "UniPixel's README (github.com/PolyU-ChenLab/UniPixel), read as UniPixel does, masks on "

PUBLISHED = (
    *(PublishedFigure(model, "accuracy", value / 100, _PIXELREFER) for model, value in _ACCURACIES.items()),
    PublishedFigure("UniPixel-3B", "accuracy", 0.722, f"{_UNIPIXEL}one frame"),
    PublishedFigure("UniPixel-7B", "accuracy", 0.734, f"{_UNIPIXEL}one frame"),
    PublishedFigure("UniPixel-3B", "accuracy", 0.728, f"{_UNIPIXEL}several frames"),
    PublishedFigure("UniPixel-7B", "accuracy", 0.741, f"{_UNIPIXEL}several frames"),
)
