"""The three sets of a run: train, validation and test, cut as the recipe says and never sharing a row.

- A split that the source has is used; `..._per_class` takes exactly so many of each class.
- Without a test split, 20 % of every training class is set aside as test before anything else, by a fixed seed, so that
  no setting can move an image between training and test. A note says so.
- Without a validation split, one is cut from train: `val_per_class` of each class, else `val_fraction` of each class
  (rounded, at least one where a class has two). With `val_fraction = 0` there is no validation set.
- With `subset_test_per_class` so many more of each class are set aside as a second test set: what an experiment on a
  part of the data would call its test, to be compared with the full one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.balance import balance_notes, check_known
from patchlight.data.images import ImageSet, label_conflicts, overlap
from patchlight.data.listing import named
from patchlight.data.sources import read_given, read_source
from patchlight.data.stratify import class_orders, cut_off, merged, share_of
from patchlight.errors import PatchlightError
from patchlight.units import counted

TEST_SHARE = 0.2
TEST_SEED = 0
PAIRS_TO_COMPARE = (
    ("training", "validation"),
    ("training", "test"),
    ("validation", "test"),
    ("training", "subset test"),
    ("validation", "subset test"),
)


@dataclass(frozen=True)
class Splits:
    """The sets of a run. `val` is None where the recipe wants none. `notes` are sentences for the user."""

    train: ImageSet
    val: ImageSet | None
    test: ImageSet
    subset_test: ImageSet | None = None  # cut off train, beside `test`
    notes: tuple[str, ...] = ()

    @property
    def sets(self) -> dict[str, ImageSet]:
        """Those that there are, by name: "train", "val", "subset_test", "test"."""
        named = {"train": self.train, "val": self.val, "subset_test": self.subset_test, "test": self.test}
        return {name: images for name, images in named.items() if images is not None}


def load_splits(config: DataConfig, fallback_size: int | None = None) -> Splits:
    """The sets that a recipe describes: `read_source`, then `make_splits`. Raises as these do.

    Images of no common size are fitted to `fallback_size`: what the model takes, where a recipe says it. Where
    data.interpolation is unset, they are resized by bicubic interpolation; training has decided it before.
    """
    return make_splits(read_source(config, fallback_size), config)


def given_splits(data: Any, config: DataConfig, fallback_size: int | None = None) -> Splits:
    """`load_splits` of images that are given in Python (`sources/given.py` says what they may be)."""
    return make_splits(read_given(data, config, fallback_size), config)


def make_splits(sets: dict[str, ImageSet], config: DataConfig) -> Splits:
    """Divide a source's sets ("train", and perhaps "val" and "test") as `config` says, stratified by class.

    The images keep the source's order. Raises PatchlightError where there is no training split, or a class has fewer
    images than a setting asks for.
    """
    if "train" not in sets:
        raise PatchlightError(
            f"{named(config.source)} has no training split, only {' and '.join(sets) or 'nothing'}; data.train_split "
            "names the split that is to be trained on"
        )
    train, val, test = sets["train"], sets.get("val"), sets.get("test")
    if len(train.class_names) < 2:
        raise PatchlightError(
            f"{named(config.source)} has one class, '{train.class_names[0]}'; there is nothing to tell apart"
        )
    notes = [*dict.fromkeys(note for images in sets.values() for note in images.notes)]
    if test is None:
        train, test = _cut_test(train)
        notes.append(
            f"{named(config.source)} has no test split: {counted(len(test), 'image')}, {TEST_SHARE:.0%} of each class, "
            f"{'is' if len(test) == 1 else 'are'} set aside from train as test (fixed seed {TEST_SEED})"
        )
    subset_test = None
    if val is None:
        train, val, subset_test = _cut_val(train, config)
        if val is None:
            notes.append("there is no validation set (data.val_fraction is 0): nothing can be selected by it")
    else:
        if config.subset_test_per_class is not None:
            raise PatchlightError(
                f"{named(config.source)} has a validation split, so nothing is cut off train; leave out "
                "data.subset_test_per_class"
            )
        train = _take(train, config.train_per_class, config.split_seed, "training", "train_per_class")
        val = _take(val, config.val_per_class, config.split_seed, "validation", "val_per_class")
    test = _take(test, config.test_per_class, config.split_seed, "test", "test_per_class")
    cut = {"training": train, "validation": val, "test": test, "subset test": subset_test}
    for seen, held in PAIRS_TO_COMPARE:
        if copies := _copies(cut[seen], cut[held]):
            notes.append(
                f"{held} images that are exact copies of {seen} images: {copies}; the {held} score flatters the model"
            )
    check_known(train, {"validation": val, "test": test}, config.source)
    if conflicts := label_conflicts(train):
        notes.append(
            f"training images that stand under several labels: {conflicts}; `patchlight data` lists those that are the "
            "same as files, too"
        )
    notes += balance_notes(train, {"validation": val, "test": test})
    return Splits(train, val, test, subset_test, tuple(notes))


def _copies(seen: ImageSet | None, held: ImageSet | None) -> int:
    """How many images of `held` are in `seen`, pixel for pixel."""
    return 0 if seen is None or held is None else len(overlap(seen, held))


def _cut_test(train: ImageSet) -> tuple[ImageSet, ImageSet]:
    kept, cut = cut_off(train.labels.numpy(), TEST_SHARE, TEST_SEED)
    if len(cut) == 0:
        raise PatchlightError(
            "there is no test split and every class has one image, so none can be set aside as test; add images, or "
            "those of a test split"
        )
    return train.select(kept), train.select(cut)


def _cut_val(train: ImageSet, config: DataConfig) -> tuple[ImageSet, ImageSet | None, ImageSet | None]:
    """Training images are taken from the front of each class's order, validation images from its back, and the images
    of the subset's own test from before these.
    """
    front, back, before = [], [], []
    tested = config.subset_test_per_class or 0
    for name, rows in zip(train.class_names, _orders(train, config.split_seed), strict=True):
        held = config.val_per_class if config.val_per_class is not None else share_of(len(rows), config.val_fraction)
        taken = config.train_per_class if config.train_per_class is not None else len(rows) - held - tested
        if taken + held + tested > len(rows) or taken < 0:
            raise PatchlightError(_too_few(name, len(rows), taken, held, config))
        front.append(rows[:taken])
        back.append(rows[len(rows) - held :])
        before.append(rows[len(rows) - held - tested : len(rows) - held])
    val = merged(back)
    if len(val) == 0 and config.val_per_class is None and config.val_fraction > 0:
        raise PatchlightError(
            "every class has one training image, so none can be set aside as validation; add images, or set "
            "data.val_fraction = 0 and train.select = 'last'"
        )
    subset_test = train.select(merged(before)) if tested else None
    return train.select(merged(front)), train.select(val) if len(val) else None, subset_test


def _too_few(name: str, there: int, taken: int, held: int, config: DataConfig) -> str:
    asked = []
    if config.train_per_class is not None:
        asked.append(f"data.train_per_class = {taken}")
    if config.val_per_class is not None:
        asked.append(f"data.val_per_class = {held}")
    else:
        asked.append(f"data.val_fraction = {config.val_fraction:g} (here {held})")
    if config.subset_test_per_class is not None:
        asked.append(f"data.subset_test_per_class = {config.subset_test_per_class}")
    return f"the class '{name}' has {there} training images, too few for {' and '.join(asked)}"


def _take(images: ImageSet, per_class: int | None, seed: int, what: str, field: str) -> ImageSet:
    """`per_class` images of every class, or all."""
    if per_class is None:
        return images
    orders = _orders(images, seed)
    for name, rows in zip(images.class_names, orders, strict=True):
        if len(rows) < per_class:
            raise PatchlightError(
                f"the class '{name}' has {counted(len(rows), f'{what} image')}, too few for data.{field} = {per_class}"
            )
    return images.select(merged([rows[:per_class] for rows in orders]))


def _orders(images: ImageSet, seed: int) -> list[np.ndarray]:
    return class_orders(images.labels.numpy(), seed, len(images.class_names))
