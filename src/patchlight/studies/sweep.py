"""A sweep: trials of a recipe with other settings, one after the other, by as many workers as there are.

Every worker runs the same loop. It asks Optuna for the next trial, trains it in a run folder that is named by its
settings, tells Optuna each epoch's validation, and ends a trial that is clearly behind. What a sweep has found is
written by `sweep_result.py`. The test images are not read.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import patchlight
from patchlight.config import Config, load_recipe
from patchlight.errors import Interrupted, LibraryMissing, PatchlightError
from patchlight.progress import say
from patchlight.runs import Epoch, Run, kept_epoch, measure_of
from patchlight.runs.codec import JSON
from patchlight.runs.lock import InUse
from patchlight.runs.sweep import FAILED, FINISHED, PRUNED, RUNNING, WAITING
from patchlight.studies.identity import known_by, run_key
from patchlight.studies.ranges import Axis, Value, combinations, grid_of
from patchlight.studies.sweep_ledger import (
    REASON,
    STOPPED,
    SURPLUS,
    Slot,
    Watch,
    claimed,
    place_of,
    queue_again,
    slots_of,
    take_over,
)
from patchlight.studies.sweep_storage import IMAGES, VERSION, make_pruner, make_sampler, quiet, suggest
from patchlight.units import counted

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import Trial

RUNS = "runs"  # the folder of the run folders
POLL_S = 1.0  # between two looks at what others do
ALIKE = 5  # so many trials that fail alike, and none that does not, end a sweep
DEFAULT_TRIALS = 30

OnEpoch = Callable[[Epoch], None]
Train = Callable[[Config, Path, OnEpoch], object]
Digests = Callable[[Config], Mapping[str, str]]


class Lost(Exception):
    """Another worker has this trial now."""


class OutOfTime(Exception):
    """The time of the sweep is over."""


@dataclass(frozen=True)
class Plan:
    """What a sweep searches, and how. All of its workers have the same one, but for `trials`."""

    name: str
    base: Config
    axes: tuple[Axis, ...]
    folder: Path
    sampler: str = "tpe"
    pruner: str = "median"
    seed: int = 0
    trials: int | None = DEFAULT_TRIALS  # in all; None: as many as the time allows
    grid: tuple[dict[str, Value], ...] | None = None  # in the order in which it is tried
    digests: Mapping[str, str] = field(default_factory=dict)  # of the base's images, by split

    @property
    def is_lower_better(self) -> bool:
        return self.base.train.task == "reconstruct"

    @property
    def measure(self) -> str:
        """What chooses, as `metrics.jsonl` names it."""
        return "val/loss" if self.is_lower_better else measure_of(self.base.train.select).key

    @property
    def words(self) -> str:
        return f"validation {'loss' if self.is_lower_better else measure_of(self.base.train.select).words}"

    @property
    def epochs(self) -> float | None:
        """Of each training; None where it is not known, or trials have different ones."""
        swept = any(axis.field.endswith(("train.epochs", "train.budget")) for axis in self.axes)
        stages = self.base.of_stages()
        if swept or any(stage.train.budget for stage in stages):
            return None
        return sum(stage.train.epochs for stage in stages)

    def value_of(self, row: Epoch) -> float | None:
        """What an epoch is worth."""
        return row.val_loss if self.is_lower_better else measure_of(self.base.train.select).of(row)

    def is_exhausted(self, slots: Sequence[Slot]) -> bool:
        """Whether all combinations of settings there are have been begun, so that a further trial would repeat one."""
        count = combinations(self.axes)
        return count is not None and len({key_of(slot.params) for slot in slots if slot.params}) >= count

    def of_trial(self, params: Mapping[str, Value], number: int) -> Config:
        """The recipe of a trial, the `number`th."""
        train = self.base.train
        name = train.track_name or (f"{self.name}, trial {number}" if train.track else None)
        return load_recipe(self.base, dict(params) | {"eval.test": False, "train.track_name": name})

    def to_storage(self) -> dict[str, Any]:
        """What must be the same of all workers: the recipe as far as it counts, its images and weights by their bytes,
        the ranges, how they are searched, and the version.
        """
        settings, weights = known_by(self.base)
        recipe = {key: _plain(value) for key, value in settings.items()}
        recipe |= {field: f"the weights {digest[:12]}" for field, digest in weights.items()}
        ranges = {f"the range of {axis.field}": axis.text for axis in self.axes}
        return {
            "recipe": recipe,
            "ranges": ranges,
            "--sampler": self.sampler,
            "--pruner": self.pruner,
            "--seed": self.seed,
            IMAGES: {name: digest for name, digest in self.digests.items() if name in ("train", "val")},
            VERSION: patchlight.__version__,
        }


def key_of(params: Mapping[str, Any]) -> str:
    """Equal for equal settings."""
    return repr(sorted(params.items()))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, str) else value


def shuffled_grid(axes: tuple[Axis, ...], seed: int) -> tuple[dict[str, Value], ...]:
    """The points of a grid in a random order, so that the first N of them are a fair sample of it."""
    points = grid_of(axes)
    return tuple(sorted(points, key=lambda point: seed_of(seed, repr(sorted(point.items())))))


def seed_of(*parts: object) -> int:
    """A seed of 32 bits that depends on all parts."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")


