"""Each letter of a text on a picture is drawn, or a warning names it."""

import unicodedata

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from pixelrefer_plugin import Region
from pixelrefer_plugin.media import lettering
from pixelrefer_plugin.media.lettering import Lettering, drawable
from pixelrefer_plugin.overlay import draw_regions

SCRIPTS = [
    (0x20, 0x7E), (0xA1, 0x24F), (0x370, 0x3FF), (0x400, 0x52F), (0x530, 0x58F), (0x5D0, 0x5EA), (0x620, 0x64A),
    (0x904, 0x939), (0xE01, 0xE2E), (0x10D0, 0x10F0), (0x1E00, 0x1EFF), (0x2010, 0x2044), (0x20A0, 0x20BF),
    (0x2190, 0x21FF), (0x3041, 0x30FE), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0x1F300, 0x1F5FF), (0x300, 0x36F),
]  # fmt: skip
LETTERS = st.one_of([st.integers(first, last).map(chr) for first, last in SCRIPTS])


@pytest.fixture(autouse=True)
def _nothing_told():
    lettering._told.clear()
    lettering._fonts_for.cache_clear()


def boxes_in(text, caplog):
    """The letters of a text that are drawn as their font's box."""
    boxed = set()
    for part, font in Lettering(20)._runs(text):
        box = font.getmask("\uffff")
        for letter in part:
            mask = font.getmask(letter)
            if mask.size == box.size and bytes(mask) == bytes(box):
                boxed.add(letter)
    return boxed


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(LETTERS, min_size=1, max_size=12).map("".join))
def test_each_letter_is_drawn_or_named(caplog, text):
    lettering._told.clear()
    lettering._fonts_for.cache_clear()
    caplog.clear()
    boxed = boxes_in(text, caplog)
    named = {letter for letter in boxed if f"U+{ord(letter):04X}" in caplog.text}
    assert named == boxed
    assert len(caplog.records) == bool(boxed)


@pytest.mark.parametrize("text", ["café", "naïve \u2013 or \u2014 not", "Straße", "żółć", "Ünï", "e\u0301"])
def test_latin_with_accents_and_dashes_is_drawn(text, caplog):
    pytest.importorskip("matplotlib")  # brings a font, where the system has none
    assert not boxes_in(text, caplog)
    assert not caplog.records


def test_what_no_font_has_is_told_once_with_its_script(caplog, monkeypatch):
    monkeypatch.setattr(lettering, "_installed_fonts", lambda: ())
    monkeypatch.setattr(lettering, "_likely_fonts", lambda: ())
    lettering._font_for.cache_clear()
    for _ in range(3):
        Lettering(16).length("車 and ж")
    lettering._font_for.cache_clear()
    (record,) = caplog.records
    assert "車 U+8ECA" in record.message
    assert "Cjk, Cyrillic" in record.message
    assert "Noto" in record.message


def test_plain_texts_look_as_pillow_writes_them():
    expected, got = Image.new("RGB", (200, 40)), Image.new("RGB", (200, 40))
    ImageDraw.Draw(expected).text((5, 6), "a plain label 12", font=ImageFont.load_default(18), fill="white")
    pen = Lettering(18)
    pen.write(ImageDraw.Draw(got), (5, 6), "a plain label 12", fill="white")
    assert np.array_equal(np.asarray(got), np.asarray(expected))
    assert pen.box("a plain label 12") == ImageDraw.Draw(got).textbbox(
        (0, 0), "a plain label 12", font=ImageFont.load_default(18)
    )


@given(st.text(max_size=12))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_can_be_written(text):
    pen = Lettering(14)
    left, top, right, bottom = pen.box(text)
    assert left <= right
    assert top <= bottom
    pen.write(ImageDraw.Draw(Image.new("RGB", (60, 30))), (0, 0), text, fill="white")
    assert not any(unicodedata.category(letter) in ("Cc", "Cf", "Cs") for letter in drawable(text))


@pytest.mark.parametrize("label", ["", "\ud800", "a\nb\tc", "\u200f\u202e", "x" * 3000])
def test_labels_of_every_kind_are_drawn_on_a_picture(label):
    mask = Region.from_box((5, 5, 30, 20)).to_mask((40, 60))
    assert draw_regions(Image.new("RGB", (60, 40)), [mask], labels=[label]).size == (60, 40)
