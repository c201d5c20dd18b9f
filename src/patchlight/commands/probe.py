"""`patchlight probe`: how good a model's features are, without training it: a linear probe and nearest neighbours.

Each image is seen once, without augmentation; what is fitted is scikit-learn's. The validation images choose.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from patchlight.config import Config
from patchlight.data.splits import load_splits
from patchlight.errors import PatchlightError, UsageError
from patchlight.evaluation.features import pooled_features
from patchlight.evaluation.metrics import wilson_interval
from patchlight.machine.device import resolve_device
from patchlight.machine.fastest import resolve_precision
from patchlight.machine.process import cpu_threads, tune_process
from patchlight.models import check_model
from patchlight.progress import say
from patchlight.training.setup import build

STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # scikit-learn's C of the linear probe
NEIGHBOURS = (5, 10, 20)
TEMPERATURE = 0.07  # of the neighbours' votes (Wu et al. 2018; Caron et al. 2021, DINO, section 4.1)


def probe(config: Config) -> dict[str, Any]:
    """Features of the recipe's model for its data, and what they tell of the test images.

    Returns JSON-ready `{"model", "weights", "data", "features", "features_s", "linear": {"C", "val_top1", "top1",
    "top1_ci95", "n", "seconds"}, "knn": {"k", ...}}`. Raises PatchlightError without validation images.
    """
    if config.train.task != "classify":
        raise UsageError(
            "train.task 'reconstruct' trains no features to probe; train it, then probe a recipe with --model.name RUN"
        )
    check_model(config.model)
    device = resolve_device(config.train.device)
    tune_process(device)
    with cpu_threads(config.train.threads):
        data = load_splits(config.data, config.model.img_size)
        for note in data.notes:
            say(note)
        if data.val is None:
            raise PatchlightError("a probe is chosen by validation images, and there are none; set data.val_fraction")
        model, card = build(config, data)
        model.to(device)
        precision = resolve_precision(config.train.precision, device)
        start = time.perf_counter()
        sets = {"train": data.train, "val": data.val, "test": data.test}
        features = {
            name: pooled_features(
                model, card, images, batch_size=config.eval.batch_size, precision=precision, label=f"features of {name}"
            )
            for name, images in sets.items()
        }
        features_s = time.perf_counter() - start
        labels = {name: images.labels.numpy() for name, images in sets.items()}
        return {
            "model": card.name,
            "weights": card.source and card.source.to_json(),
            "data": config.data.source,
            "features": features["train"].shape[1],
            "features_s": features_s,
            "linear": linear_probe(features, labels),
            "knn": nearest_neighbours(features, labels),
        }


def linear_probe(features: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict[str, Any]:
    """Logistic regression on standardised features (N, D); the validation images choose its regularisation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    models = ((c, make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=3000))) for c in STRENGTHS)
    return {"C": 0.0} | _chosen("C", models, features, labels)


def nearest_neighbours(features: dict[str, np.ndarray], labels: dict[str, np.ndarray]) -> dict[str, Any]:
    """Votes of the k nearest training images by cosine; the validation images choose k."""
    from sklearn.neighbors import KNeighborsClassifier

    models = (
        (k, KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=_votes))
        for k in sorted({min(k, len(labels["train"])) for k in NEIGHBOURS})
    )
    return {"k": 0} | _chosen("k", models, features, labels)


def _votes(distances: np.ndarray) -> np.ndarray:
    """Of neighbours at cosine distances: exp(similarity / TEMPERATURE), up to a factor."""
    return np.exp(-distances / TEMPERATURE)


def _chosen(
    word: str, models: Iterable[tuple[float, Any]], features: dict[str, np.ndarray], labels: dict[str, np.ndarray]
) -> dict[str, Any]:
    """The first model that is the best on the validation images, and its score on the test images, read once."""
    start = time.perf_counter()
    best: tuple[float, float, Any] | None = None
    for value, model in models:
        model.fit(features["train"], labels["train"])
        top1 = float((model.predict(features["val"]) == labels["val"]).mean())
        if best is None or top1 > best[0]:
            best = top1, value, model
    assert best is not None
    right = int((best[2].predict(features["test"]) == labels["test"]).sum())
    n = len(labels["test"])
    return {
        word: best[1],
        "val_top1": best[0],
        "top1": right / n,
        "top1_ci95": list(wilson_interval(right, n)),
        "n": n,
        "seconds": time.perf_counter() - start,
    }
