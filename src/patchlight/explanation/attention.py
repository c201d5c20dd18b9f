"""Maps from attention alone: where the tokens read from. They are the same for every class.

Shapes: B batch, L layers, H heads, T tokens (P prefix tokens first), (r, c) the patch grid. Images are normalised,
(B, 3, h, w). Maps are (B, r, c); only their order and relative size mean something.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchlight.errors import UsageError
from patchlight.explanation.capture import record_attention, record_outputs
from patchlight.models.anatomy import Anatomy

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


def read_out(anatomy: Anatomy, matrix: Tensor, weights: Tensor, grid: tuple[int, int]) -> Tensor:
    """Rows of `matrix` (B, T, T) weighed by the pooling's `weights` (B, T): what flows from each patch, (B, r, c)."""
    values = (weights.unsqueeze(1) @ matrix).squeeze(1)[:, anatomy.num_prefix_tokens :]
    return values.unflatten(1, grid)


@torch.no_grad()
def attention(anatomy: Anatomy, images: Tensor, targets: Tensor, *, heads: str = "mean", layer: int = -1) -> Tensor:
    """The attention of one layer, fused over heads, in the row of the token that is pooled: the CLS token's row, or the
    mean of the patches' rows where the mean patch is pooled, or as sequence pooling weighs them.
    """
    with record_attention(anatomy, [layer]) as recorded, record_outputs(anatomy.blocks[-1:]) as outputs:
        anatomy.logits(images)
    matrix = fuse_heads(recorded.attention, heads)[:, 0]
    return read_out(anatomy, matrix, anatomy.readout(outputs[-1]), anatomy.grid(images))


@torch.no_grad()
def rollout(
    anatomy: Anatomy, images: Tensor, targets: Tensor, *, heads: str = "mean", discard_ratio: float = 0.0
) -> Tensor:
    """Attention rollout (Abnar and Zuidema 2020, eq. 1): the product over layers of (A + I) / 2, each A fused over
    heads, read at the pooled token. `discard_ratio` in [0, 1) sets so many of each row's smallest weights to 0 first,
    a token's own excepted; rows are then scaled back to a sum of 1.
    """
    if not 0 <= discard_ratio < 1:
        raise UsageError(f"discard_ratio is a share of each row, from 0 to below 1, not {discard_ratio}")
    with record_attention(anatomy) as recorded, record_outputs(anatomy.blocks[-1:]) as outputs:
        anatomy.logits(images)
    matrices = discard(fuse_heads(recorded.attention, heads), discard_ratio)
    return read_out(anatomy, roll_out(matrices), anatomy.readout(outputs[-1]), anatomy.grid(images))


def discard(matrices: Tensor, ratio: float) -> Tensor:
    """(..., T, T) with the smallest share `ratio` of each row set to 0, the diagonal excepted."""
    count = int(ratio * matrices.shape[-1])
    if not count:
        return matrices
    diagonal = torch.eye(matrices.shape[-1], dtype=torch.bool, device=matrices.device)
    least = matrices.masked_fill(diagonal, torch.inf).topk(count, dim=-1, largest=False).indices
    return matrices.scatter(-1, least, 0.0)


def roll_out(matrices: Tensor) -> Tensor:
    """(B, L, T, T), not negative -> (B, T, T): (A_L + I) ... (A_1 + I), each with rows scaled to a sum of 1."""
    eye = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    flow = eye.expand(len(matrices), -1, -1)
    for matrix in matrices.unbind(dim=1):
        # An attention's rows sum to 1 (less what was discarded), so its identity weighs as much as itself.
        matrix = matrix / matrix.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(matrix.dtype).tiny)
        matrix = matrix + eye
        flow = matrix / matrix.sum(dim=-1, keepdim=True) @ flow
    return flow
