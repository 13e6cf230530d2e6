"""A job for processes to run that ends two of them. By itself, so that a process imports little to run it."""

import os


def doubled(indices):
    """Twice each index; 77 and 130 kill the process."""
    if {77, 130} & set(indices):
        os._exit(9)
    return [2 * index for index in indices]
