"""Charts of what goes on inside a ViT: arrays in, a matplotlib Figure out, as in `charts.py`.

Shapes: S images, L layers, H heads, N patches, (r, c) the patch grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from patchlight.figures.style import LIKENESS, Theme, plain, styled
from patchlight.units import counted, percent

DARKEST = 1.4  # where the scale of colours ends, so that a value of 1 is not quite black


def attention_distance(distances: ArrayLike, theme: Theme = "light") -> Figure:
    """How far each head looks, in pixels, layer by layer: distances (L, H); the line joins the layers' means."""
    return _by_head(np.asarray(distances, dtype=float), "Mean attention distance of each head", "pixels", theme)


def attention_entropy(entropy: ArrayLike, tokens: int, theme: Theme = "light") -> Figure:
    """Over how many tokens each head spreads its attention: entropy (L, H) in nats, of which all `tokens` alike would
    be the most.
    """
    figure = _by_head(np.asarray(entropy, dtype=float), "Attention entropy of each head", "nats", theme)
    with styled(theme) as s:
        (axes,) = figure.axes
        axes.axhline(np.log(tokens), color=s.quiet, linewidth=1, linestyle=":")
        axes.set_ylim(0, 1.12 * np.log(tokens))
        axes.annotate(
            "all tokens alike",
            (0.99, np.log(tokens)),
            (0, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=8,
            color=s.quiet,
        )
    return figure


def _by_head(values: np.ndarray, title: str, unit: str, theme: Theme) -> Figure:
    layers = np.arange(1, len(values) + 1)
    with styled(theme) as s:
        figure = Figure(figsize=(4.6, 2.9))
        axes = figure.add_subplot()
        axes.plot(layers, values.mean(axis=1), color=s.orange, linewidth=1.6, zorder=2)
        for head in values.T:
            axes.scatter(layers, head, s=18, color=s.blue, alpha=0.75, linewidths=0, zorder=3)
        axes.set(title=title, xlabel="layer", ylabel=unit)
        axes.set_xlim(0.5, len(values) + 0.5)
        axes.set_ylim(0, max(1.0, 1.1 * float(values.max())))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y")
    return figure


def position_similarity(similarity: ArrayLike, theme: Theme = "light") -> Figure:
    """Of each patch's position, the cosine similarity to all others, at the patch's own place: (N, r, c), N = r c.

    Of a large grid every n-th patch is shown, at most 8 a side.
    """
    values = np.asarray(similarity, dtype=float)
    rows, columns = values.shape[1:]
    with styled(theme) as s:
        down, across = (np.unique(np.linspace(0, n - 1, min(n, 8)).round().astype(int)) for n in (rows, columns))
        # One picture with a gap between its tiles: an axes for each tile would take a second to draw.
        tiles = np.full((len(down), rows + 1, len(across), columns + 1), np.nan)
        chosen = values.reshape(rows, columns, rows, columns)[np.ix_(down, across)]
        tiles[:, :-1, :, :-1] = chosen.transpose(0, 2, 1, 3)
        picture = tiles.reshape(len(down) * (rows + 1), -1)[:-1, :-1]
        figure = Figure(figsize=(0.45 * len(across) + 0.3, 0.45 * len(down) + 0.6))
        axes = figure.add_subplot()
        axes.imshow(picture, vmin=-1, vmax=1, cmap=LIKENESS, interpolation="none")
        axes.set_axis_off()
        figure.suptitle("Similarity of positions", fontsize=10, fontweight="bold", color=s.ink, x=0.02, ha="left")
    return figure


def patch_likeness(
    matrices: ArrayLike, positions: ArrayLike | None, norms: ArrayLike, theme: Theme = "light"
) -> Figure:
    """Cosine similarity of every two patches of an image before the first block, row by row in reading order: of the
    patches and, where it is something else, of what the first block reads, (V, M, M); of the positions that are added,
    (M, M), beside them. norms (2, r, c): of the patches and of these positions. Where M is less than r c, these are
    patches at equal distances.
    """
    panels = likeness_panels(matrices, positions, norms)
    count, most = np.asarray(norms)[0].size, len(panels[0][1])
    some = f" ({most} of its {count:,}, at equal distances)" if most < count else ""
    with styled(theme) as s:
        figure = Figure(figsize=(max(4.6, 0.9 + 2.4 * len(panels)), 3.1))
        words = f"Likeness (cosine) of every two patches of the first image{some}"
        figure.suptitle(words, fontsize=10, fontweight="bold", color=s.ink, x=0.02, ha="left")
        places = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, (title, matrix, below) in zip(places, panels, strict=True):
            shown = axes.imshow(matrix, vmin=-1, vmax=1, cmap=LIKENESS, interpolation="none")
            axes.set_title(title, fontsize=9, fontweight="normal")
            axes.set_xlabel(below, fontsize=8)
            axes.set(xticks=[], yticks=[])
        bar = figure.colorbar(shown, ax=list(places), shrink=0.7, ticks=[-1, 0, 1])
        bar.outline.set_visible(False)
    return figure


def likeness_panels(
    matrices: ArrayLike, positions: ArrayLike | None, norms: ArrayLike
) -> list[tuple[str, np.ndarray, str]]:
    """The matrices of `patch_likeness`, each with its name and a word about the norm."""
    values = np.asarray(matrices, dtype=float)
    of_patches, of_positions = (f"mean norm {norm:.2f}" for norm in np.asarray(norms, dtype=float).mean(axis=(1, 2)))
    panels = [("the patches", values[0], of_patches)]
    if positions is not None:
        of_positions += f": {share_of_positions(norms)} of the patches'"
        panels.append(("their positions", np.asarray(positions, dtype=float), of_positions))
    if len(values) > 1:
        panels.append(("as layer 1 reads" if positions is None else "patches + positions", values[1], ""))
    return panels


def share_of_positions(norms: ArrayLike) -> str:
    """The mean norm of the positions in percent of the patches'; norms (2, r, c)."""
    patches, positions = np.asarray(norms, dtype=float).reshape(2, -1).mean(axis=1)
    return percent(float(positions / max(patches, 1e-12)))


def logit_lens(probs: ArrayLike, names: Sequence[str], theme: Theme = "light") -> Figure:
    """The final answer's probability if the head read each layer: probs (S, L), a row per image, and their names."""
    values = np.asarray(probs, dtype=float)
    count, layers = values.shape
    with styled(theme) as s:
        figure = Figure(figsize=(2.7 + 0.5 * max(layers, 4), 0.75 + 0.27 * count))
        axes = figure.add_subplot()
        axes.imshow(values, vmin=0, vmax=DARKEST, cmap=s.heat, aspect="auto")
        for i, row in enumerate(values):
            for layer, value in enumerate(row):
                colour = "white" if (value > 0.6) == (theme == "light") else "black"
                axes.text(layer, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
        axes.set_yticks(range(count), [plain(name, 36) for name in names], fontsize=8)
        axes.set_xticks(range(layers), [str(layer + 1) for layer in range(layers)])
        axes.set(title="The answer layer by layer, %", xlabel="layer that the head reads")
        axes.tick_params(length=0)
    return figure


def layer_similarity(cka: ArrayLike, images: int, theme: Theme = "light") -> Figure:
    """CKA between layers, (L, L), estimated of so many `images`: 1 is alike, 0 unrelated, and by chance it is below. On
    the scale of a cosine; a layer that has none (NaN) is grey.
    """
    values = np.asarray(cka, dtype=float)
    with styled(theme) as s:
        figure = Figure(figsize=(3.8, 3.2))
        axes = figure.add_subplot()
        axes.set_facecolor(s.line)
        shown = axes.imshow(values, vmin=-1, vmax=1, cmap=LIKENESS, origin="lower")
        layers = [str(layer + 1) for layer in range(len(values))]
        axes.set_xticks(range(len(values)), layers)
        axes.set_yticks(range(len(values)), layers)
        axes.set(title=f"Likeness of layers (CKA) of {counted(images, 'image')}", xlabel="layer", ylabel="layer")
        axes.tick_params(length=0)
        bar = figure.colorbar(shown, ax=axes, shrink=0.8, ticks=[-1, 0, 1])
        bar.ax.set_yticklabels(["-1", "0, unrelated", "1, alike"], fontsize=8)
        bar.outline.set_visible(False)
    return figure
