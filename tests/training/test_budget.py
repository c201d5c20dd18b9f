"""A budget in steps: the arithmetic on a simulated clock, and a real training that keeps to its time."""

from __future__ import annotations

import pytest
from small import run_fit, stopped_at_save

from patchlight.training import budget as budget_module
from patchlight.training import state as state_module
from patchlight.training.budget import Budget, Pace, finish_s, plan_steps, time_steps
from patchlight.training.loop import Trainer
from patchlight.training.tasks import Classification

PACE = Pace(step_s=0.1, val_s=2.0)


@pytest.mark.parametrize(
    ("steps_s", "seconds", "count", "median"),
    [
        ([5, 4] + [1] * 20, 20.0, 13, 1),  # as many as fill the time, and the first two do not count
        ([3, 2, 2, 1, 3, 9], 4.0, 5, 2),  # at least five, where they end within four times as long
        ([9, 8, 7], 4.0, 2, 8),
        ([9, 6, 6], 0.0, 2, 6),  # in any case two
    ],
)
def test_steps_that_are_timed(monkeypatch, steps_s, seconds, count, median):
    times = [sum(steps_s[:i]) for i in range(len(steps_s)) for _ in range(2)][1:]
    monkeypatch.setattr(budget_module.time, "perf_counter", iter(times).__next__)
    done = []
    assert time_steps(done.append, seconds) == median
    assert done == list(range(count))


@pytest.mark.parametrize(
    ("left_s", "done", "steps"),
    [
        (12.0, 0, 100),  # one epoch of ten seconds and its validation
        (24.0, 0, 200),
        (19.0, 0, 150),  # and half of another: five seconds and two
        (13.0, 0, 100),  # no room for another validation
        (7.0, 50, 100),  # the second half of an epoch
        (19.0, 150, 300),
        (0.0, 30, 31),  # too late: one step more
    ],
)
def test_steps_that_fit(left_s, done, steps):
    assert plan_steps(left_s, done, PACE, 100) == steps


@pytest.mark.parametrize(
    ("total", "done"),
    [(total, done) for total in (1, 99, 100, 101, 250, 1000) for done in (0, 1, 99, 100, 230) if done < total],
)
def test_the_plan_ends_in_time_and_no_step_more_would(total, done):
    left = finish_s(total, done, PACE, 100)
    planned = plan_steps(left + 1e-6, done, PACE, 100)
    assert finish_s(planned, done, PACE, 100) <= left + 1e-3
    assert finish_s(planned + 1, done, PACE, 100) > left


def simulate(budget_s: float, real_step_s, planned: Pace, per_epoch: int = 100) -> float:
    """Seconds that a training takes whose steps last `real_step_s(step)`, validations as planned."""
    budget, total = Budget(budget_s, planned, per_epoch), plan_steps(budget_s, 0, planned, per_epoch)
    clock = steps = 0.0
    done = 0
    while done < total:
        clock += real_step_s(done)
        steps += real_step_s(done)
        done += 1
        total = budget.revise(total, done, steps, clock)
        if done % per_epoch == 0 or done == total:
            clock += planned.val_s
    return clock


def test_a_steady_machine_ends_in_time_and_is_never_moved():
    budget, total = Budget(100.0, PACE, 100), plan_steps(100.0, 0, PACE, 100)
    for done in range(1, total):
        assert budget.revise(total, done, 0.1 * done, 0.1 * done + 2 * (done // 100)) == total
    assert simulate(100.0, lambda step: 0.1, PACE) == pytest.approx(100, rel=0.05)


@pytest.mark.parametrize("factor", [0.5, 1.3, 3.0])
def test_a_wrong_rehearsal_is_made_good(factor):
    assert simulate(600.0, lambda step: 0.1 * factor, PACE) == pytest.approx(600, rel=0.05)


def test_a_machine_that_slows_down_half_way():
    assert simulate(600.0, lambda step: 0.1 if step < 2000 else 0.2, PACE) == pytest.approx(600, rel=0.05)


def test_a_budget_decides_the_steps(tmp_path, capsys):
    state, run = run_fit(tmp_path, train={"budget": "3s", "epochs": 1})
    rows = run.metrics()
    assert "the budget of 3s holds" in capsys.readouterr().err
    assert state.total_steps == rows[-1]["step"] >= 1
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))


class Clock:
    """A time that passes with steps, validations and saves alone."""

    def __init__(self, monkeypatch, step_s: float) -> None:
        self.now, self.steps = 0.0, 0
        for module in (state_module, budget_module):
            monkeypatch.setattr(module, "time", self)

        def slow(kind, name, seconds):
            real = getattr(kind, name)

            def work(this, *words, **named):
                self.now += seconds(words)
                return real(this, *words, **named)

            monkeypatch.setattr(kind, name, work)

        slow(Trainer, "train_step", lambda words: step_s)
        slow(Classification, "score", lambda words: 0.05 * len(words[1]))  # 12 images: 0.6 s
        slow(Trainer, "save", lambda words: 0.2)

    def monotonic(self) -> float:
        return self.now

    perf_counter = process_time = monotonic


@pytest.mark.parametrize("step_s", [0.1, 0.37])
def test_a_training_and_its_resumption_keep_to_the_budget(tmp_path, monkeypatch, step_s):
    Clock(monkeypatch, step_s)
    settings = {"train": {"budget": "20s"}}
    state, run = run_fit(tmp_path, "whole", **settings)
    assert state.wall_s == pytest.approx(20, rel=0.05)
    assert run.metrics()[-1]["wall_s"] == pytest.approx(20, rel=0.05)
    with stopped_at_save(3):
        run_fit(tmp_path, "cut", **settings)
    again, _ = run_fit(tmp_path, "cut", resume=True, **settings)
    assert again.wall_s == pytest.approx(20, rel=0.05)  # of both processes together
    assert 0.7 * state.total_steps < again.total_steps < state.total_steps  # it rehearsed twice


def test_a_rehearsal_leaves_no_trace(tmp_path, monkeypatch):
    """The same number of steps, planned by a budget or given as epochs, ends in the same weights."""
    from patchlight.models import load_model

    monkeypatch.setattr(Budget, "revise", lambda self, total, *_: total)  # which would change the learning rates
    sections = {"optim": {"name": "muon"}}
    state, budgeted = run_fit(tmp_path, "budget", train={"budget": "1s", "ema_decay": 0.9}, **sections)
    epochs = state.total_steps / 3
    _, plain = run_fit(tmp_path, "plain", train={"epochs": epochs, "ema_decay": 0.9}, **sections)
    for (name, p), q in zip(
        load_model(budgeted.path)[0].state_dict().items(), load_model(plain.path)[0].state_dict().values(), strict=True
    ):
        assert p.equal(q), name


def test_an_epoch_may_end_in_the_middle(tmp_path):
    state, run = run_fit(tmp_path, train={"epochs": 2.34, "checkpoint_every": 1})
    assert [row["step"] for row in run.metrics()] == [3, 6, 7]
    assert state.epoch == 3
    names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert names == ["step-00000003", "step-00000006", "step-00000007"]
