"""What is checked before anything is explained: that images are normalised, and that the model takes them.

Shapes: B batch, K classes, (r, c) cells. Images are normalised, (B, 3, h, w).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from patchlight.errors import PatchlightError, UsageError
from patchlight.explanation.capture import record_inputs, record_outputs
from patchlight.models.anatomy import Anatomy, VitAnatomy

FAR = 30.0  # beyond every normalised pixel: one of deviation 1 / 30 would be darker than a black image's noise


def check_images(model: nn.Module, images: Tensor, normalized: bool | None) -> None:
    """Raises UsageError, saying what to do, for images that are no batch or cannot be normalised as the model wants."""
    if not isinstance(images, Tensor):
        inner = "; give its ['pixel_values']" if isinstance(images, Mapping) and "pixel_values" in images else ""
        raise UsageError(f"images are a torch tensor (B, 3, height, width), not a {type(images).__name__}{inner}")
    if images.ndim != 4:
        raise UsageError(f"images are a batch (B, 3, height, width), not of shape {tuple(images.shape)}")
    if not len(images):
        raise UsageError("there are no images to explain")
    if not images.is_floating_point():
        raise UsageError(f"images are {images.dtype}: divide by 255 and normalise them as the model was trained")
    if not bool(images.isfinite().all()):
        raise UsageError("some pixels are NaN or infinite; leave out or mend these images")
    if normalized:
        return
    low, high = float(images.min()), float(images.max())
    if max(-low, high) > FAR:
        raise UsageError(
            f"pixels go from {low:.4g} to {high:.4g}, which is not normalised: divide by 255, take away the mean and "
            "divide by the deviation that the model was trained with (normalized=True says that this is meant)"
        )
    if low >= 0 and high <= 1 and low != high and not _takes_plain_pixels(model):
        raise UsageError(
            f"pixels go from {low:.4g} to {high:.4g}, as if they were not normalised yet: take away the mean and "
            "divide by the deviation that the model was trained with (normalized=True says that this is meant)"
        )


def _takes_plain_pixels(model: Any) -> bool:
    """Whether a model of timm says that its images are in 0..1."""
    cfg = getattr(model, "pretrained_cfg", None) or {}
    return bool(cfg) and set(cfg.get("mean") or (1,)) == {0.0} and set(cfg.get("std") or (0,)) == {1.0}


def check_weights(model: nn.Module) -> None:
    """Raises PatchlightError for weights of which no gradient can be taken."""
    if any(p.is_inference() for p in model.parameters()):
        raise PatchlightError("the model was made inside torch.inference_mode, so it has no gradients; make it outside")


DECODED = 1e-3  # how far the answer may be from what is decoded of the last tokens, as a share of the greatest


def first_pass(anatomy: Anatomy, images: Tensor, size: int) -> Tensor:
    """What the model gives, (B, K), `size` images at a time.

    Raises PatchlightError for images that it does not take, that it sees as one cell, or as another number of tokens
    than patches of its size would make; for an answer that is not one row of numbers for each image; and for one that
    the tokens after the last block do not give by the norm, pooling and head that are known, as of a subclass that
    pools in its own way.
    """
    height, width = images.shape[-2:]
    rows, columns = anatomy.grid(images)
    if rows * columns < 2:
        raise PatchlightError(
            f"the model sees images of {height} x {width} pixels as {rows * columns} patch, so there are no parts to "
            "compare; take larger images, or a model of smaller patches"
        )
    blocks = anatomy.blocks if isinstance(anatomy, VitAnatomy) else ()
    answers = _answers(anatomy, images, size)
    with torch.no_grad():
        with record_inputs(blocks[:1]) as tokens, record_outputs(blocks[-1:]) as last:
            first = next(answers)
        if isinstance(anatomy, VitAnatomy) and last and not _decodes(anatomy, last[0], first):
            raise PatchlightError(
                f"the tokens after the last block of {type(anatomy.model).__name__} do not give its answer by its "
                "norm, pooling and head as they are known, so what its maps should read is not known: there is no map"
            )
        outputs = torch.cat([first, *answers])
    if tokens and tokens[0].shape[1] != (expected := anatomy.num_prefix_tokens + rows * columns):
        raise PatchlightError(
            f"the model makes {tokens[0].shape[1]} tokens of images of {height} x {width} pixels, and {rows} x "
            f"{columns} patches with {anatomy.num_prefix_tokens} tokens before them would be {expected}: where its "
            "patches lie is not known, so there is no map"
        )
    return outputs


def _decodes(anatomy: VitAnatomy, tokens: Tensor, answer: Tensor) -> bool:
    """Whether tokens after the last block give the answer."""
    again = anatomy.decode(tokens)
    if again.shape != answer.shape:
        return False
    exact = max(DECODED, 16 * torch.finfo(answer.dtype).eps)
    return float((again - answer).abs().amax()) <= exact * float(answer.abs().amax())


def _answers(anatomy: Anatomy, images: Tensor, size: int) -> Iterator[Tensor]:
    for part in images.split(size):
        try:
            answer = anatomy.logits(part)
        except (RuntimeError, ValueError, TypeError, AssertionError) as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise
            shape = " x ".join(map(str, part.shape[1:]))
            reason = str(error).strip().split("\n")[0]
            raise PatchlightError(
                f"{type(anatomy.model).__name__} does not take images of {shape} ({part.dtype}): {reason}"
            ) from error
        if not isinstance(answer, Tensor) or answer.ndim != 2:
            shown = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
            raise PatchlightError(f"{type(anatomy.model).__name__} gives {shown}, not a row of numbers for each image")
        if not bool(answer.isfinite().all()):
            raise PatchlightError(
                f"{type(anatomy.model).__name__} gives NaN or infinite numbers for some of the images"
            )
        yield answer
