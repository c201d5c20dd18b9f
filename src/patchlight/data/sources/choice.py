"""What sources of arrays, fields or files have alike: one candidate among several, labels, splits that are not used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data import heif
from patchlight.data.listing import LeftOut
from patchlight.data.names import Matched, is_unlabelled, names_are_given, split_of
from patchlight.data.sources.columns import Column
from patchlight.data.sources.labels import read_labels
from patchlight.data.sources.tree import SUFFIXES as PLAIN_SUFFIXES
from patchlight.errors import PatchlightError, UsageError, did_you_mean, first_of

SUFFIXES = PLAIN_SUFFIXES | heif.SUFFIXES  # of image files, whatever library opens them


@dataclass(frozen=True)
class Labelled:
    """The classes, and of each split with labels: these, (N,) int64, and the rows that they are of, (N,) ascending."""

    class_names: tuple[str, ...]
    labels: dict[str, np.ndarray]
    rows: dict[str, np.ndarray]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...] = ()


def read_classes(
    values: dict[str, list[Any]],
    where: dict[str, str],
    *,
    names: tuple[str, ...] | None = None,
    given: bool = True,
    name: str = "labels",
) -> Labelled:
    """From each split's labels (whole numbers, truths or text; None where there is none) to classes.

    `where` is what a message calls each split's labels, `names` are the names of the classes, where the source has
    them; `given` is False where the labels may be something else, as captions; `name` is what the source, and
    data.label_column, call the labels. The notes are on classes that may mean no label. Raises PatchlightError as
    `read_labels` does, and where no image has a label.
    """
    found = read_labels(values, Column(name, "text", "labels", names), where, given=given)
    labels, rows, left_out = {}, {}, []
    for key, own in found.of_split.items():
        kept = np.flatnonzero(own >= 0)
        if len(kept):
            labels[key], rows[key] = own[kept], kept
        if missing := len(own) - len(kept):
            reason = "images without a label" if len(kept) else f"images without labels (the split {key})"
            example = f"{where[key]}[{int(np.flatnonzero(own < 0)[0])}]"
            left_out.append(LeftOut(reason, missing, example, expected=not len(kept) and key != "train"))
    if not labels:
        raise PatchlightError(f"{' and '.join(where.values()) or 'the source'}: no image has a label")
    return Labelled(found.class_names, labels, rows, tuple(left_out), found.notes)


def distinct_names(names: Iterable[str], where: str) -> tuple[str, ...]:
    """The names of classes. Raises PatchlightError where two classes have one name."""
    listed = tuple(names)
    if twice := next((name for at, name in enumerate(listed) if name in listed[:at]), None):
        raise PatchlightError(f"{where} has the name '{twice}' twice; give each class a name of its own")
    return listed


def splits_beside(
    matched: Matched, count: Callable[[str], int], example: Callable[[str], str], config: DataConfig
) -> list[LeftOut]:
    """The splits that are none of train, val and test: `count` of their images, and an `example` of the first."""
    groups: dict[bool, list[str]] = {}
    for name in matched.others:
        groups.setdefault(names_are_given(config) or is_unlabelled(name), []).append(name)
    return [
        LeftOut(
            f"images of the split{'' if len(names) == 1 else 's'} {first_of(map(repr, names), 8)} "
            "(data.train_split, val_split and test_split name the splits)",
            sum(map(count, names)),
            example(names[0]),
            expected,
        )
        for expected, names in groups.items()
    ]


def split_in_name(stem: str, *folders: str) -> str:
    """The name of a file's split: its own, where that says one, else that of the folder that does, else its own."""
    return next((name for name in (stem, *folders) if split_of(name)[0] is not None), stem)


def has_class_folders(root: Path) -> bool:
    """Whether folders right below `root` hold images, so that other files in it are beside the point."""
    folders = (entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return any(entry.suffix.lower() in SUFFIXES for folder in folders for entry in folder.iterdir())


def one_of(candidates: Sequence[str], what: str, where: str, there: Iterable[str], called: Iterable[str] = ()) -> str:
    """The only candidate. Raises PatchlightError, which lists what there is and how such are `called`, where there are
    none or several.
    """
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise PatchlightError(
            f"{where} has {len(candidates)} that can be the {what}: {first_of(candidates, 12)}; say which with "
            f"data.{what}_column"
        )
    raise PatchlightError(
        f"none of {first_of(there, 12)} (of {where}) is called as {what}s are ({', '.join(called)}); "
        f"data.{what}_column names the right one, if it is there"
    )


def not_there(what: str, name: str, where: str, there: Iterable[str]) -> UsageError:
    """The error for data.image_column or data.label_column that names nothing."""
    others = [other for other in there if other != name]
    return UsageError(f"data.{what}_column: {where} has no '{name}'; {did_you_mean(name, others)}")


def whole_labels(labels: np.ndarray, where: str) -> tuple[list[Any], tuple[str, ...]]:
    """An array of labels as N whole numbers, truths or texts, and notes on what was changed.

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
                f"{where} has {labels.shape[1]} targets for each image (shape {labels.shape}), not one 1 among zeros; "
                "Patchlight learns one class for each image (multi-label data are not supported): store (N,) class "
                "numbers"
            )
        labels = labels.argmax(axis=1)
        notes.append(f"{where}: one-hot rows are read as the number of the column that has the 1")
    if labels.ndim != 1:
        raise PatchlightError(f"{where} has labels of shape {labels.shape}; one class per image is (N,) or (N, 1)")
    if labels.dtype.kind == "f":
        notes.append(f"{where}: labels stored as {labels.dtype} are read as whole numbers")
    if labels.dtype.kind == "S":
        try:
            return [value.decode("utf-8") for value in labels.tolist()], tuple(notes)
        except UnicodeDecodeError:
            raise PatchlightError(f"{where} has labels of bytes that are no UTF-8 text; store text") from None
    return labels.tolist(), tuple(notes)
