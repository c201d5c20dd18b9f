"""What `patchlight compare` prints: text for a terminal, Markdown, CSV, LaTeX or JSON, of one Comparison.

For people there are up to three tables: the recipes (runs that differ only by their seed are one row), their single
runs, and the settings that differ. CSV is one table, with plain numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from patchlight.cli.text import setting_text, table
from patchlight.errors import UsageError, did_you_mean
from patchlight.progress import say
from patchlight.reporting.tables import FORMATS, Column, Table, Value
from patchlight.runs.codec import JSON
from patchlight.units import clock, counted, short

if TYPE_CHECKING:
    from patchlight.commands.compare import Comparison
    from patchlight.commands.compare_groups import RunGroup

FORMS = ("text", *FORMATS, "json")  # of --format
SEED = "train.seed"
WIDEST = 7  # columns of the settings' table that a page of LaTeX has room for


@dataclass(frozen=True)
class Asked:
    """A comparison, and how it is to be printed."""

    comparison: Comparison
    format: str  # one of FORMS
    each: bool  # a row for each run, and none for a group

    def to_json(self) -> dict[str, JSON]:
        return self.comparison.to_json()


def compared(runs: list[Path], *, each: bool = False, format: str = "text") -> Asked:
    """`patchlight compare`. Raises UsageError for an unknown format, and as `patchlight.compare` does."""
    if format not in FORMS:
        raise UsageError(f"no format '{format}'; {did_you_mean(format, FORMS)}")
    from patchlight.commands import compare

    return Asked(compare.compare(runs), format, each)


def comparison_text(asked: Asked) -> str:
    """The comparison in the form that was asked for. What CSV has no place for is said on standard error."""
    result = asked.comparison
    rows = result.of_single_runs() if asked.each else result.groups
    answer = [result.lead.words] if result.lead else []
    if asked.format == "json":
        return json.dumps(result.to_json(), allow_nan=False)
    if asked.format == "csv":
        for sentence in (*result.notes, *answer):
            say(sentence)
        return FORMATS["csv"](_numbers(result, rows)).removesuffix("\n")
    below = [] if asked.format == "text" else answer
    settings = _settings(result, rows)
    notes = (*result.notes, *below)
    if asked.format == "latex" and settings is not None and len(settings.columns) > WIDEST:
        settings, left_out = _turned(settings)
        notes = (*notes, *left_out)
    parts = [_recipes(rows, notes), _singles(result, rows), settings]
    write = FORMATS.get(asked.format, _plain)
    written = [write(part) for part in parts if part is not None]
    return "\n\n".join(written if below else [*written, *answer])  # a terminal shows the answer last


def _plain(part: Table) -> str:
    """A table for a terminal, with its notes below."""
    left = sum(column.left for column in part.columns)
    rows = table(part.shown(), [column.title for column in part.columns], left=left)
    return "\n\n".join([rows, "\n".join(part.notes)]) if part.notes else rows


def _recipes(rows: Sequence[RunGroup], notes: tuple[str, ...]) -> Table:
    """A row for each group: accuracies with what is known of their spread, and what it cost."""
    several = [len(row.seeds) > 1 for row in rows]
    spread = "± or interval" if any(several) else "95 % interval"
    about = "± is the sample deviation over seeds; an interval is Wilson's of one run, at 95 %"
    uneven = any(abs((row.balanced_accuracy or 0) - (row.test_mean or 0)) > 0.005 for row in rows)
    cells: list[tuple[Column, Callable[[RunGroup], Value]]] = [
        (Column("run", "run", left=True), lambda row: row.name),
        (Column("model", "model", left=True), lambda row: row.model),
        *([(Column("seeds", "seeds"), lambda row: len(row.seeds))] if any(several) else []),
        (Column("val", "validation %"), lambda row: _percent(row.val_mean)),
        (Column("val_spread", spread), lambda row: _spread(row.val_std, row.val_ci95)),
        (Column("test", "test %"), _tested),
        (Column("test_spread", spread), lambda row: _spread(row.test_std, row.test_ci95)),
        *([(Column("balanced", "balanced %"), lambda row: _percent(row.balanced_accuracy))] if uneven else []),
        (Column("n", "test images"), lambda row: None if row.test_n is None else f"{row.test_n:,}"),
        (Column("params", "params"), lambda row: short(row.params)),
        (Column("flops", "FLOPs"), lambda row: short(row.flops_per_image)),
        (Column("images", "images/s"), lambda row: None if row.images_per_s is None else f"{row.images_per_s:,.0f}"),
        (Column("epoch", "s/epoch"), lambda row: None if row.epoch_s is None else f"{row.epoch_s:.3g}"),
        (Column("time", "time"), lambda row: None if row.train_wall_s is None else clock(row.train_wall_s)),
    ]
    return Table(
        tuple(column for column, _ in cells),
        tuple(tuple(value(row) for _, value in cells) for row in rows),
        "Runs by validation accuracy",
        (about, *notes) if any(several) else notes,
    )


def _percent(rate: float | None) -> str | None:
    return None if rate is None else f"{100 * rate:.2f}"


def _spread(deviation: float | None, interval: tuple[float, float] | None) -> str | None:
    """ "± 0.31" over seeds, or "90.12-92.18" of one run."""
    if deviation is not None:
        return f"± {100 * deviation:.2f}"
    return None if interval is None else f"{100 * interval[0]:.2f}-{100 * interval[1]:.2f}"


def _tested(row: RunGroup) -> str | None:
    """The test accuracy, and of how many seeds it is, where it is not of all."""
    mean = _percent(row.test_mean)
    return (
        mean if mean is None or row.test_seeds == len(row.seeds) else f"{mean} (of {counted(row.test_seeds, 'seed')})"
    )


def _singles(result: Comparison, rows: Sequence[RunGroup]) -> Table | None:
    """The runs of groups that have several, one by one."""
    if all(len(row.runs) == 1 for row in rows):
        return None
    by_name = {run.name: run for run in result.of_single_runs()}
    runs = [by_name[name] for row in rows if len(row.runs) > 1 for name in row.runs]
    columns = (
        Column("run", "single run", left=True),
        Column("seed", "seed"),
        *(Column("val", "validation %"), Column("val_interval", "95 % interval")),
        *(Column("test", "test %"), Column("test_interval", "95 % interval")),
    )
    cells = [
        (
            run.name,
            run.seeds[0],
            *(_percent(run.val_mean), _spread(None, run.val_ci95)),
            *(_percent(run.test_mean), _spread(None, run.test_ci95)),
        )
        for run in runs
    ]
    return Table(columns, tuple(cells), "Single runs of the recipes that have several")


def _settings(result: Comparison, rows: Sequence[RunGroup]) -> Table | None:
    """A row for each setting that differs between the rows above, or between the runs of one of them."""
    places = _places(result, rows)
    shown: list[tuple[str, ...]] = []
    for key, values in result.differences.items():
        if key == SEED:
            of_runs = [[str(seed) for seed in row.seeds] for row in rows]
        elif key in result.in_stages:
            counts = result.in_stages[key]
            of_runs = [[_in_stage(values[place], counts[place]) for place in each] for each in places]
        else:
            of_runs = [[setting_text(values[place]) for place in each] for each in places]
        own = [", ".join(dict.fromkeys(each)) for each in of_runs]
        if len({*own}) > 1 or (key != SEED and any(len({*each}) > 1 for each in of_runs)):
            shown.append((key, *own))
    if not shown:
        return None
    columns = (Column("setting", "setting", left=True), *(Column(row.name, row.name) for row in rows))
    taken = any(cell.startswith("(") for row in shown for cell in row[1:])
    note = "in brackets: what counts in a stage that does not set it, or in a run without stages"
    return Table(columns, tuple(shown), "Settings that differ", (note,) if taken else ())


def _places(result: Comparison, rows: Sequence[RunGroup]) -> list[list[int]]:
    """Where the runs of each row stand among all."""
    place = {run.run: number for number, run in enumerate(result.runs)}
    return [[place[run] for run in row.runs] for row in rows]


def _turned(settings: Table) -> tuple[Table | None, tuple[str, ...]]:
    """The settings' table with a row for each run, or, where it would be as wide so, none and a sentence
    that says it.
    """
    if len(settings.rows) >= WIDEST:
        left_out = f"{counted(len(settings.rows), 'setting')} differ, too many for a page; --format csv lists them"
        return None, (left_out,)
    columns = (Column("run", "run", left=True), *(Column(str(row[0]), str(row[0])) for row in settings.rows))
    rows = tuple(
        (column.title, *(row[number] for row in settings.rows)) for number, column in enumerate(settings.columns[1:], 1)
    )
    return Table(columns, rows, settings.caption, settings.notes), ()


def _in_stage(own: JSON, counts: JSON) -> str:
    """The value that a stage sets; in brackets the one that counts where it sets none."""
    return f"({setting_text(counts)})" if own is None and counts is not None else setting_text(own)


def _numbers(result: Comparison, rows: Sequence[RunGroup]) -> Table:
    """All numbers of the rows in one table, and behind them the settings that differ."""
    places = _places(result, rows)
    settings = {key: values for key, values in result.differences.items() if key != SEED}
    own = (
        *("name", "model", "data", "seeds", "finished", "val_n", "val_mean", "val_std", "val_low", "val_high"),
        *("test_n", "test_seeds", "test_mean", "test_std", "test_low", "test_high", "balanced_accuracy"),
        *("params", "flops_per_image", "images_per_s", "epoch_s", "train_wall_s"),
    )
    cells: list[tuple[Value, ...]] = []
    for row, each in zip(rows, places, strict=True):
        val_low, val_high = row.val_ci95 or (None, None)
        test_low, test_high = row.test_ci95 or (None, None)
        cells.append(
            (
                *(row.name, row.model, row.data, " ".join(map(str, row.seeds)), str(row.finished).lower()),
                *(row.val_n, row.val_mean, row.val_std, val_low, val_high),
                *(row.test_n, row.test_seeds, row.test_mean, row.test_std, test_low, test_high),
                *(row.balanced_accuracy, row.params, row.flops_per_image),
                *(row.images_per_s, row.epoch_s, row.train_wall_s),
                *(_cells([values[place] for place in each]) for values in settings.values()),
            )
        )
    return Table(tuple(Column(key, key) for key in (*own, *settings)), tuple(cells))


def _cells(values: Sequence[JSON]) -> Value:
    """The setting of a row's runs: one value, or several with spaces between them."""
    shown = list(dict.fromkeys(setting_text(value) for value in values))
    return _cell(values[0]) if len(shown) == 1 else " ".join(shown)


def _cell(value: JSON) -> Value:
    """A setting in CSV: numbers as they are, lists and switches in words, empty where it is not set."""
    return (
        value
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        else setting_text(value)
    )
