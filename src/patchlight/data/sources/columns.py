"""Which columns of a table are the image and the label, and from a label's values to classes.

A column is chosen where there is one candidate; two are an error that lists them, and data.image_column and
data.label_column say which. Candidates are looked for in this order, names without case:

- image: columns of the feature type Image; columns of bytes; text columns with a name of IMAGE_NAMES (paths).
- label: columns of the feature type ClassLabel; columns with a name of LABEL_NAMES; all other columns of text or of
  whole numbers. Of several, the one with a name of the list is taken where it is the only one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.errors import PatchlightError, UsageError, did_you_mean

LABEL_NAMES = frozenset("label labels class class_name classname class_id classid target targets category".split())
IMAGE_NAMES = frozenset(
    "image images img file files file_name filename path paths filepath file_path image_path imagepath img_path "
    "image_name imagename image_file image_id imageid image_filename".split()
)
MANY_NUMBERS = 64  # columns: of 8 x 8 pixels
FEW_ROWS = 8  # with fewer, each may well have a label of its own
INDEX_NAMES = frozenset({"", "__index_level_0__", "unnamed: 0", "index"})  # what pandas writes


@dataclass(frozen=True)
class Column:
    """A column by its name: what kind of values it holds, and what a message calls them."""

    name: str
    kind: str  # "image", "bytes", "text", "number", "fraction", "list", "other"
    about: str
    class_names: tuple[str, ...] | None = None  # of a ClassLabel
    is_class: bool = False  # of the feature type ClassLabel, with names or without


@dataclass(frozen=True)
class Columns:
    """Where the image and the label are. `class_names` is None where the label's values are the classes."""

    image: Column
    label: Column

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The names that the table gives its classes."""
        return self.label.class_names

    def note(self, where: str) -> str:
        """A sentence on what was chosen."""
        return f"columns of {where}: images from '{self.image.name}', labels from '{self.label.name}'"


def find_columns(columns: Iterable[Column], where: str, config: DataConfig) -> Columns:
    """The image and the label column, by the rules at the top of this module.

    Raises UsageError for a setting that names no column, and PatchlightError, listing the columns that there are, where
    one is missing or two can be meant.
    """
    there = list(columns)
    image = _given(there, "image_column", config.image_column, where) or _image_of(there, where)
    if image.kind in ("number", "fraction", "other"):
        raise PatchlightError(f"{where}: the column '{image.name}' holds {image.about}, no images")
    label = label_column([column for column in there if column is not image], where, config)
    return Columns(image, label)


def label_column(there: list[Column], where: str, config: DataConfig) -> Column:
    """The label among the columns that are not the image's. Raises as `find_columns`."""
    label = _given(there, "label_column", config.label_column, where) or _label_of(there, where)
    if label.kind == "list":
        raise PatchlightError(
            f"{where}: the column '{label.name}' holds {label.about}, several labels for an image; Patchlight learns "
            "one class for each image (multi-label data are not supported)"
        )
    if label.kind not in ("text", "number", "fraction"):
        raise PatchlightError(f"{where}: the column '{label.name}' holds {label.about}, no labels")
    return label


def _given(there: list[Column], field: str, name: str | None, where: str) -> Column | None:
    if name is None:
        return None
    for column in there:
        if column.name == name:
            return column
    same = [column for column in there if column.name.casefold() == name.casefold()]
    if len(same) == 1:
        return same[0]
    raise UsageError(
        f"data.{field}: {where} has no such column '{name}'; {did_you_mean(name, [c.name for c in there])}"
    )


def _image_of(there: list[Column], where: str) -> Column:
    kinds = (
        [column for column in there if column.kind == "image"],
        [column for column in there if column.kind == "bytes"],
        [column for column in there if column.kind in ("text", "list") and column.name.casefold() in IMAGE_NAMES],
    )
    for candidates in kinds:
        if candidates:
            return _only(candidates, IMAGE_NAMES, "image", where)
    refuse_pixels(sum(column.kind in ("number", "fraction") for column in there), where)
    raise PatchlightError(
        f"{where} has no image column; its columns are {_listed(there)}; data.image_column names the one of the "
        "images, which are encoded or paths"
    )


