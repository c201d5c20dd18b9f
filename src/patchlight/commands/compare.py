"""`patchlight compare`: runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from patchlight.errors import PatchlightError, UsageError
from patchlight.evaluation.metrics import balanced_accuracy
from patchlight.progress import say
from patchlight.runs import Environment, EvalResult, Run, config_differences
from patchlight.runs.codec import JSON, Record


@dataclass(frozen=True, kw_only=True)
class ComparedRun(Record):
    """A run's test result, and what its model and its training cost."""

    run: str  # its folder
    model: str
    data: str
    n: int  # test images
    top1: float
    top1_ci95: tuple[float, float]
    balanced_accuracy: float  # mean accuracy of the classes that have test images
    params: int
    flops_per_image: int
    images_per_s: float | None  # of training
    train_wall_s: float | None


@dataclass(frozen=True, kw_only=True)
class Comparison(Record):
    """Runs, and the settings that differ between them: each with a value for each run, None where it is not set."""

    runs: tuple[ComparedRun, ...]
    differences: dict[str, tuple[JSON, ...]]


def compare(runs: Sequence[str | Path | Run]) -> Comparison:
    """The finished ones of these runs; the others are named on standard error and left out.

    Raises PatchlightError where one is not a run folder, or none has a test result.
    """
    if isinstance(runs, str | Path | Run):
        raise UsageError("compare takes a list of runs, as compare(['runs/a', 'runs/b'])")
    finished = []
    for run in map(Run.open, runs):
        if run.has(EvalResult):
            finished.append(run)
        else:
            say(f"{run.path} has no test result and is left out")
    if not finished:
        raise PatchlightError("none of these runs has a test result; finish one with `patchlight train ... --resume`")
    configs = [run.config() for run in finished]
    keys = {key for other in configs[1:] for key in config_differences(configs[0], other)}
    values = [config.flat() for config in configs]
    differences = {key: tuple(value.get(key) for value in values) for key in sorted(keys)}
    return Comparison(runs=tuple(summarize(run) for run in finished), differences=differences)


def summarize(run: Run) -> ComparedRun:
    result, environment = run.read(EvalResult), run.read(Environment)
    model, time = environment.model, environment.time
    return ComparedRun(
        run=str(run.path),
        model=model.name,
        data=result.data,
        n=result.n,
        top1=result.top1,
        top1_ci95=result.top1_ci95,
        balanced_accuracy=balanced_accuracy(result.confusion),  # which older results do not hold
        params=model.params,
        flops_per_image=model.flops_per_image,
        images_per_s=time.images_per_s if time else None,
        train_wall_s=time.train_wall_s if time else None,
    )
