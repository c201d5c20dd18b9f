"""What the folders of a study's runs tell, as the records that its answer is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from patchlight.errors import PatchlightError
from patchlight.runs import Environment, Epoch, EvalResult, Run, kept_epoch
from patchlight.runs.folder import FILES, METRICS
from patchlight.runs.study import FAILED, FINISHED, REUSED, StudyPoint, StudyRun
from patchlight.studies.folder import StudyFolder
from patchlight.studies.plan import Plan, PlannedRun, train_flops
from patchlight.units import counted


def collect(plan: Plan, folder: StudyFolder) -> tuple[StudyRun, ...]:
    """All runs of the plan, as far as they are trained."""
    prunes = plan.study.options.prune_after < 1
    return tuple(_run_of(run, folder, prunes) for run in plan.runs)


def _run_of(run: PlannedRun, folder: StudyFolder, prunes: bool) -> StudyRun:
    state, note = folder.state_of(run, prunes=prunes), folder.note(run)
    bare = StudyRun(
        variant=run.variant.name,
        seed=run.seed,
        key=run.key,
        folder=str(run.folder),
        state=state,
        reason=None if note is None or state == FINISHED else note.reason or None,
        reused=state == FINISHED and (note is None or note.state == REUSED),
    )
    try:
        return _with_numbers(bare, run, tested=note is not None and note.tested)
    except PatchlightError as error:  # a file of the run is damaged
        return replace(bare, state=FAILED, reason=str(error))


def _with_numbers(bare: StudyRun, run: PlannedRun, tested: bool) -> StudyRun:
    """`tested`: the study itself has read the run's test images."""
    there = Run(run.folder)
    if not there.is_there:
        return bare
    rows, environment = there.epochs(), there.find(Environment)
    kept = kept_epoch(rows, run.config)
    if environment is None or kept is None:
        if bare.state != FINISHED:
            return bare
        name = FILES[Environment] if environment is None else METRICS
        raise PatchlightError(f"{run.folder / name} is missing or empty; {there.way_back(name)}")
    result, damaged = _test_result(there)
    images = _images(rows)
    return replace(
        bare,
        epoch=kept.epoch,
        val_top1=kept.val_top1,
        val_n=environment.data.val,
        test_top1=None if result is None else result.top1,
        test_n=None if result is None else result.n,
        test_before=result is not None and not tested,
        val_digest=environment.data.digests.get("val"),
        reason=damaged or bare.reason,
        curve=tuple(
            StudyPoint(epoch=row.epoch, step=row.step, images=seen, wall_s=row.wall_s, val_top1=row.val_top1)
            for row, seen in zip(rows, images, strict=True)
        ),
        params=environment.model.params,
        train_flops=train_flops(environment.model.flops_per_image, images[-1]),
        train_wall_s=environment.time.train_wall_s if environment.time else rows[-1].wall_s,
        memory_gb=environment.time.memory_gb if environment.time else None,
        machine=_machine(environment),
        git_commit=environment.current.git_commit,
    )


def _test_result(run: Run) -> tuple[EvalResult | None, str | None]:
    """The test result, or what is wrong with it. It says nothing of the run's validation, by which is chosen."""
    try:
        return run.find(EvalResult), None
    except PatchlightError as error:
        return None, f"its test result cannot be read: {error}"


def _images(rows: Sequence[Epoch]) -> list[int]:
    """Training images seen up to the end of each epoch."""
    seen, counts = 0.0, []
    for row in rows:
        seen += row.images_per_s * row.epoch_s
        counts.append(round(seen))
    return counts


def _machine(environment: Environment) -> str:
    now = environment.current
    where = now.hardware.gpu or now.hardware.cpu or now.hardware.device
    threads = f", {counted(now.threads, 'thread')}" if now.hardware.device == "cpu" else ""
    return f"{where}, {now.precision}{threads}"
