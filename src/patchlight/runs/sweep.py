"""What a sweep is answered with, as a type: `sweep.json`. Times are in seconds.

A sweep tries settings of a recipe at random or where earlier trials were good. Its figures and texts are made of this
record alone, without the runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from patchlight.runs.codec import JSON, Amount, Count, Place, Rate, Record
from patchlight.runs.records import RunFile

# The states of a trial.
FINISHED, PRUNED, FAILED, RUNNING, WAITING = "finished", "pruned", "failed", "running", "waiting"


@dataclass(frozen=True, kw_only=True)
class SweepAxis(Record):
    """A setting and what was tried of it: `choices`, or numbers from `low` to `high`."""

    field: str
    text: str  # as it was written: "1e-4..1e-2:log"
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: tuple[JSON, ...] = ()
    # How much of what the finished trials differ by comes from this setting alone; None where it cannot be told.
    importance: Rate | None = None


@dataclass(frozen=True, kw_only=True)
class SweepTrial(Record):
    """A trial: settings and what validation said of them."""

    number: Place  # from 1, in the order of the sweep
    state: str  # FINISHED, PRUNED, FAILED, RUNNING or WAITING
    params: dict[str, JSON] = field(default_factory=dict)
    value: float | None = None  # of the kept weights; of PRUNED the last one before its end
    epoch: Count | None = None  # of FINISHED whose weights were kept; of PRUNED its last
    reason: str | None = field(default=None, metadata={"brief": True})  # of FAILED: a sentence
    folder: str | None = None  # relative to the sweep's
    attempts: Place = 1  # how often it was begun, as after a worker's end
    seconds: Amount | None = None  # from the beginning of the last attempt to its end


@dataclass(frozen=True, kw_only=True)
class SweepResult(RunFile):
    """`sweep.json`: what was searched, its trials and its answer."""

    name: str
    recipe: str
    folder: str
    storage: str  # without a password
    axes: tuple[SweepAxis, ...]
    sampler: str
    pruner: str
    seed: Count
    measure: str  # what chose: "val/top1"
    words: str  # in words: "validation accuracy"
    lower_is_better: bool = False
    asked: Count | None = None  # trials in all; None: as many as the time allows
    trials: tuple[SweepTrial, ...]
    best: Place | None = None  # the number of the best trial; None while none is finished
    importance_by: str | None = None  # how it was computed, in words
    notes: tuple[str, ...] = ()  # sentences on what was guessed, left out or not exact

    def of(self, state: str) -> list[SweepTrial]:
        """The trials in a state."""
        return [trial for trial in self.trials if trial.state == state]

    @property
    def best_trial(self) -> SweepTrial | None:
        return next((trial for trial in self.trials if trial.number == self.best), None)

    @property
    def left(self) -> int:
        """How many trials are not ended yet, those that have not begun included."""
        ended = sum(trial.state in (FINISHED, PRUNED, FAILED) for trial in self.trials)
        return (len(self.trials) if self.asked is None else self.asked) - ended

    def shown(self, value: float | None) -> str:
        """A value of the measure as people read it."""
        if value is None:
            return "-"
        return f"{value:.4g}" if self.lower_is_better else f"{100 * value:.2f}\N{NO-BREAK SPACE}%"
