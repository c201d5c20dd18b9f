"""The faithfulness table: every method on the same images, with intervals, time, and the controls beside it."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import bootstrap
from torch import Tensor

from patchlight.explanation.faithfulness import (
    FILLS,
    WAYS,
    Falls,
    infidelity,
    maps_of,
    max_sensitivity,
    pointing,
    random_removals,
    randomized,
    rank_correlation,
    removal_curve,
)
from patchlight.explanation.methods import CONTROLS, METHODS, batch_size, find_method
from patchlight.machine.device import synchronize
from patchlight.models.anatomy import Anatomy
from patchlight.progress import Progress

RESAMPLES = 1000


@dataclass(frozen=True)
class Measure:
    about: str
    better: str  # "low", "high", or "" where neither is


MEASURES: dict[str, Measure] = {
    **{f"deletion {way}": Measure(f"probability while the best patches go first ({way})", "low") for way in WAYS},
    **{f"insertion {way}": Measure(f"probability while the worst patches go first ({way})", "high") for way in WAYS},
    "positive": Measure("accuracy while the best patches go first", "low"),
    "negative": Measure("accuracy while the worst patches go first", "high"),
    "infidelity": Measure("share of the logit's falls that the map does not foretell", "low"),
    "sensitivity": Measure("greatest change of the map under slight noise", "low"),
    "randomized": Measure("rank correlation with the map of a model of chance", "low"),
    "other class": Measure("rank correlation with the map for the least likely class; 1 is blind", ""),
    "pointing": Measure("the greatest value is on the planted evidence", "high"),
}


def assess(
    anatomy: Anatomy,
    images: Tensor,
    black: Tensor,
    *,
    methods: Sequence[str] = tuple(METHODS),
    where: Tensor | None = None,
    label: str = "",
) -> dict[str, Any]:
    """Every method, and the controls, on normalised images (N, 3, h, w), for the class that the model predicts.

    `black` (3,) is the normalised value of black; `where` (N,) the patch that holds the evidence, or -1.
    Returns JSON-ready `{"n", "forward_ms", "rows": [{"method", "by_class", "ms", "ratio", "scores": {measure: {"mean",
    "low", "high"}}}]}`: milliseconds per image, their ratio to a forward pass, and bootstrap intervals of 95 %.
    """
    names = list(dict.fromkeys([*methods, *CONTROLS]))
    for name in names:
        find_method(name)
    anatomy.model.eval()
    other = randomized(anatomy)
    size = batch_size(anatomy, images)
    parts = list(zip(images.split(size), [None] * len(images) if where is None else where.split(size), strict=False))
    found: dict[str, list[dict[str, Tensor]]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in [*names, "forward"]}  # an image, batch by batch
    with Progress(len(parts) * len(names), label) as progress:
        for part, spot in parts:
            with torch.no_grad():
                logits, taken = timed(functools.partial(anatomy.logits, part), part.device)
                seconds["forward"].append(taken / len(part))
            removals = random_removals(anatomy, part, logits.argmax(dim=1), black)
            for name in names:
                row, taken = assess_batch(anatomy, other, name, part, logits.float(), black, spot, removals)
                found[name].append(row)
                seconds[name].append(taken / len(part))
                progress.advance()
                if label and progress.due():
                    progress.show(name)
    median = {name: statistics.median(times) for name, times in seconds.items()}  # the first batch is slower
    return {
        "n": len(images),
        "forward_ms": 1000 * median["forward"],
        "rows": [
            {
                "method": name,
                "by_class": METHODS[name].by_class,
                "ms": 1000 * median[name],
                "ratio": median[name] / median["forward"],
                "scores": {key: interval([row[key] for row in found[name]]) for key in found[name][0]},
            }
            for name in names
        ],
    }


def assess_batch(
    anatomy: Anatomy,
    other: Anatomy,
    name: str,
    images: Tensor,
    logits: Tensor,
    black: Tensor,
    where: Tensor | None,
    removals: Falls,
) -> tuple[dict[str, Tensor], float]:
    """Each measure (B,) of a method on a batch, and the seconds that its maps took; `other` is a model of chance."""
    method, targets, least = METHODS[name], logits.argmax(dim=1), logits.argmin(dim=1)
    maps, taken = timed(lambda: maps_of(method, anatomy, images, targets), images.device)
    scores: dict[str, Tensor] = {}
    for way in WAYS if anatomy.can_drop_patches else FILLS:
        best, worst = (
            removal_curve(anatomy, images, targets, maps, black, way=way, most_first=first) for first in (True, False)
        )
        scores |= {f"deletion {way}": best.area(), f"insertion {way}": worst.area()}
        if way == "mean":
            scores |= {"positive": best.accuracy(), "negative": worst.accuracy()}
    scores["infidelity"] = infidelity(maps, removals)
    scores["sensitivity"] = max_sensitivity(lambda noisy: maps_of(method, anatomy, noisy, targets), images, maps)
    scores["randomized"] = rank_correlation(maps, maps_of(method, other, images, targets))
    scores["other class"] = rank_correlation(maps, maps_of(method, anatomy, images, least))
    if where is not None:
        scores["pointing"] = pointing(maps, where)
    return {key: value.float().cpu() for key, value in scores.items()}, taken


def timed(work: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    """The result and its seconds; a GPU is waited for before and after."""
    synchronize(device)
    start = time.perf_counter()
    result = work()
    synchronize(device)
    return result, time.perf_counter() - start


def interval(values: Iterable[Tensor]) -> dict[str, float]:
    """Mean over images and its 95 % interval: percentiles of 1,000 resamples (Efron and Tibshirani 1993, ch. 13)."""
    sample = torch.cat(list(values)).double().numpy()
    mean = float(sample.mean())
    if np.ptp(sample) == 0:
        return {"mean": mean, "low": mean, "high": mean}
    ends = bootstrap((sample,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0).confidence_interval
    return {"mean": mean, "low": float(ends.low), "high": float(ends.high)}
