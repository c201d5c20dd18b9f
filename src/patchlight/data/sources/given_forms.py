"""The forms in which sets come together in Python: one set, sets by split, arrays by name, pairs of `load_data()`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from patchlight.config import DataConfig
from patchlight.data.images import ImageSet
from patchlight.data.sources.array_names import Arrays, find_splits, pair_of, roles_of
from patchlight.errors import UsageError
from patchlight.units import counted

BY_SPLIT = '{"train": (x_train, y_train), "test": (x_test, y_test)}'
WAYS = (
    "(images, labels), an ImageSet, a data set of torch or of `datasets`, or a dictionary of these by split, as in "
    f"{BY_SPLIT}"
)

OR_ARRAYS = 'or of arrays, as in {"images": ..., "labels": ...}'

Sets = dict[str, tuple[str, Any]]  # by the names of splits: what messages call a set, and the set


def sets_of(data: Any, config: DataConfig) -> tuple[Sets, tuple[str, ...]]:
    """The sets of `data` and notes on how it was understood. Raises UsageError for a form that could be two things."""
    if isinstance(data, Mapping):
        return _of_mapping(data, config)
    if not isinstance(data, tuple | list):
        return {"train": ("data", data)}, ()
    if len(data) == 2 and all(map(_is_pair, data)):
        told = "data is two pairs of images and labels, as load_data() returns: the first is train, the second is test"
        return {"train": ("data[0]", tuple(data[0])), "test": ("data[1]", tuple(data[1]))}, (told,)
    if isinstance(data, list) or len(data) not in (2, 3) or any(_is_pair(part) or _is_set(part) for part in data):
        parts = f" with {counted(len(data), 'part')}" if isinstance(data, tuple) else ""
        raise UsageError(f"data is of the type {type(data).__name__}{parts}; give {WAYS}")
    return {"train": ("data", data)}, ()


def _of_mapping(data: Mapping[Any, Any], config: DataConfig) -> tuple[Sets, tuple[str, ...]]:
    if not data:
        raise UsageError(f"data is an empty dictionary; give {WAYS}")
    named = {str(name): own for name, own in data.items()}
    if _is_arrays(named, config):
        return _of_arrays(named, "data", config)
    sets: Sets = {}
    notes: list[str] = []
    for name, own in named.items():
        if isinstance(own, np.ndarray | torch.Tensor | list):
            raise UsageError(f"data['{name}'] is of the type {type(own).__name__}; give {WAYS}, {OR_ARRAYS}")
        sets[name] = f"data['{name}']" if len(named) > 1 else "data", own
        if isinstance(own, Mapping) and _is_arrays(own, config):
            inner, said = _of_arrays(own, f"data['{name}']", config)
            if len(inner) > 1:
                raise UsageError(f"data['{name}'] has the splits {', '.join(inner)} in it; give {BY_SPLIT}")
            sets[name] = next(iter(inner.values()))
            notes += said
    return sets, tuple(notes)


def _is_arrays(named: Mapping[str, Any], config: DataConfig) -> bool:
    """Whether a dictionary holds arrays of images or of labels by their names, and not sets by their splits."""
    roles = roles_of([str(name) for name in named], config)
    return any(roles[str(name)][1] and _is_array(own) for name, own in named.items())


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray | torch.Tensor | list) or hasattr(value, "to_numpy")


def _of_arrays(named: Mapping[str, Any], where: str, config: DataConfig) -> tuple[Sets, tuple[str, ...]]:
    """The sets of {"x_train": ..., "y_train": ...} or {"images": ..., "labels": ...}, by the rules of .npz files.

    Where some are images and others rows of numbers, as in scikit-learn's `load_digits()`, the latter are not used.
    """
    there = {name: own for name, own in named.items() if own is not None}
    arrays = Arrays(where, list(there), there.__getitem__, [])
    parsed, notes = find_splits(arrays, config)
    names = _named_by_numbers(there[arrays.class_names]) if arrays.class_names else None
    sets: Sets = {}
    for split, own in parsed.items():
        flat = [name for name in own.images if getattr(there[name], "ndim", 0) == 2]
        if len(flat) < len(own.images) and flat:
            own.images = [name for name in own.images if name not in flat]
            notes.append(f"not used of {where}: {', '.join(flat)}, whose rows of numbers are no images")
        image, label = pair_of(own, arrays, config, needed=split == "train" or len(parsed) == 1)
        labels = there[label] if label is not None else [None] * len(there[image])
        sets[split] = f"{where}['{image}']", (there[image], labels, *(() if names is None else (names,)))
    return sets, tuple(notes)


def _named_by_numbers(names: Any) -> Any:
    """The names of classes, as text where they are an array of numbers (`load_digits()`)."""
    return names.astype(str) if isinstance(names, np.ndarray) and names.dtype.kind in "iu" else names


def _is_pair(part: Any) -> bool:
    """Whether this is an array of images and its labels."""
    if not isinstance(part, tuple | list) or len(part) != 2:
        return False
    images, labels = part
    return getattr(images, "ndim", 0) in (3, 4) and (isinstance(labels, list) or getattr(labels, "ndim", 0) in (1, 2))


def _is_set(part: Any) -> bool:
    return isinstance(part, torch.utils.data.Dataset | ImageSet) or is_of_datasets(part)


def is_of_datasets(data: Any) -> bool:
    """Whether this is of the library `datasets`."""
    return type(data).__module__.partition(".")[0] == "datasets"


def count_of(data: Any) -> int:
    """How many images a set has."""
    try:
        return len(data[0] if isinstance(data, tuple) else data)
    except (TypeError, IndexError):
        raise UsageError(f"data has a split of the type {type(data).__name__}, no set; give {WAYS}") from None
