"""A split of labelled images as one uint8 tensor, selections of it that copy nothing, and what can be counted in it."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from patchlight.errors import PatchlightError

# Images that are read together where a whole set is walked: 48 MB of 224 x 224 pixels.
CHUNK = 320

Indices = Tensor | np.ndarray | Sequence[int] | range


@dataclass(frozen=True)
class BadFile:
    """An image that cannot be read: the source's split, its place in the split, its name, and the reason."""

    split: str
    index: int
    name: str
    reason: str


@dataclass(frozen=True)
class ImageSet:
    """Labelled images of one size.

    `images` is (M, 3, H, W) uint8, in memory or memory-mapped, and may be shared by several sets. `rows` (N,) int64 are
    the indices in `images` of this set's images, in order; None stands for all of them (N = M). `labels` (N,) int64
    belong to this set alone. Read pixels through `gather`, which applies `rows`. `notes` are sentences about what was
    done to the source, for readers of the results; `skipped` are all images of the source that could not be read.

    Raises PatchlightError where a tensor has a wrong type or shape, or a label or a row is out of range.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    rows: Tensor | None = None
    notes: tuple[str, ...] = ()
    skipped: tuple[BadFile, ...] = ()

    def __post_init__(self) -> None:
        _check_images(self.images)
        _check_index_tensor(self.labels, "labels", len(self.class_names), f"{len(self.class_names)} class names")
        if self.rows is not None:
            _check_index_tensor(self.rows, "rows", len(self.images), f"{len(self.images)} images")
        count = len(self.images) if self.rows is None else len(self.rows)
        if len(self.labels) != count:
            raise PatchlightError(f"an image set has {count} images and {len(self.labels)} labels")
        if len(set(self.class_names)) != len(self.class_names):
            twice = next(name for name in self.class_names if self.class_names.count(name) > 1)
            raise PatchlightError(f"an image set has the class name {twice!r} twice")

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return int(self.images.shape[2]), int(self.images.shape[3])

    def gather(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """The images (B, 3, H, W) uint8 and labels (B,) int64 at `indices`, as new tensors in the given order.

        `indices` are B whole numbers in 0..N-1. Raises PatchlightError for one out of range.
        """
        chosen = self._checked(indices)
        rows = chosen if self.rows is None else self.rows[chosen]
        return self.images.index_select(0, rows), self.labels.index_select(0, chosen)

    def select(self, indices: Indices) -> ImageSet:
        """The images at `indices`, in the given order, as a set that shares this one's pixels. Raises as `gather`."""
        chosen = self._checked(indices)
        rows = chosen.clone() if self.rows is None else self.rows[chosen]
        return replace(self, labels=self.labels[chosen], rows=rows)

    def to(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """All images (N, 3, H, W) uint8 and labels (N,) int64 of this set, in order, on `device`."""
        images = torch.empty((len(self), *self.images.shape[1:]), dtype=torch.uint8, device=device)
        start = 0
        for chunk in self.chunks(4096):
            images[start : start + len(chunk)] = chunk.to(device)
            start += len(chunk)
        return images, self.labels.to(device)

    @functools.cached_property
    def hashes(self) -> list[bytes]:
        """`content_hash` of every image, in order."""
        return [content_hash(image) for chunk in self.chunks() for image in chunk.numpy()]

    def class_counts(self) -> Tensor:
        """(K,) int64: how many images each class has."""
        return torch.bincount(self.labels, minlength=len(self.class_names))

    def chunks(self, size: int = CHUNK) -> Iterator[Tensor]:
        """All pixels in order, (at most `size`, 3, H, W) uint8 at a time."""
        for start in range(0, len(self), size):
            yield self.gather(range(start, min(start + size, len(self))))[0]

    def _checked(self, indices: Indices) -> Tensor:
        if isinstance(indices, range):
            indices = torch.arange(indices.start, indices.stop, indices.step)
        chosen = torch.as_tensor(np.asarray(indices) if not isinstance(indices, Tensor) else indices, device="cpu")
        if chosen.numel() == 0:
            chosen = chosen.to(torch.int64).reshape(0)
        if chosen.dim() != 1 or chosen.is_floating_point() or chosen.dtype == torch.bool:
            raise PatchlightError(
                f"indices are a list or a one-dimensional tensor of whole numbers, not {chosen.dtype} {_shape(chosen)}"
            )
        chosen = chosen.to(torch.int64)
        _check_index_tensor(chosen, "indices", len(self), f"{len(self)} images")
        return chosen


def channel_stats(images: ImageSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and (population) standard deviation of each channel, of pixels in 0..1.

    Exact but for one rounding at the end: pixels are counted by value, and sums of whole numbers lose nothing. A
    channel that is one flat colour has the deviation 0. Raises PatchlightError for an empty set.
    """
    if len(images) == 0:
        raise PatchlightError("an image set without images has no mean and standard deviation")
    counts = torch.zeros(3, 256, dtype=torch.int64)
    for chunk in images.chunks():
        for channel in range(3):
            counts[channel] += torch.bincount(chunk[:, channel].reshape(-1), minlength=256)
    mean, std = [], []
    for histogram in counts.tolist():
        n = sum(histogram)
        total = sum(value * count for value, count in enumerate(histogram))
        squares = sum(value * value * count for value, count in enumerate(histogram))
        mean.append(total / (n * 255))
        std.append(math.sqrt(n * squares - total * total) / (n * 255))
    return tuple(mean), tuple(std)


def digest(images: ImageSet) -> str:
    """A short name for exactly these pixels, labels and classes in this order: equal sets have equal digests."""
    state = hashlib.blake2b(repr(images.class_names).encode(), digest_size=16)
    state.update(images.labels.numpy().astype("<i8").tobytes())
    state.update(b"".join(images.hashes))
    return state.hexdigest()


def content_hash(pixels: np.ndarray) -> bytes:
    """A hash of 16 bytes of `pixels` (uint8, any shape): the same only where the shape and every pixel are the same."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def label_conflicts(images: ImageSet) -> int:
    """How many different pictures are in the set more than once, with several labels."""
    labels: dict[bytes, set[int]] = {}
    for key, label in zip(images.hashes, images.labels.tolist(), strict=True):
        labels.setdefault(key, set()).add(label)
    return sum(len(own) > 1 for own in labels.values())


def overlap(a: ImageSet, b: ImageSet) -> list[tuple[int, int]]:
    """Pairs (index in `a`, index in `b`) of equal pixels: each image of `b` that is in `a`, with its first place there.

    Empty where the sets share no image, as training, validation and test sets should.
    """
    first: dict[bytes, int] = {}
    for index, key in enumerate(a.hashes):
        first.setdefault(key, index)
    return [(first[key], index) for index, key in enumerate(b.hashes) if key in first]


def _check_images(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.device.type != "cpu":
        raise PatchlightError(f"images are a uint8 tensor on the CPU, not {images.dtype} on {images.device}")
    if images.dim() != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise PatchlightError(f"images have the shape (N, 3, height, width), not {_shape(images)}")


def _check_index_tensor(values: Tensor, name: str, limit: int, of_what: str) -> None:
    if values.dtype != torch.int64 or values.dim() != 1:
        raise PatchlightError(f"{name} are a one-dimensional tensor of int64, not {values.dtype} {_shape(values)}")
    if len(values) and (int(values.min()) < 0 or int(values.max()) >= limit):
        wrong = int(values.min()) if int(values.min()) < 0 else int(values.max())
        raise PatchlightError(f"{name}: {wrong} is out of range; there are {of_what}")


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
