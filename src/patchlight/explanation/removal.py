"""Patches taken away: what is put in their place, and what is left of the answer as more of them go.

Shapes: B batch, N patches in reading order, (r, c) the patch grid, K classes, S points of a curve. Images are
normalised, (B, 3, h, w), maps (B, r, c).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.explanation.capture import keep_patches
from patchlight.explanation.cells import batch_size, cells_of
from patchlight.explanation.imputation import imputed
from patchlight.explanation.targets import Target
from patchlight.models.anatomy import Anatomy, VitAnatomy

BLUR = 0.5  # the blur's deviation as a share of the image's side
FEW = 16  # patches, up to which a curve takes them away one by one


def blurred(images: Tensor) -> Tensor:
    """By a Gaussian so wide that little more than the image's mean colour is left, even at its edges."""
    rows, columns = (_gaussian(side).to(images) for side in images.shape[-2:])
    return rows @ images @ columns.T


def _gaussian(side: int) -> Tensor:
    """(side, side): of each pixel the weights of all, summing to 1."""
    places = torch.arange(side, dtype=torch.float64, device="cpu") / (BLUR * side)
    weights = torch.exp(-((places[:, None] - places) ** 2) / 2)
    return weights / weights.sum(dim=1, keepdim=True)


# What stands where pixels were, by images, the mask (B, 1, h, w) of what is hidden, and normalised black (3,).
FILLS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mean": lambda images, hidden, black: torch.zeros_like(images),
    "black": lambda images, hidden, black: black.view(1, 3, 1, 1).expand_as(images),
    "blur": lambda images, hidden, black: blurred(images),
    "road": lambda images, hidden, black: imputed(images, hidden),
}
TOKENS = "tokens"  # nothing stands there: the tokens themselves are taken away
WAYS = (*FILLS, TOKENS)


def ways_for(anatomy: Anatomy) -> tuple[str, ...]:
    """How patches can be taken away from a network."""
    return WAYS if isinstance(anatomy, VitAnatomy) and anatomy.can_drop_patches else tuple(FILLS)


def check_ways(names: Sequence[str], anatomy: Anatomy) -> tuple[str, ...]:
    """The given ones of WAYS, in its order. Raises UsageError for an unknown one or none, PatchlightError for one that
    the network does not have.
    """
    for name in names:
        if name not in WAYS:
            raise UsageError(f"patches are not taken away by '{name}'; {did_you_mean(name, WAYS)}")
    if not names:
        raise UsageError(f"name at least one way to take patches away, of {', '.join(WAYS)}")
    if TOKENS in names and TOKENS not in ways_for(anatomy):
        raise PatchlightError(
            f"no tokens can be taken away from {type(anatomy.model).__name__}; leave out 'tokens', or take "
            f"{', '.join(FILLS)}"
        )
    return tuple(way for way in WAYS if way in names)


def outputs_without(
    anatomy: Anatomy, images: Tensor, target: Target, hidden: Tensor, way: str, black: Tensor
) -> Tensor:
    """What the target reads, as logits (B, K), when the patches `hidden` (B, N), bool, are filled or, all images alike
    many, taken away.
    """
    if way == TOKENS:
        assert isinstance(anatomy, VitAnatomy)
        kept = (~hidden).nonzero()[:, 1].view(len(images), -1)
        with keep_patches(anatomy, kept):
            return target.outputs(anatomy, lambda: anatomy.logits(images))
    if not hidden.any():
        return target.outputs(anatomy, lambda: anatomy.logits(images))
    mask = cells_of(anatomy, images).spread(hidden.unflatten(1, anatomy.grid(images)).unsqueeze(1).to(images.dtype))
    filled = torch.where(mask > 0, FILLS[way](images, mask, black), images)
    return target.outputs(anatomy, lambda: anatomy.logits(filled))


