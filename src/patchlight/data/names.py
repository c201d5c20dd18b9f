"""Which of a source's own names mean train, val and test: of folders, of files, of splits on a hub.

A name is compared by its words, without case: `training_set`, `seg_train`, `TrainImages` and `mnist-train` all have
one word that means a split, and it is train. A name that is nothing but that word (`train`, `train_set`) is taken
before one that says more. What data.train_split, data.val_split and data.test_split name is taken before all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from patchlight.config import DataConfig
from patchlight.errors import PatchlightError, UsageError, did_you_mean, first_of

SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "trainset": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "valset": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "testset": "test",
}
SPLITS = ("train", "val", "test")
# What a name may say beside its split and mean no more by it.
PADDING = frozenset("set images image imgs img data dataset split folder files".split())
# What has no labels, or is no split to learn from, by its name.
UNLABELLED = frozenset("unlabeled unlabelled unsupervised pred predict prediction submission".split())

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+|[^\W\d_]+")


@dataclass(frozen=True)
class Matched:
    """The source's own name of each split that it has, in the order train, val, test; the names of none of them; and
    sentences on what was understood.
    """

    splits: dict[str, str]
    others: tuple[str, ...]
    notes: tuple[str, ...]


def words_of(name: str) -> list[str]:
    """ "TrainImages_2" is train, images, 2."""
    return [word.lower() for word in _WORD.findall(name)]


def split_of(name: str) -> tuple[str | None, bool]:
    """The split that a name means, or None; and whether it says nothing else."""
    plain = SPLIT_WORDS.get(name.lower())
    if plain:
        return plain, True
    words = words_of(name)
    meant = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    if len(meant) != 1:
        return None, False
    return meant.pop(), all(word in SPLIT_WORDS or word in PADDING or word.isdigit() for word in words)


def is_unlabelled(name: str) -> bool:
    """Whether a name says that its images have no labels."""
    return bool(UNLABELLED.intersection(words_of(name)))


def match_splits(names: Iterable[str], where: str, config: DataConfig) -> Matched:
    """Which of a source's own split names is train, val and test.

    A split that is alone and is called nothing known is train. Raises UsageError for a setting that names no split, and
    PatchlightError where two names mean the same split or none is known.
    """
    own = list(names)
    matched = _named_by_settings(own, where, config)
    asked = set(matched)
    for exact in (True, False):
        found: dict[str, list[str]] = {}
        for name in own:
            split, alone = split_of(name)
            if split and alone is exact and split not in matched and name not in matched.values():
                found.setdefault(split, []).append(name)
        for split, candidates in found.items():
            if len(candidates) > 1:
                raise PatchlightError(
                    f"{where} has {len(candidates)} splits for '{split}': {_quoted(candidates)}; say which it is with "
                    f"data.{split}_split"
                )
            matched[split] = candidates[0]
    if not matched and len(own) == 1:
        return Matched({"train": own[0]}, (), (f"{where} has one split, '{own[0]}', which is taken as train",))
    if not matched:
        raise PatchlightError(
            f"{where} has no split called train, val or test, but {_quoted(own) or 'none at all'}; name them with "
            "data.train_split, data.val_split and data.test_split"
        )
    ordered = {key: matched[key] for key in SPLITS if key in matched}
    told = [
        f"'{name}' as {key}"
        for key, name in ordered.items()
        if key not in asked and SPLIT_WORDS.get(name.lower()) != key
    ]
    notes = (f"splits of {where}: {', '.join(told)}",) if told else ()
    return Matched(ordered, tuple(name for name in own if name not in ordered.values()), notes)


def names_are_given(config: DataConfig) -> bool:
    """Whether a setting names a split, so that those which no setting names are left out on purpose."""
    return any((config.train_split, config.val_split, config.test_split))


def _named_by_settings(own: list[str], where: str, config: DataConfig) -> dict[str, str]:
    named = {"train": config.train_split, "val": config.val_split, "test": config.test_split}
    matched = {key: name for key, name in named.items() if name is not None}
    for key, name in matched.items():
        if name not in own:
            raise UsageError(f"data.{key}_split: {where} has no split '{name}'; {did_you_mean(name, own)}")
    if len(set(matched.values())) < len(matched):
        raise UsageError(f"data.train_split, val_split and test_split name one split of {where} twice")
    return matched


def _quoted(names: list[str]) -> str:
    return first_of((f"'{name}'" for name in names), 12)
