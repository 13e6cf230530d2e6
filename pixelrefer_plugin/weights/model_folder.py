"""The model folder: what it holds, how it is written whole, how it is read and checked.

    pixelrefer.json       format version, adapter and its options, backbone, versions
    adapter.safetensors   the adapter's weights
    lora/                 PEFT's own files, when LoRA was added
    backbone/             the backbone itself, only when it was trained
    processor/            the native processor's files and the backbone's config

It knows files; modules come and go as state dicts. No pickles are written or read.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..conversation.token_ids import TokenIds
from ..errors import CheckpointError, VideoError, refusing, shown
from ..files import replaced_folder, require_path, restore_folder
from ..json_text import read_json
from ..media.video import FrameSampling
from ..plugins import distribution_of

if TYPE_CHECKING:
    from ..contracts.adapter import AdapterLayout

FORMAT_VERSION = 2
MANIFEST_FILE = "pixelrefer.json"
ADAPTER_FILE = "adapter.safetensors"
LORA_FOLDER = "lora"
LORA_FILE = "adapter_model.safetensors"
BACKBONE_FOLDER = "backbone"
PROCESSOR_FOLDER = "processor"

BUILTIN_PREFIX = "builtin:"
_BUILTIN_ROOT = Path(__file__).parent.parent / "quickstart"


@dataclass(frozen=True)
class Manifest:
    """What `pixelrefer.json` says.

    Attributes:
        adapter: name of the adapter.
        adapter_config: its options.
        backbone: name of the backbone plugin.
        backbone_id: hub id or path of the backbone's weights; `backbone` for the folder inside this one;
            `builtin:NAME` for the one shipped with this package; empty when only the user knows.
        backbone_revision: the hub's commit, where known.
        model_type: the backbone's `config.model_type`.
        vision_width: width of the patch features that the adapter was made for.
        decoder_width: width of its object tokens.
        image_backend: `pil` or `torchvision`, the library that resized the images in training; the two differ,
            and transformers' processor files do not say which it was.
        lora: whether LoRA weights belong to the model.
        frame_sampling: which frames of a video the processor reads.
        region_token: the tokenizer's own token whose id is written for object tokens; None where it is ours.
        tokens: the ids that model and processor agree on.
        plugins: which distribution, and which version of it, the `adapter` and the `backbone` came from; without those
            for which that is not known.
        module_paths: where the parts of the backbone were in the live model, so that LoRA's keys find their layers
            in a release of transformers that has renamed modules.
        versions: the libraries that wrote the folder.
        format_version: of this layout.
    """

    adapter: str
    adapter_config: dict[str, Any]
    backbone: str
    backbone_id: str
    backbone_revision: str | None
    model_type: str
    vision_width: int
    decoder_width: int
    image_backend: str
    lora: bool
    tokens: TokenIds
    frame_sampling: FrameSampling = field(default_factory=FrameSampling)
    region_token: str | None = None
    plugins: dict[str, dict[str, str]] = field(default_factory=dict)
    module_paths: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION


_FIELD_TYPES: dict[str, type | tuple[type, ...]] = {
    "adapter": str,
    "adapter_config": dict,
    "backbone": str,
    "backbone_id": str,
    "backbone_revision": (str, type(None)),
    "model_type": str,
    "image_backend": str,
    "lora": bool,
    "frame_sampling": dict,
    "region_token": (str, type(None)),
    "tokens": dict,
    "plugins": dict,
    "module_paths": dict,
    "versions": dict,
    "vision_width": int,
    "decoder_width": int,
}


def library_versions() -> dict[str, str]:
    """The versions worth knowing when a folder behaves differently elsewhere."""
    return {name: metadata.version(name) for name in ("pixelrefer-plugin", "torch", "transformers", "peft")}


def is_model_folder(folder: str | os.PathLike[str]) -> bool:
    """Whether `folder` is one that this package wrote."""
    _restore(folder)
    return (Path(folder) / MANIFEST_FILE).is_file()


def read_manifest(folder: str | os.PathLike[str], *, adapter: str | None = None) -> Manifest:
    """Read and check `pixelrefer.json`.

    Args:
        folder: the model folder.
        adapter: refuse a folder that was made with another adapter than this.

    Raises:
        CheckpointError: no such file, not JSON, fields missing or unknown, a newer format, another adapter.
    """
    path = Path(folder) / MANIFEST_FILE
    data = _fields(_read_json(folder), path)
    if adapter is not None and data["adapter"] != adapter:
        raise CheckpointError(
            f"'{folder}' was made with adapter '{data['adapter']}', not '{adapter}'. "
            f"Load it with adapter='{data['adapter']}', or leave that out."
        )
    _require_origins(data["plugins"], path)
    return Manifest(**data | {"tokens": _tokens(data["tokens"], path), "frame_sampling": _sampling(data, path)})


_MOST_FILES = 10_000
_MOST_BYTES = {".json": 2**28, ".jinja": 2**18}  # the largest that are published have an eighth of it


def require_plain_files(folder: str | os.PathLike[str], *, within: bool = False) -> None:
    """Refuse a folder with what could keep its reader waiting or take all memory; what is no folder is let pass.

    Args:
        folder: with files that other libraries will open.
        within: look into its folders too.

    Raises:
        CheckpointError: a file in it is a named pipe or a device; or a text file in it is larger than any that is
            published, or there are too many.
    """
    count = 0
    for parent, folders, files in os.walk(folder):
        if not within:
            folders.clear()
        count += len(files)
        if count > _MOST_FILES:
            raise CheckpointError(f"'{folder}' has more than {_MOST_FILES:,} files. Is it a model folder?")
        for path in (Path(parent, name) for name in files):
            with suppress(OSError):  # a link to nothing: who needs the file tells
                found = path.stat()
                if not stat.S_ISREG(found.st_mode):
                    raise CheckpointError(f"'{path}' is no regular file. Is it of a model?")
                if found.st_size > (most := _MOST_BYTES.get(path.suffix, found.st_size)):
                    raise CheckpointError(
                        f"'{path}' has {found.st_size:,} bytes; at most {most:,} are read of such files."
                    )


def _read_json(folder: str | os.PathLike[str]) -> dict[str, Any]:
    _restore(folder)
    path = Path(folder) / MANIFEST_FILE
    if not path.is_file():
        raise CheckpointError(f"'{folder}' is not a pixelrefer model folder: it has no {MANIFEST_FILE}.")
    try:
        data = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} must hold a JSON object, got {type(data).__name__}.")
    return data


def _fields(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """The fields of the present version, each of its type."""
    version = data.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise CheckpointError(
            f"{path} has format version {shown(version)}; this pixelrefer-plugin reads up to {FORMAT_VERSION}. "
            "Upgrade: pip install -U pixelrefer-plugin."
        )
    if version == 1:
        data = _from_version_1(data, path)
    known = {item.name for item in fields(Manifest)}
    if set(data) != known:
        missing, extra = sorted(known - set(data)), sorted(set(data) - known)
        raise CheckpointError(f"{path} has missing fields {missing} and unknown fields {extra}.")
    for name, kinds in _FIELD_TYPES.items():
        if not isinstance(data[name], kinds):
            raise CheckpointError(f"{path}: '{name}' is {shown(data[name])}, a {type(data[name]).__name__}.")
    if not all(isinstance(each, str) for each in data["module_paths"].values()):
        raise CheckpointError(f"{path}: 'module_paths' is {shown(data['module_paths'])}; expected a path of each part.")
    return data


def _from_version_1(data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The fields of a folder from before token ids were one object and plugins were recorded."""
    data = dict(data)
    ids = {"placeholder": data.pop("placeholder_id", None), "mask": data.pop("mask_token_id", None)}
    if ids["placeholder"] is None:
        raise CheckpointError(
            f"{path} does not say which token stands for object tokens: the folder was written before that was "
            "recorded, and cannot be loaded any more. Train or import it again."
        )
    return {**data, "tokens": {**ids, "native": {}}, "plugins": {}, "format_version": FORMAT_VERSION}


