"""The table of faithfulness: every method on the same images, with intervals, time, and the controls beside it.

Shapes: N images, B of a batch, (h, w) pixels, M methods.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from patchlight.analysis.scores import judged
from patchlight.config import DEFAULT_METHOD
from patchlight.data.images import ImageSet
from patchlight.data.sources.planted import MARK, SIZE, evidence
from patchlight.errors import PatchlightError
from patchlight.explanation.capture import as_found
from patchlight.explanation.cells import batch_size
from patchlight.explanation.faithfulness import (
    Falls,
    infidelity,
    max_sensitivity,
    pointing,
    random_removals,
    randomized,
    rank_correlation,
)
from patchlight.explanation.inputs import check_weights, first_pass
from patchlight.explanation.methods import (
    CONTROLS,
    DEFAULT_ELSEWHERE,
    Method,
    check_applies,
    find_call,
    maps_of,
    methods_for,
)
from patchlight.explanation.options import call_text
from patchlight.explanation.removal import TOKENS, WAYS, removal_curve, ways_for
from patchlight.explanation.targets import ClassTarget, Target, resolve_target
from patchlight.machine.device import synchronize
from patchlight.machine.seeds import seeded_generator
from patchlight.models import ModelCard
from patchlight.models.anatomy import Anatomy, dissect
from patchlight.progress import Progress
from patchlight.runs import Faithfulness, MethodScores

SHOWN = ("attention", "scaled-rollout", DEFAULT_METHOD)  # quick ones, which a training measures for its page
QUICK = ("mean", TOKENS)  # ways to take patches away that tell most, where maps are drawn to be looked at


@dataclass(frozen=True)
class Measure:
    """What a number says of a map."""

    about: str
    better: str  # "low", "high", "near 0", or "" where none is
    compared: bool = True  # False: a control, which is no explanation, may well be best
    rate: bool = False  # of an image yes or no


MEASURES: dict[str, Measure] = {
    **{f"deletion {way}": Measure(f"probability while the best patches go first ({way})", "low") for way in WAYS},
    **{f"insertion {way}": Measure(f"probability while the worst patches go first ({way})", "high") for way in WAYS},
    "positive": Measure("accuracy while the best patches go first", "low"),
    "negative": Measure("accuracy while the worst patches go first", "high"),
    "infidelity": Measure("share of the score's falls that the map does not predict", "low"),
    "sensitivity": Measure("greatest change of the map under slight noise", "low", compared=False),
    "randomized": Measure(
        "rank correlation with the map of the same model with random weights", "near 0", compared=False
    ),
    "other class": Measure("rank correlation with the map for the least likely other class; 1 is blind", ""),
    "pointing": Measure("the greatest value is on the planted evidence", "high", rate=True),
}
# Those in which a method is tested against the controls, with the side that is better.
COMPARED = {key: measure.better for key, measure in MEASURES.items() if measure.better and measure.compared}
RATES = tuple(key for key, measure in MEASURES.items() if measure.rate)


@dataclass(frozen=True)
class Call:
    """A row of the table: a method with options."""

    name: str
    method: Method
    options: Mapping[str, Any]

    @property
    def text(self) -> str:
        return call_text(self.name, self.options)

    def maps(self, anatomy: Anatomy, images: Tensor, target: Target) -> Tensor:
        """(B, r, c)."""
        return maps_of(self.method, anatomy, images, target, **self.options)


@dataclass(frozen=True)
class Batch:
    """Some of the images, and what is asked of every method's maps of them."""

    images: Tensor
    target: Target
    other: Target | None  # the least likely other class; None where there is none
    where: Tensor | None  # (B,) the patch that holds the evidence, or -1
    removals: Falls


