"""What hidden pixels may have been, by their neighbours: the noisy linear imputation of ROAD, for a batch at once.

Shapes: B images, (h, w) pixels of one, half as many on each coarser level. Masks are (B, 1, h, w), 1 where a pixel is
hidden, else 0; images are (B, 3, h, w).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from patchlight.explanation.relevance import drawn_from

NOISE = 0.04  # of normalised pixels: the authors' 0.01 of pixels in 0..1, whose deviation is about a quarter
ROUNDS = 1.5  # for each level, after which no pixel is further from the solution than about a tenth of the noise
STEP = 0.8  # of a Jacobi step, which smooths an error best


@torch.no_grad()
def imputed(images: Tensor, hidden: Tensor) -> Tensor:
    """Images whose pixels under the mask are the noisy linear imputation of Rong et al. (ICML 2022, section 4.4).

    Each hidden pixel is the weighted mean of its eight neighbours, hidden ones too: 1/6 for those beside, above and
    below, 1/12 for the diagonal ones, in proportion where the image ends. That is one linear system for each image.
    A little noise is added, drawn from the image's own bytes, so that an image is the same in any batch. Where
    everything is hidden nothing is known, and the pixels are the mean colour, 0.
    """
    mask = hidden.to(images)
    noise = torch.stack([torch.randn(image.shape, generator=drawn_from(image), device="cpu") for image in images]).to(
        images
    )
    return torch.where(hidden > 0, solved(images, mask) + NOISE * noise, images)


def solved(images: Tensor, hidden: Tensor) -> Tensor:
    """The imputation without its noise, by conjugate gradients; a multigrid cycle makes the rounds few at any size."""
    levels = _levels(hidden)
    known = 1 - hidden
    mean = _total(images * known) / _total(known).clamp(min=1)
    found = images * known + mean * hidden
    residual = -levels[0].pull(found)
    direction = _cycle(levels, residual)
    product = _total(residual * direction)
    for _ in range(round(ROUNDS * len(levels))):
        pulled = levels[0].pull(direction)
        length = _ratio(product, _total(direction * pulled))
        found, residual = found + length * direction, residual - length * pulled
        preconditioned = _cycle(levels, residual)
        before, product = product, _total(residual * preconditioned)
        direction = preconditioned + _ratio(product, before) * direction
    return found


@dataclass(frozen=True)
class _Level:
    """A grid of pixels, of which those in `hidden` are sought. `weights` (1, 1, h, w) are the sums of their
    neighbours' weights: 1 but where the image ends.
    """

    hidden: Tensor
    weights: Tensor
    gain: Tensor  # of a Jacobi step, (B, 1, h, w)

    @classmethod
    def of(cls, hidden: Tensor) -> _Level:
        weights = _around(torch.ones_like(hidden[:1]))
        return cls(hidden, weights, STEP * hidden / weights)

    def pull(self, values: Tensor) -> Tensor:
        """How far each hidden pixel is above its neighbours' mean, times the sum of their weights: 0 is solved."""
        return self._all_pull(values) * self.hidden

    def _all_pull(self, values: Tensor) -> Tensor:
        return self.weights * values - _around(values)

    def smoothed(self, values: Tensor, wanted: Tensor) -> Tensor:
        """Nearer to `pull(values) == wanted`, by a step of Jacobi."""
        return values + (wanted - self._all_pull(values)) * self.gain


def _levels(hidden: Tensor) -> list[_Level]:
    """From the image's own pixels to the coarsest, where a pixel is hidden if all of its four are."""
    levels = [_Level.of(hidden)]
    while min(hidden.shape[-2:]) > 2:
        hidden = 1 - F.max_pool2d(_even(1 - hidden), 2)
        levels.append(_Level.of(hidden))
    return levels


def _cycle(levels: list[_Level], wanted: Tensor) -> Tensor:
    """Nearly the values whose pull is `wanted`: smoothed here, and the rest sought on the next level (a V-cycle)."""
    level, coarser = levels[0], levels[1:]
    values = wanted * level.gain  # a step from 0
    if not coarser:
        for _ in range(3):
            values = level.smoothed(values, wanted)
        return values
    rest = wanted - level.pull(values)
    below = _cycle(coarser, 4 * F.avg_pool2d(_even(rest), 2) * coarser[0].hidden)
    spread = below.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)
    values = values + spread[..., : values.shape[-2], : values.shape[-1]] * level.hidden
    return level.smoothed(values, wanted)


def _around(values: Tensor) -> Tensor:
    """The sum of each pixel's neighbours, 1/6 of those at a side and 1/12 of the diagonal ones; 0 beyond the edge."""
    planes = values.reshape(1, -1, *values.shape[-2:])  # as channels of one image, which is the fastest convolution
    kernel = torch.tensor(((1, 2, 1), (2, 0, 2), (1, 2, 1)), dtype=values.dtype, device=values.device) / 12
    around = F.conv2d(planes, kernel.expand(planes.shape[1], 1, 3, 3), padding=1, groups=planes.shape[1])
    return around.view_as(values)


def _even(values: Tensor) -> Tensor:
    """With a row and a column of 0 where their number is odd."""
    return F.pad(values, (0, values.shape[-1] % 2, 0, values.shape[-2] % 2))


def _total(values: Tensor) -> Tensor:
    return values.sum(dim=(-2, -1), keepdim=True)


def _ratio(of: Tensor, by: Tensor) -> Tensor:
    """0 where `by` is 0, as of an image that is solved."""
    tiny = torch.finfo(by.dtype).tiny
    return torch.where(by > tiny, of / by.clamp(min=tiny), 0)
