"""Where training stands, what time it took, and how it is asked to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

from patchlight.errors import PatchlightError


@dataclass
class TrainState:
    """All that changes between two steps beside tensors. It goes into `state.json`: a resumed run is the same run."""

    stage: int = 0  # which of the recipe's stages, from 0
    epochs_before: int = 0  # finished in earlier stages
    steps_before: int = 0
    epoch: int = 0  # epochs of this stage finished
    step: int = 0  # steps finished in the epoch under way
    total_steps: int = 0  # of this stage; 0 until it is known
    loss_sum: float = 0.0  # over the images of that epoch
    correct: float = 0.0
    epoch_s: float = 0.0  # training seconds of that epoch
    wall_s: float = 0.0  # of all training and validation so far
    cpu_s: float = 0.0  # processor seconds of the same
    best_top1: float = -1.0
    best_loss: float = 0.0  # of the epoch with best_top1
    best_epoch: int = 0  # of all stages
    best_step: int = 0  # when it was over
    kept_steps: list[int] = field(default_factory=list)  # whose checkpoints stay
    stopped_early: bool = False  # this stage
    scaler: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, data: dict[str, Any], origin: str) -> TrainState:
        """Raises PatchlightError where `data` is not what this version saves."""
        try:
            return cls(**data)
        except TypeError:
            raise PatchlightError(
                f"{origin} was saved by another version of Patchlight; train with --overwrite"
            ) from None

    @property
    def epochs_done(self) -> int:
        """Of all stages."""
        return self.epochs_before + self.epoch

    def next_stage(self, steps: int) -> TrainState:
        """Where the stage after this one begins, in which `steps` were made."""
        return replace(
            self,
            stage=self.stage + 1,
            epochs_before=self.epochs_done,
            steps_before=self.steps_before + steps,
            epoch=0,
            step=0,
            total_steps=0,
            stopped_early=False,
            scaler={},
        )

    def improve(self, top1: float, loss: float) -> bool:
        """True where the epoch that has just ended is the best so far, which is then noted; the loss decides a tie."""
        if (top1, -loss) <= (self.best_top1, -self.best_loss):
            return False
        self.best_top1, self.best_loss, self.best_epoch = top1, loss, self.epochs_done
        return True


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

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.requested:  # the second one does not wait for the step to end
            raise KeyboardInterrupt
        self.requested = signal.Signals(number).name


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopSignal]:
    """SIGINT and SIGTERM inside only raise the flag: no step is cut in half. In a thread nothing is caught."""
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
