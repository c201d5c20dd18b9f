"""A folder as it lies on the disk: in each of its folders the images, by their content, and what else is there.

A file with the suffix of a usual image format is taken for an image; whether it is one, decoding will say. A file with
another suffix is one where Pillow knows its beginning. All others are sorted by what they are, so that it can be said
what was left out.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from patchlight.data.decode import DAMAGE
from patchlight.data.heif import open_file
from patchlight.data.kinds import HEAD, UNREADABLE, is_text, words_for
from patchlight.data.listing import LeftOut
from patchlight.units import counted

SUFFIXES = frozenset(".jpg .jpeg .jpe .jfif .png .webp .avif .jp2 .bmp .tif .tiff .gif .ppm .pgm .pbm .tga".split())

# Folders and files that systems and programs make; with hidden ones they are no data.
JUNK = frozenset({"__MACOSX", "@eaDir", "__pycache__", "Thumbs.db", "desktop.ini", "Icon\r", "$RECYCLE.BIN"})

LINK = "links to files that are not there (fetch them first, as with `git annex get` or `dvc pull`)"
HIDDEN = "hidden images, or images that a system made"
OTHER = "files that are no images"
LISTED = "lists, which are not read (one that has labels or splits can be the source)"
LISTS = frozenset(".csv .tsv .jsonl .ndjson".split())

# What Patchlight itself writes, perhaps into the folder that it reads: runs, explanations, and the pictures of
# `patchlight data`.
OWN = "pictures that Patchlight wrote"
RUN = "config.toml"
OWN_FOLDERS = (
    *({RUN, beside} for beside in ("environment.json", "metrics.jsonl", "checkpoints")),
    {"explanation.json", "maps.npz"},
)
PREVIEWS = frozenset("class_balance.png samples.png augmentation.png first_batch.png".split())
NOT_ALWAYS_THERE = "near_copies.png"

SPLIT_LIST = re.compile(r"(^|[-_])(train|test|val|valid|validation|split)\w*\.txt$", re.IGNORECASE)


@dataclass
class Tree:
    """A folder: its images and folders, sorted by name, and by reason its other files.

    Junk, hidden folders and what Patchlight wrote are not in it; the images in them are counted in `others`.
    """

    path: Path
    images: list[Path] = field(default_factory=list)
    folders: list[Tree] = field(default_factory=list)
    others: dict[str, list[Path]] = field(default_factory=dict)
    is_own: bool = False  # whether Patchlight wrote it, or all that it could be about

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    def walk(self) -> Iterator[Tree]:
        """This folder and all below."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def all_images(self) -> list[Path]:
        """The images here and in all folders below."""
        return [path for tree in self.walk() for path in tree.images]

    @property
    def has_images(self) -> bool:
        """Whether there is an image here or below."""
        return any(tree.images for tree in self.walk())

    @property
    def filled(self) -> list[Tree]:
        """The folders right below that hold images, at any depth."""
        return [folder for folder in self.folders if folder.has_images]

    def add_other(self, reason: str, path: Path) -> None:
        self.others.setdefault(reason, []).append(path)

    def all_others(self) -> dict[str, list[Path]]:
        """The other files here and in all folders below, by reason."""
        found: dict[str, list[Path]] = {}
        for tree in self.walk():
            for reason, paths in tree.others.items():
                found.setdefault(reason, []).extend(paths)
        return found

    def contents(self) -> str:
        """What is here and below beside images, in words: "12 .npy files, 3 folders"; "nothing" for an empty folder."""
        others = self.all_others()
        plain = [*others.pop(OTHER, []), *others.pop(LISTED, [])]
        suffixes = Counter(path.suffix.lower() or "other" for path in plain)
        words = [words_for(len(paths), reason) for reason, paths in others.items() if paths]
        most = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))[:5]
        words += [counted(count, f"{kind} file") for kind, count in most]
        words += [counted(len(self.folders), "folder")] if self.folders else []
        return ", ".join(words) or "nothing"


