"""`patchlight train`: from a recipe to a finished run folder."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from patchlight.commands.report import report
from patchlight.config import GIVEN, Config
from patchlight.data.splits import Splits, given_splits, load_splits
from patchlight.errors import PatchlightError, Terminated, UsageError
from patchlight.evaluation import evaluate as evaluation
from patchlight.evaluation.metrics import wilson_interval
from patchlight.machine.device import resolve_device
from patchlight.machine.memory import is_out_of_memory
from patchlight.machine.process import cpu_threads, forget_peak_memory, peak_memory_gb, tune_process
from patchlight.models import MODELS, check_model, load_model, own_input, pin_checkpoints, with_own_input
from patchlight.models.reference import folder_of
from patchlight.paths import is_folder, user_path
from patchlight.progress import say
from patchlight.runs import (
    Environment,
    Epoch,
    ReconstructionResult,
    Run,
    Samples,
    SubsetSamples,
    ValidationResult,
    kept_epoch,
    recipe_of,
    resources_changed,
)
from patchlight.runs.checkpoints import FOLDER, find_checkpoint
from patchlight.runs.codec import RecordError
from patchlight.training.checkpoint import card_so_far, list_checkpoints, read_state
from patchlight.training.checks import check_recipe
from patchlight.training.first_batch import first_batch
from patchlight.training.fit import fit
from patchlight.training.lines import batch_line
from patchlight.training.record import describe_run, describe_skipped, summary_line, time_of
from patchlight.training.resume import bring_back
from patchlight.training.room import check_disk, in_memory
from patchlight.training.setup import prepare
from patchlight.training.trackers.trackers import Trackers

Found = TypeVar("Found")


def train(
    recipe: str | Config,
    settings: Mapping[str, Any] | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    data: Any = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Run:
    """Train by a recipe (a name, a path or a Config), evaluate once on the test images, and write the report.

    With the setting eval.test = false no test image is read; `resume` with eval.test = true reads them later.

    `settings` such as {"train.epochs": 5} are laid over the recipe. The run folder is `out`, or `runs/NAME`. An
    existing one needs `resume` or `overwrite`; a finished one is not trained again.

    `data`, in place of data.source, are images that are at hand: `(images, labels)` as arrays, tensors or lists, an
    `ImageSet`, a data set of torch or of `datasets`, or a dictionary of these such as {"train": ..., "test": ...}. The
    run does not store them; to go on with it, or to measure it again, they are given again.

    `on_epoch` is called with the record of each epoch, after its checkpoint is saved. What it raises ends the training,
    which `resume` goes on with.

    Raises UsageError or PatchlightError for what is wrong with the recipe, the data or this machine, Interrupted after
    a signal between steps, when a checkpoint has been saved, and KeyboardInterrupt after one before and after training.
    """
    if on_epoch is not None and not callable(on_epoch):
        raise UsageError(f"on_epoch must be a function that takes an epoch's record, not {on_epoch!r}")
    if data is not None:
        if "data.source" in (settings or {}):
            raise UsageError("data.source and data=... both say what to train on; leave one of them out")
        settings = {**(settings or {}), "data.source": GIVEN}
    if resume and overwrite:
        raise UsageError("--resume goes on with a run and --overwrite replaces it; give one of them")
    run = Run(user_path(out) if out is not None else Path("runs") / recipe_of(recipe, settings).about.name)
    run.check_place()
    before = "went on" if resume else "began"
    with ends(f"before training {before}; nothing is lost: repeat the command"), run.held():
        # What cannot work is found before data are loaded, as far as it can be.
        if resume and not run.is_there:  # as of a job that was stopped before its first step
            say(f"there is no run at {run.path} yet; it is started")
            resume = False
        checkpoint = bring_back(run) if resume else None
        epochs_done = 0 if checkpoint is None else read_state(checkpoint).epochs_done
        config = with_full_paths(recipe_of(recipe, settings))
        started = run.config() if resume and run.is_run else None
        config = pin_checkpoints(config, started)
        run.check_free(config, resume=resume, overwrite=overwrite)
        if resume and run.has_result_of(config):
            say(f"{run.path} is finished; its report is built again")
            with Trackers(run, config) as trackers:
                trackers.begin(run.config())
                trackers.go_on(len(run.epochs()))
                _report(run)
                trackers.conclude()
            return run
        if overwrite:
            check_not_needed(run.path, config)
        check_model(config.model)
        check_recipe(config)
        for line in not_to_stay(config):
            say(line)
        command = command_line(recipe, settings or {}, config, out)
        tune_process(resolve_device(config.train.device))
        with Trackers(run, config) as trackers:
            with cpu_threads(config.train.threads):
                train_and_test(
                    run, config, started, data, command, trackers, epochs_done, overwrite=overwrite, on_epoch=on_epoch
                )
            _report(run)
            trackers.conclude()
        return run


def train_and_test(
    run: Run,
    config: Config,
    started: Config | None,
    data: Any,
    command: str,
    trackers: Trackers,
    epochs_done: int,
    *,
    overwrite: bool,
    on_epoch: Callable[[Epoch], None] | None,
) -> None:
    """Load the images, set up, train and read the test images. `started` is the recipe of a run that goes on, which
    keeps what was decided when it was started, after `epochs_done`.
    """

    def each_epoch(row: Epoch) -> None:
        trackers.epoch(row)
        if on_epoch is not None:
            with trackers.stopping():
                on_epoch(row)

    def begin_trackers() -> None:
        with ends("before training began; nothing is lost: repeat the command"):
            trackers.begin(run.config() if resume else config)

    resume = started is not None
    decided = started or with_own_input(config, own_input(config.model))
    model = dataclasses.replace(decided.model, grad_checkpointing=config.model.grad_checkpointing)
    data_now = dataclasses.replace(decided.data, source=config.data.source)  # they may have moved since
    config = dataclasses.replace(config, data=data_now, model=model)
    size = config.model.img_size
    sets = load_splits(config.data, size) if data is None else given_splits(data, config.data, size)
    for note in sets.notes:
        say(note)
    before = run.find(Environment) if resume else None
    setup = prepare(config, sets, before, card_so_far(run) if resume else None)
    changed = [] if started is None else resources_changed(started, config)
    if resume and before is None and list_checkpoints(run.path / FOLDER):
        changed.append("its environment.json was lost")
    environment = describe_run(setup, command, before, changed)
    batch, shown = first_batch(sets.train, setup.stages[0].config, setup.stages[0].card)
    if batch.errors:
        raise PatchlightError(batch.errors[0])
    check_disk(run, setup, overwrite=overwrite)
    with ends("before the first step; repeat the command with --resume"):
        Run.create(run.path, config, resume=resume, overwrite=overwrite, begin=begin_trackers)
        for record in (environment, batch, shown, describe_skipped(sets)):
            if record is not None:
                run.write(record)
        for line in (summary_line(environment), batch_line(batch), *batch.warnings):
            say(line)
        trackers.go_on(epochs_done)
    with ends("at once; `--resume` goes on from the newest checkpoint"):
        forget_peak_memory()
        state = fit(setup, run, resume=resume, on_epoch=each_epoch)
        memory_gb = peak_memory_gb(setup.device)
    with ends("after training, before its result was written; repeat the command with --resume, which trains no more"):
        record = run.read(Environment)
        if record.time is not None and record.time.memory_gb is not None:  # it was trained before, and only tested now
            memory_gb = max(memory_gb, record.time.memory_gb)
        run.write(dataclasses.replace(record, time=time_of(run.epochs(), state, memory_gb)))
        if config.train.task == "reconstruct":
            conclude_reconstruction(run, config)
        elif not config.eval.test:
            conclude_validation(run, config, sets)
        else:
            with in_memory(setup.stages[-1]):
                conclude(run, config, sets)


def _report(run: Run) -> None:
    with ends(f"before the report was written; `patchlight report {shlex.quote(str(run.path))}` writes it"):
        report(run.path)


@contextlib.contextmanager
def ends(when: str) -> Iterator[None]:
    """Ctrl-C or SIGTERM inside tells `when` it came and how to go on; it stays what it is, which no handler of errors
    in a user's program takes for one.
    """
    try:
        yield
    except KeyboardInterrupt as stopped:
        if stopped.args:  # it came further inside
            raise
        name = "SIGTERM" if isinstance(stopped, Terminated) else "SIGINT"
        raise type(stopped)(f"stopped by {name} {when}") from None


def with_full_paths(config: Config) -> Config:
    """The recipe with data.image_folder in full: relative to the current folder, it would mean another one later."""
    folder = config.data.image_folder
    if folder is None or not is_folder(user_path(folder)):  # it may be one of the source's own
        return config
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, image_folder=str(user_path(folder).resolve()))
    )


def models_named(config: Config) -> dict[str, str]:
    """The fields of a recipe that name a model, with its name."""
    named = {"model.name": config.model.name, "train.teacher": config.train.teacher}
    return {field: name for field, name in named.items() if name}


def not_to_stay(config: Config) -> Iterator[str]:
    """A line for each checkpoint of another run that is still in training, which may delete it."""
    for field, name in models_named(config).items():
        checkpoint = find_checkpoint(name) if name not in MODELS else None
        if checkpoint is not None and not checkpoint.run.finished:
            yield (
                f"{field}: {checkpoint.run.path} is not finished, and its training may delete {checkpoint.path.name}, "
                "which this run needs where it is resumed; copy the folder to be sure"
            )


def command_line(recipe: str | Config, settings: Mapping[str, Any], config: Config, out: str | Path | None) -> str:
    """What to type to get this run again, whatever --resume or --overwrite it took this time.

    Where a setting is the word `last`, it has the checkpoint of `config` that it stood for.
    """
    words = ["patchlight", "train", recipe if isinstance(recipe, str) else recipe.about.name]
    pinned = {key: name for key, name in models_named(config).items() if key in settings}
    for key, value in {**settings, **pinned}.items():
        words += [f"--{key}", str(list(value) if isinstance(value, tuple) else value)]
    return shlex.join([*words, "--out", str(out)] if out else words)


def check_not_needed(path: Path, config: Config) -> None:
    """Raises UsageError where the run would begin with what it is to replace."""
    for field, name in models_named(config).items():
        place = folder_of(name)
        if place is not None and place.resolve().is_relative_to(path.resolve()):
            raise UsageError(f"{field} is {name}, which --overwrite would delete; choose another folder with --out")


def conclude(run: Run, config: Config, data: Splits) -> None:
    """Read the test images, this once, with the selected weights; then record the result and what the page shows."""
    from patchlight.analysis.copies import find_copies, score_without
    from patchlight.analysis.faithfulness import measure_faithfulness
    from patchlight.analysis.insight import collect_insight
    from patchlight.analysis.samples import choose_samples, collect_samples

    model, card = load_model(run.path, resolve_device(config.train.device))
    source = config.data.source
    measure = functools.partial(
        evaluation.evaluate,
        model,
        card,
        data=source,
        batch_size=config.eval.batch_size,
        precision=config.eval.precision,
    )
    result, logits = measure(data.test, split="test", mirror=config.eval.mirror)
    if data.subset_test is not None:
        subset, subset_logits = measure(data.subset_test, split="subset_test")
        result = dataclasses.replace(result, subset_test=subset.metrics)
        run.write(choose_samples(SubsetSamples, data.subset_test, subset_logits, config.eval.gallery))
    if not config.train.debug:  # it takes 15 s for 60,000 images
        found, copies = find_copies(data)
        run.write(copies)
        result = dataclasses.replace(result, without_copies=score_without(found, logits, data.test.labels.numpy()))
    unexplained: list[str] = []
    each = config.eval.gallery
    samples = explained(
        "the maps of attention", lambda: collect_samples(model, card, data.test, logits, each), unexplained
    )
    samples = samples or choose_samples(Samples, data.test, logits, each)
    run.write(samples)
    if insight := explained("the insight into layers", lambda: collect_insight(model, card, samples), unexplained):
        run.write(insight)
    if config.explain.faithfulness:
        few = 2 if config.train.debug else config.explain.faithfulness
        measure_maps = functools.partial(measure_faithfulness, model, card, data.test, source, count=few)
        if table := explained("the table of faithfulness", measure_maps, unexplained):
            run.write(dataclasses.replace(table, run=str(run.path)))
    if unexplained:
        result = dataclasses.replace(result, unexplained=tuple(unexplained))
    run.write(result)  # last: it marks a run as finished


def explained(what: str, explain: Callable[[], Found], unexplained: list[str]) -> Found | None:
    """What `explain` finds. A network that trains may be one that cannot be explained after all, as one whose attention
    does not give its layer's output, all of whose attention does not fit into memory, or of which no record can be
    made: the run ends well without, and the reason is said and put into `unexplained`.
    """
    try:
        return explain()
    except (PatchlightError, RecordError, MemoryError, RuntimeError) as found:
        is_told = isinstance(found, PatchlightError | RecordError)
        if not is_told and not is_out_of_memory(found):
            raise
        error = found if is_told else "they take more memory than there is"
        reason = f"the report lacks {what}: {error}"
        say(reason)
        unexplained.append(reason)
        return None


def conclude_validation(run: Run, config: Config, data: Splits) -> None:
    """Record the validation of the weights that were kept. No test image is read."""
    kept, n = kept_epoch(run.epochs(), config), len(data.val or ())
    assert kept is not None, "it was trained"
    top1 = kept.val_top1
    interval = None if top1 is None else wilson_interval(round(top1 * n), n)
    run.write(ValidationResult(epoch=kept.epoch, n=n or None, top1=top1, top1_ci95=interval, loss=kept.val_loss))


def conclude_reconstruction(run: Run, config: Config) -> None:
    """Record the loss of the weights that were kept. Nothing is tested but what is trained from them later."""
    kept = kept_epoch(run.epochs(), config)
    assert kept is not None, "it was trained"
    run.write(ReconstructionResult(val_loss=kept.val_loss, epoch=kept.epoch))
