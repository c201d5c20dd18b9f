"""Charts of a study: the curves of its runs, accuracy against cost, and accuracy over a number of its grid.

A StudyResult in, a matplotlib Figure out. What its differences look like is in `differences.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, Formatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from patchlight.figures.labels import Named, name_points
from patchlight.figures.style import SERIES, Style, Theme, plain, styled
from patchlight.runs.codec import JSON
from patchlight.runs.study import FINISHED, StudyPoint, StudyResult, StudyRun, StudyVariant
from patchlight.units import percent

WIDE = 5.2  # inches: two charts beside each other on the page
NAMED = 8  # points, at most, that are named; more have numbers
SAME = 1.02  # times the smallest cost: up to here all cost the same
WIDEST = 10  # times the smallest value: beyond, the axis is logarithmic
STEPS = (1, 2, 5, 10)  # between the marks of an axis, and these times powers of ten
DASHES = ("-", (0, (5, 1.6)))  # of the first six series, and of the next six


@dataclass(frozen=True)
class Look:
    """How a series is drawn. Beyond twelve all are grey, and their number is written at them."""

    colour: str
    dash: Any
    number: int | None = None


def looks(names: Sequence[str], theme: Theme, s: Style) -> dict[str, Look]:
    """The look of each series, by its place: six colours, with solid and then with dashed lines, then grey."""
    colours, found = SERIES[theme], {}
    for i, name in enumerate(names):
        row = i // len(colours)
        grey = row >= len(DASHES)
        found[name] = Look(s.quiet, "-", i + 1) if grey else Look(colours[i % len(colours)], DASHES[row])
    return found


def below(figure: Figure, axes: Axes, entries: int, s: Style) -> None:
    """The legend of the axes below them, in as many columns as there is room for, and the room that it takes."""
    columns = 1 if entries == 1 else 2
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.19 * -(-entries // columns) + 0.1)
    figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=columns,
        labelcolor=s.ink,
        fontsize=8,
        handlelength=2.4,
        labelspacing=0.25,
        columnspacing=1.5,
    )


# ---- curves of all runs


def has_curves(result: StudyResult) -> bool:
    return any(points_of(run) for run in result.runs)


def points_of(run: StudyRun) -> list[StudyPoint]:
    """The points of a run's curve that have an accuracy."""
    return [point for point in run.curve if point.val_top1 is not None]


def curves(result: StudyResult, theme: Theme = "light") -> Figure:
    """Validation accuracy of all runs: a colour for each variant, a thin line for each seed, a thick one for the mean
    of those that are finished. Lines of runs that are not end with a cross.

    Over the epochs; over time where time is the budget, and over steps where steps are and epochs differ in length.
    """
    with styled(theme) as s:
        figure = Figure(figsize=(WIDE, 3.3))
        axes = figure.add_subplot()
        names = [v.name for v in result.variants if any(points_of(run) for run in result.runs if run.variant == v.name)]
        shown = looks([v.name for v in result.variants], theme, s)
        place, label = _over(result)
        ends: list[tuple[float, float, str]] = []
        for name in names:
            runs = [run for run in result.runs if run.variant == name and points_of(run)]
            ends += _lines(axes, runs, place, shown[name], _key(name, shown[name]))
        _at_the_ends(axes, ends, s)
        axes.set_title("Validation accuracy while training")
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=STEPS, integer=True))
        accuracy_axis(axes.yaxis)
        axes.grid(axis="y")
        below(figure, axes, len(names), s)
    return figure


def _over(result: StudyResult) -> tuple[Callable[[StudyPoint], float], str]:
    """Where a point stands on the axis, and the axis's label."""
    points = [point for run in result.runs for point in points_of(run)]
    if result.budget_by == "time" and all(point.wall_s is not None for point in points):
        unit, size = time_unit(max((point.wall_s or 0.0 for point in points), default=0.0))
        return (lambda point: (point.wall_s or 0.0) / size), f"training time in {unit}"
    lengths = {round(point.step / point.epoch) for point in points if point.epoch}
    if result.budget_by == "steps" and len(lengths) > 1:
        return (lambda point: float(point.step)), "step"
    return (lambda point: float(point.epoch)), "epoch"


