"""The answer of a study: its runs, variant by variant, compared seed by seed.

Everything is worked out from records. A variant is chosen by its validation mean, and compared with the baseline by the
differences of seeds that both have finished: a seed gives both the same order of images and the same first weights
where their shapes agree, so that what a seed has of luck falls out of the difference.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from patchlight.errors import UsageError, did_you_mean
from patchlight.evaluation.paired import paired_difference
from patchlight.runs.codec import JSON
from patchlight.runs.study import FAILED, FINISHED, PRUNED, Difference, StudyRun, StudyVariant
from patchlight.studies.notes import notes_of
from patchlight.studies.sentences import PointLead, place_words, sentences
from patchlight.studies.wording import difference_words, unfinished

DIGITS = 9  # means this close are the same share of images, added up in another order


class Member(Protocol):
    """A planned variant, as StudyVariant tells its fields."""

    @property
    def name(self) -> str: ...
    @property
    def changes(self) -> Mapping[str, JSON]: ...
    @property
    def point(self) -> Mapping[str, JSON]: ...
    @property
    def member(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What StudyResult takes of the fields by the same names; `answer` are its sentences."""

    variants: tuple[StudyVariant, ...]
    chosen: str | None
    answer: tuple[str, ...]
    notes: tuple[str, ...]


def answer(
    runs: Sequence[StudyRun],
    members: Sequence[Member],
    *,
    seeds: Sequence[int],
    baseline: str,
    plan: str = "each",
    test: str = "chosen",
    budget_by: str = "epochs",
    measure: str = "val/top1",
) -> Answer:
    """The variants with their means, the chosen one, and what is to be said.

    `members` are the planned variants in order, and `runs` any of theirs so far; a planned seed without a run counts as
    one that is waiting. `baseline` is a variant's name, or in a grid the `member` that stands at every point. `plan`,
    `test`, `budget_by` and `measure` are those of StudyResult. Raises UsageError where there is no such baseline.
    """
    of_variant = _sorted(runs, members)
    to = {member.name: baseline_of(member, members, baseline) for member in members}
    before = _steps_before(members) if plan == "ladder" else {}
    variants = tuple(
        _variant(
            member,
            of_variant[member.name],
            seeds,
            difference=_difference(of_variant, member.name, to[member.name], seeds),
            gain=_difference(of_variant, member.name, before.get(member.name), seeds),
        )
        for member in members
    )
    chosen, tied = choose(variants, runs, seeds)
    second = _lead(of_variant, variants, seeds) if chosen is not None else None
    return Answer(
        variants=variants,
        chosen=chosen,
        answer=sentences(
            variants, chosen, second, _leads(of_variant, variants, seeds), runs=runs, seeds=seeds, test=test
        ),
        notes=notes_of(
            variants, runs, seeds=seeds, chosen=chosen, tied=tied, test=test, budget_by=budget_by, measure=measure
        ),
    )


def baseline_of(member: Member, members: Sequence[Member], baseline: str) -> str | None:
    """The name of the variant that a variant is compared with; None of the baseline itself.

    Raises UsageError where no variant, and at the variant's point of the grid no member, has the baseline's name.
    """
    whole = [other.name for other in members if other.name == baseline]
    there = [other.name for other in members if other.member == baseline and dict(other.point) == dict(member.point)]
    if not (found := whole or there):
        known = {other.name for other in members} | {other.member for other in members if other.member}
        at = f" at {place_words(dict(member.point))}" if member.point else ""
        raise UsageError(
            f"the study's baseline '{baseline}' is none of its variants{at}; {did_you_mean(baseline, known)}"
        )
    return found[0] if found[0] != member.name else None


def choose(
    variants: Sequence[StudyVariant], runs: Sequence[StudyRun], seeds: Sequence[int]
) -> tuple[str | None, tuple[str, ...]]:
    """The variant with the greatest validation mean among those that have finished all seeds, and all that reach it.

    Of equal ones the cheaper is chosen: by FLOPs, then time, then parameters, then the order of the study. None while
    runs are waiting, or where there is nothing to choose by.
    """
    ended = sum(run.state in (FINISHED, PRUNED, FAILED) for run in runs)
    whole = [v for v in variants if v.n == len(seeds) and v.val_mean is not None]
    if ended < len(variants) * len(seeds) or not whole:
        return None, ()
    best = min(whole, key=_rank)
    return best.name, tuple(v.name for v in whole if _rank(v)[0] == _rank(best)[0])


def _rank(variant: StudyVariant) -> tuple[float, ...]:
    """The order of variants, the best first: by validation mean, and where that is the same by cost."""
    return (-round(variant.val_mean or 0.0, DIGITS), *_cost(variant))


def _cost(variant: StudyVariant) -> tuple[float, ...]:
    known = (variant.train_flops, variant.train_wall_s, variant.params)
    return tuple(float("inf") if value is None else float(value) for value in known)


