"""Which annotations of a file are used, and how they become turns and samples. What is left out is counted."""

from collections.abc import Sequence

import numpy as np

from pixelrefer_plugin.authoring import DataError, told_left_out

from .config import CocoConfig
from .names import classes, ids_of_names, is_narrower, named_fields
from .tables import CocoTables

LeftOut = dict[str, int]
"""Reason -> how many entries of the file."""


def chosen(tables: CocoTables, config: CocoConfig) -> tuple[np.ndarray, LeftOut]:
    """The annotations that the options leave, in the order of the file, and how many they do not.

    Raises:
        DataError: they leave none.
    """
    reasons = {"iscrowd (skip_crowd=false keeps them)": tables.is_crowd & config.skip_crowd}
    small = (tables.area_px < config.min_area_px) & (config.min_area_px > 0)
    reasons[f"smaller than min_area_px={config.min_area_px:g} (a lower one keeps them)"] = small
    if config.categories:
        reasons["of other categories (the option categories names those that are kept)"] = ~_is_named(tables, config)
    keep = np.ones(len(tables), dtype=bool)
    left_out: LeftOut = {}
    for reason, is_out in reasons.items():
        _count(left_out, reason, int((keep & is_out).sum()))
        keep &= ~is_out
    if not keep.any():
        raise DataError(
            f"None of the {len(tables)} annotations of '{tables.path}' is left: check the format's options. "
            f"{told_left_out(left_out)}."
        )
    with_annotations = len(np.unique(tables.image_row[tables.image_row >= 0]))
    _count(left_out, "images without an annotation", len(tables.image_ids) - with_annotations)
    return np.flatnonzero(keep), left_out


def _is_named(tables: CocoTables, config: CocoConfig) -> np.ndarray:
    """`(A,)` whether `categories` names an annotation's, or there is no such option."""
    if not config.categories:
        return np.ones(len(tables), dtype=bool)
    ids = ids_of_names(tables, config.categories)
    return np.array([id in ids for id in tables.category_ids], dtype=bool)


def _count(left_out: LeftOut, reason: str, count: int) -> None:
    if count:
        left_out[reason] = count


def grouped(
    tables: CocoTables, rows: np.ndarray, config: CocoConfig, left_out: LeftOut
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How annotations become turns and samples.

    Args:
        tables: the file.
        rows: the annotations in use; one may be there more than once.
        config: what is asked.
        left_out: where those that are not asked about are counted.

    Returns:
        The order in which they do; where in it each turn begins, and the last one's end; where among the turns each
        sample begins, and their end.

    Raises:
        DataError: no category of any picture can be asked about.
    """
    order, turns = np.arange(len(rows)), np.arange(len(rows) + 1)
    image = tables.picture if config.task == "segment" else tables.image_row
    if config.task == "segment":
        order, turns = _by_class(tables, rows, config, left_out)
    elif config.per_image:
        order = np.argsort(image[rows], kind="stable")
    if not config.per_image:
        return order, turns, np.arange(len(turns))
    images = image[rows[order[turns[:-1]]]]
    masks = np.diff(turns) if config.asks_for_masks else np.zeros(len(images), dtype=np.int64)
    return order, turns, _sample_starts(images.tolist(), masks.tolist(), config)


def _by_class(
    tables: CocoTables, rows: np.ndarray, config: CocoConfig, left_out: LeftOut
) -> tuple[np.ndarray, np.ndarray]:
    """The annotations of one class of a picture in one turn, where it is annotated whole and not too often."""
    keys, not_whole = _keys(tables, config)
    found, group = np.unique(keys, return_inverse=True)
    asks_of_all = bool(named_fields(config.questions[0]))  # else of those that `categories` names
    sizes = np.bincount(group[np.ones(len(tables), dtype=bool) if asks_of_all else _is_named(tables, config)])
    sizes = np.pad(sizes, (0, len(found) - len(sizes)))
    reasons = {reason: np.isin(found, each) for reason, each in not_whole.items()}
    reasons["beside one that is left out, so that not every object would be answered"] = (
        np.bincount(group[rows], minlength=len(found)) != sizes
    )
    reasons[f"more than max_masks={config.max_masks} in one answer (a larger one keeps them)"] = (
        sizes > config.max_masks
    )
    is_asked = np.ones(len(found), dtype=bool)
    for reason, is_out in reasons.items():
        _count(left_out, reason, int((is_asked & is_out)[group[rows]].sum()))
        is_asked &= ~is_out
    kept = np.flatnonzero(is_asked[group[rows]])
    if not len(kept):
        raise DataError(
            f"No picture of '{tables.path}' has a category with all its objects annotated, {config.max_masks} at most "
            f"(max_masks): check the format's options. {told_left_out(left_out)}."
        )
    first = np.full(len(found), len(rows))
    np.minimum.at(first, group[rows], np.arange(len(rows)))
    picture = tables.picture[rows[kept]] if config.per_image else np.zeros(len(kept))
    order = kept[np.lexsort((first[group[rows[kept]]], picture))]
    changes = np.flatnonzero(np.diff(group[rows[order]])) + 1
    return order, np.concatenate([[0], changes, [len(order)]])


def _keys(tables: CocoTables, config: CocoConfig) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """`(A,)` a number for each annotation, equal for those that one question asks about; and the numbers of questions
    that annotations do not answer whole, by the reason."""
    class_of = classes(tables, config)
    numbers: dict[tuple[str, ...], int] = {}
    number_of = {id: numbers.setdefault(key, len(numbers)) for id, key in class_of.items()}
    codes = np.array([number_of.get(id, -1) for id in tables.category_ids], dtype=np.int64)
    picture, count = tables.picture, max(1, len(numbers))
    keys = picture * count + codes
    is_stray = picture < 0
    is_unknown = np.array([id not in tables.categories for id in tables.category_ids], dtype=bool)
    alone = is_stray | (codes < 0)
    keys[alone] = -1 - np.flatnonzero(alone)  # they have nothing in common
    partial = [tables.picture_row[row] * count + number_of[id] for row, id in tables.partial if id in number_of]
    wider = {id: numbers[key] for id, key in is_narrower(tables, config).items() if key in numbers}
    narrower = [
        image * count + wider[id]
        for image, id in zip(picture.tolist(), tables.category_ids, strict=True)
        if id in wider and image >= 0
    ]
    beside_unknown = np.isin(picture, picture[is_unknown & ~is_stray]) & ~alone
    return keys, {
        "not all annotated, as the file itself says": np.array(partial, dtype=np.int64),
        "beside one of a narrower category, which is no answer of theirs": np.array(narrower, dtype=np.int64),
        "beside one of an unknown category, which may be theirs": np.unique(keys[beside_unknown]),
    }


def _sample_starts(images: Sequence[int], masks: Sequence[int], config: CocoConfig) -> np.ndarray:
    """Where each sample begins among turns that are about these images, with so many masks; and the last one's end."""
    starts: list[int] = []
    num_masks = 0
    for turn, (image, more) in enumerate(zip(images, masks, strict=True)):
        goes_on = bool(starts) and image == images[turn - 1] and image >= 0  # strays have nothing in common
        if goes_on and turn - starts[-1] < config.max_turns and num_masks + more <= config.max_masks:
            num_masks += more
        else:
            starts.append(turn)
            num_masks = more
    return np.array([*starts, len(images)])
