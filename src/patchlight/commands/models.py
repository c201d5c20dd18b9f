"""`patchlight models`: the models that there are, or one of them layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from patchlight.config import Config, ModelConfig, apply_overrides
from patchlight.errors import UsageError
from patchlight.models import MODELS, create_model, own_input, understand
from patchlight.models.reference import SavedModel
from patchlight.models.summary import Layer, ModelSize, count, describe

SIZE = 32  # pixels a side, where no weights were made for another


@dataclass(frozen=True)
class ModelDescription:
    """A model's size, and its layers in the order of the forward pass where they were asked for."""

    name: str
    size: ModelSize
    layers: tuple[Layer, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        layers = {} if self.layers is None else {"layers": [layer.to_json() for layer in self.layers]}
        return {"name": self.name, **self.size.to_json(), **layers}


def list_models(
    name: str | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    img_size: int | None = None,
    classes: int = 10,
) -> list[ModelDescription] | ModelDescription:
    """The size of every row of MODELS, or with a `name`, as in model.name, what that model is made of.

    `settings` are of the section `model`, as {"model.patch_size": 8}; `img_size` is in pixels a side, and unset it is
    the size that the model's pretrained weights were made for, else 32.
    Raises UsageError for a name or a setting that is wrong, and for settings without a name.
    """
    for option, value in (("--img-size", img_size), ("--classes", classes)):
        if value is not None and value < 1:
            raise UsageError(f"{option} must be at least 1, not {value}")
    for key in settings or {}:
        if key == "model.img_size":
            raise UsageError(f"`patchlight models` does not take --{key}; give it as --img-size")
        if name is None or not key.startswith("model."):
            raise UsageError(
                f"`patchlight models` does not take --{key}; name a model, and change its model.field alone"
            )
    if name is None:
        size = img_size or SIZE
        models = {row: create_model(row, img_size=size, num_classes=classes) for row in MODELS}
        return [ModelDescription(row, count(model, size)) for row, model in models.items()]
    config = apply_overrides(Config(model=ModelConfig(name=name)), settings or {}).model
    return describe_model(config, img_size, classes)


def describe_model(config: ModelConfig, img_size: int | None, classes: int) -> ModelDescription:
    img_size = img_size or own_input(config).size or SIZE
    if not isinstance(understand(config.name), SavedModel):
        config = dataclasses.replace(config, pretrained=False)  # only its shape is needed, so no weights are loaded
    model = create_model(config, img_size=img_size, num_classes=classes)
    return ModelDescription(config.name, count(model, img_size), tuple(describe(model, img_size)))
