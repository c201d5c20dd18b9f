"""Where training stands, what time it took, and how it is asked to stop."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from patchlight.errors import Interrupted, Terminated
from patchlight.runs.codec import RecordError, from_json, to_json
from patchlight.units import counted

# What older checkpoints do not have: the first three, those before version 0.2.0; the next four, those of 0.2.0.
LATER_FIELDS = {"done", "progress", "epoch_start", "stage_best", "epochs_since_better", "wall_before", "sealed"}
LATER_FIELDS |= {"kept", "skipped", "skipped_in_a_row"}

# Steps in a row whose gradients overflow in fp16. Each halves the scale, which begins at 2**16: from there, after so
# many, it is 2**-16, and the gradients themselves are too large.
SKIPPED_AT_MOST = 32


@dataclass(frozen=True)
class LossScale:
    """What torch's GradScaler keeps, in fp16."""

    scale: float
    growth_factor: float
    backoff_factor: float
    growth_interval: int
    growth_tracker: int = field(metadata={"key": "_growth_tracker"})


@dataclass
class TrainState:
    """All that changes between two steps beside tensors. It goes into `state.json`: a resumed run is the same run."""

    stage: int = 0  # which of the recipe's stages, from 0
    epochs_before: int = 0  # finished in earlier stages
    steps_before: int = 0
    epoch: int = 0  # epochs of this stage finished
    step: int = 0  # steps finished in the epoch under way
    done: int = 0  # steps of this stage finished
    total_steps: int = 0  # of this stage, under a budget as planned at its start; 0 until it is known
    progress: float = 0.0  # of this stage, in 0..1: a share of its steps or, under a budget, of the time for them
    epoch_start: float = 0.0  # where the epoch under way began in the schedule, in steps of `total_steps`
    loss_sum: float = 0.0  # over the images of that epoch
    correct: float = 0.0  # right answers among them; of a mixed image, a share of one
    skipped: int = 0  # steps of that epoch that changed no weight: their gradients overflowed in fp16
    skipped_in_a_row: int = 0  # such steps of this stage, up to the newest one
    epoch_s: float = 0.0  # training seconds of that epoch
    wall_s: float = 0.0  # of all training and validation so far
    cpu_s: float = 0.0  # processor seconds of the same
    wall_before: float = 0.0  # wall_s when this stage began
    # By train.select, which at first was the accuracy alone. In masked autoencoding it is 0, and the loss decides.
    best_score: float = field(default=-1.0, metadata={"key": "best_top1"})
    best_loss: float = 0.0  # of the epoch with best_score
    best_epoch: int = 0  # of all stages
    best_step: int = 0  # when it was over
    stage_best: float | None = None  # of this stage, the best of Validation.better
    epochs_since_better: int = 0  # of this stage, which early stopping counts
    kept_steps: tuple[int, ...] = ()  # whose checkpoints stay
    stopped_early: bool = False  # this stage
    scaler: LossScale | None = field(default=None, metadata={"read": lambda value: value or None})
    kept: str | None = None  # SHA-256 of the weights that the run kept then
    sealed: bool = True  # its checkpoint has a manifest, which those of 0.2.0 and before have not

    @classmethod
    def from_json(cls, data: object, steps: int | None) -> TrainState:
        """What `state.json` holds. Before version 0.2.0 it did not say how many `steps` of all stages were done.

        Raises RecordError, naming the field, where one is missing or of another type.
        """
        state = from_json(cls, data)
        assert isinstance(data, dict)  # or the line before would have raised
        for f in dataclasses.fields(cls):
            if (key := f.metadata.get("key", f.name)) not in data and key not in LATER_FIELDS:
                raise RecordError(f"{key} is missing")
        if state.total_steps < 1:
            raise RecordError(f"total_steps must be at least 1, not {state.total_steps}")
        state.sealed = bool(data.get("sealed", False))
        if "progress" not in data:
            if steps is None:
                raise RecordError("progress is missing")
            state.done = steps - state.steps_before
            state.progress = min(1.0, state.done / state.total_steps)
            state.epoch_start = state.done - state.step
        if "stage_best" not in data:
            if state.best_epoch > state.epochs_before:  # in masked autoencoding the accuracy is 0
                state.stage_best = state.best_score or -state.best_loss
            state.epochs_since_better = state.epochs_done - max(state.best_epoch, state.epochs_before)
        return state

    def to_json(self) -> dict[str, Any]:
        return to_json(self)

    @property
    def epochs_done(self) -> int:
        """Of all stages."""
        return self.epochs_before + self.epoch

    @property
    def steps_done(self) -> int:
        """Of all stages."""
        return self.steps_before + self.done

    @property
    def done_so_far(self) -> str:
        """The same in words, as after 3 epochs of 20 steps each and 7 steps more: "3 epochs and 7 steps"."""
        return f"{counted(self.epochs_done, 'epoch')} and {counted(self.step, 'step')}"

    @property
    def at_end(self) -> bool:
        """Whether an epoch has just ended, of this stage."""
        return self.step == 0 and self.epoch > 0

    @property
    def stage_s(self) -> float:
        """Seconds of this stage so far, which its budget is for."""
        return self.wall_s - self.wall_before

    @property
    def is_over(self) -> bool:
        """Whether the stage is."""
        return self.progress >= 1 or self.stopped_early

    @property
    def all_were_skipped(self) -> bool:
        """Whether no step of the stage has changed a weight, of those that there were."""
        return 0 < self.done <= self.skipped_in_a_row

    def skip_step(self) -> int:
        """Note that a step changes no weight; how many in a row these are."""
        self.skipped += 1
        self.skipped_in_a_row += 1
        return self.skipped_in_a_row

    def next_stage(self) -> TrainState:
        """Where the stage after this one begins."""
        return replace(
            self,
            stage=self.stage + 1,
            epochs_before=self.epochs_done,
            steps_before=self.steps_done,
            wall_before=self.wall_s,
            epoch=0,
            step=0,
            done=0,
            total_steps=0,
            progress=0.0,
            epoch_start=0.0,
            stage_best=None,
            epochs_since_better=0,
            skipped_in_a_row=0,
            stopped_early=False,
            scaler=None,
        )

    def improve(self, score: float, loss: float) -> bool:
        """True where the epoch that has just ended is the best so far, which is then noted; the loss decides a tie."""
        if (score, -loss) <= (self.best_score, -self.best_loss):
            return False
        self.best_score, self.best_loss = score, loss
        self.best_epoch, self.best_step = self.epochs_done, self.steps_done
        return True

    def forget_best(self) -> None:
        """The weights of the best epoch are lost: the next epoch is the best."""
        self.best_score, self.best_loss, self.best_epoch, self.best_step = -1.0, 0.0, 0, 0

    def count_for_early_stop(self, better: float) -> None:
        """Note what the epoch that has just ended scored: a tie with the stage's best is not better."""
        if self.stage_best is None or better > self.stage_best:
            self.stage_best, self.epochs_since_better = better, 0
        else:
            self.epochs_since_better += 1


