"""What a file of weights holds, by its header alone: no tensor is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from patchlight.errors import PatchlightError

Shapes = dict[str, tuple[tuple[int, ...], str]]  # of each tensor its shape and the word for its type: "F32"
NUMBERS = ("F", "BF")  # how the words of types with a decimal point begin


def shapes_of(path: Path) -> Shapes:
    """The shape and type of each tensor of a safetensors file, whose header the library holds against its length.

    Raises what the library raises: OSError where it cannot be opened, SafetensorError where it is damaged.
    """
    with safe_open(path, framework="pt") as file:
        slices: dict[str, Any] = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (it is no dictionary)
        return {key: (tuple(part.get_shape()), part.get_dtype()) for key, part in slices.items()}


def check_shapes(held: Shapes, wanted: Mapping[str, Tensor]) -> None:
    """Raises PatchlightError, naming a tensor, where a file does not hold just those of a model's state dict."""
    missing, more = sorted(wanted.keys() - held.keys()), sorted(held.keys() - wanted.keys())
    if missing:
        raise PatchlightError(
            f"it lacks '{missing[0]}'{_and_more(missing)} of the model that its config.json describes"
        )
    if more:
        raise PatchlightError(f"it has '{more[0]}'{_and_more(more)}, which the model of its config.json does not have")
    for key, tensor in wanted.items():
        shape, kind = held[key]
        if shape != tuple(tensor.shape):
            raise PatchlightError(
                f"'{key}' is {_by(shape)} in it and {_by(tensor.shape)} in the model of its config.json"
            )
        if kind.startswith(NUMBERS) != tensor.is_floating_point():
            raise PatchlightError(f"'{key}' is of the type {kind} in it, which the model cannot take")


def _and_more(keys: list[str]) -> str:
    return f" and {len(keys) - 1} more" if len(keys) > 1 else ""


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes)) or "one number"
