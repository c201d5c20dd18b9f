"""Attention in one kernel, or as two products and a softmax: the same numbers, and the shape decides which is faster.

Ours and timm's attention has a switch; Hugging Face's is asked for by name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from patchlight.machine.fastest import faster_attention
from patchlight.models.families.huggingface import HuggingFaceClassifier
from patchlight.models.layers import PatchDropout, kept_patches
from patchlight.models.mae import MaskedAutoencoder


def attention_shape(model: Any, *, training: bool = False) -> tuple[int, int, int] | None:
    """Heads, tokens and the width of a head of a ViT, in which all layers are alike; None of another network.

    In training, patches that are dropped and those that an autoencoder's encoder does not see are no tokens.
    """
    if isinstance(model, MaskedAutoencoder):
        shape = attention_shape(model.encoder)
        return (shape[0], model.encoder.num_prefix_tokens + model.visible, shape[2]) if shape and training else shape
    if isinstance(model, HuggingFaceClassifier):
        inner: Any = model.hf
        embeddings = getattr(getattr(inner, inner.base_model_prefix, None), "embeddings", None)
        table, heads = getattr(embeddings, "position_embeddings", None), getattr(inner.config, "num_attention_heads", 0)
        if table is None or not isinstance(heads, int) or not heads:
            return None
        tokens = table.shape[1] + getattr(inner.config, "num_register_tokens", 0)  # which have no positions
        return heads, tokens, table.shape[2] // heads
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or not len(blocks) or not hasattr(model, "num_prefix_tokens"):
        return None
    attention: Any = getattr(blocks[0], "attn", None)
    grid = getattr(model, "grid_size", None) or getattr(getattr(model, "patch_embed", None), "grid_size", None)
    width = getattr(attention, "head_dim", None) or getattr(model, "head_dim", None)
    if not hasattr(attention, "fused_attn") or grid is None or width is None:
        return None
    patches = grid[0] * grid[1]
    if training and isinstance(dropout := getattr(model, "patch_drop", None), PatchDropout):
        patches = kept_patches(patches, dropout.rate)
    return attention.num_heads, model.num_prefix_tokens + patches, width


def set_fused_attn(model: nn.Module, fused: bool) -> None:
    """Let every layer's attention be one kernel, or not. Nothing happens to a network without attention."""
    if isinstance(model, HuggingFaceClassifier):
        if attention_shape(model) is not None:
            inner: Any = model.hf
            inner.set_attn_implementation("sdpa" if fused else "eager")
        return
    layers: list[Any] = [module for module in model.modules() if hasattr(module, "fused_attn")]
    for layer in layers:
        layer.fused_attn = fused


def resolve_fused(
    asked: bool | None, model: nn.Module, batch: int, precision: str, device: torch.device
) -> bool | None:
    """What a recipe asks for; where it leaves that open, the faster kind."""
    return choose_fused(model, batch, precision, device) if asked is None else asked


def choose_fused(
    model: nn.Module, batch: int, precision: str, device: torch.device, *, training: bool = True
) -> bool | None:
    """Whether attention of the model's shape is faster fused on this machine; None of a network without."""
    shape = attention_shape(model, training=training)
    if shape is None:
        return None
    heads, tokens, width = shape
    return faster_attention(batch, heads, tokens, width, precision, device, training=training) == "fused"
