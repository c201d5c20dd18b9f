"""Muon: momentum whose steps are made orthogonal, for matrices and convolution kernels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from patchlight.machine.device import multiplies

QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: the steepest rise from small singular values
STEPS = 5
EPS = 1e-7


def orthogonalize(matrices: Tensor) -> Tensor:
    """Roughly the nearest semi-orthogonal matrices, (K, m, n) or (m, n): singular values of 0.7 to 1.2.

    Five Newton-Schulz steps X <- a X + (b A + c A^2) X with A = X X^T, from X of Frobenius norm 1
    (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/). They run in bfloat16, and the matrices come back
    so, where the device multiplies such matrices itself; elsewhere in float32, which is exact to more digits.
    """
    x = matrices.to(torch.bfloat16 if multiplies("bf16", matrices.device) else torch.float32)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=EPS)
    a, b, c = QUINTIC
    add_product = torch.baddbmm if x.ndim == 3 else torch.addmm
    for _ in range(STEPS):
        gram = x @ x.mT
        x = add_product(x, add_product(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(Optimizer):
    """Muon (Jordan et al. 2024) for parameters of two or more dimensions; a kernel (O, I, h, w) counts as (O, I h w).

    torch.optim.Muon's step on matrices; torch's takes no kernels. In a group with `normalize`, each tensor is first
    scaled to the norm sqrt(O), that of an orthogonal one, so that a step turns it by the same angle throughout
    training: right where batch norm follows and makes the scale meaningless (Jordan 2024, airbench; weight decay then
    does nothing).
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        normalize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "normalize": normalize,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of all parameters that have a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    alike[p.shape].append(p)
            for parameters in alike.values():
                directions = [self._direction(p, group).flatten(1) for p in parameters]
                # A GPU does many small products at once; a CPU does them faster one by one.
                together = directions[0].is_cuda
                updates = orthogonalize(torch.stack(directions)) if together else map(orthogonalize, directions)
                for p, update in zip(parameters, updates, strict=True):
                    self._apply(p, update, group)

    def _direction(self, p: Tensor, group: dict[str, Any]) -> Tensor:
        """The momentum, after this gradient."""
        assert p.grad is not None
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        momentum = state["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
        return p.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum

    @staticmethod
    def _apply(p: Tensor, update: Tensor, group: dict[str, Any]) -> None:
        rows, columns = update.shape
        lr = group["lr"]
        if group["normalize"]:
            p.mul_(rows**0.5 / p.norm().clamp(min=EPS))
        else:
            p.mul_(1 - lr * group["weight_decay"])
        p.sub_(update.reshape(p.shape).to(p.dtype), alpha=lr * max(1.0, rows / columns) ** 0.5)
