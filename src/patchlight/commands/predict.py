"""`patchlight predict`: what is on image files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from patchlight.data.decode import load_image
from patchlight.evaluation import evaluate as evaluation
from patchlight.machine.device import autocast, resolve_device
from patchlight.machine.process import tune_process
from patchlight.models import load_classifier

PREDICT_BATCH = 256  # image files decoded and classified together


def predict(
    run: str | Path, images: Sequence[str | Path], *, top: int = 5, device: str = "auto", precision: str = "auto"
) -> list[dict[str, Any]]:
    """For each image file, of any size and mode: `{"image", "classes": [{"class", "probability"}]}`, best first.

    `precision` is as eval.precision; the fastest here is exact enough for an answer (docs/results.md).
    """
    on = resolve_device(device)
    tune_process(on)
    model, card = load_classifier(run, on)
    precision = evaluation.choose_speed(model, precision, PREDICT_BATCH)
    answers = []
    for start in range(0, len(images), PREDICT_BATCH):
        paths = images[start : start + PREDICT_BATCH]
        pixels = torch.stack([load_image(path, card.fit_size) for path in paths]).to(on)
        with torch.inference_mode(), autocast(precision, on):
            probs = model(card.to_input(pixels)).float().softmax(dim=1)
        best = probs.topk(min(top, len(card.class_names)))
        for path, values, places in zip(paths, best.values.tolist(), best.indices.tolist(), strict=True):
            classes = [{"class": card.class_names[i], "probability": p} for p, i in zip(values, places, strict=True)]
            answers.append({"image": str(path), "classes": classes})
    return answers
