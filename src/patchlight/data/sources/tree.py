"""A folder as it lies on the disk: in each of its folders the images, by their content, and what else is there.

A file with the suffix of a usual image format is taken for an image; whether it is one, decoding will say. A file with
another suffix is one where Pillow knows its beginning. All others are sorted by what they are, so that it can be said
what was left out.
"""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from patchlight.data.decode import DAMAGE
from patchlight.data.heif import open_file
from patchlight.data.kinds import HEAD, NOT_DECODED, UNREADABLE, is_text, words_for
from patchlight.data.listing import LeftOut
from patchlight.data.sources.fence import Fence
from patchlight.errors import PatchlightError
from patchlight.paths import is_there, shortened
from patchlight.units import counted

SUFFIXES = frozenset(".jpg .jpeg .jpe .jfif .png .webp .avif .jp2 .bmp .tif .tiff .gif .ppm .pgm .pbm .tga".split())

# Folders and files that systems and programs make; with hidden ones they are no data.
JUNK = frozenset({"__MACOSX", "@eaDir", "__pycache__", "Thumbs.db", "desktop.ini", "Icon\r", "$RECYCLE.BIN"})

LINK = "links to files that are not there (fetch them first, as with `git annex get` or `dvc pull`)"
HIDDEN = "hidden images, or images that a system made"
OTHER = "files that are no images"
OUTSIDE = "links that lead out of the folder (what they lead to can be named itself)"
AGAIN = "links to folders whose images are taken where they lie"
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

DEEPEST = 100  # folders in each other
LONGEST_RECIPE = 2**20  # letters, in which its sections stand

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


def scan(root: Path, outside: bool = False) -> Tree:
    """Read the folder and all folders below.

    Each real folder is read once, so that links that lead to each other in a circle come to an end: first all that lie
    here, then those that only links lead to. A link to a folder that is read already, and one that leads out of the
    root, unless `outside` takes these, stand among the others. Raises OSError for a folder that cannot be read, and
    PatchlightError where folders are nested too deep.
    """
    walk = _Walk(Fence([root]) if not outside else None)
    tree = walk.read(root, 0)
    while walk.links:
        inside, path, depth = walk.links.popleft()
        if (before := walk.read_before.get(os.path.realpath(path))) is not None:
            walk.again.append((inside, path, before))
        elif walk.leads_out(path):
            inside.add_other(OUTSIDE, path)
        else:
            inside.folders.append(walk.read(path, depth))
    for inside, path, before in walk.again:
        if before.has_images:
            inside.add_other(AGAIN, path)
    _take_own_out(tree)
    return tree


class _Walk:
    """What a walk over folders has read, by real path, and the links to folders that it comes back to."""

    def __init__(self, fence: Fence | None) -> None:
        self.fence = fence
        self.read_before: dict[str, Tree] = {}
        self.links: deque[tuple[Tree, Path, int]] = deque()  # the folder that it lies in, the link, how deep
        self.again: list[tuple[Tree, Path, Tree]] = []  # the same, and what it leads to

    def leads_out(self, path: Path) -> bool:
        return self.fence is not None and not self.fence.holds(path)

    def read(self, root: Path, depth: int) -> Tree:
        """A folder and the real folders in it."""
        if depth > DEEPEST:
            raise PatchlightError(
                f"{shortened(root)}: folders are nested more than {DEEPEST} deep; give the folder that holds the images"
            )
        tree = self.read_before[os.path.realpath(root)] = Tree(root)
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
                _sort_in(tree, entry, path, self.leads_out)
            elif is_junk(entry.name):
                for hidden in _images_below(path):
                    tree.add_other(HIDDEN, hidden)
            elif entry.is_symlink():
                self.links.append((tree, path, depth + 1))
            elif (before := self.read_before.get(os.path.realpath(path))) is not None:
                self.again.append((tree, path, before))  # what a link leads to may lie around the root
            else:
                tree.folders.append(self.read(path, depth + 1))
        return tree


def _take_own_out(tree: Tree) -> None:
    """Sort the folders, and take those out that Patchlight wrote; their pictures are told of where they lie."""
    if tree.is_own:
        return
    tree.folders.sort(key=lambda folder: folder.name)
    for folder in tree.folders:
        _take_own_out(folder)
        if folder.is_own:
            for reason, paths in folder.others.items():
                tree.others.setdefault(reason, []).extend(paths)
    holds_own = OWN in tree.others or any(folder.is_own for folder in tree.folders)
    tree.is_own = holds_own and not tree.images and all(folder.is_own for folder in tree.folders)
    tree.folders = [folder for folder in tree.folders if not folder.is_own]


def _is_own(folder: Path, names: set[str]) -> bool:
    """Whether a folder of these files is a run, whose settings are a recipe's, or an explanation."""
    if not any(own <= names for own in OWN_FOLDERS):
        return False
    if RUN not in names:
        return True
    if not (folder / RUN).is_file():  # reading a pipe or a device would not end
        return False
    with (folder / RUN).open(encoding="utf-8", errors="replace") as recipe:
        return "[data]" in recipe.read(LONGEST_RECIPE)


def _sort_in(tree: Tree, entry: os.DirEntry[str], path: Path, leads_out: Callable[[Path], bool]) -> None:
    """A file among the tree's images, or among its others by the reason."""
    suffix = path.suffix.lower()
    if is_junk(entry.name):
        if suffix in SUFFIXES:
            tree.add_other(HIDDEN, path)
    elif not entry.is_file():
        tree.add_other(LINK if _is_dead(path, entry) else OTHER, path)
    elif suffix not in SUFFIXES and (suffix in LISTS or SPLIT_LIST.search(entry.name)):
        tree.add_other(LISTED, path)
    elif suffix not in SUFFIXES and (reason := reason_against(path)):
        tree.add_other(reason, path)
    elif entry.is_symlink() and leads_out(path):
        tree.add_other(OUTSIDE, path)
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
        LeftOut(reason, len(paths), str(paths[0]), expected=reason in (OTHER, HIDDEN, LISTED, OWN, AGAIN))
        for reason, paths in sorted(others.items())
        if paths
    ]


def _pillow_knows(path: Path) -> bool:
    try:
        with open_file(path) as image:
            return image.format not in NOT_DECODED
    except DAMAGE:
        return False


def _is_dead(path: Path, entry: os.DirEntry[str]) -> bool:
    """Whether it is a link to nothing; one to a device or a pipe leads somewhere, and is no image."""
    return entry.is_symlink() and not is_there(path)


def _images_below(root: Path) -> list[Path]:
    """The files below a folder that are called as images; links to folders are not followed, nor what is too deep."""
    found = list[Path]()
    for place, folders, files in os.walk(root):
        here = Path(place)
        if len(here.parts) - len(root.parts) >= DEEPEST:
            folders.clear()
        found += [here / name for name in files if Path(name).suffix.lower() in SUFFIXES]
    return sorted(path for path in found if path.is_file())
