"""From a `Listing` to `ImageSet`s: images of one size, in memory or in the cache, and what there is to say of them.

An image that cannot be read is an error or left out, as data.on_bad says. Which are bad, and what there is to say of
the others, is kept with pixels in the cache, so that both ways give the same sets.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
import torch

from patchlight.config import GIVEN, DataConfig
from patchlight.config.sections import Interpolation
from patchlight.data.cache import cached_pixels
from patchlight.data.decode import Decoded, Encoded, decode, header_dimensions, image_dimensions
from patchlight.data.heard import listening
from patchlight.data.images import BadFile, ImageSet
from patchlight.data.listing import Listing, hash_of, hash_of_images, named
from patchlight.data.remarks import Remarks
from patchlight.errors import PatchlightError
from patchlight.paths import printable
from patchlight.progress import Progress
from patchlight.units import counted

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
NAMED = 3  # bad images, and reasons, that a sentence names


Item = tuple[str, int, str, Encoded]  # the split, the place in it, the name, the image


@dataclass(frozen=True)
class Job:
    """How a listing is decoded. Without an `interpolation` images are taken as they are, and all must have `size`."""

    listing: Listing
    config: DataConfig
    size: int  # pixels a side
    interpolation: Interpolation | None
    trained: bool = False  # the config is that of a model, so no other setting is advised


@dataclass
class Found:
    """What a walk over all images has met: the bad ones, and what there is to say of the others."""

    bad: list[BadFile] = field(default_factory=list)
    remarks: Remarks = field(default_factory=Remarks)

    def to_json(self) -> dict[str, Any]:
        """Plain data, as it is kept with pixels."""
        return {"bad": [asdict(each) for each in self.bad], "remarks": self.remarks.to_json()}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Found:
        """The way back."""
        return cls([BadFile(**each) for each in data["bad"]], Remarks.from_json(data["remarks"]))


class _MixedSizesError(Exception):
    """The images do not all have one size. Its text names the first that differs."""


def decode_listing(
    listing: Listing, config: DataConfig, fallback_size: int | None = None, *, trained: bool = False
) -> dict[str, ImageSet]:
    """The listing's splits as image sets: in memory up to data.memory_limit_mb (2^20 bytes each), else in the cache.

    The size is data.image_size, else the listing's own, else the square size that all images share, else
    `fallback_size` (None is FALLBACK_SIZE), which a note on the sets reports, as it does an interpolation other than
    bicubic (which unset is). `trained` says that a model was trained with these settings: no others are advised then.
    Raises PatchlightError for images that cannot be decoded, naming the first and counting them; with data.on_bad =
    "skip" they are left out, which a note reports, unless nothing is left of a split or class.
    """
    interpolation = config.interpolation or "bicubic"
    wanted, fallback = config.image_size or listing.size, fallback_size or FALLBACK_SIZE
    if wanted is not None:
        return _fitted(Job(listing, config, wanted, interpolation, trained))
    height, width, name = first_dimensions(listing)
    if not name:  # no image can be read, and decoding says why
        return _decoded(Job(listing, config, fallback, interpolation))
    if height != width:
        why = f"the images are not square ({name} is {width} x {height})"
    else:
        try:
            _check_headers(listing, height)
            return _decoded(Job(listing, config, height, None))
        except _MixedSizesError as error:
            why = f"the images have different sizes ({name} is {width} x {height}, {error})"
    note = f"{why}: all are fitted to {fallback} x {fallback}; data.image_size chooses another size"
    return _fitted(Job(listing, config, fallback, interpolation), note)


def _fitted(job: Job, *notes: str) -> dict[str, ImageSet]:
    """The sets, with a note where images are resized in another way than the usual one."""
    if job.interpolation != "bicubic":
        try:
            _check_headers(job.listing, job.size)
        except _MixedSizesError:
            note = f"images are resized to {job.size} x {job.size} by {job.interpolation} interpolation "
            notes = (note + "(data.interpolation)", *notes)
    return _decoded(job, *notes)


def first_dimensions(listing: Listing) -> tuple[int, int, str]:
    """Height, width and name of the first image that can be read (0, 0 and "" where none can)."""
    with listening():
        for name, encoded in chain.from_iterable(split.items() for split in listing.splits.values()):
            try:
                return *image_dimensions(encoded, name), printable(name)
            except PatchlightError:
                continue
    return 0, 0, ""


def _check_headers(listing: Listing, size: int) -> None:
    """Raises _MixedSizesError where one of the first images has another size, before much is decoded or written."""
    with listening():
        for split in listing.splits.values():
            for name, encoded in islice(split.items(), HEADERS):
                if (dimensions := header_dimensions(encoded)) not in (None, (size, size)):
                    raise _MixedSizesError(f"{printable(name)} is {dimensions[1]} x {dimensions[0]}")


def pixel_chunks(job: Job, found: Found) -> Iterator[np.ndarray]:
    """The pixels of all splits, one after the other: (up to CHUNK_IMAGES, 3, size, size) uint8 at a time.

    What is met goes to `found`; an image that cannot be read is black. One of another size stops the walk with
    _MixedSizesError where images are taken as they are. With data.on_bad = "error" bad ones raise PatchlightError at
    the end of the walk.
    """
    size = job.size
    step = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // (3 * size * size)))
    height, width, _ = first_dimensions(job.listing)
    threads = min(8, os.cpu_count() or 1) if height * width >= THREADS_FROM_PIXELS else 1
    items = (
        (key, index, name, encoded)
        for key, split in job.listing.splits.items()
        for index, (name, encoded) in enumerate(split.items())
    )
    total = sum(len(split.labels) for split in job.listing.splits.values())
    with ThreadPoolExecutor(threads) as pool, Progress(total, "reading images") as progress:
        while chunk := _together(items, step):
            out = np.zeros((len(chunk), 3, size, size), dtype=np.uint8)
            images = [(name, encoded) for _, _, name, encoded in chunk]
            with listening():  # not while the caller has the turn
                results = list(pool.map(job_of(job), images) if threads > 1 else map(job_of(job), images))
            for row, (key, index, name, _), result in zip(out, chunk, results, strict=True):
                if isinstance(result, PatchlightError):
                    name = printable(name)
                    found.bad.append(BadFile(key, index, name, str(result).removeprefix(f"{name}: ")))
                elif result.pixels.shape != (size, size, 3):
                    raise _MixedSizesError(f"{printable(name)} is {result.pixels.shape[1]} x {result.pixels.shape[0]}")
                else:
                    row[:] = result.pixels.transpose(2, 0, 1)
                    found.remarks.add(name, result.facts, result.warnings)
            progress.advance(len(chunk))
            if progress.due():
                progress.show(f"{len(found.bad):,} bad" if found.bad else "")
            yield out
    if job.config.on_bad == "error":
        _refuse(job, found)


def _together(items: Iterator[Item], count: int) -> list[Item]:
    """The next `count` images, or fewer where these are large already: as bytes, they are all in memory."""
    taken = list[Item]()
    size = 0
    while len(taken) < count and size < ENCODED_BYTES and (item := next(items, None)) is not None:
        taken.append(item)
        size += len(item[3]) if isinstance(item[3], bytes) else 0
    return taken


def job_of(job: Job) -> Any:
    """The function that decodes one (name, encoded image) of a job, or returns why it cannot."""
    size = None if job.interpolation is None else job.size
    interpolation = job.interpolation or "bicubic"

    def work(item: tuple[str, Encoded]) -> Decoded | PatchlightError:
        name, encoded = item
        if isinstance(encoded, np.ndarray) and encoded.shape[1:] == (job.size, job.size):
            return Decoded(encoded.transpose(1, 2, 0))
        try:
            return decode(encoded, size, name, interpolation, job.config.pixel_max)
        except PatchlightError as error:
            return error

    return work


def _decoded(job: Job, *notes: str) -> dict[str, ImageSet]:
    """The sets, with these notes and those of what was found."""
    listing, size = job.listing, job.size
    shape = (sum(len(split.labels) for split in listing.splits.values()), 3, size, size)
    found = Found()
    if shape[0] * 3 * size * size > job.config.memory_limit_mb * 2**20:
        images = _hash(job)
        pixels, kept = cached_pixels(
            _cache_key(job, images), shape, lambda: _unchanged_chunks(job, found, images), found.to_json
        )
        found = Found.from_json(kept)
    else:
        pixels = torch.empty(shape, dtype=torch.uint8)
        target, at = pixels.numpy(), 0  # NumPy copies a small chunk sooner than torch, which wakes its threads for it
        for chunk in pixel_chunks(job, found):
            target[at : at + len(chunk)] = chunk
            at += len(chunk)
    if job.config.on_bad == "error":
        _refuse(job, found)  # a cached set may have been made with "skip"
    return _sets(job, pixels, found, notes)


def _hash(job: Job) -> str:
    """A short name for the content of all images."""
    total = sum(len(split.labels) for split in job.listing.splits.values())
    with Progress(total, "looking for changes") as progress:

        def tick() -> None:
            progress.advance()
            if progress.due():
                progress.show("")

        return hash_of_images(job.listing.splits, tick)


def _unchanged_chunks(job: Job, found: Found, images: str) -> Iterator[np.ndarray]:
    """What `pixel_chunks` gives. Raises PatchlightError at its end where the images are not those of the hash any more,
    so that nothing is kept under it.
    """
    yield from pixel_chunks(job, found)
    if _hash(job) != images:
        raise PatchlightError(
            f"images of {named(job.config.source)} changed while they were read, and nothing of them is kept; wait "
            "until they are complete and repeat the command"
        )


def _cache_key(job: Job, images: str) -> str:
    """A name for all that the pixels depend on. Whether bad images are skipped is not of it: they are only left out."""
    listing = job.listing
    parts = [(name, hash_of(split.labels.tolist())) for name, split in listing.splits.items()]
    return hash_of([images, listing.class_names, parts, job.size, job.interpolation, job.config.pixel_max])


def _sets(job: Job, pixels: torch.Tensor, found: Found, notes: tuple[str, ...]) -> dict[str, ImageSet]:
    """A set for each split, of `pixels` (N, 3, H, W), in which those of all splits follow each other."""
    listing, config = job.listing, job.config
    skipped = _skip(job, found)
    notes = (
        *listing.notes,
        *listing.left_out_sentences(),
        *skipped,
        *notes,
        *found.remarks.sentences(config.pixel_max, job.trained),
    )
    sets, at = {}, 0
    for key, split in listing.splits.items():
        part = pixels[at : at + len(split.labels)]
        at += len(split.labels)
        whole = ImageSet(part, torch.from_numpy(split.labels), listing.class_names, None, notes, tuple(found.bad))
        bad = {each.index for each in found.bad if each.split == key}
        sets[key] = whole.select([row for row in range(len(part)) if row not in bad]) if bad else whole
    return sets


def _refuse(job: Job, found: Found) -> None:
    """Raises PatchlightError with the first bad image and how many there are, where there are any."""
    if not found.bad:
        return
    total = sum(len(split.labels) for split in job.listing.splits.values())
    count, first = len(found.bad), found.bad[0]
    more = f"; {count} of {total} images are bad" if count > 1 else ""
    if count == total > 1:
        more = f"; none of the {total} images can be read"
    ways = [f"`patchlight data {job.config.source}` lists them"] if job.config.source != GIVEN else []
    ways += [] if _emptied(job, found) else ["data.on_bad = 'skip' leaves them out"]
    told = f" ({'; '.join(ways)})" if ways else ""
    raise PatchlightError(f"{first.name}: {first.reason}{more}{told}")


def _skip(job: Job, found: Found) -> tuple[str, ...]:
    """A sentence on the images that are left out.

    Raises PatchlightError where nothing is left of a split, of a class, or of a class's training images.
    """
    if not found.bad:
        return ()
    if nothing := _emptied(job, found):
        first = found.bad[0]
        raise PatchlightError(
            f"no image of {nothing[0]} of {named(job.config.source)} can be read ({first.name}: {first.reason}); mend "
            "them, as data.on_bad = 'skip' leaves out only some of a split and of a class"
        )
    return (skip_sentence(found.bad),)


def _emptied(job: Job, found: Found) -> list[str]:
    """The splits, classes and classes' training images of which nothing is left without the bad images, in words."""
    names, lost = job.listing.class_names, Counter[tuple[str, int]]()
    for each in found.bad:
        lost[each.split, int(job.listing.splits[each.split].labels[each.index])] += 1
    there = {key: np.bincount(split.labels, minlength=len(names)) for key, split in job.listing.splits.items()}
    left = {key: counts - np.array([lost[key, i] for i in range(len(names))]) for key, counts in there.items()}
    all_there, all_left = np.sum(list(there.values()), axis=0), np.sum(list(left.values()), axis=0)
    nothing = [f"the split '{key}'" for key in left if there[key].any() and not left[key].any()]
    nothing += [f"the class '{name}'" for label, name in enumerate(names) if all_there[label] and not all_left[label]]
    if "train" in left:
        of_train = zip(names, there["train"], left["train"], strict=True)
        nothing += [f"the training images of the class '{name}'" for name, had, has in of_train if had and not has]
    return nothing


def skip_sentence(bad: list[BadFile]) -> str:
    """How many images are left out because they cannot be read, why, and the first of them."""
    kinds = Counter(re.sub(r"\d+", "0", each.reason) for each in bad)
    first = {kind: next(b.reason for b in bad if re.sub(r"\d+", "0", b.reason) == kind) for kind in kinds}
    told = ", ".join(f"'{first[kind]}' ({count:,})" for kind, count in kinds.most_common(NAMED))
    more = f" and {len(kinds) - NAMED} more reasons" if len(kinds) > NAMED else ""
    images = f"{counted(len(bad), 'image')} that cannot be read"
    names = ", ".join(each.name for each in bad[:NAMED])
    return f"left out, as data.on_bad is 'skip': {images}: {told}{more}; such as {names}"
