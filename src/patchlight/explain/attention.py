"""Where the last layer of a ViT reads from.

Shapes: B batch, T tokens (P prefix tokens first), h heads, (r, c) the patch grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from patchlight.explain.capture import record_attention
from patchlight.models.vit import VisionTransformer


@dataclass(frozen=True)
class AttentionMap:
    values: Tensor  # (B, r, c), each summing to 1
    title: str  # what the values are, in words


@torch.no_grad()
def last_layer_attention(model: VisionTransformer, inputs: Tensor) -> AttentionMap:
    """How much each patch is read, for normalised images (B, 3, H, W).

    token: the CLS token's row in the last block, mean over heads.
    seq: the pooling's own weights. avg: every patch pools alike, so the mean over the patches' rows and the heads.
    """
    prefix = model.num_prefix_tokens
    if model.attn_pool is not None:
        values = model.attn_pool.weights(model.forward_features(inputs)[:, prefix:])
        title = "weight of each patch in the sequence pooling"
    else:
        with record_attention(model, layers=[-1]) as recorded:
            model(inputs)
        attention = next(iter(recorded.values())).float().mean(dim=1)  # (B, T, T)
        if model.global_pool == "token":
            values = attention[:, 0, prefix:]
            title = "attention of the CLS token in the last layer, mean over heads"
        else:
            values = attention[:, prefix:, prefix:].mean(dim=1)
            title = "attention that each patch receives in the last layer, mean over heads and patches"
    values = values / values.sum(dim=1, keepdim=True)
    return AttentionMap(values.unflatten(1, model.grid_size), title)
