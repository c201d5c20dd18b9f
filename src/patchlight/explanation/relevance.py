"""Maps from gradients: what raises the score of a target.

Shapes: B batch, L layers, H heads, T tokens (P prefix tokens first), D width, (r, c) the patch grid. Images are
normalised, (B, 3, h, w). Maps are (B, r, c) but where said otherwise.
"""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from patchlight.errors import UsageError
from patchlight.explanation.attention import drop_smallest, read_out, roll_out, scale_rows
from patchlight.explanation.capture import record_attention, record_outputs
from patchlight.explanation.gradients import gradients_of, wide
from patchlight.explanation.targets import Target
from patchlight.models.anatomy import Anatomy, VitAnatomy


def _attention_and_gradient(anatomy: VitAnatomy, images: Tensor, target: Target) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of all layers, the gradient of the target's score by it (B, L, H, T, T), and the readout (B, T), in
    float32 at least.
    """
    with (
        torch.enable_grad(),
        record_attention(anatomy, gradients=True) as recorded,
        record_outputs(anatomy.blocks[-1:]) as outputs,
    ):
        # Weights may be frozen: the graph then begins at the pixels.
        score = target.scores(anatomy, images.detach().requires_grad_())
        gradient = recorded.gradients(score)
    return wide(recorded.attention), wide(gradient), wide(anatomy.readout(outputs[-1].detach()))


def scaled_rollout(anatomy: VitAnatomy, images: Tensor, target: Target) -> Tensor:
    """Patchlight's own: rollout of G = E_h[(grad A * A)+], each row of G scaled to a sum of 1 before the identity is
    added, so that every layer mixes as much as it keeps: the product over layers of (scaled G + I) / 2.

    Gradients are small, so that without the scaling (`grad_rollout`) the identity outweighs them.
    """
    attention, gradient, readout = _attention_and_gradient(anatomy, images, target)
    flow = roll_out(scale_rows((attention * gradient).clamp(min=0).mean(dim=2)))
    return read_out(anatomy, flow, readout, anatomy.grid(images))


def grad_rollout(anatomy: VitAnatomy, images: Tensor, target: Target, *, discard: float = 0.0) -> Tensor:
    """Gradient rollout as vit-explain means it (Gildenblat 2020): rollout of E_h[grad A * A]+. `discard` in [0, 1) sets
    so large a share of each layer's smallest values to 0 first. (Its code divides the columns by the sums of the rows.)
    """
    attention, gradient, readout = _attention_and_gradient(anatomy, images, target)
    fused = drop_smallest((attention * gradient).mean(dim=2).clamp(min=0), discard, spare_first=False)
    return read_out(anatomy, roll_out(fused), readout, anatomy.grid(images))


def chefer(anatomy: VitAnatomy, images: Tensor, target: Target) -> Tensor:
    """Generic relevance (Chefer, Gur and Wolf, ICCV 2021, eq. 5 and 6): R <- R + E_h[(grad A * A)+] R, from R = I."""
    attention, gradient, readout = _attention_and_gradient(anatomy, images, target)
    relevance = torch.eye(attention.shape[-1], dtype=attention.dtype, device=attention.device)
    relevance = relevance.expand(len(images), -1, -1)
    for step in (attention * gradient).clamp(min=0).mean(dim=2).unbind(dim=1):
        relevance = relevance + step @ relevance
    # What a patch pools of itself is not attention and would be the same for all patches.
    own = torch.eye(attention.shape[-1], dtype=attention.dtype, device=attention.device)
    return read_out(anatomy, relevance - own, readout, anatomy.grid(images))


def legrad(anatomy: VitAnatomy, images: Tensor, target: Target, *, read: str = "mean", first: int = 0) -> Tensor:
    """LeGrad (Bousselham et al. 2024, eq. 5 to 8): the positive gradient of the target's score, read after each layer,
    by that layer's attention; mean over heads, reading tokens and layers.

    `read`: "mean" reads the mean of all tokens, prefix tokens too, as the paper and its authors' code do; "pooled" what
    the model itself pools. `first` is the first layer that counts, negative from the end: the authors' code has -2, the
    paper all.
    """
    depth = len(anatomy.blocks)
    if read not in ("mean", "pooled"):
        raise UsageError(f"legrad reads 'mean' or 'pooled', not '{read}'")
    if not -depth <= first < depth:
        raise UsageError(f"legrad's first layer is one of {depth}, from 0 or, from the end, -1; not {first}")
    layers = range(depth)[first:]
    with torch.enable_grad(), record_attention(anatomy, layers, gradients=True) as recorded:
        with record_outputs([anatomy.blocks[layer] for layer in layers]) as outputs:
            anatomy.logits(images.detach().requires_grad_())
        total = wide(torch.zeros((), dtype=images.dtype, device=images.device))
        for layer, tokens in zip(layers, outputs, strict=True):
            # Where all tokens are the mean, whatever the model pools is the mean.
            read_tokens = tokens.mean(dim=1, keepdim=True).expand_as(tokens) if read == "mean" else tokens
            score = target.decoded(anatomy, read_tokens).sum()
            (gradient,) = gradients_of(score, [recorded.weights[layer]], "attention", retain_graph=True)
            total = total + wide(gradient).clamp(min=0).mean(dim=(1, 2))
    patches = total[:, anatomy.num_prefix_tokens :] / len(layers)
    return patches.unflatten(1, anatomy.grid(images))


def pixel_gradient(anatomy: Anatomy, images: Tensor, target: Target) -> Tensor:
    """The gradient of the target's score by the pixels, (B, 3, h, w), in float32 at least."""
    with torch.enable_grad():
        at = images.detach().requires_grad_()
        (gradient,) = gradients_of(target.scores(anatomy, at), [at], "the pixels")
    return wide(gradient)


