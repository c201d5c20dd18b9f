"""The set with planted evidence: the mark of the class, and nothing else, tells the class."""

from __future__ import annotations

import numpy as np
import torch

from patchlight.data.planted import CLASSES, COUNTS, DECOYS, _marks, evidence, make
from patchlight.data.sources import load_source


def cells(pixels: np.ndarray) -> np.ndarray:
    """(N, 3, 32, 32) -> (N, 64, 48): places in reading order."""
    n = len(pixels)
    return pixels.reshape(n, 3, 8, 4, 8, 4).transpose(0, 2, 4, 1, 3, 5).reshape(n, 64, 48)


def test_the_mark_of_its_class_stands_where_it_is_said_and_nowhere_else():
    pixels, labels, places = make("test")
    found, marks = cells(pixels), _marks().numpy().reshape(-1, 48)
    assert len({mark.tobytes() for mark in marks}) == len(marks)
    marked = labels < CLASSES - 1
    assert ((places >= 0) == marked).all()
    assert (found[np.arange(len(found)), places] == marks[labels])[marked].all()
    is_mark = (found[:, :, None] == marks[None, None]).all(axis=3)
    assert (is_mark[:, :, :CLASSES].sum(axis=(1, 2)) == marked).all()
    assert (is_mark[:, :, CLASSES:].sum(axis=(1, 2)) == DECOYS + ~marked).all()
    assert np.bincount(places[marked], minlength=64).min() > 0


def test_it_is_the_same_each_time_and_splits_share_no_image():
    assert all((a == b).all() for a, b in zip(make("train"), make("train"), strict=True))
    sets = load_source("planted")
    assert {name: len(images) for name, images in sets.items()} == COUNTS
    assert not set(sets["train"].hashes) & set(sets["test"].hashes)
    assert torch.equal(sets["test"].gather([5])[0][0], torch.from_numpy(make("test")[0][5]))
    assert sets["test"].class_counts().tolist() == [200] * CLASSES


def test_evidence_in_patches_of_other_sizes():
    places = make("test")[2]
    assert (evidence("test", (4, 4)) == places).all()
    rows, columns, marked = places // 8, places % 8, places >= 0
    assert (evidence("test", (8, 8)) == rows // 2 * 4 + columns // 2)[marked].all()
    assert (evidence("test", (2, 4)) == rows * 2 * 8 + columns)[marked].all()
    assert (evidence("test", (8, 8)) < 0).sum() == (~marked).sum() == 200
