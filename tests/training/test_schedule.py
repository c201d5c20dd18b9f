"""Schedules against torch's and Hugging Face's."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import transformers

from patchlight.config import ScheduleConfig
from patchlight.training.schedule import SHAPES, learning_rate, momentum, warmup_steps

TOTAL, WARMUP, PEAK = 50, 7, 3e-3


def rates(name: str, warmup: int = WARMUP, **fields) -> list[float]:
    config = ScheduleConfig(name=name, **fields)
    return [learning_rate(step, TOTAL, PEAK, config, warmup) for step in range(TOTAL)]


def rates_of(make) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    scheduler, found = make(optimizer), []
    for _ in range(TOTAL):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("name", "fields", "make"),
    [
        ("linear", {}, lambda o: transformers.get_linear_schedule_with_warmup(o, WARMUP, TOTAL)),
        ("cosine", {}, lambda o: transformers.get_cosine_schedule_with_warmup(o, WARMUP, TOTAL)),
        ("constant", {}, lambda o: transformers.get_constant_schedule_with_warmup(o, WARMUP)),
        (
            "cosine_restarts",
            {"cycles": 3, "restart_warmup": False},
            lambda o: transformers.get_cosine_with_hard_restarts_schedule_with_warmup(o, WARMUP, TOTAL, 3),
        ),
    ],
)
def test_against_hugging_face(name, fields, make):
    assert rates(name, **fields) == pytest.approx(rates_of(make), abs=1e-12)


@pytest.mark.parametrize(("cycles", "warmup", "min_lr"), [(3, 5, 1e-4), (2, 0, 0.0), (1, 7, 1e-6)])
def test_every_cycle_has_its_warmup(cycles, warmup, min_lr):
    """Each cycle is torch's linear warm-up followed by its cosine; the second and later ones begin at min_lr."""
    length = 20
    config = ScheduleConfig(name="cosine_restarts", cycles=cycles, min_lr=min_lr)
    ours = [learning_rate(step, cycles * length, PEAK, config, warmup) for step in range(cycles * length)]
    for cycle in range(cycles):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
        fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, length - warmup, eta_min=min_lr)
        for step in range(warmup, length):
            assert ours[cycle * length + step] == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
            optimizer.step()
            fall.step()
        start = min_lr if cycle else 0.0
        rise = [start + (PEAK - start) * step / max(1, warmup) for step in range(warmup)]
        assert ours[cycle * length :][:warmup] == pytest.approx(rise, abs=1e-12)
    if warmup:  # without jumps: no step up is larger than one of the warm-up
        assert max(after - before for before, after in itertools.pairwise(ours)) <= PEAK / warmup + 1e-12


@pytest.mark.parametrize("pct_start", [0.1, 0.3, 0.75])
def test_onecycle_and_its_momentum_against_torch(pct_start):
    adamw = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    theirs = torch.optim.lr_scheduler.OneCycleLR(adamw, PEAK, total_steps=TOTAL + 1, pct_start=pct_start)
    config = ScheduleConfig(name="onecycle", pct_start=pct_start, cycle_momentum=True)
    for step in range(TOTAL):
        group = adamw.param_groups[0]
        assert learning_rate(step, TOTAL + 1, PEAK, config) == pytest.approx(group["lr"], abs=1e-12)
        assert momentum(step, TOTAL + 1, config) == pytest.approx(group["betas"][0], abs=1e-12)
        adamw.step()
        theirs.step()


def test_momentum_is_left_alone_unless_it_is_asked_for():
    assert momentum(3, TOTAL, ScheduleConfig(name="onecycle")) is None
    assert momentum(3, TOTAL, ScheduleConfig(name="cosine", cycle_momentum=True)) is None


def test_onecycle_of_any_length():
    for total in range(1, 8):
        for pct_start in (0.001, 0.25, 0.5, 0.999):
            config = ScheduleConfig(name="onecycle", pct_start=pct_start)
            assert all(0 < learning_rate(step, total, PEAK, config) <= PEAK for step in range(total))


def test_cosine_to_a_floor_against_torch():
    make = lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, TOTAL, eta_min=1e-4)  # noqa: E731
    assert rates("cosine", warmup=0, min_lr=1e-4) == pytest.approx(rates_of(make), abs=1e-12)


@pytest.mark.parametrize("name", [*SHAPES, "onecycle"])
def test_every_schedule_stays_between_zero_and_the_peak(name):
    found = rates(name)
    assert all(0 <= lr <= PEAK for lr in found)
    assert max(found) == pytest.approx(PEAK, rel=0.01)
    assert not math.isnan(sum(found))


def test_warmup_in_epochs_or_steps():
    assert warmup_steps(ScheduleConfig(warmup_epochs=1.5), 100, 1000) == 150
    assert warmup_steps(ScheduleConfig(warmup_epochs=1.5, warmup_steps=500), 100, 1000) == 500
    assert warmup_steps(ScheduleConfig(warmup_steps=0), 100, 1000) == 0
    assert warmup_steps(ScheduleConfig(warmup_epochs=1, warmup_share=0.05), 100, 1000) == 50
