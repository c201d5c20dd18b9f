"""Attention weights of a ViT while it predicts, fused attention or not.

Shapes: B batch, T tokens (prefix first), h heads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from patchlight.models.layers import Attention


@contextlib.contextmanager
def record_attention(model: nn.Module, layers: Sequence[int] | None = None) -> Iterator[dict[int, Tensor]]:
    """Inside the `with`, a forward pass fills the yielded dict with layer -> attention (B, h, T, T), rows summing to 1.

    The weights are computed beside the model's own pass, which is left as it is; the hooks are gone after the `with`,
    after an exception too. `layers` are block indices (negative ones count from the end); None is all of them.
    """
    modules = [m for m in model.modules() if isinstance(m, Attention)]
    chosen = range(len(modules)) if layers is None else [range(len(modules))[i] for i in layers]
    recorded: dict[int, Tensor] = {}

    def hook_for(layer: int) -> Any:
        def hook(module: Attention, args: tuple[Tensor], output: Tensor) -> None:
            with torch.no_grad():
                q, k, _ = module.query_key_value(args[0])
                recorded[layer] = module.weights(q, k)

        return hook

    handles = [modules[i].register_forward_hook(hook_for(i)) for i in chosen]
    try:
        yield recorded
    finally:
        for handle in handles:
            handle.remove()
