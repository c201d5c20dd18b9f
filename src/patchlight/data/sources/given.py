"""Images that are given in Python: `patchlight.train(recipe, data=...)`.

A set is one of

- `(images, labels)` or `(images, labels, class_names)`: images as an array or tensor of the layouts and types of
  `pictures.py`, or a list of paths, Pillow images and arrays; labels as whole numbers or text, all of one type, and
  None or NaN where an image has none; names of classes in the order of their numbers, or by number, or numbers by name;
- an `ImageSet`;
- a data set of torch: `len(set)`, and `set[i]` is (image, label), with the names of its classes in `set.classes`;
- a data set of the library `datasets`;

and the data are one set, which is divided as a source without splits is, or one of the forms of `given_forms.py`: a
dictionary of sets by the names of their splits, {"train": ..., "test": ...}, or of arrays by their names,
{"x_train": ..., "y_train": ...}, or two pairs, ((x_train, y_train), (x_test, y_test)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from patchlight.config import DataConfig
from patchlight.data.decode import Encoded
from patchlight.data.images import ImageSet
from patchlight.data.listing import Listing, RawSplit
from patchlight.data.names import match_splits
from patchlight.data.sources.choice import read_classes, splits_beside
from patchlight.data.sources.given_forms import WAYS, count_of, is_of_datasets, sets_of
from patchlight.data.sources.given_values import as_array, given_names, is_row, label_values
from patchlight.data.sources.pictures import channels_first, layout_of, picture_items, scales
from patchlight.data.sources.tables import list_datasets
from patchlight.errors import PatchlightError, UsageError
from patchlight.paths import user_path
from patchlight.units import counted


@dataclass(frozen=True)
class GivenSet:
    """One set: its labels as they are, the names of classes where it has them, and a walk over some of its images."""

    labels: list[Any]
    class_names: tuple[str, ...] | None
    items: Callable[[np.ndarray], Iterator[tuple[str, Encoded]]]  # of these rows, in order
    notes: tuple[str, ...] = ()


def not_stored(config: DataConfig) -> Listing:
    """Raises PatchlightError: what stands for given images has none itself."""
    raise PatchlightError(
        "the source 'python' stands for images that were given to patchlight.train(..., data=...) and are not stored; "
        "give them again as data=..., or name a source on disk"
    )


def list_given(data: Any, config: DataConfig) -> Listing:
    """The listing of images that are given. Raises UsageError for data of no known kind, and PatchlightError for images
    and labels that do not fit.
    """
    named, notes = sets_of(data, config)
    of_datasets = [is_of_datasets(own) for _, own in named.values()]
    if any(of_datasets):
        if not all(of_datasets):
            raise UsageError("data mixes sets of `datasets` with others; give sets of one kind")
        return list_datasets({name: own for name, (_, own) in named.items()}, "data", config)
    matched = match_splits(named, "data", config)
    sets = {key: _read(named[name][1], named[name][0], config.pixel_max) for key, name in matched.splits.items()}
    names = _names({key: own.class_names for key, own in sets.items()})
    where = {key: f"the labels of {key}" for key in sets}
    labelled = read_classes({key: own.labels for key, own in sets.items()}, where, names=names)
    splits = {key: RawSplit(labels, _walk(sets[key], labelled.rows[key])) for key, labels in labelled.labels.items()}
    said = (note for own in sets.values() for note in own.notes)
    return Listing(
        splits,
        labelled.class_names,
        notes=tuple(dict.fromkeys((*notes, *matched.notes, *said, *labelled.notes))),
        left_out=(
            *splits_beside(matched, lambda name: count_of(named[name][1]), lambda name: f"data[{name!r}]", config),
            *labelled.left_out,
        ),
    )


def _walk(given: GivenSet, rows: np.ndarray) -> Callable[[], Iterator[tuple[str, Encoded]]]:
    return lambda: given.items(rows)


def _names(names: dict[str, tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """The names of the classes, where the sets have any."""
    known = {own for own in names.values() if own is not None}
    if len(known) > 1:
        raise PatchlightError("the sets of data have different names of classes; give all the same, in the same order")
    return known.pop() if known else None


def _read(data: Any, where: str, pixel_max: int) -> GivenSet:
    if isinstance(data, ImageSet):
        return _of_image_set(data, where)
    if isinstance(data, tuple) and len(data) in (2, 3):
        names = given_names(data[2], f"the list of class names of {where}") if len(data) == 3 else None
        return _of_pair(data[0], data[1], names, where, pixel_max)
    if isinstance(data, torch.utils.data.IterableDataset):
        raise UsageError(f"{where} is a set that can only be walked; give one with len(set) and set[i]")
    if isinstance(data, str | Path):
        raise UsageError(f"{where} is of the type {type(data).__name__}; a source on disk is the setting data.source")
    if type(data).__module__.partition(".")[0] in ("pandas", "polars", "pyarrow"):
        raise UsageError(f"{where} is a table; give its columns: (list of paths or images, list of labels)")
    if (
        hasattr(data, "__getitem__")
        and isinstance(data, Sized)
        and not isinstance(data, str | bytes | list | np.ndarray)
    ):
        return _of_torch(data, where, pixel_max)
    raise UsageError(f"{where} is of the type {type(data).__name__}; give {WAYS}")


def _of_image_set(images: ImageSet, where: str) -> GivenSet:
    def items(rows: np.ndarray) -> Iterator[tuple[str, Encoded]]:
        for row in rows.tolist():
            yield f"{where}[{row}]", images.gather([row])[0][0].numpy()

    return GivenSet(images.labels.tolist(), images.class_names, items, images.notes)


def _of_pair(images: Any, labels: Any, names: tuple[str, ...] | None, where: str, pixel_max: int) -> GivenSet:
    read, label_notes = label_values(labels, f"the list of labels of {where}")
    if not is_row(images):
        about = f"the type {type(images).__name__}"
        raise UsageError(f"the images of {where} are of {about}; give an array, or a list of paths, images or arrays")
    if listed := _is_listed(images):
        images = list(iter(images))  # a nested tensor can be walked and has no length
    if len(images) != len(read):
        raise PatchlightError(f"{where} has {counted(len(images), 'image')} and {counted(len(read), 'label')}")
    if listed:
        return GivenSet(read, names, lambda rows: _listed(images, rows, where, pixel_max), label_notes)
    array = as_array(images, where)
    layout = layout_of(array.shape, where)
    scale, notes = scales({where: array}, pixel_max)
    return GivenSet(
        read, names, lambda rows: picture_items(array, rows, layout, scale[where], where), (*notes, *label_notes)
    )


def _is_listed(images: Any) -> bool:
    """Whether images are one thing each, as paths are, and not one array of all."""
    if isinstance(images, torch.Tensor):
        return bool(images.is_nested)
    return not isinstance(images, np.ndarray) or images.ndim == 1


def _listed(images: Sequence[Any], rows: np.ndarray, where: str, pixel_max: int) -> Iterator[tuple[str, Encoded]]:
    for row in rows.tolist():
        image = images[row]
        if isinstance(image, str | Path):
            yield str(image), user_path(image)
        else:
            yield f"{where}[{row}]", _pixels(image, f"{where}[{row}]", pixel_max)


def _classes(data: Any) -> Any:
    """The names of a torch set's classes, which a part of a set, or sets one behind the other, have from inside."""
    if (own := getattr(data, "classes", None)) is not None:
        return own
    inside = getattr(data, "datasets", None) or [getattr(data, "dataset", None)]
    found = [None if each is None else _classes(each) for each in inside]
    return found[0] if all(each == found[0] for each in found) else None


