"""The cells of an image that maps are made of, patches or equal parts, and the way between cells and pixels.

Shapes: B batch, (r, c) cells, (h, w) pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from patchlight.models.structure import Anatomy

BATCH, TOKENS = 64, 4096  # images, and tokens of all of them, that are explained together: gradients take memory


@dataclass(frozen=True)
class Cells:
    """Which pixels each cell has. Pixels that no patch reaches, at the right and below, are in none."""

    rows: Tensor  # (r, h), 1 where a row of pixels is in a row of cells, else 0
    columns: Tensor  # (c, w)
    whole: tuple[
        int, int
    ]  # pixels of r x c whole cells: fewer than (h, w) where some are in none, more where filled up

    @property
    def covered(self) -> tuple[float, float]:
        """The share of the image's height and width that whole cells cover: as pictures take it."""
        return self.whole[0] / self.rows.shape[1], self.whole[1] / self.columns.shape[1]

    def spread(self, maps: Tensor) -> Tensor:
        """Each cell's value on all of its pixels: (..., r, c) -> (..., h, w), 0 where there is no cell."""
        return self.rows.T.to(maps) @ maps @ self.columns.to(maps)

    def pool(self, maps: Tensor) -> Tensor:
        """Maps on pixels (..., h, w) -> the mean of each cell, (..., r, c)."""
        rows, columns = self.rows.to(maps), self.columns.to(maps)
        return (rows / rows.sum(dim=1, keepdim=True)) @ maps @ (columns / columns.sum(dim=1, keepdim=True)).T

    def enlarge(self, maps: Tensor) -> Tensor:
        """Maps (B, r, c) -> (B, h, w), bilinear between the middles of cells; the nearest value where there is none."""
        height, width = self.rows.shape[1], self.columns.shape[1]
        large = F.interpolate(maps.unsqueeze(1), size=self.whole, mode="bilinear", align_corners=False)
        missing = max(0, width - self.whole[1]), max(0, height - self.whole[0])
        large = F.pad(large, (0, missing[0], 0, missing[1]), mode="replicate")
        return large[..., :height, :width].squeeze(1)


def cells_of(anatomy: Anatomy, images: Tensor) -> Cells:
    """Of images (B, 3, h, w): the patches that the network cuts, else parts of (nearly) equal size."""
    grid, patch, size = anatomy.grid(images), anatomy.patch_size, images.shape[-2:]
    rows, columns = (
        _membership(count, pixels, side, images.device)
        for count, pixels, side in zip(grid, size, patch or (None, None), strict=True)
    )
    whole = (size[0], size[1]) if patch is None else (grid[0] * patch[0], grid[1] * patch[1])
    return Cells(rows, columns, whole)


def batch_size(anatomy: Anatomy, images: Tensor) -> int:
    """How many of the images are explained together: fewer of large ones."""
    rows, columns = anatomy.grid(images)
    return max(1, min(BATCH, TOKENS // (anatomy.num_prefix_tokens + rows * columns)))


def _membership(count: int, pixels: int, side: int | None, device: torch.device) -> Tensor:
    """(count, pixels): pixel p is in cell p // side or, without a side, in cell p * count // pixels."""
    places = torch.arange(pixels, device=device)
    cell = places * count // pixels if side is None else places // side
    return (cell == torch.arange(count, device=device).unsqueeze(1)).float()
