"""What a sweep has found, written into its folder: a record, a recipe, figures and a README.md."""

from __future__ import annotations

import dataclasses
import json
import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchlight.config import About, Config, load_recipe
from patchlight.errors import PatchlightError
from patchlight.reporting.files import write_file
from patchlight.reporting.markdown import as_block, as_text
from patchlight.runs.codec import RecordError, read_json
from patchlight.runs.lock import one_writer
from patchlight.runs.sweep import FAILED, FINISHED, PRUNED, RUNNING, WAITING, SweepAxis, SweepResult, SweepTrial
from patchlight.studies.ranges import Axis, combinations
from patchlight.studies.sweep import RUNS, Plan, in_words, key_of, seed_of, shown
from patchlight.studies.sweep_ledger import Slot
from patchlight.units import SPACE, counted

if TYPE_CHECKING:
    from optuna.study import Study

RECORD, BEST, README, FIGURES, LOCK = "sweep.json", "best.toml", "README.md", "figures", ".sweep.lock"
WAIT_S = 60  # for another worker that writes the result
LEAST_FOR_IMPORTANCE = 5  # finished trials
ROUGH = 30  # with fewer the importance is said to be rough
IMPORTANCE_BY = "fANOVA (Hutter, Hoos and Leyton-Brown 2014)"


def written_by_one(folder: Path) -> AbstractContextManager[None]:
    """Inside, no other worker writes the result, so that the last one to write has looked last. A worker that was
    stopped while it wrote is not waited for: each file is whole anyway, and the next trial's end writes them again.
    """
    return one_writer(folder / LOCK, "write its result", WAIT_S)


def make_result(plan: Plan, study: Study, slots: Sequence[Slot], storage: str, is_end: bool = True) -> SweepResult:
    """The record of a sweep as it stands. What mattered is computed at the end alone, as it takes seconds."""
    trials = tuple(_trial(plan, slot) for slot in slots)
    finished = [trial for trial in trials if trial.state == FINISHED and trial.value is not None]
    sign = -1 if plan.is_lower_better else 1
    # Of equal ones the first.
    best = max(finished, key=lambda trial: (sign * (trial.value or 0.0), -trial.number), default=None)
    shares = _importance(study, plan, finished) if is_end else {}
    return SweepResult(
        name=plan.name,
        recipe=plan.base.about.name,
        folder=str(plan.folder),
        storage=storage,
        axes=tuple(_axis(axis, shares.get(axis.field)) for axis in plan.axes),
        sampler=plan.sampler,
        pruner=plan.pruner,
        seed=plan.seed,
        measure=plan.measure,
        words=plan.words,
        lower_is_better=plan.is_lower_better,
        asked=plan.trials,
        trials=trials,
        best=None if best is None else best.number,
        importance_by=IMPORTANCE_BY if shares else None,
        notes=tuple(_notes(plan, trials, finished, bool(shares), is_end)),
    )


def _axis(axis: Axis, importance: float | None) -> SweepAxis:
    low, high = (None, None) if axis.choices else (float(axis.low), float(axis.high))
    return SweepAxis(
        field=axis.field,
        text=axis.text,
        low=low,
        high=high,
        log=axis.log,
        choices=axis.choices,
        importance=importance,
    )


def _trial(plan: Plan, slot: Slot) -> SweepTrial:
    last, state = slot.last, slot.state
    start, end = last.datetime_start, last.datetime_complete
    value = last.value if state in (FINISHED, PRUNED) else None
    folder = last.user_attrs.get("folder")
    return SweepTrial(
        number=slot.number + 1,
        state=state,
        params=slot.params,
        value=value,
        epoch=last.last_step if state == PRUNED else last.user_attrs.get("epoch"),
        reason=slot.reason,
        folder=None if folder is None else f"{RUNS}/{folder}",
        attempts=len(slot.attempts),
        seconds=None if start is None or end is None else max(0.0, (end - start).total_seconds()),
    )


