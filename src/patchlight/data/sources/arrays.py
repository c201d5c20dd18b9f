"""NumPy's files: an .npz of images and labels, or .npy files of them in one folder.

`array_names.py` says what is read from an array's name. An .npz file of one array without a name is as an .npy file.

Pickles are never opened. .npy files are memory-mapped, and arrays of an .npz are read once.
"""

from __future__ import annotations

import tokenize
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.decode import Encoded
from patchlight.data.listing import Listing, RawSplit
from patchlight.data.names import match_splits
from patchlight.data.sources.array_names import Arrays, Candidates, find_splits, label_word, pair_of, roles_of
from patchlight.data.sources.choice import (
    SUFFIXES,
    distinct_names,
    has_class_folders,
    read_classes,
    splits_beside,
    whole_labels,
)
from patchlight.data.sources.pictures import Scale, layout_of, picture_items, scales
from patchlight.data.tars import DAMAGE
from patchlight.errors import PatchlightError, first_of
from patchlight.units import counted

UNNAMED = "arr_0"  # what np.savez calls an array that is given without a name
ARRAY_ERRORS = (*DAMAGE, zipfile.BadZipFile, RuntimeError, TypeError, SyntaxError, tokenize.TokenError, AttributeError)


def is_array_file(path: Path) -> bool:
    """Whether a path is an .npz or .npy file, or a folder that holds them and no class folders.

    Beside images, as features of them, .npy files count where their names say what they hold.
    """
    if path.is_file():
        return path.suffix.lower() in (".npz", ".npy")
    if not path.is_dir() or not (any(_of_kind(path, ".npz")) or any(_of_kind(path, ".npy"))):
        return False
    roles = roles_of([entry.stem for entry in _of_kind(path, ".npy")], DataConfig())
    telling = any(role == "image" for _, role in roles.values())
    beside_images = any(entry.suffix.lower() in SUFFIXES for entry in path.iterdir())
    return not has_class_folders(path) and (telling or not beside_images)


def list_arrays(path: Path, config: DataConfig) -> Listing:
    """The listing of an .npz file, of an .npy file with its labels beside it, or of a folder of either.

    Raises PatchlightError for files that are damaged, hold pickled objects, or whose images and labels cannot be told
    or do not fit each other.
    """
    arrays = _arrays(path)
    parsed, unused = find_splits(arrays, config)
    matched = match_splits(parsed, arrays.where, config)
    notes = [*arrays.notes, *matched.notes, *unused]
    images: dict[str, np.ndarray] = {}
    values: dict[str, list[Any]] = {}
    named: dict[str, str] = {}  # of each split's images, in messages
    where: dict[str, str] = {}  # of its labels
    name = config.label_column or "labels"
    for key, own in matched.splits.items():
        image, label = pair_of(parsed[own], arrays, config, needed=key == "train" or len(matched.splits) == 1)
        images[key], named[key] = arrays.read(image), f"{arrays.where}: {image}"
        layout_of(images[key].shape, named[key])
        where[key] = f"{arrays.where}: {label or image}"
        values[key] = [None] * len(images[key])
        if label is not None:
            name = config.label_column or label_word(label)
            values[key], said = whole_labels(arrays.read(label), where[key])
            notes += said
        if len(values[key]) != len(images[key]):
            raise PatchlightError(
                f"{arrays.where}: {image} has {counted(len(images[key]), 'image')} and {label} "
                f"{counted(len(values[key]), 'label')}; there must be one for each image"
            )
    given = arrays.class_names
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
        notes=tuple(dict.fromkeys((*notes, *classes.notes))),
        left_out=(
            *splits_beside(
                matched, lambda own: _count(parsed[own], arrays), lambda own: f"{parsed[own].images[0]}[0]", config
            ),
            *classes.left_out,
        ),
        files=tuple(arrays.files),
    )


def _items(array: np.ndarray, rows: np.ndarray, scale: Scale, name: str) -> Callable[[], Iterator[tuple[str, Encoded]]]:
    return lambda: picture_items(array, rows, layout_of(array.shape, name), scale, name)


