"""Names beside points, where nothing else is: no label covers another, a point or its whisker."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from patchlight.figures.style import Style, any_script

GAP, POINT = 3.0, 4.0  # points: around a label, and half of the width of a mark
DISTANCES = (8.0, 15.0, 24.0, 36.0, 50.0)  # points from the mark to the nearest end of its label
DIRECTIONS = (0, 180, 90, 270, 45, 315, 135, 225)  # degrees; to the right first


@dataclass(frozen=True)
class Box:
    """A rectangle, in points from the corner of the figure."""

    left: float
    bottom: float
    right: float
    top: float

    def shared(self, other: Box) -> float:
        """The area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return width * height if width > 0 and height > 0 else 0.0


@dataclass(frozen=True)
class Named:
    """A point in the units of the axes, with a whisker up and down, and what is written beside it."""

    x: float
    y: float
    half: float
    text: str
    colour: str


def name_points(figure: Figure, axes: Axes, points: Sequence[Named], s: Style, size: float = 8) -> list[Box]:
    """Write each point's text where it covers nothing, with a thin line to its point where it is not beside it. Where
    there is no such place, it is written where it covers least. The boxes of the texts, in points.

    The axes must have their limits and scales; their layout is fixed here.
    """
    with any_script():
        figure.draw_without_rendering()  # lays the axes out, so that places are known
    figure.set_layout_engine("none")
    scale = 72 / figure.dpi
    frame = axes.get_window_extent()
    inside = Box(*(scale * value for value in (frame.x0, frame.y0, frame.x1, frame.y1)))
    places = [tuple(scale * value for value in axes.transData.transform((p.x, p.y))) for p in points]
    taken = []
    for p, (x, y) in zip(points, places, strict=True):
        whisker = scale * float(axes.transData.transform((p.x, p.y + p.half))[1]) - y
        taken += [Box(x - POINT, y - POINT, x + POINT, y + POINT), Box(x - 1, y - whisker, x + 1, y + whisker)]
    written = []
    for p, (x, y) in zip(points, places, strict=True):
        text = axes.annotate(
            p.text, (p.x, p.y), (0, 0), textcoords="offset points", fontsize=size, color=s.ink, ha="center", va="center"
        )
        with any_script():
            extent = text.get_window_extent()
        width, height = scale * extent.width, scale * extent.height
        box, distance = min(
            ((box, distance) for box, distance in _around(x, y, width, height)),
            key=lambda found: (_covered(found[0], taken, inside), found[1]),
        )
        text.remove()
        axes.annotate(
            p.text,
            (p.x, p.y),
            ((box.left + box.right) / 2 - x, (box.bottom + box.top) / 2 - y),
            textcoords="offset points",
            fontsize=size,
            color=s.ink,
            ha="center",
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": s.quiet, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4}
            if distance > DISTANCES[0]
            else None,
        )
        taken.append(box)
        written.append(box)
    return written


def _around(x: float, y: float, width: float, height: float) -> Iterator[tuple[Box, float]]:
    """Boxes of a size around a place, the nearest first, with their distance from it."""
    for distance in DISTANCES:
        for angle in DIRECTIONS:
            along, up = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            middle_x = x + along * distance + (math.copysign(width / 2, along) if abs(along) > 0.1 else 0)
            middle_y = y + up * distance + (math.copysign(height / 2, up) if abs(up) > 0.1 else 0)
            yield (
                Box(middle_x - width / 2, middle_y - height / 2, middle_x + width / 2, middle_y + height / 2),
                distance,
            )


def _covered(box: Box, taken: Sequence[Box], inside: Box) -> float:
    """How much a box covers of what is there, and how much of it lies outside."""
    wider = Box(box.left - GAP, box.bottom - GAP / 2, box.right + GAP, box.top + GAP / 2)
    own = (wider.right - wider.left) * (wider.top - wider.bottom)
    return round(sum(wider.shared(other) for other in taken) + 2 * (own - wider.shared(inside)), 3)
