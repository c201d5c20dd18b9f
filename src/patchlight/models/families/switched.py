"""Attention that has a switch, `fused_attn`, and drops weights by a module of its own, `attn_drop`: ours and timm's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from patchlight.errors import PatchlightError
from patchlight.models.structure import AttentionLayer, Tap


def attention_layer(attention: Any, name: str) -> AttentionLayer:
    """Raises PatchlightError where attention cannot be computed in parts, or its weights are out of reach."""
    if not hasattr(attention, "fused_attn") or not isinstance(getattr(attention, "attn_drop", None), nn.Module):
        raise PatchlightError(f"{name} is {type(attention).__name__}, whose attention cannot be captured")
    together = getattr(attention, "qkv", None)  # one linear map for queries, keys and values, or three
    values = Tap(attention.v_proj, _itself) if together is None else Tap(together, _last_third)
    return AttentionLayer(name, attention, attention.num_heads, Tap(attention.attn_drop, _itself), values)


def _itself(output: Tensor) -> Tensor:
    return output


def _last_third(output: Tensor) -> Tensor:
    return output.chunk(3, dim=-1)[2]


def fuse_all(model: nn.Module) -> Callable[[bool], None]:
    """`Structure.set_fused_attn`: turns every switch in the model."""

    def set_fused_attn(fused: bool) -> None:
        for module in _switches(model.modules()):
            module.fused_attn = fused

    return set_fused_attn


def unfused(attentions: tuple[AttentionLayer, ...]) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """`Anatomy.explicit_attention`: inside, no switch is on; afterwards each is as it was."""

    @contextlib.contextmanager
    def explicit_attention() -> Iterator[None]:
        before = {module: module.fused_attn for module in _switches(layer.module for layer in attentions)}
        for module in before:
            module.fused_attn = False
        try:
            yield
        finally:
            for module, fused in before.items():
                module.fused_attn = fused

    return explicit_attention


def _switches(modules: Any) -> list[Any]:
    return [module for module in modules if hasattr(module, "fused_attn")]
