"""Figures of a sweep: how its trials went, what mattered, and each setting against what validation said of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from patchlight.figures.style import Style, Theme, plain, styled
from patchlight.runs.codec import JSON
from patchlight.runs.sweep import FAILED, FINISHED, PRUNED, SweepAxis, SweepResult, SweepTrial
from patchlight.units import percent

MOST_SLICES = 12  # panels; of more settings, those that mattered most
COLUMNS = 4


def history(result: SweepResult, theme: Theme = "light") -> Figure | None:
    """Each trial's value in the order of the sweep, and the best so far. None while there is no value."""
    finished, pruned = _valued(result, FINISHED), _valued(result, PRUNED)
    if not finished and not pruned:
        return None
    with styled(theme) as s:
        figure = Figure(figsize=(7.1, 3.0))
        axes = figure.add_subplot()
        axes.plot(*_numbers(finished), "o", color=s.blue, markersize=4.5, label="finished")
        if pruned:
            label = "pruned, at its last epoch"
            axes.plot(*_numbers(pruned), "v", color=s.quiet, markersize=4.5, fillstyle="none", label=label)
        failed = result.of(FAILED)
        if failed:
            below = axes.get_xaxis_transform()  # x in trials, y in 0..1 of the height
            places = [trial.number for trial in failed]
            axes.plot(places, [0.0] * len(places), "x", color=s.orange, transform=below, clip_on=False, label="failed")
        if finished:
            steps = _best_so_far(finished, result.lower_is_better)
            x, y = [number for number, _ in steps], [value for _, value in steps]
            last = max(trial.number for trial in result.trials)
            axes.step([*x, last], [*y, y[-1]], where="post", color=s.green, linewidth=1.5, label="best so far")
            _mark_best(axes, result, lambda trial: trial.number, s)
        axes.set_title(f"{len(result.trials)} trials: {result.words}")
        axes.set_xlabel("trial")
        axes.set_xlim(0.3, max(trial.number for trial in result.trials) + 0.7)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
        axes.grid(axis="y")
        _value_axis(axes, result)
        figure.legend(loc="outside lower center", ncols=5, labelcolor=s.ink, fontsize=8)
    return figure


def importance(result: SweepResult, theme: Theme = "light") -> Figure | None:
    """How much each setting mattered, the most at the top. None where that was not computed."""
    known = sorted(
        ((axis.importance, axis.field) for axis in result.axes if axis.importance is not None), key=lambda pair: pair[0]
    )
    if not known:
        return None
    with styled(theme) as s:
        figure = Figure(figsize=(5.6, 1.25 + 0.3 * len(known)))
        axes = figure.add_subplot()
        for y, (share, _) in enumerate(known):
            axes.barh(y, share, height=0.64, color=s.blue, alpha=0.85)
            axes.text(share + 0.012, y, percent(share), va="center", fontsize=8, color=s.ink)
        axes.set_yticks(range(len(known)), [plain(field, 32) for _, field in known])
        axes.tick_params(axis="y", length=0, labelcolor=s.ink)
        axes.set_xlim(0, max(0.1, 1.15 * known[-1][0]))
        axes.xaxis.set_major_formatter(lambda v, _: percent(v))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.grid(axis="x")
        axes.set_title("What mattered")
        count = len(result.of(FINISHED))
        axes.set_xlabel(f"share of the variance of {count} finished trials\nthat each setting explains alone (fANOVA)")
    return figure


def slices(result: SweepResult, theme: Theme = "light") -> Figure | None:
    """A panel for each setting: its value in every trial against the trial's. None while there is no value."""
    trials = [trial for trial in result.trials if trial.state in (FINISHED, PRUNED) and trial.value is not None]
    if not trials:
        return None
    chosen = sorted(result.axes, key=lambda axis: -(axis.importance or 0.0))[:MOST_SLICES]
    columns = min(COLUMNS, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    with styled(theme) as s:
        figure = Figure(figsize=(max(3.4, 2.5 * columns), 2.5 * rows + 0.35))
        panels = figure.subplots(rows, columns, squeeze=False, sharey=True).flatten()
        for panel, axis in zip(panels, chosen, strict=False):
            _slice(panel, axis, result, trials, s)
        for panel in panels[len(chosen) :]:
            panel.axis("off")
        for first in panels[::columns]:
            first.set_ylabel(result.words)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, labelcolor=s.ink, fontsize=8)
    return figure


