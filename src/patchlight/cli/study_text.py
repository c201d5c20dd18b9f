"""A study's answer as text in a terminal: the table, what it says, and where the page is."""

from __future__ import annotations

from patchlight.cli.text import table
from patchlight.reporting.study_tables import answer_table, signs
from patchlight.reporting.tables import Table
from patchlight.runs.study import StudyResult, StudyVariant
from patchlight.units import SPACE, counted, printable, shortened

NARROW = ("params", "train_flops", "memory")  # columns of the page alone: a terminal is narrow


def study_text(result: StudyResult, page: str | None = None) -> str:
    """The table, a line for each variant that differs from its baseline or is not finished, and the answer.

    `page` is where the report is, if it was written; it has the notes on how far to believe the numbers.
    """
    parts = [
        _table(answer_table(result, says=False)),
        "\n".join(line for v in result.variants for line in _lines(v)),
        signs(result).replace(SPACE, " "),
        "\n".join(map(printable, result.answer)).replace(SPACE, " "),
        _where(result, page) if page else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _where(result: StudyResult, page: str) -> str:
    notes = counted(len(result.notes), "note")
    told = f"{notes} on how far to believe this {'is' if len(result.notes) == 1 else 'are'} in it"
    return f"report  {printable(page)}{f'  ({told})' if result.notes else ''}"


def _table(found: Table) -> str:
    kept = [i for i, column in enumerate(found.columns) if column.key not in NARROW]
    rows = [[row[i].replace(SPACE, " ") for i in kept] for row in found.shown()]
    return table(rows, [found.columns[i].title for i in kept])


def _lines(v: StudyVariant) -> list[str]:
    """What the numbers say of a variant."""
    name = shortened(v.name)
    said = []
    for other in (v.difference, v.gain):
        if other is not None and (other is v.difference or v.difference is None or other.to != v.difference.to):
            said.append(f"{name} against {shortened(other.to)}: {other.words}")
    said += [f"{name}: {printable(v.note)}"] if v.note else []
    return [line.replace(SPACE, " ") for line in said]
