"""How classifiers of Hugging Face are laid out. A family that is laid out differently is one file, and one row here."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from patchlight.models.families.huggingface.levels import levels
from patchlight.models.families.huggingface.towers import towers
from patchlight.models.families.huggingface.vit import vit
from patchlight.models.structure import Structure

# A layout gives the structure of a model (wrapped or not) that it knows, and None of another. The first row that knows
# a model is taken; the last knows all.
LAYOUTS: dict[str, Callable[[nn.Module], Structure | None]] = {
    "vit": vit,
    "towers": towers,
    "levels": levels,
}


def structure(model: nn.Module) -> Structure:
    """By the first layout that knows the model."""
    structures = (layout(model) for layout in LAYOUTS.values())
    return next(structure for structure in structures if structure is not None)