def refuse_pixels(numbers: int, where: str) -> None:
    """Raises PatchlightError for a table with so many columns of numbers that they are pixels."""
    if numbers >= MANY_NUMBERS:
        raise PatchlightError(
            f"{where} has {numbers} columns of numbers and none of images, as a table of pixels has; store them as an "
            "array (N, H, W) beside their labels in an .npz file"
        )


def _label_of(there: list[Column], where: str) -> Column:
    declared = [column for column in there if column.is_class]
    named = [column for column in there if column.name.casefold() in LABEL_NAMES]
    rest = [c for c in there if c.kind in ("text", "number") and c.name.casefold() not in INDEX_NAMES]
    for candidates in (declared, named, rest):
        if candidates:
            return _only(candidates, LABEL_NAMES, "label", where)
    raise PatchlightError(
        f"{where} has no column that can be the label; its columns are {_listed(there)}; data.label_column names one "
        "of text or whole numbers"
    )


def _only(candidates: list[Column], names: frozenset[str], what: str, where: str) -> Column:
    if len(candidates) == 1:
        return candidates[0]
    named = [column for column in candidates if column.name.casefold() in names]
    if len(named) == 1:
        return named[0]
    raise PatchlightError(
        f"{where} has {len(candidates)} columns that can be the {what}: {_listed(candidates)}; say which with "
        f"data.{what}_column"
    )


def _listed(columns: Iterable[Column]) -> str:
    words = [f"{column.name} ({column.about})" for column in columns]
    return ", ".join(words[:12]) + (f" and {len(words) - 12} more" if len(words) > 12 else "") if words else "none"


# --- the columns of an Arrow schema ---


def arrow_columns(schema: Any) -> list[Column]:
    """The columns of an Arrow schema, in which `datasets` may have written what they mean."""
    features = _features(schema)
    found = []
    for field in schema:
        kind = _kind_of(field.type)
        feature = features.get(field.name, {})
        meant = feature.get("_type")
        if meant == "Image" and kind in ("bytes", "text"):
            found.append(Column(field.name, "image", "Image"))
        elif meant == "ClassLabel":
            names = feature.get("names")
            named = tuple(map(str, names)) if isinstance(names, list) and names else None
            found.append(Column(field.name, kind, "ClassLabel", named, is_class=True))
        else:
            found.append(Column(field.name, kind, str(field.type)))
    return found


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """What `datasets` wrote about the columns, by their names; {} where it wrote nothing that can be read."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: about for name, about in features.items() if isinstance(about, dict)}
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}


def _kind_of(of: Any) -> str:
    import pyarrow.types as kind

    if kind.is_dictionary(of):
        return _kind_of(of.value_type)
    if kind.is_struct(of):
        return "bytes" if of.get_field_index("bytes") >= 0 else "other"
    checks: tuple[tuple[str, tuple[Callable[[Any], bool], ...]], ...] = (
        ("bytes", (kind.is_binary, kind.is_large_binary, kind.is_fixed_size_binary, kind.is_binary_view)),
        ("text", (kind.is_string, kind.is_large_string, kind.is_string_view)),
        ("number", (kind.is_integer, kind.is_boolean)),
        ("fraction", (kind.is_floating, kind.is_decimal)),
        ("list", (kind.is_list, kind.is_large_list, kind.is_fixed_size_list)),
    )
    storage = getattr(of, "storage_type", None)  # of the arrays of `datasets`
    if storage is not None:
        return _kind_of(storage)
    return next((name for name, own in checks if any(check(of) for check in own)), "other")


# --- labels ---


@dataclass(frozen=True)
class Labels:
    """The classes of a source, and by split the label of each row, (N,) int64; -1 where a row has none."""

    class_names: tuple[str, ...]
    of_split: dict[str, np.ndarray]


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
    labels = {key: [-1 if value is None else ids[value] for value in own] for key, own in plain.items()}
    return Labels(names, {key: np.array(own, dtype=np.int64) for key, own in labels.items()})


def _plain(value: Any, where: str, column: Column) -> int | str | bool | None:
    """A cell as text, whole number or truth; None where it says nothing."""
    if isinstance(value, str):
        return value if value.strip() else None
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
