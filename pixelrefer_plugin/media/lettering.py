"""Writes texts on pictures in any script that a font of this machine has, and says which letters none has.

Pillow brings a font of little more than ASCII. Letters that it lacks are taken from the fonts of the system and of
matplotlib, where those are installed; one that is nowhere is drawn as that font's box, and a warning names it.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import ImageDraw, ImageFont

logger = logging.getLogger(__name__)

_NOT_A_CHARACTER = "\uffff"  # for which every font draws its box
_TRIAL_PX = 20
_MOST_FONTS = 400  # that are looked into
_FIRST = ("dejavusans", "notosans-regular", "liberationsans-regular", "arial", "segoeui", "helvetica")
_OTHER_STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "mono", "math", "condensed", "serif", "emoji")
_told: set[str] = set()


@dataclass(frozen=True)
class Lettering:
    """Texts of one size.

    Attributes:
        size_px: of the font.
        font_path: a TrueType or OpenType file whose letters are taken first; None for Pillow's own.
    """

    size_px: int
    font_path: str | None = None

    def __post_init__(self) -> None:
        _font(self.font_path, self.size_px)  # raises OSError where it cannot be read

    def length(self, text: str) -> float:
        """How wide a text is, in pixels."""
        return float(sum(font.getlength(part) for part, font in self._runs(text)))

    def box(self, text: str) -> tuple[float, float, float, float]:
        """What a text covers when it is written at (0, 0): left, top, right, bottom."""
        boxes, left = [], 0.0
        for part, font in self._runs(text):
            x0, y0, x1, y1 = font.getbbox(part, anchor="ls")
            boxes.append((left + x0, self._ascent + y0, left + x1, self._ascent + y1))
            left += font.getlength(part)
        if not boxes:
            return (0, 0, 0, 0)
        x0s, y0s, x1s, y1s = zip(*boxes, strict=True)
        return min(x0s), min(y0s), max(x1s), max(y1s)

    def write(self, draw: ImageDraw.ImageDraw, at_xy: tuple[float, float], text: str, *, fill: Any) -> None:
        """Write a text, its upper left corner where `ImageDraw.text` would have it."""
        left, top = at_xy
        for part, font in self._runs(text):
            draw.text((left, top + self._ascent), part, font=font, fill=fill, anchor="ls")
            left += font.getlength(part)

    @property
    def _ascent(self) -> int:
        return _font(self.font_path, self.size_px).getmetrics()[0]

    def _runs(self, text: str) -> Iterator[tuple[str, Any]]:
        """Parts of a text with the font of each; one font for all of it where one has all its letters."""
        text = drawable(text)
        letters = {letter for letter in text if not letter.isspace()}
        paths = _fonts_for(frozenset(letters), self.font_path)
        of_letter = dict(zip(sorted(letters), paths, strict=True))
        before = self.font_path
        placed: list[tuple[str, str | None]] = []
        for letter in text:
            before = of_letter.get(letter, before)
            placed.append((letter, before))
        for path, run in groupby(placed, lambda pair: pair[1]):
            yield "".join(letter for letter, _ in run), _font(path, self.size_px)


def drawable(text: str) -> str:
    """A text as it is drawn: accents in their letters, plain blanks for all blanks, none of what is never seen."""
    letters = []
    for letter in unicodedata.normalize("NFC", text):
        kind = unicodedata.category(letter)
        if kind == "Cf" or "\ufe00" <= letter <= "\ufe0f":  # marks of direction, joiners, variants
            continue
        letters.append(" " if kind in ("Cc", "Zs", "Zl", "Zp") else "\ufffd" if kind == "Cs" else letter)
    return "".join(letters)


@lru_cache(maxsize=4096)
def _fonts_for(letters: frozenset[str], first: str | None) -> tuple[str | None, ...]:
    """The font of each letter, in sorted order; `first` for one that no font has, of which a warning tells."""
    ordered = sorted(letters)
    if all(_has(first, letter) for letter in ordered):
        return (first,) * len(ordered)
    for path in _likely_fonts():
        if all(_has(path, letter) for letter in ordered):
            return (path,) * len(ordered)
    found = {letter: _font_for(letter, first) for letter in ordered}
    _tell([letter for letter, path in found.items() if path is None and not _has(first, letter)])
    return tuple(first if found[letter] is None else found[letter] for letter in ordered)


@lru_cache(maxsize=4096)
def _font_for(letter: str, first: str | None) -> str | None:
    """The first font that has a letter; None for Pillow's own, and where there is none."""
    for path in (first, None, *_installed_fonts()):
        if _has(path, letter):
            return path
    return None


def _tell(missing: Sequence[str]) -> None:
    new = [letter for letter in missing if letter not in _told]
    if not new:
        return
    _told.update(new)
    scripts = sorted({unicodedata.name(letter, "unnamed").split()[0].capitalize() for letter in new})
    logger.warning(
        "No font of this machine has %s (%s): drawn as boxes. Install a font of this script, such as one of Google's "
        "Noto fonts (on Debian: fonts-noto-core, fonts-noto-cjk).",
        ", ".join(f"{letter} U+{ord(letter):04X}" for letter in new[:12]) + (", ..." if len(new) > 12 else ""),
        ", ".join(scripts[:6]),
    )


@lru_cache(maxsize=16384)
def _has(path: str | None, letter: str) -> bool:
    """Whether a font draws a letter as something else than its box."""
    try:
        font = _font(path, _TRIAL_PX)
        drawn, box = font.getmask(letter), font.getmask(_NOT_A_CHARACTER)
    except (OSError, ValueError):  # a file that is no font, a font of pictures
        return False
    return drawn.getbbox() is not None and (drawn.size != box.size or bytes(drawn) != bytes(box))


@lru_cache(maxsize=512)
def _font(path: str | None, size_px: int) -> Any:
    return ImageFont.load_default(size_px) if path is None else ImageFont.truetype(path, size_px)


@lru_cache(maxsize=1)
def _likely_fonts() -> tuple[str, ...]:
    """Those of many scripts that most machines have."""
    return tuple(path for path in _installed_fonts() if Path(path).stem.casefold() in _FIRST)


@lru_cache(maxsize=1)
def _installed_fonts() -> tuple[str, ...]:
    """Font files of this machine, the plainest first."""
    files = (
        path
        for folder in _font_folders()
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in (".ttf", ".ttc", ".otf") and "lastresort" not in path.stem.casefold()  # boxes for all
    )

    def plainness(path: Path) -> tuple[int, int, str]:
        stem = path.stem.casefold()
        rank = _FIRST.index(stem) if stem in _FIRST else len(_FIRST)
        return rank, sum(style in stem for style in _OTHER_STYLES), stem

    return tuple(str(path) for path in sorted(files, key=plainness)[:_MOST_FONTS])


def _font_folders() -> list[Path]:
    home = Path.home()
    folders = [home / ".fonts", home / ".local/share/fonts", Path("/usr/share/fonts"), Path("/usr/local/share/fonts")]
    if sys.platform == "darwin":
        folders += [home / "Library/Fonts", Path("/Library/Fonts"), Path("/System/Library/Fonts")]
    if sys.platform == "win32":
        folders.append(Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts")
    matplotlib = importlib.util.find_spec("matplotlib")
    if matplotlib is not None and matplotlib.origin is not None:
        folders.append(Path(matplotlib.origin).parent / "mpl-data/fonts/ttf")
    return [folder for folder in folders if folder.is_dir()]
