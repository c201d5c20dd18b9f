"""What a map is about: a number that is read from what a model gives for an image, and that the map takes apart.

Shapes: B batch, K classes, D width of features, T tokens. Images are normalised, (B, 3, h, w).
"""

from __future__ import annotations

import contextlib
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchlight.errors import PatchlightError, UsageError
from patchlight.explanation.capture import as_found
from patchlight.explanation.gradients import wide
from patchlight.models.anatomy import Anatomy, VitAnatomy
from patchlight.models.families import structure_of


@dataclass(frozen=True)
class Target(ABC):
    """One number for each image of a batch. The kinds of targets below say which, by tensors with a row for each."""

    def scores(self, anatomy: Anatomy, images: Tensor) -> Tensor:
        """The number of each image, (B,), in the graph where there is one: what gradients are taken of."""
        return self.score(self.outputs(anatomy, lambda: anatomy.logits(images)))

    def decoded(self, anatomy: VitAnatomy, tokens: Tensor) -> Tensor:
        """The number that tokens after any block (B, T, D) would give, (B,)."""
        return self.score(self.outputs(anatomy, lambda: anatomy.decode(tokens)))

    def outputs(self, anatomy: Anatomy, forward: Callable[[], Tensor]) -> Tensor:
        """What the number is read from: logits (B, K) where nothing else is said."""
        return forward()

    @abstractmethod
    def score(self, outputs: Tensor) -> Tensor:
        """The number of each image, (B,)."""

    @abstractmethod
    def strength(self, outputs: Tensor) -> Tensor:
        """The score as people read it, (B,): a probability, or a cosine. What curves of removal follow."""

    @abstractmethod
    def holds(self, outputs: Tensor) -> Tensor:
        """Whether the model still answers so, (B,) bool."""

    def split(self, size: int) -> Iterator[Target]:
        """The targets of `size` images after another, as `Tensor.split` gives the images."""
        parts = zip(*(tensor.split(size) for tensor in vars(self).values()), strict=True)
        return (type(self)(*part) for part in parts)

    def take(self, rows: slice | Tensor) -> Target:
        """Of some images of the batch."""
        return replace(self, **{name: tensor[rows] for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class ClassTarget(Target):
    """The logit of a class: `indices` (B,)."""

    indices: Tensor

    def score(self, outputs: Tensor) -> Tensor:
        return outputs.gather(1, self.indices.unsqueeze(1)).squeeze(1)

    def strength(self, outputs: Tensor) -> Tensor:
        return self.score(probabilities(outputs))

    def holds(self, outputs: Tensor) -> Tensor:
        return outputs[:, 0] > 0 if outputs.shape[1] == 1 else outputs.argmax(dim=1) == self.indices


@dataclass(frozen=True)
class Difference(Target):
    """Why the one and not the other: the logit of class `indices` (B,) less that of `others` (B,).

    In `explain` either may be one class for all images, a number.
    """

    indices: Tensor
    others: Tensor

    def score(self, outputs: Tensor) -> Tensor:
        return ClassTarget(self.indices).score(outputs) - ClassTarget(self.others).score(outputs)

    def strength(self, outputs: Tensor) -> Tensor:
        """The probability of the one if there were only the two."""
        return self.score(outputs).float().sigmoid()

    def holds(self, outputs: Tensor) -> Tensor:
        return self.score(outputs) > 0


@dataclass(frozen=True)
class Similarity(Target):
    """Cosine of the image's features to `vectors` (B, D): another image's features, or a text's in the same space.

    Features are what a model without a head gives, and what the last linear map of one with a head reads.
    """

    vectors: Tensor  # given for all images alike (1, D), in `explain`

    def outputs(self, anatomy: Anatomy, forward: Callable[[], Tensor]) -> Tensor:
        return features_of(anatomy, forward)

    def score(self, outputs: Tensor) -> Tensor:
        if outputs.shape[1] != self.vectors.shape[1]:
            raise UsageError(
                f"the target has {self.vectors.shape[1]} numbers and the model's features {outputs.shape[1]}: give "
                "features of the same model, or of a text tower that shares its space"
            )
        return F.cosine_similarity(wide(outputs), wide(self.vectors.to(outputs)), dim=1)

    def strength(self, outputs: Tensor) -> Tensor:
        return self.score(outputs).float()

    def holds(self, outputs: Tensor) -> Tensor:
        return self.score(outputs) > 0


def probabilities(logits: Tensor) -> Tensor:
    """(B, K): the softmax over classes; of a single logit, which stands for a yes or no, its sigmoid."""
    return logits.float().sigmoid() if logits.shape[1] == 1 else logits.float().softmax(dim=1)


def features_of(anatomy: Anatomy, forward: Callable[[], Tensor]) -> Tensor:
    """Pooled features (B, D) of a forward pass: without a head its answer, else what its linear head reads.

    Raises PatchlightError for a model with several heads, or none that can be found.
    """
    if not anatomy.has_head:
        return forward()
    model = type(anatomy.model).__name__
    heads = structure_of(anatomy.model).linear_heads()
    read: dict[str, list[Tensor]] = {}
    with contextlib.ExitStack() as stack:
        for name in heads:
            keep = functools.partial(_keep_input, read, name)
            stack.callback(anatomy.model.get_submodule(name).register_forward_pre_hook(keep).remove)
        forward()
    if len(read) != 1:  # a head that a network keeps beside its own, as PEFT does, does not run
        names = ", ".join(read or heads)
        found = f"{len(read or heads)} linear heads ({names})" if names else "no linear head that is known"
        raise PatchlightError(
            f"{model} has {found}, so which features are its own cannot be told; give a model without a head"
        )
    (name, kept), *_ = read.items()
    if len(kept) != 1 or kept[0].ndim != 2:
        what = f"features of the shape {tuple(kept[0].shape)}" if len(kept) == 1 else f"{len(kept)} times"
        raise PatchlightError(f"the head of {model}, {name}, reads {what}, not one vector of each image")
    return kept[0]


def _keep_input(read: dict[str, list[Tensor]], name: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
    read.setdefault(name, []).append(args[0])


def similar_to(model: nn.Module | Anatomy, image: Tensor) -> Similarity:
    """The target "like this image": a normalised one (1, 3, h, w) for all, or one for each, (B, 3, h, w).

    The model is put in evaluation mode for the time of the call. Raises as `features_of`, and UsageError for an image
    that is no batch.
    """
    from patchlight.models.anatomy import dissect

    if image.ndim != 4:
        raise UsageError(f"the image is a batch (1, 3, height, width), not of shape {tuple(image.shape)}")
    anatomy = model if isinstance(model, Anatomy) else dissect(model)
    with as_found(anatomy.model), torch.no_grad():
        image = normal(image)
        return Similarity(features_of(anatomy, lambda: anatomy.logits(image)))


Wanted = str | int | Tensor | Target | None  # None: the predicted class


def resolve_target(wanted: Wanted, outputs: Tensor, has_head: bool) -> Target:
    """A target for each image whose logits are `outputs` (B, K).

    Raises UsageError for a class that is none, a number that is not whole, or a class of a model without a head; and
    for a target that is not for one image or for all.
    """
    if not has_head and not isinstance(wanted, Similarity):
        raise UsageError(
            "the model has no head, so it gives features and no classes: give target=similar_to(model, image), or "
            "Similarity(vectors) of a text or of other images"
        )
    if isinstance(wanted, ClassTarget):
        return ClassTarget(_class_indices(wanted.indices, outputs))
    if isinstance(wanted, Difference):
        return Difference(_class_indices(wanted.indices, outputs), _class_indices(wanted.others, outputs))
    if isinstance(wanted, Similarity):
        return Similarity(_vectors(wanted.vectors, outputs))
    if isinstance(wanted, Target):
        return wanted
    return ClassTarget(_class_indices("predicted" if wanted is None else wanted, outputs))


def normal(tensor: Tensor) -> Tensor:
    """The tensor, or a copy that gradients may use of one that was made inside `torch.inference_mode`."""
    return tensor.clone() if tensor.is_inference() else tensor


def _class_indices(wanted: str | int | Tensor, logits: Tensor) -> Tensor:
    count, classes = logits.shape
    if isinstance(wanted, str):
        if wanted != "predicted":
            raise UsageError(f"target is 'predicted', a class index or one per image, not '{wanted}'")
        return logits.argmax(dim=1)
    try:
        targets = normal(torch.as_tensor(wanted, device=logits.device))
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(
            f"target is 'predicted', a class index or one per image, or a Target of patchlight, not {wanted!r}"
        ) from None
    if targets.is_floating_point() or targets.is_complex() or targets.dtype == torch.bool:
        raise UsageError(f"targets are class indices, whole numbers from 0 to {classes - 1}, not {wanted}")
    targets = targets.long()
    targets = targets.expand(count) if targets.numel() == 1 and targets.ndim <= 1 else targets
    if targets.shape != (count,) or targets.min() < 0 or targets.max() >= classes:
        raise UsageError(f"targets are class indices from 0 to {classes - 1}, one or {count}, not {wanted}")
    return targets


def _vectors(vectors: Tensor, outputs: Tensor) -> Tensor:
    """Features for each image, of one for all or of as many."""
    if vectors.ndim != 2 or len(vectors) not in (1, len(outputs)) or not vectors.is_floating_point():
        raise UsageError(
            f"the features of a Similarity are numbers of the shape (1, D), or ({len(outputs)}, D) for as many images, "
            f"not {vectors.dtype} of {tuple(vectors.shape)}"
        )
    return normal(vectors).to(outputs.device).expand(len(outputs), -1)
