"""`patchlight probe`: how good a model's features are, without training it: a linear probe and nearest neighbours.

Each image is seen once, without augmentation; what is fitted is scikit-learn's. The validation images choose.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from patchlight.config import Config
from patchlight.data.splits import load_splits
from patchlight.errors import PatchlightError, UsageError
from patchlight.evaluation.evaluate import choose_precision
from patchlight.evaluation.features import pooled_features
from patchlight.evaluation.metrics import wilson_interval
from patchlight.machine.device import resolve_device
from patchlight.machine.process import cpu_threads, tune_process
from patchlight.models import check_model, own_input, pin_checkpoints, with_own_input
from patchlight.progress import say
from patchlight.runs import Weights, recipe_of
from patchlight.runs.codec import Record
from patchlight.training.setup import build

STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # scikit-learn's C of the linear probe
NEIGHBOURS = (5, 10, 20)
TEMPERATURE = 0.07  # of the neighbours' votes (Wu et al. 2018; Caron et al. 2021, DINO, section 4.1)

Arrays = Mapping[str, np.ndarray]  # of the splits train, val and test


@dataclass(frozen=True, kw_only=True)
class ProbeScore(Record):
    """The accuracy of the fit that was the best on the validation images."""

    val_top1: float
    top1: float  # on the test images
    top1_ci95: tuple[float, float]
    n: int  # test images
    seconds: float  # for all fits


@dataclass(frozen=True, kw_only=True)
class LinearScore(ProbeScore):
    """Of a linear probe."""

    c: float = field(metadata={"key": "C"})  # inverse strength of the regularisation


@dataclass(frozen=True, kw_only=True)
class NeighboursScore(ProbeScore):
    """Of nearest neighbours."""

    k: int  # how many vote


@dataclass(frozen=True, kw_only=True)
class ProbeResult(Record):
    """What a model's features say about the test images."""

    model: str
    weights: Weights | None  # None: random weights
    data: str
    features: int  # numbers for an image
    features_s: float  # seconds to compute those of all images
    linear: LinearScore
    knn: NeighboursScore


def probe(recipe: str | Config, settings: Mapping[str, Any] | None = None) -> ProbeResult:
    """Measure the features of a recipe's model for its data, with settings such as {"model.name": "runs/mine"}.

    Raises UsageError for a recipe that is wrong or has no classifier, and PatchlightError without validation images.
    """
    config = pin_checkpoints(recipe_of(recipe, settings))
    if config.train.task != "classify":
        raise UsageError(
            "train.task 'reconstruct' trains no features to probe; train it, then probe a recipe with --model.name RUN"
        )
    check_model(config.model)
    config = with_own_input(config, own_input(config.model))
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
        precision = choose_precision(config.train.precision, device)
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
        return ProbeResult(
            model=card.name,
            weights=card.source,
            data=config.data.source,
            features=features["train"].shape[1],
            features_s=features_s,
            linear=linear_probe(features, labels),
            knn=nearest_neighbours(features, labels),
        )


def linear_probe(features: Arrays, labels: Arrays) -> LinearScore:
    """Logistic regression on standardised features (N, D); the validation images choose its regularisation."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fits = ((c, make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=3000))) for c in STRENGTHS)
    c, score = best_fit(fits, features, labels)
    return LinearScore(**vars(score), c=c)


def nearest_neighbours(features: Arrays, labels: Arrays) -> NeighboursScore:
    """Votes of the k nearest training images by cosine distance of features (N, D); the validation images choose k."""
    from sklearn.neighbors import KNeighborsClassifier

    fits = (
        (k, KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=vote_weights))
        for k in sorted({min(k, len(labels["train"])) for k in NEIGHBOURS})
    )
    k, score = best_fit(fits, features, labels)
    return NeighboursScore(**vars(score), k=int(k))


def vote_weights(distances: np.ndarray) -> np.ndarray:
    """Of neighbours at cosine distances of any shape: exp(similarity / TEMPERATURE), up to a factor."""
    return np.exp(-distances / TEMPERATURE)


def best_fit(fits: Iterable[tuple[float, Any]], features: Arrays, labels: Arrays) -> tuple[float, ProbeScore]:
    """The value of the first classifier that is the best on the validation images, and its score.

    `fits` are pairs of a value and a classifier of scikit-learn. The test images are read once, for the best one.
    """
    start = time.perf_counter()
    best: tuple[float, float, Any] | None = None
    for value, classifier in fits:
        classifier.fit(features["train"], labels["train"])
        top1 = float((classifier.predict(features["val"]) == labels["val"]).mean())
        if best is None or top1 > best[0]:
            best = top1, value, classifier
    assert best is not None
    val_top1, value, classifier = best
    right = int((classifier.predict(features["test"]) == labels["test"]).sum())
    n = len(labels["test"])
    score = ProbeScore(
        val_top1=val_top1,
        top1=right / n,
        top1_ci95=wilson_interval(right, n),
        n=n,
        seconds=time.perf_counter() - start,
    )
    return value, score
