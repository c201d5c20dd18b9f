"""The images that a report shows, chosen and explained while the model is at hand.

Shapes: S samples, K classes, H W pixels, (h, w) the patch grid.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from patchlight.data.images import ImageSet
from patchlight.evaluation.metrics import softmax
from patchlight.explanation.methods import explain_inputs
from patchlight.machine.seeds import seeded_generator
from patchlight.models import ModelCard
from patchlight.models.anatomy import find_vit
from patchlight.runs import Samples

SamplesT = TypeVar("SamplesT", bound=Samples)

# Whose attention a map shows.
POOLED = {
    "token": "the CLS token",
    "avg": "the mean patch",
    "seq": "the pooled patch",
    "token+avg": "CLS token and mean patch",
    "token+dist": "CLS and distillation token",
}


def collect_samples(model: nn.Module, card: ModelCard, images: ImageSet, logits: np.ndarray, each: int) -> Samples:
    """What `choose_samples` takes, with the last layer's attention where the model has any."""
    samples = choose_samples(Samples, images, logits, each)
    anatomy = find_vit(model, card.img_size)
    if anatomy is None or not len(samples.images):
        return samples
    pixels = torch.from_numpy(samples.images).permute(0, 3, 1, 2)
    explanation = explain_inputs(anatomy, card.to_input(pixels.to(next(model.parameters()).device)), method="attention")
    return replace(
        samples,
        maps=explanation.maps.cpu().numpy().astype(np.float32),
        map_title=f"attention of {POOLED[anatomy.pooling]} in the last layer, mean over heads",
        patch_size=anatomy.patch_size[0],
    )


def choose_samples(record: type[SamplesT], images: ImageSet, logits: np.ndarray, each: int) -> SamplesT:
    """The `each` most confident mistakes and `each` right answers, classes in turn; logits (N, K) of the images (N)."""
    probs, labels = softmax(logits), images.labels.numpy()
    wrong, right = most_confident_mistakes(probs, labels, each), right_by_class(probs, labels, each)
    rows = np.concatenate([wrong, right])
    pixels, _ = images.gather(torch.from_numpy(rows))
    return record(
        images=pixels.permute(0, 2, 3, 1).numpy(),
        labels=labels[rows],
        probs=probs[rows].astype(np.float32),
        kind=np.array(["wrong"] * len(wrong) + ["right"] * len(right)),
    )


def most_confident_mistakes(probs: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of wrong predictions, the surest first."""
    preds = probs.argmax(axis=1)
    wrong = np.flatnonzero(preds != labels)
    return wrong[np.argsort(-probs[wrong, preds[wrong]], kind="stable")][:count]


def right_by_class(probs: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Indices of right predictions: one of each class in turn, drawn by a fixed seed. Of more classes than `count`
    those at equal distances are taken, the first and the last among them.
    """
    draw = seeded_generator(0, "samples")
    shuffled = torch.randperm(len(labels), generator=draw).numpy()
    right = shuffled[probs.argmax(axis=1)[shuffled] == labels[shuffled]]
    rank = {}  # how many of its class came before each
    seen: dict[int, int] = {}
    for index in right:
        label = int(labels[index])
        rank[int(index)] = (seen.get(label, 0), label)
        seen[label] = seen.get(label, 0) + 1
    in_turn = np.array(sorted(rank, key=lambda index: rank[index]), dtype=np.int64)
    if count < len(seen):
        return in_turn[np.linspace(0, len(seen) - 1, count).round().astype(int)]
    return in_turn[:count]
