"""What a sweep looks like as text in a terminal."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from patchlight.cli.text import table
from patchlight.runs.codec import JSON
from patchlight.runs.sweep import FAILED, FINISHED, PRUNED, RUNNING, WAITING, SweepResult
from patchlight.units import counted, percent, printable

MOST = 10  # trials that are listed, the best first


def sweep_text(result: SweepResult) -> Iterator[str]:
    """The best trials, what mattered, what is to be known, and where to look."""
    finished = sorted(
        result.of(FINISHED), key=lambda trial: (trial.value or 0.0) * (1 if result.lower_is_better else -1)
    )
    fields = [axis.field for axis in result.axes]
    if finished:
        rows = [
            (
                str(trial.number),
                result.shown(trial.value),
                str(trial.epoch),
                *(short_value(trial.params.get(field)) for field in fields),
            )
            for trial in finished[:MOST]
        ]
        yield table(rows, ("trial", result.words, "epoch", *fields), left=0) + "\n"
    counts = {state: len(result.of(state)) for state in (FINISHED, PRUNED, FAILED, RUNNING, WAITING)}
    words = ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none yet"
    yield f"{counted(len(result.trials), 'trial')}: {words}"
    if known := [(axis.field, axis.importance) for axis in result.axes if axis.importance is not None]:
        shares = ", ".join(f"{field} {percent(share)}" for field, share in sorted(known, key=lambda each: -each[1]))
        yield f"what mattered, as the share of the variance that a setting explains alone: {shares}"
    for note in result.notes:
        yield f"note: {note}"
    folder = Path(result.folder)
    yield f"page    {printable(folder / 'README.md')}"
    if finished:
        yield f"best    {printable(folder / 'best.toml')}"
        yield f"train it and read the test images once: patchlight train {shlex.quote(str(folder / 'best.toml'))}"


def short_value(value: JSON) -> str:
    """A setting's value in few digits."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def none_is_finished(result: SweepResult) -> bool:
    """Whether the command has failed: no trial can be chosen."""
    return not result.of(FINISHED)
