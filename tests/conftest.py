"""Settings and helpers for all tests."""

import numpy as np
import pytest
import torch

# Tiny models gain nothing from threads, and two test processes on two cores lose a lot to spinning ones.
torch.set_num_threads(1)


def picture(height, width, seed=0):
    """A noise picture, `(height, width, 3)` uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def user(*parts):
    """A user's message of texts and pictures."""
    content = [
        {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part} for part in parts
    ]
    return {"role": "user", "content": content}


def assistant(text):
    """An assistant's message."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


@pytest.fixture
def pair():
    """SAOT on a tiny VideoLLaMA3, detached afterwards."""
    from pixelrefer_plugin.testing import make_pair

    made = make_pair("saot", "videollama3")
    yield made
    made.model.detach()
