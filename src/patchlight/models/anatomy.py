"""What explanations look at in a Vision Transformer, of any family."""

from __future__ import annotations

from torch import nn

from patchlight.errors import PatchlightError
from patchlight.models.families import structure_of
from patchlight.models.structure import Anatomy

__all__ = ["Anatomy", "dissect", "find_anatomy"]


def dissect(model: nn.Module) -> Anatomy:
    """The anatomy of a ViT of Patchlight or timm, or of an image classifier of Hugging Face.

    Raises PatchlightError, naming what is missing, for models that are no such ViT.
    """
    structure = structure_of(model)
    if structure.anatomy is None:
        raise PatchlightError(structure.no_maps)
    return structure.anatomy


def find_anatomy(model: nn.Module) -> Anatomy | None:
    """`dissect`'s, or None for a model that has no attention to look at."""
    anatomy = structure_of(model).anatomy
    return anatomy if anatomy is not None and anatomy.blocks else None
