"""Layout of every other classifier: its levels are the list that holds the most; hierarchies and convolutional nets."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

from torch import Tensor, nn

from patchlight.models.families.huggingface.classifier import answers, begin_structure, inner
from patchlight.models.families.names import Names, is_headless, no_vit
from patchlight.models.structure import Anatomy, Structure

HEADS = ("classifier", "cls_classifier", "distillation_classifier", "head")
BEFORE_HEAD = ("vision_model",)  # a part with a head of its own, which gives features
EMBEDDINGS = ("embeddings",)
LAST_NORMS = ("layernorm", "norm")
TOKENS = ("cls_token", "distillation_token")
NO_DECAY = (
    *TOKENS,
    "mask_token",
    "register_tokens",
    "position_embedding",
    "position_embeddings",
    "relative_position_bias_table",
)


def levels(model: nn.Module) -> Structure:
    """What can be known of any model; there is no map of its attention."""
    network, names = inner(model), Names(model)
    lists = [part for part in network.modules() if isinstance(part, nn.ModuleList)]
    largest = max(lists, key=lambda part: sum(p.numel() for p in part.parameters()), default=nn.ModuleList())
    prefix = sum(name.endswith(TOKENS) for name, _ in network.named_parameters())
    patch = _patch_size(network.config) if prefix else None
    heads = names.keys_inside(HEADS, BEFORE_HEAD)
    anatomy = Anatomy(
        model=network,
        logits=lambda images: answers(network, images, lambda last: _pool(last, prefix)),
        has_head=(bool(heads) or _classifies(network)) and not is_headless(network, HEADS),
        no_attention=no_vit(network),
        num_prefix_tokens=prefix,
        patch_size=None if patch is None else (patch, patch),
    )
    no_maps = _what_else_it_takes(network)
    return dataclasses.replace(
        begin_structure(model, heads),
        anatomy=None if no_maps else anatomy,
        no_maps=no_maps,
        levels=tuple(largest),
        patch_size=patch,
        num_prefix_tokens=prefix,
        embeddings=names.keys_with(EMBEDDINGS),
        last_norm=names.keys_with(LAST_NORMS),
        no_decay=names.keys_with(NO_DECAY),
        hidden_matrices=names.matrices_of(*largest),
        position_tables=names.keys_ending("position_embeddings"),
        position_prefix=prefix,
        patch_kernels=names.keys_ending("patch_embeddings.projection.weight"),
    )


def _pool(last: Tensor, prefix: int) -> Tensor:
    """Features (B, D) of a map (B, D, r, c), or of tokens (B, T, D): the first where `prefix` stand before patches."""
    if last.ndim == 4:
        return last.mean(dim=(2, 3))
    return last[:, 0] if prefix else last.mean(dim=1)


def _what_else_it_takes(network: Any) -> str:
    """Why a model cannot be given images alone, or nothing."""
    parameters = inspect.signature(network.forward).parameters.values()
    named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
    others = ", ".join(name for name in named if name != "pixel_values")
    return others and f"{type(network).__name__} takes {others} beside pixels, so images alone cannot be explained"


def _classifies(network: Any) -> bool:
    """Whether the library knows the model as an image classifier, whatever its head is called."""
    import transformers  # only who has such a model has it

    kinds = transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING.get(type(network.config), ())
    return isinstance(network, kinds) and network.config.num_labels > 0


def _patch_size(config: Any) -> int | None:
    size = getattr(config, "patch_size", None)
    return size if isinstance(size, int) else None
