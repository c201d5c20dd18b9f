"""What `patchlight study` and `patchlight train` print, by what they return."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchlight.cli.text import table, trained_json, trained_text
from patchlight.config.study import Study
from patchlight.runs import Run
from patchlight.runs.study import FAILED, WAITING, StudyResult
from patchlight.units import clock, counted, printable, short

if TYPE_CHECKING:
    from patchlight.studies.cost import StudyCost


def any_text(result: Run | StudyResult | StudyCost | list[Study]) -> str:
    if isinstance(result, Run):
        return trained_text(result)
    if isinstance(result, StudyResult):
        from patchlight.cli.study_text import study_text

        return study_text(result, str(Path(result.folder) / "report.html") if result.folder else None)
    return list_text(result) if isinstance(result, list) else cost_text(result)


def any_json(result: Run | StudyResult | StudyCost | list[Study]) -> dict[str, Any]:
    if isinstance(result, Run):
        return trained_json(result)
    if isinstance(result, list):
        return {"studies": [{"name": each.name, "title": each.about.title} for each in result]}
    return result.to_json()


def some_failed(result: Run | StudyResult | StudyCost | list[Study]) -> bool:
    """Whether a run of a study failed, or its test, once none is left to do: a worker that ends early is no failure."""
    states = {run.state for run in result.runs} if isinstance(result, StudyResult) else set()
    unread = isinstance(result, StudyResult) and bool(result.unread)
    return (FAILED in states and WAITING not in states) or unread


def list_text(studies: list[Study]) -> str:
    """The studies that come with Patchlight."""
    blocks = []
    for study in studies:
        about, options = study.about, study.options
        counts = f"{counted(len(study.variants), 'variant')} of {options.recipe}, {counted(len(options.seeds), 'seed')}"
        facts = [("what", about.title), ("asks", about.question), ("runs", counts), ("cost", about.cost)]
        blocks.append(
            printable(study.name) + "\n" + table([(f"  {word}", text) for word, text in facts if text], left=2)
        )
    return "\n\n".join(blocks)


def cost_text(cost: StudyCost) -> str:
    """Runs, cost and finish time of a study."""
    rows = [
        (
            each.name,
            f"{each.done}",
            f"{each.left}",
            f"{each.epochs:.3g}",
            f"{each.steps:,}",
            f"{each.images_per_s:,.0f}",
            clock(each.run_s),
            short(each.train_flops),
            short(each.params),
            f"{each.memory_gb:.1f}",
        )
        for each in cost.variants
    ]
    header = ("variant", "done", "left", "epochs", "steps", "images/s", "time", "FLOPs", "params", "GB")
    end = datetime.datetime.fromisoformat(cost.finish_at).strftime("%Y-%m-%d %H:%M")
    size = f", size {cost.size} of {', '.join(cost.sizes)}" if cost.size else ""
    total = (
        f"{cost.left} of {counted(cost.runs, 'run')} left: {clock(cost.seconds)} of training on this machine "
        f"({cost.device}), {short(cost.train_flops)} FLOPs; one worker that begins now is done at {end}"
    )
    lines = [
        f"{cost.name}{size}: {cost.budget}. {cost.why}",
        table(rows, header),
        f"{total}. Start-up, the test images and the pages are not counted. Nothing was trained.",
        f"study  {printable(cost.folder)}\nruns   {printable(cost.pool)}",
    ]
    return "\n\n".join(lines)
