"""A judge behind an OpenAI-compatible address: one request, one reply, with limits on time, size and tries.

It knows no cache and no benchmark. A key is read from the environment, sent, and nowhere else: not shown, not stored.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from ...contracts.benchmark import JudgeRequest
from ...errors import EvaluationError, JudgeError, shown, text_of

if TYPE_CHECKING:
    import openai

KEY_VARIABLE = "OPENAI_API_KEY"
MOST_CHARACTERS = 20_000
"""Of an answer; what is longer is cut."""
MOST_BYTES = 8 * 2**20
"""Of a reply."""

_LONGEST_PAUSE_S = 60.0
_RESERVED = ("model", "messages", "stream", "n")
_SECRETS = ("key", "token", "authorization", "password", "headers")  # in names of options; `max_tokens` is none


@dataclass(frozen=True)
class Reply:
    """What a judge said.

    Attributes:
        text: of its answer; empty where it gave none.
        note: what is odd about the answer, such as that it was cut; may be empty.
    """

    text: str
    note: str = ""


class Fault(JudgeError):
    """A request without an answer.

    Attributes:
        again: whether another try may help.
        for_all: whether every other request would have it too.
        pause_s: how long the server asks to wait; None where it does not say.
    """

    def __init__(self, message: str, again: bool = False, for_all: bool = False, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.again, self.for_all, self.pause_s = again, for_all, pause_s


@dataclass(frozen=True, kw_only=True)
class JudgeServer:
    """An OpenAI-compatible address.

    Attributes:
        url: up to `/v1`, such as `http://localhost:8000/v1`.
        model: its name there.
        key_variable: environment variable that holds the key; None: `OPENAI_API_KEY` where it is set. Many servers
            need none.
        timeout_s: that a reply may take.
        tries: of a request; between two of them lie pauses that double.
        pause_s: the first pause.
        at_once: requests that are on their way together.
        options: of every request, over its own: `temperature`, `max_tokens`, ...; None leaves one out.

    Raises:
        JudgeError: a value that cannot be used, or a key that is asked for and not there.
    """

    url: str
    model: str
    key_variable: str | None = None
    timeout_s: float = 120.0
    tries: int = 4
    pause_s: float = 1.0
    at_once: int = 8
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise JudgeError(
                f"The address of a judge must be a URL such as http://localhost:8000/v1, got {shown(self.url)}."
            )
        object.__setattr__(self, "url", self.url.rstrip("/").removesuffix("/chat/completions"))
        if not self.model:
            raise JudgeError("A judge's address needs the name of its model there: give --judge-model.")
        for name, least in (("timeout_s", 0.001), ("tries", 1), ("at_once", 1)):
            if not getattr(self, name) >= least:
                raise JudgeError(f"{name} of a judge must be at least {least}, got {shown(getattr(self, name))}.")
        if reserved := [name for name in self.options if name in _RESERVED]:
            raise JudgeError(f"Requests to a judge have their own {reserved[0]}: leave it out of the options.")
        if secret := next((name for name in self.options if set(_SECRETS) & {*re.split(r"[\W_]", name.lower())}), ""):
            raise JudgeError(
                f"An option of a judge must be no secret, for options are kept with its answers, got {shown(secret)}. "
                f"Put the key into the environment variable {self.key_variable or KEY_VARIABLE}."
            )
        _key(self.key_variable)

    def __str__(self) -> str:
        """The address, without a password and a query that it may have."""
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))

    def options_of(self, request: JudgeRequest) -> dict[str, Any]:
        """The options that a request is sent with."""
        merged = {**request.options, **self.options}
        return {name: value for name, value in merged.items() if value is not None}

    @contextmanager
    def asking(self) -> Iterator[Callable[[JudgeRequest], Reply]]:
        """A function that gives the reply to a request, after so many tries as it takes, or raises a `Fault`. It may
        be called from several threads.

        Raises:
            EvaluationError: the package openai is not installed.
        """
        try:
            import openai
        except ImportError as error:
            raise EvaluationError(
                "A judge is asked by the package openai, which is not installed: "
                f"pip install 'pixelrefer-plugin[eval]' ({text_of(error)})."
            ) from error
        key = _key(self.key_variable) or "none"  # the package wants one, many servers do not
        with openai.OpenAI(base_url=self.url, api_key=key, timeout=self.timeout_s, max_retries=0) as client:
            yield lambda request: self._ask(client, request)

    def _ask(self, client: openai.OpenAI, request: JudgeRequest) -> Reply:
        for number in range(self.tries):
            try:
                return self._try(client, request)
            except Fault as fault:
                if not fault.again or number == self.tries - 1:
                    raise
                pause_s = self.pause_s * 2**number if fault.pause_s is None else fault.pause_s
            time.sleep(min(pause_s, _LONGEST_PAUSE_S))
        raise AssertionError("tries >= 1")

    def _try(self, client: openai.OpenAI, request: JudgeRequest) -> Reply:
        with self._explained():
            completions = client.chat.completions.with_streaming_response
            extra = self.options_of(request)
            with completions.create(model=self.model, messages=list(request.messages), extra_body=extra) as response:  # type: ignore[arg-type]
                body = self._body(response)
        return read_reply(self._without_key(body))

    def _body(self, response: Any) -> str:
        """The text of a reply, which may not take longer or be larger than allowed."""
        until, read, pieces = time.monotonic() + self.timeout_s, bytearray(), response.iter_bytes()
        while piece := _next(pieces):
            read += piece
            if len(read) > MOST_BYTES:
                raise Fault(f"its reply is larger than {MOST_BYTES // 2**20} MiB")
            if time.monotonic() > until:
                raise Fault(f"its reply took longer than {self.timeout_s:g} s", again=True)
        return read.decode("utf-8", "replace")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """What the package raises, as a `Fault`."""
        import openai

        try:
            yield
        except openai.APITimeoutError as error:
            raise Fault(f"it did not answer within {self.timeout_s:g} s", again=True) from error
        except openai.APIConnectionError as error:
            why = text_of(error.__cause__ or error)
            raise Fault(f"it cannot be reached ({why})", again=True, for_all=True) from error
        except openai.APIStatusError as error:
            raise self._status_fault(error) from error
        except openai.OpenAIError as error:
            raise Fault(f"{type(error).__name__}: {text_of(error)}", again=True) from error
        except UnicodeEncodeError as error:
            raise Fault(f"the request holds half a character: {text_of(error)}") from error

    def _status_fault(self, error: openai.APIStatusError) -> Fault:
        status, said = error.status_code, shown(self._without_key(_body_of(error)), 200)
        variable = self.key_variable or KEY_VARIABLE
        if status in (401, 403):
            return Fault(f"it refuses the key (HTTP {status}): set {variable} in the environment. {said}", for_all=True)
        if status == 404:
            return Fault(
                f"it has no model {shown(self.model)}, or no chat completions at this address (HTTP 404). {said}",
                for_all=True,
            )
        again = status in (408, 409, 429) or status >= 500
        return Fault(f"HTTP {status}: {said}", again=again, pause_s=_seconds(error.response.headers.get("retry-after")))

    def _without_key(self, text: str) -> str:
        """A text of the server, which may repeat the key."""
        key = _key(self.key_variable)
        return text.replace(key, "***") if key else text


def _next(pieces: Iterator[bytes]) -> bytes:
    """The next piece of a reply; empty at its end."""
    try:
        return next(pieces, b"")
    except Exception as error:  # of the HTTP library, which is another one from version to version of openai
        raise Fault(f"its reply broke off: {type(error).__name__}: {text_of(error)}", again=True) from error


def _key(variable: str | None) -> str:
    """The key; empty where there is none."""
    key = os.environ.get(variable or KEY_VARIABLE, "").strip()
    if variable and not key:
        raise JudgeError(f"The environment variable {shown(variable)}, which shall hold the judge's key, is not set.")
    if not key.isascii() or any(each.isspace() or not each.isprintable() for each in key):
        raise JudgeError(f"The environment variable {variable or KEY_VARIABLE} holds no key: a key has no spaces.")
    return key


def _seconds(text: str | None) -> float | None:
    try:
        return max(0.0, float(text)) if text else None
    except ValueError:  # a date
        return None


def _body_of(error: openai.APIStatusError) -> str:
    """What a server says of its refusal: the message in its JSON, or the beginning of its text."""
    body = error.body
    said = body.get("message") if isinstance(body, Mapping) else body
    return text_of(said if said else error.message)


def read_reply(body: str) -> Reply:
    """The answer in the body of a reply, which may be any text.

    Raises:
        Fault: it is no chat completion, or its answer is no text.
    """
    try:
        value = json.loads(body)
        message = value["choices"][0]["message"]
        content = message.get("content")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise Fault(f"its reply is no chat completion, but {shown(body)}", again=True) from error
    if isinstance(content, list):  # parts, as some servers have them
        content = "".join(part["text"] for part in content if _is_text(part))
    if content is None:
        return Reply("", note=f"an answer without text: {shown(message, 500)}")
    if not isinstance(content, str):
        raise Fault(f"the content of its answer is no text, but {shown(content)}", again=True)
    text = content.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # no halves of characters
    if len(text) > MOST_CHARACTERS:
        return Reply(text[:MOST_CHARACTERS], note=f"cut at {MOST_CHARACTERS:,} of {len(text):,} characters")
    return Reply(text)


def _is_text(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)
