"""Class activation maps: what the features of a layer say for a target, weighed by its gradient. Of any network.

Shapes: B batch, C channels, (f, g) the layer's own grid, (r, c) the cells of the map. Images are normalised,
(B, 3, h, w). Maps are (B, r, c).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from patchlight.explanation.cells import cells_of
from patchlight.explanation.features import find_layer
from patchlight.explanation.gradients import gradients_of, wide
from patchlight.explanation.layer import Layer
from patchlight.explanation.targets import Target
from patchlight.models.anatomy import Anatomy


def gradcam(anatomy: Anatomy, images: Tensor, target: Target, *, layer: int = -1) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2): channels weighed by their mean gradient, summed, positive part."""

    def weigh(features: Tensor, gradient: Tensor) -> Tensor:
        return (gradient.mean(dim=(2, 3), keepdim=True) * features).sum(dim=1).clamp(min=0)

    return _activation_map(anatomy, images, target, layer, weigh)


def hirescam(anatomy: Anatomy, images: Tensor, target: Target, *, layer: int = -1) -> Tensor:
    """HiResCAM (Draelos and Carin 2020, eq. 5): features times their own gradient, summed over channels. Signed."""

    def weigh(features: Tensor, gradient: Tensor) -> Tensor:
        return (gradient * features).sum(dim=1)

    return _activation_map(anatomy, images, target, layer, weigh)


def layercam(anatomy: Anatomy, images: Tensor, target: Target, *, layer: int = -1) -> Tensor:
    """LayerCAM (Jiang et al. 2021, eq. 5 to 7): features times their own positive gradient, summed, positive part."""

    def weigh(features: Tensor, gradient: Tensor) -> Tensor:
        return (gradient.clamp(min=0) * features).sum(dim=1).clamp(min=0)

    return _activation_map(anatomy, images, target, layer, weigh)


def _activation_map(
    anatomy: Anatomy, images: Tensor, target: Target, layer: int, weigh: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """`weigh` of features and gradient (B, C, f, g) -> (B, f, g), enlarged to pixels and pooled to the cells."""
    chosen = find_layer(anatomy, images, target, layer)
    features, gradient = _features_and_gradient(anatomy, images, target, chosen)
    found = weigh(features, gradient)
    grid = anatomy.grid(images)
    if found.shape[-2:] == grid:
        return found
    size = (images.shape[-2], images.shape[-1])
    large = F.interpolate(found.unsqueeze(1), size=size, mode="bilinear", align_corners=False).squeeze(1)
    return cells_of(anatomy, images).pool(large)


def _features_and_gradient(anatomy: Anatomy, images: Tensor, target: Target, layer: Layer) -> tuple[Tensor, Tensor]:
    """(B, C, f, g) each, in float32 at least."""
    with torch.enable_grad(), layer.recorded() as recorded:
        score = target.scores(anatomy, images.detach().requires_grad_())
        (gradient,) = gradients_of(score, recorded[:1], layer.name)
    grid = anatomy.grid(images)
    return layer.as_map(wide(recorded[0].detach()), grid), layer.as_map(wide(gradient), grid)
