"""What names of arrays say: `train_images` and `train_labels` (MedMNIST), `x_train` and `y_train` (Keras), or `images`
and `labels` alone.

A beginning that all names share, as of kmnist-train-imgs and kmnist-train-labels, says nothing. Where two of a split
could be the images, or the labels, it is an error that lists them; data.image_column and data.label_column name the
right ones. `class_names` may name the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.names import SPLIT_WORDS, split_of, words_of
from patchlight.data.sources.choice import not_there, one_of
from patchlight.errors import PatchlightError, UsageError, first_of

# What arrays are called, in small letters.
IMAGE_WORDS = ("images", "image", "imgs", "img", "pixels", "data", "x")
LABEL_WORDS = ("labels", "label", "targets", "target", "classes", "class", "cls", "y")
NAME_WORDS = ("class_names", "label_names", "target_names")
SAVE = "np.savez('all.npz', images=..., labels=...)"


@dataclass
class Arrays:
    """Arrays by name, not read yet, and what messages call the file or folder that they are in."""

    where: str
    names: list[str]
    read: Callable[[str], np.ndarray]
    files: list[Path]
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> str | None:
        """The name of the array that names the classes, where there is one."""
        return next((name for name in self.names if name.lower() in NAME_WORDS), None)


@dataclass
class Candidates:
    """The names of a split's arrays that may be its images and its labels."""

    images: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


def find_splits(arrays: Arrays, config: DataConfig) -> tuple[dict[str, Candidates], list[str]]:
    """By the source's own names of splits, in order of first appearance, what they may be read from; and notes.

    Raises UsageError for a setting that names no array, and PatchlightError where none is called as images are.
    """
    parsed: dict[str, Candidates] = {}
    unknown = []
    for name, (split, role) in roles_of(arrays.names, config).items():
        if role is None:
            unknown += [] if name == arrays.class_names else [name]
            continue
        found = parsed.setdefault(split, Candidates())
        (found.images if role == "image" else found.labels).append(name)
    for what, asked in (("image", config.image_column), ("label", config.label_column)):
        if asked and not any(own.images if what == "image" else own.labels for own in parsed.values()):
            raise not_there(what, asked, arrays.where, arrays.names)
    if not any(own.images for own in parsed.values()):
        _refuse_without_images(arrays, config)
    if "" in parsed:  # arrays without a split in their names are the training set
        whole = parsed.pop("")
        found = parsed.setdefault(
            next((name for name in parsed if split_of(name)[0] == "train"), "train"), Candidates()
        )
        found.images += whole.images
        found.labels += whole.labels
    kept = {name: own for name, own in parsed.items() if own.images}
    unknown += [name for split, own in parsed.items() if split not in kept for name in own.labels]
    return kept, [f"not used of {arrays.where}: {', '.join(unknown)}"] if unknown else []


def roles_of(names: list[str], config: DataConfig) -> dict[str, tuple[str, str | None]]:
    """Of each name the split and the role ("image", "label" or None); a setting counts before the usual words."""
    images, labels = (name.lower() if name else None for name in (config.image_column, config.label_column))
    if images and images == labels:
        raise UsageError(f"data.image_column and data.label_column both name '{config.image_column}'; name two arrays")
    image_words = (images,) if images else [word for word in IMAGE_WORDS if word != labels]
    label_words = (labels,) if labels else [word for word in LABEL_WORDS if word != images]
    shared = _shared(names)
    found = {}
    for name in names:
        whole = split_and_role(name, image_words, label_words)
        found[name] = whole if whole[1] else split_and_role(name.removeprefix(shared), image_words, label_words)
    return found


def split_and_role(name: str, images: Iterable[str], labels: Iterable[str]) -> tuple[str, str | None]:
    """The split and the role that an array's name says: ("train", "image") of "x_train", "train_images", "trainX"."""
    lower = name.lower()
    roles = dict.fromkeys(images, "image") | dict.fromkeys(labels, "label")
    if lower in roles:
        return "", roles[lower]
    for word in sorted(roles, key=len, reverse=True):
        for rest in (lower.removeprefix(word), lower.removesuffix(word)):
            split = rest.strip("_-. ")
            if rest != lower and split_of(split)[1]:
                return split, roles[word]
    return "", None


def _shared(names: list[str]) -> str:
    """What all names begin with, in whole words of which none is a split: "kmnist-" of kmnist-train-imgs."""
    first = min(names, default="")
    ends = [at + 1 for at, sign in enumerate(first) if sign in "_-. "]
    begins = (first[:end] for end in reversed(ends) if not SPLIT_WORDS.keys() & set(words_of(first[:end])))
    return next((begin for begin in begins if all(name.startswith(begin) for name in names)), "")


def label_word(name: str) -> str:
    """What the labels of all splits are called: "y" of "y_train"."""
    words = sorted(LABEL_WORDS, key=len, reverse=True)
    return next((word for word in words if name.lower().startswith(word) or name.lower().endswith(word)), name)


def pair_of(own: Candidates, arrays: Arrays, config: DataConfig, *, needed: bool) -> tuple[str, str | None]:
    """The names of a split's images and labels; None where it has no labels and they are not `needed`."""
    image = one_of(own.images, "image", arrays.where, arrays.names)
    if not own.labels and not needed:
        return image, None
    others = _without_role(arrays, config)
    if not own.labels and not others:
        raise PatchlightError(
            f"{arrays.where} has no array of labels for {image}; add one with a label for each image and a name that "
            "says so, as labels beside images, or y_train beside x_train"
        )
    return image, one_of(own.labels, "label", arrays.where, others, LABEL_WORDS)


def _without_role(arrays: Arrays, config: DataConfig) -> list[str]:
    roles = roles_of(arrays.names, config)
    return [name for name, (_, role) in roles.items() if role is None and name != arrays.class_names]


def _refuse_without_images(arrays: Arrays, config: DataConfig) -> None:
    if not arrays.names:
        raise PatchlightError(f"{arrays.where} holds no arrays; save images and labels in it: {SAVE}")
    others = _without_role(arrays, config)
    if not others:
        labels = first_of(arrays.names, 12)
        raise PatchlightError(f"{arrays.where} has labels ({labels}) and no array of images; add one, called images")
    try:
        one_of([], "image", arrays.where, others, IMAGE_WORDS)
    except PatchlightError as error:
        if len(arrays.files) > 1:
            raise PatchlightError(
                f"{error}; where each file holds the images of one class, save them as one: {SAVE}"
            ) from None
        raise
