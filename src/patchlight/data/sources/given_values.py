"""What Python's own containers hold, as plain values: arrays and tensors of any kind, labels, names of classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sized
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch

from patchlight.data.sources.choice import distinct_names, whole_labels
from patchlight.errors import PatchlightError, UsageError


def as_array(values: Any, where: str) -> np.ndarray:
    """Numbers or text as an array. Raises PatchlightError for what is none, and for objects."""
    if isinstance(values, torch.Tensor):
        return _of_tensor(values, where)
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise PatchlightError(f"{where} cannot be made an array: {error}") from None
    if array.dtype == object:
        raise PatchlightError(f"{where} must be an array of numbers or text of one type")
    return array


def _of_tensor(tensor: torch.Tensor, where: str) -> np.ndarray:
    """A tensor of any device, layout and type; floats of a type that NumPy has not become float32."""
    if tensor.is_meta:
        raise PatchlightError(f"{where} is a tensor of the device 'meta', which holds no values; give one that does")
    try:
        tensor = tensor.detach().cpu()
        tensor = tensor.dequantize() if tensor.is_quantized else tensor
        tensor = tensor if tensor.layout == torch.strided else tensor.to_dense()
        if tensor.is_floating_point() and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
            tensor = tensor.float()
        return np.asarray(tensor.resolve_conj().resolve_neg().numpy())
    except (TypeError, RuntimeError) as error:  # NotImplementedError is a RuntimeError
        about = f"{tensor.dtype}, which cannot be made an array ({str(error).splitlines()[0]})"
        raise PatchlightError(f"{where} is a tensor of {about}; give one of uint8, 0 to 255") from None


def is_row(values: Any) -> bool:
    """Whether a value may hold one thing for each image: it has a length and an order, and is no table."""
    if getattr(values, "ndim", 1) == 0 or hasattr(values, "columns"):
        return False
    return isinstance(values, Sized) and not isinstance(values, str | bytes | Mapping | AbstractSet)


def label_values(labels: Any, where: str) -> tuple[list[Any], tuple[str, ...]]:
    """Labels as whole numbers, truths or texts, None where an image has none, and notes on what was changed.

    Raises PatchlightError as `whole_labels` does, and for labels of several types or that are no row of labels.
    """
    if hasattr(labels, "columns") and np.shape(labels)[1:] == (1,):  # a table of one column
        labels = labels.to_numpy()[:, 0]
    if not is_row(labels):
        about = type(labels).__name__
        raise UsageError(f"{where} is of the type {about}; give a list or an array with one label for each image")
    if isinstance(labels, torch.Tensor) or (isinstance(labels, np.ndarray) and labels.dtype != object):
        return whole_labels(as_array(labels, where), where)
    if getattr(labels, "ndim", 1) == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    listed = [label.tolist() if isinstance(label, torch.Tensor) and not label.is_meta else label for label in labels]
    there = [label for label in listed if not _is_missing(label)]
    if not there:
        return [None] * len(listed), ()
    _refuse_types(listed, where)
    read, notes = whole_labels(as_array(there, where), where)
    each = iter(read)
    return [None if _is_missing(label) else next(each) for label in listed], notes


def _is_missing(label: Any) -> bool:
    """Whether a label says that there is none: None, not a number, or what pandas has for these."""
    if isinstance(label, float | np.floating):
        return math.isnan(label)
    return label is None or type(label).__name__ in ("NAType", "NaTType")


def _kind(label: Any) -> str:
    kinds = {"text": str, "bytes": bytes, "truths": bool | np.bool_}
    return next((kind for kind, types in kinds.items() if isinstance(label, types)), "numbers")


def _refuse_types(labels: list[Any], where: str) -> None:
    """Raises PatchlightError for labels of several types, which NumPy would make text."""
    first: dict[str, int] = {}
    for row, label in enumerate(labels):
        if not _is_missing(label):
            first.setdefault(_kind(label), row)
    if len(first) > 1:
        told = " and ".join(f"{kind} ({labels[row]!r} at [{row}])" for kind, row in first.items())
        raise PatchlightError(f"{where} holds {told}; give all images labels of one type")


def given_names(names: Any, where: str) -> tuple[str, ...]:
    """The names of classes in the order of their numbers, from a row of texts or a dictionary of names and numbers.

    Raises UsageError for a dictionary that is neither {number: name} nor {name: number}, and for what is no row of
    texts that differ.
    """
    if isinstance(names, Mapping):
        names = _by_number(names, where)
    elif not is_row(names):
        about = type(names).__name__
        raise UsageError(f"{where} is of the type {about}; give a list with a name for each class, as ['cat', 'dog']")
    listed = list(names)
    wrong = [name for name in listed if not isinstance(name, str) or not name.strip()]
    if wrong or not listed:
        what = f"holds {wrong[0]!r}" if listed else "is empty"
        raise UsageError(f"{where} {what}; give a name that is text for each class, as ['cat', 'dog']")
    return distinct_names(map(str, listed), where)


def _by_number(names: Mapping[Any, Any], where: str) -> list[Any]:
    """The names of {0: "cat", 1: "dog"}, whose numbers may be text, or of {"cat": 0, "dog": 1}."""
    pairs = list(names.items())
    if not all(isinstance(name, str) for name in names.values()):
        pairs = [(number, name) for name, number in pairs if not isinstance(number, str)]
    by_number = {_whole(number): name for number, name in pairs}
    if set(by_number) != set(range(len(names))):
        raise UsageError(
            f"{where} is a dictionary, but not of all the numbers from 0 to {len(names) - 1} and their names; give "
            "{0: 'cat', 1: 'dog'}, {'cat': 0, 'dog': 1} or ['cat', 'dog']"
        )
    return [by_number[number] for number in range(len(names))]


def _whole(number: Any) -> int | None:
    if isinstance(number, str):
        return int(number) if number.isascii() and number.isdecimal() else None
    return int(number) if isinstance(number, int | np.integer) and not isinstance(number, bool) else None
