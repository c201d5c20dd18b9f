"""Mixing of images and labels: mixup (Zhang et al. 2018, arXiv:1710.09412) and CutMix (Yun et al. 2019, 1905.04899).

Drawn on the CPU, done on the images' device, like the rest of the augmentation.

Shapes: B batch, C channels, H, W, K classes. Images are (B, C, H, W) float on any device; targets become (B, K)
float32, each row a distribution; per-image parameters are (B,).
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from patchlight.config import AugmentConfig
from patchlight.data.augment import box_mask
from patchlight.machine.compat import standard_gamma
from patchlight.machine.device import move

Box = tuple[Tensor, Tensor, Tensor, Tensor]  # top, left, height, width


def mix(
    images: Tensor, targets: Tensor, num_classes: int, config: AugmentConfig, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Mix each image and its label with another of the batch, as `config` says.

    `targets` (B,) int64 in 0..num_classes-1. Images are mixed with probability `mix_prob`, by mixup or CutMix, the one
    whose alpha is above 0; where both are, by CutMix with probability `cutmix_share`. `mix_mode` "image" draws all this
    for each image, "batch" once for all, as torchvision and timm do; partners are a random permutation in both. Returns
    images as given where both alphas are 0, and soft targets (B, K) float32.
    """
    soft = one_hot(targets, num_classes)
    if config.mixup_alpha == 0 and config.cutmix_alpha == 0:
        return images, soft
    batch, _, h, w = images.shape
    draws = batch if config.mix_mode == "image" else 1
    partner = torch.randperm(batch, generator=generator)
    mixed = torch.rand(draws, generator=generator) < config.mix_prob
    by_cutmix = torch.rand(draws, generator=generator) < _cutmix_share(config)

    out, out_soft = images, soft
    if config.mixup_alpha:
        # An image that is not mixed up keeps all of itself.
        lam = draw_beta(draws, config.mixup_alpha, generator)
        lam = torch.where(mixed & ~by_cutmix, lam, 1.0).expand(batch)
        out, out_soft = mixup(images, soft, lam, partner)
    if config.cutmix_alpha:
        lam = draw_beta(draws, config.cutmix_alpha, generator)
        top, left, height, width = (side.expand(batch) for side in draw_box(lam, h, w, generator))
        cut, cut_soft = cutmix(images, soft, top, left, height, width, partner)
        chosen = move((mixed & by_cutmix).expand(batch), images.device)
        out = torch.where(chosen.view(-1, 1, 1, 1), cut, out)
        out_soft = torch.where(chosen.view(-1, 1), cut_soft, out_soft)
    return out, out_soft


def _cutmix_share(config: AugmentConfig) -> float:
    """The probability that a mixed image is mixed by CutMix."""
    if config.mixup_alpha and config.cutmix_alpha:
        return config.cutmix_share
    return 1.0 if config.cutmix_alpha else 0.0


def one_hot(targets: Tensor, num_classes: int) -> Tensor:
    """(B,) int64 -> (B, K) float32, 1 at the target. Unlike torch's own, it does not wait for a GPU."""
    soft = torch.zeros(len(targets), num_classes, device=targets.device)
    return soft.scatter_(1, targets[:, None], 1.0)


def draw_beta(count: int, alpha: float, generator: Generator) -> Tensor:
    """(count,) float32 from Beta(alpha, alpha), alpha above 0."""
    # The first of two Gamma(alpha) numbers over their sum. A Gamma number of a small alpha may underflow to 0, so this
    # draws Gamma(alpha + 1) * U^(1 / alpha), which has the same distribution (Marsaglia and Tsang 2000), in logarithms.
    gamma = standard_gamma(torch.full((2, count), alpha + 1, dtype=torch.float64), generator)
    uniform = 1 - torch.rand((2, count), generator=generator, dtype=torch.float64)  # above 0
    first, second = gamma.log() + uniform.log() / alpha
    return torch.sigmoid(first - second).float()


def draw_box(lam: Tensor, height: int, width: int, generator: Generator) -> Box:
    """Boxes (B,) around a random pixel that cover about 1 - `lam` of the image before they are clipped to it."""
    centre_y = torch.randint(height, lam.shape, generator=generator)
    centre_x = torch.randint(width, lam.shape, generator=generator)
    half = 0.5 * (1.0 - lam.double()).sqrt()
    half_h, half_w = (half * height).long(), (half * width).long()
    top, bottom = (centre_y - half_h).clamp(min=0), (centre_y + half_h).clamp(max=height)
    left, right = (centre_x - half_w).clamp(min=0), (centre_x + half_w).clamp(max=width)
    return top, left, bottom - top, right - left


def mixup(images: Tensor, soft: Tensor, lam: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """`lam` (B,), 0..1, of each image and its label (B, K), the rest of its `partner` (B,), a place in the batch."""
    partner = move(partner, images.device)
    return _blend(images, lam, partner), _blend(soft, lam, partner)


def cutmix(
    images: Tensor, soft: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, partner: Tensor
) -> tuple[Tensor, Tensor]:
    """Paste a box (B,), in pixels and inside the image, from each image's `partner` (B,), a place in the batch.

    The labels (B, K) are shared by the area: lam is exactly 1 - height * width / (H * W).
    """
    h, w = images.shape[2:]
    partner = move(partner, images.device)
    inside = box_mask(images, top, left, height, width)
    lam = (1.0 - (height * width).double() / (h * w)).float()
    return torch.where(inside, images.index_select(0, partner), images), _blend(soft, lam, partner)


def _blend(values: Tensor, lam: Tensor, partner: Tensor) -> Tensor:
    """lam * values + (1 - lam) * the partners' values, along the first dimension."""
    lam = move(lam, values.device).view(-1, *[1] * (values.ndim - 1))
    own, other = lam.to(values.dtype), (1.0 - lam).to(values.dtype)
    return values.index_select(0, partner).mul_(other).add_(values * own)
