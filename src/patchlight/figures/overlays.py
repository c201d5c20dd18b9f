"""A map laid over its image: the two scales of colours, patch maps smoothly and pixel maps crisply, masks and marks.

Images and pictures are uint8 RGB arrays: images (H, W, 3) as they are, pictures (y, x, 3) as they are drawn. A map is
(r, c) of patches or (h, w) of pixels; a patch of a grid is (row, column). `covered` is the share of the image's height
and width that the r x c patches cover, as in `explanation.cells.Cells`: below 1 where pixels at the right and below are
in no patch, above 1 where the image is filled up. No files and no torch, as in `charts.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw

from patchlight.errors import UsageError
from patchlight.units import SPACE

Pixels = NDArray[np.uint8]
Shares = tuple[float, float]
WHOLE: Shares = (1.0, 1.0)  # `covered` of patches that fit their image
NO_EVIDENCE, EVEN = "no evidence", "the same everywhere"  # of maps that say nothing
ROUNDING = 1e-6  # a difference of values is none below this share of the greatest, as float32 rounds
HEAT = "inferno"
# From against (blue) over nothing (all but white) to for (red), both ends equally dark: colour-blind readers see both.
FOR_AND_AGAINST = LinearSegmentedColormap.from_list(
    "for_and_against", ["#0a3d8f", "#3182ce", "#b5d4ec", "#f7f7f7", "#fbb9a2", "#e8382b", "#a00d12"]
)
LUMA = np.array([0.299, 0.587, 0.114])  # the grey of a colour, ITU-R BT.601
SIDE = 192  # pixels of a picture's longer side, at least: as many as a sheet gives it at 150 dpi
LINE, CASE = (255, 214, 0), (0, 0, 0)  # of what is drawn on a picture, with an edge that is seen on any colour


@dataclass(frozen=True)
class Scale:
    """What colours mean: words at places of 0..1 along them, and more about all of them."""

    colours: str | Colormap
    marks: Sequence[tuple[float, str]]
    about: str = ""


def map_scale(signed: bool = False, percentile: float = 100.0, ends: tuple[str, str] = ("against", "for")) -> Scale:
    """The scale of `overlay`'s colours. `ends` say what the least and the greatest value of signed maps mean."""
    check_percentile(percentile)
    clipped = "" if percentile == 100 else f" {100 - percentile:.3g}{SPACE}% clipped"
    if signed:
        about = f"strongest{clipped}" if clipped else ""
        return Scale(FOR_AND_AGAINST, ((0, ends[0]), (0.5, "0"), (1, ends[1])), about)
    return Scale(HEAT, ((0, "least"), (1, "most")), f"brightest{clipped}" if clipped else "")


def check_percentile(percentile: float) -> None:
    """Raises UsageError where it is not from 50 to 100."""
    if not 50 <= percentile <= 100:
        raise UsageError(
            f"percentile is {percentile:g}; give one from 50 to 100 (100 clips nothing, 99 the strongest 1 % of a map)"
        )


def heat(values: ArrayLike) -> Pixels:
    """Values in 0..1 as colours, (..., 3) uint8: the colour scale of every map of one sign."""
    return colours_of(values, HEAT)


def colours_of(values: ArrayLike, colours: str | Colormap) -> Pixels:
    """Values in 0..1 as colours, (..., 3) uint8."""
    table = mpl.colormaps[colours] if isinstance(colours, str) else colours
    return np.asarray(table(np.asarray(values, dtype=float), bytes=True)[..., :3])


def stretched(values: ArrayLike, *, signed: bool = False, percentile: float = 100.0) -> NDArray[np.float64]:
    """A map of any scale on 0..1, for its colours.

    Unsigned: from its own least value (0) to its `percentile` (1); 100 is its greatest value. Signed: zero is 0.5, and
    0 and 1 are the same distance from it, the `percentile` of |values|. What lies beyond is clipped. A map without any
    difference (`says_nothing`) has no greatest place: it becomes 0, and where it is signed 0.5 only if it is zero.
    Raises UsageError for a percentile outside 50 to 100, and for a map with values that are no numbers.
    """
    check_percentile(percentile)
    v = np.asarray(values, dtype=np.float64)
    if not np.isfinite(v).all():
        raise UsageError(
            f"{(~np.isfinite(v)).sum()} of {v.size} values of a map are nan or infinite, so it cannot be drawn; look "
            f"for such values in the images and in the model's weights"
        )
    if signed:
        limit = np.percentile(np.abs(v), percentile)
        shares = v / limit if limit else np.sign(v)  # where most are 0, the rest is beyond every limit
        return np.clip(0.5 + 0.5 * shares, 0, 1)
    low, high = v.min(), np.percentile(v, percentile)
    if says_nothing(v):
        return np.zeros_like(v)
    return np.clip((v - low) / (high - low), 0, 1) if high > low else (v > low).astype(np.float64)


