"""`docs/fidelity.md` names the tests that show what it says: they exist."""

import re
from pathlib import Path

import pytest

from pixelrefer_plugin import get_adapter

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "fidelity.md").read_text(encoding="utf-8")
TESTS = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "test"), TESTS, ids=[test for _, test in TESTS])
def test_a_test_that_the_page_names_exists(file, test):
    assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8")


def test_every_departure_has_a_section_that_states_all_of_it():
    numbers = re.findall(r"^### (\d+)\*?\. \S", PAGE, flags=re.MULTILINE)
    assert numbers == [str(number) for number in range(1, len(numbers) + 1)]
    assert len(numbers) >= 20
    sections = re.split(r"^##.*\n", PAGE, flags=re.MULTILINE)
    stated = [re.findall(r"^- ([A-Z][a-z ]+): \S", text, flags=re.MULTILINE) for text in sections]
    assert stated.count(["Paper", "Official code", "Default", "Preset", "Tests"]) == len(numbers)


@pytest.mark.parametrize("adapter", ["saot", "oci"])
def test_every_option_of_a_preset_is_explained(adapter):
    unnamed = [option for option in get_adapter(adapter).presets["official"] if f"`{option}`" not in PAGE]
    assert not unnamed
