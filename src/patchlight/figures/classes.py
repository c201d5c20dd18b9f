"""Pictures of classes: some images of each under the map for that class, and the mean map of many.

Images are uint8 RGB arrays (..., H, W, 3), maps (..., r, c).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from patchlight.figures.captions import predicted
from patchlight.figures.overlays import HEAT, WHOLE, Shares, map_scale, overlay, says_nothing
from patchlight.figures.sheets import (
    GAP,
    LEFT,
    LINE,
    MARGIN,
    NARROWEST,
    SIDE,
    place,
    scales_below,
    scales_height,
    sheet_of,
)
from patchlight.figures.style import Style, Theme, plain, styled, wrapped
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


def class_gallery(
    rows: Sequence[ClassRow],
    method: str,
    theme: Theme = "light",
    *,
    signed: bool = False,
    percentile: float = 100.0,
    covered: Shares = WHOLE,
) -> Figure:
    """A row for each class: its images beside themselves under the map for that class, with the class's probability, a
    tick where it was predicted, and a cross with the prediction where it was not. `signed` and `percentile` are of all
    maps, and `covered` of the images, as in `overlays.overlay`.
    """
    columns = min(COLUMNS, max(len(row.images) for row in rows))
    captions = [
        [
            wrapped("\n".join(filter(None, (said_of(row.name, pred, prob), says_nothing(values)))), 2 * SIDE + GAP)
            for pred, prob, values in zip(row.preds[:columns], row.probs, row.maps, strict=False)
        ]
        for row in rows
    ]
    above = LINE * max(1 + caption.count("\n") for line in captions for caption in line) + GAP
    pair, pitch, scales = 2 * SIDE + 3 * GAP, SIDE + above + GAP, [map_scale(signed, percentile)]
    with styled(theme) as s:
        title = f"Evidence for each class in its own images ({method})"
        width, height = max(NARROWEST, 2 * MARGIN + LEFT + columns * pair), len(rows) * pitch
        figure, sheet, top = sheet_of(width, height + scales_height(scales) + MARGIN, title, s)
        for line, row in enumerate(rows):
            y = top + line * pitch + above
            name = wrapped(row.name, LEFT - GAP, 6)
            sheet.text(MARGIN + LEFT - 0.08, y + SIDE / 2, name, fontsize=8, color=s.ink, ha="right", va="center")
            for i, caption in enumerate(captions[line]):
                x, colour = MARGIN + LEFT + i * pair, s.green if row.preds[i] == row.name else s.orange
                over = overlay(row.images[i], row.maps[i], signed=signed, percentile=percentile, covered=covered)
                place(sheet, row.images[i], x, y)
                place(sheet, over, x + SIDE + GAP, y)
                sheet.text(x, y - 0.05, caption, fontsize=8, color=colour, ha="left", va="bottom")
        scales_below(sheet, scales, top + height, s)
    return figure


def said_of(name: str, pred: str, prob: float) -> str:
    """What was said of an image of a class, and the class's own probability."""
    return f"✓ {predicted(name, prob)}" if pred == name else f"✗ predicted {pred}\nmap for {name}, {percent(prob)}"


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
    control that knows only the middle, (r, c). One scale of colours for all means and the control, and one for all
    deviations.

    `counts` (C,) are the images, `likeness` (C,) the rank correlation of the mean map with that control.
    """
    columns, low, high = len(names) + 1, min(mean.min(), centre.min()), max(mean.max(), centre.max())
    with styled(theme) as s:
        figure = Figure(figsize=(max(7.4, 1.3 + 1.15 * columns), 3.5))
        heading(figure, f"Where the evidence for each class lies on average ({method})", s)
        places = figure.subplots(2, columns, squeeze=False)
        for axes in places.flat:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        for i, name in enumerate(names):
            above, below = places[:, i]
            shown = above.imshow(mean[i], vmin=low, vmax=high, cmap=HEAT, interpolation="none")
            title = f"{plain(name, 13)}\n{counted(counts[i], 'image')}"
            above.set_title(title, fontsize=8, fontweight="normal", color=s.ink)
            above.set_xlabel(f"like centre {likeness[i]:+.2f}", fontsize=8)
            varied = below.imshow(spread[i], vmin=0, vmax=spread.max(), cmap=HEAT, interpolation="none")
        places[0, -1].imshow(centre, vmin=low, vmax=high, cmap=HEAT, interpolation="none")
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
