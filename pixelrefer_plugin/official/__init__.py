"""Official checkpoints, those that adapters' authors published, made into model folders."""

from .importing import import_official

__all__ = ["import_official"]
