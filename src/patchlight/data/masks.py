"""Masks that people drew of image files: which mask is of which image, and all of them as their images are shown.

A mask is found by its name: `photo.png` or `photo_mask.png` (also -mask, _seg, _segmentation, _gt, _groundtruth, and a
number behind these) is of `photo.jpg`. Where masks lie in sub-folders, these are called as those of the images. What is
inside in a file, `mask_pixels.py` says.

`sources/masks.py` is about the other case, masks among the images of a data set, which are no images to learn from.

Shapes: B images, S pixels a side of what a model is shown.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from patchlight.data.decode import header_dimensions
from patchlight.data.heard import hearing, listening
from patchlight.data.mask_pixels import ARRAY, fit_mask, is_turned, read_mask
from patchlight.data.sources.tree import SUFFIXES, Tree, left_out_of, scan
from patchlight.errors import PatchlightError, first_of
from patchlight.paths import is_folder, is_there, printable, user_path
from patchlight.units import counted

NAMED = 12  # images without a mask that are named; the rest is a number
LONGEST = 160  # letters of a warning
ENDING = re.compile(  # of a mask's name, behind its image's
    r"(.+?)[\s_.-]+(mask|seg|segmentation|gt|ground[\s_-]?truth)s?([\s_.-]*\d+)?", re.IGNORECASE
)

TURNED = "images that their EXIF data turn (their masks are taken as drawn on the turned image)"
NOTHING = "masks that are empty, or all of the image, where it is shown (nothing can be measured there)"


@dataclass(frozen=True)
class MaskFiles:
    """The mask of each image, in the images' order, or None. `notes` are sentences on what is left out."""

    folder: Path
    images: tuple[Path, ...]
    masks: tuple[Path | None, ...]
    notes: tuple[str, ...] = ()

    @property
    def there(self) -> tuple[Path, ...]:
        """The masks that were found."""
        return tuple(mask for mask in self.masks if mask is not None)


@dataclass(frozen=True)
class Masks:
    """What is inside of each image, (B, S, S) bool, nowhere in those without a mask; `given` (B,) bool says which have
    one. `notes` are sentences on what was understood.
    """

    inside: Tensor
    given: Tensor
    notes: tuple[str, ...]


def masks_among(folder: str | Path, images: Sequence[Path]) -> tuple[Path, ...]:
    """Those of the images that are masks of others of them: they lie in the folder of masks, and are called as an image
    with an ending behind it (`photo_mask.png` beside `photo.png`).

    Raises what `find_masks` does of the folder, and PatchlightError where an image has two masks, or two images are the
    masks of each other.
    """
    root = user_path(folder)
    by_stem: dict[str, list[_File]] = {}
    for file in _files(root, _tree(root)):
        for stem in file.stems:
            by_stem.setdefault(stem, []).append(file)
    owner: dict[str, Path] = {}  # of each mask, by its real path, its image
    for image in images:
        if (mask := _mask_of(image, by_stem.get(_stem(image), []))) is not None:
            owner[os.path.realpath(mask)] = image
    found = tuple(image for image in images if os.path.realpath(image) in owner and ENDING.fullmatch(image.stem))
    for image in images:
        other = owner.get(os.path.realpath(image))
        if other is not None and owner.get(os.path.realpath(other)) == image:
            raise PatchlightError(
                f"{printable(other)} and {printable(image)} are by their names masks of each other; lay masks into a "
                "folder of their own, or give them an ending, as in photo_mask.png"
            )
    return found


def find_masks(folder: str | Path, images: Sequence[str | Path]) -> MaskFiles:
    """The masks of images in a folder and below it. An image is a path, or a name of one that is no file.

    Raises UsageError for an empty path; PatchlightError, naming the files, where the folder is missing or holds no
    masks, where an image has two, where one mask fits two images, and where no image has any.
    """
    root, paths = user_path(folder), tuple(Path(image) for image in images)
    tree = _tree(root)
    files = _files(root, tree)
    found = tuple(_mask_of(path, files) for path in paths)
    _check_one_each(paths, found)
    if paths and not any(found):
        first, stem = printable(paths[0]), printable(_stem(paths[0]))
        raise PatchlightError(
            f"no mask in {printable(root)} is called as an image: {first} needs {stem}.png or {stem}_mask.png, and one "
            f"that is there is {printable(files[0].path)}; rename the masks, or name another folder"
        )
    return MaskFiles(root, paths, found, _left_out(root, tree, files, paths, found))


def read_masks(files: MaskFiles, fit_size: int, size: int | None = None) -> Masks:
    """Each mask as its image is shown to a model: the middle square, fitted to `fit_size` pixels a side, and then
    resized to `size` (the same where None). These are `fit_size` and `img_size` of the model's card.

    Raises PatchlightError, beginning with the file, for a mask that cannot be read or is of another shape than its
    image.
    """
    size = fit_size if size is None else size
    inside = np.zeros((len(files.masks), size, size), dtype=bool)
    said = _Said()
    with listening():
        for row, (image, path) in enumerate(zip(files.images, files.masks, strict=True)):
            if path is None:
                continue
            with hearing() as warned:
                pixels = read_mask(path)
                inside[row] = fit_mask(pixels.inside, fit_size, size, _image_size(pixels.inside, path, image))
                turned = is_turned(image)
            for about in (*pixels.said, *(f"masks of which Pillow warned ('{text[:LONGEST]}')" for text in warned)):
                said.add(about, path)
            if turned:
                said.add(TURNED, image)
            if inside[row].all() or not inside[row].any():
                said.add(NOTHING, path)
    given = torch.tensor([path is not None for path in files.masks], dtype=torch.bool)
    return Masks(torch.from_numpy(inside), given, said.sentences())


