"""How large a model is, and what it is made of."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from patchlight.errors import UsageError
from patchlight.models.families import structure_of
from patchlight.models.families.hub import first_line


@dataclass(frozen=True)
class ModelSize:
    """Of a model for images of `img_size` pixels a side. What is no ViT's has no patches, tokens or stem: None."""

    params: int
    trainable: int  # of these
    flops_per_image: int  # of one forward pass; a multiply-add is two
    img_size: int
    patch_size: int | None  # pixels a side
    stem: str | None  # "patch" or "conv", of ours
    stem_flops: int | None  # of all that comes before the first block: how much of the model is no transformer
    stem_params: int | None
    tokens: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Layer:
    """A row of a model's description."""

    layer: str  # its name
    kind: str  # its class; "parameter" of one that is no module's
    shape: str  # of its output, "B x 65 x 192", or of the parameter
    params: int  # inside

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def count(model: nn.Module, img_size: int) -> ModelSize:
    """How large a model is.

    FLOPs are counted by `count_flops`: the same on every version of torch, fused or explicit attention.
    Raises UsageError where the model takes no RGB images of this size.
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
    structure = structure_of(model)
    flops = counter.get_flop_counts()
    stem = None if structure.stem is None else model.get_submodule(structure.stem)
    return ModelSize(
        params=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in learned),
        flops_per_image=counter.get_total_flops(),
        img_size=img_size,
        patch_size=structure.patch_size,
        stem=structure.stem_kind,
        stem_flops=None if stem is None else sum(flops.get(f"{type(model).__name__}.{structure.stem}", {}).values()),
        stem_params=None if stem is None else sum(p.numel() for p in stem.parameters()),
        tokens=structure.tokens(img_size),
    )


@contextlib.contextmanager
def count_flops() -> Iterator[FlopCounterMode]:
    """Inside, the yielded counter counts matrix products, convolutions and attention; a multiply-add is two.

    Attention is taken apart into its two products meanwhile, as torch counts a fused kernel by device and version (on
    the CPU not before 2.15): so a model has the same number everywhere, whichever kind of attention it uses.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def describe(model: nn.Module, img_size: int) -> list[Layer]:
    """The layers in the order of the forward pass: a block is one layer; parameters that are no module's come first."""
    layers = [
        Layer(name, "parameter", _shape(p, batch=False), p.numel()) for name, p in model.named_parameters(recurse=False)
    ]
    handles = []
    for name, module in _parts(structure_of(model).network):

        def hook(part: nn.Module, args: Any, output: Any, name: str = name) -> None:
            if not isinstance(output, Tensor):  # a record of several
                output = next(value for value in output.values() if isinstance(value, Tensor))
            size = sum(p.numel() for p in part.parameters())
            layers.append(Layer(name, type(part).__name__, _shape(output), size))

        handles.append(module.register_forward_hook(hook))
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, img_size, img_size))
    finally:
        for handle in handles:
            handle.remove()
    return layers


def _parts(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The children, and those of a plain sequence one by one; what does nothing is left out."""
    parts: list[tuple[str, nn.Module]] = []
    for name, child in model.named_children():
        inner = child.named_children() if isinstance(child, nn.Sequential) else ()
        parts += [(f"{name}.{key}", module) for key, module in inner] or [(name, child)]
    return [(name, part) for name, part in parts if not isinstance(part, nn.Identity) and not _is_off(part)]


def _is_off(module: nn.Module) -> bool:
    return isinstance(module, nn.Dropout) and module.p == 0


def _shape(tensor: Tensor, batch: bool = True) -> str:
    sizes = ["B", *map(str, tensor.shape[1:])] if batch else list(map(str, tensor.shape))
    return " x ".join(sizes)
