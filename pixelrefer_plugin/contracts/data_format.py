"""A data format's contract: how the records of a file become samples. It knows no model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import PixelReferError
from .checks import require_callables, require_config, require_name
from .options import make_config

if TYPE_CHECKING:
    from .samples import RecordPlace, RegionSample


class SampleFile(Protocol):
    """The samples of one file, read when they are asked for.

    `__getitem__` raises `SampleError` for a sample that cannot be used, and can do so for each one anew.

    It may have an attribute `left_out`, a mapping from a reason to how many entries of the file make no sample for it.
    A reason names the option that keeps them, where there is one: `{"iscrowd (skip_crowd=false keeps them)": 2}`.

    Where to read a sample takes long, it may have a method `media(index)`, the paths that sample `index` shows.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> RegionSample: ...


def told_left_out(left_out: Mapping[str, int]) -> str:
    """What a file's `left_out` says, for a message: `2 left out, iscrowd (skip_crowd=false keeps them)`."""
    return "; ".join(f"{count:,} left out, {reason}" for reason, count in left_out.items())


@dataclass(frozen=True, kw_only=True)
class DataFormatSpec:
    """A data format: how the records of a file become training samples.

    A format whose file is a list of independent records (JSON Lines, or a JSON array) gives `read_record`; the
    host finds the records, reads each when it is needed, and takes rows of a Hugging Face dataset the same way. One
    whose file has to be read as a whole, such as COCO's, gives `open_file` instead.

    Attributes:
        name: what users call it.
        config: frozen dataclass of its options, each with a default; checks itself in `__post_init__`.
        recognises: `recognises(record) -> bool`: whether a file is of this format, by its first record, or by the
            top-level object of a JSON file that holds one (long lists in it are cut short). Must not say yes to
            another format's.
        read_record: `read_record(config, record, place) -> RegionSample`; raises `SampleError`
            (`place.error(id, defects)`) with everything that is wrong with the record.
        open_file: `open_file(config, path, media_root) -> SampleFile`.
        tiny: `tiny(folder) -> path`: writes a small file of this format into an empty folder, and the pictures and
            videos that it names, for the conformance kit. None: the kit has to be given a file.
    """

    name: str
    config: type[Any]
    recognises: Callable[[Mapping[str, Any]], bool]
    read_record: Callable[[Any, Mapping[str, Any], RecordPlace], RegionSample] | None = None
    open_file: Callable[[Any, Path, Path], SampleFile] | None = None
    tiny: Callable[[Path], Path] | None = None

    def __post_init__(self) -> None:
        require_name(self)
        require_config(self)
        require_callables(self, "recognises", optional=("read_record", "open_file", "tiny"))
        if (self.read_record is None) == (self.open_file is None):
            raise PixelReferError(f"DataFormatSpec '{self.name}' must have read_record or open_file, and not both.")

    def make_config(self, options: Mapping[str, Any] | Any | None = None) -> Any:
        """As `AdapterSpec.make_config`."""
        return make_config(self.config, options, owner=f"data format '{self.name}'")
