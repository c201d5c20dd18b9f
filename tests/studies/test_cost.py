"""What a study will cost, from timed steps, and that nothing is left of them."""

from __future__ import annotations

import datetime

import pytest
from small_study import TWO, tiny_plan, worker_of

from patchlight.data.splits import load_splits
from patchlight.models.summary import count
from patchlight.studies import cost as costs
from patchlight.studies.cost import study_cost
from patchlight.studies.plan import train_flops
from patchlight.training.setup import prepare


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(costs, "TRIAL_S", 0.05)


def cost_of(plan, place, sizes=()):
    return study_cost(plan, worker_of(plan, place).folder, place / "runs", sizes)


def test_a_study_by_its_steps(tmp_path):
    """7 steps of 32 images for each of two variants and seeds; `same` is the recipe of `plain` again."""
    variants = [*TWO, {"name": "same"}]
    plan = tiny_plan(tmp_path, budget={"steps": 7}, variants=variants)
    before = datetime.datetime.now().astimezone()
    found = cost_of(plan, tmp_path, ("cpu", "gpu"))
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
    setup = prepare(plan.runs[0].config, load_splits(plan.runs[0].config.data))
    size = count(setup.model, setup.card.img_size)
    of_a_run = train_flops(size.flops_per_image, 7 * 32)
    for each in found.variants:
        assert (each.done, each.left, each.steps, each.params) == (0, 2, 7, size.params)
        assert each.epochs == pytest.approx(7 / 3)
        assert each.train_flops == pytest.approx(of_a_run)
        assert each.images_per_s > 0
        assert 7 * 32 / each.images_per_s < each.run_s, "with validation"
    assert (found.runs, found.left, found.seeds, found.sizes) == (4, 4, (0, 1), ("cpu", "gpu"))
    assert found.train_flops == pytest.approx(4 * of_a_run)
    one, other, _ = found.variants
    assert found.seconds == pytest.approx(2 * one.run_s + 2 * other.run_s), "runs that two variants share count once"
    end = datetime.datetime.fromisoformat(found.finish_at)
    assert (end - before).total_seconds() > found.seconds - 1
    assert found.budget == "each run trains for 7 steps"
    assert costs.StudyCost.from_json(found.to_json()) == found


@pytest.mark.usefixtures("no_charts")
def test_what_is_done_costs_nothing_more(tmp_path):
    plan = tiny_plan(tmp_path, budget={"epochs": 1}, study={"seeds": [0]})
    worker = worker_of(plan, tmp_path)
    assert worker.take(plan.runs[0])
    found = cost_of(plan, tmp_path)
    assert [(each.done, each.left) for each in found.variants] == [(1, 0), (0, 1)]
    assert found.left == 1
    assert found.seconds == found.variants[1].run_s


def test_a_budget_of_time_takes_as_long_as_it_says(tmp_path):
    plan = tiny_plan(tmp_path, budget={"time": "20s"}, study={"seeds": [0]})
    found = cost_of(plan, tmp_path)
    assert [each.run_s for each in found.variants] == [20.0, 20.0]
    assert found.seconds == 40.0
    for each in found.variants:
        assert each.epochs == pytest.approx(each.steps / 3)
        assert each.steps * 32 <= 20 * each.images_per_s