def says_nothing(values: ArrayLike) -> str:
    """Words for a map (r, c) or (h, w) without any difference, which tells no place from another; "" of any other."""
    v = np.asarray(values, dtype=np.float64)
    most = np.abs(v).max()
    return "" if np.ptp(v) > ROUNDING * most else EVEN if most else NO_EVIDENCE


def overlay(
    image: ArrayLike,
    values: ArrayLike,
    *,
    signed: bool = False,
    percentile: float = 100.0,
    crisp: bool | None = None,
    side: int = SIDE,
    strength: float = 0.6,
    covered: Shares = WHOLE,
) -> Pixels:
    """A map laid over its image, (y, x, 3) uint8 with the longer side at least `side`.

    image (H, W, 3) uint8, enlarged crisply and shown in grey; values (h, w) on a scale of colours as `stretched` puts
    them. A map that has at least the image's size is one of pixels and stays crisp; a smaller one is of patches, and
    enlarged smoothly. `crisp` overrules that. Pixels that no patch covers have the nearest value. Of a signed map zero
    is almost white, so the image is paler behind it. `strength` is the share of the colours of an unsigned map. Raises
    UsageError as `stretched` does.
    """
    picture, weights = np.asarray(image, dtype=np.uint8), stretched(values, signed=signed, percentile=percentile)
    crisp = of_pixels(picture, weights) if crisp is None else crisp
    size = canvas(weights if crisp and weights.size > picture[..., 0].size else picture, side)
    grey = (enlarged(picture, size) @ LUMA)[..., None]
    large = enlarged(weights, size, covered) if crisp else _smooth(weights, size, signed, covered)
    if signed:  # the colours are filtered by the image, so that a hue stays what it is
        mixed = colours_of(large, FOR_AND_AGAINST) * (0.7 + 0.3 * grey / 255)
    else:
        mixed = (1 - strength) * grey + strength * heat(large)
    return np.asarray(mixed.round().clip(0, 255), dtype=np.uint8)


def of_pixels(image: ArrayLike, values: ArrayLike) -> bool:
    """Whether a map is one of pixels: as large as its image, or larger, as where a model enlarges images itself."""
    shape, (height, width) = np.shape(image), np.shape(values)
    return height >= shape[0] and width >= shape[1]


