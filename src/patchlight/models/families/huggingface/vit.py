"""Layout of ViT, DeiT, BEiT, I-JEPA, MAE, DINOv2, DINOv3 and others of such names, and what a ViT's parts tell.

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

from patchlight.machine.compat import recorded_classes
from patchlight.models.families.huggingface.attention import attention_layer, explicit, is_visible
from patchlight.models.families.huggingface.classifier import ANSWERS, begin_structure, inner
from patchlight.models.families.names import Names
from patchlight.models.structure import AttentionLayer, AttentionShape, Structure, VitAnatomy, nothing_to_fuse

HEADS = ("classifier", "cls_classifier")
LAST_NORMS = ("layernorm", "norm")
FIRST_NORMS = ("layernorm_before", "norm1")
TOKENS = ("cls_token", "distillation_token", "mask_token", "register_tokens")
DOUBLED = ("dinov2", "dinov2_with_registers")  # whose classifiers read the CLS token and the mean patch side by side
RELATIVE = ("rope_embeddings", "relative_position_bias", "relative_position_bias_table")


@dataclass(frozen=True)
class VitParts:
    """The parts of a ViT, classifier or backbone, whatever they are called."""

    embeddings: tuple[nn.Module | Tensor, ...]  # all before the first block
    patch_embed: nn.Module
    patch_kernel: Tensor | None  # (D, C, p, p), None where it is not to be resampled
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
    heads: tuple[nn.Module, ...]  # the linear maps that give logits; of a backbone none
    pooling: str  # as VitAnatomy has it
    decode: Callable[[Tensor], Tensor]  # as VitAnatomy has it
    pool_weights: Callable[[Tensor], Tensor] | None = None  # as VitAnatomy has it
    logits: Callable[[Tensor], Tensor] | None = (
        None  # images -> logits or features; None: what the model's `logits` are
    )
    set_fused_attn: Callable[[bool], None] = nothing_to_fuse
    relative: bool = False  # layers know positions by rotations or biases of the whole grid


def vit(model: nn.Module) -> Structure | None:
    """The structure of a model whose parts have the names of this layout; None of another."""
    parts = find_parts(inner(model))
    return None if parts is None else vit_structure(model, parts)


def vit_structure(model: nn.Module, parts: VitParts) -> Structure:
    """What the parts of a ViT tell of the whole: for every layout of one."""
    network, names = inner(model), Names(model)
    heads = names.keys_of(*parts.heads)
    anatomy = VitAnatomy(
        model=network,
        logits=parts.logits or (lambda images: network(pixel_values=images).logits),
        has_head=bool(heads),
        blocks=parts.blocks,
        attentions=parts.attentions,
        first_norms=parts.first_norms,
        explicit_attention=parts.explicit_attention,
        patch_embed=parts.patch_embed,
        patch_size=parts.patch_size,
        num_prefix_tokens=parts.num_prefix_tokens,
        pooling=parts.pooling,
        pool_weights=parts.pool_weights,
        decode=parts.decode,
        positions=parts.positions,
        can_drop_patches=not parts.relative,
    )
    attention = None
    if parts.positions is not None and parts.attentions:
        count = parts.attentions[0].num_heads
        tokens = parts.positions.shape[1] - parts.position_prefix + parts.num_prefix_tokens
        attention = AttentionShape(count, tokens, parts.positions.shape[2] // count)
    rows, columns = parts.patch_size
    return dataclasses.replace(
        begin_structure(model, heads),
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
    """The parts of a classifier or backbone of this layout (transformers 5); None of another."""
    kinds: dict[str, Any] = {**recorded_classes(network)}
    backbone: Any = network if hasattr(network, "embeddings") else getattr(network, network.base_model_prefix, None)
    heads = named(network, HEADS)
    last_norms = named(backbone, LAST_NORMS)
    attentions = tuple(part for part in network.modules() if isinstance(part, kinds.get("attentions", ())))
    blocks = tuple(part for part in network.modules() if isinstance(part, kinds.get("hidden_states", ())))
    first_norms = [norm for block in blocks for norm in named(block, FIRST_NORMS)[:1]]
    complete = last_norms and attentions and len(attentions) == len(blocks) == len(first_norms)
    if not complete or not (heads or network is backbone) or not all(is_visible(part) for part in attentions):
        return None
    embeddings, patch = backbone.embeddings, getattr(network.config, "patch_size", None)
    cutter: Any = getattr(embeddings, "patch_embeddings", None)
    kernel = getattr(getattr(cutter, "projection", cutter), "weight", None)  # of DINOv3 the cutter is the convolution
    if patch is None or kernel is None:
        return None
    tokens = {name: token for name in TOKENS if isinstance(token := getattr(embeddings, name, None), Tensor)}
    position_prefix = ("cls_token" in tokens) + ("distillation_token" in tokens)
    prefix = position_prefix + getattr(network.config, "num_register_tokens", 0)  # which have no positions
    names = Names(network)
    output = _output(network, backbone, heads, prefix, has_cls="cls_token" in tokens)
    whole = contextlib.nullcontext if getattr(embeddings, "random_masking", None) is None else all_patches
    return VitParts(
        embeddings=(embeddings,),
        patch_embed=cutter,
        patch_kernel=kernel,
        patch_size=(patch, patch) if isinstance(patch, int) else tuple(patch),
        tokens=tuple(tokens.values()),
        num_prefix_tokens=prefix,
        positions=getattr(embeddings, "position_embeddings", None),
        position_prefix=position_prefix,
        blocks=blocks,
        attentions=tuple(attention_layer(part, names.of(part)) for part in attentions),
        explicit_attention=lambda: _explicit(network, whole(embeddings)),
        set_fused_attn=lambda fused: network.set_attn_implementation("sdpa" if fused else "eager"),
        first_norms=tuple(first_norms),
        last_norms=tuple(norm for norm in (*last_norms, output.pooled_norm) if norm is not None),
        heads=tuple(head for head in (*heads, output.distilled) if head is not None),
        pooling=output.pooling,
        decode=lambda tokens: output.of(last_norms[0](tokens)),
        logits=lambda images: _logits(network, images, output, whole(embeddings)),
        relative=names.has_part(RELATIVE),
    )


def named(part: Any, names: Sequence[str]) -> list[Any]:
    """The parts of `part` that have these names, as far as there are any."""
    parts = (getattr(part, name, None) for name in names)
    return [part for part in parts if part is not None]


@dataclass(frozen=True)
class _Output:
    """What follows the last norm."""

    pooling: str  # as VitAnatomy has it
    of: Callable[[Tensor], Tensor]  # tokens after the last norm (B, T, D) -> logits (B, K) or features
    distilled: Any = None  # a second head, of the second token
    pooled_norm: Any = None  # BEiT's, of the mean


def _output(network: Any, backbone: Any, heads: Sequence[Any], prefix: int, *, has_cls: bool) -> _Output:
    pooler: Any = getattr(backbone, "pooler", None)
    distilled: Any = getattr(network, "distillation_classifier", None)
    pooled_norm = getattr(pooler, "layernorm", None)

    def mean(tokens: Tensor) -> Tensor:
        pooled = tokens[:, prefix:].mean(dim=1)
        return pooled if pooled_norm is None else pooled_norm(pooled)

    def both_heads(tokens: Tensor) -> Tensor:
        return torch.stack([*(head(tokens[:, 0]) for head in heads), distilled(tokens[:, 1])]).mean(dim=0)

    if not heads and pooler is not None:  # which gives the features, of one token or of the mean
        return _Output("token" if pooled_norm is None else "avg", pooler, pooled_norm=pooled_norm)
    head = heads[0] if heads else nn.Identity()
    if distilled is not None:
        return _Output("token+dist", both_heads, distilled)
    if pooled_norm is not None or not has_cls:
        return _Output("avg", lambda tokens: head(mean(tokens)), pooled_norm=pooled_norm)
    if heads and network.config.model_type in DOUBLED:
        return _Output("token+avg", lambda tokens: head(torch.cat([tokens[:, 0], mean(tokens)], dim=1)))
    return _Output("token", lambda tokens: head(tokens[:, 0]))


def _logits(network: Any, images: Tensor, output: _Output, whole: contextlib.AbstractContextManager[None]) -> Tensor:
    """What the model answers; of a backbone that pools nothing, what `output` pools of its tokens."""
    with whole:
        found = network(pixel_values=images)
    answer = next((part for name in ANSWERS if (part := getattr(found, name, None)) is not None), None)
    return output.of(found.last_hidden_state) if answer is None else answer


@contextlib.contextmanager
def _explicit(network: Any, whole: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    with explicit(network), whole:
        yield


@contextlib.contextmanager
def all_patches(embeddings: Any) -> Iterator[None]:
    """Inside, a masked autoencoder sees all patches, in reading order: else its encoder leaves out the share
    `config.mask_ratio`, drawn at random, and shuffles what stays, when it predicts too.
    """

    def in_order(module: Any, args: Any, kwargs: Any) -> tuple[Any, Any]:
        pixels = args[0] if args else kwargs["pixel_values"]
        rows, columns = module.patch_embeddings.patch_size
        count = (pixels.shape[-2] // rows) * (pixels.shape[-1] // columns)
        return args[:1], {**kwargs, "noise": torch.arange(count, device=pixels.device).expand(len(pixels), -1)}

    share = embeddings.config.mask_ratio
    handle = embeddings.register_forward_pre_hook(in_order, with_kwargs=True)
    embeddings.config.mask_ratio = 0.0
    try:
        yield
    finally:
        embeddings.config.mask_ratio = share
        handle.remove()
