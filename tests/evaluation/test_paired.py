"""The t interval of differences by seed, held against scipy's paired t test and a case by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

from patchlight.evaluation.paired import Paired, paired_difference


@pytest.mark.parametrize("n", [2, 3, 5, 30])
@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_it_is_the_interval_of_scipys_paired_test(n, confidence):
    draw = np.random.default_rng(n)
    a, b = draw.normal(0.8, 0.02, n), draw.normal(0.79, 0.02, n)
    theirs = ttest_rel(a, b).confidence_interval(confidence)
    ours = paired_difference((a - b).tolist(), confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    assert ours.mean == pytest.approx((a - b).mean())
    assert ours.n == n


def test_three_seeds_by_hand():
    """1, 2 and 3 points: mean 2, deviation 1, and t with 2 degrees of freedom is 4.302653 (any table of it)."""
    found = paired_difference([0.01, 0.02, 0.03])
    half = 4.302653 * 0.01 / 3**0.5
    assert (found.low, found.high) == pytest.approx((0.02 - half, 0.02 + half), rel=1e-6)
    assert not found.is_seen
    assert paired_difference([0.019, 0.02, 0.021]).is_seen
    assert paired_difference([-0.019, -0.02, -0.021]).is_seen


def test_one_difference_has_no_interval_and_equal_ones_no_width():
    assert paired_difference([0.02]) == Paired(0.02, None, None, 1)
    assert not paired_difference([0.02]).is_seen
    assert paired_difference([0.25, 0.25, 0.25]) == Paired(0.25, 0.25, 0.25, 3)
    assert not paired_difference([0.0, 0.0]).is_seen
    assert not paired_difference([0.25, 0.25]).is_seen
    dust = paired_difference([0.85 - 0.80, 0.90 - 0.85])
    assert dust.low == dust.high == dust.mean
    assert paired_difference([0.05, 0.0501]).low < 0.0501


@pytest.mark.parametrize(
    ("each", "confidence"), [([], 0.95), ([0.1, float("nan")], 0.95), ([0.1, 0.2], 1.0), ([0.1, 0.2], 95.0)]
)
def test_what_is_no_sample_is_refused(each, confidence):
    with pytest.raises(ValueError, match="must be"):
        paired_difference(each, confidence)
