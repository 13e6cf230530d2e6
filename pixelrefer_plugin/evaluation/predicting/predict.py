"""`predict`: the answers of a model to the questions of data files, for Python users. It knows how the parts fit."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ...contracts.questions import Question
from ...data.dataset import RegionDataset
from ...errors import EvaluationError, shown
from ..asking.engine import ModelEngine
from ..asking.question_file import Asking, FileQuestions, data_files, open_files
from ..asking.shares import ready_to_answer
from .answering import Prediction, answer_questions
from .fingerprints import digest_of_model, digest_of_path
from .progress import Progress, Silent, on_stderr

if TYPE_CHECKING:
    from ...model import RegionModel
    from ...processor import RegionProcessor

Path = str | os.PathLike[str]
Data = Path | RegionDataset | Sequence[Path] | Sequence[Question]
"""Data files and folders of such; a dataset; or questions."""


def predict(
    model: RegionModel,
    processor: RegionProcessor,
    data: Data,
    out: Path,
    *,
    prompt: str | None = None,
    segment: bool = False,
    format: str = "auto",
    options: Mapping[str, Any] | None = None,
    media_root: Path | None = None,
    strict_media: bool = False,
    limit: int | None = None,
    max_new_tokens: int = 128,
    batch_size: int = 8,
    on_bad_sample: Literal["error", "skip"] = "error",
    overwrite: bool = False,
    progress: Progress | bool = False,
) -> Prediction:
    """Answer the questions of data files, greedily, and write a line of JSON for each.

        model, processor = load("runs/street/model", dtype="bfloat16")
        predict(model.to("cuda"), processor, ["street.jsonl"], "answers.jsonl", progress=True)

    What is answered is kept, whatever ends this: another call goes on from there. Where several processes were started
    by `accelerate launch` or `torchrun`, each answers a share. See docs/predict.md for the lines.

    Args:
        model: a copy of it in each process.
        processor: its processor; how it samples videos counts.
        data: data files, or folders of such; a dataset; or questions with unique ids. A sample's questions are those
            that it has answers to, with its own answers before them, and one at its end that has no answer.
        out: the file of answers, in a folder that all processes share.
        prompt: a text with one `<region>`, asked about each region of each sample in place of the file's questions.
        segment: ask for masks with every question, not only where the file's answer has some.
        format: of the files, `auto` or a name; `options`, `media_root` and `strict_media` as for `RegionDataset.open`.
        options: of the format.
        media_root: folder that relative media paths are below.
        strict_media: refuse samples whose media lie elsewhere.
        limit: so many samples at most, the first.
        max_new_tokens: of an answer.
        batch_size: questions asked at once. More are faster until memory is full; then batches are halved.
        on_bad_sample: stop at a sample that cannot be used, or note it in its line as `failure` and go on.
        overwrite: replace answers of another model, of other data or settings, and a file that is complete.
        progress: show a bar or lines on stderr, or what is told instead.

    Raises:
        DataError: a file cannot be read.
        EvaluationError: there is no question, or `out` is in use or has other answers.
        PixelReferError: a question cannot be asked.
    """
    asking = Asking(prompt, segment)
    questions, names = _questions(
        data,
        asking,
        reading={"format": format, "options": options, "media_root": media_root, "strict_media": strict_media},
        counting={"on_bad_sample": on_bad_sample, "limit": limit},
    )
    fingerprint = {
        "model": digest_of_model(model),
        "adapter": f"{model.adapter_spec.name} {model.adapter_config}",
        "data": names,
        "prompt": prompt,
        "segment": segment,
        "format": f"{format} {dict(options or {})}",
        "limit": limit,
        "sampling": str(processor.sampling),
        "max_new_tokens": max_new_tokens,
    }
    with ready_to_answer(model):
        return answer_questions(
            ModelEngine(model, processor, max_new_tokens=max_new_tokens),
            questions,
            out,
            batch_size=batch_size,
            fingerprint=fingerprint,
            on_bad_sample=on_bad_sample,
            overwrite=overwrite,
            progress=(on_stderr() if progress else Silent()) if isinstance(progress, bool) else progress,
        )


def _questions(
    data: Data, asking: Asking, *, reading: Mapping[str, Any], counting: Mapping[str, Any]
) -> tuple[Sequence[Question], list[str]]:
    """What is asked, and what tells it from other data."""
    if isinstance(data, str | os.PathLike):
        data = [data]
    if isinstance(data, Sequence) and data and all(isinstance(each, str | os.PathLike) for each in data):
        files = data_files(data)  # type: ignore[arg-type]  # each is a path
        datasets = open_files(files, use=asking.use, **reading)
        return FileQuestions(datasets, asking, **counting), [f"{each.name} {digest_of_path(each)}" for each in files]
    if isinstance(data, Sequence) and data and isinstance(data[0], Question):
        if asking != Asking():
            raise EvaluationError(
                "prompt and segment are for files and datasets: questions themselves say what is asked."
            )
        return data, ["questions"]  # type: ignore[return-value]  # they are, the first tells
    if isinstance(data, RegionDataset):
        return FileQuestions([data], asking, **counting), [data.name]
    raise EvaluationError(f"data must be paths, a RegionDataset, or questions; one or more; got {shown(data)}.")
