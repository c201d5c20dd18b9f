"""What the numbers of a study say, in words. Rates are in 0..1, and differences are told in percentage points."""

from __future__ import annotations

from collections.abc import Sequence

from patchlight.errors import first_of
from patchlight.runs.study import FAILED, PRUNED, StudyRun
from patchlight.units import counted, in_points, printable, shortened

EQUAL = 1e-9  # rates this close are the same share of images, added up in another order
NAMED = 8  # seeds that a sentence lists


def difference_words(
    each: Sequence[float], mean: float, low: float | None, high: float | None, left_out: Sequence[int] = ()
) -> str:
    """What a paired difference says of a variant: `each` of the seeds, their mean, and its interval.

    An interval that holds zero is no difference seen; one seed has no interval; equal differences have one without
    width, which is no certainty. `left_out` are planned seeds that not both variants have finished.
    """
    seeds = counted(len(each), "seed")
    if max(each) - min(each) < EQUAL:
        words = _alike(len(each), mean)
    elif low is None or high is None:
        raise ValueError("differences of several seeds have an interval")
    elif low <= EQUAL and high >= -EQUAL:
        below, above = in_points([low, high])
        words = f"no difference seen with {seeds} ({below} to {above} points)"
    else:
        nearest, farthest = (low, high) if mean > 0 else (high, low)
        size, least, most = in_points([mean, nearest, farthest], sign=False)
        words = f"{size} points {_side(mean)} ({least} to {most}; {seeds})"
    return f"{words}; {not_of_both(left_out)}" if left_out else words


def _alike(seeds: int, mean: float) -> str:
    """Of one seed, and of several that differ by the same number: no interval tells of chance."""
    same = abs(mean) < EQUAL
    size = "" if same else f"{in_points([mean], sign=False)[0]} points {_side(mean)}"
    if seeds == 1:
        return f"{size or 'the same number'} with 1 seed: no interval, so nothing can be said of chance"
    if same:
        return f"the same numbers with all {seeds} seeds"
    return f"{size} with each of {seeds} seeds: they agree exactly, so the interval has no width, which is no certainty"


def _side(mean: float) -> str:
    return "better" if mean > 0 else "worse"


def not_of_both(seeds: Sequence[int]) -> str:
    """Planned seeds that a difference leaves out."""
    are, them = ("are", "them") if len(seeds) > 1 else ("is", "it")
    return f"{listed_seeds(seeds)} {are} left out, as not both have finished {them}"


def listed_seeds(seeds: Sequence[int]) -> str:
    """Seeds in a sentence: "seed 1", "seeds 0, 2"."""
    return f"{'seeds' if len(seeds) > 1 else 'seed'} {first_of(map(str, seeds), NAMED)}"


def unfinished(runs: Sequence[StudyRun], missing: Sequence[int]) -> str:
    """Why a variant has not all of its seeds: those of its runs that are not finished, and seeds without a run.

    Seeds of one state with one reason are told together: "seeds 1, 2: pruned, stopped at epoch 3 because ...".
    """
    seeds: dict[str, list[int]] = {}
    for run in runs:
        state = run.state if run.state in (PRUNED, FAILED) else "waiting"
        reason = printable(run.reason).rstrip(". ") if run.reason and state != "waiting" else ""
        seeds.setdefault(f"{state}, {reason}" if reason else state, []).append(run.seed)
    for seed in missing:
        seeds.setdefault("waiting", []).append(seed)
    return "; ".join(f"{listed_seeds(sorted(own))}: {words}" for words, own in seeds.items())


def quoted(name: str) -> str:
    """A variant's name in a sentence."""
    return f"'{shortened(name, 60)}'"
