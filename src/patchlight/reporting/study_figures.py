"""The figures that a study has, with what each shows for who cannot see it."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from patchlight.figures import differences, studies
from patchlight.reporting.embed import Draw
from patchlight.runs.study import StudyResult, StudyVariant
from patchlight.units import duration, percent, printable, short, shortened

TOLD = 12  # variants that an alt text names


@dataclass(frozen=True)
class StudyFigure:
    """A figure: the name of its files, how it is drawn, what it shows in words, and what is to be known of it."""

    name: str
    draw: Draw
    alt: str
    caption: str


def figures_of(result: StudyResult) -> list[StudyFigure]:
    """Those that this study has numbers for, in the order of the page."""
    found = [_differences(result)] if differences.compared(result) else []
    found += [_ladder(result)] if differences.steps(result) else []
    found += [_over(result, key) for key in studies.numbers_of_grid(result)]
    found += [_cost(result, by) for by in studies.COSTS if studies.priced(result, by)]
    return [*found, *([_curves(result)] if studies.has_curves(result) else [])]


def is_figure(stem: str) -> bool:
    """Whether a file of this name, without its ending, is one that a study may have written."""
    return stem in ("differences", "ladder", "curves", *(f"accuracy_{by}" for by in studies.COSTS)) or (
        stem.startswith("over_")
    )


def _told(parts: Sequence[str]) -> str:
    """A list for an alt text, which is not endless."""
    more = f"; and {len(parts) - TOLD} more in the table" if len(parts) > TOLD else ""
    return f"{'; '.join(parts[:TOLD])}{more}."


def _name(v: StudyVariant) -> str:
    return shortened(v.name, 60)


def _differences(result: StudyResult) -> StudyFigure:
    parts = [f"{_name(v)}: {v.difference.words}" for v in differences.compared(result) if v.difference]
    where = " at the same point of the grid" if any(v.point for v in result.variants) else ""
    return StudyFigure(
        "differences",
        functools.partial(differences.differences, result),
        f"Difference in validation accuracy to {shortened(result.baseline, 60)}{where}. {_told(parts)}",
        f"Each variant less the baseline{where}, seed by seed. A filled mark has an interval that leaves out zero; an "
        "open mark is no difference seen, or has no interval that tells of chance.",
    )


def _ladder(result: StudyResult) -> StudyFigure:
    parts = [
        f"{_name(v)}: {v.gain.words if v.gain else percent(v.val_mean or 0.0, 1)}" for v in differences.steps(result)
    ]
    return StudyFigure(
        "ladder",
        functools.partial(differences.ladder, result),
        f"What each step of the ladder adds to validation accuracy. {_told(parts)}",
        "Each bar begins where the step before ends; the line at its end is the 95 % interval of the gain, from equal "
        "seeds. Hatched bars are no difference seen. What a step adds may depend on the steps before it.",
    )


def _over(result: StudyResult, key: str) -> StudyFigure:
    parts = [f"{_name(v)}: {percent(v.val_mean, 1)}" for v in result.variants if v.val_mean is not None]
    return StudyFigure(
        f"over_{re.sub(r'[^A-Za-z0-9_.-]', '_', key)[:60]}",
        functools.partial(studies.over_number, result, key),
        f"Validation accuracy over {shortened(key, 60)}. {_told(parts)}",
        f"Means over seeds at each value of {printable(key)}; a dot is a seed.",
    )


def _cost(result: StudyResult, by: str) -> StudyFigure:
    read = studies.COSTS[by][1]
    show = duration if by == "time" else short
    parts = [
        f"{_name(v)}: {percent(v.val_mean or 0.0, 1)} for {show(read(v) or 0.0)}" for v in studies.priced(result, by)
    ]
    what = "time" if by == "time" else "FLOPs"
    how = (
        "Time is that of a run, with validation."
        if by == "time"
        else "FLOPs are those of all images seen: 3 x forward."
    )
    return StudyFigure(
        f"accuracy_{by}",
        functools.partial(studies.cost, result, by),
        f"Validation accuracy against training {what}. {_told(parts)}",
        f"Mean and deviation over seeds; upper left is better. {how}",
    )


def _curves(result: StudyResult) -> StudyFigure:
    ends: dict[str, list[float]] = {}
    for run in result.runs:
        if points := studies.points_of(run):
            ends.setdefault(run.variant, []).append(points[-1].val_top1 or 0.0)
    parts = [f"{shortened(name, 60)}: ends at {percent(sum(own) / len(own), 1)}" for name, own in ends.items()]
    return StudyFigure(
        "curves",
        functools.partial(studies.curves, result),
        f"Validation accuracy of all runs while training. {_told(parts)}",
        "A colour for each variant: thin lines are its seeds, the thick line their mean. A dotted line with a cross is "
        "of a run that has not finished.",
    )
