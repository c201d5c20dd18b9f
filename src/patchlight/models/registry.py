"""The models that are Patchlight's own: one table, and what their constructors take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

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
    "resnet-micro": (ResNet, {"layers": (1, 1)}),  # as many parameters as vit-micro
    "resnet18": (ResNet, {"layers": (2, 2, 2, 2)}),
}


def all_arguments(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """`arguments` of a row of MODELS, with the constructor's defaults of those that are not given."""
    parameters = inspect.signature(MODELS[name][0]).parameters
    return {key: p.default for key, p in parameters.items()} | arguments
