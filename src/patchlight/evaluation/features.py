"""What a model makes of an image before its classifier: the pooled features that a linear probe reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from torch import nn

from patchlight.data.images import ImageSet
from patchlight.errors import PatchlightError
from patchlight.evaluation.evaluate import predict_logits
from patchlight.models import ModelCard, structure_of


@contextmanager
def without_head(model: nn.Module) -> Iterator[nn.Module]:
    """Inside, the model gives the features that its last linear map reads, (B, D); afterwards it is as it was.

    Raises PatchlightError for a model that does not have just one such map.
    """
    parent, _, name = name_of_head(model).rpartition(".")
    holder = model.get_submodule(parent)
    head = getattr(holder, name)
    setattr(holder, name, nn.Identity())
    try:
        yield model
    finally:
        setattr(holder, name, head)


def name_of_head(model: nn.Module) -> str:
    """Of the one linear map that gives the logits; raises PatchlightError where there are none, or several."""
    heads = structure_of(model).linear_heads()
    if len(heads) != 1:
        raise PatchlightError(f"{type(model).__name__} has {len(heads)} linear heads; features are read before one")
    return heads[0]


def pooled_features(
    model: nn.Module,
    card: ModelCard,
    images: ImageSet,
    *,
    batch_size: int = 500,
    precision: str = "fp32",
    label: str = "",
) -> np.ndarray:
    """Features (N, D) float32 of the images as they are, in the set's order."""
    with without_head(model):
        return predict_logits(model, card, images, batch_size=batch_size, precision=precision, label=label)
