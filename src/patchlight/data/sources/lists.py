"""File lists: CSV, TSV and JSON Lines with a column of paths and a column of labels.

A list may be one file, with all images or with a column that says the split of each, or a folder of files whose names
say it (`train.csv` beside `test.csv`); `metadata.csv` and `metadata.jsonl` are read as `datasets` reads them, from the
folder itself or from the folder of each split. Paths are relative to data.image_folder, else to the list's folder. All
cells are text, so that `001` stays `001`; labels that are whole numbers without such zeros become numbers.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.decode import Encoded
from patchlight.data.listing import LeftOut, Listing, RawSplit, file_facts, hash_of
from patchlight.data.names import SPLIT_WORDS, match_splits, names_are_given, split_of
from patchlight.data.sources.columns import (
    IMAGE_NAMES,
    Column,
    Columns,
    find_columns,
    label_column,
    read_labels,
    refuse_pixels,
)
from patchlight.data.sources.tree import SUFFIXES
from patchlight.errors import PatchlightError, UsageError
from patchlight.paths import user_path

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson")
METADATA = ("metadata.csv", "metadata.jsonl")
SPLIT_COLUMNS = ("split", "subset", "partition")

Row = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """What one list, or a part of one, says: its name in messages, its columns, its rows, and where its paths begin."""

    name: str
    columns: tuple[str, ...]
    rows: list[Row]
    file: Path
    notes: tuple[str, ...] = ()  # how the file was read

    def values(self, column: str) -> list[Any]:
        """All cells of a column, None where a row has none."""
        return [row.get(column) for row in self.rows]


def list_files(path: Path) -> list[Path]:
    """The lists at a path: the file itself, or those of a folder that are metadata files or called as splits."""
    if path.is_file():
        return [path] if path.suffix.lower() in LIST_SUFFIXES else []
    metadata = [path / name for name in METADATA if (path / name).is_file()]
    if metadata:
        return metadata
    below = [
        folder / name for folder in _folders(path) if split_of(folder.name)[0] for name in METADATA
        if (folder / name).is_file()
    ]  # fmt: skip
    if below:
        return below
    lists = sorted(file for file in path.iterdir() if file.suffix.lower() in LIST_SUFFIXES and file.is_file())
    lists = [file for file in lists if split_of(file.stem)[0] and not file.name.startswith(".")]
    train = any(split_of(file.stem)[0] == "train" for file in lists)
    return lists if train and not _has_class_folders(path) else []


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _has_class_folders(path: Path) -> bool:
    """Whether there are images in folders of a split folder, which then say the classes."""
    splits = [folder for folder in _folders(path) if split_of(folder.name)[0] == "train"]
    return any(
        entry.suffix.lower() in SUFFIXES for split in splits for inner in _folders(split) for entry in inner.iterdir()
    )


def list_lists(path: Path, config: DataConfig) -> Listing:
    """The listing of a list or a folder of lists. Raises PatchlightError for a file that cannot be read as one, for
    columns that are missing or can be meant twice, and where none of the images is there.
    """
    files = list_files(path)
    read = [_read(file) for file in files]
    parts, notes = _parts(read, path, config)
    notes += [note for rows in read for note in rows.notes]
    matched = match_splits(parts, str(path), config)
    notes += matched.notes
    tables = {key: parts[name] for key, name in matched.splits.items()}
    first = next(iter(tables.values()))
    columns = find_columns(_columns(first), first.name, _with_image_column(first, config))
    notes.append(columns.note(first.name))
    left_out = [
        LeftOut(f"images of the split '{name}'", len(parts[name].rows), parts[name].name, names_are_given(config))
        for name in matched.others
    ]
    labelled = {key: rows for key, rows in tables.items() if _has_labels(rows, columns, config)}
    for key in tables.keys() - labelled.keys():
        rows = tables[key]
        left_out.append(LeftOut(f"images without labels (the split {key})", len(rows.rows), rows.name, expected=True))
    labels = read_labels(
        _label_values(labelled, columns),
        columns.label,
        {key: rows.name for key, rows in labelled.items()},
        given=config.label_column is not None,
    )
    splits, used = {}, list[Path]()
    for key, rows in labelled.items():
        paths = _paths(rows, columns.image.name, config)
        own = labels.of_split[key]
        _tell(left_out, "rows without a label", rows, own < 0)
        missing = np.array([path is None for path in paths], dtype=bool)
        _check_found(missing, rows, columns.image.name, config)
        _tell(left_out, "images that are not there", rows, missing & (own >= 0), columns.image.name)
        kept = np.flatnonzero(~missing & (own >= 0))
        if len(kept):
            found = [each for each in (paths[index] for index in kept) if each is not None]
            splits[key] = RawSplit(own[kept], _items(found))
            used += found
    if not splits:
        raise PatchlightError(f"{path} has no labelled images")
    return Listing(
        splits,
        labels.class_names,
        lambda: hash_of([file_facts(files), file_facts(used)]),
        notes=tuple(notes),
        left_out=tuple(left_out),
    )


def _items(paths: list[Path]) -> Any:
    def items() -> Iterator[tuple[str, Encoded]]:
        return ((str(path), path) for path in paths)

    return items


def _tell(left_out: list[LeftOut], reason: str, rows: Rows, which: np.ndarray, column: str = "") -> None:
    if count := int(which.sum()):
        index = int(np.flatnonzero(which)[0])
        example = str(rows.rows[index].get(column)) if column else f"row {index + 1} of {rows.name}"
        left_out.append(LeftOut(reason, count, example))


# --- reading ---


def _read(file: Path) -> Rows:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PatchlightError(
            f"{file} is not UTF-8 text ({error.reason} at byte {error.start}); store it as UTF-8"
        ) from None
    rows = _json_lines(text, file) if file.suffix.lower() in (".jsonl", ".ndjson") else _csv(text, file)
    if not rows.rows:
        raise PatchlightError(f"{file} has no rows")
    return rows


def _json_lines(text: str, file: Path) -> Rows:
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PatchlightError(f"{file}: line {number} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise PatchlightError(f'{file}: line {number} is no JSON object, as in {{"image": "a.png", "label": 0}}')
        rows.append(row)
    columns = dict.fromkeys(name for row in rows for name in row)
    return Rows(str(file), tuple(columns), rows, file)


def _csv(text: str, file: Path) -> Rows:
    """A table whose first line names the columns, unless the first line itself names a file that is there."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=first.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        lines = [line for line in reader if any(cell.strip() for cell in line)]
    except csv.Error as error:
        raise PatchlightError(f"{file} is no table with {DELIMITERS[delimiter]}: {error}") from None
    if not lines:
        raise PatchlightError(f"{file} is empty")
    notes: tuple[str, ...] = ()
    if delimiter != ",":
        notes += (f"{file} is read as a table with {DELIMITERS[delimiter]}",)
    header = [name.strip() for name in lines[0]]
    if any(cell and _file_of(file.parent, cell) for cell in header):
        header = [f"column {number}" for number in range(1, len(header) + 1)]
        notes += (f"{file} does not name its columns; they are called column 1 to column {len(header)}",)
    else:
        lines = lines[1:]
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise PatchlightError(f"{file} has two columns called '{twice[0]}'; rename one")
    for number, line in enumerate(lines, 1):
        if len(line) != len(header):
            raise PatchlightError(
                f"{file}: row {number} has {len(line)} cells where the first line has {len(header)} (with "
                f"{DELIMITERS[delimiter]} between them); put quotes around a cell that has one of these in it"
            )
    rows: list[Row] = [{name: cell.strip() or None for name, cell in zip(header, line, strict=True)} for line in lines]
    return Rows(str(file), tuple(header), rows, file, notes)


