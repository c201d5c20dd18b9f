"""Sheets: figures on which every picture, word and scale of colours has its given place, in inches from the upper left.

One pair of axes holds all of it: an axes for each picture would take seconds to draw. A picture is (h, w, 3) uint8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from patchlight.figures.overlays import Scale, colours_of, map_scale
from patchlight.figures.style import Style, Theme, styled, wrapped

# Inches: a picture's longer side, the room between pictures and at the border, and a line of words.
SIDE, GAP, MARGIN, LINE = 1.28, 0.08, 0.08, 0.16
LEFT = 1.1  # of the words before a row
NARROWEST = 5.2  # so that a title has room
ABREAST = 6  # pictures of one image in a line


@dataclass(frozen=True)
class Row:
    """Pictures in a row, None an empty place, and a note below each, of two lines at most; before them the label."""

    label: str
    pictures: Sequence[ArrayLike | None]
    notes: Sequence[str] = ()


def sheet_of(width: float, height: float, title: str, s: Style) -> tuple[Figure, Axes, float]:
    """An empty sheet below its title; `height` is without the title's, and the last number is where it begins."""
    words = wrapped(title, width - 3 * MARGIN, size=10, weight="bold")
    top = 0.34 + 0.18 * words.count("\n") if words else MARGIN
    figure = Figure(figsize=(width, top + height))
    figure.set_layout_engine("none")  # all places are given
    sheet = figure.add_axes((0, 0, 1, 1))
    sheet.set_axis_off()
    sheet.set(xlim=(0, width), ylim=(top + height, 0), autoscale_on=False)
    sheet.text(MARGIN, 0.1, words, fontsize=10, fontweight="bold", color=s.ink, ha="left", va="top")
    return figure, sheet, top


def place(sheet: Axes, picture: NDArray[Any], x: float, y: float, side: float = SIDE) -> None:
    """A picture in the square of `side` inches whose upper left corner is (x, y)."""
    height, width = (side * n / max(picture.shape[:2]) for n in picture.shape[:2])
    x, y = x + (side - width) / 2, y + (side - height) / 2
    sheet.imshow(picture, extent=(x, x + width, y + height, y), aspect="auto", interpolation=crispness(picture))


def crispness(picture: NDArray[Any]) -> str:
    """The pixel grid of a small image is shown as it is; "none" also keeps it unscaled inside an SVG."""
    return "none" if max(picture.shape[:2]) <= 256 else "antialiased"


def scales_height(scales: Sequence[Scale]) -> float:
    """How much room they take at the foot of a sheet, in inches."""
    return (0.54 + (LINE if any(scale.about for scale in scales) else 0)) if scales else 0.0


def scales_below(sheet: Axes, scales: Sequence[Scale], top: float, s: Style) -> None:
    """What the colours of maps mean, side by side below `top`."""
    width = sheet.get_xlim()[1]
    pitch = min(4.0, (width - 2 * MARGIN) / len(scales))
    length, first = pitch - 0.7, width / 2 - pitch * len(scales) / 2
    y = top + scales_height(scales) - 0.38
    for i, scale in enumerate(scales):
        x = first + i * pitch + (pitch - length) / 2
        colours = colours_of(np.linspace(0, 1, 255), scale.colours)[None]  # an odd number, so that 0.5 has a colour
        sheet.imshow(colours, extent=(x, x + length, y + 0.08, y), aspect="auto", interpolation="none")
        for at, word in scale.marks:
            across = x + at * length
            sheet.plot([across, across], [y, y + 0.12], color=s.ink, linewidth=0.8, solid_capstyle="butt")
            sheet.text(across, y + 0.14, word, fontsize=8, color=s.quiet, ha="center", va="top")
        if scale.about:
            sheet.text(x + length / 2, y - 0.04, scale.about, fontsize=8, color=s.quiet, ha="center", va="bottom")


