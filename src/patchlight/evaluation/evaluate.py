"""A model's predictions on an ImageSet, and its test result."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from patchlight.data.images import ImageSet
from patchlight.errors import PatchlightError, first_of
from patchlight.evaluation.metrics import classification_metrics, softmax
from patchlight.machine.device import autocast, multiplies
from patchlight.machine.fastest import resolve_precision
from patchlight.models import ModelCard
from patchlight.models.fused import choose_fused, set_fused_attn
from patchlight.progress import Progress, say
from patchlight.runs import EvalResult, Score
from patchlight.runs.records import FORMAT

TINY = 1e-30  # added to probabilities, so that the logarithm of 0 is finite


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
    """Logits (N, K) float32 in the set's order, from the model in evaluation mode.

    `precision` is "fp32", "bf16" or "fp16". With `mirror` each image is mirrored first. With a `label` long work shows
    its progress under that name.
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


def choose_precision(name: str, device: torch.device) -> str:
    """What `resolve_precision` makes of train.precision or eval.precision. A line says where the device has, as far as
    torch tells, no instructions for it.
    """
    precision = resolve_precision(name, device)
    if not multiplies(precision, device):
        lacks = f"this {device.type} has no {precision} instructions, as far as torch tells"
        say(f"{lacks}; fp32 may be many times as fast")
    return precision


def choose_speed(model: nn.Module, precision: str, batch_size: int) -> str:
    """The precision to evaluate in: `precision`, or for "auto" the fastest on the model's device.

    Below fp32 the model's attention is also set to the kind, fused or explicit, that is faster on that device; in fp32
    the two differ little.
    """
    device = next(model.parameters()).device
    precision = choose_precision(precision, device)
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
    data: str,
    split: str,
    batch_size: int = 500,
    precision: str = "fp32",
    mirror: bool = False,
) -> tuple[EvalResult, np.ndarray]:
    """The record of `eval.json` and the logits (N, K) float32.

    `data` and `split` say in the record what the images are; `precision` is as `choose_speed` takes it. With `mirror`
    the record's `mirrored` is the score of the probabilities averaged over each image and its mirror image.
    Raises PatchlightError where the images are not of the model's classes, or the logits are not finite.
    """
    check_compatible(card, images)
    precision = choose_speed(model, precision, batch_size)
    logits = predict_logits(
        model, card, images, batch_size=batch_size, precision=precision, label=f"evaluating {split.replace('_', ' ')}"
    )
    if not np.isfinite(logits).all():
        raise PatchlightError(
            "the model's outputs are not finite; its training diverged: lower optim.lr and train again"
        )
    metrics = classification_metrics(logits, images.labels.numpy(), card.class_names)
    mirrored = None
    if mirror:
        other = predict_logits(
            model, card, images, batch_size=batch_size, precision=precision, label="mirrored", mirror=True
        )
        both = np.log((softmax(logits) + softmax(other)) / 2 + TINY)
        averaged = classification_metrics(both, images.labels.numpy(), card.class_names)
        mirrored = Score(loss=averaged.loss, top1=averaged.top1, top1_ci95=averaged.top1_ci95)
    result = EvalResult(
        **{**vars(metrics), "format": FORMAT, "data": data, "split": split, "precision": precision},
        mirrored=mirrored,
    )
    return result, logits


def check_compatible(card: ModelCard, images: ImageSet) -> None:
    """Raises PatchlightError where the images have other classes, or another order of them, than the model."""
    if images.class_names != card.class_names:
        raise PatchlightError(
            f"the data has {_names(images.class_names)}, but the model was trained for {_names(card.class_names)}"
        )


def align_classes(images: ImageSet, card: ModelCard) -> ImageSet:
    """The same images with their labels in the model's order of classes.

    Raises PatchlightError where a class of theirs is not one of the model's.
    """
    unknown = [name for name in images.class_names if name not in card.class_names]
    if unknown:
        raise PatchlightError(
            f"the model does not know {_names(unknown)}; it was trained for {_names(card.class_names)}"
        )
    order = torch.tensor([card.class_names.index(name) for name in images.class_names])
    return dataclasses.replace(images, labels=order[images.labels], class_names=card.class_names)


def _names(names: Sequence[str]) -> str:
    return f"the classes {first_of(names, 5)}"
