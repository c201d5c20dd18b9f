"""Pictures of classes: some images of each under the map for that class, and the mean map of many.

Images are uint8 RGB arrays (..., H, W, 3), maps (..., r, c).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from patchlight.figures.galleries import HEAT, overlay
from patchlight.figures.style import Style, Theme, plain, styled
from patchlight.units import counted, percent

COLUMNS = 6  # images of a class, at most


@dataclass(frozen=True)
class ClassRow:
    """Some images of a class."""

    name: str
    images: np.ndarray  # (n, H, W, 3)
    maps: np.ndarray  # (n, r, c): for this class
    preds: Sequence[str]  # what was said of each
    probs: Sequence[float]  # of this class


def class_gallery(rows: Sequence[ClassRow], method: str, theme: Theme = "light") -> Figure:
    """A row for each class: its images beside themselves under the map for that class, with the class's probability, a
    tick where it was predicted, and a cross with the prediction where it was not.
    """
    columns = min(COLUMNS, max(len(row.images) for row in rows))
    with styled(theme) as s:
        figure = Figure(figsize=(max(7.0, 0.9 + 2.0 * columns), 0.7 + 1.24 * len(rows)))
        heading(figure, f"Evidence for each class in its own images ({method}); % is the class's probability", s)
        places = figure.subplots(len(rows), columns, squeeze=False)
        for row, line in zip(rows, places, strict=True):
            for axes in line:
                axes.set_axis_off()
            name = plain(row.name, 18)
            line[0].text(
                -0.06, 0.5, name, transform=line[0].transAxes, ha="right", va="center", fontsize=9, color=s.ink
            )
            for axes, image, values, pred, prob in zip(line, row.images, row.maps, row.preds, row.probs, strict=False):
                tile(axes, image, values)
                right = pred == row.name
                said = f"✓ {percent(prob)}" if right else f"✗ {plain(pred, 12)} ({percent(prob)})"
                axes.set_title(said, fontsize=8, fontweight="normal", color=s.green if right else s.orange, pad=2)
    return figure


def tile(axes: Axes, image: np.ndarray, values: np.ndarray) -> None:
    """An image and, to its right, the same under its map."""
    under = overlay(image, values)
    factor = max(1, under.shape[0] // image.shape[0])
    large = image.repeat(factor, axis=0).repeat(factor, axis=1)
    gap = np.full((under.shape[0], under.shape[1] // 24, 4), 0, np.uint8)
    solid = [np.dstack([part, np.full(part.shape[:2], 255, np.uint8)]) for part in (large, under)]
    axes.imshow(np.hstack([solid[0], gap, solid[1]]), interpolation="none")


def mean_maps(
    names: Sequence[str],
    mean: np.ndarray,
    spread: np.ndarray,
    counts: Sequence[int],
    likeness: Sequence[float],
    centre: np.ndarray,
    method: str,
    theme: Theme = "light",
) -> Figure:
    """The mean map of each class and below it the standard deviation over its images, (C, r, c) each, beside the
    control that knows only the middle, (r, c). One scale of colours for all means and one for all deviations.

    `counts` (C,) are the images, `likeness` (C,) the rank correlation of the mean map with that control.
    """
    columns = len(names) + 1
    with styled(theme) as s:
        figure = Figure(figsize=(max(7.4, 1.3 + 1.15 * columns), 3.5))
        heading(figure, f"Where the evidence for each class lies on average ({method})", s)
        places = figure.subplots(2, columns, squeeze=False)
        for axes in places.flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for i, name in enumerate(names):
            above, below = places[:, i]
            shown = above.imshow(mean[i], vmin=mean.min(), vmax=mean.max(), cmap=HEAT, interpolation="none")
            title = f"{plain(name, 13)}\n{counted(counts[i], 'image')}"
            above.set_title(title, fontsize=8, fontweight="normal", color=s.ink)
            above.set_xlabel(f"like centre {likeness[i]:+.2f}", fontsize=8)
            varied = below.imshow(spread[i], vmin=0, vmax=spread.max(), cmap=HEAT, interpolation="none")
        places[0, -1].imshow(centre, cmap=HEAT, interpolation="none")
        places[0, -1].set_title("control:\nthe centre", fontsize=8, fontweight="normal", color=s.quiet)
        places[1, -1].set_visible(False)
        for line, word in zip(places, ("mean", "spread"), strict=True):
            line[0].set_ylabel(word, fontsize=8)
        for line, picture in zip(places, (shown, varied), strict=True):
            bar = figure.colorbar(picture, ax=list(line), shrink=0.8, pad=0.01)
            bar.ax.tick_params(labelsize=7)
            bar.outline.set_visible(False)
    return figure


def heading(figure: Figure, text: str, s: Style) -> None:
    figure.suptitle(text, fontsize=10, fontweight="bold", color=s.ink, x=0.01, ha="left")
