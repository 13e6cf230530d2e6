"""Where the official code's reference tensors lie: beside the repository, and not everywhere."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "shared" / "parity"


def cases(pattern: str) -> list:
    """The reference files of a kind, as parameters of a test that is skipped where there are none."""
    return [pytest.param(path, id=path.stem) for path in sorted(FOLDER.glob(pattern))]


@pytest.fixture(scope="session")
def parity() -> Path:
    """The folder of reference tensors."""
    if not FOLDER.is_dir():
        pytest.skip(f"no reference data at '{FOLDER}'")
    return FOLDER