def _importance(study: Study, plan: Plan, finished: Sequence[SweepTrial]) -> dict[str, float]:
    """Of each setting the share of the finished trials' variance that comes from it alone; nothing where that cannot
    be computed.
    """
    if distinct(finished) < LEAST_FOR_IMPORTANCE or len({trial.value for trial in finished}) < 2:
        return {}
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a setting that had one value in all trials
        shares = get_param_importances(
            study,
            evaluator=FanovaImportanceEvaluator(seed=seed_of(plan.seed, "importance")),
            params=[axis.field for axis in plan.axes],
            normalize=False,
        )
    return {field: min(1.0, max(0.0, float(share))) for field, share in shares.items()}


def _notes(
    plan: Plan, trials: Sequence[SweepTrial], finished: Sequence[SweepTrial], is_told: bool, is_end: bool
) -> Iterator[str]:
    if finished:
        yield (
            f"the best of {tried_in_words(trials)} was chosen by {plan.words}, so its value is "
            "optimistic; the test images were not read"
        )
    if finished and not is_told and is_end:
        yield (
            f"what mattered is not told: fANOVA needs {LEAST_FOR_IMPORTANCE} finished trials of different settings and "
            f"value, and there are {distinct(finished)}"
        )
    elif is_told and distinct(finished) < ROUGH:
        yield f"what mattered is rough, as it is computed from {counted(distinct(finished), 'finished trial')} alone"
    begun = [trial for trial in trials if trial.params]
    repeats, there_are = len(begun) - distinct(begun), combinations(plan.axes)
    if repeats:
        of = "" if there_are is None else f"{distinct(begun):,} of {counted(there_are, 'combination')} were tried; "
        yield f"{of}{counted(repeats, 'trial')} repeated one"
    is_over = is_end and all(trial.state in (FINISHED, PRUNED, FAILED) for trial in trials)
    is_short = plan.grid is None and plan.trials != len(trials)
    if there_are is not None and is_over and is_short and distinct(begun) >= there_are:
        asked = "" if plan.trials is None else f" of {plan.trials}"
        yield (
            f"all {counted(there_are, 'combination')} were tried, so the sweep ended after {len(trials)}{asked} "
            "trials: a further one would repeat one"
        )
    if plan.pruner != "none" and plan.epochs is None:
        yield (
            "trials were compared at the same epoch, at which trainings of other lengths or speeds stand elsewhere in "
            "their schedule; --pruner none compares their ends"
        )
    if plan.grid is not None and plan.trials is not None and plan.trials < len(plan.grid):
        yield f"of the {len(plan.grid):,} points of the grid {plan.trials:,} are tried, chosen at random by the seed"
    failed = [trial for trial in trials if trial.state == FAILED]
    reasons: dict[str, list[int]] = {}
    for trial in failed:
        reasons.setdefault(trial.reason or "", []).append(trial.number)
    for reason, numbers in reasons.items():
        which = ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
        yield f"{counted(len(numbers), 'trial')} failed ({which}): {reason}"
    again = [trial.number for trial in trials if trial.attempts > 1]
    if again:
        yield f"begun more than once, as a worker was stopped or ended: {counted(len(again), 'trial')}"


def distinct(trials: Sequence[SweepTrial]) -> int:
    """How many different settings trials have."""
    return len({key_of(trial.params) for trial in trials})


def tried_in_words(trials: Sequence[SweepTrial]) -> str:
    """What the best was chosen of: "9 trials", or "2 combinations of settings (in 6 trials)"."""
    ended = [trial for trial in trials if trial.state in (FINISHED, PRUNED)]
    count = distinct(ended)
    words = counted(len(ended), "trial")
    return words if count == len(ended) else f"{counted(count, 'combination')} of settings (in {words})"


def best_recipe(plan: Plan, result: SweepResult) -> Config | None:
    """The recipe with the best trial's settings laid over it, which reads the test images when it is trained; None
    while no trial is finished.
    """
    best = result.best_trial
    if best is None:
        return None
    config = load_recipe(plan.base, best.params | {"eval.test": True})
    path = plan.folder / BEST
    about = About(
        name=f"{plan.base.about.name}-best",
        title=plan.base.about.title,
        source=f"trial {best.number} of a sweep over {plan.base.about.name}, the best of "
        f"{tried_in_words(result.trials)}: {in_words(best.params)}",
        command=f"patchlight train {shlex.quote(str(path))}",
        expect=f"{plan.words} {result.shown(best.value)} in epoch {best.epoch}; as it was chosen for that it is "
        "optimistic, and the test images were not read".replace(SPACE, " "),
    )
    return dataclasses.replace(config, about=about)


