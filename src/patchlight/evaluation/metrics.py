"""What a test result is made of: accuracy and its interval, the confusion matrix, and calibration.

Pure functions of NumPy arrays. Rates are in 0..1. What has no value (the accuracy of a class without images) is nan in
an array and None in the record, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patchlight.runs import ClassScores, Metrics, Mistake, Reliability

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Z95 = 1.959963984540054  # the normal quantile of a two-sided 95 % interval
MISTAKES_KEPT = 24


def softmax(logits: ArrayLike) -> Floats:
    """Probabilities (N, K) of logits (N, K); every row sums to 1. Large logits do not overflow."""
    x = np.asarray(logits, dtype=np.float64)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def topk_accuracy(logits: ArrayLike, labels: ArrayLike, k: int = 1) -> float:
    """Share of the N images whose label (N,) is among the k largest of its logits (N, K).

    Among equal logits the lower class wins, as with argmax, so a model that gives all classes the same logit is not
    counted right. Raises ValueError where k is not in 1..K or the shapes do not fit.
    """
    x, y = _checked(logits, labels)
    if not 1 <= k <= x.shape[1]:
        raise ValueError(f"k must be in 1..{x.shape[1]}, not {k}")
    own = x[np.arange(len(y)), y][:, None]
    before = np.arange(x.shape[1])[None, :] < y[:, None]
    rank = (x > own).sum(axis=1) + ((x == own) & before).sum(axis=1)
    return float((rank < k).mean())


def cross_entropy(logits: ArrayLike, labels: ArrayLike, smoothing: float = 0.0) -> float:
    """Mean of -log p(label) in nats; logits (N, K), labels (N,). Stays finite for logits of any finite size.

    `smoothing`, 0..1, is the share of each label that is spread evenly over all classes (Szegedy et al. 2016, section
    7), as in torch's cross_entropy.
    """
    x, y = _checked(logits, labels)
    shifted = x - x.max(axis=1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(axis=1, keepdims=True)) - shifted  # of every class, were it the label
    own = losses[np.arange(len(y)), y]
    return float(((1 - smoothing) * own + smoothing * losses.mean(axis=1)).mean())


def confusion_matrix(labels: ArrayLike, preds: ArrayLike, num_classes: int) -> Ints:
    """Counts (K, K): row i, column j holds the images of class i that were taken for class j.

    Raises ValueError where labels (N,) and preds (N,) differ in length or hold a class outside 0..K-1.
    """
    y, p = np.asarray(labels, dtype=np.int64), np.asarray(preds, dtype=np.int64)
    if y.ndim != 1 or y.shape != p.shape:
        raise ValueError(f"labels and preds must be two lists of one length, not {y.shape} and {p.shape}")
    if y.size and (min(y.min(), p.min()) < 0 or max(y.max(), p.max()) >= num_classes):
        raise ValueError(f"labels and preds must be in 0..{num_classes - 1}")
    return np.bincount(y * num_classes + p, minlength=num_classes**2).reshape(num_classes, num_classes)


def per_class_accuracy(confusion: ArrayLike) -> Floats:
    """Recall of each class, (K,), from counts (K, K); nan for a class without images."""
    c = np.asarray(confusion, dtype=np.float64)
    n = c.sum(axis=1)
    return np.divide(np.diag(c), n, out=np.full(len(c), np.nan), where=n > 0)


def precision_recall_f1(confusion: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Precision, recall and F1 of each class, (K,) each, from counts (K, K): scikit-learn's with `zero_division=0`.

    So the precision of a class that is never predicted is 0, and so is the recall of one that has no images and is
    predicted all the same. nan for a class of which there is neither.
    """
    c = np.asarray(confusion, dtype=np.float64)
    right, images, taken = np.diag(c), c.sum(axis=1), c.sum(axis=0)
    start = np.where(images + taken > 0, 0.0, np.nan)
    precision = np.divide(right, taken, out=start.copy(), where=taken > 0)
    recall = np.divide(right, images, out=start.copy(), where=images > 0)
    f1 = np.divide(2 * right, images + taken, out=start.copy(), where=images + taken > 0)
    return precision, recall, f1


