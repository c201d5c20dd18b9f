"""The learning movie: taken when it should be, of the same images, and the same after a resume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small import make_images, run_fit, stopped_at_save

from patchlight.analysis.snapshots import joined, one_of_each
from patchlight.errors import UsageError
from patchlight.runs import Snapshots

MOVIE = {"snapshots_every": 2, "snapshots_images": 4}


def movie(run) -> Snapshots:
    return run.read(Snapshots)


def test_maps_after_the_first_and_every_nth_epoch(tmp_path):
    _, run = run_fit(tmp_path, train={"epochs": 5}, explain=MOVIE)
    found = movie(run)
    assert found.epochs.tolist() == [1, 2, 4]
    assert found.maps.shape == (3, 4, 4, 4)
    assert found.images.shape == (4, 16, 16, 3)
    assert sorted(found.labels.tolist()[:3]) == [0, 1, 2]
    assert found.probs.shape == (3, 4, 3)
    np.testing.assert_allclose(found.probs.sum(2), 1, rtol=1e-5)
    assert not np.array_equal(found.maps[0], found.maps[2])


def test_they_change_nothing_in_training(tmp_path):
    _, run = run_fit(tmp_path, "plain", train={"epochs": 2})
    _, other = run_fit(tmp_path, "filmed", train={"epochs": 2}, explain={**MOVIE, "snapshots_every": 1})
    assert not run.has(Snapshots)
    keys = ("train/loss", "val/loss", "val/top1")
    plain, filmed = ([[row.to_json()[key] for key in keys] for row in one.epochs()] for one in (run, other))
    assert plain == filmed


def test_a_resumed_run_has_the_same_movie(tmp_path):
    sections = {"train": {"epochs": 4}, "explain": {**MOVIE, "snapshots_every": 1}}
    _, whole = run_fit(tmp_path, "whole", **sections)
    with stopped_at_save(2):
        run_fit(tmp_path, "parts", **sections)
    _, resumed = run_fit(tmp_path, "parts", resume=True, **sections)
    arrays, again = movie(whole).to_arrays(), movie(resumed).to_arrays()
    assert arrays.keys() == again.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(again[name], value)


def test_a_network_without_attention_has_none(tmp_path):
    model = {"name": "vit-micro", "embed_dim": 24, "depth": 0, "num_heads": 2, "stem": "conv", "global_pool": "avg"}
    _, run = run_fit(tmp_path, model=model, explain=MOVIE)
    assert not run.has(Snapshots)


def test_an_unknown_method_is_told_before_training(tmp_path):
    with pytest.raises(UsageError, match=r"method cannot be 'chefr'; did you mean 'chefer'"):
        run_fit(tmp_path, explain={**MOVIE, "method": "chefr"})


def test_images_are_of_as_many_classes_as_there_are():
    labels = make_images(60, classes=5).labels
    assert labels[one_of_each(labels, 5, seed=0)].tolist() == [0, 1, 2, 3, 4]
    assert labels[one_of_each(labels, 7, seed=0)].tolist() == [0, 1, 2, 3, 4, 0, 1]
    assert one_of_each(labels, 5, seed=0).tolist() != one_of_each(labels, 5, seed=1).tolist()
    assert len(one_of_each(torch.tensor([0, 0, 2]), 9, seed=0)) == 3


def test_earlier_maps_are_put_on_the_grid_of_the_new_ones():
    """A stage may have changed the image size; snapshots of epochs that are trained again are dropped."""
    same = {"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.array([0, 1])}
    earlier = Snapshots(
        **same, epochs=np.array([1, 2, 3]), maps=np.ones((3, 2, 4, 4), np.float32), probs=np.full((3, 2, 2), 0.5)
    )
    new = Snapshots(**same, epochs=np.array([3]), maps=np.zeros((1, 2, 2, 2), np.float32), probs=np.ones((1, 2, 2)))
    both = joined(earlier, new)
    assert both.epochs.tolist() == [1, 2, 3]
    assert both.maps.shape == (3, 2, 2, 2)
    assert both.maps[:2].min() == pytest.approx(1)
    assert both.probs[2].min() == 1
