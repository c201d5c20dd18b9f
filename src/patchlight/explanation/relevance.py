"""Maps from gradients: what raises the score of one class.

Shapes: B batch, L layers, H heads, T tokens (P prefix tokens first), D width, (r, c) the patch grid. Images are
normalised, (B, 3, h, w), `targets` (B,) class indices. Maps are (B, r, c) but where said otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from patchlight.explanation.attention import read_out, roll_out
from patchlight.explanation.capture import record_attention, record_outputs
from patchlight.models.anatomy import Anatomy


def scores(logits: Tensor, targets: Tensor) -> Tensor:
    """The logit of each image's target, (B, K) -> (B,)."""
    return logits.gather(1, targets.unsqueeze(1)).squeeze(1)


def _attention_and_gradient(anatomy: Anatomy, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Attention of all layers, the gradient of the target's logit by it (B, L, H, T, T), and the readout (B, T)."""
    with (
        torch.enable_grad(),
        record_attention(anatomy, gradients=True) as recorded,
        record_outputs(anatomy.blocks[-1:]) as outputs,
    ):
        # Weights may be frozen: the graph then begins at the pixels.
        logits = anatomy.logits(images.detach().requires_grad_())
        gradient = recorded.gradients(scores(logits, targets))
    return recorded.attention, gradient, anatomy.readout(outputs[-1].detach())


def grad_rollout(anatomy: Anatomy, images: Tensor, targets: Tensor) -> Tensor:
    """Rollout (Abnar and Zuidema 2020, eq. 1) of attention times its gradient, positive part, mean over heads."""
    attention, gradient, readout = _attention_and_gradient(anatomy, images, targets)
    flow = roll_out((attention * gradient).clamp(min=0).mean(dim=2))
    return read_out(anatomy, flow, readout, anatomy.grid(images))


def chefer(anatomy: Anatomy, images: Tensor, targets: Tensor) -> Tensor:
    """Generic relevance (Chefer, Gur and Wolf, ICCV 2021, eq. 5 and 6): R <- R + E_h[(grad A * A)+] R, from R = I."""
    attention, gradient, readout = _attention_and_gradient(anatomy, images, targets)
    relevance = torch.eye(attention.shape[-1], dtype=attention.dtype, device=attention.device)
    relevance = relevance.expand(len(images), -1, -1)
    for step in (attention * gradient).clamp(min=0).mean(dim=2).unbind(dim=1):
        relevance = relevance + step @ relevance
    # What a patch pools of itself is not attention and would be the same for all patches.
    own = torch.eye(attention.shape[-1], dtype=attention.dtype, device=attention.device)
    return read_out(anatomy, relevance - own, readout, anatomy.grid(images))


def legrad(anatomy: Anatomy, images: Tensor, targets: Tensor) -> Tensor:
    """LeGrad (Bousselham et al. 2024, eq. 5 to 8): the positive gradient of the target's logit, decoded after each
    layer, by that layer's attention; mean over heads, reading tokens and layers.
    """
    with torch.enable_grad(), record_attention(anatomy, gradients=True) as recorded:
        with record_outputs(anatomy.blocks) as outputs:
            anatomy.logits(images.detach().requires_grad_())
        total = torch.zeros((), dtype=images.dtype, device=images.device)
        for layer, tokens in enumerate(outputs):
            score = scores(anatomy.decode(tokens), targets).sum()
            (gradient,) = torch.autograd.grad(score, recorded.weights[layer], retain_graph=True)
            total = total + gradient.clamp(min=0).mean(dim=(1, 2))
    patches = total[:, anatomy.num_prefix_tokens :] / len(anatomy.blocks)
    return patches.unflatten(1, anatomy.grid(images))


def gradcam(anatomy: Anatomy, images: Tensor, targets: Tensor) -> Tensor:
    """Grad-CAM (Selvaraju et al. 2017, eq. 1 and 2) on the output of the last block's first norm, over patch tokens."""
    with torch.enable_grad(), record_outputs(anatomy.first_norms[-1:]) as outputs:
        logits = anatomy.logits(images.detach().requires_grad_())
        (gradient,) = torch.autograd.grad(scores(logits, targets).sum(), outputs[-1])
    prefix = anatomy.num_prefix_tokens
    weights = gradient[:, prefix:].mean(dim=1, keepdim=True)
    return (weights * outputs[-1].detach()[:, prefix:]).sum(dim=2).clamp(min=0).unflatten(1, anatomy.grid(images))


def integrated_gradients(anatomy: Anatomy, images: Tensor, targets: Tensor, *, steps: int = 32) -> Tensor:
    """Integrated gradients (Sundararajan et al. 2017, eq. 1 and 3) from the mean colour: (B, h, w), colours summed.

    Midpoints of `steps` equal pieces; the sum over pixels is nearly the logit less the baseline's (completeness).
    """
    total = torch.zeros_like(images)
    with torch.enable_grad():
        for step in range(steps):
            at = (images.detach() * ((step + 0.5) / steps)).requires_grad_()
            (gradient,) = torch.autograd.grad(scores(anatomy.logits(at), targets).sum(), at)
            total += gradient
    return (total / steps * images).sum(dim=1).detach()