def _sampling(data: Mapping[str, Any], path: Path) -> FrameSampling:
    try:
        return FrameSampling(**data["frame_sampling"])
    except (TypeError, VideoError) as error:
        raise CheckpointError(f"{path}: 'frame_sampling' is not readable: {error}") from error


_TOKEN_TYPES: dict[str, type | tuple[type, ...]] = {"placeholder": int, "mask": (int, type(None)), "native": dict}


def _tokens(value: Mapping[str, Any], path: Path) -> TokenIds:
    fit = value.keys() == _TOKEN_TYPES.keys()
    fit = fit and all(isinstance(value[name], kinds) for name, kinds in _TOKEN_TYPES.items())
    if not fit or not all(isinstance(each, int) for each in value["native"].values()):
        raise CheckpointError(
            f"{path}: 'tokens' is {shown(value)}; expected ids as 'placeholder', 'mask' and 'native'."
        )
    return TokenIds(**value)


def _require_origins(plugins: Mapping[str, Any], path: Path) -> None:
    fit = plugins.keys() <= {"adapter", "backbone"}
    if not fit or not all(isinstance(each, dict) and each.keys() == {*_ORIGIN} for each in plugins.values()):
        raise CheckpointError(
            f"{path}: 'plugins' is {shown(plugins)}; expected {' and '.join(_ORIGIN)} of each plugin."
        )


