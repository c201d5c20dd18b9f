"""The rows of a list: a CSV or TSV table, or JSON Lines, as text and plain values."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchlight.config import DataConfig
from patchlight.data.sources.choice import SUFFIXES
from patchlight.data.sources.located import Located, picture_folder
from patchlight.errors import PatchlightError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}

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


def read_rows(file: Path, config: DataConfig) -> Rows:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PatchlightError(
            f"{file} is not UTF-8 text ({error.reason} at byte {error.start}); store it as UTF-8"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise PatchlightError(f"{file} has a character of value 0 in line {line}, as no text has; store it as UTF-8")
    rows = _json_lines(text, file) if file.suffix.lower() in (".jsonl", ".ndjson") else _csv(text, file, config)
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


def _csv(text: str, file: Path, config: DataConfig) -> Rows:
    """A table whose first line names the columns, unless the first line itself names an image."""
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
    if _names_an_image(header, file, config):
        header = [f"column {number}" for number in range(1, len(header) + 1)]
        notes += (f"{file} does not name its columns; they are called column 1 to column {len(header)}",)
    else:
        lines = lines[1:]
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise PatchlightError(f"{file} has two columns called '{twice[0]}'; rename one")
    for number, line in enumerate(lines, 1):
        if len(line) != len(header):
            if len(header) == 1:
                raise PatchlightError(
                    f"{file}: the first line has one cell, '{header[0][:40]}', and row {number} has {len(line)}; the "
                    "first line must name the columns, so take out what stands before it"
                )
            raise PatchlightError(
                f"{file}: row {number} has {len(line)} cells where the first line has {len(header)} (with "
                f"{DELIMITERS[delimiter]} between them); put quotes around a cell that has one of these in it"
            )
    rows: list[Row] = [{name: cell.strip() or None for name, cell in zip(header, line, strict=True)} for line in lines]
    return Rows(str(file), tuple(header), rows, file, notes)


def _names_an_image(cells: list[str], file: Path, config: DataConfig) -> bool:
    """Whether one of the cells is the name of an image file, there or not, with its suffix or without."""
    if any(Path(cell).suffix.lower() in SUFFIXES for cell in cells):
        return True
    files = Located(picture_folder(file.parent, config))
    return any(cell and files.find(cell) is not None for cell in cells)