def _slice(axes: Axes, axis: SweepAxis, result: SweepResult, trials: Sequence[SweepTrial], s: Style) -> None:
    words = [_word(choice) for choice in axis.choices]

    def place(trial: SweepTrial) -> float:
        value = trial.params.get(axis.field)
        if axis.choices:
            return float(words.index(_word(value)))
        return float(value) if isinstance(value, int | float) else math.nan

    for state, marker, colour, label in (
        (PRUNED, "v", s.quiet, "pruned, at its last epoch"),
        (FINISHED, "o", s.blue, "finished"),
    ):
        if not (own := [trial for trial in trials if trial.state == state]):
            continue
        x, y = [place(trial) for trial in own], [trial.value for trial in own]
        fill = "none" if state == PRUNED else "full"
        axes.plot(x, y, marker, color=colour, markersize=4.5, alpha=0.75, fillstyle=fill, label=label)  # type: ignore[arg-type]
    _mark_best(axes, result, place, s)
    axes.set_title(plain(axis.field, 28), fontsize=9)
    axes.grid(axis="y")
    if axis.choices:
        axes.set_xticks(range(len(words)), [plain(word, 12) for word in words], fontsize=8 if len(words) <= 5 else 7)
        axes.set_xlim(-0.6, len(words) - 0.4)
        axes.tick_params(axis="x", length=0)
    elif axis.log:
        axes.set_xscale("log")
        if (axis.high or 1) / (axis.low or 1) >= 10:  # else there may be no other labels
            axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        low, high = float(axis.low or 0), float(axis.high or 0)
        axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        whole = low.is_integer() and high.is_integer() and high - low >= 2
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=whole))
    _value_axis(axes, result)


def _valued(result: SweepResult, state: str) -> list[SweepTrial]:
    return [trial for trial in result.of(state) if trial.value is not None]


def _numbers(trials: Sequence[SweepTrial]) -> tuple[list[int], list[float]]:
    return [trial.number for trial in trials], [trial.value or 0.0 for trial in trials]


def _best_so_far(trials: Sequence[SweepTrial], lower: bool) -> list[tuple[int, float]]:
    """(number, value) of each trial that was better than all before it."""
    steps: list[tuple[int, float]] = []
    for number, value in zip(*_numbers(trials), strict=True):
        if not steps or (value < steps[-1][1] if lower else value > steps[-1][1]):
            steps.append((number, value))
    return steps


def _mark_best(axes: Axes, result: SweepResult, place: Callable[[SweepTrial], float], s: Style) -> None:
    best = result.best_trial
    if best is not None and best.value is not None:
        look = {"markersize": 10, "markeredgewidth": 1.6, "fillstyle": "none", "zorder": 4}
        axes.plot([place(best)], [best.value], "o", color=s.green, label=f"best: trial {best.number}", **look)  # type: ignore[arg-type]


def _value_axis(axes: Axes, result: SweepResult) -> None:
    if not result.lower_is_better:
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, -0.02), min(high, 1.02))
        digits = 0 if high - low > 0.05 else 1
        axes.yaxis.set_major_formatter(lambda v, _: percent(v, digits) if -1e-9 <= v <= 1 + 1e-9 else "")


def _word(value: JSON) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# Of a sweep's folder: {name: (what it shows, how it is drawn)}.
FIGURES_OF_SWEEP: dict[str, tuple[str, Callable[[SweepResult], Figure | None]]] = {
    "history": ("Each trial's validation and the best so far", history),
    "importance": ("How much each setting mattered", importance),
    "slices": ("Each setting against the trial's validation", slices),
}