def outputs_without_each(
    anatomy: Anatomy, images: Tensor, target: Target, sets: Tensor, way: str, black: Tensor
) -> Tensor:
    """`outputs_without` of S sets of hidden patches (S, B, N), (S, B, K). Of few images several sets go through the
    network at once, but not of tokens that are taken away, whose number differs.
    """
    together = 1 if way == TOKENS else max(1, batch_size(anatomy, images) // len(images))
    outputs = []
    for some in sets.split(together):
        copies = images.repeat(len(some), 1, 1, 1)
        found = outputs_without(anatomy, copies, target, some.flatten(0, 1), way, black)
        outputs.append(found.unflatten(0, (len(some), len(images))))
    return torch.cat(outputs)


@dataclass(frozen=True)
class Curve:
    """What is left of the answer as patches go: `removed` (S,) their share, `probs` (B, S) the target's probability
    (or cosine), `right` (B, S) whether it is still the answer.
    """

    removed: Tensor
    probs: Tensor
    right: Tensor

    def area(self) -> Tensor:
        """Mean probability over the curve (trapezoids), (B,)."""
        return self._mean(self.probs)

    def accuracy(self) -> Tensor:
        """Mean of `right` over the curve, (B,)."""
        return self._mean(self.right.float())

    def _mean(self, values: Tensor) -> Tensor:
        """Where nothing can be taken away, as of the only token, the curve is its one point."""
        if len(self.removed) == 1:
            return values[:, 0]
        return torch.trapezoid(values, self.removed, dim=1) / (self.removed[-1] - self.removed[0])


def removal_counts(count: int) -> list[int]:
    """How many of `count` patches are gone at each point of a curve: 0, 1, 2 and so on up to all.

    Of more than FEW, one patch at a time up to four, then half as many again each time, a tenth of all at most: of 64
    patches 0, 1, 2, 3, 4, 6, 9, 13, 19, 25 ... 61, 64. One patch that decides shows, for 17 points instead of 65 (19 of
    196 patches), and the area is that of all points to about 0.01.
    """
    if count <= FEW:
        return list(range(count + 1))
    counts = [0]
    while counts[-1] < count:
        step = min(max(1, counts[-1] // 2), round(count / 10))
        counts.append(min(count, counts[-1] + step))
    return counts


@torch.no_grad()
def removal_curve(
    anatomy: Anatomy,
    images: Tensor,
    target: Target,
    maps: Tensor,
    black: Tensor,
    *,
    way: str = "mean",
    most_first: bool = True,
    counts: Sequence[int] | None = None,
) -> Curve:
    """Take patches away by their value, the greatest or the least first.

    With `most_first` the area is the deletion score of Petsiuk et al. 2018 (RISE, section 4.2), low where the map is
    faithful, and `accuracy` the positive perturbation test of Chefer et al. (CVPR 2021, section 4). Without, the area
    is their insertion score (the last to go are the first to come) and `accuracy` the negative test: high is good.
    `way` "road" makes it the test of Rong et al. (ICML 2022), most or least relevant first, without its retraining.

    `counts` are the points, `removal_counts` where they are not given; the fine ones are where the most important
    patches go, so at the end of an insertion. Taking away tokens leaves at least one.
    """
    values = maps.flatten(1)
    # Equal values in a random order, the same each time: else a constant map would take patches in reading order.
    shuffle = torch.randperm(values.shape[1], generator=torch.Generator().manual_seed(0), device="cpu").to(
        values.device
    )
    order = shuffle[values[:, shuffle].argsort(dim=1, descending=most_first, stable=True)]
    rank = order.argsort(dim=1)  # of each patch, how many go before it
    count = values.shape[1]
    taken = removal_counts(count) if counts is None else counts
    taken = taken if most_first else [count - few for few in taken]
    removed = sorted({min(many, count - 1) if way == TOKENS else many for many in taken})
    gone = torch.tensor(removed, device=images.device)
    points = outputs_without_each(anatomy, images, target, rank < gone.view(-1, 1, 1), way, black).float()
    probs, right = ([read(outputs) for outputs in points] for read in (target.strength, target.holds))
    return Curve(gone / count, torch.stack(probs, dim=1), torch.stack(right, dim=1))
