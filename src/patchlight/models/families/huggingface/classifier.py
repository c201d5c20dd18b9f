"""A classifier of Hugging Face as a function from images to logits."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from patchlight.errors import PatchlightError, UsageError
from patchlight.models.structure import Structure

CHECKPOINTING = ("activation_checkpointing_enable", "gradient_checkpointing_enable")  # new and older versions' name


class HuggingFaceClassifier(nn.Module):
    """A `...ForImageClassification` as a function of images (B, C, H, W) to logits (B, K)."""

    def __init__(self, hf: nn.Module) -> None:
        super().__init__()
        self.hf = hf

    def forward(self, x: Tensor) -> Tensor:
        return self.hf(pixel_values=x).logits


def inner(model: nn.Module) -> Any:
    """The library's own model, with or without our wrapper."""
    return model.hf if isinstance(model, HuggingFaceClassifier) else model


def begin_structure(model: nn.Module, heads: frozenset[str]) -> Structure:
    """What all models of the library have alike; a layout puts its own parts in."""
    network = inner(model)

    def checkpoint_gradients() -> None:
        enable = next((getattr(network, name) for name in CHECKPOINTING if hasattr(network, name)), None)
        if enable is None:
            raise UsageError(f"model.grad_checkpointing does not apply to {type(network).__name__}; leave it out")
        enable()

    return Structure(
        model=model,
        network=network,
        heads=heads,
        checkpoints_gradients=any(getattr(part, "gradient_checkpointing", False) for part in network.modules()),
        checkpoint_gradients=checkpoint_gradients,
    )


# What holds the answer, the first that is there: of classifiers, of CLIP's towers with their last map, of backbones.
ANSWERS = ("logits", "image_embeds", "pooler_output")


def answers(network: Any, images: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
    """Logits (B, K) or, of a backbone, features (B, D): what it pools itself, else `pool` of what it gives last.

    Raises PatchlightError for a model that gives neither, as one that is made for detection.
    """
    output = network(pixel_values=images)
    if isinstance(output, tuple):
        raise PatchlightError(
            f"{type(network).__name__} gives a tuple, as its config.return_dict is False; set it to True"
        )
    for name in ANSWERS:
        if isinstance(found := getattr(output, name, None), Tensor):
            return found.flatten(1) if found.ndim == 4 and found.shape[2:] == (1, 1) else found
    last = getattr(output, "last_hidden_state", None)
    if not isinstance(last, Tensor):
        raise PatchlightError(
            f"{type(network).__name__} gives {', '.join(output)}, no classes and no features of a whole image; load "
            "its weights as a model for image classification, or as a plain model"
        )
    return pool(last)


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Without the library's warnings and progress bars."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
