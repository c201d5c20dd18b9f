"""A source before decoding (`Listing`), and the way from there to `ImageSet`s in memory or in the cache.

Every source makes a `Listing`; what follows is the same for all of them. A listing is cheap: it holds labels and names,
and gives files one after the other, so that a set larger than memory is decoded piece by piece.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from patchlight.config import DataConfig
from patchlight.config.sections import Interpolation
from patchlight.data.cache import cached_pixels
from patchlight.data.decode import Encoded, decode_image, header_dimensions, image_dimensions
from patchlight.data.images import ImageSet
from patchlight.errors import PatchlightError

# The size that images of mixed or non-square sizes are fitted to when nothing else is asked for.
FALLBACK_SIZE = 32

# Pillow releases Python's global lock while it decodes. For small images taking the lock again costs more than threads
# gain (measured: 32 x 32 a third slower with two threads, 256 x 256 twice as fast), so they are decoded without.
THREADS_FROM_PIXELS = 192 * 192

# Images decoded together: few enough that their files, and their pixels, stay small beside the set.
CHUNK_IMAGES = 128
CHUNK_BYTES = 16_000_000
ENCODED_BYTES = 32_000_000  # of images that are given as bytes, decoded together

HEADERS = 200  # images of a split whose size is read from the file's header before any is decoded


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
        return f"{self.reason}: {self.count:,}, such as {self.example}"


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


def hash_of(facts: Any) -> str:
    """A short name for JSON data: equal data, equal name."""
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def file_facts(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Full path, size in bytes and time of change (ns) of files, by which a changed file is noticed."""
    return [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]


@dataclass
class BadFiles:
    """Why images could not be decoded, collected so that one error can say how many they are."""

    reasons: list[str] = field(default_factory=list)

    def raise_if_any(self, total: int, source: str) -> None:
        """Raise PatchlightError with the first reason and how many of the `total` images are bad."""
        if not self.reasons:
            return
        count, first = len(self.reasons), self.reasons[0]
        more = f"; {count} of {total} images are bad" if count > 1 else ""
        raise PatchlightError(f"{first}{more} (`patchlight data {source}` lists them)")


class _MixedSizesError(Exception):
    """The images do not all have one size. Its text names the first that differs."""


def from_arrays(pixels: np.ndarray, labels: np.ndarray, name: str) -> RawSplit:
    """A split that is in memory already: pixels (N, 3, H, W) uint8."""

    def items() -> Iterator[tuple[str, Encoded]]:
        return ((f"{name}[{index}]", image) for index, image in enumerate(pixels))

    return RawSplit(np.asarray(labels, dtype=np.int64), items)


def decode_listing(listing: Listing, config: DataConfig, fallback_size: int | None = None) -> dict[str, ImageSet]:
    """The listing's splits as image sets: in memory up to data.memory_limit_mb (2^20 bytes each), else in the cache.

    The size is data.image_size, else the listing's own, else the square size that all images share, else
    `fallback_size` (None is FALLBACK_SIZE), which a note on the sets reports, as it does an interpolation other than
    bicubic (which unset is). Raises PatchlightError for images that cannot be decoded, naming the first and counting
    them.
    """
    source, memory_limit_mb, interpolation = config.source, config.memory_limit_mb, config.interpolation or "bicubic"
    wanted, fallback = config.image_size or listing.size, fallback_size or FALLBACK_SIZE
    if wanted is not None:
        return _fitted(listing, source, wanted, interpolation, memory_limit_mb)
    height, width, name = first_dimensions(listing)
    if not name:  # no image can be read, and decoding says why
        return _decoded(listing, source, fallback, interpolation, memory_limit_mb)
    if height != width:
        why = f"the images are not square ({name} is {width} x {height})"
    else:
        try:
            _check_headers(listing, height)
            return _decoded(listing, source, height, None, memory_limit_mb)
        except _MixedSizesError as error:
            why = f"the images have different sizes ({name} is {width} x {height}, {error})"
    note = f"{why}: all are fitted to {fallback} x {fallback}; data.image_size chooses another size"
    sets = _fitted(listing, source, fallback, interpolation, memory_limit_mb)
    return {key: _with_note(images, note) for key, images in sets.items()}


def _fitted(
    listing: Listing, source: str, size: int, interpolation: Interpolation, memory_limit_mb: int
) -> dict[str, ImageSet]:
    """The sets, with a note where images are resized in another way than the usual one."""
    sets = _decoded(listing, source, size, interpolation, memory_limit_mb)
    if interpolation == "bicubic":
        return sets
    try:
        _check_headers(listing, size)
        return sets
    except _MixedSizesError:
        note = f"images are resized to {size} x {size} by {interpolation} interpolation (data.interpolation)"
        return {key: _with_note(images, note) for key, images in sets.items()}


def first_dimensions(listing: Listing) -> tuple[int, int, str]:
    """Height, width and name of the first image that can be read (0, 0 and "" where none can)."""
    for name, encoded in chain.from_iterable(split.items() for split in listing.splits.values()):
        try:
            return *image_dimensions(encoded, name), name
        except PatchlightError:
            continue
    return 0, 0, ""


