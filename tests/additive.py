"""A model whose evidence is known: every patch's share of the score."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from patchlight.explanation.targets import ClassTarget

BLACK = torch.tensor([-2.0, -2.0, -2.0], dtype=torch.float64)


class Additive(nn.Module):
    """Its logit of class 0 is the weighted sum of the patches' means; class 1 is always 0. Stands in for an anatomy."""

    num_prefix_tokens = 0
    patch_size = None
    has_head = True

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = weights  # (r, c)

    def grid(self, images: Tensor) -> tuple[int, int]:
        return self.weights.shape[0], self.weights.shape[1]

    def contributions(self, images: Tensor) -> Tensor:
        means = nn.functional.adaptive_avg_pool2d(images, self.weights.shape).mean(dim=1)
        return means * self.weights

    def logits(self, images: Tensor) -> Tensor:
        total = self.contributions(images).sum(dim=(1, 2))
        return torch.stack([total, torch.zeros_like(total)], dim=1)


def additive() -> tuple[Additive, Tensor, Tensor]:
    """A model, images in which every patch speaks for class 0, and the true map."""
    draw = torch.Generator().manual_seed(0)
    model = Additive(torch.rand(4, 4, generator=draw, dtype=torch.float64))
    images = torch.rand(5, 3, 16, 16, generator=draw, dtype=torch.float64) + 0.5
    return model, images, model.contributions(images)


ZERO = ClassTarget(torch.zeros(5, dtype=torch.long))
