"""What the .npz files of a run folder hold, as types that are checked when they are made.

`first_batch.npz` is FirstBatch, `samples.npz` Samples, `subset_samples.npz` SubsetSamples, `insight.npz` Insight,
`snapshots.npz` Snapshots, `reconstructions.npz` Reconstructions, `near_copies.npz` NearCopies.

Shapes: S samples, K classes, H W pixels, L layers, A heads, N patches, (r, c) the patch grid, E snapshots.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from patchlight.runs.codec import RecordError, checked

LONGEST = 65536  # of a side of an array: pixels, patches, classes, images
LARGEST = 1e38  # of its numbers
# What stands in arrays, where that is not numbers of any kind: letters of NumPy's kinds, and words.
KINDS = {
    **dict.fromkeys(("kind", "seen", "held"), ("U", "text")),
    **dict.fromkeys(
        ("labels", "explored", "epochs", "images_held", "found", "exact", "places", "comparison"),
        ("iu", "whole numbers"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Arrays:
    """Base of records of arrays. A field that is None is left out of the file."""

    def __post_init__(self) -> None:
        wrong = self._odd() or self.mistake()
        if wrong:
            raise RecordError(wrong)

    def _odd(self) -> str:
        """As `mistake`: of arrays with another kind of values than theirs, with nothing in them, or too long a side."""
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            if not isinstance(value, np.ndarray):
                continue
            kinds, words = KINDS.get(f.name, ("biuf", "numbers"))
            if value.dtype.kind not in kinds:
                return f"{f.name} must be {words}, not {value.dtype}"
            if value.ndim > 1 and 0 in value.shape[1:]:
                return f"{f.name} is {_by(value.shape)}, in which there is nothing"
            if max(value.shape, default=0) > LONGEST:
                return f"{f.name} is {_by(value.shape)}, and a side is at most {LONGEST}"
            if value.dtype.kind == "f" and float(np.abs(value[np.isfinite(value)]).max(initial=0)) > LARGEST:
                return f"{f.name} has numbers beyond {LARGEST:g}"
        return ""

    def mistake(self) -> str:
        """What is wrong with the arrays, beginning with the name of one; empty where they are right."""
        return ""

    def to_arrays(self) -> dict[str, np.ndarray]:
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {name: np.asarray(value) for name, value in values.items() if value is not None}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Raises RecordError, naming the array, where one is missing or of another shape or type."""
        values: dict[str, Any] = {}
        for f in dataclasses.fields(cls):
            if f.name in arrays:
                value = arrays[f.name]
                kind = str(f.type)
                scalar = {"str": str, "int": int}.get(kind.removesuffix(" | None"))
                values[f.name] = value if scalar is None else _scalar(value, scalar, f.name)
            elif f.default is dataclasses.MISSING:
                raise RecordError(f"the array '{f.name}' is missing")
        return cls(**values)


def _scalar(value: np.ndarray, kind: type, name: str) -> Any:
    """The one value of an array. Raises RecordError where there is another number of them, or one of another kind."""
    if value.size != 1 or value.dtype.kind not in {str: "U", int: "iu"}[kind]:
        raise RecordError(
            f"{name} must be one {'text' if kind is str else 'whole number'}, not {value.dtype} {value.shape}"
        )
    return checked(value.reshape(-1)[0].item(), kind, name)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _is_share(values: np.ndarray) -> bool:
    """Whether all are finite and from 0 to 1, but for rounding; half precision rounds to thousandths."""
    return bool(np.isfinite(values).all() and np.all((values >= -1e-3) & (values <= 1 + 1e-3)))


