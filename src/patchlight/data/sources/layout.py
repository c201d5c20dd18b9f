"""What the folders of an image folder mean: splits, classes, or neither.

Understood are

- class folders:                  ROOT/CLASS/*.png
- split folders:                  ROOT/train/CLASS/*.png, whatever of `data/names.py` they are called
- splits inside classes:          ROOT/CLASS/train/*.png
- a wrapper around any of them:   ROOT/dataset/..., ROOT/train/train/..., beside which no folder holds images
- one more folder in each class:  ROOT/CLASS/images/*.png, the same in all of them
- images and masks:               images and masks beside each other, at any depth; the masks are left out
- Tiny ImageNet:                  ROOT/val/images/*.JPEG, with its labels in ROOT/val/val_annotations.txt

Class folders that are numbered as parts of one set are an error. Where class folders hold different folders of images,
data.class_folders says which names the class.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from patchlight.config import DataConfig
from patchlight.data.listing import LeftOut
from patchlight.data.names import PADDING, SPLIT_WORDS, is_unlabelled, match_splits, names_are_given, split_of, words_of
from patchlight.data.sources.masks import without_masks
from patchlight.data.sources.refusals import (
    flat_split,
    flat_splits,
    lists_in,
    no_classes,
    no_images,
    parts_of_a_set,
    some,
)
from patchlight.data.sources.tree import Tree
from patchlight.errors import PatchlightError

Classes = dict[str, list[Path]]  # the images of each class

OUTSIDE = "images outside class folders"
DEEPER = "images in folders inside class folders (data.class_folders = 'outer' takes them)"
BESIDE = "images in folders beside the splits (data.train_split, val_split and test_split name the splits)"
NO_LABELS = "images without labels"
# What folders are called that stand beside each other and are no classes.
NO_CLASS = PADDING | frozenset(
    "mask masks annotation annotations label labels segmentation segmentations trimap trimaps depth jpegimages "
    "groundtruth gt".split()
)


@dataclass
class Layout:
    """What a folder means."""

    splits: dict[str, Classes]  # a class without images in any split is an error of the caller's
    notes: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    empty: dict[str, str] = field(default_factory=dict)  # what class folders without images hold
    files: list[Path] = field(default_factory=list)  # of labels

    def leave_out(self, reason: str, paths: list[Path], expected: bool = False) -> None:
        if paths:
            self.left_out.append(LeftOut(reason, len(paths), str(min(paths)), expected))


def understand(tree: Tree, config: DataConfig) -> Layout:
    """The layout of a folder. Raises PatchlightError where it can mean more than one thing or nothing."""
    if not tree.has_images:
        raise PatchlightError(no_images(tree))
    layout = Layout({})
    layout.leave_out("masks beside their images", without_masks(tree), expected=True)
    top = _unwrapped(tree, layout)
    if parts := _splits_inside_classes(top):
        layout.notes.append(f"{top.path}: the folders inside class folders are splits")
        matched = match_splits(parts, str(top.path), config)
        layout.notes += matched.notes
        layout.splits = {key: {c: f.images for c, f in parts[name].items()} for key, name in matched.splits.items()}
        layout.leave_out(OUTSIDE, top.images + [path for folder in top.filled for path in folder.images])
        for name in matched.others:
            layout.leave_out(BESIDE, _images_of(parts[name].values()), names_are_given(config))
        return layout
    trees = _without_unlabelled(_split_trees(top, layout, config), top, layout, config)
    level = _level(trees.values(), config, layout)
    for key, (split, labels) in trees.items():
        if labels is None:
            layout.splits[key] = _classes(split, level, layout)
        else:
            layout.splits[key] = labels
    names = {name for classes in layout.splits.values() for name, paths in classes.items() if paths}
    if not names or (len(names) == 1 and lists_in(tree)):
        raise PatchlightError(no_classes(tree))
    if config.class_folders is None and (sentence := parts_of_a_set(top, sorted(names))):
        raise PatchlightError(sentence)
    if all(set(words_of(name)) <= NO_CLASS for name in names):
        raise PatchlightError(
            f"the folders {some(sorted(names))} of {top.path} are called as parts of a data set, not as classes; put "
            "the images of each class into a folder of its own, and give the folder that holds these, or a list of "
            "images with their labels, as the source"
        )
    return layout


def _unwrapped(tree: Tree, layout: Layout, *, of_split: bool = False) -> Tree:
    """The folder inside those that hold one folder with images, which holds them in folders.

    A folder that is called as a split is one. Inside a split, which may hold a single class, a wrapper is called as the
    split is, or "images" or the like.
    """
    begin = tree
    while len(tree.filled) == 1 and not tree.filled[0].images:
        inner = tree.filled[0]
        if (of_split and not _says_nothing(inner, tree)) or (not of_split and split_of(inner.name)[0]):
            break
        layout.leave_out(OUTSIDE, tree.images)
        if beside := [folder.name for folder in tree.folders if folder is not inner]:
            layout.notes.append(f"folders of {tree.path} without images: {', '.join(beside)}")
        tree = inner
    if tree is not begin:
        layout.notes.append(f"the images of {begin.path} are those of {tree.path.relative_to(begin.path)}")
    return tree


def _splits_inside_classes(top: Tree) -> dict[str, dict[str, Tree]]:
    """The folders ROOT/CLASS/SPLIT by split and class, where there are no others with images; else {}."""
    parts: dict[str, dict[str, Tree]] = {}
    for folder in top.filled:
        inner = folder.filled
        if split_of(folder.name)[0] or not inner or any(not part.images or part.filled for part in inner):
            return {}
        for part in inner:
            if split_of(part.name)[0] is None:
                return {}
            parts.setdefault(part.name, {})[folder.name] = part
    return parts if len(parts) > 1 else {}


def _split_trees(top: Tree, layout: Layout, config: DataConfig) -> dict[str, tuple[Tree, Classes | None]]:
    """The folder of each split, and its classes where a file beside its images has their labels."""
    named = [folder for folder in top.filled if split_of(folder.name)[0]]
    flat = [folder for folder in top.filled if split_of(folder.name)[1] and _is_flat(folder)]
    if len(top.filled) > 1 and len(flat) == len(top.filled):
        raise PatchlightError(flat_splits(top, flat))
    if not names_are_given(config) and not any(_holds_classes(folder) for folder in named):
        return {"train": (top, None)}
    matched = match_splits([folder.name for folder in top.filled], str(top.path), config)
    layout.notes += matched.notes
    if beside := [folder.name for folder in top.folders if not folder.has_images]:
        layout.notes.append(f"folders of {top.path} without images: {', '.join(beside)}")
    layout.leave_out(OUTSIDE, top.images)
    folders = {folder.name: folder for folder in top.filled}
    for name in matched.others:
        unlabelled = is_unlabelled(name) and _is_flat(folders[name])
        reason = NO_LABELS if unlabelled else BESIDE
        layout.leave_out(reason, folders[name].all_images(), unlabelled or names_are_given(config))
    trees = {}
    for key, name in matched.splits.items():
        split = _unwrapped(folders[name], layout, of_split=True)
        trees[key] = split, _tiny_imagenet(split, layout)
    return trees


def _holds_classes(folder: Tree) -> bool:
    """Whether a folder that is called as a split is one, and no class: more of its images are in folders than not."""
    inside = sum(len(inner.all_images()) for inner in folder.filled)
    return inside > len(folder.images)


def _is_flat(folder: Tree) -> bool:
    """Whether a folder has images and no class folders, one that is called "images" or the like aside."""
    return all(_says_nothing(inner, folder) and not inner.filled for inner in folder.filled)


def _says_nothing(inner: Tree, folder: Tree) -> bool:
    """Whether the name of a folder says no more than that of the folder that it is in."""
    words = set(words_of(inner.name)) - set(words_of(folder.name))
    return words <= PADDING | SPLIT_WORDS.keys()


def _without_unlabelled(
    trees: dict[str, tuple[Tree, Classes | None]], top: Tree, layout: Layout, config: DataConfig
) -> dict[str, tuple[Tree, Classes | None]]:
    """The splits without those that have images in no class folder, unless they are all that there is, or a setting
    names them.
    """
    flat = {key for key, (split, labels) in trees.items() if labels is None and _is_flat(split)}
    if "train" in flat or len(flat) == len(trees):
        raise PatchlightError(no_classes(next(iter(trees.values()))[0]))
    for key in sorted(flat):
        if getattr(config, f"{key}_split") is not None:
            raise PatchlightError(flat_split(top, trees[key][0], key))
        reason = f"{NO_LABELS} (the split {key} has no class folders)"
        layout.leave_out(reason, trees[key][0].all_images(), expected=key == "test")  # tests are often held back
    return {key: split for key, split in trees.items() if key not in flat}


def _level(trees: Iterable[tuple[Tree, Classes | None]], config: DataConfig, layout: Layout) -> str:
    """Which folder names the class: "outer", "inner" or "path"; "" where class folders hold images alone, or besides.

    Raises PatchlightError where it must be said.
    """
    folders = [folder for split, labels in trees if labels is None for folder in split.filled]
    deep = [folder for folder in folders if not folder.images]
    if config.class_folders is not None:
        return config.class_folders
    if not deep:
        return ""
    inner = {part.name for folder in deep for part in folder.filled}
    if len(inner) == 1 and len(deep) == len(folders) and all(part.images for f in deep for part in f.filled):
        layout.notes.append(f"the images of each class are in its folder '{inner.pop()}'")
        return "outer"
    raise PatchlightError(_which_level(deep[0], [split for split, labels in trees if labels is None]))


def _which_level(first: Tree, splits: list[Tree]) -> str:
    """What each choice of data.class_folders would give."""
    found = {}
    for level in ("outer", "inner", "path"):
        found[level] = sorted({name for split in splits for name, paths in _named(split, level).items() if paths})
    choices = [
        f"'{level}' for {len(names):,} classes ({some(names)})"
        for level, names in found.items()
        if level != "path" or names != found["inner"]
    ]
    return (
        f"{first.path} holds no images itself but in its folders {some(part.name for part in first.filled)}; say "
        f"which folders name the classes with data.class_folders: {', or '.join(choices)}; or give a folder in it as "
        "the source"
    )


def _classes(split: Tree, level: str, layout: Layout) -> Classes:
    layout.leave_out(OUTSIDE, split.images)
    for folder in split.folders:
        if not folder.has_images:
            layout.empty[folder.name] = folder.contents()
        elif not level:
            layout.leave_out(DEEPER, [path for inner in folder.filled for path in inner.all_images()])
    return _named(split, level)


def _named(split: Tree, level: str) -> Classes:
    """The images of each class, by the folder that `level` says names it; "" takes those right in class folders."""
    if level in ("", "outer"):
        return {f.name: f.all_images() if level else f.images for f in split.folders}
    classes: Classes = {}
    for folder in split.folders:
        for tree in folder.walk():
            if tree.images:
                name = tree.name if level == "inner" else tree.path.relative_to(split.path).as_posix()
                classes.setdefault(name, []).extend(tree.images)
    return classes


def _tiny_imagenet(split: Tree, layout: Layout) -> Classes | None:
    """The classes of a split whose labels are in a file as Tiny ImageNet's `val_annotations.txt`: a line for each
    image, with its name and its class first, separated by tabs. None where there is no such file.
    """
    beside = [split, *split.folders]
    files = [
        p for t in beside for ps in t.others.values() for p in ps if p.name.endswith("_annotations.txt") and p.is_file()
    ]
    if len(files) != 1 or not _is_flat(split):
        return None
    labels = {}
    for line in files[0].read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, rest = line.partition("\t")
        labels[name.strip()] = rest.partition("\t")[0].strip()
    classes: Classes = {}
    without = []
    for path in split.all_images():
        if label := labels.get(path.name):
            classes.setdefault(label, []).append(path)
        else:
            without.append(path)
    if not classes:
        return None
    layout.files.append(files[0])
    layout.notes.append(f"the labels of {split.path} are those of {files[0].name}")
    for tree in beside:
        tree.others = {reason: [p for p in paths if p != files[0]] for reason, paths in tree.others.items()}
    layout.leave_out(f"images that {files[0].name} has no label for", without)
    return classes


def _images_of(trees: Iterable[Tree]) -> list[Path]:
    return [path for tree in trees for path in tree.all_images()]
