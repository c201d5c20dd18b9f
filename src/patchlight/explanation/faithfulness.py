"""Is a map faithful to the model? What happens to the answer when the patches that the map names are taken away.

Shapes: B batch, N patches in reading order, (r, c) the patch grid, K classes, S points of a curve. Images are
normalised, (B, 3, h, w), maps (B, r, c). Every function gives one number per image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from patchlight.explanation.capture import keep_patches
from patchlight.explanation.cells import cells_of
from patchlight.explanation.targets import Target
from patchlight.models.anatomy import Anatomy, VitAnatomy, dissect

BLUR = 5  # pixels of a box that is applied three times, which is nearly a Gaussian


def blurred(images: Tensor) -> Tensor:
    for _ in range(3):
        images = F.avg_pool2d(F.pad(images, (BLUR // 2,) * 4, mode="reflect"), BLUR, stride=1)
    return images


# What stands where a patch was, for normalised images and normalised black (3,). "tokens" takes the tokens away.
FILLS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mean": lambda images, black: torch.zeros_like(images),
    "black": lambda images, black: black.view(1, 3, 1, 1).expand_as(images),
    "blur": lambda images, black: blurred(images),
}
WAYS = (*FILLS, "tokens")


def outputs_without(
    anatomy: Anatomy, images: Tensor, target: Target, hidden: Tensor, way: str, black: Tensor
) -> Tensor:
    """What the target reads, as logits (B, K), when the patches `hidden` (B, N), bool, are filled or, all images alike
    many, taken away.
    """
    if way == "tokens":
        assert isinstance(anatomy, VitAnatomy)
        kept = (~hidden).nonzero()[:, 1].view(len(images), -1)
        with keep_patches(anatomy, kept):
            return target.outputs(anatomy, lambda: anatomy.logits(images))
    mask = cells_of(anatomy, images).spread(hidden.unflatten(1, anatomy.grid(images)).unsqueeze(1).to(images.dtype)) > 0
    filled = torch.where(mask, FILLS[way](images, black), images)
    return target.outputs(anatomy, lambda: anatomy.logits(filled))


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
        return torch.trapezoid(self.probs, self.removed, dim=1) / (self.removed[-1] - self.removed[0])

    def accuracy(self) -> Tensor:
        """Mean of `right` over the curve, (B,)."""
        return torch.trapezoid(self.right.float(), self.removed, dim=1) / (self.removed[-1] - self.removed[0])


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
    steps: int = 10,
) -> Curve:
    """Take patches away by their value, the greatest or the least first, in `steps` equal parts.

    With `most_first` the area is the deletion score of Petsiuk et al. 2018 (RISE, section 4.2), low where the map is
    faithful, and `accuracy` the positive perturbation test of Chefer et al. (CVPR 2021, section 4). Without, the area
    is their insertion score (the last to go are the first to come) and `accuracy` the negative test: high is good.
    Taking away tokens leaves at least one.
    """
    values = maps.flatten(1)
    # Equal values in a random order, the same each time: else a constant map would take patches in reading order.
    shuffle = torch.randperm(values.shape[1], generator=torch.Generator().manual_seed(0)).to(values.device)
    order = shuffle[values[:, shuffle].argsort(dim=1, descending=most_first, stable=True)]
    rank = order.argsort(dim=1)  # of each patch, how many go before it
    count = values.shape[1]
    removed = torch.linspace(0, count, min(steps, count) + 1).round().long().unique()
    if way == "tokens":
        removed = removed.clamp(max=count - 1).unique()
    probs, right = [], []
    for gone in removed.tolist():
        outputs = outputs_without(anatomy, images, target, rank < gone, way, black).float()
        probs.append(target.strength(outputs))
        right.append(target.holds(outputs))
    return Curve((removed / count).to(images.device), torch.stack(probs, dim=1), torch.stack(right, dim=1))


def max_sensitivity(
    run: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor, *, radius: float = 0.1, samples: int = 4
) -> Tensor:
    """Yeh et al. 2019, definition 2: the greatest change of the map `run(images)` under noise of at most `radius` (in
    normalised units), over `samples` draws, as a share of the larger of the two maps: 0 is steady, and a map that is
    empty before or after has changed by 1.
    """
    draw = torch.Generator().manual_seed(0)
    worst = torch.zeros(len(images), device=images.device)
    before = maps.flatten(1)
    for _ in range(samples):
        noise = torch.empty(images.shape).uniform_(-radius, radius, generator=draw).to(images)
        after = run(images + noise).flatten(1)
        size = torch.maximum(before.norm(dim=1), after.norm(dim=1)).clamp(min=torch.finfo(torch.float32).tiny)
        change = (after - before).norm(dim=1) / size
        worst = torch.maximum(worst, change.to(worst))
    return worst


@dataclass(frozen=True)
class Falls:
    """Of random sets of patches: `hidden` (S, N), bool, and how far the target's score fell without them, (B, S)."""

    hidden: Tensor
    falls: Tensor


