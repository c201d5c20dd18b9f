"""Runs that are clearly behind the best one so far, and so need not be trained to their end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from patchlight.config import Config
from patchlight.runs import Epoch, Run
from patchlight.studies.folder import is_finished
from patchlight.studies.plan import Plan, PlannedRun
from patchlight.units import percent


class Pruned(Exception):
    """A training is stopped, for the reason that it carries."""


@dataclass(frozen=True)
class Curve:
    """The validation accuracy of a finished run over the share of training, 0 to 1."""

    name: str
    points: tuple[tuple[float, float], ...]

    def at(self, share: float) -> float | None:
        """The last validation up to this share; None before the first."""
        return next((top1 for place, top1 in reversed(self.points) if place <= share + 1e-9), None)


def leader(plan: Plan, run: PlannedRun) -> Curve | None:
    """The best finished run, by validation, at the same place of the grid; None where there is none."""
    curves = []
    for other in plan.distinct:
        if other.variant.point == run.variant.point and other.key != run.key and is_finished(other):
            curve = curve_of(other)
            if curve.points:
                curves.append((max(top1 for _, top1 in curve.points), curve))
    return max(curves, key=lambda pair: pair[0], default=(0.0, None))[1]


def curve_of(run: PlannedRun) -> Curve:
    rows = Run(run.folder).epochs()
    return Curve(run.name, tuple((share_of(row, run.config), row.val_top1) for row in rows if row.val_top1 is not None))


def share_of(row: Epoch, config: Config) -> float:
    """How much of the training an epoch ends: of the time where there is a budget, else of the epochs."""
    stages = config.of_stages()
    budgets = [stage.train.budget.seconds for stage in stages if stage.train.budget]
    if len(budgets) == len(stages) and row.wall_s is not None:
        return min(1.0, row.wall_s / sum(budgets))
    return min(1.0, row.epoch / sum(math.ceil(stage.train.epochs) for stage in stages))


def check_behind(rows: Sequence[Epoch], run: PlannedRun, plan: Plan) -> None:
    """Raises Pruned where the study stops such runs and the newest validation is clearly behind.

    The baseline is never stopped, as all others are compared with it.
    """
    options, row = plan.study.options, rows[-1]
    if plan.study.baseline in (run.variant.name, run.variant.member) or row.val_top1 is None:
        return
    share = share_of(row, run.config)
    if share < options.prune_after or share >= 1:
        return
    best = leader(plan, run)
    there = best.at(share) if best else None
    if best is not None and there is not None and row.val_top1 < there - options.prune_behind - 1e-9:
        points = f"{100 * options.prune_behind:g} points"
        raise Pruned(
            f"stopped after epoch {row.epoch}, {percent(share)} of training, with {percent(row.val_top1, 1)} "
            f"validation accuracy: more than {points} behind {best.name}, which had {percent(there, 1)} there"
        )
