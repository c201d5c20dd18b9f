"""Runs that are clearly behind: which are stopped, by numbers worked out by hand, what is said, and how they go on."""

from __future__ import annotations

import dataclasses

import pytest
from small_study import TWO, tiny_plan, worker_of

from patchlight.runs import Epoch, Run, ValidationResult
from patchlight.runs.study import FINISHED, PRUNED, WAITING
from patchlight.studies.collect import collect
from patchlight.studies.prune import Curve, Pruned, check_behind, leader, share_of
from patchlight.units import SPACE

PRUNES = {"prune_after": 0.25, "prune_behind": 0.1}
THREE = [*TWO, {"name": "slow", "optim": {"lr": 0.0001}}]


def rows_of(*top1: float | None) -> list[Epoch]:
    return [
        Epoch(
            epoch=e, step=3 * e, lr=0.1, train_loss=1.0, val_top1=value, images_per_s=10.0, epoch_s=1.0, wall_s=2.0 * e
        )
        for e, value in enumerate(top1, 1)
    ]


def finish(run, *top1: float) -> None:
    """Make a run's folder as if it had ended with these validations."""
    there = Run.create(run.folder, run.config)
    there.write_epochs(rows_of(*top1))
    there.write(ValidationResult(epoch=len(top1), n=40, top1=top1[-1], top1_ci95=None, loss=1.0))


def plan_of(tmp_path, **parts):
    study = {**PRUNES, **parts.pop("study", {})}
    return tiny_plan(tmp_path, study=study, budget={"epochs": 4}, variants=parts.pop("variants", THREE), **parts)


def reason_of(plan, run, *top1: float | None) -> str | None:
    try:
        check_behind(rows_of(*top1), run, plan)
    except Pruned as reason:
        return str(reason).replace(SPACE, " ")
    return None


def test_it_is_compared_at_the_same_share_of_training(tmp_path):
    plan = plan_of(tmp_path)
    plain, fast, slow = plan.runs[:3]
    finish(plain, 0.2, 0.5, 0.7, 0.8)
    finish(fast, 0.15, 0.4, 0.8, 0.9)  # the best at its end, not at the beginning
    assert reason_of(plan, slow, 0.06) is None, "0.09 behind is not more than 0.1"
    assert reason_of(plan, slow, 0.2, 0.31) is None
    assert reason_of(plan, slow, 0.2, 0.29) == (
        "stopped after epoch 2, 50 % of training, with 29.0 % validation accuracy: more than 10 points behind fast, "
        "seed 0, which had 40.0 % there"
    )
    assert reason_of(plan, slow, 0.2, 0.3, 0.3, 0.3) is None, "it has ended anyway"
    assert reason_of(plan, slow, 0.0, None) is None, "there was no validation"


def test_nothing_is_stopped_before_its_time_or_without_a_leader(tmp_path):
    plan = plan_of(tmp_path, study={"prune_after": 0.5})
    _, fast, slow = plan.runs[:3]
    assert reason_of(plan, slow, 0.0, 0.0) is None, "nothing is finished yet"
    finish(fast, 0.5, 0.6, 0.7, 0.8)
    assert reason_of(plan, slow, 0.0) is None, "a quarter of the training is too early"
    assert "stopped after epoch 2" in (reason_of(plan, slow, 0.0, 0.0) or "")
    assert leader(plan, fast) is None, "a run is not compared with itself"


def test_the_baseline_goes_on_whatever_its_accuracy(tmp_path):
    plan = plan_of(tmp_path, study={"baseline": "plain"})
    finish(plan.runs[1], 0.5, 0.6, 0.7, 0.8)
    assert reason_of(plan, plan.runs[0], 0.0, 0.0) is None
    assert reason_of(plan, plan.runs[2], 0.0, 0.0) is not None


def test_of_a_grid_only_runs_of_the_same_place_are_compared(tmp_path):
    plan = plan_of(tmp_path, variants=list(TWO), grid={"data": {"train_per_class": [4, 12]}}, study={"seeds": [0]})
    assert [run.variant.name for run in plan.runs] == [
        *("plain, train per class 4", "plain, train per class 12"),
        *("fast, train per class 4", "fast, train per class 12"),
    ]
    finish(plan.runs[1], 0.5, 0.6, 0.7, 0.8)
    assert reason_of(plan, plan.runs[2], 0.0, 0.0) is None
    assert "behind plain, train per class 12, seed 0" in (reason_of(plan, plan.runs[3], 0.0, 0.0) or "")
    assert reason_of(plan, plan.runs[1], 0.0, 0.0) is None, "the baseline is a member, at each place"


def test_shares(tmp_path):
    plan = plan_of(tmp_path)
    row = rows_of(0.1, 0.2)[1]
    assert share_of(row, plan.runs[0].config) == 0.5
    timed = tiny_plan(tmp_path, budget={"time": "16s"}).runs[0].config
    assert share_of(row, timed) == 4.0 / 16.0
    assert share_of(dataclasses.replace(row, wall_s=99.0), timed) == 1.0
    curve = Curve("a", ((0.25, 0.1), (0.5, 0.2)))
    assert [curve.at(share) for share in (0.2, 0.25, 0.4, 0.9)] == [None, 0.1, 0.1, 0.2]


@pytest.mark.usefixtures("no_charts")
def test_a_worker_stops_a_run_and_goes_on_with_it_when_it_may(tmp_path, capsys):
    plan = plan_of(tmp_path, study={"seeds": [0]}, variants=list(TWO))
    plain, fast = plan.runs
    finish(plain, 0.9, 0.9, 0.9, 0.9)
    worker = worker_of(plan, tmp_path)
    assert worker.work(wait=True) == []
    note = worker.folder.note(fast)
    assert note is not None
    assert (worker.state_of(fast), note.state) == (PRUNED, PRUNED)
    assert note.reason.replace(SPACE, " ").startswith("stopped after epoch 1, 25 % of training, with ")
    assert "fast, seed 0: stopped after epoch 1" in capsys.readouterr().err
    told = collect(plan, worker.folder)[1]
    assert (told.state, told.reason, len(told.curve)) == (PRUNED, note.reason, 1)
    assert worker.work(wait=True) == []
    assert len(Run(fast.folder).epochs()) == 1

    patient = plan_of(tmp_path, study={"seeds": [0], "prune_after": 1.0}, variants=list(TWO))
    assert [run.key for run in patient.runs] == [plain.key, fast.key]
    worker = worker_of(patient, tmp_path)
    assert worker.state_of(fast) == WAITING
    assert worker.work(wait=True) == []
    assert [row.epoch for row in Run(fast.folder).epochs()] == [1, 2, 3, 4]
    ended = collect(patient, worker.folder)[1]
    assert (ended.state, ended.reason, ended.reused) == (FINISHED, None, False)
