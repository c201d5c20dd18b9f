"""What all sources with columns, keys or files by name choose alike: splits, and one candidate among several."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data import heif
from patchlight.data.listing import SPLIT_NAMES, LeftOut, match_splits
from patchlight.data.sources import folders
from patchlight.errors import PatchlightError

SUFFIXES = folders.SUFFIXES | heif.SUFFIXES  # of image files, whatever library opens them

# What the arrays, fields and keys of a source are called, in small letters.
IMAGE_WORDS = ("images", "image", "imgs", "img", "pixels", "data", "x")
LABEL_WORDS = ("labels", "label", "targets", "target", "classes", "class", "cls", "y")


def choose_splits(names: Iterable[str], where: str, config: DataConfig) -> tuple[dict[str, str], tuple[str, ...]]:
    """The source's own names of "train", "val" and "test", and notes: as data.train_split and its like say, else as
    `match_splits` finds them. Raises as `match_splits` does, and where a split that is asked for is not there.
    """
    own = list(names)
    asked = {"train": config.train_split, "val": config.val_split, "test": config.test_split}
    chosen = {key: name for key, name in asked.items() if name is not None}
    if not chosen:
        return match_splits(own, where)
    for key, name in chosen.items():
        if name not in own:
            raise PatchlightError(f"{where} has no split '{name}' (data.{key}_split); it has {', '.join(own)}")
    unused = [name for name in own if name not in chosen.values()]
    return chosen, (f"not used of {where}: {', '.join(unused)}",) if unused else ()


def has_class_folders(root: Path) -> bool:
    """Whether folders right below `root` hold images, so that other files in it are beside the point."""
    folders = (entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return any(entry.suffix.lower() in SUFFIXES for folder in folders for entry in folder.iterdir())


def split_in_name(words: str, *folders: str) -> str | None:
    """The word of a file's name, else of the folders that it is in, that says its split: "train" of "train-000.tar"."""
    parts = [part for part in re.split(r"[-_. ]+", words) if part]
    return next((part for part in (*parts[:1], *folders, *reversed(parts)) if part.lower() in SPLIT_NAMES), None)


def one_of(candidates: Sequence[str], what: str, setting: str, where: str, there: Iterable[str]) -> str:
    """The only candidate. Raises PatchlightError, which lists what there is, where there are none or several."""
    if len(candidates) == 1:
        return candidates[0]
    found = f"several that may hold the {what} ({', '.join(candidates)})" if candidates else f"none with the {what}"
    raise PatchlightError(f"{where} has {', '.join(there) or 'nothing'}, and {found}; data.{setting} names the one")


def whole_labels(labels: np.ndarray, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as (N,) of whole numbers or text, and notes on what was changed.

    Takes (N,) and (N, 1), and (N, K) where each row has one 1 and zeros. Raises PatchlightError for labels of other
    shapes, of several classes an image, and of numbers that are not whole.
    """
    notes: list[str] = []
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype.kind not in "biufUS":
        raise PatchlightError(f"{where} holds {labels.dtype} labels; store whole numbers or text")
    if labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "biuf":
        if not (((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise PatchlightError(
                f"{where} has {labels.shape[1]} targets for each image ({labels.shape}), not all one-hot; one class "
                "per image is what is trained: store (N,) class numbers"
            )
        labels = labels.argmax(axis=1)
        notes.append(f"{where}: one-hot rows are read as the number of their column")
    if labels.ndim != 1:
        raise PatchlightError(f"{where} has labels of shape {labels.shape}; one class per image is (N,) or (N, 1)")
    if labels.dtype.kind == "f":
        if not (np.isfinite(labels).all() and (labels == np.rint(labels)).all() and (abs(labels) < 2**53).all()):
            raise PatchlightError(f"{where} has labels that are not whole numbers; store the number of each class")
        notes.append(f"{where}: labels stored as {labels.dtype} are read as whole numbers")
        labels = labels.astype(np.int64)
    if labels.dtype.kind == "S":
        try:
            labels = np.array([bytes(value).decode("utf-8") for value in labels.tolist()], dtype=object)
        except UnicodeDecodeError:
            raise PatchlightError(f"{where} has labels of bytes that are no UTF-8 text; store text") from None
    return labels, tuple(notes)


def class_numbers(
    values: dict[str, list[Any]], where: str, names: Sequence[str] | None = None
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """The names of the classes, and each split's labels as their places, (N,) int64.

    Without `names`, the values that occur are the classes, sorted: as numbers where all are numbers, else as text. With
    them, numbers are places in `names`, and text is one of them. Raises PatchlightError where one is not.
    """
    every = {value for own in values.values() for value in own}
    numbers = all(isinstance(value, int) for value in every)
    if names is None:
        texts = {value: value if numbers else str(value) for value in every}
        distinct: list[Any] = sorted(set(texts.values()))
        places = {value: index for index, value in enumerate(distinct)}
        ids = {value: places[text] for value, text in texts.items()}
        names = [str(value) for value in distinct]
    elif numbers:
        beyond = sorted(value for value in every if not 0 <= value < len(names))
        if beyond:
            raise PatchlightError(
                f"{where} has the label {beyond[0]}, and {len(names)} class names, for 0 to {len(names) - 1}"
            )
        ids = {value: int(value) for value in every}
    else:
        known = {name: index for index, name in enumerate(names)}
        unknown = sorted(str(value) for value in every if str(value) not in known)
        if unknown:
            raise PatchlightError(f"{where} has the label '{unknown[0]}', which is not among its class names")
        ids = {value: known[str(value)] for value in every}
    if len(set(names)) != len(names):
        twice = next(name for name in names if list(names).count(name) > 1)
        raise PatchlightError(f"{where} names two classes '{twice}'; give each a name of its own")
    return tuple(names), {key: np.array([ids[v] for v in own], dtype=np.int64) for key, own in values.items()}


def unlabelled(values: dict[str, list[Any]]) -> tuple[dict[str, np.ndarray], tuple[LeftOut, ...]]:
    """By split, which rows have a label, and what is left out because it has none: None, blank text, and -1 where the
    other labels are several whole numbers from 0 on, as libraries write "not known".
    """
    numbers = {v for own in values.values() for v in own if isinstance(v, int)}
    minus_one = -1 in numbers and min(numbers) == -1 and len(numbers) > 2

    def missing(value: Any) -> bool:
        return value is None or (isinstance(value, str) and not value.strip()) or (minus_one and value == -1)

    kept = {key: np.array([not missing(value) for value in own], dtype=bool) for key, own in values.items()}
    left_out = []
    labelled = any(rows.any() for rows in kept.values())
    for key, rows in kept.items():
        if count := int((~rows).sum()):
            whole = count == len(rows) and labelled and key != "train"
            reason = f"images of the split {key} without a label" + (", which is all of it" if whole else "")
            left_out.append(LeftOut(reason, count, f"number {int(np.argmin(rows))}", expected=whole))
    return kept, tuple(left_out)
