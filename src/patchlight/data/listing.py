"""A source before decoding (`Listing`).

Every source makes a `Listing`; what follows (`decoding.py`) is the same for all of them. A listing is cheap: it holds
labels and names, and gives files one after the other, so that a set larger than memory is decoded piece by piece.
"""

from __future__ import annotations

import hashlib
import json
import math
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from patchlight.config import GIVEN
from patchlight.data.decode import Encoded
from patchlight.errors import PatchlightError
from patchlight.paths import printable

IN_MEMORY = 2**24  # bytes of a file that is read at once


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

    `size` is what the images are fitted to unless `image_size` asks for another; None keeps a common square size.
    `notes` are sentences on what was chosen, as which columns; what is not used stands in `left_out`. `files` are those
    that it was read from, beside files of single images, and `folders` those that images may lie in beside the source's
    own, because the user has named them.
    """

    splits: dict[str, RawSplit]
    class_names: tuple[str, ...]
    size: int | None = None
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    files: tuple[Path, ...] = ()
    folders: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        # Names go into files, pages and pictures, which hold text in UTF-8.
        object.__setattr__(self, "class_names", tuple(map(printable, self.class_names)))
        if len(set(self.class_names)) < len(self.class_names):
            twice = next(name for name in self.class_names if self.class_names.count(name) > 1)
            raise PatchlightError(
                f"two classes are both shown as '{twice}'; rename one, so that they can be told apart"
            )
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


def hash_of_file(path: Path) -> str:
    """A short name for the content of a file, all of it; it is read a piece at a time. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def hash_of_images(splits: Mapping[str, RawSplit], tick: Callable[[], None] = lambda: None) -> str:
    """A short name for exactly these images and what they are called: all of their bytes are read.

    Nothing less would do: size and time of change stay what they were when `rsync -t`, `tar` or `cp -p` lay another
    file in the place of one. `tick` is called after each image. Raises what a walk over the images raises.
    """
    digest = hashlib.blake2b(digest_size=16)
    for key, split in splits.items():
        for name, encoded in split.items():
            content = _content(encoded)
            about = json.dumps([key, name, len(content)])  # so that no two lists of images give the same bytes
            digest.update(about.encode())
            digest.update(content)
            tick()
    return digest.hexdigest()


def _content(encoded: Encoded) -> bytes | memoryview:
    """All that the pixels of an image come from; of a file that cannot be read, why."""
    if isinstance(encoded, bytes):
        return encoded
    if isinstance(encoded, Path):
        try:
            facts = encoded.stat()
            if not stat.S_ISREG(facts.st_mode):
                return b"no file"  # a pipe or a device would never end; decoding refuses it
            return encoded.read_bytes() if facts.st_size < IN_MEMORY else hash_of_file(encoded).encode()
        except (OSError, ValueError) as error:
            return str(error).encode("utf-8", "backslashreplace")
    if isinstance(encoded, Image.Image):
        pixels = encoded.tobytes()  # first, as it loads what follows
        shown = [encoded.getpalette(), *(repr(encoded.info.get(key)) for key in ("transparency", "exif"))]
        return json.dumps([encoded.mode, encoded.size, *shown]).encode() + pixels
    return json.dumps([encoded.shape, str(encoded.dtype)]).encode() + np.ascontiguousarray(encoded).tobytes()


def from_arrays(pixels: np.ndarray, labels: np.ndarray, name: str) -> RawSplit:
    """A split that is in memory already: pixels (N, 3, H, W) uint8."""

    def items() -> Iterator[tuple[str, Encoded]]:
        return ((f"{name}[{index}]", image) for index, image in enumerate(pixels))

    return RawSplit(np.asarray(labels, dtype=np.int64), items)
