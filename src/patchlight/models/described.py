"""The model that a card describes, built only once it is known to be no more than its weights are."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from patchlight.errors import PatchlightError
from patchlight.models.bounds import weigh
from patchlight.models.card import ModelCard
from patchlight.models.families import build_model
from patchlight.models.families.hub import first_line, of_a_description
from patchlight.models.header import check_shapes, shapes_of


def build_described(card: ModelCard, path: Path, weights: Path) -> nn.Module:
    """The model of the card at `path`, its weights drawn anew, for the file `weights`.

    It is built without memory first. Raises PatchlightError, naming the file, where it cannot be built, where an image
    would need more than `bounds` allows, and where the file lacks a tensor, has it otherwise, or has others; the file's
    tensors are not read for that.
    """
    try:
        held = shapes_of(weights)
    except FileNotFoundError:
        raise PatchlightError(f"no {weights}; give the folder of a finished run") from None
    except (OSError, SafetensorError) as error:
        raise PatchlightError(f"{weights} is damaged or not of {card.name}: {first_line(error, -1)}") from None
    model = weigh(lambda: build_model(card.spec), card.img_size, str(path))
    try:
        check_shapes(held, model.state_dict())
    except PatchlightError as error:
        raise PatchlightError(f"{weights} is damaged or not of {card.name}: {error}") from None
    with of_a_description(str(path)):
        return build_model(card.spec)