def board(
    rows: Sequence[Row | tuple[str, Sequence[ArrayLike | None]]],
    title: str,
    captions: Sequence[str] = (),
    theme: Theme = "light",
    *,
    scales: Sequence[Scale] | None = None,
    apart: Sequence[Row] = (),
    heading: str = "",
    foot: str = "",
    side: float = SIDE,
) -> Figure:
    """Rows of pictures with a word before each: images, and below them what different maps make of them.

    rows: a Row each, or (label, pictures) of one without notes, all equally long or shorter; `captions` stand above the
    first row's pictures, a sentence a line. `apart` are rows below a rule with a `heading`. `scales` explain the
    colours of maps at the foot: that of maps of one sign where none are given, () for none; `foot` is a sentence below.
    Of one image, the pictures stand side by side, each above its label, and the caption before them.
    """
    every = [row if isinstance(row, Row) else Row(*row) for row in rows]
    if len(every) + len(apart) > 2 and all(len(row.pictures) == 1 for row in (*every, *apart)):
        every, apart, captions = _side_by_side(every, captions), _side_by_side(apart), ()
    plan = _Plan.of(every, apart, captions, side)
    scales = (map_scale(),) if scales is None else scales
    with styled(theme) as s:
        width = max(NARROWEST, MARGIN + LEFT + plan.columns * (side + GAP) + MARGIN)
        words = wrapped(foot, width - 4 * MARGIN)
        foot_height = LINE * (1 + words.count("\n")) + MARGIN if words else 0
        below = plan.height + scales_height(scales)
        figure, sheet, top = sheet_of(width, below + foot_height + MARGIN, title, s)
        for x, caption in zip(plan.across(), plan.captions, strict=False):
            y = top + plan.captions_height - 0.05
            sheet.text(x + side / 2, y, caption, fontsize=8, color=s.ink, ha="center", va="bottom")
        for row, y in zip(plan.rows, plan.down, strict=True):
            _draw(sheet, row, top + y, plan, s)
        if apart:
            y = top + plan.down[-len(apart)]
            sheet.plot([MARGIN, width - MARGIN], [y - 0.3] * 2, color=s.quiet, linewidth=0.8)
            sheet.text(MARGIN, y - 0.15, heading, fontsize=9, fontweight="bold", color=s.quiet, ha="left", va="center")
        if scales:
            scales_below(sheet, scales, top + plan.height, s)
        sheet.text(width / 2, top + below + 0.04, words, fontsize=8, color=s.quiet, ha="center", va="top")
    return figure


def _side_by_side(rows: Sequence[Row], captions: Sequence[str] = ()) -> list[Row]:
    """Rows of one picture each as rows of up to ABREAST pictures, their labels as notes; the first has the caption."""
    notes = [f"{row.label}\n{row.notes[0]}" if row.notes else row.label for row in rows]
    abreast = -(-len(rows) // max(1, -(-len(rows) // ABREAST)))  # so that the last line is about as long as the others
    lines = [slice(start, start + abreast) for start in range(0, len(rows), max(1, abreast))]
    pictures = [row.pictures[0] for row in rows]
    labels = [*captions[:1], *[""] * len(rows)]
    return [Row(label, pictures[line], notes[line]) for label, line in zip(labels, lines, strict=False)]


@dataclass(frozen=True)
class _Plan:
    """Where the rows of a board stand, in inches below its title."""

    rows: Sequence[Row]
    captions: Sequence[str]
    captions_height: float
    down: Sequence[float]  # of each row
    height: float
    columns: int
    side: float

    @classmethod
    def of(cls, rows: Sequence[Row], apart: Sequence[Row], captions: Sequence[str], side: float) -> _Plan:
        words = [wrapped(caption, side + GAP / 2) for caption in captions]
        y = above = LINE * max(1 + caption.count("\n") for caption in words) + GAP if words else 0.0
        every = [Row(r.label, r.pictures, [wrapped(note, side + GAP / 2) for note in r.notes]) for r in (*rows, *apart)]
        down = []
        for i, row in enumerate(every):
            y += 0.45 if apart and i == len(rows) else 0
            down.append(y)
            y += side + GAP + (LINE * max(1 + note.count("\n") for note in row.notes) + 0.04 if row.notes else 0)
        return cls(every, words, above, down, y, max(len(row.pictures) for row in every), side)

    def across(self) -> list[float]:
        """The left edge of each column."""
        return [MARGIN + LEFT + column * (self.side + GAP) for column in range(self.columns)]


def _draw(sheet: Axes, row: Row, y: float, plan: _Plan, s: Style) -> None:
    left, side = MARGIN + LEFT - 0.08, plan.side
    label = wrapped(row.label, LEFT - GAP, min(6, 9 // (1 + row.label.count("\n"))))  # as high as a picture, at most
    sheet.text(left, y + side / 2, label, fontsize=8, color=s.quiet, ha="right", va="center")
    for x, picture in zip(plan.across(), row.pictures, strict=False):
        if picture is not None:
            place(sheet, np.asarray(picture, dtype=np.uint8), x, y, side)
    for x, note in zip(plan.across(), row.notes, strict=False):
        sheet.text(x + side / 2, y + side + 0.03, note, fontsize=8, color=s.quiet, ha="center", va="top")
