"""From numbers of images to cells of the table."""

from __future__ import annotations

import numpy as np
import pytest

from patchlight.analysis.scores import interval, judged
from patchlight.evaluation.metrics import wilson_interval
from patchlight.runs import MIN_IMAGES, Interval

CONTROLS = ("random", "centre")


def test_an_interval_covers_the_mean_of_a_normal_sample():
    """Its width is nearly 2 * 1.96 standard errors."""
    sample = np.random.default_rng(0).standard_normal(400) + 3
    found = interval(sample)
    assert found.mean == pytest.approx(sample.mean())
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * sample.std() / 20, rel=0.1)
    assert interval(np.ones(MIN_IMAGES)) == Interval(mean=1.0, low=1.0, high=1.0)


@pytest.mark.parametrize("count", [1, 2, MIN_IMAGES - 1])
def test_of_few_images_there_is_none(count):
    assert interval(np.arange(float(count))) == Interval(mean=(count - 1) / 2)
    assert interval(np.ones(count), rate=True) == Interval(mean=1.0)


def test_a_rate_has_an_interval_where_all_images_agree():
    found = interval(np.ones(30), rate=True)
    assert (found.low, found.high) == wilson_interval(30, 30)
    assert found.low is not None
    assert found.low < 0.9


def samples(n: int, **shifts: float) -> dict[str, dict[str, np.ndarray]]:
    """Scores of methods and controls on the same images, which differ far more than the methods do."""
    draw = np.random.default_rng(0)
    image = 10 * draw.random(n)
    rows = {**shifts, "random": 0.0, "centre": 0.3}
    return {name: {"deletion": image + shift + 0.1 * draw.standard_normal(n)} for name, shift in rows.items()}


def test_what_is_better_on_the_same_images_is_better_though_intervals_overlap():
    found, tested = judged(samples(60, good=-0.2, worse=0.6, between=0.15), CONTROLS, {"deletion": "low"})
    good, control = found["good"]["deletion"], found["random"]["deletion"]
    assert good.high is not None
    assert control.low is not None
    assert good.high > control.low  # their intervals overlap by far
    assert good.against is not None
    assert good.against["random"].difference == pytest.approx(-0.2, abs=0.05)
    assert good.against["random"].p < 0.01
    assert not good.fails
    assert found["worse"]["deletion"].fails
    assert found["worse"]["deletion"].against["random"].p < 0.01  # as sure, on the wrong side
    between = found["between"]["deletion"].against
    assert (between["random"].better, between["centre"].better) == (False, True)
    assert found["between"]["deletion"].fails
    assert control.against is None
    assert not control.fails
    assert "for the 3 methods by Holm" in str(tested)


def test_the_side_that_is_better_may_be_high():
    rows = samples(40, good=0.6, worse=-0.2)
    found, _ = judged(rows, CONTROLS, {"deletion": "high"})
    assert not found["good"]["deletion"].fails
    assert found["worse"]["deletion"].fails


def test_many_methods_are_corrected_for():
    """A method that would be better alone is not shown to be among twelve that are not."""
    rows = samples(30, good=-0.075)
    alone, _ = judged(rows, ("random",), {"deletion": "low"})
    p = alone["good"]["deletion"].against["random"].p
    assert 0.005 < p <= 0.05
    draw = np.random.default_rng(5)
    idle = {f"idle{i}": {"deletion": rows["random"]["deletion"] + 0.1 * draw.standard_normal(30)} for i in range(11)}
    among, _ = judged({**rows, **idle}, ("random",), {"deletion": "low"})
    assert among["good"]["deletion"].against["random"].p > 0.05
    assert among["good"]["deletion"].fails


@pytest.mark.parametrize("count", [1, MIN_IMAGES - 1])
def test_of_few_images_nothing_is_tested(count):
    found, tested = judged(samples(count, good=-5.0), CONTROLS, {"deletion": "low"})
    assert tested is None
    for row in found.values():
        assert row["deletion"].against is None
        assert row["deletion"].low is None
        assert not row["deletion"].fails


def test_a_measure_of_few_of_the_images_has_neither():
    """As pointing, where the evidence is known of some alone."""
    rows = samples(40, good=-5.0)
    rows = {name: {**row, "pointing": row["deletion"][:7]} for name, row in rows.items()}
    found, tested = judged(rows, CONTROLS, {"deletion": "low", "pointing": "low"})
    assert tested is not None
    assert found["good"]["deletion"].images is None
    assert found["good"]["pointing"].images == 7
    assert found["good"]["pointing"].low is None
    assert found["good"]["pointing"].against is None


def test_controls_alone_are_tested_against_nothing():
    found, tested = judged(samples(40), CONTROLS, {"deletion": "low"})
    assert tested is None
    assert found["random"]["deletion"].low is not None
