"""The metrics against scikit-learn and SciPy, and against cases worked by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.special import softmax as scipy_softmax
from scipy.stats import binomtest
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    log_loss,
    precision_recall_fscore_support,
    recall_score,
    top_k_accuracy_score,
)
from sklearn.metrics import confusion_matrix as sk_confusion

from patchlight.evaluation import metrics


@pytest.fixture(params=[(1, 3), (50, 2), (400, 10), (700, 100)], ids=lambda p: f"n{p[0]}-k{p[1]}")
def result(request):
    n, k = request.param
    rng = np.random.default_rng(n + k)
    labels = rng.integers(0, k, n)
    logits = rng.normal(size=(n, k)) * 2
    logits[np.arange(n), labels] += 2
    return logits, labels, k


def test_agrees_with_sklearn(result):
    logits, labels, k = result
    preds = logits.argmax(1)
    every = np.arange(k)
    assert np.allclose(metrics.softmax(logits), scipy_softmax(logits, axis=1))
    assert metrics.topk_accuracy(logits, labels, 1) == pytest.approx(accuracy_score(labels, preds))
    assert metrics.cross_entropy(logits, labels) == pytest.approx(
        log_loss(labels, scipy_softmax(logits, 1), labels=every)
    )
    confusion = metrics.confusion_matrix(labels, preds, k)
    assert np.array_equal(confusion, sk_confusion(labels, preds, labels=every))
    recall = recall_score(labels, preds, labels=every, average=None, zero_division=np.nan)
    assert np.allclose(metrics.per_class_accuracy(confusion), recall, equal_nan=True)
    if k > 2:  # for two classes scikit-learn wants another shape
        for top in range(1, k):
            expected = top_k_accuracy_score(labels, logits, k=top, labels=every)
            assert metrics.topk_accuracy(logits, labels, top) == pytest.approx(expected)
    assert metrics.topk_accuracy(logits, labels, k) == 1


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_scores_of_classes_are_sklearns(result):
    """With `zero_division=0`; of classes without images or predictions, too."""
    logits, labels, k = result
    preds, names = logits.argmax(1), [f"class {i}" for i in range(k)]
    found = metrics.classification_metrics(logits, labels, names)
    theirs = precision_recall_fscore_support(labels, preds, labels=range(k), zero_division=0)
    occurs = np.isin(np.arange(k), [*labels, *preds])
    ours = metrics.precision_recall_f1(found.confusion)
    for column, expected in zip(ours, theirs[:3], strict=True):
        np.testing.assert_allclose(column[occurs], expected[occurs])
        assert np.isnan(column[~occurs]).all()
    assert found.scores is not None
    assert list(found.scores) == names
    for i, own in enumerate(found.scores.values()):
        columns = (own.precision, None if i not in labels else own.recall, own.f1)
        expected = (theirs[0][i], theirs[1][i] if i in labels else None, theirs[2][i]) if occurs[i] else (None,) * 3
        assert columns == pytest.approx(expected)
        assert own.recall == found.per_class[names[i]]
    macro = precision_recall_fscore_support(labels, preds, average="macro", zero_division=0)
    assert found.macro is not None
    assert (found.macro.precision, found.macro.recall, found.macro.f1) == pytest.approx(macro[:3])
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, preds))


def test_scores_of_classes_by_hand():
    """Class 1 is never predicted, 2 has no images and is predicted once, 3 does not occur."""
    confusion = [[3, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    precision, recall, f1 = metrics.precision_recall_f1(confusion)
    np.testing.assert_allclose(precision, [3 / 5, 0, 0, np.nan])
    np.testing.assert_allclose(recall, [3 / 4, 0, 0, np.nan])
    np.testing.assert_allclose(f1, [6 / 9, 0, 0, np.nan])
    assert metrics.macro_average(recall) == pytest.approx(0.25)
    assert metrics.balanced_accuracy(confusion) == pytest.approx(0.375)
    assert np.isnan(metrics.balanced_accuracy(np.zeros((2, 2))))


def test_large_logits_overflow_nowhere():
    logits = np.array([[1e4, 0.0], [0.0, -1e4]])
    assert np.array_equal(metrics.softmax(logits), [[1, 0], [1, 0]])
    assert metrics.cross_entropy(logits, [0, 1]) == pytest.approx(5000)
    assert np.allclose(metrics.softmax(np.float32([[1, 2]])).sum(), 1)


def test_equal_logits_are_no_knowledge():
    logits = np.zeros((10, 10))
    labels = np.arange(10)
    assert metrics.topk_accuracy(logits, labels, 1) == pytest.approx(0.1)
    assert metrics.topk_accuracy(logits, labels, 5) == pytest.approx(0.5)


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 40), (40, 40), (7, 9), (352, 360), (9812, 10000)])
def test_wilson_is_scipys(successes, n):
    expected = binomtest(successes, n).proportion_ci(confidence_level=0.95, method="wilson")
    assert metrics.wilson_interval(successes, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_without_trials_knows_nothing():
    assert metrics.wilson_interval(0, 0) == (0, 1)
    with pytest.raises(ValueError, match=r"0\.\.3"):
        metrics.wilson_interval(4, 3)


def test_reliability_by_hand():
    # Two bins: (0, 0.5] holds 0.5 and 0.3, (0.5, 1] holds 0.9 and 0.7.
    table = metrics.reliability([0.5, 0.3, 0.9, 0.7], [1, 0, 1, 0], bins=2)
    assert table["edges"].tolist() == [0, 0.5, 1]
    assert table["count"].tolist() == [2, 2]
    assert table["confidence"] == pytest.approx([0.4, 0.8])
    assert table["accuracy"] == pytest.approx([0.5, 0.5])
    # (2 * |0.5 - 0.4| + 2 * |0.5 - 0.8|) / 4
    assert metrics.expected_calibration_error([0.5, 0.3, 0.9, 0.7], [1, 0, 1, 0], bins=2) == pytest.approx(0.2)


def test_calibration_extremes():
    assert metrics.expected_calibration_error([1.0] * 5, [True] * 5) == 0
    assert metrics.expected_calibration_error([1.0] * 5, [False] * 5) == 1
    assert metrics.expected_calibration_error([0.75] * 4, [1, 1, 1, 0]) == pytest.approx(0)
    assert np.isnan(metrics.expected_calibration_error([], []))
    table = metrics.reliability([0.0, 1.0], [0, 1], bins=10)
    assert table["count"].tolist() == [1, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert np.isnan(table["accuracy"][1:9]).all()


def test_a_bin_holds_its_upper_edge():
    edges = np.linspace(0, 1, 16)
    assert metrics.reliability(edges[1:], np.ones(15))["count"].tolist() == [1] * 15


def test_classification_metrics_is_json_and_complete(result):
    logits, labels, k = result
    names = [f"class {i}" for i in range(k)]
    out = json.loads(json.dumps(metrics.classification_metrics(logits, labels, names).to_json(), allow_nan=False))
    preds = logits.argmax(1)
    assert list(out) == [
        *("n", "loss", "top1", "top1_ci95", "top5", "balanced_accuracy", "macro", "per_class", "scores"),
        *("confusion", "ece", "reliability", "mistakes"),
    ]
    assert out["n"] == len(labels)
    assert list(out["per_class"]) == names
    assert out["top1_ci95"][0] <= out["top1"] <= out["top1_ci95"][1]
    assert out["top5"] == metrics.topk_accuracy(logits, labels, min(5, k))
    assert np.sum(out["confusion"]) == len(labels)
    for i, name in enumerate(names):
        assert (out["per_class"][name] is None) == (i not in labels)
    wrong = np.flatnonzero(preds != labels)
    assert len(out["mistakes"]) == min(24, len(wrong))
    assert {m["index"] for m in out["mistakes"]} <= set(wrong.tolist())
    assert all(preds[m["index"]] == m["pred"] and labels[m["index"]] == m["label"] for m in out["mistakes"])
    sure = [m["confidence"] for m in out["mistakes"]]
    assert sure == sorted(sure, reverse=True)
    if sure:
        assert sure[0] == pytest.approx(metrics.softmax(logits).max(1)[wrong].max())


def test_one_class_is_a_result_too():
    out = metrics.classification_metrics(np.zeros((3, 1)), [0, 0, 0], ["only"])
    assert (out.top1, out.top5, out.loss, out.ece) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("logits", "labels", "names", "words"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "abc", "no images"),
        (np.zeros((2, 3)), [0], "abc", "must be"),
        (np.zeros((2, 3)), [0, 3], "abc", r"0\.\.2"),
        (np.zeros((2, 3)), [0.0, 1.0], "abc", "whole numbers"),
        (np.full((2, 3), np.nan), [0, 1], "abc", "diverged"),
        (np.zeros((2, 3)), [0, 1], "ab", "3 different names"),
        (np.zeros((2, 3)), [0, 1], "aba", "3 different names"),
    ],
)
def test_what_does_not_fit_is_refused(logits, labels, names, words):
    with pytest.raises(ValueError, match=words):
        metrics.classification_metrics(logits, labels, list(names))


def test_more_refusals():
    with pytest.raises(ValueError, match=r"1\.\.3"):
        metrics.topk_accuracy(np.zeros((2, 3)), [0, 1], 4)
    with pytest.raises(ValueError, match="one length"):
        metrics.confusion_matrix([0, 1], [0], 2)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        metrics.confusion_matrix([0, 1], [0, 2], 2)
    with pytest.raises(ValueError, match="one length"):
        metrics.reliability([0.5], [1, 0])
    with pytest.raises(ValueError, match=r"0\.\.1"):
        metrics.reliability([1.5], [1])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_cross_entropy_is_torchs(smoothing):
    rng = np.random.default_rng(3)
    logits, labels = rng.normal(scale=20, size=(40, 7)), rng.integers(0, 7, 40)
    theirs = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits), torch.from_numpy(labels), label_smoothing=smoothing
    )
    assert metrics.cross_entropy(logits, labels, smoothing) == pytest.approx(theirs.item(), rel=1e-12)