def integrated_gradients(anatomy: Anatomy, images: Tensor, target: Target, *, steps: int = 32) -> Tensor:
    """Integrated gradients (Sundararajan et al. 2017, eq. 1 and 3) from 0, the mean colour of
    normalised images: (B, h, w), colours summed.

    Midpoints of `steps` equal pieces; the sum over pixels is nearly the score less the baseline's (completeness).
    """
    check_positive("steps", steps)
    total = wide(torch.zeros_like(images))
    for step in range(steps):
        total += pixel_gradient(anatomy, images * ((step + 0.5) / steps), target)
    return (total / steps * images).sum(dim=1).detach()


def smoothgrad(anatomy: Anatomy, images: Tensor, target: Target, *, samples: int = 16, noise: float = 0.15) -> Tensor:
    """SmoothGrad (Smilkov et al. 2017, section 3): the mean gradient of `samples` noisy copies of an image, by pixels,
    (B, h, w), its size over colours (the greatest magnitude).

    `noise` is the deviation as a share of the image's greatest less its least value. An image's noise is drawn from
    its own bytes, so that it has the same map in any batch.
    """
    check_positive("samples", samples)
    if noise < 0:
        raise UsageError(f"noise is a share of the image's range, 0 or more, not {noise}")
    spread = noise * (images.amax(dim=(1, 2, 3), keepdim=True) - images.amin(dim=(1, 2, 3), keepdim=True))
    draws = [drawn_from(image) for image in images]
    total = wide(torch.zeros_like(images))
    for _ in range(samples):
        drawn = torch.stack([torch.randn(images.shape[1:], generator=draw, device="cpu") for draw in draws]).to(images)
        total += pixel_gradient(anatomy, images + spread * drawn, target)
    return (total / samples).abs().amax(dim=1)


def drawn_from(image: Tensor) -> torch.Generator:
    """A generator that an image's own values seed."""
    return torch.Generator().manual_seed(zlib.crc32(image.detach().cpu().float().contiguous().numpy().tobytes()))


def check_positive(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"{name} must be at least 1, not {value}")