class Stopwatch:
    """Adds the time since the last lap to a state's clocks."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.monotonic(), time.process_time()

    def passed(self) -> float:
        """Seconds since the last lap, which goes on."""
        return time.monotonic() - self.wall

    def lap(self, state: TrainState) -> float:
        """Seconds since the last lap."""
        wall, cpu = time.monotonic(), time.process_time()
        passed = wall - self.wall
        state.wall_s += passed
        state.cpu_s += cpu - self.cpu
        self.wall, self.cpu = wall, cpu
        return passed


class StopSignal:
    """`requested` is the name of the signal that came, or empty."""

    requested = ""
    number = 0

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested:  # the second one does not wait for the step to end
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
        self.requested, self.number = signal.Signals(number).name, number

    def interrupted(self, when: str, saved: str = "the checkpoint is saved") -> Interrupted:
        """The error of a training that stopped `when`, with what is `saved` of it."""
        return Interrupted(
            f"stopped by {self.requested} {when}; {saved}: repeat the command with --resume to go on", self.number
        )


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopSignal]:
    """SIGINT and SIGTERM inside only set `requested`: no step is cut in half. In a thread nothing is caught.

    `requested` is looked at once more afterwards, when another signal ends the program at once: none is lost.
    """
    stop = StopSignal()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop._receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
