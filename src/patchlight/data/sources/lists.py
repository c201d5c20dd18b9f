"""File lists: CSV, TSV and JSON Lines with a column of paths and a column of labels.

A list may be one file, with all images or with a column that says the split of each, or a folder of files whose names
say it (`train.csv` beside `test.csv`); `metadata.csv` and `metadata.jsonl` are read as `datasets` reads them, from the
folder itself or from the folder of each split. Paths are relative to data.image_folder, else to the list's folder. All
cells are text, so that `001` stays `001`; labels that are whole numbers without such zeros become numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.decode import Encoded
from patchlight.data.listing import LeftOut, Listing, RawSplit
from patchlight.data.names import match_splits, split_of
from patchlight.data.sources.choice import splits_beside
from patchlight.data.sources.columns import (
    IMAGE_NAMES,
    LABEL_NAMES,
    Column,
    Columns,
    find_columns,
    label_column,
    refuse_pixels,
)
from patchlight.data.sources.labels import MISSING, read_labels
from patchlight.data.sources.located import Located, none_there, picture_folder
from patchlight.data.sources.rows import Row, Rows, read_rows
from patchlight.data.sources.split_columns import find_split_column
from patchlight.data.sources.tree import LISTS, SUFFIXES
from patchlight.data.sources.unread import refuse_unread, shown
from patchlight.errors import PatchlightError, UsageError, first_of
from patchlight.units import counted

METADATA = ("metadata.csv", "metadata.jsonl")
ABOUT = {"list": "lists", "object": "objects"} | {kind: kind for kind in ("text", "number", "fraction")}
WHOLE = re.compile(r"-?(0|[1-9]\d{0,17})(\.0*)?", re.ASCII)
TRIED = 20  # rows in which a file is looked for


def list_files(path: Path) -> list[Path]:
    """The lists at a path: the file itself, or those of a folder that are metadata files or called as splits."""
    if path.is_file():
        return [path] if path.suffix.lower() in LISTS else []
    splits = [folder for folder in _folders(path) if split_of(folder.name)[0]]
    for places in ([path], splits):
        if metadata := [place / name for place in places for name in METADATA if (place / name).is_file()]:
            return metadata
    lists = sorted(file for file in path.iterdir() if file.suffix.lower() in LISTS and file.is_file())
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
    read = [read_rows(file, config) for file in files]
    if len(read) == 1:  # before its splits, since those of a list that cannot be read do not matter
        config = _with_image_column(read[0], config)
    parts, notes = _parts(read, path, config)
    notes += [note for rows in read for note in rows.notes]
    matched = match_splits(parts, str(path), config)
    notes += matched.notes
    tables = {key: parts[name] for key, name in matched.splits.items()}
    first = next(iter(tables.values()))
    columns = find_columns(_columns(first), first.name, _with_image_column(first, config), first.values)
    _check_meant(columns, first, path, config)
    notes.append(columns.note(first.name, first.columns))
    image = columns.image.name
    left_out = splits_beside(
        matched, lambda name: len(parts[name].rows), lambda name: shown(parts[name].rows[0].get(image)), config
    )
    labelled = {key: rows for key, rows in tables.items() if _has_labels(rows, columns, config)}
    for key in tables.keys() - labelled.keys():
        rows = tables[key]
        left_out.append(LeftOut(f"images without labels (the split {key})", len(rows.rows), rows.name, expected=True))
    values, value_notes = _label_values(labelled, columns)
    labels = read_labels(
        values,
        columns.label,
        {key: rows.name for key, rows in labelled.items()},
        given=config.label_column is not None,
    )
    notes += [*value_notes, *labels.notes]
    splits, located = {}, dict[Path, Located]()
    for key, rows in labelled.items():
        folder = picture_folder(rows.file.parent, config)
        files_there = located.setdefault(folder, Located(folder))
        paths, found_notes = _paths(rows, columns.image.name, files_there)
        notes += found_notes
        own = labels.of_split[key]
        _tell(left_out, "rows without a label", rows, own < 0)
        missing = np.array([path is None for path in paths], dtype=bool)
        _check_found(missing, rows, columns.image.name, folder)
        _tell(left_out, "images that are not there", rows, missing & (own >= 0), columns.image.name, files=files_there)
        repeated = _repeated(paths, own, rows)
        _tell(left_out, "rows that name an image again", rows, repeated, columns.image.name, expected=True)
        kept = np.flatnonzero(~missing & (own >= 0) & ~repeated)
        if len(kept):
            found = [each for each in (paths[index] for index in kept) if each is not None]
            splits[key] = RawSplit(own[kept], _items(found))
    if not splits:
        raise PatchlightError(f"{path} has no labelled images")
    return Listing(
        splits,
        labels.class_names,
        notes=tuple(notes),
        left_out=tuple(left_out),
        files=tuple(files),
        folders=tuple(located) if config.image_folder else (),
    )


def _check_meant(columns: Columns, rows: Rows, path: Path, config: DataConfig) -> None:
    """Raises PatchlightError for a metadata file that may only describe images whose folders name their classes."""
    named = columns.label.name.casefold() in LABEL_NAMES or config.label_column is not None
    if rows.file.name in METADATA and not named and path.is_dir():
        folders = {str(value).replace("\\", "/").rpartition("/")[0] for value in rows.values(columns.image.name)}
        inside = [
            folder.name for folder in _folders(path) if any(e.suffix.lower() in SUFFIXES for e in folder.iterdir())
        ]
        if len(inside) > 1 and not all(split_of(name)[1] for name in inside):
            raise PatchlightError(
                f"{path} has class folders ({', '.join(inside[:4])}) and {rows.file.name} with the column "
                f"'{columns.label.name}': if that is the label, say so with data.label_column; if the folders are the "
                f"classes ({len(folders)} of them are named in it), move {rows.file.name} elsewhere"
            )


def _items(paths: list[Path]) -> Any:
    def items() -> Iterator[tuple[str, Encoded]]:
        return ((str(path), path) for path in paths)

    return items


def _tell(
    left_out: list[LeftOut],
    reason: str,
    rows: Rows,
    which: np.ndarray,
    column: str = "",
    *,
    expected: bool = False,
    files: Located | None = None,
) -> None:
    if count := int(which.sum()):
        index = int(np.flatnonzero(which)[0])
        name = str(rows.rows[index].get(column)) if column else f"row {index + 1} of {rows.name}"
        other = files.alike(name) if files else None
        left_out.append(
            LeftOut(
                reason, count, (shown(name) if column else name) + (f" (there is {other})" if other else ""), expected
            )
        )


# --- splits ---


def _parts(tables: list[Rows], path: Path, config: DataConfig) -> tuple[dict[str, Rows], list[str]]:
    """The rows of each split, by the source's own names of them, and notes."""
    if len(tables) > 1:
        if config.split_column is not None:
            raise UsageError(f"data.split_column: {path} has a list for each split; leave it out")
        for table in tables:
            said = find_split_column(table.columns, table.values, table.name, config)
            if said and len(set(said.names)) > 1:
                raise PatchlightError(
                    f"{table.name} has splits in its column '{said.column}', but {path} has a list for each split; "
                    "give one list as the source, or take the column out"
                )
        return {_name_of(table.file, path): table for table in tables}, []
    table = tables[0]
    said = find_split_column(table.columns, table.values, table.name, config)
    if said is None:
        return _split_folders(table, path) or ({_name_of(table.file, path): table}, [])
    parts: dict[str, list[Row]] = {}
    for row, name in zip(table.rows, said.names, strict=True):
        parts.setdefault(name, []).append(row)
    columns = tuple(name for name in table.columns if name != said.column)
    return {name: Rows(f"{table.name} ({name})", columns, rows, table.file) for name, rows in parts.items()}, [
        said.note
    ]


