"""How much better is one recipe than another, seed by seed? A mean difference and its t interval.

Whether one *map* is better than another on the same images is another question, which `analysis/paired.py` answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

EQUAL = 1e-9  # rates this close are the same share of images, added up in another order


@dataclass(frozen=True)
class Paired:
    """The mean of n paired differences and its interval, in the unit of the differences."""

    mean: float
    low: float | None  # None with one difference, which tells nothing of how much they vary
    high: float | None
    n: int

    @property
    def is_seen(self) -> bool:
        """Whether the interval leaves out zero: the differences are not explained by their own variation. One without
        width tells nothing of chance.
        """
        if self.low is None or self.high is None or self.low == self.high:
            return False
        return self.low > 0 or self.high < 0


def paired_difference(each: Sequence[float], confidence: float = 0.95) -> Paired:
    """The mean of differences (n,), one for each seed that both sides have, and its two-sided t interval.

    mean +- t * s / sqrt(n), where s is the sample deviation and t the quantile of Student's distribution with n - 1
    degrees of freedom (Student 1908, "The Probable Error of a Mean"): that of scipy's `ttest_rel`. It takes the
    differences to be independent and about normal, so that of three seeds it is wide. Where all differences are equal,
    up to EQUAL, it has no width. Raises ValueError where there is no difference, one is not finite, or `confidence` is
    not in 0..1.
    """
    values = np.asarray(each, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"differences must be a list of finite numbers with at least one, not {list(each)!r}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, not {confidence}")
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return Paired(mean, None, None, n)
    if values.max() - values.min() < EQUAL:
        return Paired(mean, mean, mean, n)
    from scipy.stats import t  # slow to import

    half = float(t.ppf((1 + confidence) / 2, n - 1) * values.std(ddof=1) / n**0.5)
    return Paired(mean, mean - half, mean + half, n)