@dataclass(frozen=True, kw_only=True)
class Samples(Arrays):
    """The images that the page shows, with what the model said of them."""

    images: np.ndarray  # (S, H, W, 3) uint8
    labels: np.ndarray  # (S,) whole numbers
    probs: np.ndarray  # (S, K)
    kind: np.ndarray  # (S,) "wrong" or "right"
    maps: np.ndarray | None = None  # (S, r, c), of a model with attention
    map_title: str | None = None  # what the maps are
    patch_size: int | None = None  # pixels a side

    def mistake(self) -> str:
        count = len(self.images) if self.images.ndim else -1
        if self.images.ndim != 4 or self.images.shape[3] != 3 or self.images.dtype != np.uint8:
            return "images must be (S, H, W, 3) of uint8"
        if self.probs.ndim != 2 or len(self.probs) != count or self.kind.shape != (count,):
            return f"probs and kind must have a row for each of the {count} images"
        if self.labels.shape != (count,) or not np.issubdtype(self.labels.dtype, np.integer):
            return f"labels must be {count} whole numbers"
        if np.any((self.labels < 0) | (self.labels >= self.probs.shape[1])):
            return f"labels must be in 0..{self.probs.shape[1] - 1}"
        if not _is_share(self.probs):
            return "probs must be shares from 0 to 1"
        if self.patch_size is not None and not 1 <= self.patch_size <= LONGEST:
            return f"patch_size must be from 1 to {LONGEST}, not {self.patch_size}"
        maps = self.maps
        if maps is not None and (maps.ndim != 3 or len(maps) != count or not np.isfinite(maps).all()):
            return f"maps must be {count} of finite numbers"
        return ""


@dataclass(frozen=True, kw_only=True)
class SubsetSamples(Samples):
    """Images of the subset's own test, which `data.subset_test_per_class` cuts off the training images."""


@dataclass(frozen=True, kw_only=True)
class FirstBatch(Arrays):
    """Some images of the first batch as they are trained on: augmented, and mixed where the recipe mixes."""

    images: np.ndarray  # (S, H, W, 3) uint8
    labels: np.ndarray  # (S,) whole numbers
    targets: np.ndarray  # (S, K): the share of each class in the label
    mixed: np.ndarray  # (S,) bool: it has pixels of another image

    def mistake(self) -> str:
        count = len(self.images) if self.images.ndim else -1
        if self.images.ndim != 4 or self.images.shape[3] != 3 or self.images.dtype != np.uint8:
            return "images must be (S, H, W, 3) of uint8"
        if self.targets.ndim != 2 or len(self.targets) != count or not np.isfinite(self.targets).all():
            return f"targets must be {count} rows of finite numbers"
        if self.labels.shape != (count,) or np.any((self.labels < 0) | (self.labels >= self.targets.shape[1])):
            return f"labels must be {count} in 0..{self.targets.shape[1] - 1}"
        if not _is_share(self.targets):
            return "targets must be shares from 0 to 1"
        if self.mixed.shape != (count,) or self.mixed.dtype != np.bool_:
            return f"mixed must be {count} of true or false"
        return ""


