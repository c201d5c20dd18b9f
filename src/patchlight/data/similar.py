"""Images of one set that look almost like an image of another: copies that were resized, stored again, or recoloured.

Two steps. A perceptual hash (the DCT hash of the library imagehash, 64 bits) finds pairs that may be alike; of these,
the details are compared: both images in grey at 32 x 32 pixels, what is left of them without their local mean, and the
correlation of that, the likeness. Pairs count from a likeness of 0.5 on, or from 0.2 above what unrelated images of
the sets have (digits of one class look alike and are no copies), whichever is more. Mirrored or strongly cropped
copies are not found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from patchlight.data.images import CHUNK, ImageSet
from patchlight.progress import Progress

HASH_DISTANCE = 10  # of 64 bits
LEAST = 0.5
ABOVE_OTHERS = 0.2
SIDE = 32  # pixels that are compared
FLAT = 0.25  # grey levels that details deviate by in an image without any, by rounding
SAMPLE = (200, 1000)  # images of both sets that say how alike unrelated images are
ROWS = 200  # hashes compared with all others at a time


@dataclass(frozen=True)
class NearPair:
    """An image of a set that is measured, and the most alike image of a set that was learned or selected by."""

    seen: str  # the names of the sets, as in `Splits.sets`
    seen_index: int
    held: str
    held_index: int
    likeness: float  # -1..1; 1 for the same pixels
    exact: bool  # the same pixels


@dataclass(frozen=True)
class NearDuplicates:
    """The pairs, the most alike first; each image that is measured stands in one at most for each other set."""

    pairs: tuple[NearPair, ...]
    threshold: dict[
        str, float
    ]  # by "SEEN-HELD": the likeness from which on a pair counts; above 1, only exact copies do

    def of(self, held: str, seen: str = "train") -> list[NearPair]:
        """The pairs between two sets."""
        return [pair for pair in self.pairs if (pair.held, pair.seen) == (held, seen)]


COMPARED = (("train", "val"), ("train", "test"), ("train", "subset_test"), ("val", "test"))


def near_duplicates(sets: dict[str, ImageSet], label: str = "looking for near duplicates") -> NearDuplicates:
    """All pairs of images in two of the `sets` that look almost the same. With a `label` long work shows progress."""
    there = [(seen, held) for seen, held in COMPARED if seen in sets and held in sets]
    wanted = {name for pair in there for name in pair}
    hashes = dict(_hash_all({name: images for name, images in sets.items() if name in wanted}, label))
    pairs, thresholds = list[NearPair](), dict[str, float]()
    for seen, held in there:
        threshold = _threshold(sets[seen], sets[held])
        thresholds[f"{seen}-{held}"] = round(threshold, 3)
        for at, other, likeness, exact in _best(sets[seen], hashes[seen], sets[held], hashes[held], threshold):
            pairs.append(NearPair(seen, other, held, at, round(likeness, 4), exact))
    pairs.sort(key=lambda pair: -pair.likeness)
    return NearDuplicates(tuple(pairs), thresholds)


def details(images: Tensor) -> Tensor:
    """(B, 3, H, W) uint8 as (B, 1024) rows of length 1 that hold the details; of a flat image they
    are nearly 0."""
    grey = images.float().mean(dim=1, keepdim=True)
    grey = F.interpolate(grey, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    local = F.avg_pool2d(grey, 5, stride=1, padding=2, count_include_pad=False)
    return F.normalize((grey - local).flatten(1), dim=1, eps=FLAT * SIDE)


def _hash_all(sets: dict[str, ImageSet], label: str) -> Iterator[tuple[str, np.ndarray]]:
    """The hash of every image of each set, (N,) uint64."""
    import imagehash

    with Progress(sum(len(images) for images in sets.values()), label) as progress:
        for name, images in sets.items():
            own = np.empty(len(images), dtype=np.uint64)
            at = 0
            for chunk in images.chunks():
                for pixels in chunk.permute(0, 2, 3, 1).numpy():
                    bits = imagehash.phash(Image.fromarray(pixels)).hash.reshape(-1)
                    own[at] = np.packbits(bits).view(">u8")[0]
                    at += 1
                    progress.advance()
                if label and progress.due():
                    progress.show("")
            yield name, own


def _threshold(seen: ImageSet, held: ImageSet) -> float:
    """The likeness from which on a pair of these sets counts."""
    few, many = (_spread(images, count) for images, count in zip((held, seen), SAMPLE, strict=True))
    closest = (few @ many.T).amax(dim=1)
    return max(LEAST, float(closest.median()) + ABOVE_OTHERS)


def _spread(images: ImageSet, count: int) -> Tensor:
    """The details of some images at equal distances."""
    rows = torch.linspace(0, len(images) - 1, min(count, len(images))).round().to(torch.int64)
    return torch.cat([details(images.gather(part)[0]) for part in rows.split(CHUNK)])


def _best(
    seen: ImageSet, seen_hashes: np.ndarray, held: ImageSet, held_hashes: np.ndarray, threshold: float
) -> Iterator[tuple[int, int, float, bool]]:
    """For each held image with a near duplicate: its index, that of the most alike seen one, likeness, and whether the
    pixels are the same.
    """
    first = {key: index for index, key in reversed(list(enumerate(seen.hashes)))}
    for start in range(0, len(held), ROWS):
        distances = np.bitwise_count(held_hashes[start : start + ROWS, None] ^ seen_hashes[None])
        rows, columns = np.nonzero(distances <= HASH_DISTANCE)
        likeness = _likeness(held, rows + start, seen, columns)
        for row in range(min(ROWS, len(held) - start)):
            if (same := first.get(held.hashes[start + row])) is not None:
                yield start + row, same, 1.0, True
                continue
            own = np.flatnonzero(rows == row)
            if len(own) and likeness[best := own[likeness[own].argmax()]] >= threshold:
                yield start + row, int(columns[best]), float(likeness[best]), False


def _likeness(held: ImageSet, rows: np.ndarray, seen: ImageSet, columns: np.ndarray) -> np.ndarray:
    """Of each pair (P,) the likeness (P,)."""
    values = np.zeros(len(rows), dtype=np.float32)
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        a, b = held.gather(rows[part])[0], seen.gather(columns[part])[0]
        values[part] = (details(a) * details(b)).sum(dim=1).numpy()
    return values
