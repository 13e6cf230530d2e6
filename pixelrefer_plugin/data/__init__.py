"""Training data: samples, the files they are read from, mixtures of them. Knows no model."""

from ..contracts.samples import RegionSample
from .dataset import MixedDataset, RegionDataset

__all__ = ["MixedDataset", "RegionDataset", "RegionSample"]
