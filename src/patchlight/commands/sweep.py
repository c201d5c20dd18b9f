"""`patchlight sweep`: try settings of a recipe, and end in the best recipe and a picture of what mattered."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from patchlight.commands.train import train as train_run
from patchlight.commands.train import with_full_paths
from patchlight.config import GIVEN, Config
from patchlight.config.fields import Duration
from patchlight.data.images import digest
from patchlight.data.sources import SOURCES
from patchlight.data.splits import load_splits
from patchlight.errors import Interrupted, PatchlightError, Terminated, UsageError
from patchlight.machine.process import import_library
from patchlight.models.loading import pin_checkpoints
from patchlight.models.reference import folder_of
from patchlight.paths import is_there, user_path
from patchlight.progress import say
from patchlight.reporting.files import write_file
from patchlight.runs import Run, recipe_of
from patchlight.runs.settings import word
from patchlight.runs.sweep import FAILED, FINISHED, PRUNED, SweepResult
from patchlight.studies.identity import as_begun
from patchlight.studies.ranges import Value, read_ranges
from patchlight.studies.sweep import DEFAULT_TRIALS, OnEpoch, Plan, Worker, shuffled_grid, states_in_words
from patchlight.studies.sweep_journal import is_journal
from patchlight.studies.sweep_ledger import Slot, slots_of
from patchlight.studies.sweep_result import RECORD, make_result, read_record, write_pages, write_record, written_by_one
from patchlight.studies.sweep_storage import JOURNAL, check_names, join_study, open_storage, study_name
from patchlight.studies.workers import run_workers
from patchlight.units import counted

BASE = ".sweep-recipe.toml"  # the recipe that the sweep began with, by which its folder is known from the beginning
LOGS = "workers"  # the folder of what the workers say, with --workers


def sweep(
    recipe: str | Config,
    ranges: Mapping[str, str | Sequence[Value]] | Sequence[str],
    settings: Mapping[str, Any] | None = None,
    *,
    trials: int | None = None,
    time: str | None = None,
    sampler: str = "tpe",
    pruner: str = "median",
    seed: int = 0,
    out: str | Path | None = None,
    storage: str | None = None,
    workers: int = 1,
    retry_failed: bool = False,
) -> SweepResult:
    """Search the `ranges` of a recipe's settings, as {"optim.lr": "1e-4..1e-2:log", "model.depth": [2, 4]}.

    Each of the `trials` (default: 30; of a grid all; with `time`, as many as it allows) trains the recipe with other
    settings and is judged by its validation; the test images are not read. `out` (default: runs/NAME-sweep) gets
    `best.toml`, `sweep.json`, `README.md`, figures, and a run folder for each trial. `settings` are laid over the
    recipe in all trials. The same call goes on with a sweep that was stopped, in as many processes and on as many
    machines as share `out`, or the database `storage`.

    sampler: "tpe" (Bergstra et al. 2011), "random" or "grid". pruner: "median", "hyperband" (Li et al. 2018) or "none":
    how a trial that is clearly behind is ended. time: such as "90s", "10m" or "1h30m", after which no trial begins, and
    those that train stop at their next epoch. workers: processes on this machine.

    Raises UsageError for a range, setting or name that is wrong, before anything is trained, and where `out` has
    another sweep; PatchlightError where all trials fail alike; Interrupted or KeyboardInterrupt after a signal.
    """
    import_library("optuna", "sweep")
    plan = make_plan(recipe, ranges, settings or {}, trials, time, sampler, pruner, seed, out)
    if workers < 1:
        raise UsageError(f"--workers must be at least 1, not {workers}")
    until = None if time is None else _now() + Duration(time).seconds
    opened, shown = open_storage(storage, plan.folder)
    if not (plan.folder / BASE).exists():
        write_file(plan.folder / BASE, plan.base.to_toml().encode())
    name = study_name(opened, storage, plan.name, shown)
    study = join_study(opened, name, plan.to_storage(), "minimize" if plan.is_lower_better else "maximize", shown)
    check_not_fewer(plan, slots_of(study.get_trials(deepcopy=False), None), shown)

    def keep(slots: list[Slot]) -> None:
        with written_by_one(plan.folder):
            write_record(plan, make_result(plan, study, slots, shown, is_end=False))

    worker = Worker(plan, study, _train, _digests, keep, until)
    if retry_failed and (count := worker.try_failed_again()):
        say(f"{counted(count, 'failed trial')} will be tried again")
    before = worker.slots()
    if any(slot.is_over for slot in before):
        say(f"{plan.folder}: the sweep goes on ({states_in_words(before)})")
    try:
        if workers == 1:
            worker.work()
        else:
            with _given_to_workers(plan) as path:
                words = _own_command(plan, path, time, storage)
                run_workers(words, workers, plan.folder / LOGS, _follower(worker), "the trials")
    except PatchlightError as error:
        # A worker's command fails, too, where all trials have: that is an answer, which is written.
        if isinstance(error, Interrupted):
            raise _stopped(error, worker) from None
        if workers == 1 or not worker.are_over(worker.slots()):
            raise
    except KeyboardInterrupt as stopped:
        raise _stopped(stopped, worker) from None
    with written_by_one(plan.folder):
        result = make_result(plan, study, worker.slots(), shown)
        write_record(plan, result)
        write_pages(plan, result)
    return result


def make_plan(
    recipe: str | Config,
    ranges: Mapping[str, str | Sequence[Value]] | Sequence[str],
    settings: Mapping[str, Any],
    trials: int | None,
    time: str | None,
    sampler: str,
    pruner: str,
    seed: int,
    out: str | Path | None,
) -> Plan:
    """What is to be searched, checked as far as it can be before anything is trained. Raises UsageError."""
    check_names(sampler, pruner)
    if trials is not None and trials < 1:
        raise UsageError(f"--trials must be at least 1, not {trials}")
    if time is not None and not 0 < Duration(time).seconds < float("inf"):
        raise UsageError(f"--time must be such as 90s, 10m or 1h30m, not '{time}'")
    if seed < 0:
        raise UsageError(f"--seed must be at least 0, not {seed}")
    base = in_full(recipe_of(recipe, settings))
    if base.data.source == GIVEN:
        raise UsageError("a sweep reads its images itself; write them into a file (.npz) and name it in data.source")
    axes = read_ranges(base, ranges)
    if both := next((axis.field for axis in axes if axis.field in settings), None):
        raise UsageError(f"{both} has a range and a value; leave out --{both}")
    if base.data.val_per_class is None and base.data.val_split is None and base.data.val_fraction == 0:
        raise UsageError("a sweep needs validation images to choose by; set --data.val_fraction above 0")
    grid = shuffled_grid(axes, seed) if sampler == "grid" else None
    if grid is not None:
        trials = len(grid) if trials is None else min(trials, len(grid))
    elif trials is None and time is None:
        trials = DEFAULT_TRIALS
    folder = user_path(out) if out is not None else Path("runs") / f"{base.about.name}-sweep"
    check_place(folder)
    return Plan(folder.resolve().name, base, axes, folder, sampler, pruner, seed, trials, grid, _digests(base))


def check_place(folder: Path) -> None:
    """Raises UsageError where the folder holds something else than a sweep, whose files would be replaced."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose a folder for the sweep with --out")
    if any((folder / name).is_file() for name in (RECORD, BASE)) or is_journal(folder / JOURNAL):
        return
    if inside := sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")):
        raise UsageError(
            f"{folder} has files that are no sweep's ({inside[0]}), which would be replaced; choose a new or an empty "
            "folder with --out"
        )


