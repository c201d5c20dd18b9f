"""A budget is kept whatever the machine's speed does on the way. No time passes here but in numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from patchlight.training.budget import Budget, Pace

BUDGET_S = 360.0
Speed = Callable[[float], float]  # how many times as long as at best everything takes, at a time


def seconds_used(speed: Speed, steps: int, step_s: float, end_s: float, seed: int) -> float:
    """Of a training whose steps take `step_s` at best, give or take, and the ends of epochs `end_s`."""
    draw, now, progress, done = np.random.default_rng(seed), 0.0, 0.0, 0
    budget = Budget(BUDGET_S, Pace(step_s * speed(0), end_s * speed(0)), steps)

    def work(seconds: float) -> float:
        """When work of so many seconds at best is over that begins now."""
        then = now
        for _ in range(10):
            then += seconds / 10 * speed(then)
        return then

    while progress < 1:
        then = work(step_s * draw.uniform(0.9, 1.15))
        progress = budget.after_step(progress, done, now, then - now)
        now, done = then, done + 1
        if done % steps == 0 or progress >= 1:
            then = work(end_s)
            budget.after_epoch(then - now)
            now = then
    return now


def speeds() -> Iterator[Speed]:
    """Up to three times, machines become ten times as fast or as slow."""
    draw = np.random.default_rng(0)

    def changing(times: list[float], first: int) -> Speed:
        return lambda now: first if sum(now > time for time in times) % 2 == 0 else 11 - first

    for _ in range(12):
        yield changing(sorted(draw.uniform(10, 330, draw.integers(1, 4)).tolist()), int(draw.choice([1, 10])))


@pytest.mark.parametrize(
    ("steps", "step_s", "end_s"), [(50, 0.1, 1.0), (390, 0.05, 1.5), (100, 0.3, 1.5), (20, 0.5, 1.5)]
)
def test_a_machine_that_becomes_ten_times_as_fast_or_slow_uses_the_budget(
    steps: int, step_s: float, end_s: float
) -> None:
    """Within 5 %, where what an epoch ends with takes no more than that at the slowest."""
    used = [seconds_used(speed, steps, step_s, end_s, seed) / BUDGET_S for seed, speed in enumerate(speeds())]
    assert min(used) > 0.95
    assert max(used) < 1.05


def test_time_that_was_kept_for_slow_validations_is_given_back() -> None:
    """Slow until just after the last validation, then fast: it ended early, with 313 of 360 s used."""
    used = seconds_used(lambda now: 10 if now < 230 else 1, 390, 0.05, 3.0, 0)
    assert used == pytest.approx(BUDGET_S, rel=0.05)