def _check_headers(listing: Listing, size: int) -> None:
    """Raises _MixedSizesError where one of the first images has another size, before much is decoded or written."""
    for split in listing.splits.values():
        for name, encoded in islice(split.items(), HEADERS):
            if (dimensions := header_dimensions(encoded)) not in (None, (size, size)):
                raise _MixedSizesError(f"{name} is {dimensions[1]} x {dimensions[0]}")


def pixel_chunks(listing: Listing, source: str, size: int, interpolation: Interpolation | None) -> Iterator[np.ndarray]:
    """The pixels of all splits, one after the other: (up to CHUNK_IMAGES, 3, size, size) uint8 at a time.

    Without an `interpolation`, images are taken as they are and one of another size stops the walk with
    _MixedSizesError. Bad files raise PatchlightError at the end of the walk.
    """
    total = sum(len(split.labels) for split in listing.splits.values())
    step = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // (3 * size * size)))
    bad = BadFiles()
    height, width, _ = first_dimensions(listing)
    threads = min(8, os.cpu_count() or 1) if height * width >= THREADS_FROM_PIXELS else 1
    items = chain.from_iterable(split.items() for split in listing.splits.values())
    with ThreadPoolExecutor(threads) as pool:
        while chunk := _together(items, step):
            results = _decode_each(pool if threads > 1 else None, chunk, size, interpolation)
            out = np.empty((len(chunk), 3, size, size), dtype=np.uint8)
            for index, pixels in enumerate(results):
                if isinstance(pixels, PatchlightError):
                    bad.reasons.append(str(pixels))
                elif pixels.shape != (3, size, size):
                    raise _MixedSizesError(f"{chunk[index][0]} is {pixels.shape[2]} x {pixels.shape[1]}")
                else:
                    out[index] = pixels
            yield out
    bad.raise_if_any(total, source)


def _together(items: Iterator[tuple[str, Encoded]], count: int) -> list[tuple[str, Encoded]]:
    """The next `count` images, or fewer where these are large already: as bytes, they are all in memory."""
    taken: list[tuple[str, Encoded]] = []
    size = 0
    while len(taken) < count and size < ENCODED_BYTES and (item := next(items, None)) is not None:
        taken.append(item)
        size += len(item[1]) if isinstance(item[1], bytes) else 0
    return taken


def _decode_each(
    pool: ThreadPoolExecutor | None,
    chunk: list[tuple[str, Encoded]],
    size: int,
    interpolation: Interpolation | None,
) -> Iterable[np.ndarray | PatchlightError]:
    def work(item: tuple[str, Encoded]) -> np.ndarray | PatchlightError:
        name, encoded = item
        if (
            isinstance(encoded, np.ndarray)
            and (interpolation is None or size == encoded.shape[1])
            and encoded.shape[1] == encoded.shape[2]
        ):
            return encoded
        try:
            if interpolation is None:
                return decode_image(encoded, None, name).transpose(2, 0, 1)
            return decode_image(encoded, size, name, interpolation).transpose(2, 0, 1)
        except PatchlightError as error:
            return error

    return pool.map(work, chunk) if pool is not None else map(work, chunk)


def _decoded(
    listing: Listing, source: str, size: int, interpolation: Interpolation | None, memory_limit_mb: int
) -> dict[str, ImageSet]:
    count = sum(len(split.labels) for split in listing.splits.values())
    shape = (count, 3, size, size)

    def chunks() -> Iterator[np.ndarray]:
        return pixel_chunks(listing, source, size, interpolation)

    if count * 3 * size * size > memory_limit_mb * 2**20:
        parts = [(name, hash_of(split.labels.tolist())) for name, split in listing.splits.items()]
        facts = [listing.fingerprint(), listing.class_names, parts, size, interpolation is None]
        if interpolation == "bilinear":  # the keys of the others are those of versions that had no choice
            facts.append(interpolation)
        key = hash_of(facts)
        pixels = cached_pixels(key, shape, chunks)
    else:
        pixels = torch.empty(shape, dtype=torch.uint8)
        at = 0
        for chunk in chunks():
            pixels[at : at + len(chunk)] = torch.from_numpy(chunk)
            at += len(chunk)
    return _split(listing, pixels)


def _split(listing: Listing, pixels: torch.Tensor) -> dict[str, ImageSet]:
    """A set for each split, of `pixels` (N, 3, H, W), in which those of all splits follow each other."""
    sets, at = {}, 0
    for key, split in listing.splits.items():
        part = pixels[at : at + len(split.labels)]
        notes = (*listing.notes, *listing.left_out_sentences())
        sets[key] = ImageSet(part, torch.from_numpy(split.labels), listing.class_names, notes=notes)
        at += len(split.labels)
    return sets


def _with_note(images: ImageSet, note: str) -> ImageSet:
    return ImageSet(images.images, images.labels, images.class_names, images.rows, (*images.notes, note))
