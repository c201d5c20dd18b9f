"""Single tokens: the path of a token through the layers, and what one token reads from another.

Shapes: S images, uint8 RGB (S, H, W, 3); L layers; A heads; (r, c) the patch grid. A patch is told by its index in
reading order, from 0; a token that is no patch by a number below 0: -1 the first of `prefix`, -2 the second. `covered`
is the share of the images' height and width that patches cover, see `overlays`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from patchlight.figures.overlays import (
    FOR_AND_AGAINST,
    HEAT,
    WHOLE,
    Pixels,
    Shares,
    canvas,
    colours_of,
    dotted,
    enlarged,
    map_scale,
    marked,
    middle_of,
    overlay,
    with_path,
)
from patchlight.figures.sheets import ABREAST, Row, board, crispness
from patchlight.figures.style import Theme, plain, styled, wrapped
from patchlight.units import SPACE, percent

PREFIX = ("CLS token",)
FINE = 384  # pixels of a picture with a path, so that its line is smooth
PATH_FOOT = (
    "Framed: the token that reads in this layer. Dot and %: the token that it reads most from, with its share of the "
    "attention; that token is the framed one of the layer before. From yellow, before layer 1, to red, after the last. "
    "Patches are named by row,column from 0, as --token takes them."
)


def path_board(
    images: np.ndarray,
    captions: Sequence[str],
    maps: np.ndarray,
    tokens: np.ndarray,
    weights: np.ndarray,
    title: str = "The path of a token through the layers, by the strongest attention of each",
    *,
    prefix: Sequence[str] = PREFIX,
    percentile: float = 100.0,
    covered: Shares = WHOLE,
    theme: Theme = "light",
) -> Figure:
    """Of each image one token that is followed back from the last layer: the image with the path, and for each layer
    the attention of the token that reads, framed, with a dot on the token that it reads most from.

    tokens (S, L + 1): the path, its last column the chosen token after the last layer, the one before that the token
    that it reads most from in the last layer, and so on to the first column, a token before layer 1. maps (S, L, r, c):
    in layer l + 1 the attention of the token `tokens[:, l + 1]`. weights (S, L): its attention to `tokens[:, l]`, 0..1.
    """
    grid, rows = maps.shape[2:], []
    for image, caption, of_layers, path, shares in zip(images, captions, maps, tokens.tolist(), weights, strict=True):
        start = [f"from {name_of(path[-1], grid, prefix)}"]
        steps = list(zip(path[1:], path[:-1], strict=True))
        pictures = [
            _read(image, one, *step, colour, percentile, covered)
            for one, step, colour in zip(of_layers, steps, _colours(len(path)), strict=False)
        ]
        notes = [
            f"layer {i + 1}: {percent(float(share))}{_of(*step, prefix)}"
            for i, (share, step) in enumerate(zip(shares, steps, strict=True))
        ]
        rows.append(Row(caption, [_walked(image, path, grid, covered), *pictures[:ABREAST]], start + notes[:ABREAST]))
        for i in range(ABREAST, len(notes), ABREAST):
            rows.append(Row("", [None, *pictures[i : i + ABREAST]], ["", *notes[i : i + ABREAST]]))
    return board(rows, title, (), theme, scales=[map_scale(percentile=percentile)], foot=PATH_FOOT)


def _colours(count: int) -> list[tuple[int, int, int]]:
    """Of the tokens of a path, from yellow to red."""
    return [(r, g, b) for r, g, b in colours_of(np.linspace(0, 1, count), "autumn_r").tolist()]


def _read(
    image: np.ndarray,
    values: np.ndarray,
    query: int,
    source: int,
    colour: tuple[int, int, int],
    percentile: float,
    covered: Shares = WHOLE,
) -> Pixels:
    """What a token reads, laid over the image, with a frame around it and a dot on what it reads most from."""
    picture = overlay(image, values, percentile=percentile, covered=covered)
    if query >= 0:
        picture = marked(picture, values.shape, divmod(query, values.shape[1]), covered=covered)
    return dotted(picture, middle_of(source, values.shape, covered), colour) if source >= 0 else picture


def _walked(image: np.ndarray, path: Sequence[int], grid: tuple[int, ...], covered: Shares = WHOLE) -> Pixels:
    """The image with the path over it, broken where a token is no patch, and a frame around the last one."""
    picture = enlarged(image, canvas(image, FINE))
    if path[-1] >= 0:
        picture = marked(picture, grid, divmod(path[-1], grid[1]), covered=covered)
    places = [middle_of(token, grid, covered) if token >= 0 else None for token in path]
    return with_path(picture, places, _colours(len(path)))


def _of(query: int, source: int, prefix: Sequence[str]) -> str:
    """What the picture cannot show of a source: that it is the token itself, or no patch."""
    return ", itself" if query == source else f", {prefix[-1 - source]}" if source < 0 else ""


def name_of(token: int, grid: tuple[int, ...], prefix: Sequence[str] = PREFIX) -> str:
    """A token in words: "patch 3,4", its row and column from 0 as on the command line, or the name of one that is no
    patch.
    """
    if token < 0:
        return f"the {prefix[-1 - token]}"
    return f"patch {token // grid[1]},{token % grid[1]}"


def query_key(
    image: np.ndarray,
    attention: np.ndarray,
    query: int,
    key: int,
    scores: ArrayLike,
    *,
    cell: tuple[int, int] | None = None,
    read: str = "",
    weights: bool = True,
    caption: str = "",
    prefix: Sequence[str] = PREFIX,
    percentile: float = 100.0,
    covered: Shares = WHOLE,
    theme: Theme = "light",
) -> Figure:
    """What one token, the query, reads from another, the key: the image with a frame on the query and a dot on the key,
    the attention of the query, and the value of the pair in every head.

    image (H, W, 3); attention (r, c) of the query: in one head, whose (layer, head) `cell` is framed in the matrix, or
    of what `read` names, such as "layer 6, mean of its heads". scores (L, A): the weights of attention, 0..1, or with
    weights=False the scores before the softmax, on a scale with both signs. `caption` is of the image.
    """
    values, grid = np.asarray(scores, dtype=float).T, attention.shape
    read = f"layer {cell[0] + 1}, head {cell[1] + 1}" if cell and not read else read
    ends = {"query": (query, ", framed"), "key": (key, ", dot")}
    names = [
        f"{end}{sign if token >= 0 else ''}: {plain(name_of(token, grid, prefix), 30)}"
        for end, (token, sign) in ends.items()
    ]
    over = overlay(image, attention, percentile=percentile, side=FINE, covered=covered)
    base = enlarged(image, canvas(image, FINE))
    pictures = [
        (base, "\n".join(names)),
        (over, f"what the query reads\n{read}".rstrip()),
    ]
    with styled(theme) as s:
        wide = min(4.4, max(1.6, 0.3 * values.shape[1]))  # inches of the matrix
        width = 5.6 + wide
        words = "What one token reads from another" + (f": {caption}".replace("\n", "; ") if caption else "")
        title = wrapped(words, width - 0.3, 2, 10, "bold")
        figure = Figure(figsize=(width, 3.0 + 0.18 * title.count("\n")))
        figure.suptitle(title, fontsize=10, fontweight="bold", color=s.ink, x=0.01, ha="left")
        *seen, table = figure.subplots(1, 3, width_ratios=[2.1, 2.1, wide + 0.7])
        for axes, (picture, about) in zip(seen, pictures, strict=True):
            shown = marked(picture, grid, divmod(query, grid[1]), covered=covered) if query >= 0 else picture
            shown = dotted(shown, middle_of(key, grid, covered)) if key >= 0 else shown
            axes.imshow(shown, interpolation=crispness(shown))
            axes.set_title(about, fontsize=8, fontweight="normal", color=s.ink)
            axes.set_axis_off()
        _pair_table(figure, table, values, cell, weights)
    return figure


def _pair_table(figure: Figure, axes: Axes, values: np.ndarray, cell: tuple[int, int] | None, weights: bool) -> None:
    """Values (A, L) of a pair of tokens by head and layer, a frame on the one that is shown, and the colours' scale."""
    heads, layers = values.shape
    limit = max(float(np.abs(values).max()), 1e-12)
    norm = Normalize(0 if weights else -limit, limit)
    shown = axes.imshow(values, cmap=HEAT if weights else FOR_AND_AGAINST, norm=norm, aspect="auto")
    if cell is not None:
        for colour, width in (("white", 3.5), ("black", 1.5)):
            corner = (cell[0] - 0.5, cell[1] - 0.5)
            frame = Rectangle(corner, 1, 1, facecolor="none", edgecolor=colour, linewidth=width, clip_on=False)
            axes.add_patch(frame)
    for axis, count in ((axes.xaxis, layers), (axes.yaxis, heads)):
        step = -(-count // 12)
        axis.set_ticks(range(0, count, step), [str(i + 1) for i in range(0, count, step)])
    axes.set(xlabel="layer", ylabel="head")
    words = (
        "its attention to the key\nin each head" if weights else "score of the pair\nin each head, before the softmax"
    )
    axes.set_title(words, fontsize=8, fontweight="normal")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(shown, ax=axes, shrink=0.85)
    bar.ax.yaxis.set_major_locator(MaxNLocator(nbins=5))
    if weights:
        bar.ax.yaxis.set_major_formatter(lambda v, _: f"{100 * v:.3g}{SPACE}%")
    bar.ax.tick_params(length=2, labelsize=8)
    bar.outline.set_visible(False)
