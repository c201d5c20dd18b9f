"""What happens inside a ViT while it predicts: attention with its gradients and values, tokens of any layer.

Shapes: B batch, L recorded layers, H heads, T tokens (prefix first), d = width of a head, D width, K classes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from patchlight.errors import PatchlightError
from patchlight.models.anatomy import Anatomy, dissect
from patchlight.models.structure import Tap


@dataclass
class Recording:
    """Filled by the forward pass inside `record_attention`; the latest pass counts.

    `layers` are the recorded blocks, counted from 0. Nothing is kept of the others.
    """

    layers: tuple[int, ...]
    names: tuple[str, ...]
    weights: dict[int, Tensor] = field(default_factory=dict)  # of each layer (B, H, T, T), in the graph if asked for
    value_vectors: dict[int, Tensor] = field(default_factory=dict)  # of each layer (B, H, T, d)

    @property
    def attention(self) -> Tensor:
        """(B, L, H, T, T), rows summing to 1. Raises PatchlightError, naming the layers that were not captured."""
        return torch.stack([w.detach() for w in self._known(self.weights)], dim=1)

    @property
    def values(self) -> Tensor:
        """(B, L, H, T, d). Raises PatchlightError where values were not asked for."""
        return torch.stack([v.detach() for v in self._known(self.value_vectors)], dim=1)

    def gradients(self, outputs: Tensor, *, retain_graph: bool = False) -> Tensor:
        """d outputs.sum() / d attention, (B, L, H, T, T): `outputs` may be the logit of one class per image, (B,)."""
        weights = self._known(self.weights)
        if not weights[0].requires_grad:
            raise PatchlightError("gradients of attention need record_attention(..., gradients=True)")
        return torch.stack(torch.autograd.grad(outputs.sum(), weights, retain_graph=retain_graph), dim=1)

    def _known(self, tensors: dict[int, Tensor]) -> list[Tensor]:
        missing = [name for layer, name in zip(self.layers, self.names, strict=True) if layer not in tensors]
        if missing:
            raise PatchlightError(
                f"nothing was captured of {', '.join(missing)}: run the model inside the `with` (values only if asked "
                "for); attention that computes no weights, as some fused kernels do, cannot be captured"
            )
        return [tensors[layer] for layer in self.layers]


@contextlib.contextmanager
def record_attention(
    model: nn.Module | Anatomy, layers: Sequence[int] | None = None, *, gradients: bool = False, values: bool = False
) -> Iterator[Recording]:
    """Inside the `with`, a forward pass fills the yielded Recording with the weights of attention.

    Works on ViTs of Patchlight, timm and Hugging Face, fused attention or not: inside, attention is computed as two
    products and a softmax, which changes outputs by rounding only. `layers` are block indices, negative ones from the
    end; None is all. With `gradients` the weights stay in the graph. After the `with`, after an exception too, the
    model is as it was. Raises PatchlightError for models whose attention cannot be seen, by name.
    """
    anatomy = model if isinstance(model, Anatomy) else dissect(model)
    chosen = tuple(_indices(len(anatomy.attentions), layers))
    recording = Recording(chosen, tuple(anatomy.attentions[i].name for i in chosen))
    with contextlib.ExitStack() as stack:
        stack.enter_context(anatomy.explicit_attention())
        for layer in chosen:
            attention = anatomy.attentions[layer]
            taps = [(attention.weights, _keep_weights(recording, layer, gradients))]
            taps += [(attention.values, _keep_values(recording, layer, attention.num_heads))] if values else []
            for tap, keep in taps:
                stack.callback(tap.module.register_forward_hook(_hook(tap, keep)).remove)
        with torch.set_grad_enabled(gradients or torch.is_grad_enabled()):
            yield recording


def _indices(count: int, layers: Sequence[int] | None) -> list[int]:
    try:
        return sorted({range(count)[i] for i in (range(count) if layers is None else layers)})
    except IndexError:
        raise PatchlightError(f"there are {count} layers, 0 to {count - 1}, or -1 for the last; not {layers}") from None


Keep = Callable[[Tensor], None]


def _hook(tap: Tap, keep: Keep) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        tensor = tap.take(output)
        if tensor is not None:
            keep(tensor)

    return hook


def _keep_weights(recording: Recording, layer: int, gradients: bool) -> Keep:
    def keep(weights: Tensor) -> None:
        recording.weights[layer] = weights if gradients else weights.detach()

    return keep


def _keep_values(recording: Recording, layer: int, num_heads: int) -> Keep:
    def keep(vectors: Tensor) -> None:  # (B, T, D) -> (B, H, T, d)
        recording.value_vectors[layer] = vectors.unflatten(-1, (num_heads, -1)).transpose(1, 2).detach()

    return keep


@contextlib.contextmanager
def record_outputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Inside the `with`, a forward pass fills the yielded list with the modules' outputs, in their order of running."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        outputs.append(output[0] if isinstance(output, tuple) else output)

    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(keep).remove)
        yield outputs


@contextlib.contextmanager
def record_inputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """As `record_outputs`, with the first input of each."""
    inputs: list[Tensor] = []

    def keep(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs.append(args[0])

    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(keep).remove)
        yield inputs


@contextlib.contextmanager
def keep_patches(anatomy: Anatomy, kept: Tensor) -> Iterator[None]:
    """Inside the `with`, the model sees only the patches `kept` (B, k), indices in reading order; prefix tokens stay.

    The others are taken away before the first block, after positions have been added: no token can read them. With a
    convolutional stem the kept tokens still know a little of their neighbours.
    """
    prefix = anatomy.num_prefix_tokens
    index = torch.cat([torch.arange(prefix, device=kept.device).expand(len(kept), -1), kept + prefix], dim=1)

    def take(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        tokens = args[0]
        return (tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])), *args[1:])

    handle = anatomy.blocks[0].register_forward_pre_hook(take)
    try:
        yield
    finally:
        handle.remove()
