"""Gradients of a score, or a sentence where there are none; numbers that half precision would lose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from patchlight.errors import PatchlightError


def wide(tensor: Tensor) -> Tensor:
    """In float32 at least: products of attention and its gradient are below what float16 holds."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def gradients_of(
    score: Tensor, tensors: Sequence[Tensor], what: str, *, retain_graph: bool = False
) -> tuple[Tensor, ...]:
    """d score.sum() / d each tensor, of its shape and kind. `what` they are stands in the error.

    Raises PatchlightError where the score does not depend on one of them in the graph, as of a network that runs a part
    of itself inside `torch.no_grad` or detaches its features.
    """
    wanted = [tensor for tensor in tensors if tensor.requires_grad]
    found = (
        torch.autograd.grad(score.sum(), wanted, allow_unused=True, retain_graph=retain_graph)
        if (score.requires_grad and wanted)
        else ()
    )
    if len(found) < len(tensors) or any(gradient is None for gradient in found):
        raise PatchlightError(
            f"no gradient of the answer reaches {what}: the network runs a part of itself inside torch.no_grad, or "
            "detaches its features; take occlusion, which needs no gradient"
        )
    return found
