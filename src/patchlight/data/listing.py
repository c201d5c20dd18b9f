"""A source before decoding (`Listing`).

Every source makes a `Listing`; what follows (`decoding.py`) is the same for all of them. A listing is cheap: it holds
labels and names, and gives files one after the other, so that a set larger than memory is decoded piece by piece.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from patchlight.config import GIVEN
from patchlight.data.decode import Encoded
from patchlight.paths import printable


@dataclass(frozen=True)
class RawSplit:
    """One split: labels (N,) int64, and a function that walks its N images as (name, encoded image), in order."""

    labels: np.ndarray
    items: Callable[[], Iterator[tuple[str, Encoded]]]


@dataclass(frozen=True)
class LeftOut:
    """What a source has and training does not get, all of it for one reason.

    What is `expected`, such as a test split without labels, is told of alone; the rest counts towards
    data.max_left_out.
    """

    reason: str  # "images outside class folders"
    count: int
    example: str  # one of them
    expected: bool = False

    def __str__(self) -> str:
        return printable(f"{self.reason}: {self.count:,}, such as {self.example}")


@dataclass(frozen=True)
class Listing:
    """A source's splits ("train", "val", "test"; at least one), not decoded yet.

    `fingerprint` is called only when the cache is used, and changes whenever the files do. `size` is what the images
    are fitted to unless `image_size` asks for another; None keeps a common square size. `notes` are sentences on what
    was chosen, as which columns; what is not used stands in `left_out`.
    """

    splits: dict[str, RawSplit]
    class_names: tuple[str, ...]
    fingerprint: Callable[[], str]
    size: int | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def __post_init__(self) -> None:
        # Names go into files, pages and pictures, which hold text in UTF-8.
        object.__setattr__(self, "class_names", tuple(map(printable, self.class_names)))
        object.__setattr__(self, "notes", tuple(map(printable, self.notes)))

    def left_out_sentences(self) -> tuple[str, ...]:
        """What is left out, a sentence for each reason."""
        return tuple(f"left out: {each}" for each in self.left_out)

    def too_much_left_out(self, limit: float) -> str | None:
        """A sentence where more than `limit` (0..1) of the source's images would not be used, else None."""
        lost = [each for each in self.left_out if not each.expected]
        count = sum(each.count for each in lost)
        total = count + sum(len(split.labels) for split in self.splits.values())
        if count <= limit * total:
            return None
        return (
            f"{count:,} of {total:,} images would be left out ({'; '.join(map(str, lost))}); mend this, or set "
            f"data.max_left_out = {math.ceil(100 * count / total) / 100:g} if they are to be left out"
        )


def named(source: str) -> str:
    """A source in a sentence; images that are given in Python are called as the argument that they are given by."""
    return "data" if source == GIVEN else f"'{source}'"


def hash_of(facts: Any) -> str:
    """A short name for JSON data: equal data, equal name."""
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def file_facts(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Full path, size in bytes and time of change (ns) of files, by which a changed file is noticed."""
    return [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


def from_arrays(pixels: np.ndarray, labels: np.ndarray, name: str) -> RawSplit:
    """A split that is in memory already: pixels (N, 3, H, W) uint8."""

    def items() -> Iterator[tuple[str, Encoded]]:
        return ((f"{name}[{index}]", image) for index, image in enumerate(pixels))

    return RawSplit(np.asarray(labels, dtype=np.int64), items)
