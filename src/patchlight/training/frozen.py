"""A new head on a frozen backbone: where nothing random reaches the backbone, each image goes through it once.

Shapes: N images of a set, B batch, C channels, H W pixels, D features, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from patchlight.config import AugmentConfig
from patchlight.data.images import ImageSet
from patchlight.data.splits import Splits
from patchlight.errors import PatchlightError
from patchlight.evaluation.features import name_of_head, pooled_features, without_head
from patchlight.machine.device import autocast, move
from patchlight.progress import Progress
from patchlight.training.stage import Stage
from patchlight.training.state import StopSignal

FEW = 8  # images on which it is tried whether the head gives the same logits for features


@dataclass(frozen=True)
class FrozenFeatures:
    """The backbone's features of the training and validation images, float32 and on the device."""

    head: str  # the name of the linear layer that they go to
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


def can_keep_features(stage: Stage, images: ImageSet) -> bool:
    """Whether a stage trains nothing but a linear head, on images that have the same features each time, and often
    enough for it to pay. A budget is for steps, whose time must be known before.
    """
    train = stage.config.train
    if train.task != "classify" or train.engine != "loop" or train.epochs <= 1:
        return False
    if train.teacher or train.compile or train.budget or train.debug:
        return False
    if stage.config.augment != AugmentConfig():
        return False
    try:
        head = name_of_head(stage.model)
    except PatchlightError:
        return False
    if stage.trainable != {f"{head}.{name}" for name, _ in stage.model.get_submodule(head).named_parameters()}:
        return False
    few, _ = images.gather(torch.arange(min(FEW, len(images))))
    return _gives_the_same_logits(stage, head, stage.card.to_input(few.to(stage.device)))


def frozen_features(stage: Stage, data: Splits, stop: StopSignal) -> FrozenFeatures:
    """The features of all training and validation images. Raises Interrupted where `stop` is requested."""
    size = stage.config.eval.batch_size

    def features_of(images: ImageSet, label: str) -> Tensor:
        parts = []
        starts = range(0, len(images), size)
        with Progress(len(starts), label) as progress:
            for start in starts:
                if stop.requested:
                    raise stop.interrupted("while the features of images were made")
                part = images.select(range(start, min(start + size, len(images))))
                parts.append(pooled_features(stage.model, stage.card, part, batch_size=size, precision=stage.precision))
                progress.advance()
                if progress.due():
                    progress.show("")
        return torch.from_numpy(np.concatenate(parts)).to(stage.device)

    val = None if data.val is None else features_of(data.val, "features of val")
    train = features_of(data.train, "features of train")
    return FrozenFeatures(name_of_head(stage.model), train, data.train.labels.to(stage.device), val)


@torch.no_grad()
def _gives_the_same_logits(stage: Stage, head: str, images: Tensor) -> bool:
    """Whether the head gives for features what the model gives for images (B, C, H, W) in training, at every draw."""
    model = stage.model
    stage.train_mode()
    before = _random_state(images.device)
    with autocast(stage.precision, images.device):
        logits = model(images)
        draws = not torch.equal(before, _random_state(images.device))
        model.eval()
        with without_head(model):
            features = model(images)
        return not draws and torch.equal(logits, model.get_submodule(head)(features))


def _random_state(device: torch.device) -> Tensor:
    """The state of the generator that dropout draws from on the device."""
    source: Any = torch.cuda if device.type == "cuda" else torch
    state: Tensor = source.get_rng_state()
    return state.clone()
