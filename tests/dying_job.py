"""A job for processes to run that ends some of them. By itself, so that a process imports little to run it."""

import os

DEADLY = (0, 77, 130)


def doubled(indices):
    """Twice each index; a deadly one kills the process."""
    if set(DEADLY) & set(indices):
        os._exit(9)
    return [2 * index for index in indices]
