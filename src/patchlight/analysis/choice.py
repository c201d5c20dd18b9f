"""Which images `patchlight explain` looks at: of a split by class or by index, or a spread over both kinds of answers.

Shapes: N images of a split, P that are predicted to choose from, S that are chosen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from patchlight.data.images import ImageSet
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.evaluation.evaluate import predict_logits
from patchlight.machine.seeds import seeded_generator
from patchlight.models import ModelCard
from patchlight.runs import Samples

COUNT = 12  # images, where nobody says how many
EACH = 4  # of each class, where classes are named and nobody says how many
MOST = 200  # images that fit side by side into pictures and memory
POOL = 2000  # images that are predicted to choose from, of all classes together
POOLED = 100  # of each class that is named, at least, as far as there are so many: a mean map is made of them


@dataclass(frozen=True)
class Pool:
    """Images of a split with the model's answers: what is chosen from."""

    images: ImageSet  # the whole split
    indices: np.ndarray  # (P,) in the split, in an order that was drawn
    labels: np.ndarray  # (P,)
    preds: np.ndarray  # (P,)


@dataclass(frozen=True)
class Chosen:
    """The images, and how they came to be chosen. What image files do not have is None."""

    pixels: Tensor  # (S, 3, H, W) uint8
    names: tuple[str, ...]  # (S,)
    how: str
    labels: np.ndarray | None = None  # (S,)
    split: str | None = None
    indices: np.ndarray | None = None  # (S,) in the split, from 0
    pool: Pool | None = None
    classes: tuple[int, ...] = ()  # those that were asked for
    notes: tuple[str, ...] = ()  # sentences on the image files
    paths: tuple[Path, ...] = ()  # of image files


