"""Class folders with images beside what is read as the source, or around it: what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from patchlight.config import DataConfig
from patchlight.data.listing import LeftOut, Listing
from patchlight.data.names import PADDING, SPLIT_WORDS, words_of
from patchlight.data.sources.layout import understand
from patchlight.data.sources.tree import scan
from patchlight.errors import PatchlightError, first_of


def with_folders_beside(listing: Listing, root: Path, about: str) -> Listing:
    """The listing of another kind of source in the folder `root`, with the images of class folders there as left out.

    Where the listing's images are files themselves, nothing is.
    """
    try:
        layout = understand(scan(root), DataConfig(source=str(root)))
    except PatchlightError:
        return listing
    images = [path for classes in layout.splits.values() for paths in classes.values() for path in paths]
    if len({name for classes in layout.splits.values() for name in classes}) < 2 or _is_of_files(listing):
        return listing
    kind = about.split(",")[0]
    reason = (
        f"images in class folders, as the source is read as {kind} (name its file, or the folder of the images, as the "
        "source)"
    )
    return replace(listing, left_out=(*listing.left_out, LeftOut(reason, len(images), str(min(images)))))


def with_folders_around(listing: Listing) -> Listing:
    """The listing of lists, with a note where its images lie in folders that look like classes and are not theirs."""
    folders, differ = set[str](), False
    for split in listing.splits.values():
        for (_, path), label in zip(split.items(), split.labels.tolist(), strict=True):
            if isinstance(path, Path) and not set(words_of(path.parent.name)) <= PADDING | SPLIT_WORDS.keys():
                folders.add(path.parent.name)
                differ |= path.parent.name != listing.class_names[label]
    if len(folders) < 2 or not differ:
        return listing
    note = (
        f"the labels are those of the list; the folders {first_of(sorted(folders), 4)} that its images lie in are not "
        "the classes"
    )
    return replace(listing, notes=(*listing.notes, note))


def _is_of_files(listing: Listing) -> bool:
    first = next((item for split in listing.splits.values() for item in split.items()), None)
    return first is not None and isinstance(first[1], Path)
