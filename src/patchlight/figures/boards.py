"""The boards of `patchlight explain`: images in columns, and below each the maps of it.

Images are uint8 RGB arrays (S, H, W, 3), maps (S, r, c); `captions` are a line or two for each image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from patchlight.figures.galleries import board, heat, overlay
from patchlight.figures.style import LIKENESS, Theme
from patchlight.units import percent

TOKEN = 16  # pixels a side of a patch in pictures where one is marked


def answer_captions(preds: Sequence[str], probs: Sequence[float], true: Sequence[str]) -> list[str]:
    """The predicted class of each image with its probability, and below the true one where it is another."""
    lines = [f"{pred} {percent(prob)}" for pred, prob in zip(preds, probs, strict=True)]
    return [
        line if label == pred else f"{line}\ntrue: {label}"
        for line, pred, label in zip(lines, preds, true, strict=True)
    ]


def pair_captions(classes: Sequence[Sequence[str]], probs: np.ndarray) -> list[str]:
    """The predicted class of each image and another, (S, 2), with their probabilities (S, 2)."""
    return [
        f"{pred} {percent(float(p))}\nnot {other} {percent(float(q))}"
        for (pred, other), (p, q) in zip(classes, probs, strict=True)
    ]


def overlays(images: np.ndarray, maps: np.ndarray) -> list[np.ndarray]:
    """Each map over its image."""
    return [overlay(image, values) for image, values in zip(images, maps, strict=True)]


def maps_board(images: np.ndarray, captions: Sequence[str], maps: Mapping[str, np.ndarray], title: str) -> Figure:
    """A row of maps for each method, by its label."""
    rows = [(label, overlays(images, values)) for label, values in maps.items()]
    return board([("image", list(images)), *rows], title, captions)


def heads_board(images: np.ndarray, captions: Sequence[str], heads: np.ndarray, layer: int, depth: int) -> Figure:
    """Attention of each head, (S, A, r, c), of the layer with this index of `depth` layers."""
    rows = [(f"head {i + 1}", overlays(images, heads[:, i])) for i in range(heads.shape[1])]
    title = f"Attention of each head in layer {layer + 1} of {depth}"
    return board([("image", list(images)), *rows], title, captions)


def layers_board(images: np.ndarray, captions: Sequence[str], layers: np.ndarray) -> Figure:
    """Attention in each layer, (S, L, r, c)."""
    rows = [(f"layer {i + 1}", overlays(images, layers[:, i])) for i in range(layers.shape[1])]
    return board([("image", list(images)), *rows], "Attention over the layers, mean over heads", captions)


def rollout_board(images: np.ndarray, captions: Sequence[str], maps: np.ndarray) -> Figure:
    """Rollout as a map, and over the image."""
    rows = [("image", list(images)), ("map", [heat(_stretched(values)) for values in maps])]
    title = "Attention rollout through all layers (the same for every class)"
    return board([*rows, ("overlay", overlays(images, maps))], title, captions)


def tokens_board(
    images: np.ndarray, captions: Sequence[str], first: np.ndarray, last: np.ndarray, norms: np.ndarray, depth: int
) -> Figure:
    """Patch tokens after the first and the last of `depth` layers as colours (S, r, c, 3), and the last ones' norms."""
    rows = [
        ("image", list(images)),
        ("after layer 1", list(first)),
        (f"after layer {depth}", list(last)),
        ("norms of the last", [heat(values) for values in norms / norms.max()]),
    ]
    title = "Patch tokens as colours (three principal components, like tokens in like colours) and their norms"
    return board(rows, title, captions, scale=False)


def embeddings_board(
    images: np.ndarray,
    captions: Sequence[str],
    colours: np.ndarray,
    alike: np.ndarray,
    second: str,
    theme: Theme = "light",
) -> Figure:
    """Patch tokens before the first block in one or two views: as colours (S, V, r, c, 3), and their likeness (S, V, r,
    c) to the middle patch. `second` names the second view.
    """
    names = ["patch embedding", second][: colours.shape[1]]
    rows = [("image", [marked(image, alike.shape[2:]) for image in images])]
    rows += [(name, list(colours[:, view])) for view, name in enumerate(names)]
    rows += [(f"likeness, {name}", [likeness_map(m) for m in alike[:, view]]) for view, name in enumerate(names)]
    title = "Patch tokens before layer 1: like tokens in like colours, and likeness to the marked patch"
    return board(rows, title, captions, theme, scale=False)


def likeness_map(alike: np.ndarray) -> np.ndarray:
    """Cosines (r, c) to the middle patch as colours, (h, w, 3) uint8, that patch marked."""
    return marked(cosine_colours(alike).repeat(TOKEN, axis=0).repeat(TOKEN, axis=1), alike.shape)


def cosine_colours(values: np.ndarray) -> np.ndarray:
    """Cosines as colours, (..., 3) uint8: orange is 1, white 0 and purple -1."""
    return np.asarray(mpl.colormaps[LIKENESS]((values.astype(float) + 1) / 2, bytes=True)[..., :3])


def marked(picture: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """An image (H, W, 3) uint8, enlarged so that a frame fits around its middle patch of a grid (r, c)."""
    side = picture.shape[0] // grid[0], picture.shape[1] // grid[1]
    scale = max(1, -(-TOKEN // max(1, min(side))))
    large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
    top, left = (n // 2 * (size // n) for n, size in zip(grid, large.shape[:2], strict=True))
    bottom, right = top + large.shape[0] // grid[0], left + large.shape[1] // grid[1]
    width = max(1, (bottom - top) // 8)
    for grow, colour in ((0, 255), (width, 0)):  # white outside and black inside, to be seen on any colour
        box = large[top + grow : bottom - grow, left + grow : right - grow]
        box[:width], box[-width:], box[:, :width], box[:, -width:] = (colour,) * 4
    return large


def pair_board(images: np.ndarray, captions: Sequence[str], maps: np.ndarray, method: str) -> Figure:
    """Evidence for two classes, (S, 2, r, c): the predicted one and another."""
    rows = [
        ("image", list(images)),
        ("for the prediction", overlays(images, maps[:, 0])),
        ("for the other", overlays(images, maps[:, 1])),
    ]
    return board(rows, f"Why the one class, why not the other ({method})", captions)


def _stretched(values: np.ndarray) -> np.ndarray:
    """To 0..1; a map that is the same everywhere becomes 0.5."""
    span = float(np.ptp(values))
    return (values - values.min()) / span if span else np.full_like(values, 0.5)
