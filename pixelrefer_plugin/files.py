"""Files that appear whole or not at all. (Model folders do so by `checkpoint.written_whole`.)"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import PixelReferError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path of the same name to write to; its file goes to `path` when the block ends without an error.

    Raises:
        PixelReferError: it cannot be written, such as for a full disk.
    """
    if path.is_dir():
        raise PixelReferError(f"'{path}' cannot be written: it is a folder. Name a file in it.")
    if path.exists() and not path.is_file():  # root could put a file in the place of /dev/null
        raise PixelReferError(f"'{path}' cannot be written: it is no regular file. Name one.")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".partial", dir=path.parent) as folder:
            made = Path(folder) / path.name
            yield made
            os.replace(made, path)
    except OSError as error:
        raise PixelReferError(f"'{path}' cannot be written: {error.strerror or error}.") from error