@torch.no_grad()
def random_removals(
    anatomy: Anatomy, images: Tensor, target: Target, black: Tensor, *, samples: int = 32, way: str = "mean"
) -> Falls:
    """Small and large sets of patches, the same for all images, and what each takes from the target's score."""
    draw = torch.Generator().manual_seed(0)
    rows, columns = anatomy.grid(images)
    before = target.scores(anatomy, images)
    sets, falls = [], []
    for _ in range(samples):
        hidden_share = torch.rand(1, generator=draw)
        hidden = (torch.rand(rows * columns, generator=draw) < hidden_share).to(images.device)
        after = outputs_without(anatomy, images, target, hidden.expand(len(images), -1), way, black)
        sets.append(hidden)
        falls.append(before - target.score(after))
    return Falls(torch.stack(sets), torch.stack(falls, dim=1))


def infidelity(maps: Tensor, removals: Falls) -> Tensor:
    """Yeh et al. 2019, definition 1, for the removal of random sets of patches: how badly the map's sum over a set
    predicts the fall of the target's logit. Each map is first scaled by the factor, not below 0, that fits best; then 0
    is perfect, and 1 is a map that says nothing, or the opposite.
    """
    fall = removals.falls
    predicted = maps.flatten(1).to(fall) @ removals.hidden.to(fall).T
    tiny = torch.finfo(fall.dtype).tiny
    squares = (predicted * predicted).sum(dim=1, keepdim=True).clamp(min=tiny)
    scale = (predicted * fall).sum(dim=1, keepdim=True) / squares
    return ((scale.clamp(min=0) * predicted - fall) ** 2).mean(dim=1) / (fall**2).mean(dim=1).clamp(min=tiny)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rho of each pair of maps, (B, r, c) each, (B,). Equal values share their mean rank."""
    ranks = []
    for maps in (a, b):
        values = maps.flatten(1)
        less = (values.unsqueeze(2) > values.unsqueeze(1)).sum(dim=2)
        same = (values.unsqueeze(2) == values.unsqueeze(1)).sum(dim=2)
        rank = less + (same - 1) / 2
        ranks.append(rank - rank.mean(dim=1, keepdim=True))
    x, y = ranks
    spread = (x.norm(dim=1) * y.norm(dim=1)).clamp(min=torch.finfo(torch.float32).tiny)
    return (x * y).sum(dim=1) / spread


def randomized(anatomy: Anatomy, top: int | None = None) -> Anatomy:
    """A copy of the model whose last `top` blocks, or all of it, have random matrices with the same deviation
    (Adebayo et al. 2018, section 3): a map that stays the same there is no map of the model.
    """
    model = copy.deepcopy(anatomy.model)
    other = dissect(model)
    parts: tuple[nn.Module, ...] = (model,)
    if top is not None:
        assert isinstance(other, VitAnatomy)
        parts = other.blocks[len(other.blocks) - top :]
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in parts:
            for p in part.parameters():
                if p.ndim > 1:
                    p.copy_(torch.randn(p.shape, generator=draw) * p.float().std().cpu())
    return other


def pointing(maps: Tensor, where: Tensor) -> Tensor:
    """Pointing game (Zhang et al. 2018, section 4.1): 1 where the map's greatest value is the patch `where` (B,), else
    0. Where several patches are greatest, their share of hits. Images of which no patch is known (-1) are left out.
    """
    values, where = maps.flatten(1)[where >= 0], where[where >= 0]
    top = values == values.amax(dim=1, keepdim=True)
    return top.gather(1, where.unsqueeze(1)).squeeze(1) / top.sum(dim=1)
