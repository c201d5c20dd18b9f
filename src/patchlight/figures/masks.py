"""Boards of masks: what a threshold keeps of each head's attention, and maps beside a person's own masks.

Shapes: S images, uint8 RGB (S, H, W, 3); A masks of each (S, A, h, w) bool, of patches or of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from patchlight.figures.boards import CONTROLS, OWN_SCALE, MapRow, scales_of, side_of
from patchlight.figures.overlays import (
    WHOLE,
    Pixels,
    Shares,
    canvas,
    dotted,
    enlarged,
    middle_of,
    outlined,
    says_nothing,
    within_mask,
)
from patchlight.figures.sheets import Row, board
from patchlight.figures.style import Theme

NOTHING_FOR = "nothing speaks for it"  # of a map with two signs


def masks_board(
    images: np.ndarray,
    captions: Sequence[str],
    masks: np.ndarray,
    labels: Sequence[str],
    title: str,
    *,
    notes: Sequence[Sequence[str]] = (),
    foot: str = "",
    covered: Shares = WHOLE,
    theme: Theme = "light",
) -> Figure:
    """Below each image a row for each mask, (S, A, h, w) bool: what it leaves out is dim, and its edge is drawn.

    `labels` (A) are the rows', such as "head 1"; `notes` (A, S) stand below the pictures, such as "24 % of the image".
    `foot` says what the masks are, such as "The fewest patches that have 60 % of the head's attention." `covered` is of
    masks of patches, see `overlays`.
    """
    rows = [Row("image", list(images))]
    for i, label in enumerate(labels):
        pictures = [within_mask(image, mask, covered=covered) for image, mask in zip(images, masks[:, i], strict=True)]
        rows.append(Row(label, pictures, notes[i] if notes else ()))
    return board(rows, title, captions, theme, scales=(), foot=foot)


def agreement_board(
    images: np.ndarray,
    captions: Sequence[str],
    masks: np.ndarray,
    rows: Sequence[MapRow],
    title: str,
    *,
    percentile: float = 100.0,
    ends: tuple[str, str] = ("against", "for"),
    theme: Theme = "light",
) -> Figure:
    """Maps with the edge of a person's own mask of each image, (S, h, w) bool, and a dot on each map's greatest value:
    inside of the mask it is a hit of the pointing game. A map without a greatest value, or one that is against alone,
    has none and says so. Controls stand apart. A row's `notes` are for its scores.
    """
    seen, controls = (
        [_with_masks(row, images, masks, percentile) for row in rows if row.control == control]
        for control in (False, True)
    )
    own = [
        outlined(enlarged(image, canvas(_finer(image, mask))), mask) for image, mask in zip(images, masks, strict=True)
    ]
    return board(
        [Row("image and the person's mask", own), *seen],
        title,
        captions,
        theme,
        scales=scales_of(rows, percentile, ends),
        apart=controls,
        heading=CONTROLS,
        foot=f"Line: the edge of the person's mask. Dot: the greatest value of the map. {OWN_SCALE}",
        side=side_of(images, rows),
    )


def _finer(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Whichever has more pixels."""
    return mask if mask.size > image[..., 0].size else image


def _with_masks(row: MapRow, images: np.ndarray, masks: np.ndarray, percentile: float) -> Row:
    pictures: list[Pixels] = []
    notes = list(row.words() or [""] * len(images))
    for i, (picture, mask, values) in enumerate(zip(row.pictures(images, percentile), masks, row.values, strict=True)):
        pictures.append(outlined(picture, mask))
        if row.signed and values.max() <= 0 and np.any(values):
            notes[i] = f"{notes[i]}\n{NOTHING_FOR}".lstrip()
        elif not says_nothing(values):
            pictures[i] = dotted(pictures[i], middle_of(int(values.argmax()), values.shape, row.covered))
    return Row(row.label, pictures, notes if any(notes) else ())
