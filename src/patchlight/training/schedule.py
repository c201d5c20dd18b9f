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
    """SGDR's eq. 5 with `cycles` cycles of equal length."""
    return cosine(1.0 if progress >= 1 else progress * config.cycles % 1.0, config)


SHAPES: dict[str, Shape] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
}

ONECYCLE_START, ONECYCLE_END = 1 / 25, 1 / 25e4  # of the peak; torch's OneCycleLR's defaults


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
    onecycle (Smith & Topin 2018) has its own rise, `pct_start` of all steps long, and ends in step total - 1, as
    torch's does.
    """
    if config.name == "onecycle":
        return _onecycle(step, total, peak, config)
    if step < warmup:
        return peak * step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - warmup))
    floor = min(config.min_lr, peak)
    return floor + (peak - floor) * SHAPES[config.name](progress, config)


def _onecycle(step: float, total: int, peak: float, config: ScheduleConfig) -> float:
    top = config.pct_start * total - 1
    if step <= top:
        return peak * _blend(ONECYCLE_START, 1.0, step / max(1e-9, top))
    return peak * _blend(1.0, ONECYCLE_END, min(1.0, (step - top) / max(1e-9, total - 1 - top)))


def _blend(start: float, end: float, progress: float) -> float:
    """From start to end along half a cosine."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))
