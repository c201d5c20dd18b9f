"""`patchlight study`: many runs as one experiment, and its answer."""

from __future__ import annotations

import dataclasses
import operator
import shlex
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from patchlight.commands.train import train
from patchlight.config.study import Settings, Study
from patchlight.config.study_file import load_study, sizes_of, study_names, study_of_one
from patchlight.errors import Interrupted, PatchlightError, Terminated, UsageError
from patchlight.paths import user_path
from patchlight.progress import say
from patchlight.reporting.study_page import write_study
from patchlight.runs import Epoch, Run
from patchlight.runs.checkpoints import FOLDER
from patchlight.runs.lock import InUse
from patchlight.runs.settings import word
from patchlight.runs.study import FAILED, FINISHED, REUSED, WAITING, StudyResult
from patchlight.studies.claims import Claims
from patchlight.studies.cost import StudyCost, study_cost
from patchlight.studies.folder import StudyFolder, was_tested
from patchlight.studies.identity import as_begun
from patchlight.studies.plan import Plan, PlannedRun, make_plan
from patchlight.studies.result import make_result
from patchlight.studies.work import POLL_S, Worker
from patchlight.studies.workers import ParentEnded, run_workers
from patchlight.training.checkpoint import list_checkpoints
from patchlight.units import counted, percent

DEFAULT_PLACE = Path("studies")
POOL = "runs"  # the folder of all runs, beside those of the studies
LOGS = "workers"


def study(
    file: str | Path,
    settings: Mapping[str, Any] | None = None,
    *,
    size: str | None = None,
    seeds: Sequence[int] | str | None = None,
    test: str | None = None,
    workers: int | None = None,
    out: str | Path | None = None,
    runs: str | Path | None = None,
    dry_run: bool = False,
    wait: bool = True,
) -> StudyResult | StudyCost:
    """Train the runs of a study (a name, or a TOML file), as far as they are not there, and answer its question.

    `settings` such as {"train.batch_size": 64} are laid over the recipe of all variants; `size` is one of the file's
    sizes (default: its first); `seeds`, `test` and `workers` are in place of those of its [study]. The study's folder
    is `out`, or `studies/NAME`; those of its runs are `runs`/KEY, or `runs` beside the study's folder, where other
    studies find them. A study that was stopped goes on with the same call, and any number of processes and machines
    that share these folders may work on it. One that finds nothing left to do waits for the others, unless `wait` is
    false. With `dry_run` nothing is trained: some steps of each variant are timed.

    Raises UsageError or PatchlightError for what is wrong with the file, the recipes or the data, before anything is
    trained; Interrupted or KeyboardInterrupt after a signal. A run that fails is said and counted.
    """
    options = {"seeds": _seeds(seeds), "test": test, "workers": workers}
    given = {key: value for key, value in options.items() if value is not None}
    loaded = load_study(file, size, given, dict(settings or {}))
    named = loaded.name if loaded.size == loaded.default_size else f"{loaded.name}-{loaded.size}"
    place = user_path(out) if out is not None else DEFAULT_PLACE / named
    words = _command(file, size, given, settings or {}, out, runs)
    return run_study(loaded, place, words, pool=runs, dry_run=dry_run, wait=wait, sizes=sizes_of(file))


def study_or_list(
    file: str | None,
    *,
    settings: Mapping[str, Any],
    size: str | None,
    seeds: str | None,
    test: str | None,
    workers: int | None,
    out: Path | None,
    runs: Path | None,
    dry_run: bool,
    wait: bool,
) -> StudyResult | StudyCost | list[Study]:
    """`patchlight study`: without a name, those that come with Patchlight."""
    if file is None:
        given = {"size": size, "seeds": seeds, "test": test, "workers": workers, "out": out, "runs": runs}
        asked = [f"--{name}" for name, value in given.items() if value is not None] + [f"--{key}" for key in settings]
        asked += [*(["--dry-run"] if dry_run else []), *([] if wait else ["--no-wait"])]
        if asked:
            raise UsageError(
                f"{asked[0]} is for a study; name one before it: {', '.join(study_names())}, or a TOML file"
            )
        return [load_study(name) for name in study_names()]
    return study(
        file,
        settings,
        size=size,
        seeds=seeds,
        test=test,
        workers=workers,
        out=out,
        runs=runs,
        dry_run=dry_run,
        wait=wait,
    )


