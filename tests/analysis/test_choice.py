"""Which images are explained: a spread that is the same in every call, and what is said of wrong words."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from small import make_images, small_config, small_splits
from vits import stirred

from patchlight.analysis import choice
from patchlight.errors import PatchlightError, UsageError
from patchlight.evaluation.evaluate import predict_logits
from patchlight.training.setup import build

IMAGES = make_images(n=60, seed=4)


@pytest.fixture(scope="module")
def model():
    network, card = build(small_config(), small_splits())
    return stirred(network).float(), card


def test_a_spread_is_half_wrong_and_of_every_class():
    labels = np.arange(500) % 10
    preds = np.where(np.random.default_rng(0).random(500) < 0.8, labels, (labels + 1) % 10)
    places = choice.spread(labels, preds, 12)
    assert len(set(places.tolist())) == 12
    right = preds[places] == labels[places]
    assert right.tolist() == [False, True] * 6
    assert set(labels[places]) == set(range(10))
    assert max(Counter(labels[places].tolist()).values()) == 2
    assert places.tolist() == choice.spread(labels, preds, 12).tolist()
    assert set(labels[choice.spread(labels, preds, 100)[:20]]) == set(range(10))
    of_both = choice.spread(labels, preds, 20)
    assert set(Counter(labels[of_both].tolist()).values()) == {2}
    preds[labels == 0] = 1  # a class that is always wrong, and one that is always right, get no more nor less
    preds[labels == 1] = 1
    assert set(Counter(labels[choice.spread(labels, preds, 40)].tolist()).values()) == {4}


def test_a_spread_takes_what_there_is():
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert (labels[choice.spread(labels, labels, 4)] == 0).sum() == 2  # no mistake at all
    places = choice.spread(labels, np.array([0, 0, 0, 1, 0, 1]), 4)
    assert 4 in places
    assert sorted(choice.spread(labels, labels, 99)) == list(range(6))
    assert len(choice.spread(labels[:0], labels[:0], 3)) == 0


def test_every_class_is_taken_whatever_is_right():
    """Five classes that are always wrong and two that are always right: in turn alone, one would be left."""
    labels = np.arange(70) % 7
    places = choice.spread(labels, np.where(labels < 5, 6, labels), 8)
    assert set(labels[places]) == set(range(7))
    assert len(set(labels[choice.spread(labels, labels, 3)])) == 3


def test_classes_are_taken_with_their_right_and_wrong_ones(model):
    network, card = model
    preds = predict_logits(network, card, IMAGES).argmax(axis=1)
    found = choice.choose_by_class(network, card, IMAGES, "test", [2, 0, 2], None)
    assert found.classes == (2, 0)
    assert Counter(found.labels.tolist()) == {0: 6, 2: 6}
    np.testing.assert_array_equal(found.labels, IMAGES.labels[found.indices])
    np.testing.assert_array_equal(found.pixels, IMAGES.images[found.indices])
    assert found.names[0] == f"test {found.indices[0]}"
    assert len(found.pool.indices) == 40
    np.testing.assert_array_equal(found.pool.preds, preds[found.pool.indices])
    right = (preds == IMAGES.labels.numpy())[np.isin(IMAGES.labels, [0, 2])].sum()
    assert f"drawn by a fixed seed from 40 'test' images, of which the model predicts {right} rightly" in found.how
    again = choice.choose_by_class(network, card, IMAGES, "test", [2, 0], None)
    assert again.indices.tolist() == found.indices.tolist()
    assert len(choice.choose_by_class(network, card, IMAGES, "test", [], 5).indices) == 5


def test_a_large_split_is_looked_at_in_part(model, monkeypatch):
    network, card = model
    monkeypatch.setattr(choice, "POOL", 15)
    monkeypatch.setattr(choice, "POOLED", 2)
    found = choice.choose_by_class(network, card, IMAGES, "test", [], None)
    assert Counter(found.pool.labels.tolist()) == {0: 5, 1: 5, 2: 5}
    assert "from 15 'test' images that were drawn" in found.how


def test_indices_are_taken_as_given(model):
    found = choice.choose_by_index(IMAGES, "val", [7, 3, 7])
    assert found.indices.tolist() == [7, 3]
    assert found.names == ("val 7", "val 3")
    with pytest.raises(UsageError, match="the 'val' images have the indices 0 to 59, so there is no 60"):
        choice.choose_by_index(IMAGES, "val", [1, 60])
    with pytest.raises(UsageError, match="so there is no -1"):
        choice.choose_by_index(IMAGES, "val", [-1])


def test_wrong_words_are_told(model):
    network, card = model
    assert [choice.class_index(word, card.class_names) for word in ("class1", "2")] == [1, 2]
    with pytest.raises(UsageError, match="no class 'clas1'; did you mean 'class1'"):
        choice.class_index("clas1", card.class_names)
    assert choice.class_index(2, card.class_names) == choice.class_index(np.int64(2), card.class_names) == 2
    for wrong in (3, -1):
        with pytest.raises(UsageError, match=f"the classes have the indices 0 to 2, so there is no {wrong}"):
            choice.class_index(wrong, card.class_names)
    with pytest.raises(UsageError, match="no class '²'"):
        choice.class_index("²", card.class_names)
    numbers = ("1", "10", "2")  # in the order of names; a number is one of them, and never an index
    assert [choice.class_index(word, numbers) for word in ("10", "2", 2)] == [1, 2, 2]
    with pytest.raises(UsageError, match="no class '0'; did you mean '10'"):
        choice.class_index("0", numbers)
    with pytest.raises(UsageError, match="--count 1 is less than the 2 classes"):
        choice.choose_by_class(network, card, IMAGES, "test", [0, 1], 1)
    ones = IMAGES.select(np.flatnonzero(IMAGES.labels == 1))
    with pytest.raises(PatchlightError, match="no 'test' image is of the class 'class0'"):
        choice.choose_by_class(network, card, ones, "test", [0], None)


def test_more_images_than_can_be_shown_are_refused(model):
    with pytest.raises(UsageError, match="--count asks for 201 images; take 200 at most"):
        choice.choose_by_class(*model, IMAGES, "test", [], 201)
    many = make_images(n=300)
    with pytest.raises(UsageError, match="--index names 250 images; take 200 at most"):
        choice.choose_by_index(many, "test", range(250))


def test_few_images_of_many_classes_are_not_all_classes(model):
    assert "a spread over 2 of the 3 classes" in choice.choose_by_class(*model, IMAGES, "test", [], 2).how
    assert "a spread over all classes" in choice.choose_by_class(*model, IMAGES, "test", [], 3).how


def test_no_more_is_predicted_than_can_be_looked_at_quickly(model, monkeypatch):
    monkeypatch.setattr(choice, "POOL", 30)
    assert len(choice.choose_by_class(*model, IMAGES, "test", [], 3).pool.indices) == 30
    monkeypatch.setattr(choice, "POOLED", 15)  # a mean map needs so many of a class that is named
    assert len(choice.choose_by_class(*model, IMAGES, "test", [0, 1, 2], 3).pool.indices) == 45
