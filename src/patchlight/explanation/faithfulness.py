"""Is a map faithful to the model? How well it tells what the model does, and whether it is a map of this model at all.

Shapes: B batch, N patches in reading order, (r, c) the patch grid, S sets of patches. Images are normalised,
(B, 3, h, w), maps (B, r, c). Every measure gives one finite number per image. `removal.py` has the curves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from patchlight.explanation.removal import outputs_without_each
from patchlight.explanation.targets import Target
from patchlight.models.anatomy import Anatomy, VitAnatomy, dissect


def max_sensitivity(
    run: Callable[[Tensor], Tensor], images: Tensor, maps: Tensor, *, radius: float = 0.1, samples: int = 4
) -> Tensor:
    """Yeh et al. 2019, definition 2: the greatest change of the map `run(images)` under noise of at most `radius` (in
    normalised units), over `samples` draws, as a share of the larger of the two maps: 0 is steady, and a map that is
    empty before or after has changed by 1.
    """
    draw = torch.Generator().manual_seed(0)
    before = _exact(maps.flatten(1))
    worst = torch.zeros(len(images), dtype=before.dtype, device="cpu")
    for _ in range(samples):
        noise = torch.empty(images.shape, device="cpu").uniform_(-radius, radius, generator=draw).to(images)
        after = _exact(run(images + noise).flatten(1))
        size = torch.maximum(before.norm(dim=1), after.norm(dim=1)).clamp(min=torch.finfo(torch.float32).tiny)
        worst = torch.maximum(worst, (after - before).norm(dim=1) / size)
    return worst


def _exact(values: Tensor) -> Tensor:
    """In float64, in which the square of any float32 is a number too; on the CPU, as not every device has it."""
    return values.cpu().double()


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
    sets = []
    for _ in range(samples):
        hidden_share = torch.rand(1, generator=draw, device="cpu")
        sets.append(torch.rand(rows * columns, generator=draw, device="cpu") < hidden_share)
    hidden = torch.stack(sets).to(images.device)
    after = outputs_without_each(anatomy, images, target, hidden.unsqueeze(1).expand(-1, len(images), -1), way, black)
    return Falls(hidden, torch.stack([before - target.score(outputs) for outputs in after], dim=1))


def infidelity(maps: Tensor, removals: Falls) -> Tensor:
    """Yeh et al. 2019, definition 1, for the removal of random sets of patches: how badly the map's sum over a set
    predicts the fall of the target's score. Each map is first scaled by the factor, not below 0, that fits best; then
    0 is perfect, and 1 is a map that says nothing, or the opposite. Where no removal changes the score there is nothing
    to predict, and it is 0 for every map.
    """
    fall = _exact(removals.falls)
    predicted = _exact(maps.flatten(1)) @ _exact(removals.hidden).T
    tiny = torch.finfo(fall.dtype).tiny
    squares = (predicted * predicted).sum(dim=1, keepdim=True).clamp(min=tiny)
    scale = (predicted * fall).sum(dim=1, keepdim=True) / squares
    return ((scale.clamp(min=0) * predicted - fall) ** 2).mean(dim=1) / (fall**2).mean(dim=1).clamp(min=tiny)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rho of each pair of maps, (B, r, c) each, (B,). Equal values share their mean rank; with a map that is
    the same everywhere, which has no order, it is 0.
    """
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


def randomized(anatomy: Anatomy, images: Tensor, top: int | None = None) -> Anatomy:
    """A copy of the model whose last `top` blocks, or all of it, have random matrices with the same deviation
    (Adebayo et al. 2018, section 3): a map that stays the same there is no map of the model.

    The running statistics of batch normalisation were those of the weights that are gone, with which activations would
    grow from layer to layer: they become those of `images` in the random model.
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
                    p.copy_(torch.randn(p.shape, generator=draw, device="cpu") * p.float().std(correction=0).cpu())
        with _statistics_of_inputs(parts):
            other.logits(images)
    return other


@contextmanager
def _statistics_of_inputs(parts: tuple[nn.Module, ...]) -> Iterator[None]:
    """Inside the `with`, every batch normalisation takes the mean and variance of what it is given as its own."""

    def take(module: Any, args: tuple[Tensor, ...]) -> None:
        values = args[0].transpose(0, 1).flatten(1).float()  # (channels, all else)
        module.running_mean.copy_(values.mean(dim=1))
        module.running_var.copy_(values.var(dim=1, correction=0))

    norms = [m for part in parts for m in part.modules() if isinstance(getattr(m, "running_var", None), Tensor)]
    handles = [norm.register_forward_pre_hook(take) for norm in norms]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def pointing(maps: Tensor, where: Tensor) -> Tensor:
    """Pointing game (Zhang et al. 2018, section 4.1): 1 where the map's greatest value is the patch `where` (B,), else
    0. Where several patches are greatest, their share of hits. Images of which no patch is known (-1) are left out.
    """
    values, where = maps.flatten(1)[where >= 0], where[where >= 0]
    top = values == values.amax(dim=1, keepdim=True)
    return top.gather(1, where.unsqueeze(1)).squeeze(1) / top.sum(dim=1)
