"""NumPy's files: an .npz of images and labels, or .npy files of them in one folder.

An array's name says its split and what it holds: `train_images` and `train_labels` (MedMNIST), `x_train` and `y_train`
(Keras), or `images` and `labels` alone. Where two of a split could be the images, or the labels, it is an error that
lists them; data.image_column and data.label_column name the right ones. `class_names` may name the classes.

Pickles are never opened. .npy files are memory-mapped, and arrays of an .npz are read once.
"""

from __future__ import annotations

import tokenize
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.decode import Encoded
from patchlight.data.listing import Listing, RawSplit, file_facts, hash_of
from patchlight.data.names import match_splits, split_of
from patchlight.data.sources.choice import (
    SUFFIXES,
    distinct_names,
    has_class_folders,
    not_there,
    one_of,
    read_classes,
    splits_beside,
    whole_labels,
)
from patchlight.data.sources.pictures import Scale, layout_of, picture_items, scales
from patchlight.data.tars import DAMAGE
from patchlight.errors import PatchlightError, first_of
from patchlight.units import counted

# What arrays are called, in small letters.
IMAGE_WORDS = ("images", "image", "imgs", "img", "pixels", "data", "x")
LABEL_WORDS = ("labels", "label", "targets", "target", "classes", "class", "cls", "y")
NAME_WORDS = ("class_names", "label_names", "target_names")
ARRAY_ERRORS = (*DAMAGE, zipfile.BadZipFile, RuntimeError, TypeError, SyntaxError, tokenize.TokenError, AttributeError)


@dataclass
class Arrays:
    """Arrays by name, not read yet, and what messages call the file or folder that they are in."""

    where: str
    names: list[str]
    read: Callable[[str], np.ndarray]
    files: list[Path]
    only: str | None = None  # the images of the one file that was asked for


@dataclass
class Candidates:
    """The names of a split's arrays that may be its images and its labels."""

    images: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)


def is_array_file(path: Path) -> bool:
    """Whether a path is an .npz or .npy file, or a folder that holds them and no class folders.

    Beside images, as features of them, .npy files count where their names say what they hold.
    """
    if path.is_file():
        return path.suffix.lower() in (".npz", ".npy")
    if not path.is_dir() or not (any(_of_kind(path, ".npz")) or any(_of_kind(path, ".npy"))):
        return False
    stems = [entry.stem for entry in _of_kind(path, ".npy")]
    telling = any(split_and_role(stem, IMAGE_WORDS, LABEL_WORDS)[1] == "image" for stem in stems)
    beside_images = any(entry.suffix.lower() in SUFFIXES for entry in path.iterdir())
    return not has_class_folders(path) and (telling or not beside_images)


def list_arrays(path: Path, config: DataConfig) -> Listing:
    """The listing of an .npz file, of an .npy file with its labels beside it, or of a folder of either.

    Raises PatchlightError for files that are damaged, hold pickled objects, or whose images and labels cannot be told
    or do not fit each other.
    """
    arrays = _arrays(path)
    parsed, unused = _parsed(arrays, config)
    matched = match_splits(parsed, arrays.where, config)
    notes = [*matched.notes, *unused]
    images: dict[str, np.ndarray] = {}
    values: dict[str, list[Any]] = {}
    named: dict[str, str] = {}  # of each split's images, in messages
    where: dict[str, str] = {}  # of its labels
    name = config.label_column or "labels"
    for key, own in matched.splits.items():
        image, label = _pair(parsed[own], arrays, needed=key == "train" or len(matched.splits) == 1)
        images[key], named[key] = arrays.read(image), f"{arrays.where}: {image}"
        layout_of(images[key].shape, named[key])
        where[key] = f"{arrays.where}: {label or image}"
        values[key] = [None] * len(images[key])
        if label is not None:
            name = config.label_column or _label_word(label)
            values[key], said = whole_labels(arrays.read(label), where[key])
            notes += said
        if len(values[key]) != len(images[key]):
            raise PatchlightError(
                f"{arrays.where}: {image} has {counted(len(images[key]), 'image')} and {label} "
                f"{counted(len(values[key]), 'label')}; there must be one for each image"
            )
    given = next((name for name in arrays.names if name.lower() in NAME_WORDS), None)
    names = _names(arrays.read(given), f"{arrays.where}: {given}") if given else None
    classes = read_classes(values, where, names=names, name=name)
    scale_of, said = scales({named[key]: images[key] for key in classes.labels}, config.pixel_max)
    notes += said
    if any(array.ndim == 4 and array.shape[3] == 4 for array in images.values()):
        notes.append(f"{arrays.where}: the fourth channel is read as alpha, with white behind it")
    splits = {
        key: RawSplit(labels, _items(images[key], classes.rows[key], scale_of[named[key]], named[key]))
        for key, labels in classes.labels.items()
    }
    return Listing(
        splits,
        classes.class_names,
        lambda: hash_of(["arrays", *named.values(), *file_facts(arrays.files)]),
        notes=tuple(dict.fromkeys((*notes, *classes.notes))),
        left_out=(*splits_beside(matched, lambda own: _count(parsed[own], arrays), config), *classes.left_out),
    )


