"""Which images `patchlight data` shows, and what training would make of them.

Shapes: S images, C channels, H W pixels, V views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from patchlight.config import AugmentConfig
from patchlight.data.augment import augment
from patchlight.data.images import ImageSet
from patchlight.machine.seeds import seeded_generator

PER_CLASS, MOST_SAMPLES = 4, 60  # images of a class, and of all
AUGMENTED, VIEWS = 8, 7  # classes of which an image is shown augmented, and how often


@dataclass(frozen=True)
class Previews:
    """Images for people, channels last."""

    images: np.ndarray  # (S, H, W, C) uint8, class by class
    labels: np.ndarray  # (S,)
    originals: np.ndarray  # (s, H, W, C) uint8: some of the images
    views: np.ndarray  # (s, V, H, W, C) uint8: what the first V epochs make of each


def preview(images: ImageSet, config: AugmentConfig, seed: int, fill: Sequence[int]) -> Previews:
    """The first images of every class, and what the first epochs of training by `config` make of some of them.

    `seed` is train.seed; `fill` (C,) of 0..255 is the colour that random erasing paints.
    """
    pixels, labels = images.gather(first_of_each_class(images, PER_CLASS)[:MOST_SAMPLES])
    originals = pixels[: AUGMENTED * PER_CLASS : PER_CLASS]
    views = augmented_views(originals, config, seed, fill)
    shown, before, after = (value.movedim(-3, -1).numpy() for value in (pixels, originals, views))
    return Previews(images=shown, labels=labels.numpy(), originals=before, views=after)


def first_of_each_class(images: ImageSet, count: int) -> torch.Tensor:
    """Indices of the first `count` images of every class, class by class."""
    return torch.cat(
        [torch.nonzero(images.labels == label).flatten()[:count] for label in range(len(images.class_names))]
    )


def augmented_views(pixels: torch.Tensor, config: AugmentConfig, seed: int, fill: Sequence[int]) -> torch.Tensor:
    """(S, C, H, W) uint8 -> (S, VIEWS, C, H, W): what the first epochs make of each image."""
    indices = torch.arange(len(pixels))
    views = [
        augment(
            pixels,
            indices,
            config,
            seed=seed,
            epoch=epoch,
            generator=seeded_generator(seed, "augment", epoch),
            fill=fill,
        )
        for epoch in range(VIEWS)
    ]
    return torch.stack(views, dim=1)
