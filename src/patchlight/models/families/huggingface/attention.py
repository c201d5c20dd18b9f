"""Attention of Hugging Face's models, which give its weights beside its output where it is computed in parts.

Shapes: B batch, T tokens, D width.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from patchlight.machine.compat import attention_kind, attention_kinds, put_back_attention
from patchlight.models.structure import AttentionLayer, Tap

HEADS, OUTPUTS = ("num_attention_heads", "num_heads"), ("o_proj", "out_proj")


def is_visible(attention: Any) -> bool:
    """Whether a module has the parts that `attention_layer` takes."""
    return hasattr(attention, "v_proj") and all(
        any(hasattr(attention, name) for name in names) for names in (HEADS, OUTPUTS)
    )


def attention_layer(attention: Any, name: str) -> AttentionLayer:
    """The second of what it gives are the weights, of a fused kernel None."""
    heads, output = (next(getattr(attention, n) for n in names if hasattr(attention, n)) for names in (HEADS, OUTPUTS))
    return AttentionLayer(
        name=name,
        module=attention,
        num_heads=heads,
        weights=Tap(attention, lambda result: result[1]),
        values=attention.v_proj,
        finish=lambda mixed, tokens: output(mixed),
    )


@contextlib.contextmanager
def explicit(network: Any) -> Iterator[None]:
    """Inside, attention is computed in parts; afterwards each configuration is as it was."""
    kind, kinds = attention_kind(network), attention_kinds(network)
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        if not kinds:
            network.set_attn_implementation(kind)
        put_back_attention(kinds)
