"""What happens inside a ViT while it predicts: attention with its gradients and values, tokens of any layer.

Shapes: B batch, L recorded layers, H heads, T tokens (prefix first), d = width of a head, D width, K classes.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from patchlight.errors import PatchlightError
from patchlight.explanation.gradients import gradients_of
from patchlight.models.anatomy import VitAnatomy, dissect_vit
from patchlight.models.structure import AttentionLayer, Tap

EXACT = 1e-4  # how far a layer's output may be from its recorded weights times its values, as a share of the greatest


@dataclass
class Recording:
    """Filled by the forward pass inside `record_attention`; the latest pass counts.

    `layers` are the recorded blocks, counted from 0. Nothing is kept of the others.
    """

    layers: tuple[int, ...]
    names: tuple[str, ...]
    weights: dict[int, Tensor] = field(default_factory=dict)  # of each layer (B, H, T, T), in the graph if asked for
    value_vectors: dict[int, Tensor] = field(default_factory=dict)  # of each layer (B, H, T, d)
    has_gradients: bool = False  # whether they were asked for

    @property
    def attention(self) -> Tensor:
        """(B, L, H, T, T), rows summing to 1. Raises PatchlightError, naming the layers that were not captured."""
        return torch.stack([w.detach() for w in self._known(self.weights)], dim=1)

    @property
    def values(self) -> Tensor:
        """(B, L, H, T, d). Raises PatchlightError where values were not asked for."""
        return torch.stack([v.detach() for v in self._known(self.value_vectors)], dim=1)

    def gradients(self, outputs: Tensor, *, retain_graph: bool = False) -> Tensor:
        """d outputs.sum() / d attention, (B, L, H, T, T): `outputs` may be the logit of one class per image, (B,).

        Raises PatchlightError where gradients were not asked for, and as `gradients_of`.
        """
        weights = self._known(self.weights)
        if not self.has_gradients:
            raise PatchlightError("gradients of attention need record_attention(..., gradients=True)")
        return torch.stack(gradients_of(outputs, weights, "attention", retain_graph=retain_graph), dim=1)

    def _known(self, tensors: dict[int, Tensor]) -> list[Tensor]:
        missing = [name for layer, name in zip(self.layers, self.names, strict=True) if layer not in tensors]
        if missing:
            raise PatchlightError(
                f"nothing was captured of {', '.join(missing)}: run the model inside the `with` (values only if asked "
                "for); attention that computes no weights, as some fused kernels do, cannot be captured"
            )
        return [tensors[layer] for layer in self.layers]


def uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Inside the `with`, compiled models run as they are written. What compiles takes seconds to load, and where it is
    not loaded nothing has been compiled.
    """
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


@contextlib.contextmanager
def as_found(model: nn.Module) -> Iterator[None]:
    """Inside the `with`, the model is in evaluation mode, uncompiled, and normal tensors are made; afterwards, after an
    exception too, it is as it was: every module's mode and other plain attributes (some networks, as Hugging Face's
    Swin, remember the size of what they saw), every parameter's `requires_grad`, every buffer. So is torch's random
    state, for a model that draws when it predicts.
    """
    plain = [
        (module, {n: value for n, value in vars(module).items() if _is_plain(value)}) for module in model.modules()
    ]
    modes = [(module, module.training) for module in model.modules()]  # which a scripted one does not have in `vars`
    trained = [(p, p.requires_grad) for p in model.parameters()]
    buffers = [(module, name, b) for module in model.modules() for name, b in module.named_buffers(recurse=False)]
    values = [b.clone() for _, _, b in buffers]
    gpus = {tensor.get_device() for tensor in (*model.parameters(), *model.buffers()) if tensor.is_cuda}
    with (
        uncompiled(),
        torch.inference_mode(False),
        torch.random.fork_rng(sorted(gpus)),
    ):
        for module, _ in modes:  # not `eval()`, which some models let fold weights together: that has no exact way back
            module.training = False
        try:
            yield
        finally:
            for module, attributes in plain:
                vars(module).update(attributes)
            for module, training in modes:
                module.training = training
            for p, requires_grad in trained:
                p.requires_grad_(requires_grad)
            for (module, name, buffer), value in zip(buffers, values, strict=True):
                _put_back(module, name, buffer, value)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _put_back(module: nn.Module, name: str, buffer: Tensor, value: Tensor) -> None:
    """Makes `buffer` the module's own of that name again, with its old value."""
    if getattr(module, name) is not buffer:
        setattr(module, name, buffer)
    if not torch.equal(buffer, value):  # which a NaN is not
        with torch.no_grad():
            buffer.copy_(value)


