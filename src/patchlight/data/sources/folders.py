"""Folders of image files: ROOT/class/*.png, or ROOT/train/class/*.png beside ROOT/test/class/*.png and so on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.decode import Encoded
from patchlight.data.listing import SPLIT_NAMES, Listing, RawSplit, file_facts, hash_of, match_splits
from patchlight.errors import PatchlightError

SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".avif",
        ".jp2",
        ".bmp",
        ".tif",
        ".tiff",
        ".gif",
        ".ppm",
        ".pgm",
    }
)


def list_image_folder(root: Path, config: DataConfig) -> Listing:
    """The listing of a folder of class folders, or of split folders that hold class folders.

    Classes are the union over all splits, sorted by name; files are sorted by name; hidden and other files are ignored,
    and images outside class folders, or in folders inside them, are left out with a note. Raises PatchlightError where
    there are no class folders or one holds no image in any split.
    """
    folders, notes = _split_folders(root)
    classes = {key: _folders(folder) for key, folder in folders.items()}
    names = sorted({folder.name for below in classes.values() for folder in below})
    if not names:
        raise PatchlightError(
            f"{root} has no class folders with images; expected {root.name}/CLASS/*.png or "
            f"{root.name}/train/CLASS/*.png, or Parquet files, or the official CIFAR files"
        )
    files = {
        key: [(path, names.index(folder.name)) for folder in below for path in _images(folder)]
        for key, below in classes.items()
    }
    _refuse_empty_classes(root, names, files)
    strays = [path for folder in {root, *folders.values()} for path in _images(folder)]
    if strays:
        notes += (f"left out of {root}: {len(strays)} images outside class folders, such as {min(strays).name}",)
    if deeper := [path for below in classes.values() for folder in below for path in _images_below(folder)]:
        where = min(deeper).relative_to(root)
        notes += (f"left out of {root}: {len(deeper)} images in folders inside class folders, such as {where}",)
    empty = [key for key, own in files.items() if not own]
    if empty:
        notes += (f"left out of {root}: the split {', '.join(empty)} has no images",)
    return Listing(
        {key: _split(own) for key, own in files.items() if own},
        tuple(names),
        lambda: hash_of(file_facts(path for own in files.values() for path, _ in own)),
        notes=notes,
    )


def _split(files: list[tuple[Path, int]]) -> RawSplit:
    def items() -> Iterator[tuple[str, Encoded]]:
        return ((str(path), path) for path, _ in files)

    return RawSplit(np.array([label for _, label in files], dtype=np.int64), items)


def _split_folders(root: Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The folder of each split and notes. A folder called "train" that holds images itself is a class."""
    below = {folder.name: folder for folder in _folders(root)}
    if not any(
        name.lower() in SPLIT_NAMES and _folders(folder) and not _images(folder) for name, folder in below.items()
    ):
        return {"train": root}, ()
    matched, notes = match_splits(below, str(root))
    return {key: below[name] for key, name in matched.items()}, notes


def _refuse_empty_classes(root: Path, names: list[str], files: dict[str, list[tuple[Path, int]]]) -> None:
    filled = {label for own in files.values() for _, label in own}
    empty = [name for label, name in enumerate(names) if label not in filled]
    if empty:
        more = f" (and {len(empty) - 1} other classes)" if len(empty) > 1 else ""
        raise PatchlightError(
            f"the class folder '{empty[0]}'{more} in {root} holds no image ({', '.join(sorted(SUFFIXES))}; folders "
            "inside class folders are not searched); fill or remove it"
        )


def _folders(folder: Path) -> list[Path]:
    return sorted((path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")), key=_name)


def _images(folder: Path) -> list[Path]:
    images = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted((path for path in images if path.is_file()), key=_name)


def _images_below(folder: Path) -> list[Path]:
    return [path for below in _folders(folder) for path in _images(below) + _images_below(below)]


def _name(path: Path) -> str:
    return path.name
