"""Mean maps of classes against the same worked out image by image."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import spearmanr
from small import make_images, small_config, small_splits
from vits import stirred

from patchlight.analysis import classes
from patchlight.analysis.choice import predicted
from patchlight.explanation.methods import explain
from patchlight.models.anatomy import dissect
from patchlight.training.setup import build

IMAGES = make_images(n=60, seed=4)


def test_a_mean_map_is_the_mean_of_each_images_own_map(monkeypatch):
    monkeypatch.setattr(classes, "MEAN_OF", 9)
    model, card = build(small_config(), small_splits())
    model = stirred(model).float()
    anatomy = dissect(model)
    pool = predicted(model, card, IMAGES, (2, 0), 20)
    found = classes.class_maps(anatomy, card, pool, (2, 0), "chefer")
    assert found.counts.tolist() == [9, 9]
    for place, label in enumerate((2, 0)):
        rows = pool.indices[pool.labels == label][:9]
        assert (IMAGES.labels[rows] == label).all()
        maps = []
        for row in rows:
            (values,) = explain(model, card.to_input(IMAGES.images[[row]]), method="chefer", target=label).maps.numpy()
            maps.append((values - values.min()) / np.ptp(values))
        np.testing.assert_allclose(found.mean[place], np.mean(maps, axis=0), atol=1e-4)
        np.testing.assert_allclose(found.spread[place], np.std(maps, axis=0), atol=1e-4)
        preds = model(card.to_input(IMAGES.images[rows])).argmax(dim=1)
        assert found.right[place] == (preds == label).sum()
        like = spearmanr(found.mean[place].ravel(), found.centre.ravel()).statistic
        assert abs(found.controls["centre"][place] - like) < 1e-4
    assert (found.centre.min(), found.centre.max()) == (0, 1)


def test_a_map_that_is_the_same_everywhere_counts_as_half():
    maps = torch.stack([torch.full((2, 2), 7.0), torch.tensor([[1.0, 2.0], [3.0, 5.0]])])
    assert classes.stretched(maps).tolist() == [[[0.5, 0.5], [0.5, 0.5]], [[0, 0.25], [0.5, 1]]]
