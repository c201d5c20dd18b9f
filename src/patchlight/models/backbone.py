"""What a recipe begins with, in whatever way a family comes by it, and what the ways have in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import nn

from patchlight.config import ModelConfig
from patchlight.config.sections import Interpolation
from patchlight.errors import PatchlightError, UsageError
from patchlight.models.bounds import LARGEST, SMALLEST, shown
from patchlight.models.card import MOST_PIXELS, ModelSpec
from patchlight.runs import Weights

# Fields that say which weights, and those that every model of a library has.
WHICH = ("name", "pretrained", "revision", "img_size")
COMMON = ("fused_attn", "grad_checkpointing")


@dataclass(frozen=True)
class OwnInput:
    """The images that pretrained weights were made for, as far as their files say it; nothing of random weights."""

    size: int | None = None  # pixels a side
    mean: tuple[float, ...] | None = None  # of pixels in 0..1
    std: tuple[float, ...] | None = None
    interpolation: Interpolation | None = None  # by which they were resized, or what is nearest to it here
    note: str = ""  # what is guessed or done otherwise here

    def __post_init__(self) -> None:
        """Raises PatchlightError for what no images are, as a file of somebody else may say it."""
        if self.size is not None and (type(self.size) is not int or not 1 <= self.size <= MOST_PIXELS):
            raise PatchlightError(
                f"the weights are for images of {shown(self.size)} pixels a side, not of a whole number from 1 to "
                f"{MOST_PIXELS}; set model.img_size, or mend the file beside them"
            )
        for word, values, least in (("mean", self.mean, -LARGEST), ("deviation", self.std, SMALLEST)):
            if values is not None and not (len(values) == 3 and all(least <= value <= LARGEST for value in values)):
                raise PatchlightError(
                    f"the weights name the {word} {shown(values)} of pixels in 0..1, not three finite numbers"
                    f"{' above 0' if word == 'deviation' else ''}; mend the file beside them"
                )


@dataclass(frozen=True)
class Backbone:
    """A model for the task with the weights that it starts from."""

    model: nn.Module
    spec: ModelSpec
    own: OwnInput = OwnInput()
    note: str = ""  # what was changed of it, in a line
    source: Weights | None = None  # None where the weights were drawn
    name: str | None = None  # the model's own, where it is not the recipe's


# What is done here with images of unknown mean, of other shapes, or with edges to be cut off.
UNKNOWN_PIXELS = (
    "the weights do not say how their pixels were normalised: the training images' mean and deviation are taken (set "
    "data.mean and data.std if you know their own)"
)
MIDDLE = "here its middle is taken"
WHOLE = "here images are kept whole, or the middle of one that is not square"

# What is done on the device for each interpolation that weights may name: itself, or what is nearest to it.
NEAREST_TO: dict[str, Interpolation] = {
    "bilinear": "bilinear",
    "bicubic": "bicubic",
    "nearest": "bilinear",
    "box": "bilinear",
    "hamming": "bilinear",
    "lanczos": "bicubic",
    "random": "bilinear",  # timm's, in training: bilinear or bicubic, drawn for each image
}


def nearest_interpolation(theirs: str) -> tuple[Interpolation, str]:
    """An interpolation that is done here for one that weights name, and what is different, if anything.

    Raises PatchlightError for a word that is none.
    """
    if theirs not in NEAREST_TO:
        raise PatchlightError(f"the weights name an interpolation '{theirs}' that is not known")
    ours = NEAREST_TO[theirs]
    note = f"its own images were resized by '{theirs}', which is not done here: {ours} is taken"
    return ours, "" if ours == theirs else note


def given_fields(config: ModelConfig) -> dict[str, Any]:
    """The fields of a recipe's model that are set, but for those that say which weights."""
    return {key: value for key, value in dataclasses.asdict(config).items() if value is not None and key not in WHICH}


def check_fields(config: ModelConfig, known: Collection[str]) -> None:
    """Raises UsageError for a field that is set and that a model with the `known` fields does not have."""
    for field in given_fields(config):
        if field not in known:
            raise does_not_apply(field, config.name)


def their_fields(config: ModelConfig, names: dict[str, str]) -> dict[str, Any]:
    """The fields that are set, under the `names` that a library gives them: {ours: theirs}."""
    return {names[key]: value for key, value in given_fields(config).items() if key in names}


def does_not_apply(field: str, name: str) -> UsageError:
    return UsageError(f"model.{field} does not apply to {name}; remove it or choose another model.name")


def no_revision(name: str) -> UsageError:
    return UsageError(f"model.revision is of weights on a hub, and {name} has none; leave it out")


def resampling_note(old_grid: tuple[int, ...] | None, grid: tuple[int, ...] | None, old_patch: Any, patch: Any) -> str:
    """What was resampled, in a line; empty where nothing was."""
    changes = []
    if old_grid and grid and tuple(old_grid) != tuple(grid):
        changes.append(f"positions resampled from {old_grid[0]}x{old_grid[1]} to {grid[0]}x{grid[1]} patches")
    if old_patch != patch:
        changes.append(f"patch kernels from {old_patch} to {patch} pixels a side")
    return ", ".join(changes)
