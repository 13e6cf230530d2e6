"""A benchmark's contract: where its official files are, what is asked, how answers are scored. It knows no model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from ..errors import PixelReferError
from .checks import (
    require_callables,
    require_config,
    require_finite,
    require_functions,
    require_items,
    require_kinds,
    require_known,
    require_name,
)
from .options import make_config

if TYPE_CHECKING:
    import numpy as np

    from .figures import Scores
    from .questions import Answer, Question

Need = Literal["masks", "judge", "java", "sentences"]
"""What a benchmark cannot do without: a model that gives masks; a judge or its answers; Java; a sentence encoder."""


@dataclass(frozen=True)
class BenchmarkFile:
    """A file or folder that a benchmark reads, as it is published.

    Attributes:
        path: below the benchmark's folder.
        about: what it is and where it comes from, a sentence.
        optional: whether the benchmark can do without.
    """

    path: str
    about: str
    optional: bool = False

    def __post_init__(self) -> None:
        require_kinds(self, path=str, about=str, optional=bool)


@dataclass(frozen=True)
class PublishedFigure:
    """A figure that somebody has published, to stand beside one's own.

    Attributes:
        model: whose it is.
        figure: name of the figure, as `Figure.name`.
        value: as `Figure` has it, before scaling: 0.634 of a share.
        source: paper and table.
        judge: who judged; empty where nobody did.
    """

    model: str
    figure: str
    value: float
    source: str
    judge: str = ""

    def __post_init__(self) -> None:
        require_kinds(self, model=str, figure=str, value=(int, float), source=str, judge=str)
        require_finite(self, "value")


@dataclass(frozen=True)
class Prompt:
    """A text that a benchmark asks with, for the report.

    Attributes:
        name: what it is for, such as `question` or `judge`.
        text: the text, or the template.
        origin: `own words`, or where it was read.
    """

    name: str
    text: str
    origin: str = "own words"

    @property
    def sha256(self) -> str:
        """Of its UTF-8 bytes."""
        return hashlib.sha256(self.text.encode()).hexdigest()


@dataclass(frozen=True)
class JudgeRequest:
    """A question to a judge.

    Attributes:
        id: of the question whose answer is judged.
        part: which of several requests about it, such as `recognition` or `3`.
        messages: as chat completions take them; text parts, and pictures as data URLs.
        options: of the request: `temperature`, `max_tokens`. What is left out is the server's default.
    """

    id: str
    part: str
    messages: Sequence[Mapping[str, Any]]
    options: Mapping[str, Any] = field(default_factory=dict)


class Tools(Protocol):
    """What the host lends to a benchmark while it scores."""

    @property
    def judge(self) -> str:
        """Name of the judge; empty where there is none."""
        ...

    def ask_judge(self, requests: Sequence[JudgeRequest]) -> list[str]:
        """The judge's answers, in order, from its cache where they are there; text from outside, of any shape.

        Raises:
            JudgeError: there is no judge and answers are missing; it says how many.
        """
        ...

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """`(n, width)` float32, the sentence embedding of each text, of length 1.

        Raises:
            EvaluationError: there is no sentence encoder.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class BenchmarkSpec:
    """A benchmark, as a plugin registers it.

    Attributes:
        name: what users call it.
        about: what it measures, one sentence.
        config: frozen dataclass of its options, each with a default; checks itself in `__post_init__`.
        files: what it reads, as it is published.
        open: `open(config, folder) -> Sequence[Question]`: the questions, from the files below a folder. Raises
            `DataError` that names a file, and where it comes from.
        score: `score(config, questions, answers, tools) -> Scores`; the i-th answer is to the i-th question. No text of
            an answer or of a judge makes it raise. Where an official script stops at an answer, the official figure is
            left out, and a note says at which one.
        needs: what it cannot do without, so that it is missed before an answer is made.
        max_new_tokens: of an answer.
        published: figures of others.
        prompts: `prompts(config) -> Sequence[Prompt]`: what is asked, of the model and of a judge.
        answer_formats: by name, how answers are read that other systems wrote:
            `read(config, path, questions) -> Iterable[Answer]`. The id of an answer is that of a question.
            A file that is something else is a `DataError` or `EvaluationError`, as in the next.
        judged_formats: by name, how published answers of a judge are read:
            `read(config, path, questions, answers) -> Iterable[tuple[JudgeRequest, str]]`. A file about other answers
            than these is refused: of several sets of answers it is then taken for another one.
        export: `export(config, questions, answers, folder)`: writes answers as the benchmark's server, or other code
            that scores it, wants them. The folder is there and empty.
        tiny: `tiny(folder)`: writes small files in the official layout into an empty folder, for the conformance kit.
    """

    name: str
    about: str
    config: type[Any]
    files: tuple[BenchmarkFile, ...]
    open: Callable[[Any, Path], Sequence[Question]]
    score: Callable[[Any, Sequence[Question], Sequence[Answer], Tools], Scores]
    needs: tuple[Need, ...] = ()
    max_new_tokens: int = 2048
    published: tuple[PublishedFigure, ...] = ()
    prompts: Callable[[Any], Sequence[Prompt]] | None = None
    answer_formats: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    judged_formats: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    export: Callable[[Any, Sequence[Question], Sequence[Answer], Path], None] | None = None
    tiny: Callable[[Path], None] | None = None

    def __post_init__(self) -> None:
        require_name(self)
        require_kinds(self, about=str, files=tuple, needs=tuple, max_new_tokens=int, published=tuple)
        require_config(self)
        require_callables(self, "open", "score", optional=("prompts", "export", "tiny"))
        require_kinds(self, answer_formats=Mapping, judged_formats=Mapping)
        require_items(self, files=BenchmarkFile, published=PublishedFigure)
        require_functions(self, "answer_formats")
        require_functions(self, "judged_formats")
        if self.max_new_tokens < 1:
            raise PixelReferError(
                f"BenchmarkSpec.max_new_tokens of '{self.name}' must be an integer >= 1, got {self.max_new_tokens}."
            )
        require_known(self, "needs", get_args(Need))

    def make_config(self, options: Mapping[str, Any] | Any | None = None) -> Any:
        """As `AdapterSpec.make_config`."""
        return make_config(self.config, options, owner=f"benchmark '{self.name}'")
