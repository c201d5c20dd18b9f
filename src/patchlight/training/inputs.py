"""What a step of training gives to the model: the one way from a set of images to batches as they are trained on.

Shapes: B batch, C channels, H W pixels, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchlight.config import AugmentConfig, Config
from patchlight.data.batches import Batch, TrainBatches
from patchlight.data.images import ImageSet
from patchlight.data.mix import mix
from patchlight.models import ModelCard


def mixes(config: AugmentConfig) -> bool:
    """Whether images are mixed, as long as the strong augmentation is on."""
    return bool(config.mix_prob and (config.mixup_alpha or config.cutmix_alpha))


def fill_colour(card: ModelCard) -> list[int]:
    """What random erasing paints, (C,) of 0..255: the mean that pixels are normalised by."""
    return [round(255 * mean) for mean in card.mean]


def make_batches(images: ImageSet, config: Config, card: ModelCard, device: torch.device) -> TrainBatches:
    """The batches of a stage, of which `config` is the recipe. Random erasing paints the card's mean."""
    fill = torch.tensor(fill_colour(card), dtype=torch.uint8)
    train = config.train
    return TrainBatches(
        images,
        train.batch_size,
        config.augment,
        seed=train.seed,
        fill=fill,
        device=device,
        drop_last=train.drop_last,
        sampler=config.data.sampler,
    )


def model_input(batch: Batch, card: ModelCard, config: AugmentConfig, mixed: bool) -> tuple[Tensor, Tensor]:
    """Images (B, C, H, W) as the model takes them and their targets: (B,) or, where images are `mixed`, (B, K)."""
    images = card.to_input(batch.images)
    if not mixed:
        return images, batch.targets
    return mix(images, batch.targets, len(card.class_names), config, batch.generator)