@dataclass(frozen=True, kw_only=True)
class Insight(Arrays):
    """How the page looks inside a ViT, about the samples of `samples.npz`."""

    relevance: np.ndarray  # (S, 2, r, c): for the predicted and for the true class
    explored: np.ndarray  # (X,): which samples' attention is kept
    attention: np.ndarray  # (X, L, A, N, N) uint8, each row stretched to its greatest weight
    distance: np.ndarray  # (L, A) pixels
    entropy: np.ndarray  # (L, A) nats
    filters: np.ndarray  # (n, p, p, 3) uint8
    pooled: np.ndarray | None = None  # (X, L, A, r, c) uint8: what the pooled token reads
    positions: np.ndarray | None = None  # (N, r, c) similarity
    # Of the samples that are explored, patch tokens before the first block in V views: the patches, and what the first
    # block reads where that is something else.
    embed_colours: np.ndarray | None = None  # (X, V, r, c, 3) uint8
    embed_likeness: np.ndarray | None = None  # (X, V, r, c): cosine similarity to the middle patch
    embed_matrices: np.ndarray | None = None  # (V, M, M): of every two of M patches of the first of these samples
    embed_norms: np.ndarray | None = None  # (2, r, c): of the patches, and of the positions that are added
    embed_positions: np.ndarray | None = None  # (M, M): cosine similarity of these positions, where there are any
    embed_about: str | None = None  # a sentence about the positions

    def mistake(self) -> str:
        dims = {"relevance": 4, "explored": 1, "attention": 5, "distance": 2, "entropy": 2, "filters": 4}
        for name, ndim in dims.items():
            if getattr(self, name).ndim != ndim:
                return f"{name} must have {ndim} dimensions"
        count, _, rows, columns = self.relevance.shape
        if self.relevance.shape[1] != 2 or not np.isfinite(self.relevance).all():
            return "relevance must be two maps of finite numbers for each sample"
        if self.attention.dtype != np.uint8 or self.filters.dtype != np.uint8:
            return "attention and filters must be of uint8"
        if len(self.attention) != len(self.explored) or self.attention.shape[3:] != (rows * columns, rows * columns):
            return f"attention must be between {rows * columns} patches, for each sample that is explored"
        if np.any((self.explored < 0) | (self.explored >= count)):
            return f"explored must be in 0..{count - 1}"
        layers, heads = self.distance.shape
        if self.entropy.shape != (layers, heads) or self.attention.shape[1:3] not in ((layers, heads), (layers, 1)):
            return "distance and entropy must have a number for each head that attention has, or is the mean of"
        if not np.isfinite(self.distance).all() or not np.isfinite(self.entropy).all():
            return "distance and entropy must be finite numbers"
        if self.filters.shape[3] != 3:
            return "filters must be (n, p, p, 3)"
        pooled = self.pooled
        if pooled is not None and (pooled.ndim != 5 or pooled.dtype != np.uint8 or pooled.shape[3:] != (rows, columns)):
            return f"pooled must be maps of {rows} x {columns} of uint8"
        if pooled is not None and (len(pooled) < len(self.explored) or pooled.shape[1] != self.attention.shape[1]):
            return "pooled must have maps for each sample that is explored, and for each layer"
        if self.positions is not None and not np.isfinite(self.positions).all():
            return "positions must be finite numbers"
        if self.positions is not None and self.positions.shape != (rows * columns, rows, columns):
            return f"positions must be a map of {rows} x {columns} for each patch"
        return self.embedding_mistake(rows, columns)

    def embedding_mistake(self, rows: int, columns: int) -> str:
        """`mistake` of the arrays about tokens before the first block, which are there together or not at all."""
        if self.embed_colours is None:
            return ""
        count = len(self.explored)
        patches = 0 if self.embed_matrices is None else self.embed_matrices.shape[-1]
        views = self.embed_colours.shape[1] if self.embed_colours.ndim == 5 else 0
        if self.embed_colours.dtype != np.uint8 or views not in (1, 2):
            return "embed_colours must be pictures of one or two views, of uint8"
        shapes = {
            "embed_colours": (count, views, rows, columns, 3),
            "embed_likeness": (count, views, rows, columns),
            "embed_matrices": (views, patches, patches),
            "embed_norms": (2, rows, columns),
        }
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value is None or value.shape != shape or not np.isfinite(value).all():
                return f"{name} must be finite numbers of the shape {shape}"
        if self.embed_positions is not None and not np.isfinite(self.embed_positions).all():
            return "embed_positions must be finite numbers"
        if self.embed_positions is not None and self.embed_positions.shape != (patches, patches):
            return f"embed_positions must be of {patches} patches"
        return ""


@dataclass(frozen=True, kw_only=True)
class Snapshots(Arrays):
    """Maps of a few validation images, epoch by epoch."""

    epochs: np.ndarray  # (E,)
    images: np.ndarray  # (S, H, W, 3) uint8
    labels: np.ndarray  # (S,)
    maps: np.ndarray  # (E, S, r, c), for each image's true class
    probs: np.ndarray  # (E, S, K)
    method: str = "chefer"  # that made the maps

    def mistake(self) -> str:
        dims = {"images": 4, "labels": 1, "epochs": 1, "maps": 4, "probs": 3}
        for name, ndim in dims.items():
            if getattr(self, name).ndim != ndim:
                return f"{name} must have {ndim} dimensions"
        epochs, count = len(self.epochs), len(self.images)
        if self.images.dtype != np.uint8 or self.images.shape[3] != 3 or not epochs or not count:
            return "images must be (S, H, W, 3) of uint8, of one epoch at least"
        if self.maps.shape[:2] != (epochs, count) or self.probs.shape[:2] != (epochs, count):
            return f"maps and probs must be of {epochs} epochs and {count} images"
        if not np.isfinite(self.maps).all() or not _is_share(self.probs):
            return "maps must be of finite numbers, and probs of shares from 0 to 1"
        if np.any(self.epochs < 0):
            return "epochs must be 0 or more"
        if self.labels.shape != (count,) or np.any((self.labels < 0) | (self.labels >= self.probs.shape[2])):
            return f"labels must be {count} in 0..{self.probs.shape[2] - 1}"
        return ""


