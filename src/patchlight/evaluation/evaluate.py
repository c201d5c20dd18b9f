"""A model's predictions on an ImageSet, and what they are worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from patchlight.data.images import ImageSet
from patchlight.errors import PatchlightError
from patchlight.evaluation.metrics import classification_metrics, softmax
from patchlight.machine.device import autocast
from patchlight.machine.fastest import resolve_precision
from patchlight.models import ModelCard
from patchlight.models.fused import choose_fused, set_fused_attn
from patchlight.progress import Progress

TINY = 1e-30  # under the least probability, before its logarithm


@torch.inference_mode()
def predict_logits(
    model: nn.Module,
    card: ModelCard,
    images: ImageSet,
    *,
    batch_size: int = 500,
    precision: str = "fp32",
    label: str = "",
    mirror: bool = False,
) -> np.ndarray:
    """Logits (N, K) float32 in the set's order, from the model in evaluation mode; of `mirror` images if so.

    `label` shows progress.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    logits = []
    starts = range(0, len(images), batch_size)
    with Progress(len(starts), label) as progress:
        for start in starts:
            pixels, _ = images.gather(torch.arange(start, min(start + batch_size, len(images))))
            pixels = pixels.flip(3) if mirror else pixels
            inputs = card.to_input(pixels.to(device))
            with autocast(precision, device):
                logits.append(model(inputs).float().cpu())
            progress.advance()
            if label and progress.due():
                progress.show("")
    model.train(was_training)
    return torch.cat(logits).numpy()


def choose_speed(model: nn.Module, precision: str, batch_size: int) -> str:
    """The precision to score in: `precision`, or for "auto" the fastest here.

    Below fp32 the model's attention becomes the kind that is faster here, too; in fp32 the two differ little.
    """
    device = next(model.parameters()).device
    precision = resolve_precision(precision, device)
    if precision != "fp32":
        fused = choose_fused(model, batch_size, precision, device, training=False)
        if fused is not None:
            set_fused_attn(model, fused)
    return precision


def evaluate(
    model: nn.Module,
    card: ModelCard,
    images: ImageSet,
    *,
    split: str,
    batch_size: int = 500,
    precision: str = "fp32",
    mirror: bool = False,
) -> tuple[dict[str, Any], np.ndarray]:
    """The metrics of `eval.json` and the logits (N, K), in a precision as `choose_speed` takes it.

    With `mirror` they tell under "mirrored" what averaging the probabilities of an image and its mirror image gives.
    Raises PatchlightError where the images are not of the model's classes.
    """
    check_compatible(card, images)
    precision = choose_speed(model, precision, batch_size)
    logits = predict_logits(
        model, card, images, batch_size=batch_size, precision=precision, label=f"evaluating {split}"
    )
    if not np.isfinite(logits).all():
        raise PatchlightError(
            "the model's outputs are not finite; its training diverged: lower optim.lr and train again"
        )
    metrics = classification_metrics(logits, images.labels.numpy(), card.class_names)
    if mirror:
        other = predict_logits(
            model, card, images, batch_size=batch_size, precision=precision, label="mirrored", mirror=True
        )
        both = np.log((softmax(logits) + softmax(other)) / 2 + TINY)
        averaged = classification_metrics(both, images.labels.numpy(), card.class_names)
        metrics["mirrored"] = {key: averaged[key] for key in ("loss", "top1", "top1_ci95")}
    return {"split": split, "precision": precision, **metrics}, logits


def check_compatible(card: ModelCard, images: ImageSet) -> None:
    """Raises PatchlightError where `images` cannot be what the model was trained for."""
    if images.class_names != card.class_names:
        raise PatchlightError(
            f"the data has {_names(images.class_names)}, but the model was trained for {_names(card.class_names)}"
        )


def align_classes(images: ImageSet, card: ModelCard) -> ImageSet:
    """The same images with labels in the model's order, where every class of theirs is one of the model's.

    Raises PatchlightError where one is not.
    """
    unknown = [name for name in images.class_names if name not in card.class_names]
    if unknown:
        raise PatchlightError(
            f"the model does not know {_names(unknown)}; it was trained for {_names(card.class_names)}"
        )
    order = torch.tensor([card.class_names.index(name) for name in images.class_names])
    return dataclasses.replace(images, labels=order[images.labels], class_names=card.class_names)


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"the classes {shown} and {len(names) - 5} more" if len(names) > 5 else f"the classes {shown}"
