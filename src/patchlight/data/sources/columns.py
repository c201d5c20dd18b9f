"""Which columns of a table are the image and the label, and from a label's values to classes.

A column is chosen where there is one candidate; two are an error that lists them, and data.image_column and
data.label_column say which. Candidates are looked for in this order, names without case:

- image: columns of the feature type Image; columns of bytes; text columns with a name of IMAGE_NAMES (paths).
- label: columns of the feature type ClassLabel; columns with a name of LABEL_NAMES; all other columns of text or of
  whole numbers. Of several, the one with a name of the list is taken where it is the only one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.sources.unread import refuse_unread
from patchlight.errors import PatchlightError, UsageError, did_you_mean, first_of
from patchlight.units import counted

LABEL_NAMES = frozenset("label labels class class_name classname class_id classid target targets category".split())
IMAGE_NAMES = frozenset(
    "image images img file files file_name filename path paths filepath file_path image_path imagepath img_path "
    "image_name imagename image_file image_id imageid image_filename".split()
)
ONE_HOT = {"0": False, "0.0": False, "False": False, "1": True, "1.0": True, "True": True}
MANY_NUMBERS = 64  # columns: of 8 x 8 pixels
INDEX_NAMES = frozenset({"", "__index_level_0__", "unnamed: 0", "index"})  # what pandas writes

Values = Callable[[str], list[Any]]  # all cells of the column of a name


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

    def note(self, where: str, there: Iterable[str], *used: str) -> str:
        """A sentence on what was chosen, and which of the columns that are `there` are not used."""
        chosen = f"columns of {where}: images from '{self.image.name}', labels from '{self.label.name}'"
        others = [_called(name) for name in there if name not in (self.image.name, self.label.name, *used)]
        return f"{chosen}; not used: {first_of(others, 8)}" if others else chosen


def find_columns(columns: Iterable[Column], where: str, config: DataConfig, values: Values | None = None) -> Columns:
    """The image and the label column, by the rules at the top of this module.

    `values` gives all cells of a column; with it columns that look like one for each class are told.

    Raises UsageError for a setting that names no column, and PatchlightError, listing the columns that there are, where
    one is missing or two can be meant.
    """
    there = list(columns)
    image = _given(there, "image_column", config.image_column, where) or _image_of(there, where, values)
    if image.kind in ("number", "fraction", "other"):
        raise PatchlightError(f"{where}: the column '{image.name}' holds {image.about}, no images")
    label = label_column([column for column in there if column is not image], where, config, values)
    return Columns(image, label)


def label_column(there: list[Column], where: str, config: DataConfig, values: Values | None = None) -> Column:
    """The label among the columns that are not the image's. Raises as `find_columns`."""
    label = _given(there, "label_column", config.label_column, where) or _label_of(there, where, values)
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


def _image_of(there: list[Column], where: str, values: Values | None) -> Column:
    kinds = (
        [column for column in there if column.kind == "image"],
        [column for column in there if column.kind == "bytes"],
        [column for column in there if column.kind in ("text", "list") and column.name.casefold() in IMAGE_NAMES],
    )
    for candidates in kinds:
        if candidates:
            return _only(candidates, IMAGE_NAMES, "image", where)
    if values:
        refuse_unread([column.name for column in there if column.kind == "text"], values, where)
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


def _label_of(there: list[Column], where: str, values: Values | None) -> Column:
    declared = [column for column in there if column.is_class]
    named = [column for column in there if column.name.casefold() in LABEL_NAMES]
    rest = [c for c in there if c.kind in ("text", "number") and c.name.casefold() not in INDEX_NAMES]
    if values and not declared and not named:
        _refuse_one_hot([c.name for c in there if c.kind in ("text", "number", "fraction")], values, where)
    for candidates in (declared, named, rest):
        if candidates:
            return _only(candidates, LABEL_NAMES, "label", where)
    if not there:
        raise PatchlightError(f"{where} has no column beside that of the images; add one of the labels")
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


def _refuse_one_hot(names: list[str], values: Values, where: str) -> None:
    """Raises PatchlightError for several columns of nothing but 0 and 1, which are a column for each class."""
    columns = ((name, [ONE_HOT.get(str(cell)) for cell in values(name)]) for name in names)
    hot = {name: np.array(cells, dtype=bool) for name, cells in columns if None not in cells}
    if len(hot) < 2:
        return
    ones = np.sum(list(hot.values()), axis=0)
    found = f"{where} has {len(hot)} columns of 0 and 1: {first_of(hot, 8)}"
    if several := int((ones > 1).sum()):
        raise PatchlightError(
            f"{found}; {counted(several, 'row')} with several 1s look like several labels for an image, but Patchlight "
            "learns one class for each image (multi-label data are not supported); data.label_column takes one of the "
            "columns alone"
        )
    none = int((ones == 0).sum())
    raise PatchlightError(
        f"{found}, one for each class as it seems (one-hot), which are not read: make one column of them, in pandas "
        "df['label'] = df[cols].idxmax(axis=1) with cols the list of these"
        + (f"; take out the {counted(none, 'row')} without a 1 before" if none else "")
    )


def _listed(columns: Iterable[Column]) -> str:
    words = [f"{_called(column.name)} ({column.about})" for column in columns]
    return first_of(words, 12) or "none"


def _called(name: str) -> str:
    return name if name.strip() else "a column without a name"


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
