"""What a recipe's `data.source` may be, and the way from it to image sets.

SOURCES are the names; PATH_KINDS is what may be at a path, in the order in which it is looked for. `hf:owner/name` is
any data set of the Hugging Face hub. A name wins over a folder that is called the same; `./digits` is the folder.

To add a source, write a file that makes a `Listing`, and its row here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from patchlight.config.sections import Interpolation
from patchlight.data.images import ImageSet
from patchlight.data.listing import Listing, decode_listing
from patchlight.data.sources.cifar import find_cifar_folder, list_cifar_archive, list_cifar_folder
from patchlight.data.sources.digits import list_digits
from patchlight.data.sources.folders import list_image_folder
from patchlight.data.sources.planted import list_planted
from patchlight.data.sources.tables import is_saved_dataset, list_hub, list_parquet, parquet_files
from patchlight.errors import PatchlightError, UsageError, did_you_mean


@dataclass(frozen=True)
class NamedSource:
    """A source that is the same for everyone."""

    about: str
    listing: Callable[[], Listing]
    train_images: int | None = None  # images to train on, those to validate with among them, where that is known


@dataclass(frozen=True)
class PathKind:
    """What may be at a path: `matches` looks without reading much, `listing` reads it."""

    about: str
    matches: Callable[[Path], bool]
    listing: Callable[[Path], Listing]


SOURCES: dict[str, NamedSource] = {
    "digits": NamedSource("1,797 handwritten digits that come with scikit-learn, at 32 x 32", list_digits, 1438),
    "planted": NamedSource("7,200 made-up images, in each one known patch decides the label", list_planted, 6000),
    "cifar10": NamedSource("CIFAR-10 from the Hugging Face hub", partial(list_hub, "uoft-cs/cifar10"), 50_000),
    "cifar100": NamedSource(
        "CIFAR-100, fine labels, from the Hugging Face hub", partial(list_hub, "uoft-cs/cifar100"), 50_000
    ),
}

TRAIN_IMAGES = {name: source.train_images for name, source in SOURCES.items() if source.train_images is not None}

PATH_KINDS: tuple[PathKind, ...] = (
    PathKind(
        "the official CIFAR archive (.tar.gz)",
        lambda path: path.is_file() and path.suffix in (".gz", ".tgz", ".tar"),
        list_cifar_archive,
    ),
    PathKind("the official CIFAR folder", lambda path: find_cifar_folder(path) is not None, list_cifar_folder),
    PathKind("a folder that `datasets` saved", is_saved_dataset, lambda path: list_hub(str(path))),
    PathKind("Parquet, a file or a folder of them", lambda path: bool(parquet_files(path)), list_parquet),
    PathKind("a folder of class folders with images", Path.is_dir, list_image_folder),
)


def list_source(source: str) -> Listing:
    """A source's splits, classes and labels, nothing decoded.

    Raises UsageError for a source that is neither a known name nor an existing path, and PatchlightError for one that
    cannot be used.
    """
    if source in SOURCES:
        return SOURCES[source].listing()
    if source.startswith("hf:"):
        return list_hub(source.removeprefix("hf:"))
    path = Path(source).expanduser()
    if not path.exists():
        raise UsageError(_unknown(source))
    try:
        for kind in PATH_KINDS:
            if kind.matches(path):
                return kind.listing(path)
    except OSError as error:
        raise PatchlightError(f"cannot read {error.filename or path}: {error.strerror}") from error
    raise UsageError(f"{path} is a file that is no data source; known are {', '.join(k.about for k in PATH_KINDS)}")


def load_source(
    source: str,
    *,
    image_size: int | None = None,
    memory_limit_mb: int = 64,
    fallback_size: int | None = None,
    interpolation: Interpolation = "bicubic",
) -> dict[str, ImageSet]:
    """The splits that a source has, under "train", "val" and "test"; at least one of them, "train" as a rule.

    `image_size` is pixels a side; None keeps the size that all images share when it is a square, and fits them to
    `fallback_size` otherwise (None is 32), which the sets' notes report. `interpolation` is how images of another size
    are resized. Sets that take more than `memory_limit_mb`
    decoded are memory-mapped from the cache folder. Raises as `list_source` does, and PatchlightError where images
    cannot be decoded, naming the first and counting them.
    """
    return decode_listing(list_source(source), source, image_size, memory_limit_mb, fallback_size, interpolation)


def _unknown(source: str) -> str:
    looks_like_path = (
        source.startswith((".", "~")) or any(sep in source for sep in ("/", os.sep)) or Path(source).suffix
    )
    if looks_like_path:
        return f"there is no folder or file '{source}' (a data set of the Hugging Face hub is written hf:owner/name)"
    return f"unknown data source '{source}' (nor is it a path or hf:owner/name); {did_you_mean(source, SOURCES)}"
