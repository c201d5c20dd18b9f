"""Charts of a run's numbers: records and arrays in, a matplotlib Figure out. Nothing here reads a file or uses pyplot.

Every function takes a theme and leaves its background transparent, so one page can hold a light and a dark variant.
Pictures (galleries, patches, attention) are in `galleries.py`; `style.py` writes a figure as SVG or PNG.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from patchlight.figures.style import Style, Theme, plain, styled
from patchlight.runs.measures import MEASURES, Measure
from patchlight.runs.records import Epoch, Reliability
from patchlight.units import counted, percent


@dataclass(frozen=True)
class Panel:
    """A chart over the epochs: its title, and what each curve shows of an epoch, by its name in `metrics.jsonl`."""

    title: str
    curves: Mapping[str, Callable[[Epoch], float | None]]

    def values(self, rows: Sequence[Epoch]) -> dict[str, np.ndarray]:
        """Each curve's numbers, nan where there is none; a curve without any number is left out."""
        values = {name: np.array([read(row) for row in rows], dtype=float) for name, read in self.curves.items()}
        return {name: column for name, column in values.items() if np.isfinite(column).any()}


def _where_it_selects(measure: Measure) -> Callable[[Epoch], float | None]:
    """The measure of an epoch, of a run whose weights are kept by it."""
    return lambda row: measure.of(row) if row.best_by == measure.key else None


PANELS = {
    "loss": Panel(
        "Loss",
        {
            "train/loss": lambda row: row.train_loss,
            "val/loss": lambda row: row.val_loss,
            "val/loss_smoothed": lambda row: row.val_loss_smoothed,
        },
    ),
    "accuracy": Panel(
        "Top-1 accuracy",
        {
            "train/top1": lambda row: row.train_top1,
            "val/top1": lambda row: row.val_top1,
            **{measure.key: _where_it_selects(measure) for measure in MEASURES.values() if measure.name != "top1"},
        },
    ),
    "lr": Panel("Learning rate", {"lr": lambda row: row.lr}),
}


def curves(
    rows: Sequence[Epoch],
    theme: Theme = "light",
    kept: int | None = None,
    panels: Sequence[str] = tuple(PANELS),
) -> Figure:
    """Loss, accuracy and learning rate over the epochs, side by side; `panels` are rows of PANELS.

    Upright lines mark the epoch whose weights were `kept` and where stages begin, triangles early stops.
    """
    with styled(theme) as s:
        figure = Figure(figsize=(3.55 * len(panels), 2.7))
        for i, name in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), i + 1)
            _curve_panel(axes, rows, name, kept, s)
    return figure


def _curve_panel(axes: Axes, rows: Sequence[Epoch], name: str, kept: int | None, s: Style) -> None:
    panel = PANELS[name]
    epochs, values = [row.epoch for row in rows], panel.values(rows)
    marker = "o" if len(rows) <= 15 else ""
    mixed = ", mixed images" if name == "accuracy" and any(row.train_mixed for row in rows) else ""
    train = {"color": s.orange, "linestyle": (0, (4, 1.5)), "linewidth": 1.5}
    val = {"color": s.blue, "linestyle": "-", "linewidth": 1.5, "label": "validation"}
    looks: dict[str, dict[str, Any]] = {
        "train/loss": {**train, "label": "train"},
        "train/top1": {**train, "label": f"train{mixed}"},
        "val/loss": val,
        "val/loss_smoothed": {
            **val,
            "linestyle": (0, (2, 1)),
            "linewidth": 0.9,
            "label": "val., smoothed labels",
        },
        "val/top1": val,
        "lr": {"color": s.green, "linestyle": "-", "linewidth": 1.5},
    }
    selecting = {each.key: each.words for each in MEASURES.values() if each.name != "top1" and each.key in values}
    looks |= {key: {**val, "color": s.green, "label": f"val., {words}"} for key, words in selecting.items()}
    for key, column in values.items():
        axes.plot(epochs, column, marker=marker, markersize=3, **looks[key])
        if key in ("val/loss", "val/top1", *selecting) and kept is not None and kept in epochs:
            axes.plot([kept], [column[epochs.index(kept)]], "o", color=looks[key]["color"], markersize=6)
    axes.set_title(" and ".join(["Accuracy", *selecting.values()]) if selecting else panel.title)
    axes.set_xlabel("epoch")
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
        axes.set_xticks(epochs)
        axes.set_ylim(0, 1)
    if name == "accuracy":
        axes.yaxis.set_major_formatter(lambda v, _: percent(v) if -1e-9 <= v <= 1 + 1e-9 else "")
    else:
        highest = max((float(np.nanmax(column)) for column in values.values()), default=0)
        axes.set_ylim(0, 1.1 * highest if highest > 0 else 1)
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
    if kept is not None and kept in epochs:
        axes.axvline(kept, color=s.quiet, linewidth=1, linestyle=":", zorder=1, label=f"kept: epoch {kept}")
    _mark_stages(axes, rows, s)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="best", labelcolor=s.ink, fontsize=8, handlelength=2, labelspacing=0.25, frameon=True)


