"""Maps that need nothing of the model but its output, and two controls that do not need the model at all.

Shapes: B batch, N patches, (r, c) the patch grid, P pixels a side of a patch. Images are normalised, (B, 3, h, w),
`targets` (B,) class indices. Maps are (B, r, c).
"""

from __future__ import annotations

import zlib

import torch
import torch.nn.functional as F
from torch import Tensor

from patchlight.explanation.relevance import scores
from patchlight.models.anatomy import Anatomy


@torch.no_grad()
def occlusion(anatomy: Anatomy, images: Tensor, targets: Tensor) -> Tensor:
    """How much the target's logit falls when a patch is painted in the mean colour (Zeiler and Fergus 2014, sec. 4.2).

    One forward pass per patch.
    """
    grid = anatomy.grid(images)
    whole = scores(anatomy.logits(images), targets)
    fall = []
    for patch in range(grid[0] * grid[1]):
        shown = torch.ones(1, 1, grid[0] * grid[1], device=images.device, dtype=images.dtype)
        shown[..., patch] = 0
        fall.append(whole - scores(anatomy.logits(images * spread_patches(shown.unflatten(2, grid), images)), targets))
    return torch.stack(fall, dim=1).unflatten(1, grid)


def spread_patches(maps: Tensor, images: Tensor) -> Tensor:
    """Each patch's value on all of its pixels: (..., r, c) -> (..., h, w) of `images`."""
    scale = images.shape[-2] // maps.shape[-2], images.shape[-1] // maps.shape[-1]
    return maps.repeat_interleave(scale[0], dim=-2).repeat_interleave(scale[1], dim=-1)


def random(anatomy: Anatomy, images: Tensor, targets: Tensor) -> Tensor:
    """A control: random numbers, drawn from the image's own bytes, so an image has the same map in any batch."""
    maps = []
    for image in images.detach().cpu():
        draw = torch.Generator().manual_seed(zlib.crc32(image.float().contiguous().numpy().tobytes()))
        maps.append(torch.rand(anatomy.grid(images), generator=draw))
    return torch.stack(maps).to(images)


def centre(anatomy: Anatomy, images: Tensor, targets: Tensor) -> Tensor:
    """A control: a Gaussian of the distance from the middle, where photographs have their subject."""
    rows, columns = (torch.linspace(-1, 1, n + 2)[1:-1] for n in anatomy.grid(images))
    bump = torch.exp(-2 * (rows[:, None] ** 2 + columns[None] ** 2))
    return bump.expand(len(images), -1, -1).to(images)


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps on the patch grid (B, r, c) -> on pixels (B, *size), bilinear between the middles of patches."""
    return F.interpolate(maps.unsqueeze(1), size=size, mode="bilinear", align_corners=False).squeeze(1)


def pool_patches(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """Maps on pixels (B, h, w) -> the mean of each patch, (B, r, c)."""
    return F.adaptive_avg_pool2d(maps.unsqueeze(1), grid).squeeze(1)
