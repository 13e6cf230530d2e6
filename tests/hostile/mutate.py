"""Values, texts and bytes that nobody should send, and sound ones made so."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

# JSON that `json.dumps` does not write, by the text that stands for it until the rest is written.
_RAW: dict[str, str] = {
    "raw: deep list": "[" * 100_000 + "]" * 100_000,
    "raw: deep object": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "raw: open list": "[" * 5_000,
    "raw: half deep list": "[" * 950 + "]" * 950,
    "raw: long integer": "9" * 5_000,
    "raw: long fraction": "0." + "3" * 20_000,
    "raw: large exponent": "1e400",
    "raw: huge exponent": "1e999999999",
    "raw: nan": "NaN",
    "raw: minus infinity": "-Infinity",
    "raw: twice": '{"id": 1, "id": 2}',
    "raw: nothing": "",
    "raw: surrogate": '"\\ud800"',
}
_MOST_BYTES = 4_000_000  # of a file: what is large is read for long, with good reason
NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2, 7, 255, 256, 65_536, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 2**63, 2**64, -(2**63), 10**18, 10**40,
    0.0, -0.0, 0.5, 1e-320, 1e10, 1e200, -1e308, float("nan"), float("inf"), float("-inf"), True, False,
)  # fmt: skip
TEXTS: tuple[str, ...] = (
    "", " ", "a", "0", "-1", "1e400", "nan", "null", "..", ".", "/", "/dev/zero", "/dev/stdin", "/proc/self/mem",
    "../../../../etc/passwd", "~", "pipe", "file:///etc/passwd", "http://127.0.0.1:9/a.png", "data:image/png;base64,AA",
    "\\\\server\\share", "a%20b.png", "a\0b", "\n", "\x1b[2J\x07", "\u202e\u2066", "\ud800", "\U0001f697" * 50,
    "e\u0301", "<region>", "<seg>", "<image>", "<video>", "<region1>", "[1] <region>", "[99999999999]", "<|im_end|>",
    "<|region|>", "<object>", "x" * 1_000, "x" * 200_000, "{{ 7 * 7 }}", "{}", "{0.__class__}", "%s%n", "'; --",
    "__class__", "regions", "coco", "refcoco", "auto", "os.system", "*", "-", "--help", "@file", "\ufeff", "null\r",
)  # fmt: skip


def nasty(rng: random.Random, depth: int = 0) -> Any:
    """A value as JSON may hold it, or nearly."""
    pick = rng.random()
    if pick < 0.3:
        return rng.choice(NUMBERS)
    if pick < 0.6:
        return rng.choice(TEXTS)
    if pick < 0.7:
        return rng.choice(list(_RAW))
    if pick < 0.75:
        return None
    if depth > 3:
        return []
    if pick < 0.87:
        return [nasty(rng, depth + 1)] * rng.choice((0, 1, 2, 3, 4, 5, 2_000))
    return {rng.choice(TEXTS): nasty(rng, depth + 1) for _ in range(rng.randrange(4))}


def changed(rng: random.Random, value: Any) -> Any:
    """A copy of nested JSON with a few places changed."""
    tree = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        holder, key = rng.choice(places)
        _CHANGES[rng.choice(tuple(_CHANGES))](rng, holder, key, places)
    return tree[0] if tree else None


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a tree, as the container and the key or index in it."""
    waiting = [tree]
    for _ in range(2_000):
        if not waiting:
            return
        holder = waiting.pop()
        for key in list(holder) if isinstance(holder, dict) else range(min(len(holder), 50)):
            yield holder, key
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])


def _to_nasty(rng: random.Random, holder: Any, key: Any, places: Any) -> None:
    holder[key] = nasty(rng)


def _left_out(rng: random.Random, holder: Any, key: Any, places: Any) -> None:
    if isinstance(holder, dict) or len(holder) > 1:
        del holder[key]


def _repeated(rng: random.Random, holder: Any, key: Any, places: Any) -> None:
    holder[key] = [holder[key]] * rng.choice((1, 2, 3, 50, 3_000))


def _exchanged(rng: random.Random, holder: Any, key: Any, places: Any) -> None:
    other, at = rng.choice(places)
    holder[key] = copy.deepcopy(other[at])


def _another_type(rng: random.Random, holder: Any, key: Any, places: Any) -> None:
    value = holder[key]
    ways: list[Callable[[], Any]] = [lambda: json.dumps(value, default=str), lambda: [value], lambda: {"0": value}]
    if isinstance(value, int | float):
        ways += [lambda: float(value), lambda: -value, lambda: value * 10**9, lambda: value + 0.5, lambda: str(value)]
    if isinstance(value, str):
        ways += [lambda: value.encode("utf-8", "replace").hex(), lambda: value * 300, lambda: f" {value}\n"]
        ways += [lambda: list(value), lambda: value.upper(), lambda: f"{value}{rng.choice(TEXTS)}"]
    if isinstance(value, list):
        ways += [lambda: dict(enumerate(value)), lambda: value[::-1], lambda: value[:1], lambda: [*value, nasty(rng)]]
    if isinstance(value, dict):
        ways += [lambda: list(value.values()), lambda: list(value), lambda: {**value, rng.choice(TEXTS): nasty(rng)}]
        ways += [lambda: {str(name).upper(): each for name, each in value.items()}]
    try:
        holder[key] = rng.choice(ways)()
    except (OverflowError, ValueError):
        holder[key] = nasty(rng)


_CHANGES = {
    "nasty": _to_nasty,
    "nasty again": _to_nasty,
    "left out": _left_out,
    "repeated": _repeated,
    "exchanged": _exchanged,
    "another type": _another_type,
}


def json_text(value: Any) -> str:
    """Nested JSON as text, what stands for the unwritable included."""
    text = json.dumps(value, default=str)
    for name, raw in _RAW.items():
        text = text.replace(f'"{name}"', raw)
    return text


def changed_json(rng: random.Random, value: Any) -> bytes:
    """The text of nested JSON, changed in its values or, now and then, in its bytes."""
    data = json_text(changed(rng, value) if rng.random() < 0.9 else value).encode("utf-8", "surrogatepass")
    data = data[:_MOST_BYTES]
    if rng.random() < 0.1:
        data = changed_bytes(rng, data)
    return rng.choice((b"\xef\xbb\xbf", b"\xff\xfe")) + data if rng.random() < 0.01 else data


def changed_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes with a few places changed, most of them near the beginning."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not made:
            break
        at = rng.randrange(min(len(made), rng.choice((16, 64, 512, len(made)))))
        _EDITS[rng.randrange(len(_EDITS))](rng, made, at)
    return bytes(made)


def _flip(rng: random.Random, made: bytearray, at: int) -> None:
    made[at] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, made: bytearray, at: int) -> None:
    made[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))


def _word(rng: random.Random, made: bytearray, at: int) -> None:
    size, order = rng.choice((2, 4, 8)), rng.choice(("big", "little"))
    value = rng.choice((0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 2), 100_000)) % 2 ** (8 * size)
    made[at : at + size] = value.to_bytes(size, order)


def _cut(rng: random.Random, made: bytearray, at: int) -> None:
    del made[at : at + rng.choice((1, 4, 100, len(made)))]


def _insert(rng: random.Random, made: bytearray, at: int) -> None:
    made[at:at] = rng.randbytes(rng.choice((1, 4, 100))) if rng.random() < 0.5 else made[: rng.choice((4, 100, 4_000))]


_EDITS = (_flip, _flip, _set, _set, _word, _word, _cut, _insert)