def _mark_stages(axes: Axes, rows: Sequence[Epoch], s: Style) -> None:
    """A line with its number where each stage after the first begins, and a triangle on top where one stopped early."""
    above = axes.get_xaxis_transform()  # x in epochs, y in 0..1 of the height
    for before, row in pairwise(rows):
        if row.stage != before.stage:
            axes.axvline(row.epoch - 0.5, color=s.quiet, linewidth=0.8, zorder=1)
            axes.annotate(
                f"stage {row.stage}", (row.epoch - 0.5, 0.02), (3, 0), above, "offset points", color=s.quiet, fontsize=8
            )
    stops = [row.epoch for row in rows if row.early_stop is not None]
    if stops:
        label = f"early stop: epoch {' and '.join(map(str, stops))}"
        axes.plot(
            stops, [1.0] * len(stops), "v", color=s.ink, markersize=6, transform=above, clip_on=False, label=label
        )


def confusion(matrix: ArrayLike, class_names: Sequence[str], theme: Theme = "light", title: str = "") -> Figure:
    """The confusion matrix: rows are true classes, coloured by the share of that row.

    matrix: counts (K, K). The counts are printed for up to 12 classes; of more than 40, only some are named. The colour
    rises with the square root of the share, so that rare confusions can be seen.
    """
    counts = np.asarray(matrix)
    k = len(counts)
    names = [plain(name, 14) for name in class_names]
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    seen = np.ma.masked_equal(shares, 0)  # what never happened stays paper
    with styled(theme) as s:
        side = 3.2 if k <= 3 else min(5.4, 3.4 + 0.17 * k)
        figure = Figure(figsize=(side + 0.75, side))
        axes = figure.add_subplot()
        picture = axes.imshow(seen, cmap=s.heat, norm=PowerNorm(0.5, 0, 1), interpolation="none", aspect="equal")
        step = 1 if k <= 40 else -(-k // 25)
        small = 9 if k <= 12 else 7 if k <= 24 else 6
        ticks = range(0, k, step)
        upright = 0 if k <= 12 and max(map(len, names)) <= 2 else 90
        axes.set_xticks(ticks, [names[i] for i in ticks], rotation=upright, fontsize=small)
        axes.set_yticks(ticks, [names[i] for i in ticks], fontsize=small)
        axes.tick_params(length=0, which="both")
        axes.spines[:].set_visible(True)
        axes.set_title(plain(title, 60))
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        if k <= 40:
            axes.set_xticks(np.arange(0.5, k - 1), minor=True)
            axes.set_yticks(np.arange(0.5, k - 1), minor=True)
            axes.grid(which="minor", linewidth=0.5)
        if k <= 12:
            _print_counts(axes, counts, shares, s)
        bar = figure.colorbar(picture, ax=axes, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1], shrink=0.75, aspect=28, pad=0.02)
        bar.ax.yaxis.set_major_formatter(lambda v, _: percent(v))
        bar.ax.tick_params(length=0, labelsize=8)
        bar.outline.set_visible(False)
        bar.set_label("share of the true class", fontsize=8)
    return figure


