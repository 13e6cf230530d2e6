"""Texts of official repositories, found by their SHA-256 in files that the tests write."""

import hashlib
import os
from pathlib import Path

import pytest

from pixelrefer_plugin import DataError
from pixelrefer_plugin.authoring import official_file, official_text

PROMPT = 'Say "what" <region> is.\nIn one word: \u00e9\u00a0!'
FILES = {
    "a value": "question = {prompt!r}",
    "an argument": "ask(1, question={prompt!r})",
    "a concatenation": "question = {prompt!r} + options + '.'",
    "several literals": "question = ({first!r}\n    {second!r})",
    "an f-string": "question = f'{{name}}' {prompt!r} f'{{options}}'",
    "a default in a function": "class Data:\n    def ask(self, question={prompt!r}):\n        return question",
    "an unknown escape beside it": "import re\nre.findall('\\(', x)\nquestion = {prompt!r}",
    "an error when it is run": "import nothing_of_this_name\nraise SystemExit\nquestion = {prompt!r}",
}


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def written(folder, text, file="evaluation/infer.py"):
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


@pytest.mark.parametrize("code", FILES.values(), ids=FILES.keys())
def test_a_text_is_found_wherever_it_stands(tmp_path, code):
    file = written(tmp_path, code.format(prompt=PROMPT, first=PROMPT[:9], second=PROMPT[9:]))
    assert official_text(tmp_path, file, sha256(PROMPT)) == PROMPT
    assert official_text(str(tmp_path), file, sha256(PROMPT), repository="owner/name") == PROMPT


def test_blanks_at_the_ends_belong_to_a_text(tmp_path):
    file = written(tmp_path, f"prompt = '''\n{PROMPT}\n'''")
    assert official_text(tmp_path, file, sha256(f"\n{PROMPT}\n")) == f"\n{PROMPT}\n"
    with pytest.raises(DataError, match="another version"):
        official_text(tmp_path, file, sha256(PROMPT))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"question = {PROMPT + '?'!r}", r"no string constant of it has the SHA-256 [0-9a-f]{64}"),
        (f"# {PROMPT!r}", "no string constant"),
        (f"question = {PROMPT.encode()!r}", "no string constant"),
        ("question = '\\ud800'", "no string constant"),
        ("", "no string constant"),
        ("question = (", "no Python"),
        (b"\xff\xfe\x00", "no Python"),
        (b"a = 1\x00", "no Python"),
        ("(" * 100_000, "no Python"),
        (b"#" * (4 * 2**20 + 1), "more than 4,194,304 bytes"),
    ],
)
def test_a_file_of_another_version_is_refused(tmp_path, text, message):
    file = written(tmp_path, text)
    with pytest.raises(DataError, match=message) as error:
        official_text(tmp_path, file, sha256(PROMPT), repository="owner/name")
    assert str(tmp_path / file) in str(error.value)
    assert "another version of owner/name" in str(error.value)


@pytest.mark.parametrize("read", [official_text, official_file])
@pytest.mark.parametrize("make", [None, Path.mkdir, os.mkfifo])
def test_a_file_that_is_not_there_is_named_with_its_repository(tmp_path, read, make):
    if make:
        make(tmp_path / "infer.py")
    with pytest.raises(DataError, match=r"Cannot read '.*infer\.py'.*alibaba-damo-academy/PixelRefer.*your clone"):
        read(tmp_path, "infer.py", sha256(PROMPT))


@pytest.mark.parametrize("root", ["a\0b", "x" * 5000])
def test_a_root_that_is_no_path_is_refused(root):
    with pytest.raises(DataError, match="Cannot read"):
        official_text(root, "infer.py", sha256(PROMPT))


def test_a_whole_file_is_read_as_it_is(tmp_path):
    file = written(tmp_path, f"\n{PROMPT}\r\n", "system.txt")
    assert official_file(tmp_path, file, sha256(f"\n{PROMPT}\r\n")) == f"\n{PROMPT}\r\n"
    with pytest.raises(DataError, match=r"its SHA-256 is [0-9a-f]{64}, not [0-9a-f]{64}.*another version"):
        official_file(tmp_path, file, sha256(PROMPT))


def test_a_whole_file_that_is_no_text_is_refused(tmp_path):
    file = written(tmp_path, b"\xff", "system.txt")
    with pytest.raises(DataError, match="no text in UTF-8"):
        official_file(tmp_path, file, hashlib.sha256(b"\xff").hexdigest())
