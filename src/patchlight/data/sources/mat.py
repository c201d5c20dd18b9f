"""MATLAB's files as SVHN has them: `train_32x32.mat` with X (H, W, 3, N) uint8 and y (N, 1).

SVHN's label 10 is the digit 0. Its further images, `extra_32x32.mat`, are used where data.train_split names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.decode import MAX_PIXELS, Encoded
from patchlight.data.listing import Listing, RawSplit
from patchlight.data.names import match_splits
from patchlight.data.sources.choice import has_class_folders, read_classes, split_in_name, splits_beside, whole_labels
from patchlight.data.sources.matlab import list_variables, read_variable
from patchlight.errors import PatchlightError, first_of
from patchlight.units import counted


def mat_files(path: Path) -> list[Path]:
    """The .mat files at a path, sorted; beside class folders of images they are about something else."""
    if path.is_file():
        return [path] if path.suffix.lower() == ".mat" else []
    if not path.is_dir() or has_class_folders(path):
        return []
    return sorted(
        p for p in path.iterdir() if p.suffix.lower() == ".mat" and not p.name.startswith(".") and p.is_file()
    )


def list_mat(path: Path, config: DataConfig) -> Listing:
    """The listing of SVHN's files, or of others that hold X and y like these; the split is in a file's name.

    Raises PatchlightError for files that are damaged, of MATLAB's HDF5 format, or hold something else.
    """
    by_name: dict[str, Path] = {}
    for file in mat_files(path):
        name = split_in_name(file.stem.removesuffix("_32x32"))
        if name in by_name:
            raise PatchlightError(f"{by_name[name]} and {file.name} are the same split; remove one")
        by_name[name] = file
    matched = match_splits(by_name, str(path), config)
    notes = list(matched.notes)
    used = {key: by_name[name] for key, name in matched.splits.items()}
    shapes = {key: _shape(file) for key, file in used.items()}
    values = {}
    for key, file in used.items():
        values[key], said = whole_labels(_column(_load(file, "y")), f"{file}: y")
        notes += said
        if len(values[key]) != shapes[key][3]:
            there = f"{counted(shapes[key][3], 'image')} and {counted(len(values[key]), 'label')}"
            raise PatchlightError(f"{file} has {there}; get it again")
    every = {value for own in values.values() for value in own}
    if 10 in every and every <= set(range(1, 11)):
        values = {key: [value % 10 for value in own] for key, own in values.items()}
        notes.append(f"{path}: the label 10 is the digit 0, as in SVHN")
    classes = read_classes(values, {key: f"{file}: y" for key, file in used.items()}, name="y")
    loaded: dict[Path, np.ndarray] = {}
    return Listing(
        {
            key: RawSplit(labels, _items(used[key], shapes[key], classes.rows[key], loaded))
            for key, labels in classes.labels.items()
        },
        classes.class_names,
        notes=(*notes, *classes.notes),
        left_out=(
            *splits_beside(matched, lambda name: _shape(by_name[name])[3], lambda name: f"{by_name[name]}[0]", config),
            *classes.left_out,
        ),
        files=tuple(used.values()),
    )


def _column(labels: np.ndarray) -> np.ndarray:
    """MATLAB has no array of one dimension: (1, N) is N labels as (N, 1) is."""
    return labels.reshape(-1) if labels.ndim == 2 and 1 in labels.shape else labels


def _items(
    file: Path, shape: tuple[int, ...], rows: np.ndarray, loaded: dict[Path, np.ndarray]
) -> Callable[[], Iterator[tuple[str, Encoded]]]:
    """`loaded` is shared by all splits and keeps the file that was read last: one is in memory at a time."""

    def items() -> Iterator[tuple[str, Encoded]]:
        if file not in loaded:
            loaded.clear()
            loaded[file] = _load(file, "X")
        pixels = loaded[file]
        if pixels.shape != shape or pixels.dtype != np.uint8:
            raise PatchlightError(f"{file} is damaged or has changed while it was read; get it again")
        for index in rows.tolist():
            yield f"{file.name}[{index}]", np.ascontiguousarray(pixels[:, :, :, index].transpose(2, 0, 1))

    return items


def _shape(file: Path) -> tuple[int, ...]:
    """Of X: (H, W, 3, N), read without its pixels."""
    there = list_variables(file)
    if "X" not in there or "y" not in there:
        missing = "images called X" if "X" not in there else "labels called y"
        raise PatchlightError(
            f"{file} has no array of {missing}, as SVHN's files have, but {first_of(sorted(there), 12) or 'nothing'}, "
            "and is not read; for image files, a list (CSV) with a column of their names and one of labels can be the "
            "source"
        )
    shape, dtype = there["X"].shape, there["X"].dtype
    if len(shape) != 4 or shape[2] != 3 or 0 in shape or dtype != np.uint8:
        raise PatchlightError(f"{file}: X is {dtype or 'not of numbers'} {shape}, not uint8 (height, width, 3, images)")
    if shape[0] * shape[1] > MAX_PIXELS:
        raise PatchlightError(f"{file}: X has images of {shape[1]} x {shape[0]} pixels, more than an image may have")
    return shape


def _load(file: Path, name: str) -> np.ndarray:
    variable = list_variables(file).get(name)
    if variable is None or variable.dtype is None:
        raise PatchlightError(f"{file}: {name} does not hold numbers; SVHN's files have X (images) and y (labels)")
    return read_variable(file, variable)
