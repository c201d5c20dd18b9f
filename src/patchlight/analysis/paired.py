"""Is one score better than another on the same images, or may it be chance? A paired test, for many pairs at once.

Shapes: N images, T tests.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ALPHA = 0.05  # that any method of a table is said to differ from a control by chance alone
FLIPS = 9_999  # random signs for each test, beside those that were found
AT_ONCE = 500


def sign_flip_p(differences: np.ndarray, signs: np.ndarray | None = None) -> np.ndarray:
    """Two-sided p (T,) of the mean of paired differences (N, T), by a permutation test that flips their signs.

    If the two scores of an image could as well be exchanged, each difference is as likely with the other sign: p is the
    share of flips whose mean is as far from 0 as the one found, which counts too (Phipson and Smyth 2010, eq. 2). It is
    1 where all differences are 0. `signs` (F, N) of -1 and 1 are FLIPS drawn by a fixed seed where they are not given.
    """
    found = np.abs(differences.sum(axis=0))
    reached = found * (1 - 1e-9)  # equal sums are added in another order
    parts = _drawn(len(differences)) if signs is None else iter([signs])
    count, flips = np.ones_like(found), 1
    for part in parts:
        count += (np.abs(part @ differences) >= reached).sum(axis=0)
        flips += len(part)
    return count / flips


def _drawn(images: int) -> Iterator[np.ndarray]:
    draw = np.random.default_rng(0)
    for first in range(0, FLIPS, AT_ONCE):
        yield draw.integers(0, 2, (min(AT_ONCE, FLIPS - first), images)) * 2.0 - 1


def holm(p: np.ndarray) -> np.ndarray:
    """p (T,) of one family, corrected so that those up to alpha hold a false one with a chance of at most alpha
    (Holm 1979): the k-th smallest of T times T - k + 1, none below the one before, and 1 at most.
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected
