"""Charts of a study's differences with their intervals: to the baseline, and step by step of a ladder."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from patchlight.figures.studies import STEPS, accuracy_axis
from patchlight.figures.style import Style, Theme, plain, styled, wrapped
from patchlight.runs.study import Difference, StudyResult, StudyVariant
from patchlight.units import in_points, percent

WIDE = 5.2  # inches
ROW, NAME = 0.36, 1.35  # inches: of a row's height, and of a name's width
MOST = 40  # rows
EQUAL = 1e-9


def is_seen(difference: Difference) -> bool:
    """Whether the interval leaves out zero. One without width tells nothing of chance."""
    low, high = difference.low, difference.high
    return low is not None and high is not None and high - low > EQUAL and (low > EQUAL or high < -EQUAL)


def colour_of(difference: Difference, s: Style) -> str:
    """Green where a variant is seen to be better, orange where worse, and else grey."""
    return s.quiet if not is_seen(difference) else s.green if difference.mean > 0 else s.orange


def compared(result: StudyResult) -> list[StudyVariant]:
    """The variants that have a difference to a baseline."""
    return [v for v in result.variants if v.difference is not None]


def differences(result: StudyResult, theme: Theme = "light") -> Figure:
    """Each variant's difference to its baseline in points: the mean with its interval, and small rings for the seeds.

    A filled mark is of an interval that leaves out zero; an open one has no interval, or one that holds zero. Of more
    than MOST variants the first are shown.
    """
    shown = compared(result)[:MOST]
    with styled(theme) as s:
        figure = Figure(figsize=(WIDE, max(1.7, 1.0 + ROW * len(shown))))
        axes = figure.add_subplot()
        axes.axvline(0, color=s.ink, linewidth=1)
        for y, v in enumerate(shown):
            if v.difference is not None:
                _difference(axes, y, v.difference, s)
        _rows(axes, [v.name for v in shown], s)
        _title(figure, f"Validation accuracy, difference to {plain(result.baseline, 32)}")
        several = any(v.difference and v.difference.low is not None for v in shown)
        unit = "points, mean and 95 % interval; rings: seeds" if several else "points; 1 seed has no interval"
        more = len(compared(result)) - len(shown)
        axes.set_xlabel(unit + (f"\n{more} more variants are in the table" if more else ""))
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:+g}" if abs(value) > EQUAL else "0")
        axes.grid(axis="x")
    return figure


def _difference(axes: Axes, y: int, d: Difference, s: Style) -> None:
    colour = colour_of(d, s)
    if len(d.each) > 1:
        axes.plot(d.each, [y] * len(d.each), "o", color=s.quiet, markersize=3.5, markerfacecolor="none", linewidth=0)
    if d.low is not None and d.high is not None:
        axes.plot([d.low, d.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
    face = colour if is_seen(d) else s.paper
    axes.plot([d.mean], [y], "o", color=colour, markersize=6.5, markerfacecolor=face, markeredgewidth=1.5)
    _at_right(axes, y, d, s)


def _at_right(axes: Axes, y: int, d: Difference, s: Style) -> None:
    """The numbers of a row, right of the axes."""
    if d.low is None or d.high is None:
        words = f"{in_points([d.mean])[0]} (1 seed)"
    else:
        mean, low, high = in_points([d.mean, d.low, d.high])
        words = f"{mean} ({low} to {high})"
    axes.annotate(
        words,
        (1.02, y),
        xycoords=("axes fraction", "data"),
        fontsize=8,
        va="center",
        color=s.ink if is_seen(d) else s.quiet,
        annotation_clip=False,
    )


def _title(figure: Figure, words: str) -> None:
    """The title of a figure whose axes begin far to the right."""
    figure.suptitle(words, x=0.015, ha="left", fontsize=10, fontweight="bold")


def _rows(axes: Axes, names: Sequence[str], s: Style) -> None:
    """A row for each name, the first on top."""
    axes.set_yticks(range(len(names)), [wrapped(name, NAME, lines=2, size=8) for name in names], fontsize=8)
    axes.tick_params(axis="y", length=0, labelcolor=s.ink)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=STEPS))


def steps(result: StudyResult) -> list[StudyVariant]:
    """The variants of a ladder that have an accuracy; none where there are not two, or the study is no ladder."""
    found = [v for v in result.variants if v.val_mean is not None]
    return found if result.plan == "ladder" and any(v.gain for v in found) else []


def ladder(result: StudyResult, theme: Theme = "light") -> Figure:
    """What each step of a ladder adds: a bar from the accuracy of the step before, with the interval of the gain at its
    end, and an upright line on to the next step. Green and orange bars have intervals that leave out zero.
    """
    shown = steps(result)[:MOST]
    means = {v.name: v.val_mean or 0.0 for v in shown}
    with styled(theme) as s:
        figure = Figure(figsize=(WIDE, max(1.8, 1.0 + ROW * len(shown))))
        axes = figure.add_subplot()
        for y, v in enumerate(shown):
            own, gain = means[v.name], v.gain
            if gain is None or gain.to not in means:
                axes.plot([own], [y], "o", color=s.blue, markersize=6.5)
                words = percent(own, 1)
                axes.annotate(
                    words, (1.02, y), xycoords=("axes fraction", "data"), fontsize=8, va="center", annotation_clip=False
                )
            else:
                start = means[gain.to]
                colour = colour_of(gain, s)
                look = {"facecolor": colour, "alpha": 0.85} if is_seen(gain) else {"facecolor": "none", "hatch": "////"}
                axes.barh(y, gain.mean, left=start, height=0.56, edgecolor=colour, **look)
                if gain.low is not None and gain.high is not None:
                    axes.plot([start + gain.low, start + gain.high], [y, y], color=s.ink, linewidth=1.1)
                _at_right(axes, y, gain, s)
            if y + 1 < len(shown):
                axes.plot([own, own], [y, y + 1], color=s.quiet, linewidth=0.8, linestyle=":", zorder=1)
        _rows(axes, [v.name for v in shown], s)
        _title(figure, "What each step adds")
        axes.margins(x=0.06)
        axes.use_sticky_edges = False
        axes.set_xlabel("validation accuracy; right: gain in points (95 % interval)")
        accuracy_axis(axes.xaxis)
        axes.grid(axis="x")
    return figure