def _split_folders(table: Rows, path: Path) -> tuple[dict[str, Rows], list[str]] | None:
    """The parts of a metadata file whose paths all begin with the folder of a split, as `datasets` reads them."""
    column = next((name for name in table.columns if name.casefold() in IMAGE_NAMES), None)
    if table.file.name not in METADATA or column is None:
        return None
    parts: dict[str, list[Row]] = {}
    for row in table.rows:
        parts.setdefault(str(row.get(column)).replace("\\", "/").partition("/")[0], []).append(row)
    if len(parts) < 2 or not all(split_of(name)[1] for name in parts):
        return None
    rows = {name: Rows(f"{table.name} ({name})", table.columns, own, table.file) for name, own in parts.items()}
    return rows, [f"splits of {table.name}: from the folders in its paths"]


def _name_of(file: Path, root: Path) -> str:
    """The name of a list's split; a list that is the whole source is train, unless its name says otherwise."""
    if file.name in METADATA:
        return file.parent.name if file.parent != root else "train"
    return "train" if file == root and split_of(file.stem)[0] is None else file.stem


# --- columns and labels ---


def _with_image_column(table: Rows, config: DataConfig) -> DataConfig:
    """The settings with the one column whose first cell names a file, where no column is called as those of images."""
    if config.image_column is not None or any(name.casefold() in IMAGE_NAMES for name in table.columns):
        return config
    files = Located(picture_folder(table.file.parent, config))
    looked_up: tuple[tuple[Callable[[str], Any], float], ...] = ((files.find, 0), (files.below, 0.5))
    for look_up, least in looked_up:
        naming = [name for name in table.columns if _share_found(table, name, look_up) > least]
        if naming:
            break
    else:
        raise PatchlightError(_none_names_an_image(table, config))
    if look_up == files.below and (named := [name for name in table.columns if files.below(name)]):
        raise PatchlightError(
            f"{table.name}: its first line has '{named[0]}', which names an image; put a line before it that names the "
            "columns, as image,label"
        )
    return replace(config, image_column=naming[0]) if len(naming) == 1 else config


