"""The paired test against SciPy's, and the correction by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from patchlight.analysis.paired import FLIPS, holm, sign_flip_p


def test_of_all_flips_it_is_scipys_exact_test():
    differences = np.random.default_rng(0).standard_normal((9, 5)) + 0.4 * np.arange(5)
    flips = np.array([signs for signs in itertools.product((-1.0, 1.0), repeat=9) if min(signs) < 0])  # one is as found
    expected = [
        scipy.stats.permutation_test((column,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
        for column in differences.T
    ]
    assert min(expected) < 0.02
    assert sign_flip_p(differences, flips).tolist() == pytest.approx(expected)
    assert sign_flip_p(-differences, flips).tolist() == pytest.approx(expected)  # two-sided


def test_drawn_flips_are_nearly_all_of_them_and_the_same_each_time():
    differences = np.random.default_rng(1).standard_normal((13, 4)) + 0.2 * np.arange(4)
    expected = [
        scipy.stats.permutation_test((column,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
        for column in differences.T
    ]
    found = sign_flip_p(differences)
    assert found.tolist() == pytest.approx(expected, abs=0.02)
    assert sign_flip_p(differences).tolist() == found.tolist()
    assert sign_flip_p(differences[:, 2:3]).tolist() == found[2:3].tolist()  # whatever is tested beside it


def test_no_difference_and_the_greatest_possible():
    found = sign_flip_p(np.stack([np.zeros(30), np.ones(30), np.full(30, 1e-9)], axis=1))
    assert found.tolist() == pytest.approx([1, 1 / (FLIPS + 1), 1 / (FLIPS + 1)])


def test_it_is_right_as_often_as_it_says():
    """Of 400 pairs without a difference in truth some 5 % are below 0.05, however skewed the scores are."""
    draw = np.random.default_rng(2)
    pairs = draw.exponential(size=(2, 25, 400))
    assert 0.02 < (sign_flip_p(pairs[0] - pairs[1]) <= 0.05).mean() < 0.08


def test_holm_by_hand():
    """0.01 * 4, 0.02 * 3, 0.03 * 2 = 0.06 and 0.9."""
    assert holm(np.array([0.9, 0.01, 0.03, 0.02])).tolist() == pytest.approx([0.9, 0.04, 0.06, 0.06])
    assert holm(np.array([0.6, 0.7])).tolist() == [1, 1]
    assert holm(np.array([0.04])).tolist() == [0.04]
