"""A table as Markdown, CSV and LaTeX, of the same cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Value = str | int | float | None


@dataclass(frozen=True)
class Column:
    """A column: its name in CSV, its title for people, and how a value of it is shown to them."""

    key: str  # "val_top1_mean"
    title: str  # "validation %"
    show: Callable[[Value], str] = str
    left: bool = False  # text, aligned to the left


@dataclass(frozen=True)
class Table:
    """Columns, rows of plain values, and sentences that belong below. None is a value that is not known."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    caption: str = ""
    notes: tuple[str, ...] = ()