def _share_found(table: Rows, column: str, look_up: Callable[[str], Any]) -> float:
    """Which part (0..1) of a column's first cells names a file."""
    cells = [row.get(column) for row in table.rows[:TRIED]]
    return sum(cell is not None and bool(look_up(str(cell))) for cell in cells) / len(cells)


def _none_names_an_image(table: Rows, config: DataConfig) -> str:
    refuse_unread(table.columns, table.values, table.name)
    first = [str(value) for value in table.rows[0].values()]
    refuse_pixels(sum(text.replace(".", "", 1).isdecimal() for text in first), table.name)
    return (
        f"{table.name}: none of the columns {first_of(table.columns, 8)} names an image in "
        f"{config.image_folder or table.file.parent} or in the folders below; data.image_folder says what the paths "
        "are relative to, and data.image_column which column has them"
    )


def _columns(table: Rows) -> list[Column]:
    found = []
    for name in table.columns:
        kinds = {_kind(value) for value in table.values(name) if value is not None}
        mixed = "text" if "text" in kinds else "fraction"
        kind = kinds.pop() if len(kinds) == 1 else mixed if kinds and kinds <= {"text", "number", mixed} else "other"
        found.append(Column(name, kind, ABOUT.get(kind) or f"values of several types ({first_of(sorted(kinds), 4)})"))
    return found


def _kind(value: Any) -> str:
    kinds: tuple[tuple[str, type | Any], ...] = (
        ("text", str),
        ("number", bool | int),
        ("fraction", float),
        ("list", list),
    )
    return next((kind for kind, of in kinds if isinstance(value, of)), "object")


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


def _label_values(tables: dict[str, Rows], columns: Columns) -> tuple[dict[str, list[Any]], list[str]]:
    """The labels of each split; text that is whole numbers everywhere (1, 1.0, not 01) becomes numbers."""
    name = columns.label.name
    values = {key: rows.values(name) for key, rows in tables.items()}
    texts = [value for own in values.values() for value in own if value is not None]
    if not all(isinstance(text, str) and (WHOLE.fullmatch(text) or text in MISSING) for text in texts):
        return values, []
    numbers = {text: None if text in MISSING else int(text.partition(".")[0]) for text in set(texts)}
    points = sorted(text for text in numbers if "." in text)
    notes = [f"labels of '{name}' such as {points[0]} are read as whole numbers"] if points else []
    return {key: [None if value is None else numbers[value] for value in own] for key, own in values.items()}, notes


# --- paths ---


def _paths(rows: Rows, column: str, files: Located) -> tuple[list[Path | None], list[str]]:
    """The file of each row, None where there is none, and a note on those that lie in folders below."""
    names = [None if value is None else str(value) for value in rows.values(column)]
    paths = [None if name is None else files.find(name) for name in names]
    below = [index for index, path in enumerate(paths) if path is None and names[index] is not None]
    for index in below:
        paths[index] = files.find_below(str(names[index]))
    found = [path for path in (paths[index] for index in below) if path is not None]
    if not found:
        return paths, []
    return paths, [
        f"{rows.name}: {len(found):,} of {counted(len(paths), 'image')} found by name in the folders below "
        f"{files.folder}, such as {found[0]}"
    ]


def _check_found(missing: np.ndarray, rows: Rows, column: str, folder: Path) -> None:
    """Raises PatchlightError where no image is there, which means that the folder is wrong."""
    if missing.all():
        first = next((str(value) for value in rows.values(column) if value is not None), "")
        raise PatchlightError(none_there(rows.name, len(missing), first, folder))


def _repeated(paths: list[Path | None], labels: np.ndarray, rows: Rows) -> np.ndarray:
    """Which rows (N,) name a file that a row before them names, with the same label.

    Raises PatchlightError for a file that stands under two labels.
    """
    first: dict[Path, int] = {}
    repeated = np.zeros(len(paths), dtype=bool)
    for row, path in enumerate(paths):
        if path is None or labels[row] < 0:
            continue
        if (before := first.setdefault(path, row)) != row:
            repeated[row] = True
            if labels[before] != labels[row]:
                raise PatchlightError(
                    f"{rows.name}: {path} is listed with two labels, in the rows {before + 1} and {row + 1}; an image "
                    "has one class (multi-label data are not supported)"
                )
    return repeated