@dataclass
class Worker:
    """One of the processes that work on a sweep."""

    plan: Plan
    study: Study
    train: Train
    digests: Digests
    after_trial: Callable[[list[Slot]], None] = lambda slots: None
    until: float | None = None  # of time.monotonic()
    watch: Watch = field(default_factory=Watch)
    _known: dict[str, Mapping[str, str]] = field(default_factory=dict)  # digests, by the recipe's data

    def slots(self) -> list[Slot]:
        """The sweep's trials as they are now."""
        return slots_of(self.study.get_trials(deepcopy=False), self.plan.trials)

    def work(self) -> list[Slot]:
        """Try one trial after the other until all are over, or the time is. The trials.

        Raises PatchlightError where all fail for the same reason, Interrupted and KeyboardInterrupt after a signal.
        """
        told = False
        while True:
            slots = self.slots()
            for slot in take_over(self.study, slots, self.watch):
                say(f"trial {slot.number + 1}: its worker has ended; it is taken over")
                slots = self.slots()
            self._check_alike(slots)
            if self.is_out_of_time or self.are_over(slots):
                return slots
            is_free = (self.plan.trials is None or len(slots) < self.plan.trials) and not self.plan.is_exhausted(slots)
            if is_free or any(slot.last.state.name == "WAITING" for slot in slots):
                with contextlib.suppress(OutOfTime):  # it goes on when the command is repeated
                    self._next_trial(slots)
                told = False
                continue
            if not told:
                others = sum(slot.state == RUNNING for slot in slots)
                say(f"waiting for {counted(others, 'trial')} of other workers, to take over where one has ended")
                told = True
            time.sleep(POLL_S)

    def try_failed_again(self) -> int:
        """Queue the failed trials again; how many there are."""
        failed = [slot for slot in self.slots() if slot.state == FAILED]
        for slot in failed:
            queue_again(self.study, slot, again=True)
        return len(failed)

    @property
    def is_out_of_time(self) -> bool:
        return self.until is not None and time.monotonic() >= self.until

    def are_over(self, slots: list[Slot]) -> bool:
        """Whether nothing is left to do."""
        is_full = self.plan.trials is not None and len(slots) == self.plan.trials
        return (is_full or self.plan.is_exhausted(slots)) and all(slot.is_over for slot in slots)

    def _check_alike(self, slots: list[Slot]) -> None:
        """Raises PatchlightError where it is clear that no trial will do, which one sentence explains."""
        if any(not slot.is_over for slot in slots) or any(slot.state != FAILED for slot in slots):
            return
        reasons = {slot.reason for slot in slots}
        if len(slots) >= ALIKE and len(reasons) == 1:
            raise PatchlightError(
                f"the first {len(slots)} trials failed alike, so no more are tried: {reasons.pop()}; mend that and "
                "repeat the command with --retry-failed, or change the ranges with another --out"
            )

    def _next_trial(self, slots: list[Slot]) -> None:
        """Take a trial, train it, and tell what came of it."""
        from optuna.trial import TrialState

        plan, study = self.plan, self.study
        # What TPE draws at once depends on who asks, where others ask, too: they are not to draw the same.
        others = [slot.last.user_attrs.get("claim") for slot in slots if slot.state == RUNNING]
        study.sampler = make_sampler(plan.sampler, seed_of(plan.seed, len(slots), others))
        study.pruner = make_pruner(plan.pruner, plan.epochs)
        with quiet():
            trial = study.ask()
        with claimed(trial) as lost:
            slot = place_of(self.slots(), trial.number)
            if slot is None:  # others were faster
                trial.set_user_attr(SURPLUS, True)
                study.tell(trial, state=TrialState.FAIL)
                return
            point = None if plan.grid is None else plan.grid[slot.number]
            study.sampler = make_sampler(plan.sampler, seed_of(plan.seed, slot.number), point)
            with quiet():
                params = suggest(trial, plan.axes)
            of_all = "" if plan.trials is None else f" of {plan.trials}"
            say(f"trial {slot.number + 1}{of_all}: {in_words(params)}")
            try:
                self._try(trial, slot, params, lost.is_set)
            except BaseException as error:
                # Nobody is to wait for this worker: it is another's turn, or that of the same command later.
                with contextlib.suppress(Exception):
                    trial.set_user_attr(STOPPED, type(error).__name__)
                    study.tell(trial, state=TrialState.FAIL)
                raise
        self.after_trial(self.slots())

    def _try(self, trial: Trial, slot: Slot, params: Mapping[str, Value], is_lost: Callable[[], bool]) -> None:
        """Train a trial in its folder, and tell Optuna how it ended."""
        from optuna.exceptions import TrialPruned, UpdateFinishedTrialError
        from optuna.trial import TrialState

        number = slot.number + 1
        try:
            try:
                config = self.plan.of_trial(params, number)
                folder = self.plan.folder / RUNS / run_key(config, self._digests(config))
                trial.set_user_attr("folder", folder.name)
                value, epoch = self._train(trial, config, folder, is_lost)
            except (Interrupted, LibraryMissing, InUse):
                raise
            except TrialPruned as pruned:
                say(f"trial {number} is ended: {pruned}")
                self.study.tell(trial, state=TrialState.PRUNED)
                return
            except PatchlightError as error:
                say(f"trial {number} failed: {error}")
                trial.set_user_attr(REASON, str(error))
                self.study.tell(trial, state=TrialState.FAIL)
                return
            trial.set_user_attr("epoch", epoch)
            self.study.tell(trial, value)
            say(f"trial {number}: {self.plan.words} {value:.4f} of epoch {epoch}")
        except (Lost, UpdateFinishedTrialError, ValueError) as error:
            # Of Optuna ValueError says that the trial has ended already.
            if isinstance(error, PatchlightError) or not (isinstance(error, Lost) or is_lost() or _has_ended(trial)):
                raise
            say(f"trial {number}: another worker took it over, as this one gave no sign of life for too long")

    def _digests(self, config: Config) -> Mapping[str, str]:
        if self.plan.digests and _images_of(config) == _images_of(self.plan.base):
            return self.plan.digests
        key = _images_of(config)
        if key not in self._known:
            self._known[key] = self.digests(config)
        return self._known[key]

    def _train(self, trial: Trial, config: Config, folder: Path, is_lost: Callable[[], bool]) -> tuple[float, int]:
        """The value of a trial's kept weights, and their epoch.

        Raises TrialPruned, Lost and OutOfTime besides what training raises.
        """
        curve = Curve(self, trial, is_lost)
        told = False
        while True:
            try:
                with contextlib.suppress(PatchlightError):  # training says what is wrong with them
                    curve.tell(Run(folder).epochs() if folder.is_dir() else [])
                self.train(config, folder, curve)
                break
            except InUse as error:
                # By one with the same settings, or by a worker that was taken for dead and stops at its next epoch.
                if not told:
                    say(f"waiting: {error}")
                    told = True
                curve.check()
                time.sleep(POLL_S)
        rows = Run(folder).epochs()
        kept = kept_epoch(rows, config)
        value = None if kept is None else self.plan.value_of(kept)
        if kept is None or value is None:
            raise PatchlightError(
                f"its training has no {self.plan.words} to be compared by; set data.val_fraction above 0"
            )
        return value, kept.epoch


