"""A new head on a frozen backbone: where nothing random reaches the backbone, each image goes through it once.

Shapes: N images of a set, B batch, C channels, H W pixels, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from patchlight.config import AugmentConfig, Config
from patchlight.data.images import ImageSet
from patchlight.data.splits import Splits
from patchlight.errors import Interrupted, PatchlightError
from patchlight.evaluation.features import name_of_head, pooled_features, without_head
from patchlight.machine.device import autocast, move
from patchlight.models import ModelCard
from patchlight.progress import Progress
from patchlight.training.state import StopSignal
from patchlight.training.trainable import frozen_modules, train_mode

FEW = 8  # images that are looked at to see whether features would say the same


@dataclass(frozen=True)
class FrozenFeatures:
    """What the backbone makes of the training and validation images, float32 and on the device."""

    head: str  # the name of the linear map that reads them
    train: Tensor  # (N, D)
    labels: Tensor  # (N,) of the training images
    val: Tensor | None  # (N, D)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, D) and labels (B,) of these training images."""
        there = move(indices, self.train.device)
        return self.train.index_select(0, there), self.labels.index_select(0, there)

    @torch.inference_mode()
    def val_logits(self, model: nn.Module, precision: str) -> np.ndarray:
        """(N, K) float32 by the head of `model`, which may be an average of the one that is trained."""
        assert self.val is not None
        with autocast(precision, self.val.device):
            logits: Tensor = model.get_submodule(self.head)(self.val)
        return logits.float().cpu().numpy()


def can_keep_features(model: nn.Module, card: ModelCard, images: ImageSet, config: Config, precision: str) -> bool:
    """Whether a stage trains nothing but a linear head, on images that have the same features each time, and often
    enough for it to pay. A budget is for steps, whose time must be known before.
    """
    train = config.train
    if train.task != "classify" or train.teacher or train.compile or train.budget or train.debug or train.epochs <= 1:
        return False
    if config.augment != AugmentConfig():
        return False
    try:
        head = name_of_head(model)
    except PatchlightError:
        return False
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    if trained != {f"{head}.{name}" for name, _ in model.get_submodule(head).named_parameters()}:
        return False
    few, _ = images.gather(torch.arange(min(FEW, len(images))))
    return _says_the_same(model, head, card.to_input(few.to(next(model.parameters()).device)), precision)


def frozen_features(
    model: nn.Module, card: ModelCard, data: Splits, config: Config, precision: str, stop: StopSignal
) -> FrozenFeatures:
    """The features of all training and validation images. Raises Interrupted where `stop` is requested."""
    device, size = next(model.parameters()).device, config.eval.batch_size

    def of(images: ImageSet, label: str) -> Tensor:
        found = []
        places = range(0, len(images), size)
        with Progress(len(places), label) as progress:
            for start in places:
                if stop.requested:
                    raise Interrupted(f"stopped by {stop.requested} while the features of images were made")
                part = images.select(range(start, min(start + size, len(images))))
                found.append(pooled_features(model, card, part, batch_size=size, precision=precision))
                progress.advance()
                if progress.due():
                    progress.show("")
        return torch.from_numpy(np.concatenate(found)).to(device)

    val = None if data.val is None else of(data.val, "features of val")
    train = of(data.train, "features of train")
    return FrozenFeatures(name_of_head(model), train, data.train.labels.to(device), val)


@torch.no_grad()
def _says_the_same(model: nn.Module, head: str, images: Tensor, precision: str) -> bool:
    """Whether the head says of features what the model says of images (B, C, H, W) in training, without any chance."""
    train_mode(model, frozen_modules(model))
    before = _random_state(images.device)
    with autocast(precision, images.device):
        whole = model(images)
        by_chance = not torch.equal(before, _random_state(images.device))
        model.eval()
        with without_head(model):
            features = model(images)
        return not by_chance and torch.equal(whole, model.get_submodule(head)(features))


def _random_state(device: torch.device) -> Tensor:
    """Of the generator that dropout draws from on the device."""
    source: Any = torch.cuda if device.type == "cuda" else torch
    state: Tensor = source.get_rng_state()
    return state.clone()
