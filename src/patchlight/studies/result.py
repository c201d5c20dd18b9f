"""The record of a study: its plan, its runs and its answer, as they are now."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import patchlight
from patchlight.runs import measure_of
from patchlight.runs.study import StudyResult
from patchlight.studies.answer import answer
from patchlight.studies.collect import collect
from patchlight.studies.folder import StudyFolder
from patchlight.studies.plan import Plan


def make_result(plan: Plan, folder: StudyFolder, command: Sequence[str], unread: Sequence[str] = ()) -> StudyResult:
    """What the runs tell so far; `unread` are sentences on test images that could not be read."""
    study, runs = plan.study, collect(plan, folder)
    options, measure = study.options, measure_words(plan)
    found = answer(
        runs,
        study.variants,
        seeds=options.seeds,
        baseline=study.baseline,
        plan=options.plan,
        test=options.test,
        budget_by=study.budget.kind or "recipe",
        measure=measure,
    )
    return StudyResult(
        name=study.name,
        title=study.about.title,
        question=study.about.question,
        plan=options.plan,
        recipe=options.recipe,
        seeds=options.seeds,
        size=study.size,
        budget=study.budget.words,
        budget_by=study.budget.kind or "recipe",
        why=study.why,
        baseline=study.baseline,
        grid=study.grid,
        data=plan.runs[0].config.data.source,
        classes=len(plan.data.class_names),
        measure=measure,
        test=options.test,
        chosen=found.chosen,
        variants=found.variants,
        runs=runs,
        answer=found.answer,
        unread=tuple(unread),
        notes=(*unread, *plan.notes, *found.notes),
        command=shlex.join(command),
        patchlight=patchlight.__version__,
    )


def measure_words(plan: Plan) -> str:
    """By what weights are kept: "val/top1", "last", or several of them."""
    selects = dict.fromkeys(run.config.train.select for run in plan.runs)
    return " and ".join(select if select == "last" else measure_of(select).key for select in selects)