def _images_of(config: Config) -> str:
    """Equal for recipes that read the same images in the same way."""
    return repr((config.data, config.model.img_size))


@dataclass
class Curve:
    """The validation curve of a trial, as Optuna is told it, epoch by epoch."""

    worker: Worker
    trial: Trial
    is_lost: Callable[[], bool]
    last: int = 0  # the epoch that was told last

    def __call__(self, row: Epoch) -> None:
        self.tell([row])

    def tell(self, rows: list[Epoch]) -> None:
        """Raises TrialPruned where the trial is clearly behind, and as `check`."""
        self.check()
        valued = [(row, self.worker.plan.value_of(row)) for row in rows if row.epoch > self.last]
        new = [(row, value) for row, value in valued if value is not None]
        for row, value in new:
            self.trial.report(value, row.epoch)
            self.last = row.epoch
        epochs = self.worker.plan.epochs
        is_last = epochs is not None and self.last >= epochs  # nothing is saved by ending it
        if new and not is_last and self.trial.should_prune():
            from optuna.exceptions import TrialPruned

            raise TrialPruned(f"after epoch {self.last} it is behind ({self.worker.plan.words} {new[-1][1]:.4f})")

    def check(self) -> None:
        """Raises Lost where another worker has the trial now, and OutOfTime where the sweep's time is over."""
        if self.is_lost():
            raise Lost
        if self.worker.is_out_of_time:
            raise OutOfTime


def _has_ended(trial: Trial) -> bool:
    """Whether the storage says so."""
    state = next(t.state for t in trial.study.get_trials(deepcopy=False) if t.number == trial.number)
    return state.is_finished()


def in_words(params: Mapping[str, JSON]) -> str:
    """Settings on one line: "optim.lr 0.0031, model.depth 4"."""
    return ", ".join(f"{field} {shown(value)}" for field, value in params.items())


def shown(value: JSON) -> str:
    """A value in few digits; the folder's recipe has all of them."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def states_in_words(slots: list[Slot]) -> str:
    """ "24 finished, 4 pruned, 2 failed"."""
    states = (FINISHED, PRUNED, FAILED, RUNNING, WAITING)
    counts = {state: sum(slot.state == state for slot in slots) for state in states}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count) or "none yet"
