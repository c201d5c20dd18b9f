"""What a model looks at in images of a class: the mean map of many, with its spread, and how much of it is a habit.

Shapes: C classes, n images of one, (r, c) the patch grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from patchlight.analysis.choice import Pool
from patchlight.explanation.faithfulness import rank_correlation
from patchlight.explanation.methods import CONTROLS, METHODS, explain_inputs
from patchlight.explanation.targets import ClassTarget
from patchlight.models import ModelCard
from patchlight.models.anatomy import Anatomy

MEAN_OF = 64  # images of a class whose maps are averaged, at most
MOST_CLASSES = 20  # that are shown side by side


@dataclass(frozen=True)
class ClassMaps:
    """Of each class the maps of its own images, for that class, averaged."""

    method: str
    classes: tuple[int, ...]
    counts: np.ndarray  # (C,) images
    right: np.ndarray  # (C,) how many of them are predicted right
    mean: np.ndarray  # (C, r, c) in 0..1: each map is stretched to 0..1 first, so that each counts alike
    spread: np.ndarray  # (C, r, c): standard deviation over the images
    controls: dict[str, np.ndarray]  # by control, (C,): rank correlation of the mean map with the control's
    centre: np.ndarray  # (r, c) the control, stretched to 0..1


def class_maps(anatomy: Anatomy, card: ModelCard, pool: Pool, classes: tuple[int, ...], method: str) -> ClassMaps:
    """Over the first MEAN_OF images of each class in the pool's order, which was drawn; right and wrong answers alike.

    `method` should see classes: the map of one that is blind to them is the same for every target.
    """
    rows = [np.flatnonzero(pool.labels == label)[:MEAN_OF] for label in classes]
    device = next(anatomy.model.parameters()).device
    means, spreads = [], []
    controls: dict[str, list[float]] = {name: [] for name in CONTROLS}
    bump = torch.zeros(0)
    for label, places in zip(classes, rows, strict=True):
        pixels, _ = pool.images.gather(pool.indices[places])
        inputs, targets = card.to_input(pixels.to(device)), torch.full((len(places),), label, device=device)
        maps = stretched(explain_inputs(anatomy, inputs, method=method, target=targets).maps.float())
        means.append(maps.mean(dim=0))
        spreads.append(maps.std(dim=0, correction=0))
        for name in CONTROLS:
            control = stretched(METHODS[name].run(anatomy, inputs, ClassTarget(targets)).float()).mean(dim=0)
            controls[name].append(float(rank_correlation(means[-1][None], control[None])))
            bump = control if name == "centre" else bump
    return ClassMaps(
        method=method,
        classes=classes,
        counts=np.array([len(places) for places in rows]),
        right=np.array([(pool.preds[places] == pool.labels[places]).sum() for places in rows]),
        mean=torch.stack(means).cpu().numpy(),
        spread=torch.stack(spreads).cpu().numpy(),
        controls={name: np.array(values) for name, values in controls.items()},
        centre=bump.cpu().numpy(),
    )


def stretched(maps: Tensor) -> Tensor:
    """Maps (B, r, c), each from its least to its greatest value to 0..1; one that is the same everywhere is 0.5."""
    low, high = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny), 0.5)
