"""Stratified splits: rows are chosen class by class, by a seed.

The rows of a class are shuffled once; their order depends on the seed, the class and how many rows it has. Training
rows are taken from the front and held-out rows from the back. So 100 training images of a class are among the 200 that
the same seed gives, and the validation set stays the same when the number of training images changes.
"""

from __future__ import annotations

import math

import numpy as np


def class_orders(labels: np.ndarray, seed: int, classes: int | None = None) -> list[np.ndarray]:
    """For each class its rows, shuffled: K arrays of int64. The same on every machine and with every NumPy.

    `labels` (N,) are whole numbers in 0..K-1; `classes` is K where the last classes may be missing.
    """
    count = classes if classes is not None else int(labels.max(initial=-1)) + 1
    orders = []
    for label in range(count):
        rows = np.flatnonzero(labels == label)
        # Raw 64-bit numbers of a bit generator never change between versions of NumPy; `permutation` might.
        keys = np.random.PCG64(np.random.SeedSequence([seed, label])).random_raw(len(rows))
        orders.append(rows[np.argsort(keys, kind="stable")])
    return orders


def share_of(count: int, fraction: float) -> int:
    """`fraction` (0..1) of `count` images: rounded, but at least one and not all where there are two or more."""
    if fraction == 0 or count < 2:
        return 0
    return min(count - 1, max(1, math.floor(count * fraction + 0.5)))


def cut_off(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Divide the rows of `labels` (N,) int64 into (kept, cut off), sorted, with `fraction` of each class cut off."""
    kept, cut = [], []
    for rows in class_orders(labels, seed):
        at = len(rows) - share_of(len(rows), fraction)
        kept.append(rows[:at])
        cut.append(rows[at:])
    return merged(kept), merged(cut)


def merged(parts: list[np.ndarray]) -> np.ndarray:
    """The rows of all parts in the order of the source."""
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *parts]))
