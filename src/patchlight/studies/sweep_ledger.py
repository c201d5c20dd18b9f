"""Which trials of a sweep there are, which of them count, and whose workers have ended: read from Optuna's storage.

Nothing here holds a lock, so it works with any storage, a file or a database, and with any number of workers:

- Numbers are given by the storage, one after the other. The first N trials that are no retries are the N trials of a
  sweep; a worker that got a later one, as two asked at the same time for the last, gives it back before it trains.
- A worker writes its claim into its trial every BEAT_S. A trial whose worker is gone is failed, and queued again as a
  retry with the same settings, whose run folder has its checkpoints. Where two workers queue it at the same time, the
  one with the lower number counts.
- A worker that was taken for dead and is not finds its trial ended at its next epoch, and stops.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from patchlight.runs.sweep import FAILED, FINISHED, PRUNED, RUNNING, WAITING

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

BEAT_S = 15.0  # between two signs of life
LEASE_S = 90.0  # without one a worker is taken for dead
MOST_DEATHS = 3  # after so many a trial is not tried again: it may be what ends its workers

# The names of what is written into a trial.
CLAIM, REASON, STOPPED, SURPLUS = "claim", "reason", "stopped", "surplus"
OF, ATTEMPT, AGAIN = "of", "attempt", "again"


@dataclass(frozen=True)
class Slot:
    """One of the trials that a sweep has, with all attempts at it in their order."""

    number: int  # from 0, in the order of the sweep
    attempts: tuple[FrozenTrial, ...]

    @property
    def first(self) -> FrozenTrial:
        return self.attempts[0]

    @property
    def last(self) -> FrozenTrial:
        return self.attempts[-1]

    @property
    def params(self) -> dict[str, Any]:
        """Its settings; those of an attempt that was only queued are the ones that it will have."""
        return next((trial.params for trial in reversed(self.attempts) if trial.params), {})

    @property
    def deaths(self) -> int:
        """Attempts that ended without a word since somebody asked for another try."""
        count = 0
        for trial in self.attempts:
            count = 0 if trial.user_attrs.get(AGAIN) else count
            count += _is_failed(trial) and not {REASON, STOPPED} & trial.user_attrs.keys()
        return count

    @property
    def reason(self) -> str | None:
        """Why it has failed for good; None where it has not."""
        if not _is_failed(self.last):
            return None
        if reason := self.last.user_attrs.get(REASON):
            return str(reason)
        if self.deaths >= MOST_DEATHS:
            return f"its process ended {self.deaths} times without a word; it may take too much memory"
        return None

    @property
    def state(self) -> str:
        """FINISHED, PRUNED, FAILED, RUNNING or WAITING."""
        states = {"COMPLETE": FINISHED, "PRUNED": PRUNED, "RUNNING": RUNNING, "WAITING": WAITING}
        return states.get(self.last.state.name) or (FAILED if self.reason else WAITING)

    @property
    def is_over(self) -> bool:
        return self.state in (FINISHED, PRUNED, FAILED)

    @property
    def is_left(self) -> bool:
        """Whether its last attempt has ended, it is not over, and nobody has queued it again."""
        return _is_failed(self.last) and self.reason is None


def _is_failed(trial: FrozenTrial) -> bool:
    return trial.state.name == "FAIL"


def slots_of(trials: Sequence[FrozenTrial], asked: int | None) -> list[Slot]:
    """The trials that count, at most as many as were asked for."""
    fresh: list[FrozenTrial] = []
    retries: dict[int, dict[int, FrozenTrial]] = {}
    for trial in sorted(trials, key=lambda trial: trial.number):
        if trial.user_attrs.get(SURPLUS):
            continue
        if OF in trial.user_attrs:
            retries.setdefault(trial.user_attrs[OF], {}).setdefault(trial.user_attrs[ATTEMPT], trial)
        else:
            fresh.append(trial)
    return [
        Slot(number, (trial, *(again for _, again in sorted(retries.get(trial.number, {}).items()))))
        for number, trial in enumerate(fresh[:asked])
    ]


def place_of(slots: Sequence[Slot], number: int) -> Slot | None:
    """The slot of which Optuna's trial `number` is the last attempt; None where it does not count."""
    return next((slot for slot in slots if slot.last.number == number), None)


class Watch:
    """Who is alive, as far as this process has seen."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[object, float]] = {}  # of a trial its claim, and when it was first seen so

    def is_dead(self, trial: FrozenTrial) -> bool:
        """Whether the worker of a running trial has ended. On this machine that is known at once; of another's worker
        it is known after LEASE_S without a new sign, by the clock of this machine alone.
        """
        claim = trial.user_attrs.get(CLAIM)
        if isinstance(claim, dict) and claim.get("host") == platform.node():
            return not _is_alive(int(claim["process"])) or time.time() - float(claim["beat"]) > LEASE_S
        before, since = self.seen.get(trial.number, (None, 0.0))
        if trial.number not in self.seen or before != claim:
            self.seen[trial.number] = (claim, time.monotonic())
            return False
        return time.monotonic() - since > LEASE_S


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # a signal would end it there
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return not _is_zombie(process)


def _is_zombie(process: int) -> bool:
    """Whether it has ended and its parent has not asked how, which Linux tells."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z"
    return False


def take_over(study: Study, slots: Sequence[Slot], watch: Watch) -> list[Slot]:
    """End the attempts of dead workers, and queue again what is left undone. The slots of which a worker was dead."""
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    dead = []
    for slot in slots:
        is_dead = slot.state == RUNNING and watch.is_dead(slot.last)
        if is_dead:
            try:
                study.tell(slot.last.number, state=TrialState.FAIL)
            except (UpdateFinishedTrialError, ValueError):  # another worker was faster, or it has just finished
                continue
            dead.append(slot)
        if slot.is_left or (is_dead and slot.deaths + 1 < MOST_DEATHS):
            queue_again(study, slot)
    return dead


def queue_again(study: Study, slot: Slot, again: bool = False) -> None:
    """Another attempt at a slot; `again` where somebody asked for it."""
    attrs: dict[str, Any] = {OF: slot.first.number, ATTEMPT: len(slot.attempts)}
    study.enqueue_trial(slot.params, user_attrs={**attrs, AGAIN: True} if again else attrs)


@contextlib.contextmanager
def claimed(trial: Trial) -> Iterator[threading.Event]:
    """Inside, the trial has a sign of life of this process every BEAT_S. The event is set where it has ended without
    this process, which was taken for dead then.
    """
    from optuna.exceptions import UpdateFinishedTrialError

    over, lost = threading.Event(), threading.Event()

    def beat() -> None:
        try:
            trial.set_user_attr(CLAIM, {"host": platform.node(), "process": os.getpid(), "beat": round(time.time(), 1)})
        except UpdateFinishedTrialError:
            lost.set()

    def keep_beating() -> None:
        while not lost.is_set() and not over.wait(BEAT_S):
            beat()

    beat()
    thread = threading.Thread(target=keep_beating, name="patchlight-claim", daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        over.set()
        thread.join()