def _items(array: np.ndarray, rows: np.ndarray, scale: Scale, name: str) -> Callable[[], Iterator[tuple[str, Encoded]]]:
    return lambda: picture_items(array, rows, layout_of(array.shape, name), scale, name)


def _count(own: Candidates, arrays: Arrays) -> int:
    """How many images a split has that is not used."""
    return len(arrays.read(own.images[0]))


def _parsed(arrays: Arrays, config: DataConfig) -> tuple[dict[str, Candidates], list[str]]:
    """By the source's own names of splits, in order of first appearance, what they may be read from; and notes."""
    images = (config.image_column.lower(),) if config.image_column else IMAGE_WORDS
    labels = (config.label_column.lower(),) if config.label_column else LABEL_WORDS
    parsed: dict[str, Candidates] = {}
    unknown = []
    for name in arrays.names:
        split, role = split_and_role(name, images, labels)
        if role is None:
            unknown += [] if name.lower() in NAME_WORDS else [name]
            continue
        found = parsed.setdefault(split, Candidates())
        (found.images if role == "image" else found.labels).append(name)
    for what, asked in (("image", config.image_column), ("label", config.label_column)):
        if asked and not any(own.images if what == "image" else own.labels for own in parsed.values()):
            raise not_there(what, asked, arrays.where, arrays.names)
    if not any(own.images for own in parsed.values()):
        if len(arrays.files) > 1:
            raise PatchlightError(
                f"{arrays.where} has none that is the image by its name, but {first_of(arrays.names, 12)}; say it with "
                "data.image_column, or, where each file holds the images of one class, save them as one: "
                "np.savez('all.npz', images=..., labels=...)"
            )
        one_of([], "image", arrays.where, arrays.names)
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


def _label_word(name: str) -> str:
    """What the labels of all splits are called: "y" of "y_train"."""
    words = sorted(LABEL_WORDS, key=len, reverse=True)
    return next((word for word in words if name.lower().startswith(word) or name.lower().endswith(word)), name)


def _pair(own: Candidates, arrays: Arrays, *, needed: bool) -> tuple[str, str | None]:
    """The names of a split's images and labels; None where it has no labels and they are not `needed`."""
    image = one_of(own.images, "image", arrays.where, arrays.names)
    if not own.labels and not needed:
        return image, None
    return image, one_of(own.labels, "label", arrays.where, arrays.names)


def _names(array: np.ndarray, where: str) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise PatchlightError(f"{where} has {array.dtype} {array.shape}, not a list of names")
    return distinct_names((str(value) for value in whole_labels(array, where)[0]), where)


def _arrays(path: Path) -> Arrays:
    if path.is_dir():
        packed, plain = sorted(_of_kind(path, ".npz")), sorted(_of_kind(path, ".npy"))
        if len(packed) == 1 and not plain:
            path = packed[0]
        elif packed:
            names = ", ".join(file.name for file in (packed + plain)[:8])
            raise PatchlightError(f"{path} has several files of arrays ({names}); name one of the .npz files")
        else:
            return _loose(path, plain)
    if path.suffix.lower() == ".npz":
        return _packed(path)
    beside = sorted(_of_kind(path.parent, ".npy"))
    loose = _loose(path.parent, beside)
    split, role = split_and_role(path.stem, IMAGE_WORDS, LABEL_WORDS)
    partners = [
        file
        for file in beside
        if file != path and split_and_role(file.stem, IMAGE_WORDS, LABEL_WORDS) == (split, "label")
    ]
    if role != "image" or not partners:
        raise PatchlightError(
            f"{path} is one array; its labels must stand beside it in a file whose name says so, as images.npy and "
            "labels.npy do, or x_train.npy and y_train.npy"
        )
    return Arrays(str(path.parent), [path.stem, *(f.stem for f in partners)], loose.read, [path, *partners])


