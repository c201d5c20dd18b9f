"""Maps from attention alone: where the tokens read from. They are the same for every class.

Shapes: B batch, L layers, H heads, T tokens (P prefix tokens first), (r, c) the patch grid. Images are normalised,
(B, 3, h, w). Maps are (B, r, c); only their order and relative size mean something.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchlight.errors import UsageError
from patchlight.explanation.capture import record_attention, record_outputs
from patchlight.explanation.gradients import wide
from patchlight.explanation.targets import Target
from patchlight.models.anatomy import VitAnatomy

FUSIONS = {
    "mean": lambda attention: attention.mean(dim=2),
    "max": lambda attention: attention.amax(dim=2),
    "min": lambda attention: attention.amin(dim=2),
}


def fuse_heads(attention: Tensor, heads: str) -> Tensor:
    """(B, L, H, T, T) -> (B, L, T, T): "mean", "max" or "min" over heads."""
    if heads not in FUSIONS:
        raise UsageError(f"heads are fused by {', '.join(FUSIONS)}, not '{heads}'")
    return FUSIONS[heads](attention)


def read_out(anatomy: VitAnatomy, matrix: Tensor, weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Rows of `matrix` (B, T, T) weighed by the pooling's `weights` (B, T): what flows from each patch, (B, r, c)."""
    values = (weights.unsqueeze(1) @ matrix).squeeze(1)[:, anatomy.num_prefix_tokens :]
    return values.unflatten(1, grid)


@torch.no_grad()
def attention(anatomy: VitAnatomy, images: Tensor, target: Target, *, heads: str = "mean", layer: int = -1) -> Tensor:
    """The attention of one layer, fused over heads, in the row of the token that is pooled: the CLS token's row, or the
    mean of the patches' rows where the mean patch is pooled, or as sequence pooling weighs them.
    """
    with record_attention(anatomy, [layer]) as recorded, record_outputs(anatomy.blocks[-1:]) as outputs:
        anatomy.logits(images)
    matrix = fuse_heads(wide(recorded.attention), heads)[:, 0]
    return read_out(anatomy, matrix, wide(anatomy.readout(outputs[-1])), anatomy.grid(images))


@torch.no_grad()
def rollout(
    anatomy: VitAnatomy, images: Tensor, target: Target, *, heads: str = "mean", discard: float = 0.0
) -> Tensor:
    """Attention rollout (Abnar and Zuidema 2020, eq. 1): the product over layers of A + I, its rows scaled to a sum of
    1, each A fused over heads, read at the pooled token.

    `heads` fuses by "mean" as in the paper, or by "max" or "min", and `discard` in [0, 1) sets so large a share of each
    A's smallest weights to 0 first, its first one excepted: both as in vit-explain (Gildenblat 2020).
    """
    with record_attention(anatomy) as recorded, record_outputs(anatomy.blocks[-1:]) as outputs:
        anatomy.logits(images)
    matrices = drop_smallest(fuse_heads(wide(recorded.attention), heads), discard, spare_first=True)
    return read_out(anatomy, roll_out(matrices), wide(anatomy.readout(outputs[-1])), anatomy.grid(images))


def drop_smallest(matrices: Tensor, share: float, *, spare_first: bool) -> Tensor:
    """(..., T, T) with the smallest `share` of each matrix set to 0, the first weight excepted where it is spared.

    Raises UsageError for a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise UsageError(f"discard is a share of the weights, from 0 to below 1, not {share}")
    values = matrices.flatten(-2)
    count = int(share * values.shape[-1])
    if not count:
        return matrices
    dropped = values.scatter(-1, values.topk(count, dim=-1, largest=False).indices, 0.0)
    if spare_first:
        dropped[..., 0] = values[..., 0]
    return dropped.view_as(matrices)


def scale_rows(matrices: Tensor) -> Tensor:
    """(..., T, T), not negative, each row scaled to a sum of 1; a row of nothing stays so."""
    return matrices / matrices.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(matrices.dtype).tiny)


def roll_out(matrices: Tensor) -> Tensor:
    """(B, L, T, T), not negative -> (B, T, T): (A_L + I) ... (A_1 + I), each with rows scaled to a sum of 1."""
    eye = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    flow = eye.expand(len(matrices), -1, -1)
    for matrix in matrices.unbind(dim=1):
        flow = scale_rows(matrix + eye) @ flow
    return flow
