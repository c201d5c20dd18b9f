"""How long a training is: in epochs, or as many steps as a wall-clock budget holds.

A budget's number of steps is fixed from the times of a few real steps before training, and moved only where the machine
turns out to be faster or slower than it then was.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

REHEARSAL_S = 4.0  # of steps that are timed before training, and
REHEARSAL_SHARE = 0.02  # of the budget, whichever is less
LEAST_STEPS = 5  # for which it may take four times as long
WARM_STEPS = 2  # the first are slower and do not count, where there are others
TOLERANCE = 0.01  # of the budget: the plan is not changed for less


@dataclass(frozen=True)
class Pace:
    """Seconds of one training step and of one validation."""

    step_s: float
    val_s: float


def rehearsal_s(budget_s: float) -> float:
    """How many seconds of steps tell enough to plan `budget_s` by."""
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
    epoch_s = steps_per_epoch * pace.step_s + pace.val_s
    in_epoch = done % steps_per_epoch
    # Time is counted from the start of the epoch under way, as if it had run at this pace.
    epochs, rest_s = divmod(left_s + in_epoch * pace.step_s, epoch_s)
    last = math.floor(max(0.0, rest_s - pace.val_s) / pace.step_s)
    return max(done + 1, done - in_epoch + int(epochs) * steps_per_epoch + last)


def finish_s(total: int, done: int, pace: Pace, steps_per_epoch: int) -> float:
    """Seconds until `total` steps are done and validated."""
    validations = math.ceil(total / steps_per_epoch) - done // steps_per_epoch
    return (total - done) * pace.step_s + validations * pace.val_s


class Budget:
    """Keeps a training to its `seconds`, `done` steps of it done before this process."""

    def __init__(self, seconds: float, pace: Pace, steps_per_epoch: int, done: int = 0) -> None:
        self.seconds, self.pace, self.steps_per_epoch = seconds, pace, steps_per_epoch
        self.seen, self.seen_s = done, 0.0  # steps and their seconds at the last look
        self.val_s = pace.val_s

    def revise(self, total: int, done: int, step_s_sum: float, spent_s: float) -> int:
        """`total` steps, or what it should be instead by the pace since the last look.

        `step_s_sum` are the seconds that steps took so far in this process, `spent_s` all of training so far. Twenty
        looks a training: a step more or less then does not matter.
        """
        if done - self.seen < max(1, total // 20) or done >= total:
            return total
        self.pace = Pace((step_s_sum - self.seen_s) / (done - self.seen), self.val_s)
        self.seen, self.seen_s = done, step_s_sum
        left_s = self.seconds - spent_s
        if abs(finish_s(total, done, self.pace, self.steps_per_epoch) - left_s) < TOLERANCE * self.seconds:
            return total
        return plan_steps(left_s, done, self.pace, self.steps_per_epoch)
