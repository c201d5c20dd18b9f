"""The rows of a list: a CSV or TSV table, or JSON Lines, as text and plain values."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patchlight.config import DataConfig
from patchlight.data.sources.choice import SUFFIXES
from patchlight.data.sources.columns import refuse_pixels
from patchlight.data.sources.located import Located, picture_folder
from patchlight.errors import PatchlightError, first_of
from patchlight.units import counted

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
SEPARATOR = re.compile(r'"?sep=([^\w\s"]|\t)"?[ ,;\t]*(?=[\r\n])', re.IGNORECASE)  # Excel's first line
LARGEST = 2**31 - 1  # characters of a cell: the pixels of an image may stand in one

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
    """JSON Lines, or one JSON array of the objects."""
    array = _json(text) if text.lstrip().startswith("[") else None
    whole = array if isinstance(array, list) and any(isinstance(row, dict) for row in array) else None
    what = "entry" if whole else "line"
    lines = whole or [_json(line) if line.strip() else None for line in text.split("\n")]
    rows: list[Row] = []
    for number, row in enumerate(lines, 1):
        if isinstance(row, dict):
            rows.append(row)
        elif isinstance(row, ValueError | RecursionError):
            reason = f"{row.msg}, column {row.colno}" if isinstance(row, json.JSONDecodeError) else str(row)
            raise PatchlightError(f"{file}: line {number} is no JSON: {reason}")
        elif row is not None:
            raise PatchlightError(f'{file}: {what} {number} is no JSON object, as in {{"image": "a.png", "label": 0}}')
    columns = dict.fromkeys(name for row in rows for name in row)
    notes = (f"{file} is one JSON array, whose objects are read as lines",) if whole else ()
    return Rows(str(file), tuple(columns), rows, file, notes)


def _json(text: str) -> Any:
    """The value, in which NaN is none; or the error, where it is no JSON."""
    try:
        return json.loads(text, parse_constant=lambda name: None if name == "NaN" else float(name))
    except (ValueError, RecursionError) as error:
        return error


def _csv(text: str, file: Path, config: DataConfig) -> Rows:
    """A table whose first line names the columns, unless the first line itself names an image."""
    text, delimiter, notes = _delimiter(text, file)
    lines = _cells(text, file, delimiter)
    header = [name.strip() for name in lines[0]]
    if _names_an_image(header, file, config):
        header = [f"column {number}" for number in range(1, len(header) + 1)]
        notes += (f"{file} does not name its columns; they are called {first_of(header, 4)}",)
    else:
        lines = lines[1:]
    if twice := sorted({name for name in header if header.count(name) > 1}):
        refuse_pixels(sum(name.replace(".", "", 1).isdecimal() for name in header), str(file))
        called = f"called '{twice[0]}'" if twice[0] else "without a name"
        raise PatchlightError(f"{file} has two columns {called}; rename one")
    for number, line in enumerate(lines, 1):
        if len(line) != len(header):
            raise PatchlightError(_uneven(file, number, line, header, DELIMITERS.get(delimiter, f"'{delimiter}'")))
    rows: list[Row] = [{name: cell.strip() or None for name, cell in zip(header, line, strict=True)} for line in lines]
    return Rows(str(file), tuple(header), rows, file, notes)


def _delimiter(text: str, file: Path) -> tuple[str, str, tuple[str, ...]]:
    """The text without Excel's `sep=;` in the first line, the delimiter of its cells, and a note on it."""
    if match := SEPARATOR.match(text):
        # An empty line in its place: numbers of lines stay as they are.
        return (
            text[match.end() :],
            match[1],
            (f"{file} is read with '{match[1]}' between cells, as its first line says",),
        )
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=first.count)
    usual = "\t" if file.suffix.lower() == ".tsv" else ","
    if delimiter == usual or delimiter not in first:
        return text, delimiter, ()
    return text, delimiter, (f"{file} is read as a table with {DELIMITERS[delimiter]}",)


def _cells(text: str, file: Path, delimiter: str) -> list[list[str]]:
    """The lines that have a cell with something in it."""
    lines: list[list[str]] = []
    limit = csv.field_size_limit(LARGEST)  # of all readers of this process
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    start = 1
    try:
        for line in reader:
            start = reader.line_num + 1
            if any(cell.strip() for cell in line):
                lines.append(line)
    except csv.Error as error:
        words = DELIMITERS.get(delimiter, f"'{delimiter}'")
        if str(error) == "unexpected end of data":
            raise PatchlightError(
                f"{file} is no table with {words}: a quote that opens in line {start} is not closed; close it, or take "
                "it out"
            ) from None
        raise PatchlightError(f"{file} is no table with {words}: {error} (line {start})") from None
    finally:
        csv.field_size_limit(limit)
    if not lines:
        raise PatchlightError(f"{file} is empty")
    return lines


def _uneven(file: Path, number: int, line: list[str], header: list[str], words: str) -> str:
    if len(header) == 1:
        return (
            f"{file}: the first line has one cell, '{header[0][:40]}', and row {number} has {len(line)}; the first "
            "line must name the columns, so take out what stands before it"
        )
    return (
        f"{file}: row {number} has {counted(len(line), 'cell')} where the first line has {len(header)} (with {words} "
        "between them); put quotes around a cell that has one of these in it"
    )


def _names_an_image(cells: list[str], file: Path, config: DataConfig) -> bool:
    """Whether one of the cells is the name of an image file, there or not, with its suffix or without."""
    if any(Path(cell).suffix.lower() in SUFFIXES for cell in cells):
        return True
    files = Located(picture_folder(file.parent, config))
    return any(cell and files.find(cell) is not None for cell in cells)