def spread(labels: np.ndarray, preds: np.ndarray, count: int) -> np.ndarray:
    """Up to `count` indices of images with these labels and predicted classes (P,): every class has its share first,
    and wrong and right ones are taken in turn, as far as there are such. What is equal in this is drawn by a fixed
    seed.
    """
    order = torch.randperm(len(labels), generator=seeded_generator(0, "samples", 1)).tolist()
    cells: dict[tuple[bool, int], list[int]] = {}  # whether right, and the class
    for index in order:
        cells.setdefault((bool(preds[index] == labels[index]), int(labels[index])), []).append(index)
    drawn = {int(label): place for place, label in enumerate(dict.fromkeys(labels[order].tolist()))}
    share = max(1, count // max(1, len(drawn)))  # of each class, before any has more
    taken: Counter[object] = Counter()

    def least(cell: tuple[bool, int]) -> tuple[int, ...]:
        right, label = cell
        kind = taken["right" if right else "wrong"]
        return taken[label] >= share, kind, taken[label], taken[cell], right, drawn[label]

    chosen = []
    for _ in range(min(count, len(labels))):
        cell = min((cell for cell, left in cells.items() if left), key=least)
        chosen.append(cells[cell].pop(0))
        taken.update(["right" if cell[0] else "wrong", cell[1], cell])
    return np.array(chosen, dtype=np.int64)


def class_index(wanted: str | int, names: Sequence[str]) -> int:
    """The class with this name or, where no class's name is a number, with this index; an int is an index.

    Raises UsageError where there is none.
    """
    if isinstance(wanted, int | np.integer):
        if 0 <= wanted < len(names):
            return int(wanted)
        raise UsageError(f"the classes have the indices 0 to {len(names) - 1}, so there is no {wanted}")
    if wanted in names:
        return list(names).index(wanted)
    if is_number(wanted) and int(wanted) < len(names) and not any(map(is_number, names)):
        return int(wanted)
    raise UsageError(f"no class '{wanted}'; {did_you_mean(wanted, names)}")


def is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal()


def check_count(words: str, count: int) -> None:
    """Raises UsageError where more images are asked for than are shown at once."""
    if count > MOST:
        raise UsageError(f"{words} {count:,} images; take {MOST} at most, and more in further calls with another --out")


def choose_by_index(images: ImageSet, split: str, indices: Sequence[int]) -> Chosen:
    """The images with these indices, as they are given. Raises UsageError for one that the split does not have."""
    places = list(dict.fromkeys(int(index) for index in indices))
    if wrong := [index for index in places if not 0 <= index < len(images)]:
        raise UsageError(f"the '{split}' images have the indices 0 to {len(images) - 1}, so there is no {wrong[0]}")
    check_count("--index names", len(places))
    return taken_from(images, split, np.array(places), f"the '{split}' images with the indices that were given")


def choose_by_class(
    model: nn.Module, card: ModelCard, images: ImageSet, split: str, classes: Sequence[int], count: int | None
) -> Chosen:
    """A `spread` over `classes`, or over all where there are none, of as many images as can be looked at quickly.

    Raises UsageError where `count` is less than the classes or more than MOST, PatchlightError for a class that has no
    images there.
    """
    wanted = list(dict.fromkeys(classes))
    check_count("--count asks for", count or 0)
    if count is not None and count < len(wanted):
        raise UsageError(f"--count {count} is less than the {len(wanted)} classes; take one image of each at least")
    counts = images.class_counts().tolist()
    if empty := [card.class_names[label] for label in wanted if not counts[label]]:
        raise PatchlightError(f"no '{split}' image is of the class '{empty[0]}'; choose another class or --split")
    there = [label for label, images_of in enumerate(counts) if images_of]
    each = max(POOLED, POOL // len(wanted)) if wanted else -(-POOL // len(there))
    pool = predicted(model, card, images, wanted or there, each)
    most = max(COUNT, EACH * len(wanted)) if count is None else count
    places = spread(pool.labels, pool.preds, most)
    shown = len(set(pool.labels[places].tolist()))
    every = "all classes" if shown == len(there) else f"{shown} of the {len(there)} classes"
    named = ", ".join(f"'{card.class_names[label]}'" for label in wanted) or every
    whole = len(pool.indices) == sum(counts[label] for label in wanted or range(len(counts)))
    right = int((pool.labels == pool.preds).sum())
    how = (
        f"a spread over {named} and over right and wrong answers, drawn by a fixed seed from {len(pool.indices):,} "
        f"'{split}' images{'' if whole else ' that were drawn'}, of which the model predicts {right:,} rightly"
    )
    return replace(taken_from(images, split, pool.indices[places], how), pool=pool, classes=tuple(wanted))


def predicted(model: nn.Module, card: ModelCard, images: ImageSet, classes: Sequence[int], each: int) -> Pool:
    """Up to `each` images of each of the classes, in a drawn order, with the model's answers."""
    order = torch.randperm(len(images), generator=seeded_generator(0, "samples", 2))
    labels = images.labels[order]
    rows = torch.cat([torch.nonzero(labels == label).flatten()[:each] for label in classes]).sort().values
    indices = order[rows]
    logits = predict_logits(model, card, images.select(indices), label="predicting")
    return Pool(images, indices.numpy(), images.labels[indices].numpy(), logits.argmax(axis=1))


def taken_from(images: ImageSet, split: str, indices: np.ndarray, how: str) -> Chosen:
    """These images of the split."""
    pixels, labels = images.gather(indices)
    names = tuple(f"{split} {index}" for index in indices.tolist())
    return Chosen(pixels, names, how, labels.numpy(), split, indices)


def choose_samples(samples: Samples, count: int | None, why: str) -> Chosen:
    """A `spread` of the images that the run's page shows; `why` these and not the split's."""
    places = spread(samples.labels, samples.probs.argmax(axis=1), COUNT if count is None else count)
    pixels = torch.from_numpy(samples.images[places]).permute(0, 3, 1, 2).contiguous()
    how = f"a spread over the {len(samples.labels)} samples of the run's report, as {why}"
    return Chosen(pixels, tuple(f"sample {place}" for place in places), how, samples.labels[places])
