"""What explanations look at in a network, of any family."""

from __future__ import annotations

from torch import nn

from patchlight.errors import PatchlightError
from patchlight.machine.compat import uncompiled
from patchlight.models.families import structure_of
from patchlight.models.structure import Anatomy, VitAnatomy

__all__ = ["Anatomy", "VitAnatomy", "dissect", "dissect_vit", "find_vit"]


def dissect(model: nn.Module) -> Anatomy:
    """What can be seen of any classifier or backbone; of a ViT of Patchlight, timm or Hugging Face a VitAnatomy.

    Raises PatchlightError for a network that gives no classes and no features, as an autoencoder.
    """
    structure = structure_of(uncompiled(model))
    if structure.anatomy is None:
        raise PatchlightError(structure.no_maps)
    return structure.anatomy


def dissect_vit(model: nn.Module | Anatomy) -> VitAnatomy:
    """The anatomy of a ViT whose attention can be seen.

    Raises PatchlightError, naming what is missing, for models that are no such ViT.
    """
    anatomy = model if isinstance(model, Anatomy) else dissect(model)
    if not isinstance(anatomy, VitAnatomy):
        raise PatchlightError(anatomy.no_attention)
    return anatomy


def find_vit(model: nn.Module, img_size: int) -> VitAnatomy | None:
    """`dissect_vit`'s, or None for a model that has no attention to look at, or that sees a square image of `img_size`
    pixels a side as one patch, of which no part can be compared with another.
    """
    anatomy = structure_of(uncompiled(model)).anatomy
    if not isinstance(anatomy, VitAnatomy) or max(anatomy.patch_size) * 2 > img_size:
        return None
    return anatomy
