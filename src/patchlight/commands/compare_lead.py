"""Which of compared runs is ahead by validation, and whether that can be told from chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from patchlight.commands.compare_groups import ComparedRun, RunGroup
from patchlight.evaluation.paired import EQUAL, Paired, paired_difference
from patchlight.runs.codec import Record
from patchlight.units import counted

FEW = 5  # seeds, below which it is said that they are few


@dataclass(frozen=True, kw_only=True)
class Lead(Record):
    """How far the best recipe is ahead of the second by validation, in 0..1.

    With two or more seeds that both have, `mean` is that of their paired differences, with its 95 % t interval. Else
    it is the difference of the two means, without an interval.
    """

    ahead: str  # the names of two groups
    behind: str
    mean: float
    low: float | None
    high: float | None
    seeds: tuple[int, ...]  # that both have
    seen: bool  # the interval leaves out zero
    words: str  # what the numbers say, in a sentence


def lead(groups: Sequence[RunGroup], runs: Mapping[str, ComparedRun]) -> Lead | None:
    """The lead of the best group over the second; None where there are no two that are finished and validated.

    `groups` are sorted by validation, best first, and were validated on the same images; `runs` are by their folder.
    """
    able = [group for group in groups if group.finished and group.val_mean is not None]
    if len(able) < 2:
        return None
    first, second = able[:2]
    if len(common := sorted({*first.seeds} & {*second.seeds})) < 2:
        return _untold(first, second, tuple(common))
    each = [_of_seed(first, seed, runs) - _of_seed(second, seed, runs) for seed in common]
    if sum(each) < 0:  # the means are over other seeds, too
        first, second, each = second, first, [-value for value in each]
    found = paired_difference(each)
    return Lead(
        ahead=first.name,
        behind=second.name,
        mean=found.mean,
        low=found.low,
        high=found.high,
        seeds=tuple(common),
        seen=found.is_seen,
        words=_paired_words(first, second, found),
    )


def _of_seed(group: RunGroup, seed: int, runs: Mapping[str, ComparedRun]) -> float:
    value = runs[group.counted[group.seeds.index(seed)]].val_top1
    assert value is not None, "a group with a validation mean has the validation of each seed"
    return value


def _paired_words(first: RunGroup, second: RunGroup, found: Paired) -> str:
    seeds = f"{found.n} seeds"
    assert found.low is not None, "two differences have an interval"
    assert found.high is not None, "two differences have an interval"
    if found.low == found.high:  # all differences are equal
        if abs(found.mean) < EQUAL:
            return f"no difference seen with {seeds}: by validation {first.name} and {second.name} are equal with each"
        return (
            f"winner by validation: {first.name}, {_points(found.mean)} ahead of {second.name} with each of {seeds}; "
            "they agree exactly, so the interval has no width, which is no certainty"
        )
    if len(first.seeds) > found.n or len(second.seeds) > found.n:
        seeds += " that both have"
    interval = f"{100 * found.low:.2f} to {100 * found.high:.2f}"
    if found.is_seen:
        few = ", which are few" if found.n < FEW else ""
        return (
            f"winner by validation: {first.name}, {_points(found.mean)} ahead of {second.name} "
            f"(95 % t interval of the paired differences {interval}, {seeds}{few})"
        )
    return (
        f"no difference seen with {seeds}: by validation {first.name} is {_points(found.mean)} ahead of {second.name}, "
        f"and the 95 % t interval of the paired differences, {interval}, holds zero"
    )


def _untold(first: RunGroup, second: RunGroup, common: tuple[int, ...]) -> Lead:
    """The lead of which seeds do not tell whether it is chance."""
    assert first.val_mean is not None, "it was chosen by its validation"
    assert second.val_mean is not None, "it was chosen by its validation"
    mean = first.val_mean - second.val_mean
    if first.val_ci95 and second.val_ci95:
        why = (
            "one seed each cannot tell whether that is chance (95 % Wilson intervals of validation: "
            f"{_interval(first.val_ci95)} and {_interval(second.val_ci95)})"
        )
    else:
        why = (
            f"they have {counted(len(common), 'seed')} in common, and from two on it can be told whether that is chance"
        )
    head = f"winner by validation: {first.name}, {_points(mean)} ahead of {second.name}"
    if abs(mean) < EQUAL:
        head = f"no winner by validation: {first.name} and {second.name} are equal"
    return Lead(
        ahead=first.name,
        behind=second.name,
        mean=mean,
        low=None,
        high=None,
        seeds=common,
        seen=False,
        words=f"{head}; {why}",
    )


def _points(difference: float) -> str:
    """A difference of rates in points of a percentage: "1 point", "0.30 points"."""
    text = f"{100 * difference:.2f}"
    return f"{text} point" if text == "1.00" else f"{text} points"


def _interval(bounds: tuple[float, float]) -> str:
    return f"{100 * bounds[0]:.2f} to {100 * bounds[1]:.2f}"