def _lines(
    axes: Axes, runs: Sequence[StudyRun], place: Callable[[StudyPoint], float], look: Look, label: str
) -> list[tuple[float, float, str]]:
    """The lines of a variant. What is to be written at their ends: x, y and text."""
    lines = {
        run: (np.array([place(p) for p in points_of(run)]), np.array([p.val_top1 for p in points_of(run)], dtype=float))
        for run in runs
    }
    whole = [line for run, line in lines.items() if run.state == FINISHED]
    thin: dict[str, Any] = {"color": look.colour, "linewidth": 0.8, "alpha": 0.45}
    for run, (x, y) in lines.items():
        if run.state != FINISHED:
            axes.plot(x, y, color=look.colour, linewidth=1.2, linestyle=":")
            axes.plot(x[-1:], y[-1:], "x", color=look.colour, markersize=5)
        elif len(whole) > 1:
            axes.plot(x, y, **thin)
    if not whole:
        axes.plot([], [], color=look.colour, linestyle=":", label=label)
        x, y = next(iter(lines.values()))
    else:
        x, y = _mean_line(whole)
        marker = "o" if len(x) == 1 else ""
        axes.plot(x, y, color=look.colour, linewidth=1.8, linestyle=look.dash, marker=marker, markersize=4, label=label)
    return [] if look.number is None else [(float(x[-1]), float(y[-1]), str(look.number))]


def _mean_line(lines: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """The mean of lines, as far as all of them go, with straight lines between their points."""
    first, last = max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines)
    x = np.unique(np.concatenate([x for x, _ in lines]))
    x = x[(x >= first) & (x <= last)]
    if not len(x):  # they share no place
        return max(lines, key=lambda line: len(line[0]))
    return x, np.mean([np.interp(x, *line) for line in lines], axis=0)


def _at_the_ends(axes: Axes, ends: Sequence[tuple[float, float, str]], s: Style) -> None:
    """Numbers at the right of lines, moved apart where they would cover each other."""
    low, high = axes.get_ylim()
    step, last = (high - low) * 0.045, -np.inf
    for x, y, text in sorted(ends, key=lambda end: end[1]):
        last = max(y, last + step)
        axes.annotate(text, (x, last), (4, 0), textcoords="offset points", fontsize=8, color=s.quiet, va="center")


# ---- accuracy against cost

COSTS: dict[str, tuple[str, Callable[[StudyVariant], float | None]]] = {
    "time": ("Accuracy against training time", lambda v: v.train_wall_s),
    "flops": ("Accuracy against training FLOPs", lambda v: v.train_flops),
}


def priced(result: StudyResult, by: str) -> list[StudyVariant]:
    """The variants that have an accuracy and this cost, a row of COSTS; none where they all cost the same."""
    read = COSTS[by][1]
    found = [v for v in result.variants if v.val_mean is not None and (read(v) or 0) > 0]
    costs = [read(v) or 0.0 for v in found]
    return found if found and max(costs) > SAME * min(costs) else []


def cost(result: StudyResult, by: str, theme: Theme = "light") -> Figure:
    """Validation accuracy (mean and deviation over seeds) against a cost, a row of COSTS: one point for each variant.

    Up to NAMED are named beside their points; of more, each has a number, and below stands whose it is. The axis of the
    cost is logarithmic where it spans more than WIDEST times.
    """
    title, read = COSTS[by]
    found = priced(result, by)
    costs = [read(v) or 0.0 for v in found]
    unit, size = time_unit(max(costs)) if by == "time" else flops_unit(max(costs))
    numbered = len(found) > NAMED
    with styled(theme) as s:
        figure = Figure(figsize=(WIDE, 3.5))
        axes = figure.add_subplot()
        shown = looks([v.name for v in result.variants], theme, s)
        points = []
        for v, own in zip(found, costs, strict=True):
            number = result.variants.index(v) + 1
            x, y, half = own / size, v.val_mean or 0.0, v.val_std or 0.0
            label = f"{number}  {plain(v.name, 27)}" if numbered else "_"
            axes.errorbar(
                x, y, half, fmt="o", color=shown[v.name].colour, markersize=5, elinewidth=1.1, capsize=2, label=label
            )
            points.append(Named(x, y, half, str(number) if numbered else plain(v.name, 22), shown[v.name].colour))
        axes.set_title(title)
        axes.set_xlabel(f"training time in {unit}" if by == "time" else f"training {unit}")
        accuracy_axis(axes.yaxis)
        number_axis(axes, [p.x for p in points])
        axes.margins(x=0.1, y=0.15)
        axes.grid()
        if numbered:
            below(figure, axes, len(found), s)
        name_points(figure, axes, points, s)
    return figure


# ---- accuracy over a number of the grid


def numbers_of_grid(result: StudyResult) -> list[str]:
    """The settings of the grid that are numbers, of which at least two have an accuracy."""
    keys = dict.fromkeys(key for v in result.variants for key in v.point)
    return [key for key in keys if len({float(_number(v.point[key])) for v in _at_numbers(result, key)}) > 1]


