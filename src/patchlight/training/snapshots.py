"""The learning movie: what the model looks at in a few fixed images, epoch by epoch.

Shapes: E snapshots, S images, K classes, (r, c) the patch grid.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from patchlight.config import ExplainConfig
from patchlight.data.images import ImageSet
from patchlight.explanation.methods import explain
from patchlight.machine.seeds import seeded_generator
from patchlight.models import ModelCard
from patchlight.models.anatomy import find_anatomy
from patchlight.runs import Run, Snapshots


class SnapshotWriter:
    """Adds to the Snapshots of a run (`snapshots.npz`), epoch by epoch."""

    def __init__(self, run: Run, card: ModelCard, images: ImageSet, config: ExplainConfig, seed: int) -> None:
        self.run, self.card, self.config = run, card, config
        self.pixels, self.labels = images.gather(one_of_each(images.labels, config.snapshots_images, seed))

    def is_due(self, epoch: int) -> bool:
        """Whether to add one after `epoch` finished epochs: after the first, and after every n-th."""
        return epoch == 1 or epoch % self.config.snapshots_every == 0

    def add(self, model: nn.Module, epoch: int) -> None:
        """Add the maps after `epoch` epochs. What an interrupted run wrote of later epochs is dropped."""
        device = next(model.parameters()).device
        inputs = self.card.to_input(self.pixels.to(device))
        explanation = explain(model, inputs, method=self.config.method, target=self.labels.to(device))
        epochs, maps = np.array([epoch]), explanation.maps.float().cpu().numpy()[None]
        probs = explanation.probs.float().cpu().numpy()[None]
        if epoch > 1 and (before := self.run.find(Snapshots)) is not None:
            earlier = before.epochs < epoch
            epochs = np.concatenate([before.epochs[earlier], epochs])
            maps = np.concatenate([on_grid(before.maps[earlier], maps.shape[2:]), maps])
            probs = np.concatenate([before.probs[earlier], probs])
        self.run.write(
            Snapshots(
                epochs=epochs,
                images=self.pixels.permute(0, 2, 3, 1).numpy(),
                labels=self.labels.numpy(),
                maps=maps,
                probs=probs,
                method=self.config.method,
            )
        )


def on_grid(maps: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """Maps (E, S, r, c) on another patch grid: a stage may have changed the image size."""
    if maps.shape[2:] == grid:
        return maps
    return F.interpolate(torch.from_numpy(maps), size=grid, mode="bilinear", antialias=True).numpy()


def one_of_each(labels: torch.Tensor, count: int, seed: int) -> torch.Tensor:
    """Indices of up to `count` images, drawn by the seed, of as many classes as there are, class after class."""
    order = torch.randperm(len(labels), generator=seeded_generator(seed, "snapshots"))
    rank = torch.zeros(len(labels), dtype=torch.long)
    for label in labels.unique():
        rank[order[labels[order] == label]] = torch.arange(int((labels == label).sum()))
    chosen = torch.argsort(rank * (int(labels.max()) + 1) + labels, stable=True)
    return chosen[:count]


def are_wanted(model: nn.Module, config: ExplainConfig) -> bool:
    """Whether the recipe asks for snapshots, and the model has the attention that they show."""
    return bool(config.snapshots_every) and find_anatomy(model) is not None
