"""Which column of a list or a table says the split of each row: by what is in it, whatever it is called.

It holds names of splits alone, at least two of them (one is enough where it is called `split`), or it is called
`is_valid`, `is_test` or the like and holds truths. Two such columns are an error that lists them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from patchlight.config import DataConfig
from patchlight.data.names import SPLIT_WORDS, split_of
from patchlight.data.sources.columns import IMAGE_NAMES, LABEL_NAMES, Values
from patchlight.errors import PatchlightError, UsageError, did_you_mean, first_of

SPLIT_COLUMNS = frozenset({"split", "subset", "partition"})
TRUTHS = dict.fromkeys(("true", "1", "1.0", "yes", "y", "t"), True) | dict.fromkeys(
    ("false", "0", "0.0", "no", "n", "f"), False
)
IS = re.compile(r"is[\W_]*(?=\w)", re.IGNORECASE)


@dataclass(frozen=True)
class SplitColumn:
    """The split of each row, as the list calls it, and a sentence on where it stands."""

    column: str
    names: list[str]
    note: str


def find_split_column(columns: Iterable[str], values: Values, where: str, config: DataConfig) -> SplitColumn | None:
    """data.split_column, else the one column that says splits by its values, which `values` gives of each.

    Raises UsageError for a setting that names no column, and PatchlightError for two such columns, and for one in
    which other words stand beside names of splits.
    """
    names = list(columns)
    if config.split_column is not None:
        if config.split_column not in names:
            raise UsageError(
                f"data.split_column: {where} has no column '{config.split_column}'; "
                f"{did_you_mean(config.split_column, names)}"
            )
        return _read(config.split_column, _cells(values(config.split_column)), where, config)
    taken = {config.image_column, config.label_column}
    there = [name for name in names if name not in taken and name.casefold() not in IMAGE_NAMES | LABEL_NAMES]
    cells = {name: _cells(values(name)) for name in there}
    found = [name for name in there if _says_splits(name, cells[name], where)]
    if len(found) > 1:
        quoted = first_of((f"'{name}'" for name in found), 8)
        raise PatchlightError(
            f"{where} has {len(found)} columns that name splits: {quoted}; say which with data.split_column"
        )
    return _read(found[0], cells[found[0]], where, config) if found else None


def _cells(values: list[Any]) -> list[str]:
    return ["" if value is None else str(value).strip() for value in values]


def _says_splits(column: str, cells: list[str], where: str) -> bool:
    """Raises PatchlightError for a column that names splits, and something else, too."""
    values = {cell.casefold(): cell for cell in cells}
    if meant_by_truth(column) is not None and values.keys() & TRUTHS.keys():
        others = sorted(values[key] for key in values.keys() - TRUTHS.keys())
        named = True
    else:
        others = sorted(cell for cell in values.values() if split_of(cell)[0] is None)
        plain = values.keys() & SPLIT_WORDS.keys()
        called = column.casefold() in SPLIT_COLUMNS
        if not others:
            return bool(plain) and (len(values) > 1 or called)
        named = bool(plain) and (called or len({SPLIT_WORDS[word] for word in plain}) > 1)
    if named and others:
        told = first_of((f"'{word}'" if word else "empty cells" for word in others), 5)
        raise PatchlightError(
            f"{where}: the column '{column}' names splits, but also holds {told}; correct them, name the splits "
            f"to use with data.split_column = '{column}' and data.train_split, or take the column out where it is none "
            "of splits"
        )
    return named and len(values) > 1


def meant_by_truth(column: str) -> dict[bool, str] | None:
    """The splits that a column of truths means, by its name: of `is_valid` True is val and False is train."""
    match = IS.match(column)
    split, alone = split_of(column[match.end() :]) if match else (None, False)
    if split is None or not alone:
        return None
    return {True: split, False: "test" if split == "train" else "train"}


def _read(column: str, cells: list[str], where: str, config: DataConfig) -> SplitColumn:
    note = f"splits of {where}: from the column '{column}'"
    names = [cell or "None" for cell in cells]
    asked = {config.train_split, config.val_split, config.test_split}
    meant = meant_by_truth(column)
    if meant and not asked.intersection(names) and {name.casefold() for name in names} <= TRUTHS.keys():
        told = " and ".join(f"{truth} is {split}" for truth, split in meant.items())
        return SplitColumn(column, [meant[TRUTHS[name.casefold()]] for name in names], f"{note}, where {told}")
    spelled: dict[str, str] = {}  # "Train" and "train " are one split
    return SplitColumn(column, [spelled.setdefault(name.casefold(), name) for name in names], note)