def _at_numbers(result: StudyResult, key: str) -> list[StudyVariant]:
    """The variants with an accuracy; none where some value of the setting is no number."""
    if any(not _is_number(v.point[key]) for v in result.variants if key in v.point):
        return []
    return [v for v in result.variants if key in v.point and v.val_mean is not None]


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(value: JSON) -> float:
    assert isinstance(value, int | float)
    return float(value)


def over_number(result: StudyResult, key: str, theme: Theme = "light") -> Figure:
    """Validation accuracy over a number of the grid: a line for each member through its means, a dot for each seed.

    Where the grid has more settings, each of their values has lines of its own. The axis is logarithmic where the
    numbers span more than WIDEST times.
    """
    found = _at_numbers(result, key)
    lines: dict[str, list[StudyVariant]] = {}
    for v in found:
        lines.setdefault(_line(v, key), []).append(v)
    with styled(theme) as s:
        figure = Figure(figsize=(WIDE, 3.3))
        axes = figure.add_subplot()
        shown, ends = looks(list(lines), theme, s), []
        for name, own in lines.items():
            own = sorted(own, key=lambda v: _number(v.point[key]))
            look = shown[name]
            x = [_number(v.point[key]) for v in own]
            y = [v.val_mean or 0.0 for v in own]
            label = _key(name, look)
            axes.plot(
                x, y, color=look.colour, linestyle=look.dash, linewidth=1.6, marker="_", markersize=9, label=label
            )
            ends += [] if look.number is None else [(x[-1], y[-1], str(look.number))]
            for v, at in zip(own, x, strict=True):
                seeds = [run.val_top1 for run in result.runs if run.variant == v.name and run.state == FINISHED]
                dots = [value for value in seeds if value is not None]
                axes.plot([at] * len(dots), dots, "o", color=look.colour, markersize=3.5, alpha=0.6)
        _at_the_ends(axes, ends, s)
        axes.set_title(f"Accuracy over {plain(key, 40)}")
        axes.set_xlabel(plain(key, 60))
        accuracy_axis(axes.yaxis)
        numbers = sorted({_number(v.point[key]) for v in found})
        number_axis(axes, numbers, at=numbers if len(numbers) <= 8 else None)
        axes.margins(x=0.06)
        axes.grid()
        below(figure, axes, len(lines), s)
    return figure


def _line(v: StudyVariant, key: str) -> str:
    """The name of the line that a variant is on: its member, and where the grid has more settings, their values."""
    others = [f"{other} {value}" for other, value in v.point.items() if other != key]
    return ", ".join([*([v.member] if v.member else []), *others]) or "validation"


# ---- axes


class Rates(Formatter):
    """Marks in per cent, with as many decimals as they need; what is no rate has none."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return self.format_ticks([x])[0]

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        digits = next((d for d in (0, 1, 2) if all(abs(100 * v - round(100 * v, d)) < 1e-6 for v in values)), 3)
        return [percent(v, digits) if -1e-9 <= v <= 1 + 1e-9 else "" for v in values]


def accuracy_axis(axis: Axis) -> None:
    """An axis of rates."""
    axis.set_major_locator(MaxNLocator(nbins=6, steps=STEPS))
    axis.set_major_formatter(Rates())


def number_axis(axes: Axes, values: Sequence[float], at: Sequence[float] | None = None) -> None:
    """The horizontal axis of these numbers, logarithmic where they span more than WIDEST times; marks `at` some."""
    if min(values) > 0 and max(values) > WIDEST * min(values):
        axes.set_xscale("log")
        wide = max(values) > 1000 * min(values)
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
    if at is not None:
        axes.xaxis.set_major_locator(FixedLocator(list(at)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1000 else f"{value:g}")


def time_unit(longest_s: float) -> tuple[str, float]:
    """The unit in which the longest of some times is read well, and how many seconds it has."""
    return next(
        ((unit, size) for unit, size in (("hours", 3600.0), ("minutes", 60.0)) if longest_s >= 3 * size), ("s", 1.0)
    )


FLOPS: Mapping[str, float] = {"EFLOPs (10¹⁸)": 1e18, "PFLOPs (10¹⁵)": 1e15, "TFLOPs (10¹²)": 1e12, "GFLOPs (10⁹)": 1e9}


def flops_unit(most: float) -> tuple[str, float]:
    """The same of FLOPs."""
    return next(((unit, size) for unit, size in FLOPS.items() if most >= size), ("FLOPs", 1.0))


def _key(name: str, look: Look) -> str:
    """The entry of the legend."""
    return plain(name, 27) if look.number is None else f"{look.number}  {plain(name, 24)}"
