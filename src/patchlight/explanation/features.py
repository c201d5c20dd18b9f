"""Layers that give a map of features, of any network: found by running an image through it, not by their names.

Shapes: B batch, C channels, T tokens (P prefix tokens first), (f, g) a layer's own grid, (r, c) cells of maps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from patchlight.errors import PatchlightError, UsageError
from patchlight.explanation.targets import Target
from patchlight.models.anatomy import Anatomy, VitAnatomy

# Their four-dimensional outputs are attention from place to place, not features.
NO_FEATURES = (nn.Dropout, nn.Softmax)


@dataclass(frozen=True)
class Layer:
    """A module whose output is a map of features: `as_map` makes (B, C, f, g) of it, for images of (r, c) cells."""

    name: str
    module: nn.Module
    as_map: Callable[[Tensor, tuple[int, int]], Tensor]

    @staticmethod
    def tensor(output: Any) -> Tensor:
        """The output itself, or the first of several."""
        first: Tensor = output[0] if isinstance(output, (tuple, list)) else output
        return first


def find_layer(anatomy: Anatomy, images: Tensor, target: Target, layer: int) -> Layer:
    """The layer of this index, negative from the end.

    Of a ViT whose attention is known these are the norms before the attention of each block: after the last one the
    patches say nothing any more to a CLS token. Of other networks, one for each size of their maps of more than one
    cell, from fine to coarse: the last module of that size on which the target depends. Raises UsageError where there
    is no such index, PatchlightError where there is no such layer at all.
    """
    layers = _of_vit(anatomy) if isinstance(anatomy, VitAnatomy) else _measured(anatomy, images[:1], target)
    if not layers:
        raise PatchlightError(
            f"no layer of {type(anatomy.model).__name__} gives a map of features on which the answer depends, for "
            f"images of {images.shape[-2]} x {images.shape[-1]} pixels; integrated-gradients, smoothgrad and occlusion "
            "need none"
        )
    if not -len(layers) <= layer < len(layers):
        named = ", ".join(f"{i} {found.name}" for i, found in enumerate(layers))
        raise UsageError(f"there is no layer {layer}: the layers are {named}, or -1 for the last")
    return layers[layer]


def _of_vit(anatomy: VitAnatomy) -> list[Layer]:
    def as_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        return tokens[:, anatomy.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid)

    named = {id(module): name for name, module in anatomy.model.named_modules()}
    return [Layer(named.get(id(norm), ""), norm, as_map) for norm in anatomy.first_norms]


@dataclass(frozen=True)
class _Seen:
    """What a module gave for one image."""

    layer: Layer
    output: Tensor
    shape: tuple[int, int, int]  # (C, f, g)
    is_map: bool  # four-dimensional, where tokens are three-dimensional


def _measured(anatomy: Anatomy, image: Tensor, target: Target) -> list[Layer]:
    """By one pass over one image and back: the last layer of each size with a gradient, from fine to coarse."""
    seen: list[_Seen] = []

    def hook_of(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            found = _understood(name, module, output, anatomy, image)
            if found is not None and found.output.requires_grad:
                seen.append(found)

        return hook

    modules = [(name, module) for name, module in anatomy.model.named_modules() if name]
    handles = [module.register_forward_hook(hook_of(name)) for name, module in modules]
    try:
        with torch.enable_grad():
            score = target.take(slice(0, 1)).scores(anatomy, image.detach().requires_grad_()).sum()
    finally:
        for handle in handles:
            handle.remove()
    if not seen or not score.requires_grad:
        return []
    gradients = torch.autograd.grad(score, [found.output for found in seen], allow_unused=True)
    widths = Counter(found.shape[0] for found in seen if not found.is_map)
    width = widths.most_common(1)[0][0] if widths else None  # of tokens: not queries, keys and values side by side
    last: dict[tuple[int, int], Layer] = {}
    for found, gradient in zip(seen, gradients, strict=True):
        if gradient is None or not (found.is_map or found.shape[0] == width):
            continue
        if bool(found.layer.as_map(gradient, (1, 1)).abs().sum() > 0):
            last[found.shape[1:]] = found.layer
    return [last[size] for size in sorted(last, key=math.prod, reverse=True)]


def _understood(name: str, module: nn.Module, output: Any, anatomy: Anatomy, image: Tensor) -> _Seen | None:
    """A module's output as a map of features with more than one cell, or None."""
    tensor = Layer.tensor(output) if output is not None else None
    if not isinstance(tensor, Tensor) or len(tensor) != 1 or isinstance(module, NO_FEATURES):
        return None
    if tensor.ndim == 4:
        return _four_dimensional(name, module, tensor, image)
    return _tokens(name, module, tensor, anatomy, image) if tensor.ndim == 3 else None


def _four_dimensional(name: str, module: nn.Module, tensor: Tensor, image: Tensor) -> _Seen | None:
    """(1, C, f, g) or, as Swin's, (1, f, g, C): the one whose grid has the image's form."""
    first, second, third = tensor.shape[1:]
    if _has_form(second, third, image):
        layer = Layer(name, module, lambda features, grid: features)
        shape = (first, second, third)
    elif _has_form(first, second, image):
        layer = Layer(name, module, lambda features, grid: features.permute(0, 3, 1, 2))
        shape = (third, first, second)
    else:
        return None
    return _Seen(layer, tensor, shape, True) if shape[1] * shape[2] > 1 else None


def _tokens(name: str, module: nn.Module, tensor: Tensor, anatomy: Anatomy, image: Tensor) -> _Seen | None:
    """(1, T, C) of which all but the prefix are a grid of the image's form; where the prefix is unknown, a token."""
    for prefix in dict.fromkeys((anatomy.num_prefix_tokens, 0, 1)):
        count = tensor.shape[1] - prefix
        rows = round(math.sqrt(count * image.shape[-2] / image.shape[-1])) if count > 1 else 0
        if rows and count % rows == 0 and _has_form(rows, count // rows, image):
            grid = (rows, count // rows)

            def as_map(
                tokens: Tensor, _: tuple[int, int], prefix: int = prefix, grid: tuple[int, int] = grid
            ) -> Tensor:
                return tokens[:, prefix:].transpose(1, 2).unflatten(2, grid)

            return _Seen(Layer(name, module, as_map), tensor, (tensor.shape[2], *grid), False)
    return None


def _has_form(rows: int, columns: int, image: Tensor) -> bool:
    """Whether a grid could be that of the image: one step in both directions, to the rounding of a cell."""
    height, width = image.shape[-2:]
    if rows > height or columns > width:
        return False
    return abs(rows * width - columns * height) < max(height, width)
