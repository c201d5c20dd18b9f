"""From one number of each image to a table's cell: the mean, its interval, and the paired tests against the controls.

Shapes: N images, M methods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from patchlight.analysis.paired import ALPHA, FLIPS, holm, sign_flip_p
from patchlight.evaluation.metrics import wilson_interval
from patchlight.runs import MIN_IMAGES, Against, Interval

RESAMPLES = 1000
Samples = Mapping[str, Mapping[str, np.ndarray]]  # by method and measure, (N,)


def judged(
    samples: Samples, controls: Sequence[str], compared: Mapping[str, str], rates: Sequence[str] = ()
) -> tuple[dict[str, dict[str, Interval]], str | None]:
    """Of every method each measure's mean, interval and tests; and what was tested, in a sentence, None where nothing.

    `compared` holds the measures that are tested against the controls, and which side is better, "low" or "high";
    `rates` are those that are yes or no of an image.
    """
    most = max(len(values) for values in next(iter(samples.values())).values())
    intervals = {
        method: {key: interval(values, most, rate=key in rates) for key, values in measures.items()}
        for method, measures in samples.items()
    }
    methods = [method for method in samples if method not in controls]
    if most < MIN_IMAGES or not methods:
        return intervals, None
    for key, better in compared.items():
        if len(samples[methods[0]].get(key, ())) >= MIN_IMAGES:
            found = against_controls({method: samples[method][key] for method in samples}, controls, better)
            for method, against in found.items():
                intervals[method][key] = replace(intervals[method][key], against=against)
    return intervals, about_test(len(methods))


def about_test(methods: int) -> str:
    many = f", corrected for the {methods} methods by Holm" if methods > 1 else ""
    return (
        "each method against each control on the same images: a paired, two-sided permutation test of the mean "
        f"difference ({FLIPS:,} random flips of signs), at a level of {ALPHA:g} for each control and measure{many}"
    )


def against_controls(
    samples: Mapping[str, np.ndarray], controls: Sequence[str], better: str
) -> dict[str, dict[str, Against]]:
    """Of one measure, every method against every control."""
    methods = [method for method in samples if method not in controls]
    found: dict[str, dict[str, Against]] = {method: {} for method in methods}
    for control in controls:
        differences = np.stack([samples[method] - samples[control] for method in methods], axis=1)  # (N, M)
        means, p = differences.mean(axis=0), holm(sign_flip_p(differences))
        good = (p <= ALPHA) & ((means < 0) if better == "low" else (means > 0))
        for i, method in enumerate(methods):
            found[method][control] = Against(difference=float(means[i]), p=float(p[i]), better=bool(good[i]))
    return found


def interval(sample: np.ndarray, images: int | None = None, *, rate: bool = False) -> Interval:
    """The mean over images, and its 95 % interval: percentiles of 1,000 resamples (Efron and Tibshirani 1993, ch. 13).
    Of a `rate` it is Wilson's, since resamples of nothing but hits or misses would know no doubt.

    Of fewer than MIN_IMAGES there is none. `images` are those of the table, where the sample may be of fewer.
    """
    mean, count = float(sample.mean()), len(sample)
    fewer = None if images in (None, count) else count
    if count < MIN_IMAGES:
        return Interval(mean=mean, images=fewer)
    if rate:
        low, high = wilson_interval(sample.sum().item(), count)
        return Interval(mean=mean, low=low, high=high, images=fewer)
    if np.ptp(sample) == 0:
        return Interval(mean=mean, low=mean, high=mean, images=fewer)
    from scipy.stats import bootstrap  # slow to import, and only this table needs it

    ends = bootstrap((sample,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0).confidence_interval
    return Interval(mean=mean, low=float(ends.low), high=float(ends.high), images=fewer)
