"""Chat templates of native processors, rendered with bounds: whoever wrote a model folder wrote its template too.

transformers renders them in a sandbox, where they reach nothing and may still go on for ever. Here their steps are
counted, what grows is measured, and what takes memory in one step is refused before.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from types import FrameType
from typing import Any

from ..contracts.messages import PLACEHOLDER
from ..errors import PromptError, refusing

_STEPS, _STEPS_A_PART = 50_000, 5_000
_MEASURED_EVERY = 4  # steps: a text that doubles in each is then 16 times as long, at most
_CHARACTERS = 2**20
_LARGEST_INTEGER = 10**6
_WIDE = re.compile(r"%[-+ #0]*\d{4,}|\{[^{}]*:[^{}]*\d{4,}")
_THINKING = "enable_thinking"  # what the templates of Qwen, GLM and Gemma call the choice
_COMPILED = "<template>"  # what jinja calls the file of a template's code


def render(native: Any, messages: Sequence[Mapping[str, Any]], *, add_generation_prompt: bool) -> str:
    """The text that a native processor's chat template makes of messages.

    Where a template lets one choose whether the answer is thought about first, it is not: answers are learnt without
    thoughts, and asked for as they were learnt.

    Raises:
        PromptError: it cannot be rendered, or goes beyond the bounds.
    """
    sources = _sources(native)
    for template in sources:
        if problem := _problem(template):
            raise PromptError(f"The backbone's own chat template is not rendered: {problem}.")
    parts = [part for message in messages for part in message["content"]]
    texts = sum(len(part["text"]) for part in parts if isinstance(part, Mapping) and part.get("type") == "text")
    with (
        refusing(PromptError, "The backbone's own chat template cannot be rendered"),
        _bounded(_STEPS + _STEPS_A_PART * (len(messages) + len(parts)), _CHARACTERS + 8 * texts),
    ):
        chosen = {_THINKING: False} if any(_THINKING in source for source in sources) else {}
        text: str = native.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tokenize=False, **chosen
        )
        return text


def space_before_answers(native: Any) -> str:
    """The white space that a native processor's chat template writes before an answer, and does not end a prompt with.

    Where a prompt ends with `Assistant:` and an answer reads `Assistant: yes`, it is the answer that begins with a
    space. Empty where a prompt ends as an answer begins, or where the template cannot tell.
    """
    asked = {"role": "user", "content": [{"type": "text", "text": "?"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": PLACEHOLDER}]}
    try:
        prompt = render(native, [asked], add_generation_prompt=True)
        answered = render(native, [asked, answer], add_generation_prompt=False)
    except PromptError:
        return ""
    before = answered.removeprefix(prompt).partition(PLACEHOLDER)[0]
    return before if before.isspace() and answered.startswith(prompt) else ""


def _sources(native: Any) -> list[str]:
    given = getattr(native, "chat_template", None) or getattr(native.tokenizer, "chat_template", None)
    found = given.values() if isinstance(given, Mapping) else [given]
    return [each for each in found if isinstance(each, str)]


@lru_cache(maxsize=32)
def _problem(template: str) -> str:
    """What in a template would take memory in a single step; empty where nothing does."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012  # as jinja has it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body).set_lineno(line)

    try:
        tree = ImmutableSandboxedEnvironment(extensions=[Generation, loopcontrols]).parse(template)
    except (TemplateError, RecursionError, ValueError):
        return ""  # whoever renders it tells
    node: Any
    for node in tree.find_all((nodes.Pow, nodes.Mul, nodes.Const)):
        if isinstance(node, nodes.Pow):
            return f"line {node.lineno} raises a number to a power"
        if isinstance(node, nodes.Mul):
            factors = [each.value for each in (node.left, node.right) if isinstance(each, nodes.Const)]
            if not any(isinstance(each, int | float) and abs(each) <= 1000 for each in factors):
                return f"line {node.lineno} multiplies by what may be large"
        elif isinstance(node.value, int) and abs(node.value) > _LARGEST_INTEGER:
            return f"line {node.lineno} has a number above {_LARGEST_INTEGER:,}"
        elif isinstance(node.value, str) and _WIDE.search(node.value):
            return f"line {node.lineno} formats to a width of four digits or more"
    return ""


@contextmanager
def _bounded(most_steps: int, most_characters: int) -> Iterator[None]:
    """Within this context, templates' code takes so many steps, and makes no longer texts and lists than that.

    Python tells one observer in a thread of its steps. Where a debugger is that, templates have no bounds.
    """
    if sys.gettrace() is not None:
        yield
        return
    steps = 0

    def see_step(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps > most_steps:
            raise PromptError(f"The backbone's own chat template goes on after {most_steps:,} steps. Is it endless?")
        if steps % _MEASURED_EVERY == 0 and any(_length(each) > most_characters for each in frame.f_locals.values()):
            raise PromptError(
                f"The backbone's own chat template makes a text of more than {most_characters:,} characters. Is it "
                "endless?"
            )
        return see_step

    def see_call(frame: FrameType, event: str, arg: Any) -> Any:
        return see_step(frame, event, arg) if frame.f_code.co_filename == _COMPILED else None

    sys.settrace(see_call)
    try:
        yield
    finally:
        sys.settrace(None)


def _length(value: Any) -> int:
    """Of a text or list; of a template's namespace that of the longest in it."""
    if isinstance(value, str | list | tuple):
        return len(value)
    if not type(value).__name__.endswith("Namespace"):
        return 0
    held = [value if isinstance(value, dict) else {}]
    with suppress(AttributeError):
        held.append(object.__getattribute__(value, "__dict__"))
    held += [each for own in held for each in own.values() if isinstance(each, dict)]
    return max((len(each) for own in held for each in own.values() if isinstance(each, str | list | tuple)), default=0)
