"""A table as Markdown, CSV and LaTeX, of the same cells. FORMATS is the table of these forms.

For people (Markdown, LaTeX) a value is shown as its column says, and a dash stands for one that is not known. CSV is
for programs: plain numbers with all their digits, and an empty cell for what is not known.
"""

from __future__ import annotations

import csv as csv_module
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from patchlight.reporting.markdown import as_text
from patchlight.units import printable

Value = str | int | float | None
UNKNOWN = "-"  # how None is shown to people

# What a spreadsheet takes for the beginning of a formula, and may run (OWASP, "CSV Injection"). Tabs and ends of lines
# are among them there; `printable` has written those as \t and \n before.
FORMULA = ("=", "+", "-", "@")

# What a sign is in LaTeX, where it is not itself. A bracket or an asterisk that begins a row would be an option of the
# end of the row before it, and some signs of ASCII are others in the fonts that are LaTeX's default.
LATEX = {
    **{sign: f"\\{sign}" for sign in "%&#_{}$"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedblright{}",
    "`": r"\textasciigrave{}",
    **{sign: f"{{{sign}}}" for sign in "[]*"},
    "\N{NO-BREAK SPACE}": "~",
    "\N{EN DASH}": r"\textendash{}",
    "\N{EM DASH}": r"\textemdash{}",
    "\N{HORIZONTAL ELLIPSIS}": r"\dots{}",
    "\N{LEFT SINGLE QUOTATION MARK}": r"\textquoteleft{}",
    "\N{RIGHT SINGLE QUOTATION MARK}": r"\textquoteright{}",
    "\N{LEFT DOUBLE QUOTATION MARK}": r"\textquotedblleft{}",
    "\N{RIGHT DOUBLE QUOTATION MARK}": r"\textquotedblright{}",
    "\N{MINUS SIGN}": "$-$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{MIDDLE DOT}": r"$\cdot$",
    "\N{DEGREE SIGN}": r"$^\circ$",
    "\N{MICRO SIGN}": r"$\mu$",
    "\N{GREEK SMALL LETTER MU}": r"$\mu$",
    "\N{GREEK CAPITAL LETTER DELTA}": r"$\Delta$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\le$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\ge$",
    "\N{ALMOST EQUAL TO}": r"$\approx$",
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{SUPERSCRIPT TWO}": "$^2$",
    "\N{SUPERSCRIPT THREE}": "$^3$",
}
# Letters that pdflatex writes without a further package, tried one by one; beyond them and ASCII it stops at a sign.
LATEX_LETTERS = frozenset(
    "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿ"
    "ĀāĂăĆćĈĉĊċČčĎďĒēĔĕĖėĚěĜĝĞğĠġĤĥĨĩĪīĬĭİıĴĵĹĺŁłŃńŇňŌōŎŏŐőŒœŔŕŘřŚśŜŝŞşŠšŢţŤťŨũŪūŬŭŮůŰűŴŵŶŷŸŹźŻżŽž"
)


@dataclass(frozen=True)
class Column:
    """A column: its name in CSV, its title for people, and how a value of it is shown to them."""

    key: str  # "val_top1_mean"
    title: str  # "validation %"
    show: Callable[[Value], str] = str
    left: bool = False  # text, aligned to the left

    def shown(self, value: Value) -> str:
        """A value as people read it; UNKNOWN for None, which `show` is never asked."""
        return UNKNOWN if value is None else self.show(value)


@dataclass(frozen=True)
class Table:
    """Columns, rows of plain values, and sentences that belong below. None is a value that is not known."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    caption: str = ""
    notes: tuple[str, ...] = ()

    def shown(self) -> list[list[str]]:
        """The rows as people read them, without the titles."""
        return [[column.shown(value) for column, value in zip(self.columns, row, strict=True)] for row in self.rows]


def markdown(table: Table) -> str:
    """The table as GitHub's Markdown: the caption, aligned columns, and below a paragraph for each note.

    Whatever stands in a cell is read as text; a bar does not end it.
    """
    titles = [as_text(column.title) for column in table.columns]
    rows = [[as_text(cell) for cell in row] for row in table.shown()]
    widths = [max(3, *(len(row[i]) for row in [titles, *rows])) for i in range(len(titles))]
    rule = [
        "-" * width if column.left else "-" * (width - 1) + ":"
        for column, width in zip(table.columns, widths, strict=True)
    ]
    lines = [_bars(row, table.columns, widths) for row in [titles, rule, *rows]]
    parts = [_paragraph(table.caption), "\n".join(lines), *map(_paragraph, table.notes)]
    return "\n\n".join(part for part in parts if part)


def _bars(cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int]) -> str:
    aligned = [
        cell.ljust(width) if column.left else cell.rjust(width)
        for cell, column, width in zip(cells, columns, widths, strict=True)
    ]
    return f"| {' | '.join(aligned)} |"


def _paragraph(text: str) -> str:
    """A sentence as a paragraph: no sign at its beginning makes a list or a line of it."""
    return re.sub(r"^(\d{0,9})([-+=.)])", r"\1\\\2", as_text(text))


def csv(table: Table) -> str:
    """The table as CSV (RFC 4180, with plain ends of lines): a first row of the columns' keys, numbers with all their
    digits, empty cells for None. The caption and the notes are not in it.

    An apostrophe is put before a text that a spreadsheet would take for a formula; numbers stay as they are.
    """
    out = io.StringIO()
    rows = csv_module.writer(out, lineterminator="\n")
    rows.writerow([column.key for column in table.columns])
    rows.writerows([[_plain(value) for value in row] for row in table.rows])
    return out.getvalue()


def _plain(value: Value) -> Value:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text


def latex(table: Table) -> str:
    """The table as a float of LaTeX with the rules of the package booktabs; the caption above, the notes below.

    Every text is escaped. It compiles with pdflatex: a sign that this cannot write is shown by its number, [U+4E2D],
    and a comment on top says so.
    """
    titles, rows = [column.title for column in table.columns], table.shown()
    kinds = "".join("l" if column.left else "r" for column in table.columns)
    caption = [rf"\caption{{{_latex(table.caption)}}}"] if table.caption else []
    lines = [
        r"% Needs \usepackage{booktabs}.",
        *_unwritten([table.caption, *table.notes, *titles, *(cell for row in rows for cell in row)]),
        r"\begin{table}",
        r"\centering",
        *caption,
        rf"\begin{{tabular}}{{{kinds}}}",
        r"\toprule",
        _latex_row(titles),
        r"\midrule",
        *map(_latex_row, rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip{{\footnotesize {_latex(note)}\par}}" for note in table.notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex, cells)) + r" \\"


def _latex(text: str) -> str:
    """The text on one line, each sign as itself. Two hyphens do not become a dash, nor two apostrophes a quote."""
    signs = "".join(map(_latex_sign, " ".join(re.split(r"[ \t\n]+", printable(text)))))
    return re.sub(r"([-'])(?=\1)", r"\1{}", signs)


def _latex_sign(sign: str) -> str:
    return LATEX.get(sign, sign) if _is_written(sign) else f"{{[}}U+{ord(sign):04X}{{]}}"


def _is_written(sign: str) -> bool:
    return sign.isascii() or sign in LATEX or sign in LATEX_LETTERS


def _unwritten(texts: Sequence[str]) -> list[str]:
    """A comment that lists the signs that stand as numbers, if there are any."""
    numbers = sorted({f"U+{ord(sign):04X}" for text in texts for sign in printable(text) if not _is_written(sign)})
    return [f"% pdflatex has no sign for {', '.join(numbers)}: shown by number."] if numbers else []


FORMATS: dict[str, Callable[[Table], str]] = {"md": markdown, "csv": csv, "latex": latex}
