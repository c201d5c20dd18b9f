"""The pictures of the report: images, patches and attention as matplotlib figures. Pixels stay crisp.

Images are uint8 RGB arrays (..., H, W, 3). No files and no torch, as in `charts.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike, NDArray

from patchlight.figures.captions import predicted
from patchlight.figures.overlays import WHOLE, Pixels, Shares, map_scale, overlay, says_nothing
from patchlight.figures.sheets import (
    GAP,
    LINE,
    MARGIN,
    NARROWEST,
    SIDE,
    crispness,
    place,
    scales_below,
    scales_height,
    sheet_of,
)
from patchlight.figures.style import Style, Theme, plain, styled, wrapped
from patchlight.runs.arrays import FirstBatch, NearCopies

BY = "\N{MULTIPLICATION SIGN}"


def gallery(
    images: ArrayLike,
    labels: Sequence[int],
    probs: ArrayLike,
    class_names: Sequence[str],
    theme: Theme = "light",
    columns: int = 6,
) -> Figure:
    """Tiles with what the model said, how sure it was, and (where it was wrong) what was true.

    images (S, H, W, 3) uint8, labels (S,), probs (S, K) of rows that sum to 1. A wrong one has a cross, a dashed frame
    and another colour.
    """
    pictures, p = np.asarray(images), np.asarray(probs)
    preds, words = p.argmax(axis=1).tolist(), []
    for pred, label, row in zip(preds, labels, p, strict=True):
        said = f"{'✓' if pred == int(label) else '✗'} {predicted(class_names[pred], row[pred])}"
        words.append(wrapped(said if pred == int(label) else f"{said}\ntrue: {class_names[label]}", 1.38))
    with styled(theme) as s:
        above = 0.14 * max(1 + caption.count("\n") for caption in words) + 0.12
        figure, places = _tiles(len(pictures), columns, text=above)
        for axes, picture, pred, label, caption in zip(places, pictures, preds, labels, words, strict=True):
            _show(axes, picture)
            _frame(axes, s.green if pred == int(label) else s.orange, "-" if pred == int(label) else "--")
            axes.set_title(caption, fontsize=8, fontweight="normal", color=s.ink, pad=4)
    return figure


def sample_grid(
    images: ArrayLike, labels: ArrayLike, class_names: Sequence[str], theme: Theme = "light", columns: int = 10
) -> Figure:
    """Images (S, H, W, 3) uint8 with their class's name above."""
    with styled(theme) as s:
        figure, places = _tiles(len(np.asarray(images)), columns, text=0.22, side=1.05)
        for axes, picture, label in zip(places, np.asarray(images), np.asarray(labels), strict=False):
            _show(axes, picture)
            axes.set_title(plain(class_names[label], 14), fontsize=8, fontweight="normal", color=s.ink, pad=3)
    return figure


def augmentation_preview(originals: ArrayLike, variants: ArrayLike, theme: Theme = "light") -> Figure:
    """Each image at the left and beside it what training sees of it.

    originals (N, H, W, 3) uint8, variants (N, V, H, W, 3) uint8.
    """
    before, after = np.asarray(originals), np.asarray(variants)
    columns = 1 + after.shape[1]
    with styled(theme) as s:
        figure, places = _tiles(len(before) * columns, columns, text=0.02, side=1.05)
        for row in range(len(before)):
            for column, picture in enumerate([before[row], *after[row]]):
                axes = places[row * columns + column]
                _show(axes, picture)
                if column == 0:
                    _frame(axes, s.ink, "-")
                if row == 0 and column < 2:
                    axes.set_title("original" if column == 0 else "as trained on", fontsize=8, color=s.ink, pad=4)
    return figure


