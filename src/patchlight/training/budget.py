"""How far a training is within a wall-clock budget: a share of the time that is there for steps.

Some of the budget is kept back for what every epoch ends with (validation, saving). The rest is for steps, and a step
moves training on by its own share of it: progress is continuous whatever the machine's speed does, and is 1 when the
time for steps is used up. Nothing is planned anew on the way, so a learning rate never jumps.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

REHEARSAL_S = 4.0  # of steps that are timed before training, and
REHEARSAL_SHARE = 0.02  # of the budget, whichever is less
LEAST_STEPS = 5  # for which it may take four times as long
WARM_STEPS = 2  # the first are slower and do not count, where there are others
ENOUGH = 0.99  # of the time of a step for a further one, so that rounding takes none away
NEWEST = 0.05  # weight of the newest step in the mean of what a step takes: about the last twenty count
NEWEST_STEPS = 5  # whose median tells the speed of now
CHANGED = 4.0  # so many times the mean is another speed, which the mean would be slow to follow
ENDS = 8  # ends of epochs that count


@dataclass(frozen=True)
class Pace:
    """Seconds of one training step, and of what an epoch ends with: a validation and, once measured, saving."""

    step_s: float
    val_s: float


def rehearsal_s(budget_s: float) -> float:
    """For how many seconds steps are timed before a training of `budget_s`."""
    return min(REHEARSAL_S, REHEARSAL_SHARE * budget_s)


def time_steps(step: Callable[[int], object], seconds: float) -> float:
    """The median seconds of `step(0)`, `step(1)`, ..., each of which returns when its work is done.

    There are as many as fill `seconds`, and at least five if they end within four times as long; in any case two.
    """
    times: list[float] = []
    while len(times) < 2 or (sum(times) < 4 * seconds and (sum(times) < seconds or len(times) < LEAST_STEPS)):
        start = time.perf_counter()
        step(len(times))
        times.append(time.perf_counter() - start)
    return statistics.median(times[min(WARM_STEPS, len(times) - 1) :])


def plan_steps(left_s: float, done: int, pace: Pace, steps_per_epoch: int) -> int:
    """How many steps in all, `done` of them done, fill `left_s` seconds, each epoch and the end with a validation.

    At least one more than are done.
    """
    epochs, last_s = _divide(left_s, done, pace, steps_per_epoch)
    epoch_start = done - done % steps_per_epoch
    return max(done + 1, epoch_start + epochs * steps_per_epoch + math.floor(last_s / pace.step_s))


def seconds_for_steps(left_s: float, done: int, pace: Pace, steps_per_epoch: int) -> float:
    """How much of `left_s` seconds is for steps, what the epochs end with being kept back; `done` steps are done."""
    epochs, last_s = _divide(left_s, done, pace, steps_per_epoch)
    return max(0.0, (epochs * steps_per_epoch - done % steps_per_epoch) * pace.step_s + last_s)


def finish_s(total: int, done: int, pace: Pace, steps_per_epoch: int) -> float:
    """Seconds until `total` steps are done and validated."""
    validations = math.ceil(total / steps_per_epoch) - done // steps_per_epoch
    return (total - done) * pace.step_s + validations * pace.val_s


def _divide(left_s: float, done: int, pace: Pace, steps_per_epoch: int) -> tuple[int, float]:
    """`left_s` seconds as whole epochs, counted from the start of the one under way, and seconds of steps after them.

    Time is counted from that start as if the epoch had run at this pace.
    """
    epoch_s = steps_per_epoch * pace.step_s + pace.val_s
    epochs, rest_s = divmod(left_s + done % steps_per_epoch * pace.step_s, epoch_s)
    return int(epochs), max(0.0, rest_s - pace.val_s)


class Budget:
    """Turns the time that steps take into progress, in 0..1, of a training of `seconds`.

    A machine may become ten times as fast or slow on the way. So what an epoch ends with is counted in steps, of which
    it has as many whatever the speed, and a step is as long as the newest ones were.
    """

    def __init__(self, seconds: float, pace: Pace, steps_per_epoch: int) -> None:
        self.seconds, self.pace, self.steps_per_epoch = seconds, pace, steps_per_epoch
        self._newest: deque[float] = deque(maxlen=NEWEST_STEPS)  # seconds of steps
        self._ends = [pace.val_s / pace.step_s]  # of epochs, in steps; at first that of the rehearsal

    def after_step(self, progress: float, done: int, spent_s: float, step_s: float) -> float:
        """Progress after a step of `step_s` seconds, before which it was `progress`, `done` steps were done and
        `spent_s` seconds of the budget used.

        The step's share of the time that was left for steps is its share of the way that was left: with L seconds for
        steps, p + (1 - p) * step_s / L. It is 1, the end, where no further step fits.
        """
        self._newest.append(step_s)
        now_s = statistics.median(self._newest)
        mean_s = (1 - NEWEST) * self.pace.step_s + NEWEST * step_s
        if not mean_s / CHANGED < now_s < mean_s * CHANGED:
            mean_s = now_s
        self.pace = Pace(mean_s, mean_s * statistics.median_low(self._ends))
        left_s = seconds_for_steps(self.seconds - spent_s, done, self.pace, self.steps_per_epoch)
        if left_s - step_s < ENOUGH * self.pace.step_s:
            return 1.0
        return progress + (1 - progress) * step_s / left_s

    def after_epoch(self, seconds: float) -> None:
        """What the epoch ended with (validation, saving) took `seconds`; the next ones are expected to take as many
        steps' time as most did.
        """
        self._ends = [*self._ends[-ENDS:], seconds / self.pace.step_s]
        self.pace = replace(self.pace, val_s=self.pace.step_s * statistics.median_low(self._ends))

    def expected_steps(self, done: int, spent_s: float) -> int:
        """How many steps training will have had in the end, at the present pace."""
        return plan_steps(self.seconds - spent_s, done, self.pace, self.steps_per_epoch)
