"""How models of timm make one vector of their tokens, and how much of each token goes into it.

Shapes: B batch, T tokens (P prefix tokens first), D width, h heads, d = D / h, q latent queries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from patchlight.errors import PatchlightError

ATTENTION_POOL = ("latent", "q", "kv", "q_norm", "k_norm", "num_heads", "scale", "latent_len", "pool")


def pooling_of(model: Any) -> tuple[str, Callable[[Tensor], Tensor] | None]:
    """`pooling` and `pool_weights` of VitAnatomy. Raises PatchlightError for a pooling that is no average of tokens."""
    kind = type(model).__name__
    if getattr(model, "head_dist", None) is not None:
        return "token+dist", None
    if (pool := getattr(model, "attn_pool", None)) is not None:
        if not all(hasattr(pool, part) for part in ATTENTION_POOL):
            raise PatchlightError(f"{kind} pools by {type(pool).__name__}, which maps cannot see through")
        return "seq", lambda tokens: _latent_weights(model, pool, tokens)
    if model.global_pool not in ("token", "avg"):
        raise PatchlightError(f"{kind} pools by '{model.global_pool}'; maps know token, avg and map")
    if model.global_pool == "avg" and getattr(model, "pool_include_prefix", False):
        return "avg", lambda tokens: tokens.new_full(tokens.shape[:2], 1 / tokens.shape[1])
    return model.global_pool, None


def _latent_weights(model: Any, pool: Any, tokens: Tensor) -> Tensor:
    """(B, T): the attention of the latent query in timm's AttentionPoolLatent, mean over heads; of several latents that
    of the first or the mean, as they are pooled.
    """
    prefix = 0 if getattr(model, "pool_include_prefix", True) else model.num_prefix_tokens  # Eva pools all tokens
    tokens = model.norm(tokens)[:, prefix:]
    if pool.pos_embed is not None:
        tokens = tokens + pool.pos_embed.to(tokens.dtype)
    keys = pool.kv(tokens).chunk(2, dim=-1)[0]
    queries, keys = (
        part.unflatten(-1, (pool.num_heads, -1)).transpose(1, 2)  # (1, h, q, d), (B, h, T, d)
        for part in (pool.q(pool.latent), keys)
    )
    scores = (pool.q_norm(queries) * pool.scale) @ pool.k_norm(keys).transpose(-2, -1)
    weights = scores.softmax(dim=-1).mean(dim=1)  # (B, q, T)
    weights = weights[:, 0] if pool.pool == "token" else weights.mean(dim=1)
    return F.pad(weights, (prefix, 0))
