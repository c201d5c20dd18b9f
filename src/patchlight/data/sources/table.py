"""A table of one split as Arrow, and a table of all splits by the column that says them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.sources.columns import arrow_columns, find_columns
from patchlight.data.sources.split_columns import find_split_column, meant_by_truth
from patchlight.errors import PatchlightError, UsageError, first_of


@dataclass(frozen=True)
class Table:
    """One split as Arrow: its name in messages, its schema, and a walk over batches of some of its columns."""

    name: str
    schema: Any
    batches: Callable[[list[str]], Iterator[Any]]
    rows: Callable[[], int]
    folder: Path | None = None  # what image paths inside the table are relative to

    def column(self, name: str) -> list[Any]:
        """All values of a column."""
        return list(self.cells(name))

    def cells(self, name: str, part: str = "") -> Iterator[Any]:
        """The values of a column, or that `part` of its structs alone, one after the other.

        Raises PatchlightError for values that cannot be read.
        """
        for batch in self.batches([name + part]):
            try:
                values = batch.column(name).to_pylist()
            except (ValueError, OverflowError) as error:  # text that is not UTF-8, times that no calendar has
                raise PatchlightError(f"{self.name}: the column '{name}' is damaged: {in_a_line(error)}") from error
            yield from values


def divided(tables: dict[str, Table], config: DataConfig) -> tuple[dict[str, Table], tuple[str, ...]]:
    """The tables; of one that is alone and has a column of splits its parts, by their names, and a note on it.

    Raises UsageError for data.split_column where there are several tables, and as `find_split_column` and
    `find_columns` do.
    """
    if len(tables) != 1:
        if config.split_column is not None:
            raise UsageError(
                f"data.split_column says nothing of {config.source}, which is divided already, into "
                f"{first_of(tables, 8)}; leave it out"
            )
        return tables, ()
    (table,) = tables.values()
    columns = [
        column.name
        for column in arrow_columns(table.schema)
        if column.kind == "text" or (column.kind == "number" and meant_by_truth(column.name))
    ]
    said = find_split_column(columns, table.column, table.name, config)
    if said is None:
        return tables, ()
    names = np.array(said.names)
    schema = table.schema.remove(table.schema.get_field_index(said.column))
    find_columns(arrow_columns(schema), table.name, config, table.column)  # else its splits do not matter
    whole = replace(table, schema=schema)
    return {name: _part(whole, names == name, name) for name in dict.fromkeys(said.names)}, (said.note,)


def _part(table: Table, rows: np.ndarray, name: str) -> Table:
    """The `rows` of a table: (N,), true for those that belong to the part."""
    import pyarrow

    def walk(columns: list[str]) -> Iterator[Any]:
        start = 0
        for batch in table.batches(columns):
            yield batch.filter(pyarrow.array(rows[start : start + batch.num_rows]))
            start += batch.num_rows

    return replace(table, name=f"{table.name} ({name})", batches=walk, rows=lambda: int(rows.sum()))


def in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
