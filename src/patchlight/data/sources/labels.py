"""From the values of a label column to classes: what is a label, what is none, and what is several."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchlight.data.sources.columns import Column
from patchlight.errors import PatchlightError, first_of

FEW_ROWS = 8  # with fewer, each may well have a label of its own


@dataclass(frozen=True)
class Labels:
    """The classes of a source, and by split the label of each row, (N,) int64; -1 where a row has none."""

    class_names: tuple[str, ...]
    of_split: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()


def read_labels(values: dict[str, list[Any]], column: Column, where: dict[str, str], *, given: bool) -> Labels:
    """From the label column's values in each split to classes; `where` is what a message calls each split.

    Without names, the values, sorted, are the classes. Raises PatchlightError for values that are no labels, named
    labels out of range, splits that have labels of different types and, unless the column was `given` by a setting,
    where most rows have a value of their own.
    """
    plain = {key: [_plain(value, where[key], column) for value in own] for key, own in values.items()}
    if column.class_names is not None:
        return Labels(
            column.class_names, {key: _named(own, column.class_names, where[key], column) for key, own in plain.items()}
        )
    _forget_blanks(plain)
    _same_type(plain, where, column)
    distinct = sorted({value for own in plain.values() for value in own if value is not None})
    rows = sum(value is not None for own in plain.values() for value in own)
    if not given and rows >= FEW_ROWS and 2 * len(distinct) > rows:
        raise PatchlightError(
            f"{next(iter(where.values()))}: the column '{column.name}' has {len(distinct):,} values in {rows:,} rows, "
            "too many for labels; data.label_column names the column of the labels (this one, if it is)"
        )
    ids = {value: index for index, value in enumerate(distinct)}
    names = tuple(str(value) for value in distinct)
    refuse_several(names, next(iter(where.values())), column)
    labels = {key: [-1 if value is None else ids[value] for value in own] for key, own in plain.items()}
    arrays = {key: np.array(own, dtype=np.int64) for key, own in labels.items()}
    return Labels(names, arrays, doubtful(names, column))


# What pandas and spreadsheets write for a cell without a value; a class is hardly called so.
MISSING = frozenset({"nan", "NaN", "<NA>", "#N/A", "NaT"})
DOUBTFUL = frozenset({"na", "n/a", "none", "null", "unknown", "?", "-", "-1"})  # what may stand for one, and may not


NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")


def refuse_several(names: tuple[str, ...], where: str, column: Column) -> None:
    """Raises PatchlightError where texts are lists of other labels: "[0, 1]", "cat, dog" beside "cat" and "dog", and
    "cat|dog" (or with a semicolon) where one of them is a label by itself, or stands in another such list.
    """
    known = set(names)
    joined = {name: _parts(name, "|;") for name in names}
    shared = Counter(part for parts in joined.values() if len(parts) > 1 for part in parts)
    for name in names:
        several = len(joined[name]) > 1 and any(part in known or shared[part] > 1 for part in joined[name])
        commas = _parts(name, ",")
        listed = name.startswith("[") and name.endswith("]")
        if listed or several or (len(commas) > 1 and commas <= known):
            raise PatchlightError(
                f"{where}: the column '{column.name}' holds '{name}', several labels for an image; Patchlight learns "
                "one class for each image (multi-label data are not supported)"
            )


def _parts(name: str, signs: str) -> set[str]:
    """What stands between the signs."""
    return {part.strip() for part in re.split(f"[{signs}]", name)} - {""}


def doubtful(names: tuple[str, ...], column: Column) -> tuple[str, ...]:
    """Sentences on classes whose names may mean that there is no label, and on those that may be one class."""
    notes = []
    if found := [name for name in names if name.strip().lower() in DOUBTFUL]:
        classes = "class" if len(found) == 1 else "classes"
        means = "that means" if len(found) == 1 else "these mean"
        notes.append(
            f"'{column.name}' has the {classes} {first_of(found, 8)}; if {means} no label, leave these images out"
        )
    groups: dict[str | float, list[str]] = {}
    for name in names:
        groups.setdefault(float(name) if NUMBER.fullmatch(name) else " ".join(name.casefold().split()), []).append(name)
    if same := [" and ".join(f"'{name}'" for name in group) for group in groups.values() if len(group) > 1]:
        notes.append(
            f"'{column.name}' has classes that look alike: {first_of(same, 8)}; if they are one, write one name"
        )
    return tuple(notes)


def _plain(value: Any, where: str, column: Column) -> int | str | bool | None:
    """A cell as text, whole number or truth; None where it says nothing."""
    if isinstance(value, str):
        return value if value.strip() and value.strip() not in MISSING else None
    if value is None or isinstance(value, bool | int):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise PatchlightError(
            f"{where}: the column '{column.name}' holds {type(value).__name__} values, no labels"
        ) from None
    if math.isnan(number):
        return None
    if not math.isfinite(number) or number != int(number):
        raise PatchlightError(
            f"{where}: the column '{column.name}' holds {value!r}; a label is text or a whole number, so this is no "
            "label, or needs classes made of it first"
        )
    return int(number)


def _named(values: list[Any], names: tuple[str, ...], where: str, column: Column) -> np.ndarray:
    """Labels of a column whose classes have names: numbers in 0..K-1 or names. `datasets` writes -1 for unknown."""
    places = {name: index for index, name in enumerate(names)}
    labels = np.full(len(values), -1, dtype=np.int64)
    for row, value in enumerate(values):
        if value is None or value == -1:  # as `datasets` writes it
            continue
        label = places.get(value, len(names)) if isinstance(value, str) else int(value)
        if not 0 <= label < len(names):
            raise PatchlightError(
                f"{where}: row {row} has the label {value!r} in the column '{column.name}', whose {len(names)} classes "
                f"are {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}; correct the label or the names"
            )
        labels[row] = label
    return labels


def _forget_blanks(values: dict[str, list[Any]]) -> None:
    """Where labels are numbers without names: a split of -1 alone, which no other split has, is one without labels."""
    for key, own in values.items():
        others = (value for other, theirs in values.items() if other != key for value in theirs)
        if len(values) > 1 and own and set(own) == {-1} and -1 not in others:
            values[key] = [None] * len(own)


def _same_type(values: dict[str, list[Any]], where: dict[str, str], column: Column) -> None:
    kinds = {key: {isinstance(value, str) for value in own if value is not None} for key, own in values.items()}
    if len(set().union(*kinds.values())) < 2:
        return
    words = {True: "text", False: "numbers"}
    told = [f"{' and '.join(sorted(words[k] for k in own))} in {where[key]}" for key, own in kinds.items() if own]
    raise PatchlightError(f"the column '{column.name}' holds {', '.join(told)}; give all rows labels of one type")
