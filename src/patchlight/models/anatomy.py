"""Where a Vision Transformer keeps what explanations need: ours, timm's, and Hugging Face's, seen alike.

Shapes: B batch, T tokens (P prefix tokens first, then N patches in reading order), D width, K classes, (r, c) grid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from patchlight.errors import PatchlightError
from patchlight.machine.compat import recorded_classes
from patchlight.models.families.huggingface import HuggingFaceClassifier
from patchlight.models.layers import SequencePool

# Hugging Face names the heads and norms of its image classifiers so.
HF_HEADS = ("classifier", "cls_classifier")
HF_NORMS = ("layernorm", "norm")


@dataclass(frozen=True)
class Anatomy:
    """The parts of a ViT classifier, in the order of its layers."""

    model: nn.Module
    blocks: tuple[nn.Module, ...]
    attentions: tuple[nn.Module, ...]
    attention_names: tuple[str, ...]
    first_norms: tuple[nn.Module, ...]  # before the attention of each block
    patch_embed: nn.Module
    patch_size: tuple[int, int]
    num_prefix_tokens: int
    pooling: str  # "token", "avg" (mean patch), "seq" (learned average of patches), "token+avg" or "token+dist"
    pool: nn.Module | None  # of "seq"
    decode: Callable[[Tensor], Tensor]  # tokens after any block (B, T, D) -> the logits (B, K) that they would give
    is_hugging_face: bool

    def logits(self, images: Tensor) -> Tensor:
        """Normalised images (B, C, H, W) -> (B, K)."""
        out = self.model(images)
        return out.logits if self.is_hugging_face else out

    def grid(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of patches."""
        return images.shape[-2] // self.patch_size[0], images.shape[-1] // self.patch_size[1]

    def readout(self, tokens: Tensor) -> Tensor:
        """How much of each token after the last block (B, T, D) goes into the pooled one: (B, T), summing to 1."""
        share = tokens.new_zeros(tokens.shape[:2])
        patches = share[:, self.num_prefix_tokens :]
        if self.pooling == "seq":
            assert isinstance(self.pool, SequencePool)
            norm: Any = self.model.norm
            patches += self.pool.weights(norm(tokens)[:, self.num_prefix_tokens :])
        if "avg" in self.pooling:
            patches += 1 / patches.shape[1]
        if "token" in self.pooling:
            share[:, 0] += 1
        if "dist" in self.pooling:
            share[:, 1] += 1
        return share / share.sum(dim=1, keepdim=True)


def find_anatomy(model: nn.Module) -> Anatomy | None:
    """`dissect`'s, or None for a model that has no attention to look at."""
    try:
        anatomy = dissect(model)
    except PatchlightError:
        return None
    return anatomy if anatomy.blocks else None


def dissect(model: nn.Module) -> Anatomy:
    """The anatomy of `model`: a VisionTransformer of Patchlight or timm, or a Hugging Face image classifier.

    Raises PatchlightError, naming what is missing, for models that are no such ViT.
    """
    if isinstance(model, HuggingFaceClassifier):
        model = model.hf
    if hasattr(model, "config") and hasattr(model, "base_model_prefix"):
        return _of_hugging_face(model)
    if isinstance(getattr(model, "blocks", None), nn.Module) and hasattr(model, "forward_head"):
        return _of_timm(model)
    raise PatchlightError(
        f"{type(model).__name__} is no Vision Transformer that can be explained; give one of Patchlight, timm's "
        "VisionTransformer, or a ...ForImageClassification of Hugging Face"
    )


