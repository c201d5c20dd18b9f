"""Layers that give a map of features, of any network, and the one that a class activation map is made of.

Shapes: B batch, C channels, T tokens (P prefix tokens first), (f, g) a layer's own grid, (r, c) cells of maps.
"""

from __future__ import annotations

from torch import Tensor

from patchlight.errors import PatchlightError, UsageError
from patchlight.explanation.layer import Layer
from patchlight.explanation.measured import follows_places, measured_layers
from patchlight.explanation.targets import Target
from patchlight.models.anatomy import Anatomy, VitAnatomy


def find_layer(anatomy: Anatomy, images: Tensor, target: Target, layer: int) -> Layer:
    """The layer of this index, negative from the end.

    Of a ViT whose attention is known these are what the attention of each block reads: after the last one the patches
    say nothing any more to a CLS token. Of other networks `measured_layers`. Raises UsageError where there is no such
    index, PatchlightError where there is no such layer at all, or one whose tokens do not lie where they should.
    """
    layers = _of_vit(anatomy) if isinstance(anatomy, VitAnatomy) else measured_layers(anatomy, images, target)
    if not layers:
        raise PatchlightError(
            f"no layer of {type(anatomy.model).__name__} gives a map of features on which the answer depends, for "
            f"images of {images.shape[-2]} x {images.shape[-1]} pixels; integrated-gradients, smoothgrad and occlusion "
            "need none"
        )
    if not -len(layers) <= layer < len(layers):
        named = ", ".join(f"{i} {found.name}" for i, found in enumerate(layers))
        raise UsageError(f"there is no layer {layer}: the layers are {named}, or -1 for the last")
    found = layers[layer]
    if found.guessed and not follows_places(anatomy, images, found):
        raise PatchlightError(
            f"the tokens of {found.name} of {type(anatomy.model).__name__} do not follow the places of an image of "
            f"{images.shape[-2]} x {images.shape[-1]} pixels: where pixels change, other tokens change more; take "
            "another layer or larger images, or integrated-gradients, smoothgrad or occlusion, which read no layer"
        )
    return found


def layer_about(anatomy: Anatomy, images: Tensor, target: Target, layer: int) -> str:
    """Which map a class activation map is made of, in words: "layer4, 7 x 7 cells"."""
    found = find_layer(anatomy, images, target, layer)
    rows, columns = found.grid or anatomy.grid(images)
    return f"{found.name}, {rows} x {columns} cells"


def _of_vit(anatomy: VitAnatomy) -> list[Layer]:
    def as_map(tokens: Tensor, cells: tuple[int, int]) -> Tensor:
        return tokens[:, anatomy.num_prefix_tokens :].transpose(1, 2).unflatten(2, cells)

    return [Layer(f"what {part.name} reads", part.module, as_map, reads=True) for part in anatomy.attentions]
