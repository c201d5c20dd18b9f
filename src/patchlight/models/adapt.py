"""Weights of one shape for a model of another: positions on a new grid, patch kernels of a new size, a new head.

Shapes: P prefix tokens, (r, c) the patch grid, D width, O and I channels, (h, w) a patch's pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from patchlight.errors import PatchlightError
from patchlight.models.structure import Structure


def resample_positions(table: Tensor, new: tuple[int, int], prefix: int, old: tuple[int, int] | None = None) -> Tensor:
    """A table of positions (1, P + r c, D) on the `new` grid, bicubic with antialiasing; the prefix stays.

    `old` is the grid it is for, a square one if not given. Dosovitskiy et al. 2021, section 3.2.
    """
    side = math.isqrt(table.shape[1] - prefix)
    rows, columns = old or (side, side)
    places = table[:, prefix:].float().unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
    places = F.interpolate(places, size=new, mode="bicubic", antialias=True)
    return torch.cat([table[:, :prefix], places.flatten(2).transpose(1, 2).to(table)], dim=1)


def resample_kernel(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """A patch embedding's kernel (O, I, h, w) for patches of another size: its products with resized patches are what
    they were with the patches, as near as can be. Beyer et al. 2023 (FlexiViT), section 3.4.
    """
    pixels = kernel.shape[-2] * kernel.shape[-1]
    one_pixel_each = torch.eye(pixels).view(pixels, 1, *kernel.shape[-2:])
    resize = F.interpolate(one_pixel_each, size=size, mode="bicubic", antialias=True).flatten(1).T  # (new, old)
    back = torch.linalg.pinv(resize.T)
    return (kernel.flatten(2).float().cpu() @ back.T).unflatten(2, size).to(kernel)


def adapt_weights(state: dict[str, Tensor], structure: Structure, new_head: bool) -> dict[str, Tensor]:
    """`state` for the model of this structure: positions and patch kernels resampled where their shapes differ; with
    `new_head` the head's weights are the model's own.

    Raises PatchlightError, naming the tensor, for any other difference.
    """
    target = structure.model.state_dict()
    kept = structure.heads if new_head else frozenset()
    adapted = {}
    for key, tensor in state.items():
        if key not in target:
            raise PatchlightError(
                f"the weights have '{key}', which the model does not have; build it as they were made"
            )
        wanted = target[key]
        if key in kept:
            tensor = wanted
        elif tensor.shape != wanted.shape and key in structure.position_tables:
            side = math.isqrt(wanted.shape[1] - structure.position_prefix)
            tensor = resample_positions(tensor, (side, side), structure.position_prefix)
        elif tensor.shape != wanted.shape and key in structure.patch_kernels:
            tensor = resample_kernel(tensor, (wanted.shape[-2], wanted.shape[-1]))
        if tensor.shape != wanted.shape:
            raise PatchlightError(
                f"'{key}' is {_shape(tensor.shape)} in the weights and {_shape(wanted.shape)} in the model; "
                "leave that part of the model as it was"
            )
        adapted[key] = tensor
    missing = [key for key in target if key not in adapted and key not in kept]
    if missing:
        raise PatchlightError(f"the weights lack '{missing[0]}' and {len(missing) - 1} more; they are of another model")
    return {**{key: target[key] for key in target if key not in adapted}, **adapted}


def _shape(sizes: Sequence[int]) -> str:
    return " x ".join(map(str, sizes))