def _print_counts(axes: Axes, counts: np.ndarray, shares: np.ndarray, s: Style) -> None:
    size = 9 if counts.max() < 1000 else 7
    far = "#ffffff" if s.heat.endswith("_r") else "#111111"  # on the colour of a share of 1
    for (row, column), n in np.ndenumerate(counts):
        if n:
            colour = far if shares[row, column] > 0.25 else s.ink
            axes.text(column, row, f"{n}", ha="center", va="center", fontsize=size, color=colour)


@dataclass(frozen=True)
class ClassRates:
    """The accuracy of each class on one set of images."""

    images: str  # which these are, for the legend: "10,000 test images"
    rates: Mapping[str, float | None]  # {name: 0..1}, None for a class without images
    intervals: Sequence[tuple[float, float]]  # (low, high) of each class
    overall: float | None = None  # of all images together


def per_class(sets: Sequence[ClassRates], theme: Theme = "light", most: int = 30) -> Figure:
    """Accuracy of each class, the best at the top, with whiskers and a dashed line at the overall accuracy.

    `sets` is one or two, of the same classes; of two, each class has a bar of each, as far as it has images. The order
    is that of the first. Of more than `most` classes the lowest and the highest are shown, half and half.
    """
    rates = {name: [own.rates[name] for own in sets] for name in sets[0].rates}
    order = {name: next((rate for rate in of_sets if rate is not None), None) for name, of_sets in rates.items()}
    names = sorted((name for name, rate in order.items() if rate is not None), key=lambda name: order[name] or 0.0)
    cut = most // 2 if len(names) > most else len(names)
    shown: list[str | None] = [*names[:cut], *([None, *names[-cut:]] if cut < len(names) else [])]
    two = len(sets) > 1
    with styled(theme) as s:
        small = 9 if len(shown) <= 16 else 7
        pitch = (0.38 if two else 0.3) if small == 9 else (0.25 if two else 0.165)  # inches of a class
        figure = Figure(figsize=(5.2, max(1.6, 0.9 + 0.35 * two + len(shown) * pitch)))
        axes = figure.add_subplot()
        for y, name in enumerate(shown):
            if name is None:
                words = f"{len(names) - 2 * cut} classes between"
                axes.text(0.01, y, words, va="center", fontsize=small, color=s.quiet)
        for i, own in enumerate(sets):
            size = min(small, 7.5) if two else small
            _class_bars(axes, own, shown, (0.205 - 0.41 * i) if two else 0.0, size, (s.blue, s.orange)[i], s)
            if own.overall is not None:
                axes.axvline(own.overall, color=(s.blue if two and i == 0 else s.orange), linewidth=1.3, linestyle="--")
        axes.set_yticks(range(len(shown)), [plain(name) if name else "" for name in shown], fontsize=small)
        axes.tick_params(axis="y", length=0, labelcolor=s.ink)
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.set_xlim(0, 1.14)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(lambda v, _: percent(v))
        axes.grid(axis="x")
        known = [percent(own.overall, 1) for own in sets if own.overall is not None]
        axes.set_xlabel(
            "of the class's images recognised" + (f"; dashes: all classes, {' and '.join(known)}" if known else "")
        )
        if two:
            figure.legend(loc="outside upper center", ncols=2, labelcolor=s.ink, fontsize=8)
    return figure


