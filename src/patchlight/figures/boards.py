"""The boards of `patchlight explain`: images in columns, and below each the maps of it.

Shapes: S images, uint8 RGB (S, H, W, 3); maps (S, r, c) of patches or (S, h, w) of pixels, see `overlays.overlay`.
`captions` are sentences for each image, one a line; see `captions.py`. `percentile` clips a map for its picture alone.
`covered` is the share of the images' height and width that patches cover, see `overlays`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from patchlight.figures.overlays import (
    HEAT,
    WHOLE,
    Pixels,
    Scale,
    Shares,
    heat,
    in_place,
    map_scale,
    marked,
    of_pixels,
    overlay,
    says_nothing,
    stretched,
)
from patchlight.figures.sheets import SIDE, Row, board
from patchlight.figures.style import LIKENESS, Theme

TOKEN = 16  # pixels a side of a patch in pictures where one is marked
ABLE = 192  # pixels of a picture that a sheet shows one by one; maps of more have larger pictures
LARGE = 1.5  # inches of such a picture: 225 pixels at 150 dpi
CONTROLS = "Controls: they do not see the model"
OWN_SCALE = "Each map has a scale of its own: colours compare places in a map, not maps."


@dataclass(frozen=True)
class MapRow:
    """Maps of some images, as a row of a board: see `overlays.overlay` for `signed` and `crisp`."""

    label: str
    values: np.ndarray  # (S, r, c) of patches or (S, h, w) of pixels
    signed: bool = False  # zero means something: nothing, between for and against
    control: bool = False  # does not see the model, and stands apart
    crisp: bool | None = None  # drawn in pixels; None: where it is as large as the image
    notes: Sequence[str] = ()  # one below each picture
    covered: Shares = WHOLE  # of maps of patches

    def pictures(self, images: np.ndarray, percentile: float = 100.0) -> list[Pixels]:
        """Each map over its image."""
        return [
            overlay(image, values, signed=self.signed, percentile=percentile, crisp=self.crisp, covered=self.covered)
            for image, values in zip(images, self.values, strict=True)
        ]

    def words(self) -> list[str]:
        """The note below each picture, and below it that a map says nothing; none where there is nothing to say."""
        notes = self.notes or [""] * len(self.values)
        words = [
            "\n".join(filter(None, (note, says_nothing(values))))
            for note, values in zip(notes, self.values, strict=True)
        ]
        return words if any(words) else []

    def drawn(self, images: np.ndarray, percentile: float = 100.0) -> Row:
        return Row(self.label, self.pictures(images, percentile), self.words())

    def is_crisp(self, images: np.ndarray) -> bool:
        return of_pixels(images[0], self.values[0]) if self.crisp is None else self.crisp


def maps_board(
    images: np.ndarray,
    captions: Sequence[str],
    rows: Sequence[MapRow],
    title: str,
    *,
    percentile: float = 100.0,
    ends: tuple[str, str] = ("against", "for"),
    theme: Theme = "light",
) -> Figure:
    """A row of maps for each method; controls stand apart below the others.

    `ends` say what the least and the greatest value of signed maps mean. Raises UsageError for a percentile outside 50
    to 100 and for maps with values that are no numbers.
    """
    seen, controls = ([row for row in rows if row.control == control] for control in (False, True))
    return board(
        [Row("image", list(images)), *(row.drawn(images, percentile) for row in seen)],
        title,
        captions,
        theme,
        scales=scales_of([*seen, *controls], percentile, ends),
        apart=[row.drawn(images, percentile) for row in controls],
        heading=CONTROLS,
        foot=OWN_SCALE,
        side=side_of(images, rows),
    )


def scales_of(
    rows: Sequence[MapRow], percentile: float = 100.0, ends: tuple[str, str] = ("against", "for")
) -> list[Scale]:
    """The scales of colours that these rows need: of one sign, or of both, or one of each."""
    return [map_scale(signed, percentile, ends) for signed in (False, True) if signed in {row.signed for row in rows}]


def side_of(images: np.ndarray, rows: Sequence[MapRow]) -> float:
    """Inches of the pictures: more where a map of many pixels is to be seen pixel by pixel."""
    return LARGE if any(row.is_crisp(images) and max(row.values.shape[1:]) > ABLE for row in rows) else SIDE


def heads_board(
    images: np.ndarray,
    captions: Sequence[str],
    heads: np.ndarray,
    layer: int,
    depth: int,
    *,
    percentile: float = 100.0,
    covered: Shares = WHOLE,
    theme: Theme = "light",
) -> Figure:
    """Attention of each head, (S, A, r, c), of the layer with this index of `depth` layers."""
    rows = [MapRow(f"head {i + 1}", heads[:, i], covered=covered) for i in range(heads.shape[1])]
    title = f"Attention of each head in layer {layer + 1} of {depth}"
    return maps_board(images, captions, rows, title, percentile=percentile, theme=theme)


def layers_board(
    images: np.ndarray,
    captions: Sequence[str],
    layers: np.ndarray,
    *,
    percentile: float = 100.0,
    covered: Shares = WHOLE,
    theme: Theme = "light",
) -> Figure:
    """Attention in each layer, (S, L, r, c)."""
    rows = [MapRow(f"layer {i + 1}", layers[:, i], covered=covered) for i in range(layers.shape[1])]
    title = "Attention over the layers, mean over heads"
    return maps_board(images, captions, rows, title, percentile=percentile, theme=theme)


def rollout_board(
    images: np.ndarray,
    captions: Sequence[str],
    maps: np.ndarray,
    *,
    percentile: float = 100.0,
    covered: Shares = WHOLE,
    theme: Theme = "light",
) -> Figure:
    """Rollout as a map, and over the image."""
    bare = [
        in_place(heat(stretched(values, percentile=percentile)), image, covered)
        for values, image in zip(maps, images, strict=True)
    ]
    over = MapRow("overlay", maps, covered=covered).drawn(images, percentile)
    title = "Attention rollout through all layers (the same for every class)"
    rows = [Row("image", list(images)), Row("map", bare), over]
    return board(rows, title, captions, theme, scales=[map_scale(percentile=percentile)], foot=OWN_SCALE)


def pair_board(
    images: np.ndarray,
    captions: Sequence[str],
    maps: np.ndarray,
    method: str,
    *,
    signed: bool = False,
    difference: np.ndarray | None = None,
    percentile: float = 100.0,
    covered: Shares = WHOLE,
    theme: Theme = "light",
) -> Figure:
    """Evidence for two classes, (S, 2, r, c): the predicted one and another; and where it is given, one signed map of
    their difference, (S, r, c), positive for the predicted one.
    """
    rows = [
        MapRow("for the prediction", maps[:, 0], signed, covered=covered),
        MapRow("for the other", maps[:, 1], signed, covered=covered),
    ]
    if difference is not None:
        rows.append(MapRow("for the prediction rather than the other", difference, signed=True, covered=covered))
    title = f"Why the one class, why not the other ({method})"
    ends = ("against", "for") if signed or difference is None else ("for the other", "for the prediction")
    return maps_board(images, captions, rows, title, percentile=percentile, ends=ends, theme=theme)


def tokens_board(
    images: np.ndarray,
    captions: Sequence[str],
    first: np.ndarray,
    last: np.ndarray,
    norms: np.ndarray,
    depth: int,
    *,
    greatest: float | None = None,
    covered: Shares = WHOLE,
    theme: Theme = "light",
) -> Figure:
    """Patch tokens after the first and the last of `depth` layers as colours (S, r, c, 3), and the last ones' norms (S,
    r, c), whose scale ends at the `greatest` of all: that of these images where it is not given.
    """
    views = {
        "after layer 1": first,
        f"after layer {depth}": last,
        "norms of the last": heat(norms / (norms.max() if greatest is None else greatest)),
    }
    rows = [Row("image", list(images))]
    rows += [
        Row(name, [in_place(cells, image, covered) for cells, image in zip(view, images, strict=True)])
        for name, view in views.items()
    ]
    title = "Patch tokens as colours (three principal components, like tokens in like colours) and their norms"
    scale = Scale(HEAT, ((0, "0"), (1, "the greatest of all")), "norms of the last")
    return board(rows, title, captions, theme, scales=[scale])


def embeddings_board(
    images: np.ndarray,
    captions: Sequence[str],
    colours: np.ndarray,
    alike: np.ndarray,
    second: str,
    theme: Theme = "light",
    *,
    covered: Shares = WHOLE,
) -> Figure:
    """Patch tokens before the first block in one or two views: as colours (S, V, r, c, 3), and their likeness (S, V, r,
    c) to the middle patch. `second` names the second view.
    """
    names = ["patch embedding", second][: colours.shape[1]]
    rows = [Row("image", [marked(image, alike.shape[2:], covered=covered) for image in images])]

    def placed(name: str, views: Sequence[np.ndarray]) -> Row:
        return Row(name, [in_place(cells, image, covered) for cells, image in zip(views, images, strict=True)])

    rows += [placed(name, list(colours[:, view])) for view, name in enumerate(names)]
    rows += [placed(f"likeness, {name}", [likeness_map(m) for m in alike[:, view]]) for view, name in enumerate(names)]
    title = "Patch tokens before layer 1: like tokens in like colours, and likeness to the marked patch"
    scale = Scale(LIKENESS, ((0, "-1, opposite"), (0.5, "0"), (1, "1, alike")), "likeness (cosine)")
    return board(rows, title, captions, theme, scales=[scale])


def likeness_map(alike: np.ndarray) -> np.ndarray:
    """Cosines (r, c) to the middle patch as colours, (h, w, 3) uint8, that patch marked."""
    return marked(cosine_colours(alike).repeat(TOKEN, axis=0).repeat(TOKEN, axis=1), alike.shape)


def cosine_colours(values: np.ndarray) -> np.ndarray:
    """Cosines as colours, (..., 3) uint8: orange is 1, white 0 and purple -1."""
    return np.asarray(mpl.colormaps[LIKENESS]((values.astype(float) + 1) / 2, bytes=True)[..., :3])
