"""The options of commands that score: a judge, answers that it has given, and the sentence encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import shown
from .options import POSITIVE, FunctionT, setting_option
from .values import COUNT, TEXT, WRITTEN, path_problem

if TYPE_CHECKING:
    from ..evaluation.judging.judge import OnMissing
    from ..evaluation.scoring.measuring import Scorer

_TOLD_EVERY = 20  # of the answers of a judge, how many parts of them are told


@dataclass(frozen=True)
class NamedFile:
    """A path that may have a name before it, `NAME=PATH`."""

    name: str
    path: Path


class NamedFileType(click.ParamType[NamedFile]):
    """Reads `NAME=PATH`, or a path alone. A file that is called so, with its `=`, is a path."""

    name = "file"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> NamedFile:
        """Check `value`."""
        name, equals, path = value.partition("=")
        found = (
            NamedFile(name, Path(path)) if equals and name and not Path(value).exists() else NamedFile("", Path(value))
        )
        problem = path_problem(str(found.path), reads=True)
        if not problem and not found.path.exists():
            problem = f"There is no {shown(str(found.path))}."
        if problem:
            self.fail(problem, param, ctx)
        return found


NAMED_FILE = NamedFileType()


def judge_options(command: FunctionT) -> FunctionT:
    """Adds the options of a judge and of the sentence encoder."""
    options: list[Callable[[FunctionT], FunctionT]] = [
        click.option("--judge-url", metavar="URL", type=TEXT, help="OpenAI-compatible address of a judge."),
        click.option("--judge-model", metavar="NAME", type=TEXT, help="The judge's model; figures carry its name."),
        click.option(
            "--judge-key-env",
            metavar="VARIABLE",
            type=TEXT,
            help="Environment variable with the judge's key. [default: OPENAI_API_KEY]",
        ),
        click.option(
            "--judge-missing",
            type=click.Choice(["refuse", "unread"]),
            default="refuse",
            show_default=True,
            help="Where the judge does not answer: stop, or list the answer as one that cannot be read.",
        ),
        click.option("--judge-timeout", metavar="SECONDS", type=POSITIVE, help="Longest wait for an answer."),
        click.option("--judge-at-once", metavar="N", type=COUNT, help="Requests that are on their way at once."),
        setting_option("--judge-option", "judge_settings", help="Of each request, such as temperature=0."),
        click.option(
            "--judge-cache",
            metavar="FILE",
            type=WRITTEN,
            help="What the judge has said, and will. [default: judge.jsonl in --out]",
        ),
        click.option(
            "--judged",
            metavar="[FORMAT=]FILE",
            type=NAMED_FILE,
            multiple=True,
            help="Published answers of a judge to take instead of asking; --judge-model says whose.",
        ),
        click.option("--sentences", metavar="DIR_OR_ID", type=TEXT, help="Sentence encoder, for SSim."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def open_scorer(
    *,
    judge_url: str | None,
    judge_model: str | None,
    judge_key_env: str | None,
    judge_missing: OnMissing,
    judge_timeout: float | None,
    judge_at_once: int | None,
    judge_settings: tuple[tuple[str, Any], ...],
    judge_cache: Path | None,
    judged: tuple[NamedFile, ...],
    sentences: str | None,
) -> Scorer:
    """What the options name."""
    from ..evaluation.judging import Judge, ScoringTools
    from ..evaluation.scoring.measuring import JudgedFile, Scorer

    needy = {"--judge-url": judge_url, "--judge-key-env": judge_key_env, "--judged": judged}
    if judge_model is None and (given := [name for name, value in needy.items() if value]):
        raise click.UsageError(f"{given[0]} needs --judge-model, the name that figures carry.")
    judge = None
    if judge_model is not None:
        server = {
            "key_variable": judge_key_env,
            "options": dict(judge_settings),
            "timeout_s": judge_timeout,
            "at_once": judge_at_once,
        }
        of_server: dict[str, Any] = {name: value for name, value in server.items() if value is not None}
        judge = Judge.open(
            judge_model,
            url=judge_url,
            cache=judge_cache,
            on_missing=judge_missing,
            progress=_tell_progress,
            **(of_server if judge_url else {}),
        )
    files = [JudgedFile(file.path, file.name) for file in judged]
    return Scorer(judge=judge, tools=ScoringTools(judge, sentences), judged=files)


def _tell_progress(done: int, total: int) -> None:
    if done == total or done * _TOLD_EVERY // total > (done - 1) * _TOLD_EVERY // total:
        click.echo(f"judge: {done:,} of {total:,} answers", err=True)
