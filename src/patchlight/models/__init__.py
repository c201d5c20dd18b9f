"""The models: Patchlight's own, those of timm and Hugging Face and those of other runs, all begun with in one way."""

from __future__ import annotations

from patchlight.models.backbone import Backbone
from patchlight.models.card import ModelCard, ModelSpec, pixels_to_input
from patchlight.models.families import build_model, structure_of
from patchlight.models.families.patchlight import new_spec
from patchlight.models.loading import (
    check_model,
    create_model,
    load_backbone,
    own_input,
    pin_checkpoints,
    resize_model,
    with_own_input,
)
from patchlight.models.reference import understand
from patchlight.models.registry import MODELS
from patchlight.models.resnet import ResNet
from patchlight.models.saved import load_classifier, load_model, save_model
from patchlight.models.vit import VisionTransformer

__all__ = [
    "MODELS",
    "Backbone",
    "ModelCard",
    "ModelSpec",
    "ResNet",
    "VisionTransformer",
    "build_model",
    "check_model",
    "create_model",
    "load_backbone",
    "load_classifier",
    "load_model",
    "new_spec",
    "own_input",
    "pin_checkpoints",
    "pixels_to_input",
    "resize_model",
    "save_model",
    "structure_of",
    "understand",
    "with_own_input",
]
