"""A budget of time: the arithmetic on a simulated clock, and a real training that keeps to its time."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pytest
import torch
from small import rows_of, run_fit, stopped_at_save

from patchlight.config import ScheduleConfig
from patchlight.training import budget as budget_module
from patchlight.training import fit as fitting
from patchlight.training import loop
from patchlight.training import state as state_module
from patchlight.training.budget import Budget, Pace, finish_s, plan_steps, seconds_for_steps, time_steps
from patchlight.training.checkpoint import list_checkpoints, read_state
from patchlight.training.loop import Trainer
from patchlight.training.schedule import learning_rate, warmup_steps
from patchlight.training.tasks import Classification, Validation

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


@pytest.mark.parametrize(
    ("left_s", "done", "seconds"),
    [
        (12.0, 0, 10.0),  # one epoch of ten seconds and its validation
        (19.0, 0, 15.0),  # and half of another: five seconds and two
        (13.0, 0, 10.0),  # no room for another validation
        (7.0, 50, 5.0),  # the second half of an epoch
        (6.5, 50, 4.5),
        (1.0, 30, 0.0),  # too late
    ],
)
def test_seconds_that_are_for_steps(left_s, done, seconds):
    assert seconds_for_steps(left_s, done, PACE, 100) == pytest.approx(seconds)


@dataclass
class Simulated:
    """A training on a simulated clock, step by step."""

    seconds: float  # when it ended
    steps: int
    progress: list[float]  # before each step, and at the end
    shares: list[float]  # of each step in the time that was left for steps when it began


def simulate(budget_s: float, step_s, planned: Pace, val_s=lambda now: 2.0, per_epoch: int = 100) -> Simulated:
    """A training whose steps last `step_s(now)` and whose validations `val_s(now)`; `planned` is what it expects."""
    budget, now, done = Budget(budget_s, planned, per_epoch), 0.0, 0
    progress, shares = [0.0], []
    while progress[-1] < 1:
        seconds = step_s(now)
        shares.append(seconds / max(1e-9, seconds_for_steps(budget_s - now, done, budget.pace, per_epoch)))
        progress.append(budget.after_step(progress[-1], done, now, seconds))
        now += seconds
        done += 1
        if done % per_epoch == 0 or progress[-1] >= 1:
            now += val_s(now)
            budget.after_epoch(val_s(now))
    return Simulated(now, done, progress, shares)


def test_on_a_steady_machine_progress_is_even():
    """Half of the steps are half of the way, and there are as many as were planned."""
    training = simulate(600.0, lambda now: 0.1, PACE)
    assert training.steps == plan_steps(600.0, 0, PACE, 100)
    even = [step / training.steps for step in range(training.steps + 1)]
    assert training.progress == pytest.approx(even, abs=2e-3)
    assert training.seconds == pytest.approx(600, abs=PACE.val_s)


MACHINES = {
    "slower than rehearsed": lambda now: 0.3,
    "faster than rehearsed": lambda now: 0.04,
    "slower from the middle on": lambda now: 0.1 if now < 300 else 0.3,
    "faster from the middle on": lambda now: 0.3 if now < 300 else 0.1,
    "slow for a while": lambda now: 0.3 if 200 < now < 300 else 0.1,
    "slow at the very end": lambda now: 0.1 if now < 570 else 0.3,
    "every tenth step long": lambda now: 0.05 if int(now * 10) % 10 else 0.5,
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("planned", [PACE, Pace(0.1, 0.5), Pace(0.1, 6.0)], ids=str)
def test_it_ends_in_time_and_no_rate_jumps(machine, planned):
    training = simulate(600.0, MACHINES[machine], planned)
    assert 0.98 * 600 <= training.seconds <= 1.005 * 600
    assert training.progress[-1] == 1
    assert training.progress[-2] > 0.98  # the last rates are those of the end
    total = plan_steps(600.0, 0, planned, 100)
    schedule = ScheduleConfig(name="cosine", warmup_share=0.1)
    warmup = warmup_steps(schedule, 100, total)
    rates = [learning_rate(progress * total, total, 1.0, schedule, warmup) for progress in training.progress[:-1]]
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    for step, share in enumerate(training.shares[:-1]):
        moved = training.progress[step + 1] - training.progress[step]
        assert 0 < moved <= 1.05 * share * (1 - training.progress[step]) + 1e-9
        if step + 1 < len(rates):  # a cosine's steepest slope is pi / 2 of the way after the warm-up
            assert rates[step] - rates[step + 1] <= 1.05 * math.pi / 2 * moved / 0.9


def test_longer_validations_are_kept_time_for():
    training = simulate(600.0, lambda now: 0.1, PACE, val_s=lambda now: 2.0 if now < 300 else 6.0)
    assert 0.98 * 600 <= training.seconds <= 1.01 * 600


def test_a_budget_that_is_used_up_ends_at_once():
    assert Budget(10.0, PACE, 100).after_step(0.3, 20, 9.9, 0.1) == 1


def test_a_budget_decides_the_steps(tmp_path, capsys):
    """20 images a step leave 8 for the third of an epoch."""
    state, run = run_fit(tmp_path, train={"budget": "3s", "epochs": 1, "batch_size": 20, "drop_last": False})
    rows = run.epochs()
    images = [48] * (len(rows) - 1) + [(48, 20, 40)[state.done % 3]]
    assert [row.images_per_s * row.epoch_s for row in rows] == pytest.approx(images)
    said = capsys.readouterr().err
    assert "the budget of 3s holds" in said
    assert "epoch 1 of about " in said
    assert state.done == rows[-1].step >= 1
    assert state.progress == 1
    assert [row.epoch for row in rows] == list(range(1, len(rows) + 1))


class Clock:
    """A time that passes with steps, validations and saves alone, of which none computes; `rates` of the steps."""

    def __init__(self, monkeypatch, step_s) -> None:
        self.now, self.rates = 0.0, []
        for module in (state_module, budget_module):
            monkeypatch.setattr(module, "time", self)
        save = loop.save

        def train_step(trainer, epoch, step):
            trainer.begin_step(epoch, step)
            self.rates.append(trainer.stage.optimizers[0].param_groups[0]["lr"])
            self.now += step_s(self.now)
            return torch.tensor(1.0), torch.tensor(0)

        def score(task, model, images):
            self.now += 0.005 * len(images)  # 12 images: 0.06 s
            return Validation(1.0, 0.5)

        def slow_save(*words):
            self.now += 0.02
            save(*words)

        monkeypatch.setattr(Trainer, "train_step", train_step)
        monkeypatch.setattr(Classification, "score", score)
        monkeypatch.setattr(loop, "save", slow_save)

    def monotonic(self) -> float:
        return self.now

    perf_counter = process_time = monotonic


STEPS = {
    "steady": lambda now: 0.1,
    "three times slower in the middle": lambda now: 0.1 if now < 15 else 0.3,
    "three times faster in the middle": lambda now: 0.3 if now < 15 else 0.1,
}


@pytest.mark.parametrize("steps", STEPS)
def test_a_training_and_its_resumption_keep_to_the_budget(tmp_path, monkeypatch, steps):
    """To a step, and to a validation where there is no time for another one."""
    clock = Clock(monkeypatch, STEPS[steps])
    settings = {"train": {"budget": "30s", "batch_size": 2}, "schedule": {"warmup_epochs": 1}}
    state, run = run_fit(tmp_path, "whole", **settings)
    assert 29.4 <= state.wall_s <= 30.1
    assert run.epochs()[-1].wall_s == pytest.approx(state.wall_s, abs=0.03)  # but for the last save
    rates = clock.rates[len(clock.rates) - state.done :]  # after those of the rehearsal
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)

    clock.now = 0.0
    with stopped_at_save(3):
        run_fit(tmp_path, "cut", **settings)
    kept = read_state(list_checkpoints(tmp_path / "cut" / "checkpoints")[-1])
    clock.rates.clear()
    again, resumed = run_fit(tmp_path, "cut", resume=True, **settings)
    assert 29.4 <= again.wall_s <= 30.1  # of both processes together
    assert again.total_steps == kept.total_steps  # and with them the warm-up
    first = clock.rates[len(clock.rates) - (again.done - kept.done)]
    schedule, total = ScheduleConfig(warmup_epochs=1), kept.total_steps
    assert first == learning_rate(kept.progress * total, total, 3e-3, schedule, warmup=24)
    assert [row.epoch for row in resumed.epochs()] == list(range(1, again.epoch + 1))


def test_a_budget_of_a_stage_begins_with_it(tmp_path, monkeypatch):
    """One epoch of 2.4 s without a budget, then ten seconds, also where the second stage is cut in two."""
    clock = Clock(monkeypatch, lambda now: 0.1)
    stages = [{"train": {"epochs": 1}}, {"train": {"budget": "10s"}}]
    settings = {"train": {"batch_size": 2}, "stages": stages}
    state, run = run_fit(tmp_path, "whole", **settings)
    first, second = ([row for row in run.epochs() if row.stage == stage] for stage in (1, 2))
    assert len(first) == 1
    assert state.wall_before == pytest.approx(first[-1].wall_s, abs=0.03)
    assert 9.4 <= state.stage_s <= 10.1
    assert len(second) == 4

    clock.now = 0.0
    with stopped_at_save(3):
        run_fit(tmp_path, "cut", **settings)
    again, resumed = run_fit(tmp_path, "cut", resume=True, **settings)
    assert 9.4 <= again.stage_s <= 10.1
    assert [row.stage for row in resumed.epochs()] == [row.stage for row in run.epochs()]


def test_a_checkpoint_of_an_older_budget_goes_on(tmp_path, monkeypatch):
    """In which progress was the steps done of those planned."""
    Clock(monkeypatch, lambda now: 0.1)
    settings = {"train": {"budget": "10s"}}
    with stopped_at_save(3):
        run_fit(tmp_path, **settings)
    folder = list_checkpoints(tmp_path / "run" / "checkpoints")[-1]
    path = folder / "state.json"
    kept = json.loads(path.read_text())
    for key in ("done", "progress", "epoch_start"):
        del kept[key]
    path.write_text(json.dumps(kept))
    (folder / "config.json").unlink()  # they had no card, and another name
    folder.rename(folder.with_name("step-00000009"))
    state, run = run_fit(tmp_path, resume=True, **settings)
    assert 9.8 <= state.wall_s <= 10.1
    assert run.epochs()[-1].step == state.done


def test_a_rehearsal_leaves_no_trace(tmp_path, monkeypatch):
    """With the same progress, planned by a budget or given as epochs, training ends in the same weights."""
    from patchlight.models import load_model

    def even(self, progress, done, spent_s, step_s):
        return (done + 1) / 7

    monkeypatch.setattr(Budget, "after_step", even)
    monkeypatch.setattr(fitting, "plan_steps", lambda *_: 7)
    sections = {"optim": {"name": "muon"}, "schedule": {"name": "constant"}}
    for precision in ("fp32", "fp16"):
        train = {"ema_decay": 0.9, "precision": precision}
        _, budgeted = run_fit(tmp_path, f"budget {precision}", train={**train, "budget": "1s"}, **sections)
        _, plain = run_fit(tmp_path, f"plain {precision}", train={**train, "epochs": 7 / 3}, **sections)
        assert [row.train_loss for row in budgeted.epochs()] == [row.train_loss for row in plain.epochs()]
        weights = load_model(plain.path)[0].state_dict()
        for name, p in load_model(budgeted.path)[0].state_dict().items():
            assert p.equal(weights[name]), name


def test_an_epoch_may_end_in_the_middle(tmp_path):
    state, run = run_fit(tmp_path, train={"epochs": 2.34, "checkpoint_every": 1})
    assert [row["step"] for row in rows_of(run)] == [3, 6, 7]
    assert state.epoch == 3
    names = sorted(path.name for path in (run.path / "checkpoints").iterdir())
    assert names == ["epoch-001", "epoch-002", "epoch-003"]
