"""Layout of ViT, DeiT, BEiT, I-JEPA, DINOv2 and others that name their parts as these do, and what a ViT's parts tell.

Shapes: B batch, T tokens (P prefix tokens first), N patches, D width.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from patchlight.machine.compat import attention_kind, recorded_classes
from patchlight.models.families.huggingface.classifier import begin_structure, inner
from patchlight.models.families.names import Names
from patchlight.models.structure import AttentionLayer, AttentionShape, Structure, Tap, VitAnatomy, nothing_to_fuse

HEADS = ("classifier", "cls_classifier")
LAST_NORMS = ("layernorm", "norm")
FIRST_NORMS = ("layernorm_before", "norm1")
TOKENS = ("cls_token", "distillation_token", "mask_token", "register_tokens")
RELATIVE = ("rope_embeddings", "relative_position_bias", "relative_position_bias_table")


@dataclass(frozen=True)
class VitParts:
    """The parts of a ViT classifier, whatever they are called."""

    embeddings: tuple[nn.Module | Tensor, ...]  # all before the first block
    patch_embed: nn.Module
    patch_kernel: Tensor  # (D, C, p, p)
    patch_size: tuple[int, int]
    tokens: tuple[Tensor, ...]  # all that are learned: prefix tokens, and the one that stands for a hidden patch
    num_prefix_tokens: int
    positions: Tensor | None  # the table (1, n, D) that is added to the tokens
    position_prefix: int  # how many prefix tokens have a row in it
    blocks: tuple[nn.Module, ...]
    attentions: tuple[AttentionLayer, ...]  # one in each block
    explicit_attention: Callable[[], contextlib.AbstractContextManager[None]]  # inside, weights are computed
    first_norms: tuple[nn.Module, ...]  # before the attention of each block
    last_norms: tuple[nn.Module, ...]  # after the last block
    heads: tuple[nn.Module, ...]  # the linear maps that give logits
    pooling: str  # as VitAnatomy has it
    decode: Callable[[Tensor], Tensor]  # as VitAnatomy has it
    set_fused_attn: Callable[[bool], None] = nothing_to_fuse
    relative: bool = False  # layers know positions by rotations or biases of the whole grid


def vit(model: nn.Module) -> Structure | None:
    """The structure of a model whose parts have the names of this layout; None of another."""
    parts = find_parts(inner(model))
    return None if parts is None else vit_structure(model, parts)


def vit_structure(model: nn.Module, parts: VitParts) -> Structure:
    """What the parts of a ViT tell of the whole: for every layout of one."""
    network, names = inner(model), Names(model)
    anatomy = VitAnatomy(
        model=network,
        logits=lambda images: network(pixel_values=images).logits,
        blocks=parts.blocks,
        attentions=parts.attentions,
        first_norms=parts.first_norms,
        explicit_attention=parts.explicit_attention,
        patch_embed=parts.patch_embed,
        patch_size=parts.patch_size,
        num_prefix_tokens=parts.num_prefix_tokens,
        pooling=parts.pooling,
        decode=parts.decode,
        positions=parts.positions,
        can_drop_patches=not parts.relative,
    )
    attention = None
    if parts.positions is not None and parts.attentions:
        heads = parts.attentions[0].num_heads
        tokens = parts.positions.shape[1] - parts.position_prefix + parts.num_prefix_tokens
        attention = AttentionShape(heads, tokens, parts.positions.shape[2] // heads)
    rows, columns = parts.patch_size
    return dataclasses.replace(
        begin_structure(model, names.keys_of(*parts.heads)),
        anatomy=anatomy,
        levels=parts.blocks,
        stem=names.of(parts.patch_embed),
        patch_size=rows if rows == columns else None,
        num_prefix_tokens=parts.num_prefix_tokens,
        attention=attention,
        training_attention=attention,
        set_fused_attn=parts.set_fused_attn if attention else nothing_to_fuse,
        embeddings=names.keys_of(*parts.embeddings),
        last_norm=names.keys_of(*parts.last_norms),
        no_decay=names.keys_of(parts.positions, *parts.tokens) | names.keys_with(RELATIVE),
        hidden_matrices=names.matrices_of(*parts.blocks),
        position_tables=names.keys_of(parts.positions),
        position_prefix=parts.position_prefix,
        patch_kernels=names.keys_of(parts.patch_kernel),
    )


def find_parts(network: Any) -> VitParts | None:
    """The parts of a classifier of this layout (transformers 5); None of another."""
    kinds: dict[str, Any] = {**recorded_classes(network)}
    backbone: Any = getattr(network, network.base_model_prefix, None)
    heads = _named(network, HEADS)
    last_norms = _named(backbone, LAST_NORMS)
    attentions = tuple(part for part in network.modules() if isinstance(part, kinds.get("attentions", ())))
    blocks = tuple(part for part in network.modules() if isinstance(part, kinds.get("hidden_states", ())))
    first_norms = [norm for block in blocks for norm in _named(block, FIRST_NORMS)[:1]]
    complete = heads and last_norms and attentions and len(attentions) == len(blocks) == len(first_norms)
    visible = all(hasattr(part, "v_proj") and hasattr(part, "num_attention_heads") for part in attentions)
    if not complete or not visible or not hasattr(network.config, "patch_size"):
        return None
    embeddings, patch = backbone.embeddings, network.config.patch_size
    pooled_norm = getattr(getattr(backbone, "pooler", None), "layernorm", None)  # BEiT's, of the mean
    tokens = {name: token for name in TOKENS if isinstance(token := getattr(embeddings, name, None), Tensor)}
    position_prefix = ("cls_token" in tokens) + ("distillation_token" in tokens)
    prefix = position_prefix + getattr(network.config, "num_register_tokens", 0)  # which have no positions
    distilled = getattr(network, "distillation_classifier", None)
    pooling = "token+avg" if getattr(heads[0], "in_features", 0) == 2 * network.config.hidden_size else "token"
    if distilled is not None:
        pooling = "token+dist"
    if pooled_norm is not None or "cls_token" not in tokens:
        pooling = "avg"
    names = Names(network)
    return VitParts(
        embeddings=(embeddings,),
        patch_embed=embeddings.patch_embeddings,
        patch_kernel=embeddings.patch_embeddings.projection.weight,
        patch_size=(patch, patch) if isinstance(patch, int) else tuple(patch),
        tokens=tuple(tokens.values()),
        num_prefix_tokens=prefix,
        positions=getattr(embeddings, "position_embeddings", None),
        position_prefix=position_prefix,
        blocks=blocks,
        attentions=tuple(_attention_layer(part, names.of(part)) for part in attentions),
        explicit_attention=lambda: _eager(network),
        set_fused_attn=lambda fused: network.set_attn_implementation("sdpa" if fused else "eager"),
        first_norms=tuple(first_norms),
        last_norms=tuple(norm for norm in (*last_norms, pooled_norm) if norm is not None),
        heads=tuple(head for head in (*heads, distilled) if head is not None),
        pooling=pooling,
        decode=_decoder(heads, distilled, last_norms[0], pooled_norm, prefix, pooling),
        relative=names.has_part(RELATIVE),
    )


def _named(part: Any, names: Sequence[str]) -> list[Any]:
    parts = (getattr(part, name, None) for name in names)
    return [part for part in parts if part is not None]


def _decoder(
    heads: Sequence[Any], distilled: Any, norm: Any, pooled_norm: Any, prefix: int, pooling: str
) -> Callable[[Tensor], Tensor]:
    """Tokens after any block (B, T, D) -> logits, pooled as the model pools: `Anatomy.decode`."""

    def decode(tokens: Tensor) -> Tensor:
        tokens = norm(tokens)
        mean = tokens[:, prefix:].mean(dim=1)
        if pooling == "avg":
            logits: Tensor = heads[0](mean if pooled_norm is None else pooled_norm(mean))
            return logits
        if pooling == "token+avg":
            return heads[0](torch.cat([tokens[:, 0], mean], dim=1))
        answers = [head(tokens[:, 0]) for head in heads]
        if distilled is not None:
            answers.append(distilled(tokens[:, 1]))
        return torch.stack(answers).mean(dim=0)

    return decode


def _attention_layer(attention: Any, name: str) -> AttentionLayer:
    """It gives its weights beside its output, a fused kernel None in their place."""
    weights = Tap(attention, lambda output: output[1])
    return AttentionLayer(
        name=name,
        module=attention,
        num_heads=attention.num_attention_heads,
        weights=weights,
        values=attention.v_proj,
        finish=attention.o_proj,
    )


@contextlib.contextmanager
def _eager(network: Any) -> Iterator[None]:
    before = attention_kind(network)
    network.set_attn_implementation("eager")
    try:
        yield
    finally:
        network.set_attn_implementation(before)
