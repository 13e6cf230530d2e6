"""JSON from files of others: what is read is Python's own reading, what is refused says what and where."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixelrefer_plugin.errors import shown
from pixelrefer_plugin.json_text import MOST_DEPTH, MOST_DIGITS, parse_json, read_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


@given(VALUES, st.booleans())
def test_reads_what_python_writes(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert parse_json(text) == parse_json(text.encode()) == parse_json(b"\xef\xbb\xbf" + text.encode()) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": "NaN",\n "b": NaN}', "NaN is no number of JSON: line 2 column 7 .character 20."),
        ("[1, -Infinity]", "-Infinity is no number of JSON: line 1 column 5"),
        ("[" * 100_000 + "]" * 100_000, f"nested deeper than {MOST_DEPTH} levels"),
        ('{"a":' * 101 + "1" + "}" * 101, f"nested deeper than {MOST_DEPTH} levels"),
        ("9" * 5000, f"has 5000 digits, at most {MOST_DIGITS} are read"),
        (r'{"a": "\ud800"}', "half a character"),
        (b'{"a": "\xff"}', "can't decode byte 0xff in position 7"),
        ("", "Expecting value"),
    ],
)
def test_refuses(text, message):
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_depth_counts_no_brackets_in_strings():
    deep = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert parse_json(deep) is not None
    assert parse_json(json.dumps(["[{" * MOST_DEPTH, '"\\"' + "[" * MOST_DEPTH])) is not None


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(OSError, match="no regular file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(IsADirectoryError):
        read_json(tmp_path)


@given(VALUES)
def test_shown_is_one_short_line(value):
    assert len(shown(value)) <= 80
    assert "\n" not in shown(value)


def test_shown_of_what_is_large_or_deep():
    import torch
    from PIL import Image

    deep = []
    for _ in range(5000):
        deep = [deep]
    assert len(shown(deep)) < 80
    assert shown(10**5000) == "an integer of 16610 bits"
    assert shown("data:image/png;base64," + "iVBORw0" * 100_000).startswith("'data:image/png;base64")
    assert shown(b"iVBORw0" * 100_000).startswith("b'iVBOR")
    assert shown(torch.zeros(2, 3)) == "Tensor of torch.float32 (2, 3)"
    assert shown(Image.new("RGB", (4, 5))) == "Image of RGB (4, 5)"
