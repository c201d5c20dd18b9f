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
from patchlight.runs import Run

FILE = "snapshots.npz"


class Snapshots:
    """Writes `snapshots.npz` of a run: `images (S, H, W, 3)` uint8, `labels (S,)`, `epochs (E,)`, `maps (E, S, r, c)`
    for each image's true class, `probs (E, S, K)`, and `method`.
    """

    def __init__(self, run: Run, card: ModelCard, images: ImageSet, config: ExplainConfig, seed: int) -> None:
        self.run, self.card, self.config = run, card, config
        self.pixels, self.labels = images.gather(one_of_each(images.labels, config.snapshots_images, seed))

    def due(self, epoch: int) -> bool:
        """After the first of `epoch` finished epochs, and after every n-th."""
        every = self.config.snapshots_every
        return epoch == 1 or epoch % every == 0

    def take(self, model: nn.Module, epoch: int) -> None:
        """Add the maps after `epoch` epochs. What an interrupted run wrote of later epochs is dropped."""
        device = next(model.parameters()).device
        inputs = self.card.to_input(self.pixels.to(device))
        found = explain(model, inputs, method=self.config.method, target=self.labels.to(device))
        new = {
            "epochs": np.array([epoch]),
            "maps": found.maps.float().cpu().numpy()[None],
            "probs": found.probs.float().cpu().numpy()[None],
        }
        self.run.write_arrays(
            FILE,
            {
                "images": self.pixels.permute(0, 2, 3, 1).numpy(),
                "labels": self.labels.numpy(),
                "method": np.array(self.config.method),
                **self._after(new, epoch),
            },
        )

    def _after(self, new: dict[str, np.ndarray], epoch: int) -> dict[str, np.ndarray]:
        """The earlier snapshots that are on file, and the new one."""
        path = self.run.path / FILE
        if epoch == 1 or not path.is_file():
            return new
        with np.load(path, allow_pickle=False) as file:
            kept = file["epochs"] < epoch
            before = {key: file[key][kept] for key in new}
        before["maps"] = on_grid(before["maps"], new["maps"].shape[2:])
        return {key: np.concatenate([before[key], value]) for key, value in new.items()}


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


def can_be_taken(model: nn.Module, config: ExplainConfig) -> bool:
    """They are asked for, and the model has attention."""
    return bool(config.snapshots_every) and find_anatomy(model) is not None
