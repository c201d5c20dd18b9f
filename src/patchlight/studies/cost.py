"""What a study will cost on this machine, from a few real steps of each variant."""

from __future__ import annotations

import datetime
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from patchlight.data.splits import load_splits
from patchlight.machine.device import resolve_device
from patchlight.machine.process import cpu_threads, forget_peak_memory, peak_memory_gb, tune_process
from patchlight.models.summary import count
from patchlight.progress import say
from patchlight.runs import Run
from patchlight.runs.codec import Record
from patchlight.runs.study import FAILED, WAITING
from patchlight.studies.folder import StudyFolder, is_finished
from patchlight.studies.plan import Plan, PlannedRun, train_flops
from patchlight.training.budget import Pace, finish_s, plan_steps
from patchlight.training.loop import Trainer
from patchlight.training.rehearsal import rehearse
from patchlight.training.setup import prepare
from patchlight.training.stage import Stage
from patchlight.training.state import TrainState

TRIAL_S = 1.0  # of steps that are timed for a variant


@dataclass(frozen=True, kw_only=True)
class VariantCost(Record):
    """A variant's runs, and what one of them takes."""

    name: str
    done: int  # runs that are finished
    left: int
    epochs: float
    steps: int
    images_per_s: float  # of training
    run_s: float  # with validation, without start-up
    train_flops: float  # of one run
    params: int
    memory_gb: float  # at most


@dataclass(frozen=True, kw_only=True)
class StudyCost(Record):
    """What `patchlight study --dry-run` says: nothing was trained."""

    name: str
    size: str | None
    sizes: tuple[str, ...] = ()
    budget: str
    why: str
    variants: tuple[VariantCost, ...]
    seeds: tuple[int, ...]
    runs: int  # in all
    left: int  # of them, each once
    seconds: float  # of training that is left, one run after the other
    train_flops: float  # of what is left
    finish_at: str  # ISO 8601, local: when one worker that begins now would be done
    device: str
    folder: str
    pool: str  # where the runs are
    notes: tuple[str, ...] = ()


def study_cost(plan: Plan, folder: StudyFolder, pool: Path, sizes: tuple[str, ...]) -> StudyCost:
    """Time some steps of each variant that has runs left."""
    prunes = plan.study.options.prune_after < 1
    # What failed is tried again by the command that trains.
    left = [run for run in plan.distinct if folder.state_of(run, prunes=prunes) in (WAITING, FAILED)]
    costs = {run.variant.name: _cost(run, plan, left) for run in plan.runs[: len(plan.study.variants)]}
    seconds = sum(costs[run.variant.name].run_s for run in left)
    now = datetime.datetime.now().astimezone()
    return StudyCost(
        name=plan.study.name,
        size=plan.study.size,
        sizes=sizes,
        budget=plan.study.budget.words,
        why=plan.study.why,
        variants=tuple(costs.values()),
        seeds=plan.study.options.seeds,
        runs=len(plan.distinct),
        left=len(left),
        seconds=seconds,
        train_flops=sum(costs[run.variant.name].train_flops for run in left),
        finish_at=(now + datetime.timedelta(seconds=seconds)).isoformat(timespec="seconds"),
        device=resolve_device(plan.study.options.device).type,
        folder=str(folder.path),
        pool=str(pool),
        notes=plan.notes,
    )


def _cost(run: PlannedRun, plan: Plan, left: list[PlannedRun]) -> VariantCost:
    config = run.config
    tune_process(resolve_device(config.train.device))
    forget_peak_memory()
    with cpu_threads(config.train.threads):
        sets = load_splits(config.data, config.model.img_size)
        setup = prepare(config, sets)
        paces = []
        with tempfile.TemporaryDirectory() as place:  # in which nothing is written
            for stage in setup.stages:
                stage.begin(setup.model)
                trainer = Trainer(stage, sets, Run(Path(place)), TrainState(total_steps=stage.total_steps))
                paces.append((stage, rehearse(trainer, TRIAL_S)))
    spans = list(_spans(paces))
    steps, seconds = sum(each for each, _ in spans), sum(each for _, each in spans)
    images = sum(stage.images_in(each) for (stage, _), (each, _) in zip(paces, spans, strict=True))
    size = count(setup.model, setup.card.img_size)
    own = plan.of(run.variant.name)
    keys = {each.key for each in left}
    waiting = sum(each.key in keys for each in own)
    say(f"timed {run.variant.name}: {images / seconds:,.0f} images/s with validation")
    return VariantCost(
        name=run.variant.name,
        done=sum(map(is_finished, own)),
        left=waiting,
        epochs=sum(each / stage.steps_per_epoch for (stage, _), (each, _) in zip(paces, spans, strict=True)),
        steps=steps,
        images_per_s=sum(stage.batch_size / pace.step_s for stage, pace in paces) / len(paces),
        run_s=seconds,
        train_flops=train_flops(size.flops_per_image, images),
        params=size.params,
        memory_gb=peak_memory_gb(setup.device),
    )


def _spans(paces: list[tuple[Stage, Pace]]) -> Iterator[tuple[int, float]]:
    """Steps and seconds of each stage; under a budget as many steps as fit into it."""
    for stage, pace in paces:
        if stage.budget_s:
            yield plan_steps(stage.budget_s, 0, pace, stage.steps_per_epoch), stage.budget_s
        else:
            yield stage.total_steps, finish_s(stage.total_steps, 0, pace, stage.steps_per_epoch)
