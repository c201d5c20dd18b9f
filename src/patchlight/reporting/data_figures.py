"""The pictures of `patchlight data`: class balance, samples, and what augmentation makes of them."""

from __future__ import annotations

from pathlib import Path

import torch

from patchlight.config import AugmentConfig
from patchlight.data.augment import augment
from patchlight.data.images import ImageSet
from patchlight.data.splits import Splits
from patchlight.figures import charts, galleries, style
from patchlight.machine.seeds import seeded_generator

PER_CLASS, MOST_SAMPLES = 4, 60
PREVIEWED, VIEWS = 8, 7


def write_data_figures(folder: Path, data: Splits, config: AugmentConfig, seed: int = 0) -> list[Path]:
    """Write `class_balance.png`, `samples.png` and `augmentation.png` into `folder`."""
    sets = {"train": data.train, "val": data.val, "test": data.test}
    counts = {name: images.class_counts().tolist() for name, images in sets.items() if images is not None}
    pixels, labels = data.train.gather(first_of_each_class(data.train, PER_CLASS)[:MOST_SAMPLES])
    shown = pixels[: PREVIEWED * PER_CLASS : PER_CLASS]
    pictures = {
        "class_balance": charts.class_balance(counts, data.train.class_names),
        "samples": galleries.sample_grid(_last(pixels).numpy(), labels.numpy(), data.train.class_names),
        "augmentation": galleries.augmentation_preview(
            _last(shown).numpy(), _last(augmented_views(shown, config, seed)).numpy()
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, figure in pictures.items():
        paths.append(folder / f"{name}.png")
        paths[-1].write_bytes(style.png(figure, "light"))
    return paths


def first_of_each_class(images: ImageSet, count: int) -> torch.Tensor:
    """Indices of the first `count` images of every class, class by class."""
    return torch.cat(
        [torch.nonzero(images.labels == label).flatten()[:count] for label in range(len(images.class_names))]
    )


def augmented_views(pixels: torch.Tensor, config: AugmentConfig, seed: int) -> torch.Tensor:
    """(S, C, H, W) uint8 -> (S, VIEWS, C, H, W): what the first epochs make of each image."""
    indices = torch.arange(len(pixels))
    views = [
        augment(pixels, indices, config, seed=seed, epoch=epoch, generator=seeded_generator(seed, "augment", epoch))
        for epoch in range(VIEWS)
    ]
    return torch.stack(views, dim=1)


def _last(pixels: torch.Tensor) -> torch.Tensor:
    """Channels last, as pictures are shown."""
    return pixels.movedim(-3, -1)
