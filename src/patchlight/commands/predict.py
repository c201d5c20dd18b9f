"""`patchlight predict`: what is on image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from patchlight.data.decode import load_image
from patchlight.errors import UsageError
from patchlight.evaluation import evaluate as evaluation
from patchlight.machine.device import autocast, resolve_device
from patchlight.machine.process import tune_process
from patchlight.models import load_classifier
from patchlight.progress import say
from patchlight.runs import Run
from patchlight.runs.checkpoints import find_checkpoint
from patchlight.runs.codec import Record

PREDICT_BATCH = 256  # image files decoded and classified together


@dataclass(frozen=True, kw_only=True)
class ClassProbability(Record):
    """A class and its probability, 0..1."""

    name: str = field(metadata={"key": "class"})
    probability: float


@dataclass(frozen=True, kw_only=True)
class Prediction(Record):
    """The most probable classes of an image file, best first."""

    image: str
    classes: tuple[ClassProbability, ...]
    weights: str | None = field(default=None, metadata={"brief": True})  # a checkpoint's: "epoch 50"


def predict(
    run: str | Path | Run,
    images: Sequence[str | Path],
    *,
    top: int = 5,
    device: str = "auto",
    precision: str = "auto",
) -> list[Prediction]:
    """The `top` most probable classes of each image file, of any size and mode, in the order of `images`.

    `run` is a run's folder, or a checkpoint of one: RUN/checkpoints/epoch-050, or RUN/checkpoints/last for the newest.
    `device` is as train.device and `precision` as eval.precision; the fastest here is exact enough for an answer
    (docs/results.md). Raises UsageError where `top` is less than 1, and PatchlightError where the run has no
    classifier, or a file is no image.
    """
    if top < 1:
        raise UsageError(f"--top must be at least 1, not {top}")
    on = resolve_device(device)
    tune_process(on)
    place = run.path if isinstance(run, Run) else run
    if (checkpoint := find_checkpoint(place)) is not None:
        say(checkpoint.line)
    model, card = load_classifier(checkpoint.path if checkpoint else place, on)
    precision = evaluation.choose_speed(model, precision, PREDICT_BATCH)
    predictions = []
    for start in range(0, len(images), PREDICT_BATCH):
        paths = images[start : start + PREDICT_BATCH]
        pixels = torch.stack([load_image(path, card.fit_size, card.fit_interpolation) for path in paths]).to(on)
        with torch.inference_mode(), autocast(precision, on):
            probs = model(card.to_input(pixels)).float().softmax(dim=1)
        best = probs.topk(min(top, len(card.class_names)))
        for path, values, indices in zip(paths, best.values.tolist(), best.indices.tolist(), strict=True):
            classes = tuple(
                ClassProbability(name=card.class_names[i], probability=value)
                for value, i in zip(values, indices, strict=True)
            )
            weights = checkpoint.weights if checkpoint else None
            predictions.append(Prediction(image=str(path), classes=classes, weights=weights))
    return predictions
