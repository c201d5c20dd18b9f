"""Maps that need nothing of the model but its output, and two controls that do not need the model at all.

Shapes: B batch, (r, c) cells: patches, or equal parts of an image. Images are normalised, (B, 3, h, w). Maps are
(B, r, c).
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchlight.explanation.relevance import drawn_from
from patchlight.explanation.removal import outputs_without_each
from patchlight.explanation.targets import Target
from patchlight.models.anatomy import Anatomy


@torch.no_grad()
def occlusion(anatomy: Anatomy, images: Tensor, target: Target) -> Tensor:
    """How much the target's score falls when a cell is painted in 0, the mean colour of normalised images
    (Zeiler and Fergus 2014, sec. 4.2).

    One forward pass for each cell.
    """
    rows, columns = anatomy.grid(images)
    each = torch.eye(rows * columns, dtype=torch.bool, device=images.device)
    hidden = each.unsqueeze(1).expand(-1, len(images), -1)
    whole = target.scores(anatomy, images)
    painted = outputs_without_each(anatomy, images, target, hidden, "mean", black=images.new_zeros(3))
    return torch.stack([whole - target.score(outputs) for outputs in painted], dim=1).unflatten(1, (rows, columns))


def random(anatomy: Anatomy, images: Tensor, target: Target) -> Tensor:
    """A control: random numbers, drawn from the image's own bytes, so an image has the same map in any batch."""
    grid = anatomy.grid(images)
    return torch.stack([torch.rand(grid, generator=drawn_from(image), device="cpu") for image in images]).to(images)


def centre(anatomy: Anatomy, images: Tensor, target: Target) -> Tensor:
    """A control: a Gaussian of the distance from the middle, where photographs have their subject."""
    rows, columns = (torch.linspace(-1, 1, n + 2, device=images.device)[1:-1] for n in anatomy.grid(images))
    bump = torch.exp(-2 * (rows[:, None] ** 2 + columns[None] ** 2))
    return bump.expand(len(images), -1, -1).to(images)