def canvas(pixels: ArrayLike, side: int = SIDE) -> tuple[int, int]:
    """The least whole multiple of the array's height and width whose longer side has `side` pixels."""
    height, width = np.shape(pixels)[:2]
    factor = max(1, -(-side // max(height, width)))
    return factor * height, factor * width


def spans(size: tuple[int, int], covered: Shares) -> tuple[int, int]:
    """How many pixels of a picture's height and width patches cover; more than it has where the image is filled up."""
    return round(size[0] * covered[0]), round(size[1] * covered[1])


def enlarged(array: NDArray[Any], size: tuple[int, int], covered: Shares = WHOLE) -> NDArray[Any]:
    """(y, x, ...) -> (*size, ...), crisply: each value takes the place of a block, the last one of what is left."""
    whole = spans(size, covered)
    rows, columns = (
        np.minimum(np.arange(n) * m // span, m - 1) for n, m, span in zip(size, array.shape[:2], whole, strict=True)
    )
    return array[rows[:, None], columns[None, :]]


def _smooth(weights: NDArray[np.float64], size: tuple[int, int], signed: bool, covered: Shares) -> NDArray[np.float32]:
    """Bicubic; linear of signed maps, as beside a strong patch a cubic one would dip to a sign that is not there."""
    method, (height, width) = Image.Resampling.BILINEAR if signed else Image.Resampling.BICUBIC, spans(size, covered)
    large = np.asarray(Image.fromarray(weights.astype(np.float32)).resize((width, height), method))
    missing = max(0, size[0] - height), max(0, size[1] - width)
    return np.clip(np.pad(large, ((0, missing[0]), (0, missing[1])), "edge")[: size[0], : size[1]], 0, 1)


def in_place(cells: ArrayLike, image: ArrayLike, covered: Shares = WHOLE, side: int = SIDE) -> Pixels:
    """Colours of patches (r, c, 3) as a picture that stands beside its image (H, W, 3): as they are where they cover
    it, else each at its place, and nothing (RGBA, clear) where there is no patch.
    """
    colours = np.asarray(cells, dtype=np.uint8)
    if covered == WHOLE:
        return colours
    size = canvas(image, max(side, *colours.shape[:2]))
    picture = np.zeros((*size, 4), np.uint8)
    rows, columns = (min(n, span) for n, span in zip(size, spans(size, covered), strict=True))
    picture[..., :3] = enlarged(colours, size, covered)
    picture[:rows, :columns, 3] = 255
    return picture


def within_mask(image: ArrayLike, mask: ArrayLike, side: int = SIDE, covered: Shares = WHOLE) -> Pixels:
    """An image (H, W, 3) uint8 whose part outside of a mask (h, w) bool is dim and grey, the mask's edge drawn. What no
    patch covers is outside.
    """
    picture, within = np.asarray(image, dtype=np.uint8), np.asarray(mask, dtype=bool)
    size = canvas(within if within.size > picture[..., 0].size else picture, side)
    large, keep, (rows, columns) = enlarged(picture, size), enlarged(within, size, covered), spans(size, covered)
    keep[rows:], keep[:, columns:] = False, False
    dim = np.repeat(45 + 0.3 * (large @ LUMA)[..., None], 3, axis=2).round().astype(np.uint8)  # lighter than black
    return outlined(np.where(keep[..., None], large, dim), keep)


def outlined(picture: Pixels, mask: ArrayLike) -> Pixels:
    """A picture with the edge of a mask (h, w) bool as a line; at the picture's own border there is none."""
    large = enlarged(np.asarray(mask, dtype=bool), picture.shape[:2])
    width = max(1, max(picture.shape[:2]) // 96)
    kept, out = _eroded(large, width), picture.copy()
    out[(_grown(large, 1) & ~large) | (kept & ~_eroded(kept, 1))] = CASE
    out[large & ~kept] = LINE
    return out


def _grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The mask and all within `by` pixels of it, in a square."""
    padded = np.pad(mask, by)
    height, width = mask.shape
    across = np.any([padded[:, i : i + width] for i in range(2 * by + 1)], axis=0)
    return np.asarray(np.any([across[i : i + height] for i in range(2 * by + 1)], axis=0))


def _eroded(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    return ~_grown(~mask, by)


def marked(
    image: Pixels,
    grid: tuple[int, ...],
    patch: tuple[int, int] | None = None,
    least: int = 16,
    covered: Shares = WHOLE,
) -> Pixels:
    """An image (H, W, 3) uint8, enlarged so that a frame fits around a patch of a grid (r, c), the middle one where
    none is named: a patch has at least `least` pixels a side.
    """
    row, column = patch or (grid[0] // 2, grid[1] // 2)
    side = (span // n for span, n in zip(spans(image.shape[:2], covered), grid, strict=True))
    scale = max(1, -(-least // max(1, min(side))))
    large = image.repeat(scale, axis=0).repeat(scale, axis=1)
    height, width = spans(large.shape[:2], covered)
    top, bottom = (height * n // grid[0] for n in (row, row + 1))
    left, right = (width * n // grid[1] for n in (column, column + 1))
    width = max(1, (bottom - top) // 8)
    for grow, colour in ((0, 255), (width, 0)):  # white outside and black inside, to be seen on any colour
        box = large[top + grow : bottom - grow, left + grow : right - grow]
        box[:width], box[-width:], box[:, :width], box[:, -width:] = (colour,) * 4
    return large


def dotted(picture: Pixels, at: tuple[float, float], colour: tuple[int, int, int] = LINE) -> Pixels:
    """A picture with a dot at a place (y, x), each in 0..1 of the picture."""
    return with_path(picture, [at], [colour])


def with_path(
    picture: Pixels, places: Sequence[tuple[float, float] | None], colours: Sequence[tuple[int, int, int]]
) -> Pixels:
    """A picture with a line from place to place, (y, x) in 0..1 of the picture, and a dot at each; None breaks it. Each
    place has its colour, and a line that of the place where it ends.
    """
    height, width = picture.shape[:2]
    drawing = Image.fromarray(picture)
    pen, radius = ImageDraw.Draw(drawing), max(2.0, max(height, width) / 40)
    edge = max(1.0, radius / 2)
    points = [None if at is None else (at[1] * width - 0.5, at[0] * height - 0.5) for at in places]
    lines = [(a, b, colour) for (a, b), colour in zip(pairwise(points), colours[1:], strict=True) if a and b and a != b]
    for a, b, _ in lines:
        pen.line([a, b], fill=CASE, width=round(radius / 1.5 + 2 * edge))
    for a, b, colour in lines:
        pen.line([a, b], fill=colour, width=round(radius / 1.5))
    for point, colour in zip(points, colours, strict=True):
        if point is not None:
            pen.circle(point, radius + edge, fill=CASE)
            pen.circle(point, radius, fill=colour)
    return np.asarray(drawing)


def middle_of(patch: int, grid: tuple[int, ...], covered: Shares = WHOLE) -> tuple[float, float]:
    """The middle (y, x), in 0..1 of the picture, of a patch of a grid (r, c) by its index in reading order: of that
    part of it that lies in the image.
    """
    y, x = (
        (share * at / n + min(1.0, share * (at + 1) / n)) / 2
        for at, n, share in zip(divmod(patch, grid[1]), grid, covered, strict=True)
    )
    return y, x
