"""Maps of a few validation images, epoch by epoch: the record of `snapshots.npz`.

Shapes: E snapshots, S images, K classes, H W pixels, (r, c) the patch grid.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from patchlight.config import ExplainConfig
from patchlight.data.images import ImageSet
from patchlight.errors import PatchlightError, diverged
from patchlight.explanation.methods import explain_inputs
from patchlight.machine.seeds import seeded_generator
from patchlight.models import ModelCard
from patchlight.models.anatomy import find_vit
from patchlight.progress import say
from patchlight.runs import Run, Snapshots
from patchlight.runs.folder import FILES
from patchlight.runs.writing import set_aside


class SnapshotWriter:
    """Keeps `snapshots.npz` of a run while it is trained."""

    def __init__(self, run: Run, card: ModelCard, images: ImageSet, config: ExplainConfig, seed: int) -> None:
        self.run, self.card, self.config = run, card, config
        self.pixels, self.labels = images.gather(one_of_each(images.labels, config.snapshots_images, seed))

    def is_due(self, epoch: int) -> bool:
        """Whether to add maps after `epoch` finished epochs: after the first, and after every n-th."""
        return epoch == 1 or epoch % self.config.snapshots_every == 0

    def add(self, model: nn.Module, epoch: int) -> None:
        """Add the maps after `epoch` epochs. What an interrupted run wrote of later epochs is dropped; a damaged file
        is kept under another name.
        """
        device = next(model.parameters()).device
        inputs = self.card.to_input(self.pixels.to(device))
        explanation = explain_inputs(model, inputs, method=self.config.method, target=self.labels.to(device))
        if not explanation.maps.isfinite().all():
            raise PatchlightError(diverged(f"the maps of images are not finite after epoch {epoch}"))
        new = Snapshots(
            images=self.pixels.permute(0, 2, 3, 1).numpy(),
            labels=self.labels.numpy(),
            method=self.config.method,
            epochs=np.array([epoch]),
            maps=explanation.maps.float().cpu().numpy()[None],
            probs=explanation.probs.float().cpu().numpy()[None],
        )
        earlier = self._earlier() if epoch > 1 else None
        self.run.write(new if earlier is None else joined(earlier, new))

    def _earlier(self) -> Snapshots | None:
        """What was written before, or None. What cannot be read is not written over."""
        try:
            return self.run.find(Snapshots)
        except PatchlightError as error:
            aside = set_aside(self.run.path / FILES[Snapshots]).name
            say(f"{str(error).partition(';')[0]}; it is kept as {aside}, and the maps of earlier epochs are left out")
            return None


def joined(earlier: Snapshots, new: Snapshots) -> Snapshots:
    """The earlier snapshots of epochs before the new one, and that."""
    kept = earlier.epochs < new.epochs[0]
    maps = on_grid(earlier.maps[kept], new.maps.shape[2:])
    return replace(
        new,
        epochs=np.concatenate([earlier.epochs[kept], new.epochs]),
        maps=np.concatenate([maps, new.maps]),
        probs=np.concatenate([earlier.probs[kept], new.probs]),
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


def are_wanted(model: nn.Module, card: ModelCard, config: ExplainConfig) -> bool:
    """Whether the recipe asks for snapshots, and the model has the attention that they show."""
    return bool(config.snapshots_every) and find_vit(model, card.img_size) is not None
