"""LoRA on top of an adapter that makes no object tokens: `pixelrefer train`, resuming, loading, and what is refused."""

import logging

import numpy as np
import pytest
import torch
from conftest import assistant, picture, user
from training_runs import config_of

from pixelrefer_plugin import Region, RegionModel, load
from pixelrefer_plugin.errors import ConfigError, TrainingError