def _count(own: Candidates, arrays: Arrays) -> int:
    """How many images a split has that is not used."""
    return len(arrays.read(own.images[0]))


def _names(array: np.ndarray, where: str) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise PatchlightError(f"{where} has {array.dtype} {array.shape}, not a list of names")
    return distinct_names((str(value) for value in whole_labels(array, where)[0]), where)


def _arrays(path: Path) -> Arrays:
    """The arrays of an .npz file, or of files of one array each, which are called as their files are."""
    if path.is_file() and path.suffix.lower() == ".npz" and not _is_single(path):
        return _packed(path)
    folder = path if path.is_dir() else path.parent
    packed = sorted(_of_kind(folder, ".npz"))
    single = sorted([*_of_kind(folder, ".npy"), *(file for file in packed if _is_single(file))])
    if path.is_file():
        return _with_labels(path, single)
    several = [file for file in packed if file not in single]
    if len(several) == 1 and not single:
        return _packed(several[0])
    if several:
        names = first_of((file.name for file in several + single), 8)
        raise PatchlightError(f"{path} has several files of arrays ({names}); name one of the .npz files")
    return _loose(path, single)


def _with_labels(path: Path, beside: list[Path]) -> Arrays:
    """A file of one array, which holds images, and of those beside it the ones that hold their labels."""
    roles = roles_of([file.stem for file in beside], DataConfig())
    split, role = roles[path.stem]
    partners = [file for file in beside if roles[file.stem] == (split, "label")]
    if role != "image" or not partners:
        raise PatchlightError(
            f"{path} is one array; its labels must stand beside it in a file whose name says so, as images.npy and "
            "labels.npy do, or x_train.npy and y_train.npy"
        )
    return _loose(path.parent, [path, *partners])


def _of_kind(folder: Path, suffix: str) -> Iterator[Path]:
    return (p for p in folder.iterdir() if p.suffix.lower() == suffix and not p.name.startswith(".") and p.is_file())


def _members(path: Path) -> dict[str, int]:
    """The names of an .npz file's arrays, and the bytes of each."""
    with _opening(str(path)), zipfile.ZipFile(path) as archive:
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
    return sizes


def _is_single(path: Path) -> bool:
    """Whether an .npz file holds one array, to which nobody gave a name; a damaged one is told of when it is read."""
    try:
        return list(_members(path)) == [UNNAMED]
    except PatchlightError:
        return False


def _loose(folder: Path, files: list[Path]) -> Arrays:
    """Files of one array each in a folder: their names are their stems."""
    by_name: dict[str, Path] = {}
    for file in files:
        if file.stem in by_name:
            raise PatchlightError(f"{by_name[file.stem]} and {file.name} are of one name; remove one")
        by_name[file.stem] = file
    packed = {file.stem: _packed(file) for file in files if file.suffix.lower() == ".npz"}

    def read(name: str) -> np.ndarray:
        if name in packed:
            return packed[name].read(UNNAMED)
        file = by_name[name]
        with _opening(str(file)):
            return _plain(np.load(file, mmap_mode="r", allow_pickle=False), str(file))

    files_of = first_of((f"{name}.npz" for name in packed), 8)
    told = f"{folder}: the array without a name ({UNNAMED}) is called as its file is, in {files_of}"
    return Arrays(str(folder), list(by_name), read, files, (told,) if packed else ())


def _packed(path: Path) -> Arrays:
    """The members of an .npz file, each read when it is first asked for, and kept."""
    kept: dict[str, np.ndarray] = {}
    sizes = _members(path)

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
        f"{where} holds Python objects, which are pickled and could run any code; save labels as text or numbers, as "
        "np.array(labels, dtype=str), and images as one array of numbers, as np.stack(images)"
    )


def _free_memory() -> int | None:
    """Bytes of memory that are free on this machine; None where the system does not tell."""
    info = Path("/proc/meminfo")
    if not info.is_file():
        return None
    line = next((line for line in info.read_text().splitlines() if line.startswith("MemAvailable")), None)
    return int(line.split()[1]) * 1024 if line else None