def check_not_fewer(plan: Plan, slots: list[Slot], where: str) -> None:
    """Raises UsageError where trials that are done would be forgotten: by fewer `--trials`, or by a storage that does
    not have them.
    """
    recorded = 0
    with contextlib.suppress(PatchlightError):  # there is no record, or it is damaged and is written anew
        recorded = sum(trial.state in (FINISHED, PRUNED, FAILED) for trial in read_record(plan.folder).trials)
    if recorded > len(slots):
        raise UsageError(
            f"{plan.folder / RECORD} tells of {counted(recorded, 'trial')} and {where} of {len(slots)}; give the "
            "--storage that the sweep was started with, or choose another --out"
        )
    done = [slot.number + 1 for slot in slots if slot.is_over]
    if plan.trials is not None and done and done[-1] > plan.trials:
        words = f"{counted(len(done), 'trial')} are done" if len(done) == done[-1] else f"trial {done[-1]} is done"
        raise UsageError(f"{words}; --trials must be at least {done[-1]}")


def in_full(config: Config) -> Config:
    """The recipe with all of its paths in full, and a run's `checkpoints/last` as the one that is the newest now:
    `best.toml` is to mean the same images and weights wherever it is trained, and all trials begin with the same.
    """
    config = pin_checkpoints(with_full_paths(config))
    source = config.data.source
    if source not in SOURCES and not source.startswith("hf:") and is_there(user_path(source)):
        source = str(user_path(source).resolve())
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, source=source),
        model=dataclasses.replace(config.model, name=_name_in_full(config.model.name)),
        train=dataclasses.replace(config.train, teacher=config.train.teacher and _name_in_full(config.train.teacher)),
    )


