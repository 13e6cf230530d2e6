"""What a kind of hostile input is, and how its inputs are made again from seed and number."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Try = Callable[[], Any]
Make = Callable[[random.Random, Path], Try]

MOST_CHARACTERS = 10_000  # that an error may say


@dataclass(frozen=True)
class Kind:
    """A kind of hostile input.

    Attributes:
        name: what reports call it.
        make: writes one input into a folder of its own, and returns what is tried on it.
        share: how many of its inputs are made, in proportion to the other kinds'; 0 for those that are tried only when
            they are named.
    """

    name: str
    make: Make
    share: int


KINDS: dict[str, Kind] = {}


def kind(name: str, *, share: int) -> Callable[[Make], Make]:
    """Registers a function as `Kind.make`."""

    def register(make: Make) -> Make:
        assert name not in KINDS, name
        KINDS[name] = Kind(name, make, share)
        return make

    return register


def generator(seed: int, kind: str, number: int) -> random.Random:
    """The randomness of one input; the same in every process and on every machine."""
    return random.Random(f"{seed} {kind} {number}")


def numbered(names: list[str], inputs: int) -> list[tuple[str, int]]:
    """So many inputs of these kinds, by their shares but at least one of each, mixed."""
    total = sum(KINDS[name].share for name in names)
    counts = {name: max(1, round(inputs * KINDS[name].share / total)) for name in names}
    made = [((number + 0.5) / count, name, number) for name, count in counts.items() for number in range(count)]
    return [(name, number) for _, name, number in sorted(made)]


def template(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is made once for all workers, beside the folders of the inputs. It must not be changed."""
    folder = SCRATCH / "templates" / name
    if not folder.exists():
        made = folder.with_name(f".{name}-{random.SystemRandom().getrandbits(64):x}")
        made.mkdir(parents=True)
        make(made)
        try:
            made.rename(folder)
        except OSError:  # another worker was first
            shutil.rmtree(made)
    return folder


def linked(source: Path, target: Path) -> Path:
    """A copy of a folder by hard links. A file of it is changed by writing another one in its place: `replaced`."""
    shutil.copytree(source, target, copy_function=lambda one, other: Path(other).hardlink_to(one))
    return target


def replaced(path: Path, content: bytes | str) -> Path:
    """Write a file anew, whatever is there and whoever shares it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


SCRATCH = Path()  # of this worker; `worker.work` says where