@dataclass
class _Said:
    """The files of which the same is said."""

    files: dict[str, list[Path]] = field(default_factory=dict)

    def add(self, about: str, path: Path) -> None:
        self.files.setdefault(about, []).append(path)

    def sentences(self) -> tuple[str, ...]:
        return tuple(printable(f"{about}: {len(paths):,}, such as {paths[0]}") for about, paths in self.files.items())


@dataclass(frozen=True)
class _File:
    """A mask's file: the `folders` that it lies in below the folder of masks, and `stems` of images that it may be
    of.
    """

    path: Path
    folders: tuple[str, ...]
    stems: frozenset[str]


def _tree(root: Path) -> Tree:
    if not is_folder(root):
        what = "is a file" if is_there(root) else "is not there"
        raise PatchlightError(f"{printable(root)} {what}; name the folder that the masks are in")
    try:
        return scan(root)
    except OSError as error:
        raise PatchlightError(f"cannot read {printable(error.filename or root)}: {error.strerror}") from None


def _files(root: Path, tree: Tree) -> list[_File]:
    """All images and arrays in the folder and below it. Raises PatchlightError where there are none."""
    arrays = [path for paths in tree.all_others().values() for path in paths if _is_array(path)]
    files = []
    for path in sorted([*tree.all_images(), *arrays]):
        ending = ENDING.fullmatch(path.stem)
        stems = frozenset({path.stem, ending[1]} if ending else {path.stem})
        files.append(_File(path, path.relative_to(root).parent.parts, stems))
    if not files:
        there = tree.contents()
        holds = "is an empty folder" if there == "nothing" else f"holds no image and no .npy array but {there}"
        raise PatchlightError(f"{printable(root)} {holds}; name the folder that the masks are in")
    return files


def _is_array(path: Path) -> bool:
    return path.suffix.lower() == ARRAY


def _stem(image: Path) -> str:
    """The name without its suffix; that of no file may hold a dot behind which there is none."""
    return image.stem if image.suffix.lower() in SUFFIXES or is_there(image) else image.name


def _mask_of(image: Path, files: list[_File]) -> Path | None:
    """The mask of the image's name whose sub-folders are those that the image lies in; where several are, that in the
    most sub-folders. A file is no mask of itself.
    """
    stem, above = _stem(image), Path(os.path.abspath(image)).parent.parts  # noqa: PTH100 (links are not followed)
    fitting = [
        file
        for file in files
        if stem in file.stems
        and above[len(above) - len(file.folders) :] == file.folders
        and not _is_same(file.path, image)
    ]
    deepest = max((len(file.folders) for file in fitting), default=0)
    nearest = [file.path for file in fitting if len(file.folders) == deepest]
    if len(nearest) > 1:
        raise PatchlightError(
            f"{printable(image)} has {len(nearest)} masks, {printable(nearest[0])} and {printable(nearest[1])}; join "
            "them into one file, or remove one"
        )
    return nearest[0] if nearest else None


def _is_same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def _check_one_each(images: tuple[Path, ...], masks: tuple[Path | None, ...]) -> None:
    """Raises PatchlightError where one mask was found for two images."""
    owner: dict[Path, Path] = {}
    for image, mask in zip(images, masks, strict=True):
        if mask is not None and not _is_same(owner.setdefault(mask, image), image):
            raise PatchlightError(
                f"{printable(mask)} is by its name the mask of {printable(owner[mask])} and of {printable(image)}; lay "
                "masks into sub-folders that are called as the images' are, or give each image a name of its own"
            )


def _left_out(
    root: Path, tree: Tree, files: list[_File], images: tuple[Path, ...], masks: tuple[Path | None, ...]
) -> tuple[str, ...]:
    """Sentences on images without masks, masks without images, and other files in the folder of masks."""
    notes = []
    if without := [printable(image) for image, mask in zip(images, masks, strict=True) if mask is None]:
        notes.append(f"{counted(len(without), 'image')} without a mask left out: {first_of(without, NAMED)}")
    known = {os.path.realpath(path) for path in (*images, *masks) if path is not None}
    if unused := [file.path for file in files if os.path.realpath(file.path) not in known]:
        some = f"such as {printable(unused[0])}"
        notes.append(f"{counted(len(unused), 'mask')} in {printable(root)} of none of the images, {some}")
    others = {reason: [p for p in paths if not _is_array(p)] for reason, paths in tree.all_others().items()}
    notes += [f"left out of {printable(root)}: {each}" for each in left_out_of(others)]
    return tuple(notes)


def _image_size(inside: np.ndarray, path: Path, image: Path) -> tuple[int, int] | None:
    """Height and width of the image; None of one that is no file. Raises PatchlightError where its mask is neither of
    that size nor of that size scaled, as it cannot be known then where it lies.
    """
    if not is_there(image) or (size := header_dimensions(image)) is None:
        return None
    (rows, columns), (height, width) = inside.shape, size
    if abs(columns * height - rows * width) <= max(height, width):  # a pixel of rounding
        return size
    turned = ", and lies as the image did before its EXIF data turned it" if (columns, rows) == size else ""
    raise PatchlightError(
        f"{printable(path)} is {columns} x {rows} pixels, its image {printable(image)} {width} x {height}{turned}; "
        "save the mask in the shape of its image"
    )
