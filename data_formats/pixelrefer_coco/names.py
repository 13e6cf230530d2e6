"""What categories are called: when two names are one, and which categories a question asks about at once."""

import unicodedata
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from pixelrefer_plugin.authoring import DataError

from .config import CocoConfig
from .tables import CocoTables, Id, listed


def spaced(name: str) -> str:
    """A name as it is written into a text. LVIS has `baseball_bat` and `bow_(weapon)`."""
    return " ".join(name.replace("_", " ").split())


def same(name: str) -> str:
    """Equal for names that readers take for one: whatever their case, blanks and Unicode form."""
    visible = "".join(each for each in unicodedata.normalize("NFKC", name) if unicodedata.category(each) != "Cf")
    return spaced(visible).casefold()


def fields_of(category: Mapping[str, Any]) -> dict[str, str]:
    """What templates may name of a category; without what it does not have."""
    if not category:
        return {}
    synonyms = category.get("synonyms")
    synonyms = synonyms if isinstance(synonyms, list) and synonyms else [category["name"]]
    supercategory = category.get("supercategory")
    fields = {
        "name": spaced(category["name"]),
        "synonyms": ", ".join(spaced(str(each)) for each in synonyms),
        "supercategory": spaced(supercategory) if isinstance(supercategory, str) else "",
    }
    return {key: text for key, text in fields.items() if text}


def named_fields(template: str) -> frozenset[str]:
    """The fields that a template names."""
    return frozenset(name for _, name, _, _ in Formatter().parse(template) if name)


def ids_of_names(tables: CocoTables, names: Sequence[str]) -> set[Id]:
    """The categories that are called so.

    Raises:
        DataError: none is, for one of the names.
    """
    ids_of: dict[str, set[Id]] = {}
    for id, category in tables.categories.items():
        ids_of.setdefault(same(category["name"]), set()).add(id)
    unknown = [name for name in names if same(name) not in ids_of]
    if unknown:
        known = sorted({category["name"] for category in tables.categories.values()})
        has = listed(known, quoted=False) or "none"
        raise DataError(f"'{tables.path}' has no category {listed(unknown)}. It has: {has}.")
    return set().union(*(ids_of[same(name)] for name in names))


def classes(tables: CocoTables, config: CocoConfig) -> dict[Id, tuple[str, ...]]:
    """What each category is asked as in `segment`: categories with equal values are asked about in one question.

    A question that names no field asks about all categories that `categories` leaves.

    Raises:
        DataError: several categories would be asked about at once in a file that looks for some of them only.
    """
    chosen = ids_of_names(tables, config.categories) if config.categories else set(tables.categories)
    named = named_fields(config.questions[0])
    of_category = {id: fields_of(category) for id, category in tables.categories.items()}
    found = {
        id: tuple(same(fields.get(name, "")) for name in sorted(named))
        for id, fields in of_category.items()
        if named or id in chosen
    }
    if tables.is_federated and len(set(found.values())) < len(found):
        first: dict[tuple[str, ...], Id] = {}
        twins = [{first.setdefault(key, id), id} for id, key in found.items() if key in first]
        names = sorted({tables.categories[id]["name"] for pair in twins for id in pair})
        raise DataError(
            f"'{tables.path}' looks for some categories only in each picture, as LVIS does. A question about several "
            f"at once, here {listed(names)}, could miss objects. Ask by {{name}}, or say categories=... (one)."
        )
    return found


def is_narrower(tables: CocoTables, config: CocoConfig) -> dict[Id, tuple[str, ...]]:
    """Categories whose objects are also of another one: its name is their supercategory. What that is asked as."""
    if named_fields(config.questions[0]) != {"name"}:
        return {}
    names = {same(category["name"]) for category in tables.categories.values()}
    wider = {id: same(fields_of(category).get("supercategory", "")) for id, category in tables.categories.items()}
    return {id: (name,) for id, name in wider.items() if name in names and name != same(tables.categories[id]["name"])}