def _name_in_full(name: str) -> str:
    """A model's name, with the whole path where it is a folder."""
    folder = folder_of(name)
    begin = name[: len("local-dir:")] if name.startswith("local-dir:") else ""
    return name if folder is None else f"{begin}{folder.resolve()}"


def _now() -> float:
    return time.monotonic()


def _train(config: Config, folder: Path, on_epoch: OnEpoch) -> None:
    gc.collect()  # a model of the last trial, before the next one is built
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    run = Run(folder)
    own = as_begun(config, run.config()) if run.is_run else {}
    if own:
        say(f"{folder} goes on as it was begun, with {', '.join(f'{key} {word(value)}' for key, value in own.items())}")
    train_run(config, own, out=folder, resume=run.is_there, on_epoch=on_epoch)


def _digests(config: Config) -> dict[str, str]:
    return {name: digest(images) for name, images in load_splits(config.data, config.model.img_size).sets.items()}


def _stopped(stopped: BaseException, worker: Worker) -> BaseException:
    """The same end in the words of a sweep."""
    slots = worker.slots()
    is_term = isinstance(stopped, Terminated) or getattr(stopped, "number", None) == signal.SIGTERM
    number = signal.SIGTERM if is_term else signal.SIGINT
    words = f"the sweep was stopped by {number.name} ({states_in_words(slots)}); repeat the command to go on"
    if isinstance(stopped, Interrupted):
        return Interrupted(words, number)
    return type(stopped)(words)


@contextlib.contextmanager
def _given_to_workers(plan: Plan) -> Iterator[Path]:
    """The file of the recipe for the workers of this command alone: those of another one may have other settings of
    those that do not count, as train.device.
    """
    path = plan.folder / LOGS / f"{platform.node()}-{os.getpid()}.toml"
    write_file(path, plan.base.to_toml().encode())
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _own_command(plan: Plan, path: Path, time_given: str | None, storage: str | None) -> list[str]:
    """What a worker of this machine is started with; `path` is that of its recipe."""
    words = [sys.executable, "-m", "patchlight", "sweep", str(path)]
    words += [f"{axis.field}={axis.text}" for axis in plan.axes]
    words += ["--out", str(plan.folder), "--sampler", plan.sampler, "--pruner", plan.pruner, "--seed", str(plan.seed)]
    words += ["--trials", str(plan.trials)] if plan.trials is not None else []
    words += ["--time", time_given] if time_given else []
    return words + (["--storage", storage] if storage else [])


def _follower(worker: Worker) -> Callable[[], None]:
    """A function that says of each trial how it ended, once."""
    told = {slot.number for slot in worker.slots() if slot.is_over}

    def follow() -> None:
        for slot in worker.slots():
            if slot.is_over and slot.number not in told:
                told.add(slot.number)
                value = "" if slot.last.value is None else f", {worker.plan.words} {slot.last.value:.4f}"
                reason = f": {slot.reason}" if slot.reason else ""
                say(f"trial {slot.number + 1} {slot.state}{value}{reason}")

    return follow