def _lead(
    of_variant: Mapping[str, Sequence[StudyRun]], variants: Sequence[StudyVariant], seeds: Sequence[int]
) -> Difference | None:
    """The best less the second best of the variants that have finished all seeds; None of fewer than two."""
    whole = [v for v in variants if v.n == len(seeds) and v.val_mean is not None]
    if len(whole) < 2:
        return None
    best, second = sorted(whole, key=_rank)[:2]
    return _difference(of_variant, best.name, second.name, seeds)


def _leads(
    of_variant: Mapping[str, Sequence[StudyRun]], variants: Sequence[StudyVariant], seeds: Sequence[int]
) -> list[PointLead]:
    """Of each point of a grid with members that are all finished: the best of them, and its lead on the second."""
    points: dict[str, list[StudyVariant]] = {}
    for v in variants:
        if v.point and v.member:
            points.setdefault(place_words(v.point), []).append(v)
    leads = []
    for own in points.values():
        lead = _lead(of_variant, own, seeds) if all(v.n == len(seeds) for v in own) else None
        if lead is not None:
            best = min(own, key=_rank)
            leads.append(PointLead(best.point, best.member, lead))
    return leads


def _sorted(runs: Sequence[StudyRun], members: Sequence[Member]) -> dict[str, list[StudyRun]]:
    """The runs of each variant. One run of a variant and a seed, and no run of another study, is for the caller."""
    found: dict[str, list[StudyRun]] = {member.name: [] for member in members}
    assert len(found) == len(members), "names of variants are unique"
    for run in runs:
        assert run.variant in found, f"a run of '{run.variant}', which is not planned"
        assert run.seed not in {other.seed for other in found[run.variant]}, f"{run.variant}, seed {run.seed} twice"
        found[run.variant].append(run)
    return found


def _steps_before(members: Sequence[Member]) -> dict[str, str]:
    """Of a ladder's variants the step before: in a grid, of the same point."""
    last: dict[str, str] = {}
    before = {}
    for member in members:
        point = repr(sorted(member.point.items(), key=lambda item: item[0]))
        if point in last:
            before[member.name] = last[point]
        last[point] = member.name
    return before


def _difference(
    of_variant: Mapping[str, Sequence[StudyRun]], name: str, to: str | None, seeds: Sequence[int]
) -> Difference | None:
    """A variant less another, of the planned seeds that both have finished; None where there is no other or no such
    seed.
    """
    if to is None:
        return None
    own, others = _scores(of_variant[name]), _scores(of_variant[to])
    common = [seed for seed in seeds if seed in own and seed in others]
    if not common:
        return None
    each = [own[seed] - others[seed] for seed in common]
    paired = paired_difference(each)
    left_out = [seed for seed in seeds if seed not in common]
    return Difference(
        to=to,
        seeds=tuple(common),
        each=tuple(each),
        mean=paired.mean,
        low=paired.low,
        high=paired.high,
        words=difference_words(each, paired.mean, paired.low, paired.high, left_out),
    )


def _scores(runs: Sequence[StudyRun]) -> dict[int, float]:
    """Validation accuracy of the finished runs, by seed."""
    return {run.seed: run.val_top1 for run in runs if run.state == FINISHED and run.val_top1 is not None}


def _variant(
    member: Member,
    runs: Sequence[StudyRun],
    seeds: Sequence[int],
    *,
    difference: Difference | None,
    gain: Difference | None,
) -> StudyVariant:
    finished = [run for run in runs if run.state == FINISHED and run.seed in seeds]
    val = [run.val_top1 for run in finished if run.val_top1 is not None]
    test = [run.test_top1 for run in finished if run.test_top1 is not None]
    open_runs = [run for run in runs if run.state != FINISHED and run.seed in seeds]
    missing = [seed for seed in seeds if seed not in {run.seed for run in runs}]
    return StudyVariant(
        name=member.name,
        changes=dict(member.changes),
        point=dict(member.point),
        member=member.member,
        n=len(val),
        pruned=sum(run.state == PRUNED for run in open_runs),
        failed=sum(run.state == FAILED for run in open_runs),
        val_mean=_mean(val),
        val_std=_deviation(val),
        test_mean=_mean(test),
        test_std=_deviation(test),
        test_n=len(test),
        params=next((run.params for run in runs if run.params is not None), None),
        train_flops=_mean([run.train_flops for run in finished]),
        train_wall_s=_mean([run.train_wall_s for run in finished]),
        memory_gb=_mean([run.memory_gb for run in finished]),
        difference=difference,
        gain=gain,
        note=unfinished(open_runs, missing),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _deviation(values: Sequence[float]) -> float | None:
    """The sample deviation, with n - 1."""
    return statistics.stdev(values) if len(values) > 1 else None