@dataclass(frozen=True, kw_only=True)
class Reconstructions(Arrays):
    """What masked autoencoding makes of a few images, (S, H, W, 3) uint8 each."""

    images: np.ndarray
    hidden: np.ndarray  # grey where patches were hidden
    painted: np.ndarray  # with what the model put there

    def mistake(self) -> str:
        views = (self.images, self.hidden, self.painted)
        if len({view.shape for view in views}) > 1 or any(
            view.ndim != 4 or view.shape[3] != 3 or view.dtype != np.uint8 for view in views
        ):
            return "images, hidden and painted must be (S, H, W, 3) of uint8 and of one shape"
        return ""


@dataclass(frozen=True, kw_only=True)
class NearCopies(Arrays):
    """Images of one set that look almost like an image of another, and how many there are (C comparisons, P pairs)."""

    seen: np.ndarray  # (C,) the set that was learned or selected by: "train" or "val"
    held: np.ndarray  # (C,) the set that is measured
    images_held: np.ndarray  # (C,) how many images that set has
    found: np.ndarray  # (C,) how many of them have a near copy, exact ones among them
    exact: np.ndarray  # (C,) how many have the same pixels
    threshold: np.ndarray  # (C,) the likeness from which on two images count
    pairs: np.ndarray  # (P, 2, H, W, 3) uint8: the seen image, the held one
    labels: np.ndarray  # (P, 2) whole numbers
    places: np.ndarray  # (P, 2) their indices in their sets
    comparison: np.ndarray  # (P,) which of the C
    likeness: np.ndarray  # (P,) 1 is the same

    def sentences(self) -> list[str]:
        """How many images of each set look like one of another, without a full stop; none where there is nothing."""
        words = {"train": "training", "val": "validation", "subset_test": "subset test"}
        told = []
        for number in np.flatnonzero(self.found).tolist():
            held, seen = (words.get(str(name), str(name)) for name in (self.held[number], self.seen[number]))
            count, of, exact = int(self.found[number]), int(self.images_held[number]), int(self.exact[number])
            same = f", {exact:,} with the same pixels" if exact else ""
            told.append(f"{held} images that look almost like a {seen} image: {count:,} of {of:,}{same}")
        return told

    def mistake(self) -> str:
        if self.found.ndim != 1 or not self.pairs.ndim:
            return "found must be a list, and pairs one of pairs of images"
        count, pairs = len(self.found), len(self.pairs)
        for name in ("seen", "held", "images_held", "exact", "threshold"):
            if getattr(self, name).shape != (count,):
                return f"{name} must be {count} values, as found is"
        if np.any(self.found < 0) or np.any(self.found > self.images_held) or np.any(self.exact > self.found):
            return "found must be from 0 to images_held, and exact no more than found"
        if self.pairs.dtype != np.uint8 or (pairs and (self.pairs.ndim != 5 or self.pairs.shape[1::3] != (2, 3))):
            return "pairs must be (P, 2, H, W, 3) of uint8"
        if self.labels.shape != (pairs, 2) or self.places.shape != (pairs, 2):
            return f"labels and places must be two for each of {pairs} pairs"
        if self.likeness.shape != (pairs,) or not np.isfinite(self.likeness).all():
            return f"likeness must be {pairs} finite numbers"
        if self.comparison.shape != (pairs,) or np.any((self.comparison < 0) | (self.comparison >= max(count, 1))):
            return f"comparison must be {pairs} in 0..{count - 1}"
        return ""