def write_record(plan: Plan, result: SweepResult) -> None:
    """`sweep.json`, and `best.toml` once a trial is finished."""
    data = json.dumps(result.to_json(), indent=1, ensure_ascii=False) + "\n"
    write_file(plan.folder / RECORD, data.encode("utf-8", "replace"))
    recipe = best_recipe(plan, result)
    if recipe is not None:
        write_file(plan.folder / BEST, recipe.to_toml().encode())


def read_record(folder: Path) -> SweepResult:
    """The record of a sweep. Raises PatchlightError where there is none, or it is damaged."""
    path = folder / RECORD
    try:
        return SweepResult.from_json(read_json(path))
    except FileNotFoundError:
        raise PatchlightError(f"{path} is missing; `patchlight sweep` writes it") from None
    except RecordError as error:
        raise PatchlightError(f"{path} is damaged: {error}; repeat the sweep's command, which writes it anew") from None


def write_pages(plan: Plan, result: SweepResult) -> None:
    """The figures, as PNG and SVG, and `README.md`."""
    from patchlight.figures.style import png, svg
    from patchlight.figures.sweep import FIGURES_OF_SWEEP

    for name, (words, draw) in FIGURES_OF_SWEEP.items():
        figure = draw(result)
        for form in ("png", "svg"):
            path = plan.folder / FIGURES / f"{name}.{form}"
            if figure is None:
                path.unlink(missing_ok=True)
            elif form == "png":
                write_file(path, png(figure, "light", description=words))
            else:
                write_file(path, svg(figure, "light").encode("utf-8", "replace"))
    write_file(plan.folder / README, readme(plan, result).encode("utf-8", "replace"))


def readme(plan: Plan, result: SweepResult) -> str:
    """The sweep in Markdown."""
    from patchlight.figures.sweep import FIGURES_OF_SWEEP

    best = result.best_trial
    lines = [f"# {as_text(result.name)}: a sweep over {as_text(result.recipe)}", ""]
    if best is None:
        lines += ["**No trial is finished.**", ""]
    else:
        lines += [f"**Trial {best.number} is the best: {result.words} {result.shown(best.value)}.**", ""]
        lines += ["| setting | best | tried | importance |", "|---|---|---|---|"]
        for axis in sorted(result.axes, key=lambda axis: -(axis.importance or 0)):
            share = "-" if axis.importance is None else f"{axis.importance:.2f}"
            value = shown(best.params.get(axis.field))
            lines.append(f"| {as_text(axis.field)} | {as_text(value)} | {as_text(axis.text)} | {share} |")
        lines += ["", *as_block([f"patchlight train {shlex.quote(str(plan.folder / BEST))}"], "sh"), ""]
    lines += [f"- {as_text(note[:1].upper() + note[1:])}." for note in result.notes] + [""]
    for name, (words, _) in FIGURES_OF_SWEEP.items():
        if (plan.folder / FIGURES / f"{name}.png").is_file():
            lines += [f"![{words}]({FIGURES}/{name}.png)", ""]
    lines += [
        "## Trials",
        "",
        "| trial | state | " + " | ".join(as_text(a.field) for a in result.axes) + " | value | epoch | run |",
    ]
    lines += ["|" + "---|" * (len(result.axes) + 5)]
    for trial in in_order(result):
        values = [shown(trial.params[a.field]) if a.field in trial.params else "-" for a in result.axes]
        run = f"[{trial.folder}]({trial.folder})" if trial.folder and trial.state != FAILED else "-"
        row = [str(trial.number), trial.state, *map(as_text, values), result.shown(trial.value)]
        lines.append("| " + " | ".join([*row, str(trial.epoch or "-"), run]) + " |")
    return "\n".join(lines).replace(SPACE, " ") + "\n"


def in_order(result: SweepResult) -> list[SweepTrial]:
    """The trials, the best first: finished, pruned, failed, and those that are not over."""
    sign = 1 if result.lower_is_better else -1
    states = (FINISHED, PRUNED, FAILED, RUNNING, WAITING)

    def place(trial: SweepTrial) -> tuple[Any, ...]:
        value = float("inf") if trial.value is None else sign * trial.value
        return states.index(trial.state), value, trial.number

    return sorted(result.trials, key=place)
