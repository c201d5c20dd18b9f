"""Attention in one kernel, or as two products and a softmax: the same numbers, one of them in less time."""

from __future__ import annotations

import torch
from torch import nn

from patchlight.machine.fastest import faster_attention
from patchlight.models.families import structure_of
from patchlight.models.structure import AttentionShape


def attention_shape(model: nn.Module, *, training: bool = False) -> AttentionShape | None:
    """Heads, tokens and the width of a head of a ViT, in which all layers are alike; None of another network.

    In training, patches that are dropped and those that an autoencoder's encoder does not see are no tokens.
    """
    structure = structure_of(model)
    return structure.training_attention if training else structure.attention


def set_fused_attn(model: nn.Module, fused: bool) -> None:
    """Let every layer's attention be one kernel, or not. Nothing happens to a network without attention."""
    structure_of(model).set_fused_attn(fused)


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
    return faster_attention(batch, *shape, precision, device, training=training) == "fused"
