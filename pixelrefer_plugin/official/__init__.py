"""The PixelRefer and PixelRefer-Lite checkpoints that the papers' authors published, made into model folders."""

from .importing import import_official

__all__ = ["import_official"]
