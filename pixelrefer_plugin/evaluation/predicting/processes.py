"""Several processes of one command, as `accelerate launch` and `torchrun` start them."""

import os


def is_first_process() -> bool:
    """Whether this process is the one that prints, writes and scores. It is known before they have found each other."""
    return os.environ.get("RANK", "0") == "0"


def join_the_others(device: str) -> None:
    """Of several processes each finds the others, and takes an accelerator of its own."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        import torch
        from accelerate import PartialState

        PartialState(cpu=device == "cpu" or not torch.accelerator.is_available())


def leave_the_others() -> None:
    """Each ends its part in their exchange: its threads would abort a process that goes first."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        import torch

        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def told_by_all(text: str) -> list[str]:
    """What every process says, in every one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return [text]
    from accelerate.utils import gather_object

    return list(gather_object([text]))
