"""Learning rates as pure functions of progress.

Progress is a `step` of `total`: that many steps are done, or, under a budget, as large a part of the time as so many
of the planned steps would be, which need not be a whole number. A shape maps (progress after the warm-up in 0..1,
config) to how far the rate is from `min_lr` (0) to the peak (1). At whole steps the rates are those of torch's and
Hugging Face's schedulers, which the tests hold beside these.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from patchlight.config import ScheduleConfig

Shape = Callable[[float, ScheduleConfig], float]


def constant(progress: float, config: ScheduleConfig) -> float:
    return 1.0


def linear(progress: float, config: ScheduleConfig) -> float:
    return 1.0 - progress


def cosine(progress: float, config: ScheduleConfig) -> float:
    """Loshchilov & Hutter 2017, SGDR, eq. 5, without restarts."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def cosine_restarts(progress: float, config: ScheduleConfig) -> float:
    """SGDR's eq. 5 with `cycles` cycles of equal length, each of which begins at the peak."""
    return cosine(1.0 if progress >= 1 else progress * config.cycles % 1.0, config)


SHAPES: dict[str, Shape] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
}

ONECYCLE_START, ONECYCLE_END = 1 / 25, 1 / 25e4  # of the peak; torch's OneCycleLR's defaults
ONECYCLE_MOMENTUM = 0.95, 0.85  # at both ends, and at the peak of the rate; the same


def warmup_steps(config: ScheduleConfig, steps_per_epoch: int, total: int) -> int:
    """The number of steps until the peak."""
    if config.warmup_share is not None:
        return round(config.warmup_share * total)
    if config.warmup_steps is not None:
        return config.warmup_steps
    return round(config.warmup_epochs * steps_per_epoch)


def learning_rate(step: float, total: int, peak: float, config: ScheduleConfig, warmup: int = 0) -> float:
    """The rate at `step` of 0 .. total.

    Linear warm-up from 0 at step 0 to `peak` at step `warmup`, then the shape, down to `min_lr` at step `total`.
    cosine_restarts with `restart_warmup` has that in each of its cycles, after the first one from `min_lr`, so that the
    rate never jumps. onecycle (Smith & Topin 2018) has its own rise, `pct_start` of all steps long, and ends in step
    total - 1, as torch's does.
    """
    floor = min(config.min_lr, peak)
    if config.name == "onecycle":
        rise, fall = _onecycle(step, total, config)
        return peak * (_blend(ONECYCLE_START, 1.0, rise) if rise < 1 else _blend(1.0, ONECYCLE_END, fall))
    if config.name == "cosine_restarts" and config.restart_warmup:
        length = total / config.cycles
        cycle = min(config.cycles - 1, int(step / length))
        return _cycle(step - cycle * length, length, floor if cycle else 0.0, peak, floor, warmup, cosine, config)
    return _cycle(step, total, 0.0, peak, floor, warmup, SHAPES[config.name], config)


def momentum(step: float, total: int, config: ScheduleConfig) -> float | None:
    """The momentum at `step` of 0 .. total where the schedule sets it, as torch's OneCycleLR does; else None."""
    if config.name != "onecycle" or not config.cycle_momentum:
        return None
    most, least = ONECYCLE_MOMENTUM
    rise, fall = _onecycle(step, total, config)
    return _blend(most, least, rise) if rise < 1 else _blend(least, most, fall)


def _cycle(
    step: float,
    length: float,
    start: float,
    peak: float,
    floor: float,
    warmup: int,
    shape: Shape,
    config: ScheduleConfig,
) -> float:
    """The rate at `step` of `length`: linear from `start` to `peak` in `warmup` steps, then the shape to `floor`."""
    if step < warmup:
        return start + (peak - start) * step / warmup
    progress = min(1.0, (step - warmup) / max(1, length - warmup))
    return floor + (peak - floor) * shape(progress, config)


def _onecycle(step: float, total: int, config: ScheduleConfig) -> tuple[float, float]:
    """How much of the rise is over, in 0..1, and how much of the fall after it."""
    top = config.pct_start * total - 1
    if step <= top:
        return step / max(1e-9, top), 0.0
    return 1.0, min(1.0, (step - top) / max(1e-9, total - 1 - top))


def _blend(start: float, end: float, progress: float) -> float:
    """From start to end along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