# --- splits ---


def _parts(tables: list[Rows], path: Path, config: DataConfig) -> tuple[dict[str, Rows], list[str]]:
    """The rows of each split, by the source's own names of them, and notes."""
    if len(tables) > 1:
        if config.split_column is not None:
            raise UsageError(f"data.split_column: {path} has a list for each split; leave it out")
        return {_name_of(table.file, path): table for table in tables}, []
    table = tables[0]
    column = _split_column(table, config)
    if column is None:
        return {_name_of(table.file, path): table}, []
    parts: dict[str, list[Row]] = {}
    for row in table.rows:
        parts.setdefault(str(row.get(column)), []).append(row)
    note = f"splits of {table.name}: from the column '{column}'"
    columns = tuple(name for name in table.columns if name != column)
    return {name: Rows(f"{table.name} ({name})", columns, rows, table.file) for name, rows in parts.items()}, [note]


def _name_of(file: Path, root: Path) -> str:
    """The name of a list's split; a list that is the whole source is train, unless its name says otherwise."""
    if file.name in METADATA:
        return file.parent.name if file.parent != root else "train"
    return "train" if file == root and split_of(file.stem)[0] is None else file.stem


def _split_column(table: Rows, config: DataConfig) -> str | None:
    """data.split_column, else a column that is called so and holds nothing but names of splits."""
    if config.split_column is not None:
        if config.split_column not in table.columns:
            raise UsageError(
                f"data.split_column: {table.name} has no column '{config.split_column}', but {', '.join(table.columns)}"
            )
        return config.split_column
    for name in table.columns:
        if name.lower() in SPLIT_COLUMNS and all(str(value).lower() in SPLIT_WORDS for value in table.values(name)):
            return name
    return None


# --- columns and labels ---


