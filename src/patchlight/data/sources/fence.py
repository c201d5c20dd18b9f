"""The folder of a data set as a fence: what the set names by paths and links must lie in it.

A data set may come from anyone, and a path in its list or table, or a link in its folder, may lead to `../private.png`
or to somebody's home folder. Such files would be trained on and shown on the page that is passed on. So each file of a
source is held against the folder that the user named, after `..` and all links are followed, when it is read;
data.outside_paths takes the fence away.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from patchlight.config import DataConfig
from patchlight.data.decode import Encoded
from patchlight.data.listing import Listing, RawSplit, named
from patchlight.errors import PatchlightError
from patchlight.paths import is_folder, printable
from patchlight.units import counted

# Where tools keep the contents of the files that they put as links: of a download of the hub, of git-annex and of DVC.
# A folder right beside the data set, or beside one that it lies in.
STORES = (".git/annex/objects", ".dvc/cache")
HUB = ("snapshots", "blobs")


class Fence:
    """Some folders, and whether a file really lies in one of them."""

    def __init__(self, folders: Iterable[Path]) -> None:
        real = [os.path.realpath(folder) for folder in folders]
        real += [store for folder in real for store in _stores(Path(folder))]
        self._inside = tuple(f"{folder.rstrip(os.sep)}{os.sep}" for folder in dict.fromkeys(real))
        self._real: dict[str, str] = {}  # of folders, since many files lie in one

    def holds(self, path: str | Path) -> bool:
        """Whether the file or folder lies in one of the folders, or is one, after all links."""
        try:
            return f"{self._realpath(str(path))}{os.sep}".startswith(self._inside)
        except (OSError, ValueError):  # no file can have such a name, and reading it says so
            return True

    def _realpath(self, path: str) -> str:
        if os.path.islink(path):  # noqa: PTH114 (these are asked of every file, and pathlib is slower)
            return os.path.realpath(path)
        folder, name = os.path.split(path)
        if name in ("", ".", ".."):
            return os.path.realpath(path)
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        return os.path.join(self._real[folder], name)  # noqa: PTH118


def _stores(folder: Path) -> Iterator[str]:
    """The stores of tools around a folder, those alone that are real folders where they stand."""
    for above in (folder, *folder.parents):
        for store in STORES:
            if os.path.realpath(above / store) == str(above / store) and is_folder(above / store):
                yield str(above / store)
        blobs = above.with_name(HUB[1]) if above.name == HUB[0] else None
        if blobs is not None and os.path.realpath(blobs) == str(blobs):
            yield str(blobs)


def fenced(listing: Listing, folders: Iterable[Path], config: DataConfig, source: Path | None = None) -> Listing:
    """The listing, whose walks raise PatchlightError where an image is a file outside of the folders and of those that
    the listing names. The path of the `source` itself is the user's own choice.

    Raises PatchlightError at once for a file of many images outside of them.
    """
    if config.outside_paths:
        return listing
    fence = Fence((*folders, *listing.folders))
    if outside := [path for path in listing.files if path != source and not fence.holds(path)]:
        raise PatchlightError(refusal(config, outside[0], len(outside), counted(len(listing.files), "file")))
    return replace(listing, splits={key: _fenced(split, fence, config) for key, split in listing.splits.items()})


def _fenced(split: RawSplit, fence: Fence, config: DataConfig) -> RawSplit:
    def walk() -> Iterator[tuple[str, Encoded]]:
        for name, encoded in split.items():
            if isinstance(encoded, Path) and not fence.holds(encoded):
                outside = sum(isinstance(each, Path) and not fence.holds(each) for _, each in split.items())
                raise PatchlightError(refusal(config, encoded, outside, counted(len(split.labels), "image"), name))
            yield name, encoded

    return replace(split, items=walk)


def refusal(config: DataConfig, path: Path, count: int, total: str, name: str = "") -> str:
    """The sentence for files that lie outside: how many they are, the first, where it is, and what to do."""
    real = os.path.realpath(path)
    first = printable(name or path)
    where = "" if first == printable(real) else f", which is {printable(real)}"
    lie = "lies" if count == 1 else "lie"
    return (
        f"{named(config.source)}: {count:,} of {total} {lie} outside the folder of the data set, by a "
        f"path or a link: {first}{where}; put them into the folder, or set data.outside_paths = true if you trust the "
        "data set"
    )
