"""What the maps of `patchlight explain` are about: a class, one class and not another, or the likeness to an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from patchlight.analysis import choice
from patchlight.analysis.subject import Subject
from patchlight.data.files import read_images
from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.explanation.targets import ClassTarget, Difference, Similarity, Target, similar_to
from patchlight.paths import printable, user_path
from patchlight.progress import say

PREDICTED, TRUE = "predicted", "true"  # --target: a class of each image's own
SECOND = "second"  # --versus: the likeliest class that is not the target

Kind = Literal["predicted", "true", "class", "difference", "likeness"]
MEANT = {
    PREDICTED: "the class that is predicted for each image",
    TRUE: "the true class of each image",
    SECOND: "the likeliest other class of each image",
}


@dataclass(frozen=True)
class Asked:
    """A target for each of S images, with words for people."""

    target: Target
    kind: Kind
    word: str  # for people: "predicted", "true", a class's name (also these), "cat, not dog", "like photo.jpg"
    each: tuple[str, ...]  # (S,) of each image: the class's name, "cat, not dog", "like photo.jpg"
    notes: tuple[str, ...] = ()  # sentences on words that are also the names of classes

    @property
    def title(self) -> str:
        """What follows "maps" in a title: "" for the predicted class."""
        return {
            "predicted": "",
            "true": ", for the true class",
            "class": f", for the class '{self.word}'",
            "difference": f", for '{self.word}'",
            "likeness": f", for being {self.word}",
        }[self.kind]

    @property
    def is_predicted(self) -> bool:
        return self.kind == "predicted"

    @property
    def about(self) -> str:
        """What a table of the maps is for: "the true class", "the class 'ship'", "'cat, not dog'", "being like ..."."""
        return "the predicted class" if self.is_predicted else self.title.removeprefix(", for ")

    def tensors(self) -> dict[str, Tensor]:
        """Indices of classes, or features, by the names of `maps.npz`."""
        if isinstance(self.target, ClassTarget):
            return {"targets": self.target.indices}
        if isinstance(self.target, Difference):
            return {"targets": self.target.indices, "versus": self.target.others}
        return {"target_features": self.target.vectors} if isinstance(self.target, Similarity) else {}


def find_target(
    subject: Subject, target: str | int = "predicted", versus: str | int | None = None, like: str | Path | None = None
) -> Asked:
    """The target of words: a class, "predicted" or "true"; with `versus` its difference to another class, or to the
    "second" likeliest; or the likeness to the image file `like`. Where one of these words is also the name of a class,
    the word counts, which is said, and the class is named by its index.

    Raises UsageError for an unknown class, two targets that cannot go together, or a class against itself;
    PatchlightError for an image that cannot be read.
    """
    if like is not None:
        if target != "predicted" or versus is not None:
            raise UsageError(
                f"--like is a target of its own; leave out {'--versus' if versus is not None else '--target'}"
            )
        return _likeness(subject, like)
    names = subject.card.class_names
    indices, kind, word = class_targets(subject, target)
    each = [names[index] for index in indices.tolist()]
    notes = [also_a_class("--target", target, names, PREDICTED, TRUE)]
    asked = Asked(ClassTarget(indices), kind, word, tuple(each))
    if versus is not None:
        others, other = _others(subject, versus, indices)
        pairs = tuple(f"{one}, not {names[index]}" for one, index in zip(each, others.tolist(), strict=True))
        asked = Asked(Difference(indices, others), "difference", f"{word}, not {other}", pairs)
        notes.append(also_a_class("--versus", versus, names, SECOND))
    for note in filter(None, notes):
        say(note)
    return replace(asked, notes=tuple(filter(None, notes)))


def also_a_class(option: str, word: str | int, names: Sequence[str], *keywords: str) -> str:
    """A sentence where the word of an option is one of the keywords and the name of a class, too; else nothing."""
    if word not in keywords or word not in names:
        return ""
    return f"{option} {word} means {MEANT[str(word)]}; the class '{word}' is {_by_index(option, str(word), names)}"


def _by_index(option: str, word: str, names: Sequence[str]) -> str:
    """How a class is named whose name is a keyword."""
    index = list(names).index(word)
    if any(map(choice.is_number, names)):  # of such names the command line takes no index
        return f"{option.removeprefix('--')}={index} in Python"
    return f"{option} {index}"


def class_targets(subject: Subject, target: str | int) -> tuple[Tensor, Kind, str]:
    """Class indices (S,) for "predicted", "true", a class's name or its index; which of these it is; and the word, or
    the class's name.
    """
    preds, names = subject.probs.argmax(dim=1), subject.card.class_names
    if target == PREDICTED:
        return preds, "predicted", PREDICTED
    if target == TRUE:
        if subject.labels is None:
            own = f"; the class '{TRUE}' is {_by_index('--target', TRUE, names)}" if TRUE in names else ""
            raise UsageError(f"the true classes of image files are not known; give --target predicted or a class{own}")
        return torch.from_numpy(subject.labels).to(preds), "true", TRUE
    index = class_index(target, names, PREDICTED, TRUE)
    return torch.full_like(preds, index), "class", names[index]


def _others(subject: Subject, versus: str | int, indices: Tensor) -> tuple[Tensor, str]:
    """The other class of each image, (S,), and its name."""
    names = subject.card.class_names
    if len(names) < 2:
        raise UsageError("--versus compares two classes, and the model has one")
    if versus == SECOND:
        likely = subject.probs.topk(2, dim=1).indices
        return torch.where(likely[:, 0] == indices, likely[:, 1], likely[:, 0]), "the likeliest other class"
    index = class_index(versus, names, SECOND)
    others = torch.full_like(indices, index)
    if bool((same := others == indices).any()):
        some = f"{int(same.sum())} of {len(indices)} images"
        raise UsageError(f"--versus {names[index]} is the target itself for {some}; take another class, or '{SECOND}'")
    return others, names[index]


def class_index(word: str | int, names: Sequence[str], *others: str) -> int:
    """The index of a class by name or index. Raises UsageError, naming what is nearest of classes and `others`."""
    try:
        return choice.class_index(word, names)
    except UsageError:
        if isinstance(word, str):
            raise UsageError(f"no class '{word}'; {did_you_mean(word, [*names, *others])}") from None
        raise


def _likeness(subject: Subject, like: str | Path) -> Asked:
    card, path = subject.card, user_path(like)
    (image,) = read_images([path], card.fit_size, card.fit_interpolation, card.pixel_max)
    if isinstance(image, PatchlightError):
        raise image
    target = similar_to(subject.anatomy, card.to_input(image[None].to(subject.inputs.device)))
    count, word = len(subject.inputs), f"like {printable(path)}"
    return Asked(Similarity(target.vectors.expand(count, -1)), "likeness", word, (word,) * count)
