"""`Judge`: its name, what it said before, and the address where it is asked for the rest."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from ...contracts.benchmark import JudgeRequest
from ...errors import JudgeError, counted, shown
from .answers import JudgeAnswers, key_of, without_pictures
from .asking import in_threads
from .server import Fault, JudgeServer, Reply

Progress = Callable[[int, int], None]
"""Is called with how many of how many requests have been answered."""

OnMissing = Literal["refuse", "unread"]
ASKED = "asked"
"""Origin of an answer that the judge itself gave."""

_MOST_FAULTS_IN_A_ROW = 5
_MOST_TOLD = 3


@dataclass(frozen=True)
class _Asked:
    """A request with its key, and as the file has it."""

    request: JudgeRequest
    key: str
    record: dict[str, Any]


class Judge:
    """A judge of answers, under the name that every figure of its opinion carries.

    Args:
        name: of the judge.
        server: where it is asked; None: only what it said before is there.
        answers: what it said before; by default nothing, and new answers are kept in memory alone.
        on_missing: what becomes of requests that the server does not answer: `refuse` raises, with the number of them;
            `unread` gives them an empty answer, which benchmarks list as one that cannot be read.
        progress: is told how far it is.

    Raises:
        JudgeError: there is no name, or `on_missing` is no such word.
    """

    def __init__(
        self,
        name: str,
        *,
        server: JudgeServer | None = None,
        answers: JudgeAnswers | None = None,
        on_missing: OnMissing = "refuse",
        progress: Progress | None = None,
    ) -> None:
        if not name:
            raise JudgeError("A judge needs a name, which stands beside every figure: give --judge-model.")
        if on_missing not in get_args(OnMissing):
            raise JudgeError(f"on_missing must be refuse or unread, got {shown(on_missing)}.")
        self.name = name
        self.server = server
        self.answers = JudgeAnswers() if answers is None else answers
        self.on_missing = on_missing
        self.progress = progress

    @classmethod
    def open(
        cls,
        model: str,
        *,
        url: str | None = None,
        name: str | None = None,
        cache: str | os.PathLike[str] | None = None,
        on_missing: OnMissing = "refuse",
        progress: Progress | None = None,
        **server: Any,
    ) -> Self:
        """A judge as users name it.

        Args:
            model: name of the model at the address.
            url: the address; None: nobody is asked.
            name: what figures call the judge; by default the model's name.
            cache: file of its answers.
            on_missing: see `Judge`.
            progress: see `Judge`.
            **server: the rest of `JudgeServer`.

        Raises:
            JudgeError: a value that cannot be used.
            DataError: the file of answers cannot be read, or is something else.
        """
        return cls(
            name or model,
            server=None if url is None else JudgeServer(url=url, model=model, **server),
            answers=JudgeAnswers(cache),
            on_missing=on_missing,
            progress=progress,
        )

    def ask(self, requests: Sequence[JudgeRequest]) -> list[str]:
        """The answer to each request. What was said before is not asked again, nor is the same request twice.

        Raises:
            JudgeError: answers are missing. Those that came are kept.
        """
        asked = [self._asked(request) for request in requests]
        different = {each.key: each for each in asked}
        missing = [each for each in different.values() if each.key not in self.answers]
        unanswered: set[str] = set()
        if missing and self.server is None:
            raise JudgeError(self._nobody_to_ask(len(missing), len(different)))
        if missing and self.server is not None:
            unanswered = self._fetch(missing, self.server, len(different))
        return ["" if each.key in unanswered else self.answers.text(each.key) for each in asked]

    def origins(self, requests: Iterable[JudgeRequest]) -> dict[str, int]:
        """How many of the answers to some requests are from where, such as `asked`."""
        counts: dict[str, int] = {}
        for key in (self._asked(request).key for request in requests):
            if key in self.answers:
                origin = self.answers.origin(key)
                counts[origin] = counts.get(origin, 0) + 1
        return counts

    def import_answers(self, judged: Iterable[tuple[JudgeRequest, str]], *, origin: str) -> int:
        """Keep answers that were published, as if this judge had given them here; returns how many.

        Args:
            judged: each request with its answer.
            origin: where they are from, such as the name of a file.

        Raises:
            DataError: the file of answers cannot be written.
        """
        count = 0
        for request, answer in judged:
            each = self._asked(request)
            self.answers.add(each.key, answer, origin=origin, request=each.record)
            count += 1
        return count

    def _asked(self, request: JudgeRequest) -> _Asked:
        options = dict(request.options) if self.server is None else self.server.options_of(request)
        messages = without_pictures(request.messages)
        record = {"judge": self.name, "id": request.id, "part": request.part, "messages": messages, "options": options}
        return _Asked(request, key_of(self.name, messages, options), record)

    def _fetch(self, missing: Sequence[_Asked], server: JudgeServer, total: int) -> set[str]:
        """Ask, and keep what comes; returns the keys of what did not, where that is allowed."""
        faults: dict[str, Fault] = {}
        left, in_a_row = len(missing), 0
        with closing(self._replies(missing, server)) as replies:
            for each, reply in replies:
                if isinstance(reply, Reply):
                    left, in_a_row = left - 1, 0
                    continue
                faults[each.key], in_a_row = reply, in_a_row + 1
                if reply.for_all or in_a_row >= _MOST_FAULTS_IN_A_ROW:
                    raise JudgeError(self._stopped(missing, faults, left, total)) from reply
        if faults and self.on_missing == "refuse":
            raise JudgeError(self._stopped(missing, faults, left, total))
        return set(faults)

    def _replies(
        self, missing: Sequence[_Asked], server: JudgeServer
    ) -> Generator[tuple[_Asked, Reply | Fault], None, None]:
        with server.asking() as ask, closing(in_threads(self._kept(ask), missing, server.at_once)) as results:
            for done, (position, reply) in enumerate(results, 1):
                if isinstance(reply, Exception) and not isinstance(reply, Fault):
                    raise reply
                yield missing[position], reply
                if self.progress is not None:
                    self.progress(done, len(missing))

    def _kept(self, ask: Callable[[JudgeRequest], Reply]) -> Callable[[_Asked], Reply]:
        """Asks, and keeps the reply before the same thread asks on: what ends the process costs what is on its way."""

        def answer(each: _Asked) -> Reply:
            reply = ask(each.request)
            self.answers.add(each.key, reply.text, origin=ASKED, request=each.record, note=reply.note)
            return reply

        return answer

    def _nobody_to_ask(self, missing: int, total: int) -> str:
        return (
            f"{missing:,} of {counted(total, 'answer')} of judge '{self.name}' are missing, and there is nobody to "
            "ask. Give --judge-url and --judge-model, or import answers that were published."
        )

    def _stopped(self, missing: Sequence[_Asked], faults: Mapping[str, Fault], left: int, total: int) -> str:
        unanswered = [each for each in missing if each.key in faults][-_MOST_TOLD:]
        told = "; ".join(
            f"question {shown(each.request.id)}, {each.request.part}: {faults[each.key].message.rstrip('.')}"
            for each in unanswered
        )
        kept = (
            f"The others are kept in '{self.answers.path}': once that is mended, the same command asks for the missing "
            "ones alone."
            if self.answers.path
            else "With --judge-cache FILE those that come are kept."
        )
        whose = f"judge '{self.name}' at {self.server}"
        return f"{left:,} of {counted(total, 'answer')} of {whose} are missing: {told}. {kept}"
