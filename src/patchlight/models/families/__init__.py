"""The families of models: each is a module with the functions of `Family`, and the rest of the code asks only these."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import nn

from patchlight.config import ModelConfig
from patchlight.models.card import ModelSpec
from patchlight.models.families import huggingface, patchlight, timm
from patchlight.models.structure import Structure


class Family(Protocol):
    """What each family can do, beside `check` and `load`, which take a reference of its own kind."""

    def owns(self, model: nn.Module) -> bool:
        """Whether a module is one of the family's."""

    def check_spec(self, spec: ModelSpec) -> None:
        """Raises PatchlightError where a spec that was read from a file is no plain description of a network."""

    def build(self, spec: ModelSpec) -> nn.Module:
        """The model of a spec, its weights drawn anew."""

    def reshape(self, spec: ModelSpec, img_size: int, num_classes: int, config: ModelConfig | None = None) -> ModelSpec:
        """For another image size and number of classes, a recipe's fields laid over it.

        Raises UsageError for a field that the model does not have.
        """

    def structure(self, model: nn.Module) -> Structure:
        """What one of the family's modules is made of."""


# By the name in a saved model's config.json. The first that owns a module describes it; timm owns every one.
FAMILIES: dict[str, Family] = {"patchlight": patchlight, "huggingface": huggingface, "timm": timm}


def structure_of(model: nn.Module) -> Structure:
    """What a network is made of, whoever wrote it."""
    return next(family for family in FAMILIES.values() if family.owns(model)).structure(model)


def build_model(spec: ModelSpec) -> nn.Module:
    """The model of a spec, its weights drawn anew; convolutions are channels-last, which CPUs and GPUs do faster."""
    return FAMILIES[spec.family].build(spec).to(memory_format=torch.channels_last)
