"""Several processes of one command, as `accelerate launch` and `torchrun` start them."""

import os


def is_first_process() -> bool:
    """Whether this process is the one that prints, writes and scores. It is known before they have found each other."""
    return os.environ.get("RANK", "0") == "0"
