"""What a recipe's `data.source` may be, and the way from it to image sets.

SOURCES are the names; PATH_KINDS is what may be at a path, in the order in which it is looked for. `hf:owner/name` is
any data set of the Hugging Face hub. A name wins over a folder that is called the same; `./digits` is the folder.

To add a source, write a file that makes a `Listing`, and its row here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from patchlight.config import GIVEN, DataConfig
from patchlight.data.decoding import decode_listing
from patchlight.data.images import ImageSet
from patchlight.data.listing import Listing, named
from patchlight.data.sources.archives import is_archive, list_archive
from patchlight.data.sources.arrays import is_array_file, list_arrays
from patchlight.data.sources.beside import with_folders_around, with_folders_beside
from patchlight.data.sources.cifar import (
    find_cifar_folder,
    is_cifar_archive,
    list_cifar_archive,
    list_cifar_folder,
)
from patchlight.data.sources.digits import list_digits
from patchlight.data.sources.fence import fenced
from patchlight.data.sources.folders import list_image_folder
from patchlight.data.sources.given import list_given, not_stored
from patchlight.data.sources.idx import is_idx, list_idx
from patchlight.data.sources.lists import list_files, list_lists
from patchlight.data.sources.mat import list_mat, mat_files
from patchlight.data.sources.no_source import what_to_do
from patchlight.data.sources.planted import list_planted
from patchlight.data.sources.shards import is_shards, list_shards
from patchlight.data.sources.tables import is_saved_dataset, list_hub, list_parquet, parquet_files
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.paths import is_there, user_path


@dataclass(frozen=True)
class NamedSource:
    """A source that is the same for everyone."""

    about: str
    listing: Callable[[DataConfig], Listing]
    train_images: int | None = None  # images to train on, those to validate with among them, where that is known
    takes: frozenset[str] = frozenset()  # as of a PathKind


@dataclass(frozen=True)
class PathKind:
    """What may be at a path: `matches` looks without reading much, `listing` reads it."""

    about: str
    matches: Callable[[Path], bool]
    listing: Callable[[Path, DataConfig], Listing]
    takes: frozenset[str] = frozenset()  # the settings of READING that say how it is read


# Settings of [data] that are about some kinds of source, and an error where a source is of another.
SPLITS = frozenset({"train_split", "val_split", "test_split"})
COLUMNS = frozenset({"image_column", "label_column"}) | SPLITS
TABLES = COLUMNS | {"split_column"}
LISTS = TABLES | {"image_folder"}
READING = LISTS | {"class_folders"}

SOURCES: dict[str, NamedSource] = {
    "digits": NamedSource(
        "1,797 handwritten digits that come with scikit-learn, at 32 x 32", lambda config: list_digits(), 1438
    ),
    "planted": NamedSource(
        "7,200 made-up images, in each one known patch decides the label", lambda config: list_planted(), 6000
    ),
    "cifar10": NamedSource(
        "CIFAR-10 from the Hugging Face hub", lambda config: list_hub("uoft-cs/cifar10", config), 50_000, TABLES
    ),
    "cifar100": NamedSource(
        "CIFAR-100, fine labels, from the Hugging Face hub",
        lambda config: list_hub("uoft-cs/cifar100", with_label(config, "fine_label")),
        50_000,
        TABLES,
    ),
    GIVEN: NamedSource("images that are given in Python, as patchlight.train(recipe, data=...)", not_stored),
}

TRAIN_IMAGES = {name: source.train_images for name, source in SOURCES.items() if source.train_images is not None}

PATH_KINDS: tuple[PathKind, ...] = (
    PathKind(
        "the official CIFAR archive (.tar.gz)",
        is_cifar_archive,
        lambda path, config: list_cifar_archive(path),
    ),
    PathKind("MNIST's idx files, a folder of them or one set's images", is_idx, list_idx, SPLITS),
    PathKind("WebDataset's shards, a .tar of samples or a folder of them", is_shards, list_shards, COLUMNS),
    PathKind(
        "an archive (.zip, .tar, .tar.gz, .tar.bz2, .tar.xz) of any of these",
        is_archive,
        lambda path, config: list_archive(path, config, list_path),
        READING,  # of what it holds
    ),
    PathKind(
        "the official CIFAR folder",
        lambda path: find_cifar_folder(path) is not None,
        lambda path, config: list_cifar_folder(path),
    ),
    PathKind(
        "a folder that `datasets` saved", is_saved_dataset, lambda path, config: list_hub(str(path), config), TABLES
    ),
    PathKind(
        "Parquet, a file or a folder of them",
        lambda path: bool(parquet_files(path)),
        list_parquet,
        LISTS,
    ),
    PathKind("arrays of NumPy, an .npz or .npy file or a folder of them", is_array_file, list_arrays, COLUMNS),
    PathKind(
        "MATLAB files as SVHN's, a .mat file or a folder of them", lambda path: bool(mat_files(path)), list_mat, SPLITS
    ),
    PathKind(
        "a list of image files (CSV, TSV, JSON Lines), or a folder of lists",
        lambda p: bool(list_files(p)),
        list_lists,
        LISTS,
    ),
    PathKind("a folder of class folders with images", Path.is_dir, list_image_folder, SPLITS | {"class_folders"}),
)


def list_source(config: DataConfig) -> Listing:
    """The splits, classes and labels of data.source, nothing decoded, read as the other settings of [data] say.

    Raises UsageError for a source that is neither a known name nor an existing path, and PatchlightError for one that
    cannot be used.
    """
    source = config.source
    if source in SOURCES:
        check_applies(config, SOURCES[source].takes, SOURCES[source].about)
        listing = SOURCES[source].listing(config)
        if not is_there(Path(source)):
            return listing
        return replace(listing, notes=(*listing.notes, f"{source} is the built-in set; ./{source} is your own folder"))
    if source.startswith("hf:"):
        if not source.removeprefix("hf:").strip():
            raise UsageError("hf: names no data set; write hf:owner/name, as on the Hugging Face hub")
        check_applies(config, TABLES, "a data set of the hub")
        return list_hub(source.removeprefix("hf:"), config)
    path = user_path(source)
    if not is_there(path):
        raise UsageError(_unknown(source))
    if not (path.is_file() or path.is_dir()):
        raise UsageError(f"{path} is a pipe, a device or a socket; copy what it gives into a file and name that")
    return list_path(path, config)


def list_path(path: Path, config: DataConfig) -> Listing:
    """The listing of what is at a path that exists: the first kind that it can be. Raises as `list_source` does."""
    try:
        for kind in PATH_KINDS:
            if kind.matches(path):
                check_applies(config, kind.takes, kind.about)
                listing = fenced(kind.listing(path, config), [path if path.is_dir() else path.parent], config, path)
                return _with_folders(listing, path, kind)
    except OSError as error:
        raise PatchlightError(f"cannot read {error.filename or path}: {error.strerror}") from error
    raise UsageError(what_to_do(path))


def _with_folders(listing: Listing, path: Path, kind: PathKind) -> Listing:
    """The listing, with what is to be said of class folders at the path where it is of another kind."""
    if not path.is_dir() or "class_folders" in kind.takes:
        return listing
    if kind.listing is list_lists:
        return with_folders_around(listing)
    return with_folders_beside(listing, path, kind.about)


def check_applies(config: DataConfig, takes: frozenset[str], about: str) -> None:
    """Raises UsageError for a setting that says how a source is read and is not about one of this kind."""
    for name in sorted(READING - takes):
        if getattr(config, name) is not None:
            raise UsageError(f"data.{name} says nothing of {config.source}, which is {about}; leave it out")


def read_source(config: DataConfig, fallback_size: int | None = None, *, trained: bool = False) -> dict[str, ImageSet]:
    """The splits that data.source has, under "train", "val" and "test"; at least one of them, "train" as a rule.

    `fallback_size` and `trained` are as `decode_listing` takes them. Sets that take more than data.memory_limit_mb
    decoded are memory-mapped from the cache folder. Raises as `list_source` does, and PatchlightError where images
    cannot be decoded, naming the first and counting them, or where more than data.max_left_out of them would not be
    used.
    """
    return read_listing(list_source(config), config, fallback_size, trained=trained)


def read_given(
    data: Any, config: DataConfig, fallback_size: int | None = None, *, trained: bool = False
) -> dict[str, ImageSet]:
    """`read_source` of images that are given in Python (`given.py` says what they may be)."""
    return read_listing(list_given(data, config), config, fallback_size, trained=trained)


def read_listing(
    listing: Listing, config: DataConfig, fallback_size: int | None = None, *, trained: bool = False
) -> dict[str, ImageSet]:
    """The image sets of a listing, unless too much of it would be left out. Raises as `read_source` does."""
    if sentence := listing.too_much_left_out(config.max_left_out):
        raise PatchlightError(f"{named(config.source)}: {sentence}")
    return decode_listing(listing, config, fallback_size, trained=trained)


def load_source(source: str, *, fallback_size: int | None = None, **settings: Any) -> dict[str, ImageSet]:
    """`read_source` of a source, with settings of [data] by their names: `load_source("pets", image_size=64)`.

    Without `image_size` images keep the size that all share when it is a square, and are fitted to `fallback_size`
    otherwise (None is 32), which the sets' notes report. Raises as `read_source` does, and TypeError for a setting that
    does not exist.
    """
    return read_source(DataConfig(source=source, **settings), fallback_size)


def with_label(config: DataConfig, column: str) -> DataConfig:
    """The settings with this label column, where they name none."""
    return replace(config, label_column=config.label_column or column)


def _unknown(source: str) -> str:
    looks_like_path = (
        source.startswith((".", "~")) or any(sep in source for sep in ("/", os.sep)) or Path(source).suffix
    )
    if looks_like_path:
        return f"there is no folder or file '{source}' (a data set of the Hugging Face hub is written hf:owner/name)"
    nearest = did_you_mean(source.lower(), SOURCES.keys() - {GIVEN})  # which nobody can name
    return f"unknown data source '{source}' (nor is it a path or hf:owner/name); {nearest}"
