"""`patchlight models`: the models there are, and what one is made of."""

from __future__ import annotations

import dataclasses
from typing import Any

from patchlight.config import ModelConfig
from patchlight.models import MODELS, create_model, understand
from patchlight.models.reference import SavedModel
from patchlight.models.summary import count, describe


def models(img_size: int = 32, num_classes: int = 10) -> list[dict[str, Any]]:
    """Every model with its size."""
    return [
        {"name": name, **count(create_model(name, img_size=img_size, num_classes=num_classes), img_size).to_json()}
        for name in MODELS
    ]


def describe_model(config: ModelConfig, img_size: int = 32, num_classes: int = 10) -> dict[str, Any]:
    """One model's size and its layers."""
    if not isinstance(understand(config.name), SavedModel):
        config = dataclasses.replace(config, pretrained=False)  # its shape is asked for, which needs no weights
    model = create_model(config, img_size=img_size, num_classes=num_classes)
    return {
        "name": config.name,
        **count(model, img_size).to_json(),
        "layers": [layer.to_json() for layer in describe(model, img_size)],
    }
