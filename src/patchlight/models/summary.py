"""How large a model is, and what it is made of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from patchlight.errors import UsageError
from patchlight.models.backbone import first_line
from patchlight.models.families.hub import prefix_tokens


def count(model: nn.Module, img_size: int) -> dict[str, Any]:
    """Parameters, trainable parameters, FLOPs of one image, and for a ViT its tokens, patch size and stem's shares.

    FLOPs are counted by `count_flops`: the same on every version of torch, fused or explicit attention.
    `stem_flops` and `stem_params` are those of all that comes before the first block: how much of it is no transformer.
    """
    device = next(model.parameters()).device
    image = torch.zeros(1, 3, img_size, img_size, device=device)
    training, learned = model.training, [p for p in model.parameters() if p.requires_grad]
    model.eval().requires_grad_(False)  # the counter stumbles over a parameter that is handed from module to module
    with count_flops() as counter, torch.no_grad():
        try:
            model(image)
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            raise UsageError(
                f"the model does not take RGB images of {img_size} x {img_size} pixels ({first_line(error)}); set "
                "model.img_size to its own size, or choose another model.name"
            ) from None
    model.train(training)
    for p in learned:
        p.requires_grad_()
    patch_size, prefix = _patches(model)
    flops = counter.get_flop_counts()
    stem = getattr(model, "patch_embed", None)
    return {
        "params": sum(p.numel() for p in model.parameters()),
        "trainable": sum(p.numel() for p in learned),
        "flops_per_image": counter.get_total_flops(),
        "img_size": img_size,
        "patch_size": patch_size,
        "stem": getattr(model, "stem", None),
        "stem_flops": sum(flops.get(f"{type(model).__name__}.patch_embed", {}).values()) if stem is not None else None,
        "stem_params": sum(p.numel() for p in stem.parameters()) if stem is not None else None,
        "tokens": (img_size // patch_size) ** 2 + prefix if patch_size else None,
    }


@contextlib.contextmanager
def count_flops() -> Iterator[FlopCounterMode]:
    """Inside, the yielded counter counts matrix products, convolutions and attention; a multiply-add is two.

    Attention is taken apart into its two products meanwhile, as torch counts a fused kernel by device and version (on
    the CPU not before 2.15): so a model has the same number everywhere, whichever kind of attention it uses.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def _patches(model: Any) -> tuple[int | None, int]:
    """Patch size and prefix tokens of a ViT of ours, timm's or Hugging Face's; None of another network."""
    if hasattr(model, "hf"):
        patch, prefix = getattr(model.hf.config, "patch_size", None), prefix_tokens(model)
        registers = getattr(model.hf.config, "num_register_tokens", 0)  # which have no positions
        return (patch, prefix + registers) if isinstance(patch, int) and prefix else (None, 0)
    if not hasattr(model, "num_prefix_tokens"):
        return None, 0
    ratio = getattr(getattr(model, "patch_embed", None), "feat_ratio", None)
    patch = getattr(model, "patch_size", None) or (ratio() if ratio is not None else None)
    return (patch, model.num_prefix_tokens) if isinstance(patch, int) else (None, 0)


def describe(model: nn.Module, img_size: int) -> list[dict[str, Any]]:
    """A row per layer in the order of the forward pass: name, kind, output shape for a batch B, parameters inside.

    Blocks are one row each; parameters that are no module's (tokens, positions) come first.
    """
    rows = [
        {"layer": name, "kind": "parameter", "shape": _shape(p, batch=False), "params": p.numel()}
        for name, p in model.named_parameters(recurse=False)
    ]
    handles = []
    for name, module in _layers(model):

        def hook(layer: nn.Module, args: Any, output: Any, name: str = name) -> None:
            if not isinstance(output, Tensor):  # of Hugging Face's encoders
                output = next(value for value in output.values() if isinstance(value, Tensor))
            size = sum(p.numel() for p in layer.parameters())
            rows.append({"layer": name, "kind": type(layer).__name__, "shape": _shape(output), "params": size})

        handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, img_size, img_size))
    finally:
        for handle in handles:
            handle.remove()
    return rows


def _layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The children, and those of a plain sequence one by one; what does nothing is left out."""
    layers: list[tuple[str, nn.Module]] = []
    model = getattr(model, "hf", model)
    for name, child in model.named_children():
        inner = child.named_children() if isinstance(child, nn.Sequential) else ()
        layers += [(f"{name}.{key}", module) for key, module in inner] or [(name, child)]
    return [(name, m) for name, m in layers if not isinstance(m, nn.Identity) and not _is_off(m)]


def _is_off(module: nn.Module) -> bool:
    return isinstance(module, nn.Dropout) and module.p == 0


def _shape(tensor: Tensor, batch: bool = True) -> str:
    sizes = ["B", *map(str, tensor.shape[1:])] if batch else list(map(str, tensor.shape))
    return " x ".join(sizes)
