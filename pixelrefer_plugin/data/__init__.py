"""Training data: samples, the files they are read from, mixtures of them. Knows no model."""

from .dataset import MixedDataset, RegionDataset
from .sample import RegionSample

__all__ = ["MixedDataset", "RegionDataset", "RegionSample"]
