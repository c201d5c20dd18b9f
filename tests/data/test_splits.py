"""Splits: exact numbers, disjoint sets, nested subsets, and messages for what cannot be had."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from patchlight.config import DataConfig
from patchlight.data.images import ImageSet, overlap
from patchlight.data.splits import Splits, load_splits, make_splits
from patchlight.data.stratify import class_orders, cut_off, share_of
from patchlight.errors import PatchlightError

NAMES = ("ant", "bee", "cow", "dog")


def make_set(counts: tuple[int, ...] = (50, 40, 60, 30), offset: int = 0, seed: int = 0) -> ImageSet:
    """Every image is different from every other, also between sets of other offsets; labels are in random order."""
    labels = torch.tensor([label for label, count in enumerate(counts) for _ in range(count)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    serial = torch.arange(len(labels)) + offset
    images = torch.stack([serial // 256, serial % 256, labels], dim=1).to(torch.uint8).reshape(-1, 3, 1, 1)
    return ImageSet(images.expand(-1, -1, 2, 2).contiguous(), labels, NAMES[: len(counts)])


def row_ids(images: ImageSet | None) -> set[int]:
    """Which images of the set it was cut from a set holds."""
    if images is None:
        return set()
    return set((images.rows if images.rows is not None else torch.arange(len(images))).tolist())


def parts(splits: Splits) -> list[ImageSet]:
    return [images for images in (splits.train, splits.val, splits.test) if images is not None]


def config(**fields: Any) -> DataConfig:
    return DataConfig(source="here", **fields)


def test_exact_numbers_per_class() -> None:
    sets = {"train": make_set(), "test": make_set(offset=500)}
    splits = make_splits(sets, config(train_per_class=20, val_per_class=5, test_per_class=7))
    assert splits.train.class_counts().tolist() == [20] * 4
    assert splits.val is not None
    assert splits.val.class_counts().tolist() == [5] * 4
    assert splits.test.class_counts().tolist() == [7] * 4
    assert splits.notes == ()


def test_the_subsets_own_test_images_are_nobody_elses() -> None:
    sets = {"train": make_set(), "test": make_set(offset=500)}
    asked = {"val_per_class": 5, "subset_test_per_class": 6}
    before: set[int] | None = None
    for per_class in (None, 3, 10, 19):
        splits = make_splits(sets, config(**asked, train_per_class=per_class))
        own = splits.subset_test
        assert own is not None
        assert own.class_counts().tolist() == [6] * 4
        assert splits.train.class_counts().tolist() == ([39, 29, 49, 19] if per_class is None else [per_class] * 4)
        for other in (splits.train, splits.val):
            assert not row_ids(own) & row_ids(other)
            assert overlap(own, other) == []
        assert before in (None, row_ids(own))  # however many are trained on
        before = row_ids(own)
    assert len(splits.test) == 180
    with pytest.raises(PatchlightError, match=r"leave out data\.subset_test_per_class"):
        make_splits({**sets, "val": make_set(offset=900)}, config(subset_test_per_class=2))


def test_all_is_taken_where_nothing_is_asked_for() -> None:
    sets = {"train": make_set(), "test": make_set(offset=500)}
    splits = make_splits(sets, config(val_fraction=0.1))
    assert splits.val is not None
    assert splits.val.class_counts().tolist() == [5, 4, 6, 3]
    assert splits.train.class_counts().tolist() == [45, 36, 54, 27]
    assert len(splits.test) == 180


def test_splits_never_share_an_image() -> None:
    """Over many random sets and settings: disjoint rows, disjoint pixels, and labels that belong to their pixels."""
    rng = np.random.default_rng(0)
    for trial in range(60):
        counts = tuple(int(count) for count in rng.integers(8, 40, 4))
        sets = {"train": make_set(counts, seed=trial)}
        if trial % 3 == 1:
            sets["test"] = make_set(offset=1000)
        if trial % 3 == 2:
            sets["val"] = make_set(offset=2000)
        asked: dict[str, Any] = {"split_seed": int(rng.integers(100)), "val_fraction": float(rng.uniform(0, 0.6))}
        if trial % 2:
            asked |= {"train_per_class": int(rng.integers(1, 4)), "val_per_class": int(rng.integers(1, 3))}
        splits = make_splits(sets, config(**asked))
        for a, b in combinations(parts(splits), 2):
            assert overlap(a, b) == []
            if a.images.data_ptr() == b.images.data_ptr():
                assert not row_ids(a) & row_ids(b)
        for images in parts(splits):
            pixels, labels = images.gather(range(len(images)))
            assert torch.equal(pixels[:, 2, 0, 0].long(), labels)
            assert len(row_ids(images)) == len(images)
        if "test" not in sets and "val" not in sets and not trial % 2:
            assert sum(len(images) for images in parts(splits)) == sum(counts), "nothing is lost"


def test_smaller_subsets_lie_in_larger_ones_and_validation_stays() -> None:
    sets = {"train": make_set(), "test": make_set(offset=500)}
    before: set[int] = set()
    val = row_ids(make_splits(sets, config(val_per_class=5)).val)
    for per_class in (1, 3, 10, 25):
        splits = make_splits(sets, config(train_per_class=per_class, val_per_class=5))
        assert before < row_ids(splits.train)
        assert row_ids(splits.val) == val
        before = row_ids(splits.train)
    larger = make_splits(sets, config(train_per_class=10, val_per_class=12))
    assert val < row_ids(larger.val)
    assert row_ids(larger.train) == row_ids(make_splits(sets, config(train_per_class=10, val_per_class=5)).train)


def test_the_seed_decides() -> None:
    sets = {"train": make_set(), "test": make_set(offset=500)}
    chosen = [row_ids(make_splits(sets, config(split_seed=seed)).val) for seed in (0, 0, 1)]
    assert chosen[0] == chosen[1] != chosen[2]


def test_the_order_of_a_seed_is_the_same_everywhere() -> None:
    """Published splits rest on this: the same rows on every machine, with every NumPy."""
    rows = np.concatenate(class_orders(np.arange(1000) % 7, 5)).astype("<i8")
    assert hashlib.sha256(rows.tobytes()).hexdigest() == ORDER


ORDER = "b68cfaa50b426e9070f2424639f869afa638b5486689b29f52306654aad3a6c5"


def test_class_orders_are_shuffled_permutations() -> None:
    labels = np.random.default_rng(0).integers(0, 3, 3000)
    orders = class_orders(labels, 0, 5)
    assert [len(order) for order in orders] == [*np.bincount(labels), 0, 0]
    for label, order in enumerate(orders[:3]):
        assert np.array_equal(np.sort(order), np.flatnonzero(labels == label))
        assert abs(np.corrcoef(np.arange(len(order)), order)[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("count", "fraction", "share"),
    [(10, 0.1, 1), (100, 0.25, 25), (10, 0.25, 3), (3, 0.1, 1), (2, 0.9, 1), (1, 0.5, 0), (0, 0.5, 0), (50, 0, 0)],
)
def test_share_of(count: int, fraction: float, share: int) -> None:
    assert share_of(count, fraction) == share


def test_cut_off_is_stratified() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 10])
    kept, cut = cut_off(labels, 0.2, 3)
    assert np.bincount(labels[cut]).tolist() == [20, 10, 2]
    assert np.array_equal(np.sort(np.concatenate([kept, cut])), np.arange(160))


def test_a_missing_test_split_is_cut_first_by_a_fixed_seed_and_noted() -> None:
    sets = {"train": make_set()}
    several = [
        make_splits(sets, config(**fields))
        for fields in ({}, {"split_seed": 9}, {"train_per_class": 3}, {"val_fraction": 0.5}, {"val_per_class": 2})
    ]
    assert {frozenset(row_ids(splits.test)) for splits in several} == {frozenset(row_ids(several[0].test))}
    assert several[0].test.class_counts().tolist() == [10, 8, 12, 6]
    assert "no test split: 36 images, 20% of each class" in several[0].notes[0]


def test_a_validation_split_of_the_source_is_used() -> None:
    sets = {"train": make_set(), "val": make_set((9, 8, 7, 6), 300), "test": make_set(offset=500)}
    splits = make_splits(sets, config())
    assert splits.val is sets["val"]
    assert splits.train is sets["train"]
    splits = make_splits(sets, config(val_per_class=6, train_per_class=30))
    assert splits.val is not None
    assert splits.val.class_counts().tolist() == [6] * 4
    assert splits.train.class_counts().tolist() == [30] * 4


def test_no_validation_set_where_none_is_wanted() -> None:
    splits = make_splits({"train": make_set(), "test": make_set(offset=500)}, config(val_fraction=0))
    assert splits.val is None
    assert len(splits.train) == 180
    assert any("no validation set" in note for note in splits.notes)


def test_notes_of_the_source_come_along_once() -> None:
    noted = make_set()
    noted = ImageSet(noted.images, noted.labels, noted.class_names, notes=("fitted",))
    notes = make_splits({"train": noted, "test": noted}, config()).notes
    assert notes.count("fitted") == 1


def test_one_class_is_nothing_to_learn() -> None:
    images = make_set((9,))
    images = ImageSet(images.images, torch.zeros(len(images), dtype=torch.int64), ("only",))
    with pytest.raises(PatchlightError, match="has one class, 'only'; there is nothing to tell apart"):
        make_splits({"train": images}, config())


def test_one_picture_under_two_labels_is_noted() -> None:
    images = make_set()
    assert not any("several labels" in note for note in make_splits({"train": images}, config(val_fraction=0)).notes)
    pixels = images.images.clone()
    pixels[images.labels == 1] = pixels[images.labels == 0][0]
    mixed = ImageSet(pixels, images.labels, images.class_names)
    notes = make_splits({"train": mixed, "test": make_set(offset=500)}, config(val_fraction=0)).notes
    assert any(note.startswith("training images that stand under several labels: 1;") for note in notes)


def test_copies_across_splits_are_noted() -> None:
    train, test = make_set(), make_set(offset=500)
    assert make_splits({"train": train, "test": test}, config()).notes == ()
    pixels = test.images.clone()
    pixels[:2] = train.images[:2]
    leaky = ImageSet(pixels, test.labels, test.class_names)
    notes = " ".join(make_splits({"train": train, "test": leaky}, config()).notes)
    assert sum(int(n) for n in re.findall(r"test images that are exact copies of \w+ images: (\d+)", notes)) == 2


def test_every_copy_is_counted_in_validation_too() -> None:
    train, other = make_set(), make_set(offset=500)
    pixels = other.images.clone()
    pixels[:3] = train.images[0]
    leaky = ImageSet(pixels, other.labels, other.class_names)
    sets = {"train": train, "val": leaky, "test": leaky}
    assert make_splits(sets, config()).notes == (
        "validation images that are exact copies of training images: 3; the validation score flatters the model",
        "test images that are exact copies of training images: 3; the test score flatters the model",
        f"test images that are exact copies of validation images: {len(other)}; the test score flatters the model",
    )


def test_a_class_that_no_image_shows_is_noted() -> None:
    sets = {"train": make_set((5, 0, 5, 5)), "test": make_set((5, 0, 5, 5), offset=500)}
    assert any("no training image shows 'bee'" in note for note in make_splits(sets, config()).notes)


def test_a_class_that_is_tested_and_not_trained_is_an_error() -> None:
    for name, other in (("validation", "val"), ("test", "test")):
        sets = {"train": make_set((5, 0, 5, 5)), other: make_set((5, 2, 5, 5), offset=500)}
        with pytest.raises(PatchlightError, match=f"2 of 17 {name} images are of the class 'bee', which no training"):
            make_splits(sets, config())


@pytest.mark.parametrize(
    ("names", "train", "test", "cause"),
    [
        (("Cat", "cat", "dog"), (5, 0, 5), (0, 5, 5), "training has 'Cat': is it the same class, written differently"),
        (("caf\xe9", "cafe\u0301", "dog"), (5, 0, 5), (0, 5, 5), ": these names differ only in how Unicode writes"),
        (("1", "01", "2"), (5, 0, 5), (0, 5, 5), "training has '1': is it the same class"),
        (("ant", "bee", "images"), (5, 5, 0), (0, 0, 5), "'images' looks like a folder of images of all classes"),
        (("a", "b", "c"), (5, 5, 0), (0, 0, 5), "training has the classes 'a', 'b': are these sets of one data set"),
    ],
)
def test_the_likely_cause_is_told(
    names: tuple[str, ...], train: tuple[int, ...], test: tuple[int, ...], cause: str
) -> None:
    sets = {"train": make_set(train), "test": make_set(test, offset=500)}
    sets = {key: replace(images, class_names=names) for key, images in sets.items()}
    with pytest.raises(PatchlightError, match=cause):
        make_splits(sets, config())


def test_uneven_classes_and_classes_that_are_not_measured_are_told() -> None:
    sets = {"train": make_set((200, 190, 200, 4)), "test": make_set((5, 0, 5, 5), offset=900)}
    notes = make_splits(sets, config()).notes
    (uneven,) = (note for note in notes if "uneven" in note)
    assert "180 of 534 training images are of ant and 3 of dog; train.class_weights, data.sampler" in uneven
    assert "no test image shows 'bee', of which nothing is measured there" in notes
    even = {"train": make_set((20, 20, 20, 20)), "test": make_set(offset=900)}
    assert make_splits(even, config()).notes == ()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"train_per_class": 31, "val_fraction": 0},
            "'dog' has 30 training images, too few for data.train_per_class = 31",
        ),
        (
            {"train_per_class": 26, "val_per_class": 5},
            "'dog' has 30 training images, too few for data.train_per_class = 26 and data.val_per_class = 5",
        ),
        ({"train_per_class": 28}, r"data.train_per_class = 28 and data.val_fraction = 0.1 \(here 3\)"),
        ({"val_per_class": 31}, "'dog' has 30 training images, too few for data.val_per_class = 31"),
        ({"test_per_class": 31}, "'dog' has 30 test images, too few for data.test_per_class = 31"),
    ],
)
def test_more_than_there_is(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(PatchlightError, match=message):
        make_splits({"train": make_set(), "test": make_set(offset=500)}, config(**fields))


def test_more_than_there_is_in_the_sources_own_splits() -> None:
    sets = {"train": make_set(), "val": make_set((9, 8, 7, 6), 300), "test": make_set(offset=500)}
    with pytest.raises(PatchlightError, match=r"'dog' has 6 validation images, too few for data.val_per_class = 7"):
        make_splits(sets, config(val_per_class=7))
    with pytest.raises(PatchlightError, match=r"'dog' has 30 training images, too few for data.train_per_class = 31"):
        make_splits(sets, config(train_per_class=31))


def test_sets_that_cannot_be_cut() -> None:
    with pytest.raises(PatchlightError, match="'here' has no training split, only test"):
        make_splits({"test": make_set()}, config())
    with pytest.raises(PatchlightError, match="none can be set aside as test"):
        make_splits({"train": make_set((1, 1))}, config())
    with pytest.raises(PatchlightError, match="none can be set aside as validation"):
        make_splits({"train": make_set((1, 1)), "test": make_set(offset=500)}, config())


def test_load_splits_of_digits() -> None:
    splits = load_splits(DataConfig(image_size=8, train_per_class=50, val_per_class=10))
    assert splits.train.class_counts().tolist() == [50] * 10
    assert splits.val is not None
    assert splits.val.class_counts().tolist() == [10] * 10
    assert len(splits.test) == 359
    assert splits.train.image_size == (8, 8)
    assert splits.notes == ()
    for a, b in combinations(parts(splits), 2):
        assert overlap(a, b) == []


def test_load_splits_of_a_folder_without_splits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(20):
            Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).save(tmp_path / name / f"{index}.png")
    splits = load_splits(DataConfig(source=str(tmp_path)))
    assert splits.val is not None
    assert [len(splits.train), len(splits.val), len(splits.test)] == [28, 4, 8]
    assert any("no test split" in note for note in splits.notes)