def macro_average(values: ArrayLike) -> float:
    """The plain mean over the classes (K,) that have a value: over those with images or predictions, of scores by
    `precision_recall_f1`, as scikit-learn's average="macro". nan where none has one.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else float("nan")


def balanced_accuracy(confusion: ArrayLike) -> float:
    """Mean accuracy of the classes that have images, from counts (K, K); nan for no images.

    As scikit-learn's `balanced_accuracy_score`.
    """
    return macro_average(per_class_accuracy(confusion))


def wilson_interval(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson 1927), by default at 95 %; (0, 1) for n = 0.

    Unlike the textbook p +- z*sqrt(p(1-p)/n) it stays inside 0..1 and has a width at p = 0 and p = 1.
    Raises ValueError unless 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in 0..{n}, not {successes}")
    if n == 0:
        return 0.0, 1.0
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    # At the ends the bound is exactly 0 or 1; rounding must not leave 0.9999999.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def reliability(confidences: ArrayLike, correct: ArrayLike, bins: int = 15) -> dict[str, NDArray[Any]]:
    """How often the model was right, by how sure it was (Guo et al. 2017, "On Calibration of Modern Neural Networks").

    confidences (N,) in 0..1, correct (N,) of 0 or 1. Returns `edges` (bins + 1,) of equal-width bins that hold their
    upper edge, and by bin (bins,) the mean `confidence`, the `accuracy` (both nan in an empty bin) and the `count`.
    Raises ValueError where the lengths differ or a confidence is outside 0..1.
    """
    conf, right = np.asarray(confidences, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if conf.ndim != 1 or conf.shape != right.shape:
        raise ValueError(f"confidences and correct must be two lists of one length, not {conf.shape} and {right.shape}")
    if not np.all((conf >= 0) & (conf <= 1)):
        raise ValueError("confidences must be in 0..1")
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.maximum(np.searchsorted(edges, conf, side="left") - 1, 0)
    count = np.bincount(bin_of, minlength=bins)
    nan = np.full(bins, np.nan)
    sums = (np.bincount(bin_of, weights=values, minlength=bins) for values in (conf, right))
    confidence, accuracy = (np.divide(s, count, out=nan.copy(), where=count > 0) for s in sums)
    return {"edges": edges, "confidence": confidence, "accuracy": accuracy, "count": count}


def expected_calibration_error(confidences: ArrayLike, correct: ArrayLike, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over the bins of `reliability`, weighted by count; 0 is perfect.

    0..1; nan for no images. Guo et al. 2017, equation 3, with equal-width bins.
    """
    table = reliability(confidences, correct, bins)
    total = table["count"].sum()
    gaps = np.abs(table["accuracy"] - table["confidence"]) * table["count"]
    return float(np.nansum(gaps) / total) if total else float("nan")


def classification_metrics(logits: ArrayLike, labels: ArrayLike, class_names: Sequence[str]) -> Metrics:
    """Everything that `eval.json` says about a set of images.

    logits (N, K), labels (N,) in 0..K-1, K class names. `top5` is top-min(5, K); `per_class` is None for a class
    without images; `mistakes` are the wrong predictions of the highest confidence, in that order.
    Raises ValueError for no images, a shape that does not fit, logits that are not finite, or a repeated class name.
    """
    x, y = _checked(logits, labels)
    names = list(class_names)
    if len(names) != x.shape[1] or len(set(names)) != len(names):
        raise ValueError(f"class_names must be {x.shape[1]} different names, one for each logit; got {len(names)}")
    probs = softmax(x)
    preds, confidence = x.argmax(axis=1), probs.max(axis=1)
    right = preds == y
    confusion, bins = confusion_matrix(y, preds, len(names)), reliability(confidence, right)
    return Metrics(
        n=len(y),
        loss=cross_entropy(x, y),
        top1=float(right.mean()),
        top1_ci95=wilson_interval(int(right.sum()), len(y)),
        top5=topk_accuracy(x, y, min(5, len(names))),
        **_by_class(confusion, names),
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        ece=expected_calibration_error(confidence, right),
        reliability=Reliability(
            edges=_without_nan(bins["edges"]),
            confidence=_without_nan(bins["confidence"]),
            accuracy=_without_nan(bins["accuracy"]),
            count=_without_nan(bins["count"]),
        ),
        mistakes=_mistakes(y, preds, confidence),
    )


def _by_class(confusion: Ints, names: Sequence[str]) -> dict[str, Any]:
    """The fields of Metrics that are scores of classes, or means of such."""
    columns = precision_recall_f1(confusion)
    precision, _, f1 = map(_without_nan, columns)
    recall = _without_nan(per_class_accuracy(confusion))
    rows = zip(precision, recall, f1, strict=True)
    mean = [macro_average(column) for column in columns]
    return {
        "per_class": dict(zip(names, recall, strict=True)),
        "scores": {name: ClassScores(precision=p, recall=r, f1=f) for name, (p, r, f) in zip(names, rows, strict=True)},
        "macro": ClassScores(precision=mean[0], recall=mean[1], f1=mean[2]),
        "balanced_accuracy": balanced_accuracy(confusion),
    }


def _mistakes(labels: Ints, preds: Ints, confidence: Floats) -> tuple[Mistake, ...]:
    wrong = np.flatnonzero(labels != preds)
    # A stable sort: of two with the same confidence, the one that comes first in the set.
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES_KEPT]
    return tuple(
        Mistake(index=int(i), label=int(labels[i]), pred=int(preds[i]), confidence=float(confidence[i])) for i in surest
    )


def _without_nan(values: NDArray[Any]) -> tuple[Any, ...]:
    """An array (N,) as Python's numbers, with None for nan."""
    return tuple(None if value != value else value for value in values.tolist())


def _checked(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, Ints]:
    """Logits (N, K) and labels (N,) as arrays. Raises ValueError where they are not such."""
    x, y = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    if x.ndim != 2 or x.shape[1] == 0 or y.shape != x.shape[:1]:
        raise ValueError(f"logits must be (N, K) and labels (N,), not {x.shape} and {y.shape}")
    if not len(y):
        raise ValueError("there are no images to measure")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= x.shape[1]:
        raise ValueError(f"labels must be whole numbers in 0..{x.shape[1] - 1}")
    if not np.isfinite(x).all():
        raise ValueError("the logits hold nan or infinite values; the model has diverged")
    return x, y.astype(np.int64)
