"""Figures of a sweep, by what stands in them."""

from __future__ import annotations

import dataclasses

import pytest

from patchlight.figures.style import svg
from patchlight.figures.sweep import FIGURES_OF_SWEEP, history, importance, slices
from patchlight.runs.sweep import SweepAxis, SweepResult, SweepTrial


def a_trial(number: int, state: str, value: float | None, **params) -> SweepTrial:
    return SweepTrial(number=number, state=state, value=value, epoch=1, params=params, reason=None)


TRIALS = (
    a_trial(1, "finished", 0.5, **{"optim.lr": 1e-3, "optim.name": "adamw", "model.depth": 2}),
    a_trial(2, "failed", None, **{"optim.lr": 2e-3, "optim.name": "muon", "model.depth": 3}),
    a_trial(3, "finished", 0.8, **{"optim.lr": 4e-3, "optim.name": "muon", "model.depth": 4}),
    a_trial(4, "pruned", 0.2, **{"optim.lr": 9e-3, "optim.name": "adamw", "model.depth": 3}),
    a_trial(5, "finished", 0.7, **{"optim.lr": 3e-3, "optim.name": "$odd_", "model.depth": 2}),
    a_trial(6, "waiting", None),
)
RESULT = SweepResult(
    name="it",
    recipe="quickstart",
    folder="it",
    storage="it",
    axes=(
        SweepAxis(field="optim.lr", text="1e-3..1e-2:log", low=1e-3, high=1e-2, log=True, importance=0.6),
        SweepAxis(field="optim.name", text="adamw,muon", choices=("adamw", "muon", "$odd_"), importance=0.3),
        SweepAxis(field="model.depth", text="2..4", low=2, high=4, importance=0.01),
    ),
    sampler="tpe",
    pruner="median",
    seed=0,
    measure="val/top1",
    words="validation accuracy",
    asked=6,
    trials=TRIALS,
    best=3,
)


def points(axes, label: str) -> list[tuple[float, float]]:
    """The points of the line of this label."""
    (line,) = (line for line in axes.lines if line.get_label() == label)
    return list(zip(line.get_xdata(), line.get_ydata(), strict=True))


def test_history_has_every_trial_and_the_best_so_far():
    axes = history(RESULT).axes[0]
    assert points(axes, "finished") == [(1, 0.5), (3, 0.8), (5, 0.7)]
    assert points(axes, "pruned, at its last epoch") == [(4, 0.2)]
    assert points(axes, "failed") == [(2, 0.0)]
    assert points(axes, "best so far") == [(1, 0.5), (3, 0.8), (6, 0.8)]
    assert points(axes, "best: trial 3") == [(3, 0.8)]


def test_a_lower_loss_is_better():
    lower = dataclasses.replace(RESULT, lower_is_better=True, best=1)
    assert points(history(lower).axes[0], "best so far") == [(1, 0.5), (6, 0.5)]


def test_importance_has_the_greatest_at_the_top():
    axes = importance(RESULT).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["model.depth", "optim.name", "optim.lr"]
    assert [bar.get_width() for bar in axes.patches] == [0.01, 0.3, 0.6]
    without = tuple(dataclasses.replace(axis, importance=None) for axis in RESULT.axes)
    assert importance(dataclasses.replace(RESULT, axes=without)) is None


def test_slices_show_each_setting():
    rate, name, depth = slices(RESULT).axes
    assert points(rate, "finished") == [(1e-3, 0.5), (4e-3, 0.8), (3e-3, 0.7)]
    assert rate.get_xscale() == "log"
    assert [x for x, _ in points(name, "finished")] == [0, 1, 2]
    assert points(depth, "best: trial 3") == [(4, 0.8)]


@pytest.mark.parametrize("name", FIGURES_OF_SWEEP)
@pytest.mark.parametrize("trials", [TRIALS, TRIALS[:1], TRIALS[3:4], ()])
def test_they_are_drawn_of_few_trials(name, trials):
    result = dataclasses.replace(RESULT, trials=trials, best=3 if trials == TRIALS else None)
    figure = FIGURES_OF_SWEEP[name][1](result)
    if figure is not None:
        assert svg(figure, "light").startswith("<?xml")
    assert figure is not None or name == "importance" or not trials