def _of_torch(data: Any, where: str, pixel_max: int) -> GivenSet:
    """A data set whose items are (image, label). Its labels are its `targets` or `labels`, else those of its items."""
    if len(data) == 0:
        raise PatchlightError(f"{where} is empty")
    first, again = _item(data, 0, where), _item(data, 0, where)
    if not np.array_equal(_values(first[0], where, pixel_max), _values(again[0], where, pixel_max)):
        raise PatchlightError(
            f"{where}[0] is another image each time: its transform draws at random; give the set without augmentation, "
            "which is the recipe's ([augment])"
        )
    stored = next((getattr(data, name) for name in ("targets", "labels") if hasattr(data, name)), None)
    if stored is None or len(stored) != len(data):
        stored = [_item(data, row, where)[1] for row in range(len(data))]
    labels, notes = label_values(stored, f"the list of labels of {where}")
    classes = _classes(data)
    if isinstance(classes, list | tuple):  # torchvision's ImageNet has several names for each
        classes = [", ".join(map(str, name)) if isinstance(name, tuple) else str(name) for name in classes]
    names = given_names(classes, f"{where}.classes") if isinstance(classes, list | Mapping) and classes else None

    def items(rows: np.ndarray) -> Iterator[tuple[str, Encoded]]:
        for row in rows.tolist():
            yield f"{where}[{row}]", _pixels(_item(data, row, where)[0], f"{where}[{row}]", pixel_max)

    return GivenSet(labels, names, items, notes)


def _item(data: Any, row: int, where: str) -> tuple[Any, Any]:
    try:
        item = data[row]
    except Exception as error:  # a user's own code may raise anything
        raise PatchlightError(f"{where}[{row}] cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise PatchlightError(f"{where}[{row}] is of the type {type(item).__name__}, not a pair of image and label")
    return item[0], item[1]


def _pixels(image: Any, name: str, pixel_max: int) -> np.ndarray | Image.Image:
    """A Pillow image as it is, an array or a tensor as (3, H, W) uint8."""
    if isinstance(image, Image.Image):
        return image
    array = as_array(image, name)[None]
    layout = layout_of(array.shape, name)
    scale, _ = scales({name: array}, pixel_max)
    return channels_first(scale[name](array)[0], layout, name)


def _values(image: Any, where: str, pixel_max: int) -> np.ndarray:
    return np.asarray(_pixels(image, f"{where}[0]", pixel_max))