def _with_image_column(table: Rows, config: DataConfig) -> DataConfig:
    """The settings with the one column whose first cell names a file, where no column is called as those of images."""
    if config.image_column is not None or any(name.casefold() in IMAGE_NAMES for name in table.columns):
        return config
    naming = []
    for name in table.columns:
        first = next((row for row in table.rows if row.get(name) is not None), None)
        if first is not None and _paths(Rows(table.name, (name,), [first], table.file), name, config)[0]:
            naming.append(name)
    if not naming:
        cells = (str(value) for value in table.rows[0].values())
        refuse_pixels(sum(cell.replace(".", "", 1).isdecimal() for cell in cells), table.name)
        shown = ", ".join(table.columns[:8]) + (", ..." if len(table.columns) > 8 else "")
        raise PatchlightError(
            f"{table.name}: none of the columns {shown} names an image in "
            f"{config.image_folder or table.file.parent}; data.image_folder says what the paths are relative to, and "
            "data.image_column which column has them"
        )
    return replace(config, image_column=naming[0]) if len(naming) == 1 else config


def _columns(table: Rows) -> list[Column]:
    found = []
    for name in table.columns:
        kinds = {_kind(value) for value in table.values(name) if value is not None}
        kind = (
            "text" if "text" in kinds and kinds <= {"text", "number"} else kinds.pop() if len(kinds) == 1 else "other"
        )
        found.append(Column(name, kind, {"list": "lists", "other": "values of several types"}.get(kind, kind)))
    return found


def _kind(value: Any) -> str:
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool | int):
        return "number"
    if isinstance(value, float):
        return "fraction"
    return "list" if isinstance(value, list) else "other"


def _has_labels(rows: Rows, columns: Columns, config: DataConfig) -> bool:
    """Whether there is a label in the label's column, which may be missing where no other can be meant.

    Raises PatchlightError where the label stands in another column.
    """
    if columns.label.name in rows.columns:
        return any(value is not None for value in rows.values(columns.label.name))
    try:
        other = label_column([c for c in _columns(rows) if c.name != columns.image.name], rows.name, config)
    except PatchlightError:
        return False
    raise PatchlightError(f"{rows.name} has no column '{columns.label.name}'; is '{other.name}' its label? Rename it")


def _label_values(tables: dict[str, Rows], columns: Columns) -> dict[str, list[Any]]:
    """The labels of each split; text that is whole numbers everywhere becomes numbers."""
    values = {key: rows.values(columns.label.name) for key, rows in tables.items()}
    texts = [value for own in values.values() for value in own if value is not None]
    if all(isinstance(text, str) and text.lstrip("-").isdecimal() and _is_plain(text) for text in texts):
        return {key: [None if value is None else int(value) for value in own] for key, own in values.items()}
    return values


def _is_plain(text: str) -> bool:
    return len(text) < 19 and str(int(text)) == text


# --- paths ---


def _paths(rows: Rows, column: str, config: DataConfig) -> list[Path | None]:
    """The file of each row, None where there is none."""
    folder = rows.file.parent if config.image_folder is None else user_path(config.image_folder)
    if not folder.is_dir():
        raise UsageError(f"data.image_folder: there is no folder '{config.image_folder}'")
    stems: dict[str, list[str]] | None = None
    found: list[Path | None] = []
    for value in rows.values(column):
        path = None if value is None else _file_of(folder, str(value))
        if path is None and value is not None and not Path(str(value)).suffix:
            stems = _stems(folder) if stems is None else stems
            named = stems.get(str(value), [])
            path = folder / named[0] if len(named) == 1 else None
        found.append(path)
    return found


def _file_of(folder: Path, name: str) -> Path | None:
    for written in dict.fromkeys((name, name.replace("\\", "/"))):  # as Windows writes paths
        try:
            if (folder / written).is_file():
                return folder / written
        except (ValueError, OSError):  # a null character, a name that is too long
            return None
    return None


def _stems(folder: Path) -> dict[str, list[str]]:
    """The images right in the folder by their names without suffix: lists such as Kaggle's leave it out."""
    stems: dict[str, list[str]] = {}
    for path in folder.iterdir():
        if path.suffix.lower() in SUFFIXES:
            stems.setdefault(path.stem, []).append(path.name)
    return stems


def _check_found(missing: np.ndarray, rows: Rows, column: str, config: DataConfig) -> None:
    """Raises PatchlightError where no image is there, which means that the folder is wrong."""
    if not missing.all():
        return
    first = next((str(value) for value in rows.values(column) if value is not None), "")
    if first.startswith(("http://", "https://", "s3://", "gs://")):
        raise PatchlightError(
            f"{rows.name}: the column '{column}' holds addresses ({first}); download the images first"
        )
    folder = config.image_folder or rows.file.parent
    raise PatchlightError(
        f"{rows.name}: none of its {len(missing):,} images is there; the first is {first}, looked for in {folder}; "
        "data.image_folder says what the paths are relative to"
    )