_ORIGIN = ("distribution", "version")


def origins_of(*, adapter: str, backbone: str) -> dict[str, dict[str, str]]:
    """The distributions that an adapter and a backbone plugin come from, as a manifest has them."""
    found = {"adapter": distribution_of("adapter", adapter), "backbone": distribution_of("backbone", backbone)}
    return {kind: dict(zip(_ORIGIN, each, strict=True)) for kind, each in found.items() if each is not None}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `pixelrefer.json`."""
    (folder / MANIFEST_FILE).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


def require_free(folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Refuse to write a model folder over something.

    Raises:
        CheckpointError: `folder` exists and `overwrite` is false, or it is not one of ours.
    """
    _restore(folder)
    target = Path(folder).resolve()
    if target.exists():
        if not overwrite:
            raise CheckpointError(f"'{target}' exists. Choose another folder, or allow overwriting it.")
        if not target.is_dir() or (any(target.iterdir()) and not is_model_folder(target)):
            raise CheckpointError(f"'{target}' exists and is not a pixelrefer model folder; it is not overwritten.")


def _restore(folder: str | os.PathLike[str]) -> None:
    require_path(folder, CheckpointError)
    with suppress(OSError):  # a disk that is only read: what is missing is told
        restore_folder(Path(folder))


@contextmanager
def written_whole(folder: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """A temporary folder beside `folder` that takes its place when the block ends without an error.

    An interruption leaves the earlier folder as it was, or so that the next one who writes or reads it puts it back.

    Raises:
        CheckpointError: `folder` exists and `overwrite` is false, or it is not one of ours, or no folder can be made
            there, or it does not fit on the disk.
    """
    require_free(folder, overwrite=overwrite)
    with ExitStack() as stack:
        try:
            made = stack.enter_context(replaced_folder(Path(folder)))
        except OSError as error:
            raise CheckpointError(f"No folder can be made at '{folder}': {error}. Choose another place.") from error
        try:
            yield made
            stack.close()
        except Exception as error:
            if not is_of_the_system(error):
                raise
            raise CheckpointError(
                f"'{folder}' could not be written ({_free_space(made)}): {str(error).rstrip('.')}. "
                f"{'The earlier folder is as it was' if Path(folder).exists() else 'Nothing is left of it'}."
            ) from error


def is_of_the_system(error: Exception) -> bool:
    """Whether an exception while files are written is the system's, such as for a full disk: safetensors and torch
    wrap those, and tokenizers raises them as bare exceptions."""
    from safetensors import SafetensorError

    torch_s = isinstance(error, RuntimeError) and ("PytorchStreamWriter" in str(error) or "iostream" in str(error))
    return isinstance(error, OSError | SafetensorError) or type(error) is Exception or torch_s


def _free_space(folder: Path) -> str:
    above = next(each for each in folder.parents if each.exists())
    return f"{shutil.disk_usage(above).free / 1e9:.1f} GB are free there"


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: the file is missing or damaged, or holds numbers that are not finite.
    """
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"Expected weights at '{path}', found nothing. Is the folder complete?")
    with refusing(CheckpointError, f"'{path}' cannot be read"):
        weights = load_file(path)
    require_finite(weights, source=path)
    return weights


def hollow_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file without their values: its header alone is read.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import _TYPES

    if not path.is_file():
        raise CheckpointError(f"Expected weights at '{path}', found nothing. Is the folder complete?")
    with refusing(CheckpointError, f"'{path}' cannot be read"), safe_open(path, framework="pt") as opened:
        slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118  # not a mapping
        return {
            key: torch.empty(each.get_shape(), dtype=_TYPES[each.get_dtype()], device="meta")
            for key, each in slices.items()
        }


def require_finite(weights: Mapping[str, Any], *, source: Path) -> None:
    """Refuse weights that would make every answer nothing.

    Raises:
        CheckpointError: names the first that has a number which is not finite.
    """
    for name, tensor in weights.items():
        is_narrow = tensor.dtype.itemsize == 1  # such types are refused by what reads them
        if tensor.is_floating_point() and not is_narrow and not tensor.isfinite().all():
            raise CheckpointError(
                f"'{source}' holds numbers that are not finite (NaN or infinite) in {shown(name)}. Did its training "
                "diverge? Take an earlier one."
            )


def require_same_tensors(got: Mapping[str, Any], expected: Mapping[str, Any], *, source: Path) -> None:
    """Refuse weights whose keys or shapes are not exactly those of the module they are for.

    Floating point of another width is taken, and becomes the module's own.

    Raises:
        CheckpointError: names the missing and the unexpected keys, or the shapes or types that differ.
    """
    missing, extra = sorted(set(expected) - set(got)), sorted(set(got) - set(expected))
    if missing or extra:
        raise CheckpointError(f"'{source}' does not fit: missing keys {some(missing)}, unexpected {some(extra)}.")
    for key, tensor in expected.items():
        if tensor.shape != got[key].shape:
            raise CheckpointError(
                f"'{source}' does not fit: '{key}' is {tuple(got[key].shape)}, expected {tuple(tensor.shape)}. "
                "Was it made for another backbone?"
            )
        floats = tensor.is_floating_point() and got[key].is_floating_point() and got[key].dtype.itemsize > 1
        if got[key].dtype != tensor.dtype and not floats:
            raise CheckpointError(
                f"'{source}' does not fit: '{key}' is of {got[key].dtype}, expected {tensor.dtype}, or another type of "
                "floating point of 16 bits or more where that is one."
            )


def require_no_missing(missing: Iterable[str], *, source: str | os.PathLike[str]) -> None:
    """Refuse a backbone of which weights are missing.

    Raises:
        CheckpointError: names them.
    """
    keys = sorted(missing)
    if keys:
        raise CheckpointError(f"The backbone in '{source}' is incomplete: missing keys {some(keys)}.")


def require_no_others(
    others: Iterable[str], *, source: str | os.PathLike[str], layout: AdapterLayout | None = None
) -> None:
    """Refuse a backbone's checkpoint that holds more than the backbone.

    Args:
        others: keys of the weights that are not the backbone's.
        source: the checkpoint.
        layout: how checkpoints of its model type hold an adapter, where they do.

    Raises:
        CheckpointError: names what is left over.
    """
    keys = sorted(others)
    if not keys:
        return
    official = layout is not None and any(key.startswith(layout.prefix) for key in keys)
    hint = (
        f"Import it: pixelrefer import-official {source} OUT." if official else "Is it a checkpoint of another model?"
    )
    raise CheckpointError(f"'{source}' holds more than a backbone: unexpected keys {some(keys)}. {hint}")


def some(keys: list[str]) -> str:
    """The first few of many names, for a message."""
    shown = ", ".join(keys[:4]) or "none"
    return shown if len(keys) <= 4 else f"{shown} and {len(keys) - 4} more"


def portable_backbone_id(name_or_path: str) -> str:
    """How a folder names its backbone: a path inside this package becomes `builtin:NAME`."""
    path = Path(name_or_path)
    if name_or_path and path.resolve().parent == _BUILTIN_ROOT.resolve():
        return BUILTIN_PREFIX + path.name
    return str(path.resolve()) if name_or_path and path.is_dir() else name_or_path


def locate_backbone(backbone_id: str, folder: Path) -> str:
    """The path or hub id to load the backbone of `folder` from.

    Raises:
        CheckpointError: the folder does not know, or names a builtin that this version does not ship.
    """
    if not backbone_id:
        raise CheckpointError(
            f"'{folder}' does not say where its backbone is. Pass backbone=<path, id or model>, on the command line "
            "--backbone."
        )
    if backbone_id == BACKBONE_FOLDER:
        return str(folder / BACKBONE_FOLDER)
    return resolved(backbone_id)


def resolved(name_or_path: str | os.PathLike[str]) -> str:
    """A backbone's path or hub id, with `builtin:NAME` as the path inside this package.

    Raises:
        CheckpointError: this version ships no such builtin.
    """
    name = os.fspath(name_or_path)
    if not name.startswith(BUILTIN_PREFIX):
        return name
    path = _BUILTIN_ROOT / name.removeprefix(BUILTIN_PREFIX)
    if not path.is_dir():
        raise CheckpointError(f"This pixelrefer-plugin ships no backbone '{name}'.")
    return str(path)