def measure_faithfulness(
    model: nn.Module,
    card: ModelCard,
    images: ImageSet,
    source: str,
    *,
    methods: Sequence[str] | None = None,
    count: int = 500,
    label: str = "",
    target: int | None = None,
    ways: Sequence[str] = WAYS,
) -> Faithfulness | None:
    """`assess` of the methods, by `ways`, on `count` test images of `source`, drawn by a fixed seed. Without `methods`
    they are those of SHOWN that the network has, else DEFAULT_ELSEWHERE. `target` is a class for all images; None is
    the predicted one.

    None for what cannot be measured: a network that gives no classes, or that sees an image as one patch, of which no
    part can be compared with another. Of planted images the patch that decides is known, and "pointing" is measured of
    those that show the target, where one patch holds the mark.
    """
    anatomy = classifier_of(model)
    if anatomy is None:
        return None
    chosen = torch.randperm(len(images), generator=seeded_generator(0, "faithfulness"))[:count].sort().values
    pixels, labels = images.gather(chosen)
    inputs = card.to_input(pixels.to(next(model.parameters()).device))
    rows, columns = anatomy.grid(inputs)
    if rows * columns < 2:
        return None
    where = None
    if source == "planted" and {card.img_size, *images.image_size} == {SIZE}:
        places = chosen if images.rows is None else images.rows[chosen]
        where = evidence_in((rows, columns), places)
    if where is not None and target is not None:
        where = torch.where(labels == target, where, -1)
    table = assess(
        anatomy,
        inputs,
        card.black.to(inputs),
        methods=default_methods(anatomy) if methods is None else methods,
        where=None if where is None else where.to(inputs.device),
        label=label,
        target=None if target is None else ClassTarget(torch.full((len(inputs),), target, device=inputs.device)),
        about="" if target is None else f"the class '{card.class_names[target]}'",
        ways=ways,
    )
    return replace(table, data=source)


def classifier_of(model: nn.Module) -> Anatomy | None:
    """None for a network that gives no classes."""
    try:
        anatomy = dissect(model)
    except PatchlightError:
        return None
    return anatomy if anatomy.has_head else None


