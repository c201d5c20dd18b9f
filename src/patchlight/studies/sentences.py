"""The answer of a study in a few sentences, which claim no more than the numbers do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from patchlight.runs.codec import JSON
from patchlight.runs.study import FAILED, FINISHED, PRUNED, Difference, StudyRun, StudyVariant
from patchlight.studies.wording import EQUAL, quoted
from patchlight.units import counted, mean_deviation, shortened


@dataclass(frozen=True)
class PointLead:
    """The best member at a point of a grid."""

    point: dict[str, JSON]
    member: str
    on_second: Difference


def sentences(
    variants: Sequence[StudyVariant],
    chosen: str | None,
    second: Difference | None,
    leads: Sequence[PointLead],
    *,
    runs: Sequence[StudyRun],
    seeds: Sequence[int],
    test: str,
) -> tuple[str, ...]:
    """What was found: the chosen variant, how it compares with the baseline and with the `second` best, its test
    accuracy, and of a grid's points the best member's `leads` on the second. Or why there is no answer.
    """
    best = next((v for v in variants if v.name == chosen), None)
    if best is None or best.val_mean is None:
        return _no_answer(variants, runs, seeds)
    said = [_best(best, best.val_mean, variants, len(seeds))]
    if best.difference is not None:
        said.append(f"Against the baseline {quoted(best.difference.to)}: {best.difference.words}.")
    elif len(variants) > 1:
        said.append("It is the baseline itself." if not best.point else "It is the baseline of its point of the grid.")
    if second is not None and (best.difference is None or second.to != best.difference.to):
        said.append(f"Against the second best, {quoted(second.to)}: {second.words}.")
    before = any(run.test_before for run in runs if run.variant == chosen)
    said.append(_test(best, test, sum(v.test_mean is not None for v in variants), before))
    said += _over_grid(leads)
    return tuple(said)


def _best(best: StudyVariant, mean: float, variants: Sequence[StudyVariant], seeds: int) -> str:
    number = f"{mean_deviation(mean, best.val_std)} {over(seeds)}"
    whole = sum(v.n == seeds for v in variants)
    if len(variants) == 1:
        return f"{quoted(best.name)} has a validation accuracy of {number}."
    if whole == 1:
        return f"Of {len(variants)} variants only {quoted(best.name)} has finished all seeds: {number} on validation."
    of = f"Of {len(variants)} variants"
    if whole < len(variants):
        of = f"Of {len(variants)} variants, {whole} have finished all seeds; of these"
        return f"{of} {quoted(best.name)} has the best validation accuracy: {number}."
    return f"{of}, {quoted(best.name)} has the best validation accuracy: {number}."


def over(seeds: int) -> str:
    """What a mean is over, behind it."""
    return f"(mean and deviation of {seeds} seeds)" if seeds > 1 else "(1 seed)"


def _test(best: StudyVariant, test: str, read: int, before: bool) -> str:
    """The test accuracy of the chosen variant, of how many variants the test images were `read`, and whether that was
    `before` this study.
    """
    if best.test_mean is None:
        why = ", as this study asks for none" if test == "none" else " yet"
        return f"The test images were not read{why}."
    number = f"{mean_deviation(best.test_mean, best.test_std)} ({counted(best.test_n, 'seed')})"
    if before:
        return f"Its test accuracy is {number}: the test images had been read before this study chose."
    if test == "all":
        return f"Its test accuracy is {number}; the test images were read for all variants and chose none."
    if read > 1:
        return f"Its test accuracy is {number}; the test images were read for {read} variants and chose none."
    return f"Its test accuracy is {number}: the test images were read once, after the choice."


def _no_answer(variants: Sequence[StudyVariant], runs: Sequence[StudyRun], seeds: Sequence[int]) -> tuple[str, ...]:
    planned = len(variants) * len(seeds)
    finished, pruned, failed = (sum(run.state == state for run in runs) for state in (FINISHED, PRUNED, FAILED))
    ended = f", {pruned} stopped early" if pruned else ""
    ended += f", {failed} failed" if failed else ""
    if finished + pruned + failed < planned:
        of = f"{finished} of {counted(planned, 'run')}"
        return (f"Not all seeds are finished ({of}{ended}), so there is no answer yet.",)
    if finished and all(v.val_mean is None for v in variants):
        return ("There are no validation images, so no variant can be chosen.",)
    all_seeds = "its 1 seed" if len(seeds) == 1 else f"all of its {len(seeds)} seeds"
    of = f"{finished} of {counted(planned, 'run')} finished{ended}"
    return (f"No variant has finished {all_seeds} ({of}), so none is chosen.",)


def _over_grid(leads: Sequence[PointLead]) -> list[str]:
    """A sentence on what is best at each point; points with the same finding are told together. Where no difference is
    seen, no member is called better.
    """
    found: dict[str, list[str]] = {}
    keys = {key for lead in leads for key in lead.point}
    for lead in leads:
        if lead.on_second.low is None:
            words = f"{quoted(lead.member)} is ahead, with 1 seed,"
        elif lead.on_second.low > EQUAL:
            words = f"{quoted(lead.member)} is better than the second"
        else:
            words = "no difference is seen between the best two"
        place = place_words(lead.point) if len(keys) > 1 else number_words(*lead.point.values())
        found.setdefault(words, []).append(place)
    parts = [f"{words} at {(', ' if len(keys) == 1 else ' and at ').join(own)}" for words, own in found.items()]
    return [f"By {' and '.join(map(shortened, sorted(keys)))}: {'; '.join(parts)}."] if parts else []


def place_words(point: dict[str, JSON]) -> str:
    """A point of the grid: "data.train_per_class 50"."""
    return ", ".join(f"{key} {number_words(value)}" for key, value in point.items())


def number_words(value: JSON) -> str:
    """A setting's value in a sentence."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else shortened(str(value), 40)