def _of_kind(folder: Path, suffix: str) -> Iterator[Path]:
    return (p for p in folder.iterdir() if p.suffix.lower() == suffix and not p.name.startswith(".") and p.is_file())


def _loose(folder: Path, files: list[Path]) -> Arrays:
    """.npy files of a folder: their names are their stems."""
    by_name = {file.stem: file for file in files}

    def read(name: str) -> np.ndarray:
        file = by_name[name]
        with _opening(str(file)):
            return _plain(np.load(file, mmap_mode="r", allow_pickle=False), str(file))

    return Arrays(str(folder), list(by_name), read, files)


def _packed(path: Path) -> Arrays:
    """The members of an .npz file, each read when it is first asked for, and kept."""
    kept: dict[str, np.ndarray] = {}
    with _opening(str(path)), zipfile.ZipFile(path) as archive:
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}

    def read(name: str) -> np.ndarray:
        if name not in kept:
            with _opening(f"{path}: {name}"), zipfile.ZipFile(path) as archive:
                member = next(info for info in archive.infolist() if info.filename.removesuffix(".npy") == name)
                with archive.open(member) as file:
                    _check_header(file, sizes[name], f"{path}: {name}")
                with archive.open(member) as file:
                    kept[name] = _plain(np.lib.format.read_array(file, allow_pickle=False), f"{path}: {name}")
        return kept[name]

    return Arrays(str(path), list(sizes), read, [path])


def _check_header(file: Any, size: int, where: str) -> None:
    """Raises PatchlightError where an array's header asks for other bytes than there are, or for more than fit."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if dtype.hasobject:
        raise PatchlightError(_pickled(where))
    needed = dtype.itemsize
    for length in shape:
        needed *= int(length)
    if file.tell() + needed != size:
        raise PatchlightError(
            f"{where} is damaged: its header says {needed:,} bytes, and {size - file.tell():,} follow"
        )
    if (free := _free_memory()) is not None and needed > free:
        raise PatchlightError(
            f"{where} takes {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are free; save it with np.save as "
            ".npy, which need not fit"
        )


def _plain(array: Any, where: str) -> np.ndarray:
    if not isinstance(array, np.ndarray) or array.ndim == 0:
        raise PatchlightError(f"{where} is no array of several images or labels")
    return array


class _opening:
    """Calls of NumPy on someone's file: its errors become one sentence, and its warnings are not printed."""

    def __init__(self, where: str) -> None:
        self.where, self.quiet = where, warnings.catch_warnings()

    def __enter__(self) -> None:
        self.quiet.__enter__()
        warnings.simplefilter("ignore")  # of a header that was written by Python 2, or that is damaged

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: Any) -> None:
        self.quiet.__exit__(kind, error, at)
        if isinstance(error, PatchlightError) or not isinstance(error, ARRAY_ERRORS):
            return
        if any(words in str(error) for words in ("allow_pickle", "Object arrays", "Python objects")):
            raise PatchlightError(_pickled(self.where)) from error
        text = " ".join(str(error).split())[:200] or type(error).__name__
        raise PatchlightError(f"{self.where} cannot be read ({text}); save it anew") from error


def _pickled(where: str) -> str:
    return (
        f"{where} holds Python objects, which are pickled and could run any code; save numbers or text, as "
        "np.array(labels, dtype=str) or images of one size"
    )


def _free_memory() -> int | None:
    """Bytes of memory that are free on this machine; None where the system does not tell."""
    info = Path("/proc/meminfo")
    if not info.is_file():
        return None
    line = next((line for line in info.read_text().splitlines() if line.startswith("MemAvailable")), None)
    return int(line.split()[1]) * 1024 if line else None
