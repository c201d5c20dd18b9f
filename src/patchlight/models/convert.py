"""Our ViT as timm's and as Hugging Face's, and theirs as ours, weight for weight.

timm's keys are ours. Hugging Face keeps queries, keys and values apart and has other names; QKV and NAMES say which.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from patchlight.errors import PatchlightError
from patchlight.machine.process import import_library
from patchlight.models.card import ModelCard
from patchlight.models.families import structure_of
from patchlight.models.layers import EPS
from patchlight.models.vit import VisionTransformer

TIMM_ARCHITECTURE = "vit_tiny_patch16_224"  # a plain ViT of timm's registry, all of whose sizes are given anew
QKV = ("q_proj", "k_proj", "v_proj")
# Ours: Hugging Face's.
NAMES = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "norm": "vit.layernorm",
    "head": "classifier",
}
BLOCK_NAMES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def as_timm(model: nn.Module, card: ModelCard) -> tuple[nn.Module, dict[str, Any]]:
    """A saved model of any family as timm's, and the arguments that timm builds it with.

    Raises PatchlightError for a model that timm does not have.
    """
    network = structure_of(model).network
    if isinstance(network, VisionTransformer):
        return to_timm(network)
    if card.spec.family == "huggingface":
        return to_timm(from_hugging_face(network))
    if card.spec.family == "timm":
        return network, card.spec.arguments
    raise PatchlightError(f"timm has no {card.name} of this shape; export to safetensors or onnx")


def as_hugging_face(model: nn.Module, card: ModelCard) -> nn.Module:
    """A saved model of any family as a `...ForImageClassification` that knows its classes.

    Raises PatchlightError for a model that Hugging Face does not have.
    """
    network: Any = structure_of(model).network
    if card.spec.family == "huggingface":
        network.config.id2label = dict(enumerate(card.class_names))
        network.config.label2id = {name: i for i, name in enumerate(card.class_names)}
        theirs: nn.Module = network
        return theirs
    ours = network if isinstance(network, VisionTransformer) else from_timm(network)
    return to_hugging_face(ours, card.class_names)


def to_timm(model: VisionTransformer) -> tuple[nn.Module, dict[str, Any]]:
    """timm's VisionTransformer with the weights of ours, and the arguments that timm builds it with.

    Fixed sinusoidal positions become a learned table of the same values. Raises PatchlightError for a convolutional
    stem and for sequence pooling, which timm's does not have.
    """
    check_plain(model, "timm")
    options = {
        "img_size": model.img_size,
        "patch_size": model.patch_size,
        "embed_dim": model.head.in_features,
        "depth": len(model.blocks),
        "num_heads": model.num_heads,
        "mlp_ratio": model.mlp_ratio,
        "global_pool": model.global_pool,
        "class_token": model.cls_token is not None,
        "reg_tokens": 0 if model.reg_token is None else model.reg_token.shape[1],
        "init_values": model.init_values or None,
        "qk_norm": model.qk_norm,
        "pos_embed": "none" if model.pos_embed is None else "learn",
    }
    theirs = import_library("timm").create_model(TIMM_ARCHITECTURE, num_classes=model.num_classes, **options)
    theirs.load_state_dict(state_with_positions(model))
    return theirs.eval(), options


def from_timm(model: Any) -> VisionTransformer:
    """Our VisionTransformer with the weights of timm's.

    Raises PatchlightError where timm's has parts that ours does not have.
    """
    blocks = getattr(model, "blocks", None)
    if type(model).__name__ != "VisionTransformer" or not blocks or getattr(model, "no_embed_class", False):
        raise PatchlightError(
            f"{type(model).__name__} is not timm's plain ViT, which alone can be converted; export as safetensors or "
            "onnx"
        )
    block, dim = blocks[0], model.embed_dim
    args = {
        "img_size": model.patch_embed.img_size[0],
        "patch_size": model.patch_embed.patch_size[0],
        "embed_dim": dim,
        "depth": len(blocks),
        "num_heads": block.attn.num_heads,
        "mlp_ratio": block.mlp.fc1.out_features / dim,
        "global_pool": model.global_pool,
        "reg_tokens": 0 if model.reg_token is None else model.reg_token.shape[1],
        "init_values": float(block.ls1.gamma.detach().abs().mean()) if hasattr(block.ls1, "gamma") else 0.0,
        "qk_norm": isinstance(block.attn.q_norm, nn.LayerNorm),
        "num_classes": model.num_classes,
        "pos_embed": "none" if model.pos_embed is None else "learn",
    }
    return loaded(args, model.state_dict(), "timm")


def to_hugging_face(model: VisionTransformer, class_names: tuple[str, ...]) -> nn.Module:
    """A ViTForImageClassification with the weights of ours; without `class_names` its classes are LABEL_0 and so on.

    Raises PatchlightError for what it does not have: a convolutional stem, pooling without a CLS token, registers,
    LayerScale and normalised queries.
    """
    check_plain(model, "Hugging Face")
    for lacks, what in (
        (model.global_pool != "token", "pooling without a CLS token (train with model.global_pool = 'token')"),
        (model.reg_token is not None, "register tokens"),
        (model.init_values, "LayerScale (model.init_values)"),
        (model.qk_norm, "normalised queries and keys (model.qk_norm)"),
        (model.pos_embed is None, "a model without positions"),
    ):
        if lacks:
            raise PatchlightError(f"Hugging Face's ViT has no {what}; export to timm, safetensors or onnx")
    transformers = import_library("transformers")
    dim = model.head.in_features
    names = class_names or tuple(f"LABEL_{i}" for i in range(model.num_classes))
    config = transformers.ViTConfig(
        image_size=model.img_size,
        patch_size=model.patch_size,
        hidden_size=dim,
        num_hidden_layers=len(model.blocks),
        num_attention_heads=model.num_heads,
        intermediate_size=int(dim * model.mlp_ratio),
        layer_norm_eps=EPS,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
    )
    theirs = transformers.ViTForImageClassification(config)
    theirs.load_state_dict(to_hugging_face_names(state_with_positions(model)))
    return theirs.eval()


def from_hugging_face(model: Any) -> VisionTransformer:
    """Our VisionTransformer with the weights of a ViTForImageClassification.

    Raises PatchlightError for another class of model.
    """
    config = model.config
    if type(model).__name__ != "ViTForImageClassification" or config.hidden_act != "gelu" or not config.qkv_bias:
        raise PatchlightError(
            f"{type(model).__name__} has no counterpart here, as a ViTForImageClassification with GELU has; export as "
            "safetensors or onnx"
        )
    args = {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.hidden_size,
        "depth": config.num_hidden_layers,
        "num_heads": config.num_attention_heads,
        "mlp_ratio": config.intermediate_size / config.hidden_size,
        "num_classes": config.num_labels,
    }
    return loaded(args, from_hugging_face_names(model.state_dict()), "Hugging Face")


def check_plain(model: VisionTransformer, whose: str) -> None:
    """Raises PatchlightError where the way from pixels to tokens, or from tokens to the head, is our own."""
    for ours, what in (
        (model.stem == "conv", "convolutional stem"),
        (model.attn_pool is not None, "sequence pooling"),
        (model.head_dist is not None, "distillation token beside a CLS token"),
    ):
        if ours:
            raise PatchlightError(f"{whose}'s ViT has no {what}; export to safetensors or onnx")


def state_with_positions(model: VisionTransformer) -> dict[str, Tensor]:
    """The state dict, with positions that are computed and so not saved."""
    state = model.state_dict()
    return state if model.pos_embed is None else {**state, "pos_embed": model.pos_embed.detach()}


def loaded(args: dict[str, Any], state: dict[str, Tensor], whose: str) -> VisionTransformer:
    """Our ViT of these arguments with these weights. Raises PatchlightError where they do not fit."""
    model = VisionTransformer(**args)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise PatchlightError(f"the model of {whose} has parts that have no counterpart here: {reason}") from None
    return model.eval()


def to_hugging_face_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our keys -> Hugging Face's; qkv (3 D, D) is cut into three."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        if key.startswith("blocks."):
            _, number, rest = key.split(".", 2)
            inner, _, kind = rest.rpartition(".")
            if inner == "attn.qkv":
                parts = zip(QKV, value.chunk(3), strict=True)
                renamed |= {f"vit.layers.{number}.attention.{name}.{kind}": part for name, part in parts}
            else:
                renamed[f"vit.layers.{number}.{BLOCK_NAMES[inner]}.{kind}"] = value
        else:
            inner, dot, kind = (key, "", "") if key in NAMES else key.rpartition(".")
            renamed[f"{NAMES[inner]}{dot}{kind}"] = value
    return renamed


def from_hugging_face_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face's keys -> ours."""
    names = {theirs: ours for ours, theirs in NAMES.items()}
    block_names = {theirs: ours for ours, theirs in BLOCK_NAMES.items()}
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        inner, dot, kind = (key, "", "") if key in names else key.rpartition(".")
        if inner in names:
            renamed[f"{names[inner]}{dot}{kind}"] = value
            continue
        _, _, number, rest = inner.split(".", 3)
        if rest.removeprefix("attention.") in QKV:
            parts = [state[f"vit.layers.{number}.attention.{name}.{kind}"] for name in QKV]
            renamed[f"blocks.{number}.attn.qkv.{kind}"] = torch.cat(parts)
        else:
            renamed[f"blocks.{number}.{block_names[rest]}.{kind}"] = value
    return renamed