def batch(shown: FirstBatch, class_names: Sequence[str], theme: Theme = "light", columns: int = 8) -> Figure:
    """Images as they are trained on, each below its label as `batch_labels` writes it."""
    labels = batch_labels(shown, class_names)
    columns = max(1, min(columns, len(labels)))
    above = 0.13 * max(1 + label.count("\n") for label in labels) + 0.12
    width = 2 * MARGIN + columns * (SIDE + GAP) - GAP
    with styled(theme) as s:
        figure, sheet, top = sheet_of(width, -(-len(labels) // columns) * (SIDE + above) + MARGIN, "", s)
        for i, label in enumerate(labels):
            x, y = MARGIN + (i % columns) * (SIDE + GAP), top + (i // columns) * (SIDE + above) + above
            place(sheet, shown.images[i], x, y)
            words = "\n".join(plain(line, 19) for line in label.split("\n"))
            sheet.text(x + SIDE / 2, y - 0.05, words, fontsize=7.5, color=s.ink, ha="center", va="bottom")
    return figure


def batch_labels(shown: FirstBatch, class_names: Sequence[str]) -> list[str]:
    """The label of each image, a class in a line: "cat", or where images are mixed "0.70 cat", "+ 0.30 dog".

    An image that is mixed with another one of its class is "cat", "+ cat".
    """
    words = []
    for label, shares, mixed in zip(shown.labels.tolist(), shown.targets, shown.mixed, strict=True):
        others = [i for i in np.flatnonzero(shares).tolist() if i != label]
        lines = [f"{shares[i]:.2f} {class_names[i]}" for i in (label, *others)] if others else [class_names[label]]
        words.append("\n+ ".join(lines + ([class_names[label]] if mixed and not others else [])))
    return words


def pairs(images: ArrayLike, captions: Sequence[Sequence[str]], theme: Theme = "light", columns: int = 4) -> Figure:
    """Two images (P, 2, H, W, 3) uint8 side by side, below the lines of each pair's caption."""
    two = np.asarray(images)
    columns = max(1, min(columns, len(two)))
    above = 0.13 * (1 + max((len(lines) for lines in captions), default=0)) + 0.08
    pitch = 2 * SIDE + 5 * GAP
    with styled(theme) as s:
        rows = -(-len(two) // columns)
        figure, sheet, top = sheet_of(2 * MARGIN + columns * pitch, rows * (SIDE + above) + MARGIN, "", s)
        for i, (pair, lines) in enumerate(zip(two, captions, strict=True)):
            x, y = MARGIN + (i % columns) * pitch, top + (i // columns) * (SIDE + above) + above
            place(sheet, pair[0], x, y)
            place(sheet, pair[1], x + SIDE + GAP, y)
            words = "\n".join(plain(line, 40) for line in lines)
            sheet.text(x + SIDE + GAP / 2, y - 0.05, words, fontsize=7.5, color=s.ink, ha="center", va="bottom")
    return figure


def pair_captions(copies: NearCopies, class_names: Sequence[str]) -> list[list[str]]:
    """Of each pair of near copies: the sets and places of both, their classes, and how alike they are."""
    captions = []
    for which, places, labels, alike in zip(
        copies.comparison, copies.places, copies.labels, copies.likeness, strict=True
    ):
        own = [plain(class_names[i] if i < len(class_names) else str(i), 26) for i in labels.tolist()]
        captions.append(
            [
                f"{copies.seen[which]} {places[0]}, {copies.held[which]} {places[1]}",
                own[0] if own[0] == own[1] else f"{own[0]}, but {own[1]}",
                "the same pixels" if alike == 1 else f"likeness {alike:.2f}",
            ]
        )
    return captions


def patches(image: ArrayLike, patch_size: int, theme: Theme = "light") -> Figure:
    """The image, and the image cut into patches that are numbered in reading order: the tokens a ViT sees.

    image (H, W, 3) uint8. Up to 100 patches are all numbered, of more the first of each row and the last.
    Raises ValueError where patch_size does not divide H and W.
    """
    picture = np.asarray(image, dtype=np.uint8)
    height, width = picture.shape[:2]
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(f"patches of {patch_size} pixels do not tile an image of {height} x {width}")
    rows, columns = height // patch_size, width // patch_size
    with styled(theme) as s:
        figure = Figure(figsize=(7.6, 3.9 * min(1.6, height / width)))
        whole, cut = figure.subplots(1, 2)
        _show(whole, picture)
        _frame(whole, s.quiet, "-", width=0.3)
        whole.set_title(f"{height} {BY} {width} pixels", fontsize=9, fontweight="normal")
        _cut(cut, picture, patch_size, s)
        words = f"{rows} {BY} {columns} = {rows * columns} patches of {patch_size} {BY} {patch_size} pixels"
        cut.set_title(words if rows * columns > 1 else "one patch", fontsize=9, fontweight="normal")
    return figure


def _cut(axes: Axes, picture: Pixels, size: int, s: Style) -> None:
    height, width = picture.shape[:2]
    rows, columns = height // size, width // size
    # One picture with clear lanes between the patches; a lane is a fifth of a patch, whatever the patch's size.
    scale = -(-5 // size) if size < 5 else 1
    side = size * scale
    lane = max(1, side // 5)
    pitch = side + lane
    boxes = []
    apart = np.zeros((rows * pitch - lane, columns * pitch - lane, 4), np.uint8)
    large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    for i in range(rows * columns):
        row, column = divmod(i, columns)
        place = np.s_[row * pitch : row * pitch + side, column * pitch : column * pitch + side]
        apart[place][..., :3] = large[row * side : (row + 1) * side, column * side : (column + 1) * side]
        apart[place][..., 3] = 255
        boxes.append(Rectangle((column * pitch - 0.5, row * pitch - 0.5), side, side))
        if rows * columns <= 100 or column == 0 or i == rows * columns - 1:
            corner = (column * pitch - 0.5, row * pitch - 0.5)
            plate = {"facecolor": s.paper, "edgecolor": "none", "alpha": 0.85, "pad": 1}
            size_of_number = float(np.clip(56 / max(rows, columns), 4, 8))
            axes.text(*corner, str(i + 1), fontsize=size_of_number, ha="left", va="top", color=s.ink, bbox=plate)
    axes.imshow(apart, interpolation="none")
    if len(boxes) <= 256:  # white patches on white paper need an edge to be seen; very many would be all edges
        axes.add_collection(PatchCollection(boxes, facecolor="none", edgecolor=s.quiet, linewidth=0.3))
    axes.set_axis_off()


def attention(
    images: ArrayLike,
    maps: ArrayLike,
    title: str,
    theme: Theme = "light",
    captions: Sequence[str] = (),
    columns: int = 4,
    covered: Shares = WHOLE,
) -> Figure:
    """Every image beside its map, laid over it, with a colour scale below and a title that says what the map is.

    images (S, H, W, 3) uint8; maps (S, h, w), each stretched from its own least to its own greatest value, so colours
    compare places in an image, not images. captions: a line for each sample, or none. `covered` as in `overlays`.
    """
    pictures, weights = np.asarray(images), np.asarray(maps)
    columns = max(1, min(columns, len(pictures)))
    said = [says_nothing(one) for one in weights]
    captions = captions or ([""] * len(said) if any(said) else ())
    words = [
        wrapped("\n".join(filter(None, (caption, none))), 2 * SIDE + GAP, 2)
        for caption, none in zip(captions, said, strict=False)
    ]
    above = LINE * max(1 + caption.count("\n") for caption in words) + GAP if words else GAP
    pair, pitch = 2 * SIDE + 3 * GAP, SIDE + above
    with styled(theme) as s:
        width = max(NARROWEST, 2 * MARGIN + columns * pair)
        height, scales = -(-len(pictures) // columns) * pitch + GAP, [map_scale()]
        figure, sheet, top = sheet_of(width, height + scales_height(scales) + MARGIN, title, s)
        for i, picture in enumerate(pictures):
            x, y = MARGIN + (i % columns) * pair, top + (i // columns) * pitch + above
            place(sheet, picture, x, y)
            place(sheet, overlay(picture, weights[i], covered=covered), x + SIDE + GAP, y)
            if i < len(words):
                sheet.text(x, y - 0.05, words[i], fontsize=8, color=s.ink, ha="left", va="bottom")
        scales_below(sheet, scales, top + height, s)
    return figure


def _tiles(count: int, columns: int, text: float, side: float = 1.35) -> tuple[Figure, list[Axes]]:
    """A grid of `count` places; `text` is the room in inches above each."""
    columns = max(1, min(columns, count))
    rows = max(1, -(-count // columns))
    figure = Figure(figsize=(max(2.4, columns * (side + 0.1)), rows * (side + text + 0.1)))
    places = list(figure.subplots(rows, columns, squeeze=False).ravel())
    for axes in places:
        axes.set_axis_off()
    return figure, places[:count]


def _show(axes: Axes, picture: NDArray[Any]) -> None:
    axes.imshow(picture, interpolation=crispness(picture))
    axes.set_axis_off()


def _frame(axes: Axes, colour: str, dashes: str, width: float = 1.8) -> None:
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color=colour, linewidth=width, linestyle=dashes)