def scan(root: Path, above: frozenset[str] = frozenset()) -> Tree:
    """Read the folder and all folders below. A link to a folder that it lies in is not followed. Raises OSError for a
    folder that cannot be read.
    """
    tree = Tree(root)
    here = above | {os.path.realpath(root)}
    with os.scandir(root) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    names = {entry.name for entry in found}
    if _is_own(root, names):
        tree.is_own, tree.others = True, {OWN: _images_below(root)}
        return tree
    own_pictures = PREVIEWS | {NOT_ALWAYS_THERE} if names >= PREVIEWS else frozenset()
    for entry in found:
        path = root / entry.name
        if entry.name in own_pictures:
            tree.add_other(OWN, path)
        elif not entry.is_dir():
            _sort_in(tree, entry, path)
        elif os.path.realpath(path) not in here:
            _add_folder(tree, path, here)
    holds_own = OWN in tree.others or any(folder.is_own for folder in tree.folders)
    tree.is_own = holds_own and not tree.images and all(folder.is_own for folder in tree.folders)
    tree.folders = [folder for folder in tree.folders if not folder.is_own]
    return tree


def _is_own(folder: Path, names: set[str]) -> bool:
    """Whether a folder of these files is a run, whose settings are a recipe's, or an explanation."""
    if not any(own <= names for own in OWN_FOLDERS):
        return False
    return RUN not in names or "[data]" in (folder / RUN).read_text(encoding="utf-8", errors="replace")


def _add_folder(tree: Tree, path: Path, above: frozenset[str]) -> None:
    if is_junk(path.name):
        for hidden in _images_below(path):
            tree.add_other(HIDDEN, hidden)
        return
    folder = scan(path, above)
    tree.folders.append(folder)
    if folder.is_own:
        for reason, paths in folder.others.items():
            tree.others.setdefault(reason, []).extend(paths)


def _sort_in(tree: Tree, entry: os.DirEntry[str], path: Path) -> None:
    """A file among the tree's images, or among its others by the reason."""
    suffix = path.suffix.lower()
    if is_junk(entry.name):
        if suffix in SUFFIXES:
            tree.add_other(HIDDEN, path)
    elif not entry.is_file():
        tree.add_other(LINK if entry.is_symlink() else OTHER, path)
    elif suffix in SUFFIXES:
        tree.images.append(path)
    elif suffix in LISTS or SPLIT_LIST.search(entry.name):
        tree.add_other(LISTED, path)
    elif reason := reason_against(path):
        tree.add_other(reason, path)
    else:
        tree.images.append(path)


def is_junk(name: str) -> bool:
    """Whether a folder or file is hidden, or made by a system or a program."""
    return name.startswith(".") or name in JUNK


def reason_against(path: Path) -> str | None:
    """Why a file is no image, as LeftOut words it; None where Pillow knows its content. Raises OSError."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    for kind in UNREADABLE:
        if kind.matches(path.suffix.lower(), head):
            return None if "HEIC" in kind.about and _pillow_knows(path) else kind.about
    if not head or (is_text(head) and not head.startswith((b"P", b"#define", b"/* XPM", b"SIMPLE"))):
        return OTHER
    return None if _pillow_knows(path) else OTHER


def left_out_of(others: dict[str, list[Path]]) -> list[LeftOut]:
    """The other files as what is left out, those that can hold no images as expected."""
    return [
        LeftOut(reason, len(paths), str(paths[0]), expected=reason in (OTHER, HIDDEN, LISTED, OWN))
        for reason, paths in sorted(others.items())
        if paths
    ]


def _pillow_knows(path: Path) -> bool:
    try:
        with open_file(path) as image:
            return image.format not in ("MPEG", "EPS", "WMF", "GRIB", "HDF5", "BUFR")  # known, and not decoded
    except (UnidentifiedImageError, *DAMAGE, Image.DecompressionBombError, Image.DecompressionBombWarning):
        return False


def _images_below(root: Path) -> list[Path]:
    try:
        found = [path for path in root.rglob("*") if path.suffix.lower() in SUFFIXES]
    except OSError:
        return []
    return sorted(path for path in found if path.is_file())
