"""What is believed of a model's description that somebody else may have written, and how much a model may need.

A description (a saved model's card, a config.json of timm or Hugging Face) is plain data with bounds: it names no
file, no place to download from and no code. What it describes is built on torch's meta device first, where tensors have
shapes and no memory, and is held against these limits there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from patchlight.errors import LibraryMissing, PatchlightError

MOST_NUMBER = 65536  # of a width, depth, side or count; the widest layers of published vision models have 24,576
MOST_VOCABULARY = 2**20  # of numbers about the words of a text tower, which the published ones have up to 262,144 of
MOST_CLASSES = 2**20  # ImageNet-21k has 21,843
MOST_ITEMS = 1024  # in a list of numbers or words: a network has a value for each of its levels
MOST_NESTED = 4  # lists and objects in each other
WORD = re.compile(r"[A-Za-z0-9_+-]{0,64}")  # a choice, as "gelu" or "avg": no path, no address, no name of a repository
VOCABULARY = ("vocab_size", "token_id", "token_index", "max_position_embeddings")

# What building a model may do, and one image's way through it. Of timm's models, three of each of its files were tried:
# the largest makes 5,100 tensors when it is built, and none of them needs a tensor of more than 60 MB for an image.
MOST_STEPS = 50_000
LARGEST_TENSOR = 8 * 2**30  # bytes
MOST_FLOPS = (
    10**14
)  # of an image: a CPU takes a quarter of an hour for it; a ViT of 7e9 weights needs 4e12 at 256 pixels
MOST_PARAMETERS = 10**10  # of a description without weights beside it, which could tell

LARGEST, SMALLEST = 1e6, 1e-6  # of a mean or deviation of pixels in 0..1, by far; of a deviation, as pixels are divided


class TooMuch(PatchlightError):
    """A model, or an image's way through it, needs more than the limits of this file."""


def check_plain(value: Any, name: str, most: int = MOST_NUMBER, nested: int = MOST_NESTED) -> None:
    """Raises PatchlightError, beginning with `name`, where a value is anything but a bounded number, true, false, null,
    a short plain word, or a short list or object of these.
    """
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, int):
        if abs(value) > most:
            raise PatchlightError(f"{name} is {shown(value)}; a whole number there is at most {most:,}")
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise PatchlightError(f"{name} is {value}; it must be a finite number")
    elif isinstance(value, str):
        if not WORD.fullmatch(value):
            raise PatchlightError(
                f"{name} is {shown(value)}; a text there is one plain word, and names no file, address or repository"
            )
    elif isinstance(value, (list, tuple, dict)):
        if len(value) > MOST_ITEMS or nested == 0:
            raise PatchlightError(
                f"{name} holds {len(value):,} values or is nested; a list there has at most {MOST_ITEMS:,} values, "
                f"and at most {MOST_NESTED} lists are inside each other"
            )
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in pairs:
            check_plain(item, f"{name}.{word(key)}" if isinstance(value, dict) else name, most, nested - 1)
    else:
        raise PatchlightError(f"{name} is of the type {type(value).__name__}, which no description holds")


def shown(value: object, most: int = 60) -> str:
    """A value as a message shows it: on one line, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def word(key: object) -> str:
    """A key as a message names it: quoted, and cut, only where it is odd."""
    return key if isinstance(key, str) and key.isidentifier() and len(key) <= 40 else shown(key, 40)


class _Scale(TorchFunctionMode):
    """Counts what torch is called for inside, and stops what goes beyond the limits."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 0

    def __torch_function__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise TooMuch(f"it takes more than {MOST_STEPS:,} calls of torch, which no published model does")
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(tensor, Tensor) and tensor.numel() * tensor.element_size() > LARGEST_TENSOR:
                raise TooMuch(
                    f"it makes a tensor of {' x '.join(map(str, tensor.shape))} numbers, and the limit is "
                    f"{LARGEST_TENSOR // 2**30} GiB"
                )
        return made


def weigh(make: Callable[[], nn.Module], img_size: int, origin: str) -> nn.Module:
    """The model that `make` builds, without memory, once an image of `img_size` pixels a side has gone through it.

    Random numbers stay as they were. Raises PatchlightError, which begins with `origin`, where it cannot be built, or
    needs more than the limits of this file.
    """
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad(), _Scale(), torch.device("meta"):
            model = make().eval().requires_grad_(False)
            with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
                model(torch.zeros(1, 3, img_size, img_size))
    except TooMuch as error:
        raise PatchlightError(f"{origin} describes a model that needs too much: {error}") from None
    except LibraryMissing:
        raise
    except Exception as error:  # whatever a library says of a description that makes no sense
        raise PatchlightError(f"{origin} describes no model that can be built: {_first_line(error)}") from None
    flops = counter.get_total_flops()
    if flops > MOST_FLOPS:
        raise PatchlightError(
            f"{origin} describes a model that needs too much: {flops:.2g} FLOPs for an image, and the limit is "
            f"{MOST_FLOPS:.0e}"
        )
    return model


def check_size(model: nn.Module, folder: Path | None, origin: str) -> None:
    """Raises PatchlightError where a model has more numbers than the files of a folder can hold, in which its weights
    lie; without a folder, more than MOST_PARAMETERS.
    """
    numbers = sum(p.numel() for p in model.parameters())
    most, of = MOST_PARAMETERS, "the limit where no weights lie beside a description is"
    if folder is not None:
        most, of = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()), "its files hold at most"
    if numbers > most:
        raise PatchlightError(
            f"{origin} describes a model of {numbers:,} numbers, and {of} {most:,}; its weights are missing, damaged "
            "or another model's"
        )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shown(lines[0], 300).strip("'") if lines else type(error).__name__
