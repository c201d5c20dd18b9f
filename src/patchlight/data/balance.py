"""Classes that a set lacks, and classes that have few images: an error, or sentences for the user."""

from __future__ import annotations

import unicodedata

import torch

from patchlight.data.images import ImageSet
from patchlight.data.listing import named
from patchlight.data.names import PADDING, words_of
from patchlight.errors import PatchlightError, first_of

ACCENTS = "these names differ only in how Unicode writes their accents; rename one of the folders"
UNEVEN = 3  # times the images of the smallest class in the largest: more is said


def check_known(train: ImageSet, held: dict[str, ImageSet | None], source: str) -> None:
    """Raises PatchlightError where a set that is measured has a class that no training image shows."""
    known = train.class_counts() > 0
    for name, images in held.items():
        if images is None:
            continue
        counts = images.class_counts()
        unknown = _named(train, (counts > 0) & ~known)
        if unknown:
            count, which = int(counts[~known].sum()), _listed(unknown, "class", "classes")
            raise PatchlightError(
                f"{named(source)}: {count:,} of {len(images):,} {name} images are of {which}, "
                f"which no training image shows{_likely_cause(unknown, train, known)}; mend the folders or labels"
            )


def _likely_cause(unknown: list[str], train: ImageSet, known: torch.Tensor) -> str:
    names = _named(train, known)
    plain = {_plain(name): name for name in names}
    for name in unknown:
        if (other := plain.get(_plain(name))) is not None:
            if _composed(other) == _composed(name):
                return f" (training has '{other}': {ACCENTS})"
            return f" (training has '{other}': is it the same class, written differently?)"
    if len(unknown) == 1 and set(words_of(unknown[0])) <= PADDING:
        return f" ('{unknown[0]}' looks like a folder of images of all classes, whose labels are in a file)"
    if len(unknown) == int((train.class_counts() == 0).sum()) and not set(unknown) & set(names):
        return f" (training has {_listed(names, 'class', 'classes')}: are these sets of one data set?)"
    return ""


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _plain(name: str) -> str:
    """A name without capitals, blanks, signs and the leading zeros of a number: what is often written differently."""
    return "".join(char for char in unicodedata.normalize("NFKC", name).casefold() if char.isalnum()).lstrip("0")


def balance_notes(train: ImageSet, held: dict[str, ImageSet | None]) -> list[str]:
    """Sentences on classes that have no images in a set, on those with few to train on, and on names that are alike."""
    notes = []
    if alike := _alike(train.class_names):
        composed = [_composed(name) for name in alike]
        same = sorted({name for name in composed if composed.count(name) > 1})
        which = f" ({first_of(same, 5)}: {ACCENTS})" if same else ""
        notes.append(f"classes whose names look alike: {', '.join(alike)}{which}; are they one class?")
    counts = train.class_counts()
    absent = _named(train, counts == 0)
    if absent:
        notes.append(f"no training image shows {_listed(absent)}")
    if line := _uneven(train):
        notes.append(line)
    for name, images in held.items():
        if images is None:
            continue
        lacking = _named(images, (images.class_counts() == 0) & (counts > 0))
        if lacking:
            notes.append(f"no {name} image shows {_listed(lacking)}, of which nothing is measured there")
    return notes


def _alike(names: tuple[str, ...]) -> list[str]:
    """Those names that are the same but for capitals, blanks, and the ways to write a letter in Unicode."""
    plain = [unicodedata.normalize("NFKC", "".join(name.split())).casefold() for name in names]
    return [name for name, key in zip(names, plain, strict=True) if plain.count(key) > 1]


def _uneven(images: ImageSet) -> str | None:
    """That the classes of the training images are uneven, where they are."""
    there = [
        (count, name) for count, name in zip(images.class_counts().tolist(), images.class_names, strict=True) if count
    ]
    if not there:
        return None
    (low, fewest), (high, most) = min(there, key=lambda pair: pair[0]), max(there, key=lambda pair: pair[0])
    if high <= UNEVEN * low:
        return None
    return (
        f"the classes are uneven: {high:,} of {len(images):,} training images are of {most} and {low:,} of {fewest}; "
        'train.class_weights, data.sampler and train.select = "best_balanced" are for that'
    )


def _named(images: ImageSet, which: torch.Tensor) -> list[str]:
    return [images.class_names[label] for label in torch.nonzero(which).flatten().tolist()]


def _listed(names: list[str], one: str = "", many: str = "") -> str:
    """The names, the first five of many; with a word before them."""
    shown = first_of((f"'{name}'" for name in names), 5)
    word = one if len(names) == 1 else many
    return f"the {word} {shown}" if word else shown
