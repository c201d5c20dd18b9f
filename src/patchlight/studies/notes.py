"""What must be known to believe a study's answer just as far as it goes: sentences for below the table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from patchlight.errors import first_of
from patchlight.runs.study import FAILED, FINISHED, PRUNED, StudyRun, StudyVariant
from patchlight.studies.wording import quoted
from patchlight.units import counted, percent, short, shortened

FEW = 5  # seeds; of fewer an interval is wide
ALIKE = 0.01  # of images seen: a last batch more or less is no difference
Z95 = 1.96


def notes_of(
    variants: Sequence[StudyVariant],
    runs: Sequence[StudyRun],
    *,
    seeds: Sequence[int],
    chosen: str | None,
    tied: Sequence[str],
    test: str,
    budget_by: str,
    measure: str,
) -> tuple[str, ...]:
    """All that holds of this study, the most telling first."""
    finished = [run for run in runs if run.state == FINISHED]
    return tuple(
        note
        for part in (
            _of_the_choice(variants, chosen, tied, test, measure),
            _of_seeds(variants, len(seeds)),
            _of_images(finished),
            _of_ends(runs, budget_by),
            _of_machines(finished),
            _of_images_seen(variants, finished, budget_by),
        )
        for note in part
    )


def _of_the_choice(
    variants: Sequence[StudyVariant], chosen: str | None, tied: Sequence[str], test: str, measure: str
) -> Iterator[str]:
    if len(tied) > 1 and chosen is not None:
        yield (
            f"{first_of(map(quoted, tied), 6)} have the same validation mean; {quoted(chosen)} is chosen, as it costs "
            "least by FLOPs, then time, then parameters, or comes first."
        )
    if chosen is not None and len(variants) > 1:
        yield (
            "A variant that is chosen as the best of several had luck, too, so its validation accuracy is a little too "
            "high, and so is its lead. Its test accuracy is not, as the test images chose nothing."
        )
    if test == "all":
        yield "The test images were read for all variants. Whoever chooses by these numbers has no test set left."
    others = [quoted(v.name) for v in variants if v.test_mean is not None and v.name != chosen]
    if others and test != "all":
        yield (
            f"The test images were read for {first_of(others, 6)}, too, which validation has not chosen: at an earlier "
            "choice of this study, or by another that its runs are from. They had no part in this choice."
        )
    if measure == "last":
        yield "The weights of each run are those of its last epoch, not those that validation chose."
    elif measure != "val/top1":
        yield f"The weights of each run were kept by {shortened(measure)}, and variants are chosen by accuracy."


def _of_seeds(variants: Sequence[StudyVariant], seeds: int) -> Iterator[str]:
    if len(variants) < 2:
        return
    if seeds == 1:
        yield "With one seed there is no interval: how much chance there is in a difference is not known."
        return
    compared = sum(v.difference is not None and len(v.difference.seeds) > 1 for v in variants)
    if not compared:
        return
    yield (
        "A difference is the mean over seeds of the differences between two variants with the same seed; its interval "
        f"is that of Student's t at 95 %, with one degree of freedom less than seeds ({seeds - 1} with all of them)."
    )
    if seeds < FEW:
        yield (
            f"{seeds} seeds are few: the interval is wide, and it takes the differences for nearly normal, which so "
            "few cannot show. That no difference is seen does not mean that there is none."
        )
    if compared > 1:
        chance = f"{0.05 * compared:.2f}".rstrip("0")
        yield (
            f"{compared} variants are compared, and each interval is for itself: of {compared} variants that do not "
            f"differ from what they are compared with, {chance} would be expected to be called different ({compared} "
            "times 5 %)."
        )


def _of_images(finished: Sequence[StudyRun]) -> Iterator[str]:
    """The error of the validation images, which no seed shows."""
    scored = [run for run in finished if run.val_top1 is not None and run.val_n]
    sizes = sorted({run.val_n for run in scored if run.val_n})
    if not sizes:
        return
    if len(sizes) > 1:
        yield (
            f"The runs were validated on different numbers of images ({first_of(map(str, sizes), 4)}), so a part of "
            "their differences comes from the images."
        )
    digests = {run.val_digest for run in scored if run.val_digest}
    if len(digests) > 1:
        yield (
            "The runs were not all validated on the same images (as data.split_seed, sizes or sources differ), so a "
            "difference between such variants holds the luck of their images, too, and no interval shows it."
        )
    best = max(scored, key=lambda run: run.val_top1 or 0.0)
    rate, n = min(max(best.val_top1 or 0.0, 0.0), 1.0), min(sizes)
    error = Z95 * math.sqrt(rate * (1 - rate) / n)
    yield (
        f"{counted(n, 'validation image')} have a sampling error of their own, about {100 * error:.1f} points to both "
        f"sides (95 %) of an accuracy of {percent(rate, 1)}, which the best run has. All seeds share these images, so "
        "neither a deviation nor an interval over seeds holds it"
        + ("." if len(digests) > 1 else "; on the same images it is smaller for a difference than for an accuracy.")
    )


def _of_ends(runs: Sequence[StudyRun], budget_by: str) -> Iterator[str]:
    pruned, failed = (sum(run.state == state for run in runs) for state in (PRUNED, FAILED))
    reused = sum(run.reused for run in runs)
    if pruned:
        yield (
            f"{counted(pruned, 'run')} {'was' if pruned == 1 else 'were'} stopped early (pruned), as clearly behind. "
            "The mean of a variant is of its finished runs, so where some of its runs were pruned it may be too high, "
            "and such a variant cannot be chosen."
        )
    if failed:
        yield f"{counted(failed, 'run')} failed; a variant with a failed run cannot be chosen."
    if reused:
        yield f"{counted(reused, 'run')} {'was' if reused == 1 else 'were'} finished before this study and used again."


def _of_machines(finished: Sequence[StudyRun]) -> Iterator[str]:
    """What was not the same for all runs."""
    machines = sorted({run.machine for run in finished if run.machine})
    commits = sorted({run.git_commit for run in finished if run.git_commit})
    if len(machines) > 1:
        yield (
            f"The runs were made on {len(machines)} different machines or settings of them ("
            f"{'; '.join(shortened(name, 80) for name in machines[:4])}{'; ...' if len(machines) > 4 else ''}), so "
            "their times and memory cannot be compared, and their accuracies differ by rounding, too."
        )
    if len(commits) > 1:
        yield (
            f"The runs were made by {len(commits)} versions of the code "
            f"({first_of((shortened(name, 12) for name in commits), 4)}), so a difference may come from the code."
        )
    if any(run.machine is None for run in finished) and machines:
        yield "Of some runs the machine is not known, so take care when comparing times."


def _of_images_seen(variants: Sequence[StudyVariant], finished: Sequence[StudyRun], budget_by: str) -> Iterator[str]:
    """Under equal time a variant that is faster sees more images, which is a part of its result."""
    seen: dict[str, list[int]] = {}
    for run in finished:
        if run.curve:
            seen.setdefault(run.variant, []).append(run.curve[-1].images)
    means = {v.name: sum(seen[v.name]) / len(seen[v.name]) for v in variants if v.name in seen}
    if len(means) < 2:
        return
    few, many = min(means, key=lambda name: means[name]), max(means, key=lambda name: means[name])
    if means[many] - means[few] <= ALIKE * means[many]:
        return
    why = " in the same time, which is meant by this budget" if budget_by == "time" else ""
    yield (
        f"The variants saw different numbers of training images{why}: from {short(means[few])} ({quoted(few)}) to "
        f"{short(means[many])} ({quoted(many)})."
    )
