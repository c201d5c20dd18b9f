"""Made-up images in which one known patch decides the label, so that it is known where an explanation should point.

An image is 32 x 32: a smooth random background, one mark of its class (4 x 4 pixels, on a grid of 8 x 8 places), and
decoys, marks of no class that are as conspicuous. The last class has decoys alone: without it a model could tell one
class by the absence of all other marks, and no patch would be the evidence. Everything follows from fixed seeds, so
nothing is stored.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from patchlight.data.listing import Listing, from_arrays

SIZE, MARK, CLASSES, DECOYS = 32, 4, 6, 3
PLACES = SIZE // MARK  # a side
COUNTS = {"train": 6000, "test": 1200}


def list_planted() -> Listing:
    """6,000 images to train on and 1,200 to test, six classes, of which the last has no mark."""
    splits = {name: from_arrays(*make(name)[:2], f"planted {name}") for name in COUNTS}
    names = (*(f"mark {i}" for i in range(CLASSES - 1)), "no mark")
    return Listing(splits, names, size=SIZE)


def make(split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels (N, 3, 32, 32) uint8, labels (N,), and the place of the mark (N,), 0..63 in reading order, or -1."""
    marks = _marks()
    count = COUNTS[split]
    draw = torch.Generator().manual_seed(sorted(COUNTS).index(split) + 1)
    background = torch.rand(count, 3, 5, 5, generator=draw)
    pixels = 50 + 155 * F.interpolate(background, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)
    labels = torch.arange(count) % CLASSES
    places = torch.rand(count, PLACES**2, generator=draw).argsort(dim=1)[:, : 1 + DECOYS]
    chosen = torch.randint(CLASSES, len(marks), (count, 1 + DECOYS), generator=draw)
    marked = labels < CLASSES - 1
    chosen[marked, 0] = labels[marked]
    cells = pixels.view(count, 3, PLACES, MARK, PLACES, MARK).permute(0, 2, 4, 1, 3, 5).flatten(1, 2).contiguous()
    cells[torch.arange(count)[:, None], places] = marks[chosen]
    pixels = cells.unflatten(1, (PLACES, PLACES)).permute(0, 3, 1, 4, 2, 5).reshape(count, 3, SIZE, SIZE)
    return pixels.round().to(torch.uint8).numpy(), labels.numpy(), torch.where(marked, places[:, 0], -1).numpy()


def _marks() -> torch.Tensor:
    """(12, 3, 4, 4): blocks of strong colours; the first five are the classes' own, the last six decoys."""
    draw = torch.Generator().manual_seed(0)
    blocks = 255.0 * torch.randint(2, (CLASSES + 6, 3, 2, 2), generator=draw)
    return blocks.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)


def evidence(split: str, patch_size: tuple[int, int]) -> np.ndarray:
    """The patch (N,) that holds each image's mark, in reading order, for patches of at least MARK pixels a side; -1
    without one.
    """
    place = make(split)[2]
    rows, columns = place // PLACES * MARK // patch_size[0], place % PLACES * MARK // patch_size[1]
    return np.where(place < 0, -1, rows * (SIZE // patch_size[1]) + columns)
