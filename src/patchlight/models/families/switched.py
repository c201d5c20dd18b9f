"""Attention that has a switch, `fused_attn`, and drops weights by a module of its own, `attn_drop`: ours and timm's."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from patchlight.errors import PatchlightError
from patchlight.models.structure import AttentionLayer, Tap


def attention_layer(attention: Any, name: str) -> AttentionLayer:
    """Raises PatchlightError where attention cannot be computed in parts, its weights are out of reach, or its heads
    are not those of one softmax, as of timm's differential attention, which takes two for each.
    """
    complete = all(hasattr(attention, part) for part in ("fused_attn", "num_heads", "proj"))
    complete = complete and any(hasattr(attention, part) for part in ("qkv", "v_proj"))
    if not complete or not isinstance(getattr(attention, "attn_drop", None), nn.Module):
        raise PatchlightError(f"{name} is {type(attention).__name__}, whose attention cannot be captured")
    width, mixed = getattr(attention, "head_dim", None), getattr(attention.proj, "in_features", None)
    if isinstance(width, int) and isinstance(mixed, int) and attention.num_heads * width != mixed:
        raise PatchlightError(
            f"{name} is {type(attention).__name__}, whose {attention.num_heads} heads of {width} do not make the "
            f"{mixed} numbers that it mixes, so its attention is not one softmax over tokens"
        )
    return AttentionLayer(
        name=name,
        module=attention,
        num_heads=attention.num_heads,
        weights=Tap(attention.attn_drop, _itself),
        values=lambda tokens: _values(attention, tokens),
        finish=lambda mixed, tokens: attention.proj(_between(attention, mixed, tokens)),
    )


def _itself(output: Tensor) -> Tensor:
    return output


def _values(attention: Any, tokens: Tensor) -> Tensor:
    """(B, T, D) -> (B, T, D): by one linear map for queries, keys and values, or three; some add their biases apart."""
    together = getattr(attention, "qkv", None)
    if together is None:
        vectors: Tensor = attention.v_proj(tokens)
        if (groups := getattr(attention, "num_kv_groups", 1)) > 1:  # several heads read the same values
            vectors = vectors.unflatten(-1, (attention.num_kv_heads, -1)).repeat_interleave(groups, dim=-2).flatten(-2)
    else:
        vectors = together(tokens).chunk(3, dim=-1)[2]
        if together.bias is None and isinstance(bias := getattr(attention, "v_bias", None), Tensor):
            vectors = vectors + bias
    return vectors


def _between(attention: Any, mixed: Tensor, tokens: Tensor) -> Tensor:
    """A norm, and a gate that each token opens for itself, which some have before the last map."""
    norm, gate = getattr(attention, "norm", None), getattr(attention, "gate", None)
    if isinstance(norm, nn.Module):
        mixed = norm(mixed)
    return mixed * gate(tokens).sigmoid() if isinstance(gate, nn.Module) else mixed


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
