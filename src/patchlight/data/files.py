"""Image files that a user names to `predict` and `explain`: files, folders and patterns, and how they are read."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from patchlight.config.sections import Interpolation
from patchlight.data.decode import Decoded, decode
from patchlight.data.heard import listening
from patchlight.data.levels import FULL
from patchlight.data.listing import LeftOut
from patchlight.data.remarks import Remarks
from patchlight.data.sources.tree import left_out_of, scan
from patchlight.errors import PatchlightError
from patchlight.paths import is_folder, is_there, printable, user_path

READ_TOGETHER = 32  # whose files and pixels are in memory at a time, whatever their size
THREADS = 4


@dataclass(frozen=True)
class ImageFiles:
    """The files that words stand for, in their order, and sentences on what stands beside them and is no image."""

    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def find_images(words: Sequence[str | Path]) -> ImageFiles:
    """The files of words: a file, missing or not, stands for itself, a folder for all image files in it and below it,
    sorted, and a pattern that no shell has taken up (`photos/*.jpg`, `photos/**/*.jpg`) for what it matches.

    Raises UsageError for an empty word, PatchlightError for a folder without images, a pattern that matches nothing, or
    a folder that cannot be read.
    """
    paths, notes = list[Path](), list[str]()
    for word in words:
        path = user_path(word)
        for place in [path] if is_there(path) else _matches(path):
            if is_folder(place):
                inside, others = _images_below(place)
                paths += inside
                notes += [f"left out of {printable(place)}: {each}" for each in others]
            else:
                paths.append(place)
    return ImageFiles(tuple(paths), tuple(dict.fromkeys(notes)))


def each_once(files: ImageFiles) -> ImageFiles:
    """The files without those that are there twice, by one name or another of the same file: the first counts, and a
    note says how many were left out.
    """
    first: dict[str, Path] = {}
    again = list[Path]()
    for path in files.paths:
        if first.setdefault(os.path.realpath(path), path) is not path:
            again.append(path)
    if not again:
        return files
    times = "once more" if len(again) == 1 else f"{len(again):,} times more"
    note = f"files that were named before, taken once: named {times}, such as {printable(again[0])}"
    return ImageFiles(tuple(first.values()), (*files.notes, note))


def read_images(
    paths: Sequence[Path],
    size: int,
    interpolation: Interpolation = "bicubic",
    pixel_max: int = FULL,
    remarks: Remarks | None = None,
) -> Iterator[Tensor | PatchlightError]:
    """Each file as (3, size, size) uint8 or, of one that cannot be read, the reason, which begins with its name; in
    order. What there is to say of them goes to `remarks`.
    """

    def work(path: Path) -> Decoded | PatchlightError:
        try:
            return decode(path, size, str(path), interpolation, pixel_max)
        except PatchlightError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(paths), READ_TOGETHER):
            some = paths[start : start + READ_TOGETHER]
            with listening():  # not while the caller has the turn
                results = list(pool.map(work, some))
            for path, result in zip(some, results, strict=True):
                if isinstance(result, PatchlightError):
                    yield result
                    continue
                if remarks is not None:
                    remarks.add(str(path), result.facts, result.warnings)
                yield torch.from_numpy(np.ascontiguousarray(result.pixels.transpose(2, 0, 1)))


def _matches(path: Path) -> list[Path]:
    """What a pattern stands for, sorted; a path without signs of a pattern stands for itself."""
    if not glob.has_magic(str(path)):
        return [path]
    found = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 (pathlib takes no absolute pattern)
    if not found:
        raise PatchlightError(f"nothing matches {printable(path)}; check the pattern, or name the files")
    files = [each for each in found if not is_folder(Path(each))]
    # `photos/**` matches folders and all that is in them.
    return [Path(each) for each in (files if "**" in path.parts else found)]


def _images_below(folder: Path) -> tuple[list[Path], tuple[LeftOut, ...]]:
    """Image files in a folder and below it, sorted folder by folder, and what is there beside them.

    Links are followed; of a file that is reached twice the first path counts.
    """
    try:
        tree = scan(folder)
    except OSError as error:
        raise PatchlightError(f"cannot read {printable(error.filename or folder)}: {error.strerror}") from None
    first: dict[str, Path] = {}
    for path in tree.all_images():
        first.setdefault(os.path.realpath(path), path)
    images, others = list(first.values()), tuple(left_out_of(tree.all_others()))
    if not images:
        if (there := tree.contents()) == "nothing":
            raise PatchlightError(f"{printable(folder)} is an empty folder")
        raise PatchlightError(f"{printable(folder)} and the folders in it hold no image but {there}")
    return images, others
