"""The interleaved timer: contenders take turns, so that a slow minute of the machine hits all of them alike.

A sampler is a function that does a contender's work for one round and returns seconds per call. Contenders are compared
within a round (A B C, A B C, ...), and what is reported of a comparison is the median over the rounds, the least and
the greatest.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from patchlight.machine.device import synchronize

Sampler = Callable[[], float]
Seconds = dict[str, list[float]]  # of each contender, per call, in each round


def sampler(work: Callable[[], object], device: torch.device, *, calls: int = 1, items: int = 1) -> Sampler:
    """Seconds per call of `work`, or per item where a call does `items`; the device is waited for once, at the end."""

    def sample() -> float:
        synchronize(device)
        started = time.perf_counter()
        for _ in range(calls):
            work()
        synchronize(device)
        return (time.perf_counter() - started) / (calls * items)

    return sample


def interleave(samplers: Mapping[str, Sampler], *, rounds: int, warmup: int = 1) -> Seconds:
    """Let the contenders take turns: `warmup` rounds that are thrown away, then `rounds` that count."""
    seconds: Seconds = {name: [] for name in samplers}
    for turn in range(warmup + rounds):
        for name, sample in samplers.items():
            taken = sample()
            if turn >= warmup:
                seconds[name].append(taken)
    return seconds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(seconds: Seconds, reference: str) -> dict[str, dict[str, float]]:
    """Of each contender the seconds over those of `reference` in the same round: how many times as fast that one is."""
    base = seconds[reference]
    return {name: spread([a / b for a, b in zip(times, base, strict=True)]) for name, times in seconds.items()}


def compare(seconds: Seconds, references: Sequence[str]) -> dict[str, Any]:
    """Plain data: the ratios to each reference, the seconds' spread, and every round for those who want more."""
    return {
        "ratios": {reference: ratios(seconds, reference) for reference in references},
        "seconds": {name: {**spread(times), "rounds": times} for name, times in seconds.items()},
    }


def grouped(seconds: Seconds, size: int) -> Seconds:
    """The medians of every `size` rounds in a row: for calls so short that one alone is mostly noise."""
    return {
        name: [statistics.median(times[i : i + size]) for i in range(0, len(times) - size + 1, size)]
        for name, times in seconds.items()
    }
