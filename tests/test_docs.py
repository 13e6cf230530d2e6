"""The documentation's own form: lines of at most 120 columns, and links that lead to something."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
WIDTH = 120

FENCE = re.compile(r"^ {0,3}```.*?^ {0,3}```[ ]*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(`+)(?!`)(?:(?!\n\n).)+?\1", re.DOTALL)
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)")

# What `scripts/update_docs` writes: tables as wide as the texts in the code, and files of `examples/` as they are.
BEGIN = re.compile(r"<!-- (?:\w+: begin, written by scripts/update_docs|begin:\S+) -->")
END = re.compile(r"<!-- (?:\w+: )?end -->")
# What cannot be wrapped: an image, or one address with neither words before nor behind it.
UNBREAKABLE = re.compile(r"\s*(?:[-*] )?(?:!\[[^\]]*\]\(\S+\)|\S*https?://\S+)")


def pages() -> list[str]:
    """Every Markdown file that git tracks, or would if it were added; outside a repository those not in dot folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    tracked = []
    if shutil.which("git"):
        tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    found = tracked or [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.md")]
    return sorted({name for name in found if (ROOT / name).is_file() and not re.search(r"(^|/)\.", name)})


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def long_lines(text: str) -> Iterator[str]:
    """Lines beyond the width, numbered, except generated ones and those that cannot be wrapped."""
    generated = False
    for number, line in enumerate(text.splitlines(), start=1):
        generated = (generated or bool(BEGIN.fullmatch(line))) and not END.fullmatch(line)
        if len(line) > WIDTH and not generated and not UNBREAKABLE.fullmatch(line):
            yield f"line {number}, {len(line)} columns: {line[:60]}..."


def anchors(text: str) -> set[str]:
    """What `#...` may name: a heading's words in lower case, joined by hyphens, as GitHub has them."""
    found: set[str] = set()
    for heading in HEADING.findall(FENCE.sub("", text)):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        number = next(number for number in range(len(found) + 1) if _numbered(slug, number) not in found)
        found.add(_numbered(slug, number))
    return found


def _numbered(slug: str, number: int) -> str:
    return f"{slug}-{number}" if number else slug


def dead_links(page: str, text: str) -> Iterator[str]:
    """Relative links of a page, and anchors, that lead to nothing."""
    for target in LINK.findall(CODE.sub("", FENCE.sub("", text))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (ROOT / page).parent / path
        if path and not (file.exists() and file.resolve().is_relative_to(ROOT)):
            yield f"{target}: no such file"
        elif anchor and anchor not in anchors(file.read_text(encoding="utf-8") if path else text):
            yield f"{target}: no such heading"


PAGES = pages()


@pytest.mark.parametrize("page", PAGES)
def test_lines_end_at_120_columns(page):
    assert list(long_lines(read(page))) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_to_something(page):
    assert list(dead_links(page, read(page))) == []


# -- these checks --------------------------------------------------------------------------------------------

LONG = "word " * 25
KEYS = "<!-- keys: begin, written by scripts/update_docs -->"


TOO_LONG = {
    "prose": (f"short\n{LONG}", [2]),
    "code": (f"```\n{LONG}\n```", [2]),
    "table": (f"| {LONG} |", [1]),
    "generated": (f"{KEYS}\n| {LONG} |\n<!-- keys: end -->\n{LONG}", [4]),
    "a file of the examples": (f"<!-- begin:a/b.py -->\n{LONG}\n<!-- end -->\n{LONG}", [4]),
    "image": (f"![{LONG}](images/a.png)\n![{LONG}](images/a.png) and words", [2]),
    "address": (f"- [x](https://{'a' * WIDTH}).\nSee https://{'a' * WIDTH}", [2]),
}


@pytest.mark.parametrize(("text", "lines"), TOO_LONG.values(), ids=TOO_LONG)
def test_what_is_too_long(text, lines):
    assert [int(re.findall(r"\d+", each)[0]) for each in long_lines(text)] == lines


@pytest.mark.parametrize(
    ("link", "dead"),
    [
        ("own-data.md", False),
        ("../README.md#what-is-promised", False),
        ("images", False),
        ("#a-heading-of-code_names", False),
        ("#twice-1", False),
        ("https://nowhere.invalid/#x", False),
        ("nowhere.md", True),
        ("own-data.md#nowhere", True),
        ("#twice-2", True),
        ("#in-code", True),
        ("../..", True),
    ],
)
def test_what_is_a_dead_link(link, dead):
    headings = "# A heading: of `code_names`\n## Twice\n## Twice\n```\n# in code\n```\n"
    page = f"{headings}`[not](a-link)` but [a\nlink]({link})\n"
    assert bool(list(dead_links("docs/page.md", page))) is dead
