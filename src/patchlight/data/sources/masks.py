"""Masks beside the images that they are of: a folder `masks` beside `images`, or `a_mask.png` beside `a.png`."""

from __future__ import annotations

import re
from pathlib import Path

from patchlight.data.names import PADDING, words_of
from patchlight.data.sources.tree import Tree

IMAGES = frozenset("image images img imgs photos".split())
MASKS = frozenset("mask masks trimap trimaps annotation annotations segmentation segmentations groundtruth gt".split())
MASK_FILE = re.compile(r"(.+?)[\s_.-]+(mask|trimap|segmentation|groundtruth|gt)s?([\s_.-]*\d+)?", re.IGNORECASE)


def without_masks(tree: Tree) -> list[Path]:
    """Take the masks out of a folder and all below; gives them.

    A folder is one of masks by its name, where beside it images are in a folder that is called so, and in no other.
    """
    masks = _of_files(tree)
    named = {folder.name: folder for folder in tree.filled}
    of_masks = [folder for name, folder in named.items() if _are_masks(name)]
    of_images = [name for name in named if name.lower() in IMAGES]
    if of_images and of_masks and len(of_images) + len(of_masks) == len(named):
        for folder in of_masks:
            masks += folder.all_images()
            tree.folders.remove(folder)
            for reason, paths in folder.all_others().items():  # lists may be among them
                tree.others.setdefault(reason, []).extend(paths)
    for folder in tree.folders:
        masks += without_masks(folder)
    return masks


def _are_masks(name: str) -> bool:
    words = set(words_of(name)) - PADDING
    return bool(words) and (words <= MASKS | {"label", "labels"} or words == {"ground", "truth"})


def _of_files(tree: Tree) -> list[Path]:
    """The masks among a folder's images, which are taken out of these."""
    stems = {path.stem for path in tree.images}
    matches = {path: MASK_FILE.fullmatch(path.stem) for path in tree.images}
    masks = [path for path, match in matches.items() if match and match[1] in stems]
    found = set(masks)
    tree.images = [path for path in tree.images if path not in found]
    return masks