def _class_bars(
    axes: Axes, own: ClassRates, shown: Sequence[str | None], shift: float, size: float, colour: str, s: Style
) -> None:
    """A set's bars, `shift` above the places of their classes, thin where two sets share a place."""
    label, interval_of = plain(own.images, 40), dict(zip(own.rates, own.intervals, strict=True))
    for place, name in enumerate(shown):
        rate = own.rates[name] if name is not None else None
        if name is None or rate is None:
            continue
        y, (low, high) = place + shift, interval_of[name]
        axes.barh(y, rate, height=0.37 if shift else 0.68, color=colour, alpha=0.85, label=label)
        axes.plot([low, high], [y, y], color=s.ink, linewidth=1.1, solid_capstyle="butt")
        axes.text(1.02, y, percent(rate), va="center", ha="left", fontsize=size, color=s.ink)
        label = "_"  # one entry of the legend is enough


def reliability(table: Reliability, ece: float, theme: Theme = "light") -> Figure:
    """Confidence against accuracy, with the gap to the diagonal hatched, and below how many images each bin holds.

    ece: the expected calibration error, 0..1. Guo et al. 2017, figure 4.
    """
    columns = (table.edges, table.confidence, table.accuracy, table.count)
    edges, confidence, accuracy, count = (np.array(column, dtype=float) for column in columns)
    middle, width = (edges[:-1] + edges[1:]) / 2, np.diff(edges) * 0.92
    full = count > 0
    with styled(theme) as s:
        figure = Figure(figsize=(4.9, 4.4))
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
        top.bar(middle[full], accuracy[full], width[full], color=s.blue, alpha=0.85, label="accuracy")
        gap = (confidence - accuracy)[full]
        look = {"facecolor": "none", "edgecolor": s.orange, "hatch": "////", "linewidth": 0.9}
        top.bar(middle[full], gap, width[full], bottom=accuracy[full], label="gap to the stated confidence", **look)
        top.plot([0, 1], [0, 1], color=s.quiet, linewidth=1, linestyle="--", label="perfect")
        top.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
        top.yaxis.set_major_formatter(lambda v, _: percent(v))
        figure.legend(loc="outside lower center", ncols=3, labelcolor=s.ink, fontsize=8)
        top.set_title(f"Expected calibration error {percent(ece, 1)}")
        below.bar(middle, count, width, color=s.quiet)
        below.set(xlabel="confidence", ylabel="images")
        below.xaxis.set_major_formatter(lambda v, _: percent(v))
        below.yaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
        below.locator_params(axis="y", nbins=3, integer=True)
        for axes in (top, below):
            axes.grid(axis="y")
    return figure


def class_balance(counts: Mapping[str, Sequence[int]], class_names: Sequence[str], theme: Theme = "light") -> Figure:
    """Images of each class, a panel for each split.

    counts: {split: K counts}. Up to 40 classes are named; of more, the counts are shown in order of size.
    """
    k = len(class_names)
    with styled(theme) as s:
        height = 0.9 + 0.2 * k if k <= 40 else 2.8
        figure = Figure(figsize=(10.6 if len(counts) > 1 else 5.4, max(1.8, height)))
        panels = figure.subplots(1, len(counts), squeeze=False)[0]
        for i, (axes, (split, sizes)) in enumerate(zip(panels, counts.items(), strict=True)):
            axes.set_title(f"{plain(split)}: {counted(sum(sizes), 'image')}")
            if k <= 40:
                axes.barh(range(k), sizes, height=0.7, color=s.blue)
                axes.set_yticks(
                    range(k), [plain(n) if i == 0 else "" for n in class_names], fontsize=9 if k <= 20 else 7
                )
                axes.tick_params(axis="y", length=0, labelcolor=s.ink)
                axes.set_ylim(k - 0.4, -0.6)
                axes.set_xlabel("images")
                axes.grid(axis="x")
                axes.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
                axes.locator_params(axis="x", nbins=5, integer=True)
            else:
                axes.stairs(sorted(sizes, reverse=True), fill=True, color=s.blue)
                axes.set(xlabel=f"{k} classes, the largest first", ylabel="images" if i == 0 else None)
                axes.yaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
                axes.grid(axis="y")
    return figure