def _of_timm(model: Any) -> Anatomy:
    """timm's VisionTransformer, and ours, which has its names."""
    blocks = tuple(model.blocks)
    missing = [i for i, block in enumerate(blocks) if not hasattr(block, "attn") or not hasattr(block, "norm1")]
    if missing or not hasattr(model, "num_prefix_tokens"):
        raise PatchlightError(f"{type(model).__name__} has no plain transformer blocks of norm1 and attn, so no map")
    for i, block in enumerate(blocks):
        check_attention(block.attn, f"blocks.{i}.attn")
    pool = getattr(model, "attn_pool", None)
    if pool is not None and not isinstance(pool, SequencePool):
        raise PatchlightError(f"{type(model).__name__} pools by {type(pool).__name__}, which maps cannot see through")
    pooling = "seq" if pool is not None else str(model.global_pool)
    if getattr(model, "head_dist", None) is not None:
        pooling = "token+dist"
    if pooling not in ("token", "avg", "seq", "token+dist"):
        raise PatchlightError(f"{type(model).__name__} pools by '{pooling}'; maps know token and avg")
    embed: Any = getattr(model, "patch_embed", None)
    # Of a hybrid timm counts `patch_size` in cells of the network before it, the ratio in pixels.
    patch = embed.feat_ratio(as_scalar=False) if hasattr(embed, "feat_ratio") else getattr(model, "patch_size", None)
    if patch is None:
        raise PatchlightError(f"{type(model).__name__} does not say how large its patches are, so no map")
    return Anatomy(
        model=model,
        blocks=blocks,
        attentions=tuple(block.attn for block in blocks),
        attention_names=tuple(f"blocks.{i}.attn" for i in range(len(blocks))),
        first_norms=tuple(block.norm1 for block in blocks),
        patch_embed=model.patch_embed,
        patch_size=(patch, patch) if isinstance(patch, int) else tuple(patch),
        num_prefix_tokens=model.num_prefix_tokens,
        pooling=pooling,
        pool=pool,
        decode=lambda tokens: model.forward_head(model.norm(tokens)),
        is_hugging_face=False,
    )


def check_attention(attention: Any, name: str) -> None:
    """Raises PatchlightError where attention cannot be computed in parts, or its weights are out of reach."""
    if not hasattr(attention, "fused_attn") or not isinstance(getattr(attention, "attn_drop", None), nn.Module):
        raise PatchlightError(f"{name} is {type(attention).__name__}, whose attention cannot be captured")


def _of_hugging_face(model: Any) -> Anatomy:
    """ViT, DeiT, DINOv2, ... `ForImageClassification`, transformers 5."""
    kinds: dict[str, Any] = {**recorded_classes(model)}
    backbone: Any = getattr(model, model.base_model_prefix, None)
    heads = [head for name in HF_HEADS if (head := getattr(model, name, None)) is not None]
    norms = [norm for name in HF_NORMS if (norm := getattr(backbone, name, None)) is not None]
    named = [(n, m) for n, m in model.named_modules() if isinstance(m, kinds.get("attentions", ()))]
    blocks: list[Any] = [m for m in model.modules() if isinstance(m, kinds.get("hidden_states", ()))]
    first_norms: list[Any] = [
        n for b in blocks if (n := getattr(b, "layernorm_before", getattr(b, "norm1", None))) is not None
    ]
    known = heads and norms and named and len(named) == len(blocks) == len(first_norms)
    if not known or not hasattr(model.config, "patch_size"):
        raise PatchlightError(
            f"{type(model).__name__} is no ViT image classifier of Hugging Face whose parts are known; ViT, DeiT and "
            "DINOv2 ...ForImageClassification are"
        )
    embeddings, patch = backbone.embeddings, model.config.patch_size
    prefix = sum(getattr(embeddings, name, None) is not None for name in ("cls_token", "distillation_token"))
    prefix += getattr(model.config, "num_register_tokens", 0)
    width = getattr(heads[0], "in_features", None)
    pooling = "token+avg" if width == 2 * model.config.hidden_size else "token"
    if getattr(model, "distillation_classifier", None) is not None:
        pooling = "token+dist"
    pooled_norm = getattr(getattr(backbone, "pooler", None), "layernorm", None)  # BEiT's, of the mean
    if pooled_norm is not None or getattr(embeddings, "cls_token", None) is None:
        pooling = "avg"

    def decode(tokens: Tensor) -> Tensor:
        tokens = norms[0](tokens)
        if pooling == "avg":
            pooled = tokens[:, prefix:].mean(dim=1)
            return heads[0](pooled if pooled_norm is None else pooled_norm(pooled))
        if pooling.startswith("token") and "avg" not in pooling:
            logits = [head(tokens[:, 0]) for head in heads]
        else:
            logits = [heads[0](torch.cat([tokens[:, 0], tokens[:, prefix:].mean(dim=1)], dim=1))]
        if (distilled := getattr(model, "distillation_classifier", None)) is not None:
            logits.append(distilled(tokens[:, 1]))
        return torch.stack(logits).mean(dim=0)

    return Anatomy(
        model=model,
        blocks=tuple(blocks),
        attentions=tuple(module for _, module in named),
        attention_names=tuple(name for name, _ in named),
        first_norms=tuple(first_norms),
        patch_embed=embeddings.patch_embeddings,
        patch_size=(patch, patch) if isinstance(patch, int) else tuple(patch),
        num_prefix_tokens=prefix,
        pooling=pooling,
        pool=None,
        decode=decode,
        is_hugging_face=True,
    )
