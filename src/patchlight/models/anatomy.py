"""What explanations look at in a network, of any family."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from patchlight.errors import PatchlightError, UsageError
from patchlight.machine.compat import uncompiled
from patchlight.models.families import structure_of
from patchlight.models.structure import Anatomy, VitAnatomy

COPIES = (nn.DataParallel, DistributedDataParallel)  # run a network on several devices

__all__ = ["Anatomy", "VitAnatomy", "dissect", "dissect_vit", "find_vit"]


def dissect(model: nn.Module) -> Anatomy:
    """What can be seen of any classifier or backbone; of a ViT of Patchlight, timm or Hugging Face a VitAnatomy, also
    where it is compiled, copied to several devices, or the last of an `nn.Sequential` whose other parts normalise.

    Raises PatchlightError for a network that gives no classes and no features, as an autoencoder, and UsageError for
    what is no network.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"a model is a torch.nn.Module, not a {type(model).__name__}")
    model = unwrapped(model)
    if type(model) is nn.Sequential and len(model) > 1 and _keeps_size(before := model[:-1], model):
        inner = dissect(model[-1])
        if isinstance(inner, VitAnatomy) or not inner.has_head:
            return replace(inner, model=model, logits=lambda images: inner.logits(before(images)))
    structure = structure_of(model)
    if structure.anatomy is None:
        raise PatchlightError(structure.no_maps)
    return structure.anatomy


def unwrapped(model: nn.Module) -> nn.Module:
    """The network that was compiled, or is copied to several devices, which would run its parts out of sight."""
    while (inner := model.module if isinstance(model, COPIES) else uncompiled(model)) is not model:
        model = inner
    return model


@torch.no_grad()
def _keeps_size(before: nn.Module, model: nn.Module) -> bool:
    """Whether what stands before a network, as normalisation, has no weights and leaves images their size."""
    if any(True for _ in before.parameters()):
        return False
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.random.fork_rng([]):
        image = torch.zeros(1, 3, 19, 23, device=device)
        try:
            after = copy.deepcopy(before).eval()(image)
        except (RuntimeError, TypeError, ValueError):
            return False
    return isinstance(after, torch.Tensor) and after.shape == image.shape


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
    anatomy = structure_of(unwrapped(model)).anatomy
    if not isinstance(anatomy, VitAnatomy) or max(anatomy.patch_size) * 2 > img_size:
        return None
    return anatomy
