"""What is said of a folder whose layout means nothing, or no classes: what it looks like, and what to do."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from patchlight.data.members import ARCHIVE
from patchlight.data.names import split_of, words_of
from patchlight.data.sources.tree import LISTS, OWN, Tree
from patchlight.errors import first_of
from patchlight.units import counted

# What the parts of a set that was cut into pieces are called, with a number behind it.
PARTS = frozenset("part image img batch chunk shard set split fold".split())
# Folders beside each other, and a file, that sets for detection have: those of VOC, YOLO and COCO.
DETECTION = tuple(map(frozenset, (("annotations", "jpegimages"), ("annotations", "imagesets"), ("images", "labels"))))
COCO = re.compile(r"^(annotations|instances_.*|.*\bcoco)\.json$", re.IGNORECASE)
NUMBERED = re.compile(r"(.*?)[\W_]*\d+")


def some(names: Iterable[str]) -> str:
    """The first four, and how many more."""
    return first_of(names, 4)


def no_images(tree: Tree) -> str:
    """A folder without images."""
    if tree.is_own and tree.all_others().keys() <= {OWN}:
        wrote = "what Patchlight wrote (runs, explanations, previews)"
        return f"{tree.path} holds nothing but {wrote}; give a folder of images"
    contents = tree.contents()
    expected = f"expected {tree.name}/CLASS/*.png, {tree.name}/train/CLASS/*.png, or another source of docs/data.md"
    if lists := lists_in(*tree.walk()):
        expected = (
            f"if {lists[0].name} lists images that lie elsewhere, with their labels, give it as the source: "
            f"data.source = '{lists[0]}'"
        )
    packed = [p for paths in tree.others.values() for p in paths if ARCHIVE.search(p.name)]
    if packed:
        expected = f"give an archive as the source, such as {packed[0]}, or unpack them here"
    return (
        f"{tree.path} holds no image but {contents}; {expected}"
        if contents != "nothing"
        else (f"{tree.path} is empty; {expected}")
    )


def lists_in(*trees: Tree) -> list[Path]:
    """Files that may say the labels of images beside them, those of training first."""
    kinds = LISTS | {".parquet"}
    found = [p for tree in trees for paths in tree.others.values() for p in paths if p.suffix.lower() in kinds]
    return sorted(
        (path for path in found if "submission" not in path.stem.lower()), key=lambda path: not _of_train(path)
    )


def _of_train(path: Path) -> bool:
    return "train" in (split_of(path.stem)[0], split_of(path.parent.name)[0])


def no_classes(tree: Tree) -> str:
    """What a folder without class folders looks like, and what to do."""
    images = tree.all_images()
    lists = lists_in(*tree.walk())
    example = images[0].relative_to(tree.path)
    looks = f"{tree.path} has {counted(len(images), 'image')} in no or one class folder, as {example}"
    return f"{looks}; labels are missing: {_from_list(lists)}"


def flat_splits(top: Tree, named: list[Tree]) -> str:
    """Split folders, none of which has class folders."""
    lists = lists_in(top, *named)
    names = some(sorted(folder.name for folder in named))
    looks = f"{top.path}: {names} look like splits, but have no class folders in them"
    example = next((folder.name for folder in named if split_of(folder.name)[0] == "train"), named[0].name)
    return f"{looks}; {_from_list(lists, f', as in {example}/CLASS/*.png')}"


def flat_split(top: Tree, split: Tree, key: str) -> str:
    """A split that a setting names and that has no class folders."""
    lists = sorted(lists_in(top, split), key=lambda path: path.stem != split.name)
    listed = ""
    if lists:
        listed = f" (if {lists[0].name} has their labels, a list of all images with a column split can be the source)"
    return (
        f"{split.path}: the images of data.{key}_split = '{split.name}' lie in no class folders; put those of each "
        f"class into a folder of its own{listed}, or leave data.{key}_split out"
    )


def empty_classes(tree: Tree, empty: list[str], contents: str) -> str:
    """Class folders without images; `contents` is what the first holds."""
    more = f" (and {counted(len(empty) - 1, 'other class folder')})" if len(empty) > 1 else ""
    looks = f"the class folder '{empty[0]}'{more} in {tree.path}"
    looks += " is empty" if contents == "nothing" else f" holds no image but {contents}"
    return f"{looks}; put its images there, or move it elsewhere if it is no class"


def detection(tree: Tree) -> str:
    """A clause for the end where a folder looks like a set for detection, whose labels are boxes; else nothing."""
    for each in tree.walk():
        folders = {folder.name.lower() for folder in each.folders}
        files = [path.name for paths in each.others.values() for path in paths]
        if any(pair <= folders for pair in DETECTION) or any(COCO.search(name) for name in files):
            return "; it looks like a set for detection, which has boxes and no class for each image"
    return ""


def parts_of_a_set(top: Tree, names: list[str]) -> str | None:
    """That folders look like the parts of a set, where all differ in a number behind a word for parts alone."""
    found = [NUMBERED.fullmatch(name) for name in names]
    stems = {match[1].lower() if match else "" for match in found}
    words = words_of(stems.pop()) if len(stems) == 1 else []
    if len(names) < 2 or not words or not {words[-1], words[-1].removesuffix("s")} & PARTS:
        return None
    lists = lists_in(*top.walk())
    listed = (
        f"if {lists[0].name} has the labels of their images, give it as the source: data.source = '{lists[0]}'"
        if lists
        else "put the images of each class into a folder of its own, or give a list of images with their labels"
    )
    return (
        f"the folders {some(names)} of {top.path} look like parts of one set, not like classes; {listed}; if they are "
        "classes, say so with data.class_folders = 'outer'"
    )


def _from_list(lists: list[Path], example: str = "") -> str:
    if lists:
        return f"if {lists[0].name} has their labels, give it as the source: data.source = '{lists[0]}'"
    return (
        f"put the images of each class into a folder of its own{example}, or give a CSV file with the columns image "
        "and label as data.source"
    )
