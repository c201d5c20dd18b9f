"""The models that are Patchlight's own: one table, and the way from its rows to modules."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from patchlight.config import ModelConfig
from patchlight.errors import UsageError, did_you_mean
from patchlight.models.backbone import does_not_apply, no_revision
from patchlight.models.families.hub import build as build_of_hub
from patchlight.models.families.hub import is_in_timm
from patchlight.models.resnet import ResNet
from patchlight.models.vit import VisionTransformer

# name: (class, its arguments). The shapes and where they come from: docs of the recipes of the same names.
MODELS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "vit-micro": (VisionTransformer, {"patch_size": 4, "embed_dim": 96, "depth": 4, "num_heads": 3, "mlp_ratio": 2.0}),
    "vit-tiny": (VisionTransformer, {"patch_size": 4, "embed_dim": 192, "depth": 6, "num_heads": 3}),
    "vit-small": (VisionTransformer, {"patch_size": 4, "embed_dim": 288, "depth": 6, "num_heads": 6}),
    "vit-base": (VisionTransformer, {"patch_size": 4, "embed_dim": 512, "depth": 8, "num_heads": 8}),
    "deit-tiny": (VisionTransformer, {"patch_size": 4, "embed_dim": 192, "depth": 12, "num_heads": 3}),
    "vit-compact": (
        VisionTransformer,
        {
            "patch_size": 4,
            "embed_dim": 128,
            "depth": 4,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            "stem": "conv",
            "global_pool": "seq",
        },
    ),
    "vit-hybrid": (
        VisionTransformer,
        {
            "patch_size": 8,
            "embed_dim": 256,
            "depth": 1,
            "num_heads": 4,
            "mlp_ratio": 2.0,
            "init_values": 0.1,
            "stem": "conv",
            "stem_channels": (64, 256, 256),
            "stem_whitening": 24,
            "global_pool": "avg",
        },
    ),
    "resnet18": (ResNet, {"layers": (2, 2, 2, 2)}),
}


def model_args(config: ModelConfig, *, img_size: int, num_classes: int) -> dict[str, Any]:
    """The arguments of a row of MODELS with the config's fields laid over them.

    Raises UsageError for an unknown model and for a field that the model does not have.
    """
    if config.name not in MODELS and Path(config.name).is_dir():
        raise UsageError(f"{config.name} has no config.json of a model of Patchlight, timm or Hugging Face")
    if config.name not in MODELS:
        if is_in_timm(config.name):
            raise UsageError(f"no model '{config.name}' of Patchlight, but timm has it: timm/{config.name}")
        raise UsageError(
            f"no model '{config.name}'; {did_you_mean(config.name, MODELS)} Pretrained ones are timm/NAME, OWNER/NAME "
            "on the Hugging Face hub, or a folder"
        )
    if config.revision is not None:
        raise no_revision(config.name)
    return with_fields(config.name, MODELS[config.name][1], config, img_size, num_classes)


def with_fields(
    name: str, args: dict[str, Any], config: ModelConfig, img_size: int, num_classes: int
) -> dict[str, Any]:
    given, known = given_fields(config), arguments(name)
    for key in given:
        if key not in known:
            raise does_not_apply(key, config.name)
    return {**args, **given, "img_size": img_size, "num_classes": num_classes}


def given_fields(config: ModelConfig) -> dict[str, Any]:
    """The fields that are set, but for those that say which weights."""
    apart = ("name", "pretrained", "revision", "img_size")
    return {k: v for k, v in dataclasses.asdict(config).items() if v is not None and k not in apart}


def all_args(name: str, args: dict[str, Any]) -> dict[str, Any]:
    """With the defaults of those that are not given."""
    parameters = inspect.signature(MODELS[name][0]).parameters
    return {key: p.default for key, p in parameters.items()} | args


def arguments(name: str) -> set[str]:
    return set(all_args(name, {}))


def build_model(name: str, args: dict[str, Any]) -> nn.Module:
    """The model with exactly these arguments; convolutions are channels-last, which CPUs and GPUs do faster."""
    model = build_of_hub(args) if "library" in args else MODELS[name][0](**args)
    return model.to(memory_format=torch.channels_last)
