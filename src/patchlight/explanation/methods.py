"""All methods of explanation in one table, and the one call that uses it.

Shapes: B batch, K classes, (r, c) the patch grid, (h, w) pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from patchlight.config import DEFAULT_METHOD
from patchlight.errors import UsageError, did_you_mean
from patchlight.explanation import attention, perturbation, relevance
from patchlight.explanation.perturbation import pool_patches, upsample
from patchlight.models.anatomy import Anatomy, dissect
from patchlight.units import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH, TOKENS = 64, 4096  # images, and tokens of all of them, that are explained together: gradients take memory


@dataclass(frozen=True)
class Method:
    """`run(anatomy, images, targets, **options)` -> maps (B, r, c), or (B, h, w) where `on_pixels`."""

    run: Callable[..., Tensor]
    about: str
    by_class: bool  # False: blind to the class, the same map for every target
    on_pixels: bool = False


METHODS: dict[str, Method] = {
    "attention": Method(attention.attention, "attention of the pooled token in the last layer", False),
    "rollout": Method(attention.rollout, "attention multiplied through all layers", False),
    "grad-rollout": Method(relevance.grad_rollout, "rollout of attention times its gradient", True),
    "chefer": Method(relevance.chefer, "relevance passed through attention, by its gradient", True),
    "legrad": Method(relevance.legrad, "gradient by attention, of each layer's own decision", True),
    "gradcam": Method(relevance.gradcam, "gradient-weighted tokens before the last attention", True),
    "integrated-gradients": Method(
        relevance.integrated_gradients, "gradient by pixels, from the mean colour on", True, on_pixels=True
    ),
    "occlusion": Method(perturbation.occlusion, "fall of the score when a patch is painted over", True),
    "random": Method(perturbation.random, "control: random numbers", False),
    "centre": Method(perturbation.centre, "control: the middle of the image", False),
}
CONTROLS = ("random", "centre")


@dataclass(frozen=True)
class Explanation:
    """Maps of `method` for `targets`, with what the model made of the images."""

    method: str
    maps: Tensor  # (B, r, c): higher is more evidence; only order and relative size mean something
    pixel_maps: Tensor  # (B, h, w)
    targets: Tensor  # (B,) class indices
    probs: Tensor  # (B, K)
    images: Tensor  # (B, 3, h, w), as they were given

    @property
    def by_class(self) -> bool:
        """False where the method is blind to the class."""
        return METHODS[self.method].by_class

    def plot(self) -> Figure:
        """Images above their maps, with the targets' probabilities. Pixels are stretched to 0..255 per image."""
        from patchlight.figures.galleries import board, overlay

        low, high = self.images.amin(dim=(1, 2, 3), keepdim=True), self.images.amax(dim=(1, 2, 3), keepdim=True)
        pixels = 255 * (self.images - low) / (high - low).clamp(min=1e-12)
        pictures = pixels.round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        overlays = [overlay(p, m) for p, m in zip(pictures, self.maps.float().cpu().numpy(), strict=True)]
        probs = self.probs.gather(1, self.targets.unsqueeze(1)).squeeze(1).tolist()
        captions = [f"class {i} {percent(p)}" for i, p in zip(self.targets.tolist(), probs, strict=True)]
        return board([("image", list(pictures)), (self.method, overlays)], self.method, captions)


def explain(
    model: nn.Module | Anatomy,
    images: Tensor,
    *,
    method: str = DEFAULT_METHOD,
    target: str | int | Tensor = "predicted",
    **options: Any,
) -> Explanation:
    """Where in `images` a ViT sees the evidence for a class.

    `model`: a ViT of Patchlight, timm or Hugging Face. `images`: (B, 3, h, w), normalised as the model was trained.
    `method`: a row of METHODS, with its `options`. `target`: "predicted", a class index for all, or one per image (B,).
    The model is put in eval mode for the time of the call and given back as it was. Raises UsageError for an unknown
    method or target, PatchlightError for a model that is no ViT.
    """
    chosen = find_method(method)
    anatomy = model if isinstance(model, Anatomy) else dissect(model)
    if images.ndim != 4:
        raise UsageError(f"images are a batch (B, 3, height, width), not of shape {tuple(images.shape)}")
    training = anatomy.model.training
    anatomy.model.eval()
    try:
        size = batch_size(anatomy, images)
        with torch.no_grad():
            probs = torch.cat([anatomy.logits(part).float().softmax(dim=1) for part in images.split(size)])
        targets = resolve_targets(target, probs)
        maps = [
            chosen.run(anatomy, part, goal, **options)
            for part, goal in zip(images.split(size), targets.split(size), strict=True)
        ]
    finally:
        anatomy.model.train(training)
    joined = torch.cat(maps).detach()
    on_patches = pool_patches(joined, anatomy.grid(images)) if chosen.on_pixels else joined
    on_pixels = joined if chosen.on_pixels else upsample(joined, (images.shape[-2], images.shape[-1]))
    return Explanation(method, on_patches, on_pixels, targets, probs, images)


def batch_size(anatomy: Anatomy, images: Tensor) -> int:
    """How many of the images are explained together: fewer of large ones."""
    rows, columns = anatomy.grid(images)
    return max(1, min(BATCH, TOKENS // (anatomy.num_prefix_tokens + rows * columns)))


def find_method(name: str) -> Method:
    if name not in METHODS:
        raise UsageError(f"no method '{name}'; {did_you_mean(name, METHODS)}")
    return METHODS[name]


def resolve_targets(target: str | int | Tensor, probs: Tensor) -> Tensor:
    """Class indices (B,) for probabilities (B, K)."""
    count, classes = probs.shape
    if isinstance(target, str):
        if target != "predicted":
            raise UsageError(f"target is 'predicted', a class index or one per image, not '{target}'")
        return probs.argmax(dim=1)
    targets = torch.as_tensor(target, device=probs.device).long()
    targets = targets.expand(count) if targets.ndim == 0 else targets
    if targets.shape != (count,) or targets.min() < 0 or targets.max() >= classes:
        raise UsageError(f"targets are class indices from 0 to {classes - 1}, one or {count}, not {target}")
    return targets