def train_seeds(
    recipe: str, settings: Mapping[str, Any] | None, seeds: Sequence[int] | str, *, out: str | Path | None = None
) -> StudyResult:
    """Train a recipe with several seeds, read the test images of each, and give the means: a study of one variant."""
    numbers = _seeds(seeds)
    assert numbers is not None
    own = dict(settings or {})
    untested = str(own.pop("eval.test", True)).lower() == "false"
    loaded = study_of_one(recipe, tuple(numbers), own, test="none" if untested else "chosen")
    place = user_path(out) if out is not None else DEFAULT_PLACE / loaded.name
    words = ["patchlight", "train", recipe, *_words_of(settings or {}), "--seeds", ",".join(map(str, numbers))]
    result = run_study(loaded, place, [*words, *(["--out", str(out)] if out else [])])
    assert isinstance(result, StudyResult)
    return result


def run_study(
    study: Study,
    place: Path,
    command: Sequence[str],
    *,
    pool: str | Path | None = None,
    dry_run: bool = False,
    wait: bool = True,
    sizes: tuple[str, ...] = (),
) -> StudyResult | StudyCost:
    """Plan, work and answer."""
    folder, pool = StudyFolder(place), user_path(pool) if pool is not None else place.parent / POOL
    if folder.path.resolve() == pool.resolve():
        raise UsageError(f"{place} is where the runs are kept; choose another place for the study with --out")
    folder.check_place(study.name)
    plan = make_plan(study, pool)
    for note in plan.notes:
        say(note)
    if dry_run:
        return study_cost(plan, folder, pool, sizes)
    _say_what_is_replaced(folder, command)
    worker = Worker(plan, folder, _train, Claims(study.options.lease.seconds))
    for run in plan.distinct if wait else ():  # what failed is tried again, but not by each of many workers
        if worker.state_of(run) == FAILED:
            folder.forget(run)
    say(_beginning(plan, worker))
    try:
        if study.options.workers > 1:
            children = [sys.executable, "-m", *command, "--workers", "1", "--no-wait"]
            follow = _follower(plan, worker)
            run_workers(
                children, study.options.workers, place / LOGS, follow, "the runs", is_left=lambda: is_left(plan, worker)
            )
        others = worker.work(wait=wait)
    except (Interrupted, KeyboardInterrupt) as stopped:
        raise _stopped(stopped, worker) from None
    if others:
        say(
            f"{counted(len(others), 'run')} in other hands; the same command without --no-wait writes the answer when "
            "they are finished"
        )
        return make_result(plan, folder, command)
    with folder.answering():
        result = dataclasses.replace(_tested(plan, folder, command), folder=str(folder.path))
        write_study(folder.path, result)
    return result


def _train(run: PlannedRun, on_epoch: Callable[[Epoch], None] | None, *, test: bool = False) -> None:
    """Train a run in its folder, or go on with it; with `test` its test images are read, too."""
    there = Run(run.folder)
    settings = {**run.settings, **_as_begun(run, there), "eval.test": test}
    train(run.variant.recipe, settings, out=run.folder, resume=there.is_there, on_epoch=on_epoch)


def _as_begun(run: PlannedRun, there: Run) -> Settings:
    """The settings that a run was begun with by another study, or on another machine, which is said."""
    own = as_begun(run.config, there.config()) if there.is_run else {}
    if own:
        words = ", ".join(f"{key} = {word(value)}" for key, value in own.items())
        say(f"{run.name}: it was begun with {words}, and so goes on with that")
    return own


def _read_test_images(run: PlannedRun) -> None:
    """Read the test images of a finished run, once; one that another study reads at this moment is waited for.

    Raises PatchlightError where its checkpoints are gone: it would be trained once more.
    """
    told = False
    if not was_tested(run) and not list_checkpoints(run.folder / FOLDER):
        raise PatchlightError(
            f"{run.folder} has no checkpoint any more; bring it back, or delete the folder to train the run anew"
        )
    while not was_tested(run):
        try:
            _train(run, None, test=True)
        except InUse as error:
            if not told:
                say(f"{run.name}: {error}; it is waited for")
            told = True
            time.sleep(POLL_S)