def evidence_in(grid: tuple[int, int], places: Tensor) -> Tensor | None:
    """The cell (N,) that holds the mark of each of planted's test images `places`, or -1; None where marks, as of cells
    that are smaller, lie on several.
    """
    if any(SIZE % side or SIZE // side < MARK for side in grid):
        return None
    return torch.from_numpy(evidence("test", (SIZE // grid[0], SIZE // grid[1])))[places]


def default_methods(anatomy: Anatomy) -> list[str]:
    """Those of SHOWN that the network has, or the one that every network has."""
    known = methods_for(anatomy)
    return [name for name in SHOWN if name in known] or [DEFAULT_ELSEWHERE]


def calls_of(anatomy: Anatomy, methods: Sequence[str]) -> list[Call]:
    """Rows of the table, each once, the controls last. Raises UsageError for unknown methods and options, and
    PatchlightError for a method that reads attention, of a network that has none that can be seen.
    """
    calls: dict[str, Call] = {}
    for word in [*methods, *CONTROLS]:
        name, method, options = find_call(word)
        check_applies(name, anatomy)
        call = Call(name, method, options)
        calls[call.text] = call
    return sorted(calls.values(), key=lambda call: call.name in CONTROLS)


def assess(
    anatomy: Anatomy,
    images: Tensor,
    black: Tensor,
    *,
    methods: Sequence[str] | None = None,
    where: Tensor | None = None,
    label: str = "",
    target: Target | None = None,
    about: str = "",
    ways: Sequence[str] = WAYS,
) -> Faithfulness:
    """Every method, and the controls, on normalised images (N, 3, h, w), for one target of each.

    `methods` are rows of METHODS, with options as "rollout:heads=max"; None is all that the network has. `black` (3,)
    is the normalised value of black; `where` (N,) the patch that holds the evidence, or -1. `target` is None for the
    predicted class; `about` says in a few words what another one is. `ways` are those in which patches are taken away,
    as far as the network has them. A `label` shows progress. Of a target that is no class nothing is measured that
    counts right answers or asks for another class.

    There are two curves for each of the five ways, of `removal_counts` forward passes, so that a method takes 170 of
    each image of up to 64 patches and 190 of one of 196, those of its maps not counted.

    Raises UsageError for an unknown method, and PatchlightError for a network that does not take these images or sees
    each as one patch, and for maps that are not finite.
    """
    calls = calls_of(anatomy, methods_for(anatomy) if methods is None else methods)
    check_weights(anatomy.model)
    scores: dict[str, list[dict[str, Tensor]]] = {call.text: [] for call in calls}
    seconds: dict[str, list[float]] = {key: [] for key in [*scores, "forward"]}  # an image, batch by batch
    with as_found(anatomy.model):
        images = images.clone() if images.is_inference() else images
        size = batch_size(anatomy, images)
        outputs = first_pass(anatomy, images, size)
        goal = resolve_target("predicted" if target is None else target, outputs, anatomy.has_head)
        for call in calls:  # what is wrong with the last is said before the first is measured
            call.maps(anatomy, images[:1], goal.take(slice(1)))
        random_model = randomized(anatomy, images[:size])
        with Progress(len(images.split(size)) * len(calls), label) as progress:
            for batch in batches(anatomy, images, goal, outputs, where, black, size):
                with torch.no_grad():
                    _, taken = timed(functools.partial(anatomy.logits, batch.images), images.device)
                seconds["forward"].append(taken / len(batch.images))
                for call in calls:
                    row, taken = assess_batch(anatomy, random_model, call, batch, black, ways)
                    scores[call.text].append(row)
                    seconds[call.text].append(taken / len(batch.images))
                    progress.advance()
                    if label and progress.due():
                        progress.show(call.text)
    samples = {call.text: joined(scores[call.text]) for call in calls}
    intervals, tested = judged(samples, CONTROLS, COMPARED, RATES)
    median = {key: statistics.median(times) for key, times in seconds.items()}  # the first batch is slower
    rows = [
        MethodScores(
            method=call.text,
            by_class=call.method.by_class,
            ms=1000 * median[call.text],
            ratio=median[call.text] / median["forward"],
            scores=intervals[call.text],
        )
        for call in calls
    ]
    return Faithfulness(
        n=len(images),
        target=about or words_for(target),
        tested=tested,
        forward_ms=1000 * median["forward"],
        rows=tuple(rows),
    )


def batches(
    anatomy: Anatomy,
    images: Tensor,
    goal: Target,
    outputs: Tensor,
    where: Tensor | None,
    black: Tensor,
    size: int,
) -> Iterator[Batch]:
    """`size` images after another, with what every method is asked."""
    least = least_likely(goal, outputs)
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        target = goal.take(rows)
        yield Batch(
            images[rows],
            target,
            None if least is None else least.take(rows),
            None if where is None else where[rows],
            random_removals(anatomy, images[rows], target, black),
        )


def least_likely(goal: Target, logits: Tensor) -> Target | None:
    """The least likely class other than the target's; None where the target is no class, or the only one."""
    if not isinstance(goal, ClassTarget) or logits.shape[1] < 2:
        return None
    return ClassTarget(logits.scatter(1, goal.indices.unsqueeze(1), torch.inf).argmin(dim=1))


def words_for(target: Target | None) -> str:
    """What a table is about, where the caller has no better words."""
    if target is None:
        return "the predicted class"
    return "given classes" if isinstance(target, ClassTarget) else f"a {type(target).__name__.lower()}"


def assess_batch(
    anatomy: Anatomy, random_model: Anatomy, call: Call, batch: Batch, black: Tensor, ways: Sequence[str]
) -> tuple[dict[str, Tensor], float]:
    """Each measure (B,) of a method's maps, and the seconds that the maps took."""
    images, target = batch.images, batch.target
    maps, taken = timed(lambda: call.maps(anatomy, images, target), images.device)
    if not bool(maps.isfinite().all()):
        raise PatchlightError(f"the maps of {call.text} are NaN or infinite for some images; measure other methods")
    scores: dict[str, Tensor] = {}
    for way in (way for way in ways_for(anatomy) if way in ways):
        best, worst = (
            removal_curve(anatomy, images, target, maps, black, way=way, most_first=first) for first in (True, False)
        )
        scores |= {f"deletion {way}": best.area(), f"insertion {way}": worst.area()}
        if way == "mean" and isinstance(target, ClassTarget):
            scores |= {"positive": best.accuracy(), "negative": worst.accuracy()}
    scores["infidelity"] = infidelity(maps, batch.removals)
    scores["sensitivity"] = max_sensitivity(lambda noisy: call.maps(anatomy, noisy, target), images, maps)
    scores["randomized"] = rank_correlation(maps, call.maps(random_model, images, target))
    if batch.other is not None:
        scores["other class"] = rank_correlation(maps, call.maps(anatomy, images, batch.other))
    if batch.where is not None:
        scores["pointing"] = pointing(maps, batch.where)
    return {key: value.float().cpu() for key, value in scores.items()}, taken


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    """Each measure of all batches, as an array; those that no image has, as pointing without evidence, left out."""
    whole = {key: torch.cat([part[key] for part in parts]).double().numpy() for key in parts[0]}
    return {key: values for key, values in whole.items() if len(values)}


def timed(work: Callable[[], Tensor], device: torch.device) -> tuple[Tensor, float]:
    """The result and its seconds; a GPU is waited for before and after."""
    synchronize(device)
    start = time.perf_counter()
    result = work()
    synchronize(device)
    return result, time.perf_counter() - start
