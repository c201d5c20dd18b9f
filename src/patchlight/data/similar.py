"""Images of one set that look almost like an image of another: copies that were resized, stored again, or recoloured.

Two steps. A perceptual hash (the DCT hash of the library imagehash, 64 bits) finds pairs that may be alike; of these,
the details are compared: both images in grey at 32 x 32 pixels, what is left of them without their local mean, and the
correlation of that, the likeness. Pairs count from a likeness of 0.5 on or, where images are much alike anyway (as
digits of one class are), from 0.25 above the likeness that an image has with its tenth neighbour (the median of some
images; the first neighbours may be copies). Mirrored or strongly cropped copies are not found.
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
ABOVE_OTHERS = 0.25
NEIGHBOUR = 10
SIDE = 32  # pixels that are compared
FLAT = 0.25  # grey levels that details deviate by in an image without any, by rounding
SAMPLE = (200, 1000)  # images of the set that is measured, and of each set, that say how alike unrelated ones are
TILE = (2000, 4000)  # held and seen images that are compared at a time


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
        threshold = _threshold(sets, sets[held])
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


def _threshold(sets: dict[str, ImageSet], held: ImageSet) -> float:
    """The likeness from which on a pair of `held` counts: above what images have in these sets that are no copies."""
    few = _spread(held, SAMPLE[0])
    many = torch.cat([_spread(images, SAMPLE[1]) for images in sets.values()])
    likeness = few @ many.T
    neighbour = likeness.topk(min(NEIGHBOUR, likeness.shape[1]), dim=1).values[:, -1]
    return max(LEAST, float(neighbour.median()) + ABOVE_OTHERS)


def _spread(images: ImageSet, count: int) -> Tensor:
    """The details of some images at equal distances."""
    return _details_of(images, np.linspace(0, len(images) - 1, min(count, len(images))).round().astype(np.int64))


def _details_of(images: ImageSet, rows: np.ndarray) -> Tensor:
    """The details of the images in these rows (R,), R x 1024."""
    return torch.cat([details(images.gather(part)[0]) for part in torch.from_numpy(rows).split(CHUNK)])


def _best(
    seen: ImageSet, seen_hashes: np.ndarray, held: ImageSet, held_hashes: np.ndarray, threshold: float
) -> Iterator[tuple[int, int, float, bool]]:
    """For each held image with a near duplicate: its index, that of the most alike seen one, likeness, and whether the
    pixels are the same.

    Details are compared tile by tile, so that sets of which all images are alike take no longer than a matrix product.
    """
    first = {key: index for index, key in reversed(list(enumerate(seen.hashes)))}
    same = [first.get(key) for key in held.hashes]
    left = np.array([index for index, other in enumerate(same) if other is None], dtype=np.int64)
    best, place = np.full(len(held), -1.0, dtype=np.float32), np.zeros(len(held), dtype=np.int64)
    for start in range(0, len(seen), TILE[1]):
        for rows in (left[at : at + TILE[0]] for at in range(0, len(left), TILE[0])):
            others = seen_hashes[start : start + TILE[1]]
            near = np.bitwise_count(held_hashes[rows, None] ^ others[None]) <= HASH_DISTANCE
            some, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
            if not len(some):
                continue
            likeness = (_details_of(held, rows[some]) @ _details_of(seen, columns + start).T).numpy()
            likeness[~near[np.ix_(some, columns)]] = -1
            most = likeness.argmax(axis=1)
            value = likeness[np.arange(len(some)), most]
            better = value > best[rows[some]]
            best[rows[some[better]]], place[rows[some[better]]] = value[better], columns[most[better]] + start
    for index, other in enumerate(same):
        if other is not None:
            yield index, other, 1.0, True
        elif best[index] >= threshold:
            yield index, int(place[index]), float(best[index]), False