@contextlib.contextmanager
def record_attention(
    model: nn.Module | VitAnatomy,
    layers: Sequence[int] | None = None,
    *,
    gradients: bool = False,
    values: bool = False,
) -> Iterator[Recording]:
    """Inside the `with`, a forward pass fills the yielded Recording with the weights of attention.

    Works on ViTs of Patchlight, timm and Hugging Face, fused attention or not, compiled or not: inside, attention is
    computed as two products and a softmax, which changes outputs by rounding only. `layers` are block indices, negative
    ones from the end; None is all. With `gradients` the weights stay in the graph. After the `with`, after an exception
    too, the model is as it was.

    The first pass is checked: the rows of the recorded weights must be shares that sum to 1, and the weights times the
    layer's values must give the layer's output, to 1e-4 of its greatest value (16 roundings in half precision). Raises
    PatchlightError, naming the layer, where they do not, as of attention that is the difference of two softmaxes; for
    models whose attention cannot be seen; and for gradients inside `torch.inference_mode`. In training mode with
    dropout there is nothing exact to check.
    """
    anatomy = model if isinstance(model, VitAnatomy) else dissect_vit(model)
    if gradients and torch.is_inference_mode_enabled():
        raise PatchlightError("there are no gradients inside torch.inference_mode: record them outside, or use no_grad")
    chosen = tuple(_indices(len(anatomy.attentions), layers))
    names = tuple(anatomy.attentions[i].name for i in chosen)
    recording = Recording(chosen, names, has_gradients=gradients)
    with contextlib.ExitStack() as stack:
        stack.enter_context(uncompiled())
        stack.enter_context(anatomy.explicit_attention())
        for layer in chosen:
            attention = anatomy.attentions[layer]
            tap, keep = attention.weights, _keep_weights(recording, layer, gradients)
            stack.callback(tap.module.register_forward_hook(_hook(tap, keep)).remove)
            # Last, so that the weights are there when the layer's output is.
            after = _after_layer(recording, layer, attention, values)
            stack.callback(attention.module.register_forward_hook(after, with_kwargs=True).remove)
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


def _after_layer(
    recording: Recording, layer: int, attention: AttentionLayer, values: bool
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
    """A hook on a layer's attention: keeps its values where they are asked for, and checks the first pass."""
    checked = False

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        nonlocal checked
        if layer not in recording.weights or (checked and not values):
            return
        with torch.no_grad():
            tokens = (args[0] if args else next(iter(kwargs.values()))).detach()
            if not checked:
                _check(attention, recording.weights[layer].detach(), tokens, output)
                checked = True
            if values:  # (B, T, D) -> (B, H, T, d)
                vectors = attention.values(tokens).unflatten(-1, (attention.num_heads, -1))
                recording.value_vectors[layer] = vectors.transpose(1, 2)

    return hook


def _check(attention: AttentionLayer, weights: Tensor, tokens: Tensor, output: Any) -> None:
    """Raises PatchlightError where `weights` (B, H, T, T) are no shares, or where times the values of `tokens` they do
    not give the layer's `output`. Looks at the first image.
    """
    if any(module.training and module.p > 0 for module in attention.module.modules() if isinstance(module, nn.Dropout)):
        return
    result = (output[0] if isinstance(output, tuple) else output).detach()
    try:
        why = _why_not(attention, weights[:1], tokens[:1], result[:1])
    except (
        AttributeError,
        IndexError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:  # its parts are not what they seem
        if isinstance(error, torch.OutOfMemoryError):
            raise
        why = f"its weights times its values cannot be computed ({str(error).splitlines()[0]})"
    if why:
        raise PatchlightError(
            f"the attention of {attention.name} ({type(attention.module).__name__}) is not one softmax over tokens: "
            f"{why}, so maps of attention would not be true; use gradcam, integrated-gradients, smoothgrad or "
            "occlusion, which do not read attention"
        )


def _why_not(attention: AttentionLayer, weights: Tensor, tokens: Tensor, result: Tensor) -> str:
    """What is wrong with the weights of one image, or nothing."""
    square = (1, attention.num_heads, tokens.shape[1], tokens.shape[1])
    if weights.shape != square:
        return f"its weights are of the shape {tuple(weights.shape[1:])}, not {square[1:]}"
    if not bool(result.isfinite().all()):
        return ""
    exact = max(EXACT, 16 * torch.finfo(result.dtype).eps)
    values = attention.values(tokens).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
    mixed = (weights.to(values) @ values).transpose(1, 2).flatten(2)
    error = (attention.finish(mixed, tokens) - result).abs().amax()
    off = float(error / result.abs().amax().clamp(min=torch.finfo(result.dtype).tiny))
    if not off <= exact:
        return f"its recorded weights times its values differ from its output by {off:.1%} of the greatest value"
    sums = weights.float().sum(dim=-1)
    if weights.min() < 0 or (sums - 1).abs().amax() > exact:
        return f"its weights are no shares of a whole: rows sum to {sums.min():.4g} to {sums.max():.4g}"
    return ""


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
def keep_patches(anatomy: VitAnatomy, kept: Tensor) -> Iterator[None]:
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
        with uncompiled():
            yield
    finally:
        handle.remove()