def _tested(plan: Plan, folder: StudyFolder, command: Sequence[str]) -> StudyResult:
    """The answer, for which the test images of the variant that validation chose are read, or of all, or of none."""
    result = make_result(plan, folder, command)
    test = plan.study.options.test
    finished = {run.key for run in result.runs if run.state == FINISHED}
    wanted = [run for run in plan.runs if run.key in finished and test != "none"]
    wanted = [run for run in wanted if test == "all" or run.variant.name == result.chosen]
    unread: list[str] = []
    for run in wanted:
        if not was_tested(run):
            say(f"study {plan.study.name}: the test images are read for {run.name}")
            try:
                _read_test_images(run)
                note = folder.note(run)
                folder.write_note(run, REUSED if note is None else note.state, tested=True)
            except Interrupted:
                raise
            except PatchlightError as error:
                unread.append(f"the test images could not be read for {run.name}: {error}")
                say(unread[-1])
    return make_result(plan, folder, command, unread) if wanted else result


def is_left(plan: Plan, worker: Worker) -> bool:
    """Whether a run is still to be trained."""
    return any(worker.state_of(run) == WAITING for run in plan.distinct)


def _say_what_is_replaced(folder: StudyFolder, command: Sequence[str]) -> None:
    """Where the folder has the answer of another command."""
    try:
        before = folder.result()
    except PatchlightError:  # which was said
        return
    if before is not None and before.command != shlex.join(command):
        say(f"{folder.path} has the answer of `{before.command}`, which this one replaces; --out would keep both")


def _beginning(plan: Plan, worker: Worker) -> str:
    states = [worker.state_of(run) for run in plan.distinct]
    waiting, study = states.count(WAITING), plan.study
    size = f" (size {study.size})" if study.size else ""
    counts = f"{counted(len(study.variants), 'variant')}, {counted(len(study.options.seeds), 'seed')} each"
    left = f"{waiting} of {counted(len(states), 'run')} to train"
    return f"study {study.name}{size}: {counts}; {study.budget.words}; {left}"


def _stopped(stopped: BaseException, worker: Worker) -> BaseException:
    """The same end in the words of a study."""
    if isinstance(stopped, ParentEnded):
        return stopped
    is_term = isinstance(stopped, Terminated) or getattr(stopped, "number", None) == signal.SIGTERM
    number = signal.SIGTERM if is_term else signal.SIGINT
    done = sum(worker.state_of(run) != WAITING for run in worker.plan.distinct)
    words = (
        f"the study was stopped by {number.name}; {done} of {counted(len(worker.plan.distinct), 'run')} are done, and "
        "the same command goes on"
    )
    return Interrupted(words, number) if isinstance(stopped, Interrupted) else type(stopped)(words)


def _follower(plan: Plan, worker: Worker) -> Callable[[], None]:
    """Says of each run how it ended, once."""
    told = {run.key for run in plan.distinct if worker.state_of(run) != WAITING}

    def follow() -> None:
        for run in plan.distinct:
            if run.key not in told and (state := worker.state_of(run)) != WAITING:
                told.add(run.key)
                note = worker.folder.note(run)
                reason = f": {note.reason}" if note is not None and note.reason else ""
                kept = [row.val_top1 for row in Run(run.folder).epochs() if row.val_top1 is not None and row.best]
                score = f", {percent(kept[-1], 1)} validation" if kept and state == FINISHED else ""
                say(f"{len(told)} of {counted(len(plan.distinct), 'run')}: {run.name} {state}{score}{reason}")

    return follow


def _seeds(seeds: Sequence[int] | str | None) -> list[int] | None:
    """ "0,1,2" or numbers as a list. Raises UsageError for what is none."""
    if seeds is None:
        return None
    try:
        return [int(each) for each in seeds.split(",")] if isinstance(seeds, str) else [*map(operator.index, seeds)]
    except (TypeError, ValueError):
        raise UsageError(
            f"--seeds must be whole numbers with commas between them, as in 0,1,2, not '{seeds}'"
        ) from None


def _command(
    study: str | Path,
    size: str | None,
    options: Mapping[str, Any],
    settings: Settings | Mapping[str, Any],
    out: str | Path | None,
    runs: str | Path | None,
) -> list[str]:
    """What to type to get this study again, or another worker of it."""
    words = ["patchlight", "study", str(study)]
    for name, value in {"size": size, **options, "out": out, "runs": runs}.items():
        if value is not None and name != "workers":
            words += [f"--{name}", ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return [*words, *_words_of(settings)]


def _words_of(settings: Mapping[str, Any]) -> list[str]:
    return [word for key, value in settings.items() for word in (f"--{key}", _word(value))]


def _word(value: Any) -> str:
    """A value as a command line has it: true, not Python's True."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value) if isinstance(value, tuple) else value)
