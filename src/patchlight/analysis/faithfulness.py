"""The table of faithfulness: every method on the same images, with intervals, time, and the controls beside it.

Shapes: N images, B of a batch, h w pixels.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from patchlight.config import DEFAULT_METHOD
from patchlight.data.images import ImageSet
from patchlight.data.sources.planted import MARK, SIZE, evidence
from patchlight.explanation.faithfulness import (
    FILLS,
    WAYS,
    Falls,
    infidelity,
    max_sensitivity,
    pointing,
    random_removals,
    randomized,
    rank_correlation,
    removal_curve,
)
from patchlight.explanation.methods import CONTROLS, METHODS, batch_size, find_method, maps_of
from patchlight.explanation.targets import ClassTarget
from patchlight.machine.device import synchronize
from patchlight.machine.seeds import seeded_generator
from patchlight.models import ModelCard
from patchlight.models.anatomy import Anatomy, VitAnatomy, find_vit
from patchlight.progress import Progress
from patchlight.runs import Faithfulness, Interval, MethodScores

METHOD = "chefer"  # of the quick methods that point well, the one whose maps differ most between classes
SHOWN = ("attention", DEFAULT_METHOD, METHOD)  # whose maps the page and `patchlight explain` show
RESAMPLES = 1000


@dataclass(frozen=True)
class Measure:
    """What a number says of a map."""

    about: str
    better: str  # "low", "high", or "" where neither is


MEASURES: dict[str, Measure] = {
    **{f"deletion {way}": Measure(f"probability while the best patches go first ({way})", "low") for way in WAYS},
    **{f"insertion {way}": Measure(f"probability while the worst patches go first ({way})", "high") for way in WAYS},
    "positive": Measure("accuracy while the best patches go first", "low"),
    "negative": Measure("accuracy while the worst patches go first", "high"),
    "infidelity": Measure("share of the logit's falls that the map does not predict", "low"),
    "sensitivity": Measure("greatest change of the map under slight noise", "low"),
    "randomized": Measure("rank correlation with the map of the same model with random weights", "low"),
    "other class": Measure("rank correlation with the map for the least likely class; 1 is blind", ""),
    "pointing": Measure("the greatest value is on the planted evidence", "high"),
}


def measure_faithfulness(
    model: nn.Module,
    card: ModelCard,
    images: ImageSet,
    source: str,
    *,
    methods: Sequence[str] = SHOWN,
    count: int = 500,
    label: str = "",
) -> Faithfulness | None:
    """`assess` of the methods on `count` test images of `source`, drawn by a fixed seed; None for a model without
    attention. Of planted images the patch that decides is known, and "pointing" is measured where one patch holds it.
    """
    anatomy = find_vit(model, card.img_size)
    if anatomy is None:
        return None
    chosen = torch.randperm(len(images), generator=seeded_generator(0, "faithfulness"))[:count].sort().values
    pixels, _ = images.gather(chosen)
    inputs = card.to_input(pixels.to(next(model.parameters()).device))
    where = None
    # At another size, or in smaller patches, a mark would lie on several.
    whole = {card.img_size, *images.image_size} == {SIZE} and min(anatomy.patch_size) >= MARK
    if source == "planted" and whole:
        rows = chosen if images.rows is None else images.rows[chosen]
        where = torch.from_numpy(evidence("test", anatomy.patch_size))[rows].to(inputs.device)
    table = assess(anatomy, inputs, card.black.to(inputs), methods=methods, where=where, label=label)
    return replace(table, data=source)


def assess(
    anatomy: Anatomy,
    images: Tensor,
    black: Tensor,
    *,
    methods: Sequence[str] = tuple(METHODS),
    where: Tensor | None = None,
    label: str = "",
) -> Faithfulness:
    """Every method, and the controls, on normalised images (N, 3, h, w), for the class that the model predicts.

    `black` (3,) is the normalised value of black; `where` (N,) the patch that holds the evidence, or -1. A `label`
    shows progress. Raises UsageError for an unknown method.
    """
    names = list(dict.fromkeys([*methods, *CONTROLS]))
    for name in names:
        find_method(name)
    anatomy.model.eval()
    other = randomized(anatomy)
    size = batch_size(anatomy, images)
    batches = list(zip(images.split(size), [None] * len(images) if where is None else where.split(size), strict=False))
    scores: dict[str, list[dict[str, Tensor]]] = {name: [] for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in [*names, "forward"]}  # an image, batch by batch
    with Progress(len(batches) * len(names), label) as progress:
        for batch, patches in batches:
            with torch.no_grad():
                logits, taken = timed(functools.partial(anatomy.logits, batch), batch.device)
                seconds["forward"].append(taken / len(batch))
            removals = random_removals(anatomy, batch, ClassTarget(logits.argmax(dim=1)), black)
            for name in names:
                row, taken = assess_batch(anatomy, other, name, batch, logits.float(), black, patches, removals)
                scores[name].append(row)
                seconds[name].append(taken / len(batch))
                progress.advance()
                if label and progress.due():
                    progress.show(name)
    median = {name: statistics.median(times) for name, times in seconds.items()}  # the first batch is slower
    rows = [
        MethodScores(
            method=name,
            by_class=METHODS[name].by_class,
            ms=1000 * median[name],
            ratio=median[name] / median["forward"],
            scores={key: interval([row[key] for row in scores[name]]) for key in scores[name][0]},
        )
        for name in names
    ]
    return Faithfulness(n=len(images), forward_ms=1000 * median["forward"], rows=tuple(rows))


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
    """Each measure (B,) of a method on a batch, and the seconds that its maps took; `other` has random weights."""
    method, targets, least = METHODS[name], ClassTarget(logits.argmax(dim=1)), ClassTarget(logits.argmin(dim=1))
    maps, taken = timed(lambda: maps_of(method, anatomy, images, targets), images.device)
    scores: dict[str, Tensor] = {}
    for way in WAYS if isinstance(anatomy, VitAnatomy) and anatomy.can_drop_patches else FILLS:
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


def interval(values: Iterable[Tensor]) -> Interval:
    """Mean over images and its 95 % interval: percentiles of 1,000 resamples (Efron and Tibshirani 1993, ch. 13)."""
    sample = torch.cat(list(values)).double().numpy()
    mean = float(sample.mean())
    if np.ptp(sample) == 0:
        return Interval(mean=mean, low=mean, high=mean)
    from scipy.stats import bootstrap  # slow to import, and only this table needs it

    ends = bootstrap((sample,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=0).confidence_interval
    return Interval(mean=mean, low=float(ends.low), high=float(ends.high))
