"""Folders of image files: ROOT/CLASS/*.png, and the other ways in which people lay such folders out.

What a layout means is understood where it can mean one thing only, and said; where it can mean two, it is an error that
lists both. `layout.py` decides; this file makes a listing of what it found.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from patchlight.config import DataConfig
from patchlight.data.decode import Encoded
from patchlight.data.listing import Listing, RawSplit
from patchlight.data.sources.fence import refusal
from patchlight.data.sources.layout import Classes, Layout, understand
from patchlight.data.sources.refusals import detection, empty_classes
from patchlight.data.sources.tree import OUTSIDE, Tree, left_out_of, scan
from patchlight.errors import PatchlightError
from patchlight.units import counted


def list_image_folder(root: Path, config: DataConfig) -> Listing:
    """The listing of a folder of class folders, or of split folders that hold class folders.

    Classes are the union over all splits, sorted by name; files are sorted by name. Raises PatchlightError where the
    folder holds no class folders, a class folder no image, or the layout can mean more than one thing.
    """
    tree = scan(root, config.outside_paths)
    if links := tree.all_others().get(OUTSIDE, []):
        total = len(links) + len(tree.all_images())
        raise PatchlightError(refusal(config, links[0], len(links), counted(total, "file or link", "files and links")))
    try:
        return _listing(tree, understand(tree, config))
    except PatchlightError as error:
        error.args = (f"{error}{detection(tree)}",)
        raise


def _listing(tree: Tree, layout: Layout) -> Listing:
    names = sorted({name for classes in layout.splits.values() for name in classes})
    splits = {key: classes for key, classes in layout.splits.items() if any(classes.values())}
    if empty := [name for name in names if not any(classes.get(name) for classes in splits.values())]:
        raise PatchlightError(empty_classes(tree, empty, layout.empty.get(empty[0], "nothing")))
    notes = list(layout.notes)
    left_out = layout.left_out + left_out_of(tree.all_others())
    left_out.sort(key=lambda each: each.expected)
    return Listing(
        {key: _split(classes, names) for key, classes in splits.items()},
        tuple(names),
        notes=tuple(notes),
        left_out=tuple(left_out),
        files=tuple(layout.files),
    )


def _split(classes: Classes, names: list[str]) -> RawSplit:
    files = [(path, label) for label, name in enumerate(names) for path in classes.get(name, [])]

    def items() -> Iterator[tuple[str, Encoded]]:
        return ((str(path), path) for path, _ in files)

    return RawSplit(np.array([label for _, label in files], dtype=np.int64), items)
