"""Optimizers: which parameters decay, which rate each group peaks at, one row per name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from patchlight.config import OptimConfig
from patchlight.errors import UsageError
from patchlight.machine.compat import copy_all, lerp_all
from patchlight.models import structure_of
from patchlight.training.muon import Muon

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class Part:
    """A parameter, and what decides its rates."""

    parameter: nn.Parameter
    scale: float  # of its rates
    decayed: bool  # by weight decay
    is_matrix: bool  # inside a block, neither embedding nor head: what Muon is made for (Jordan et al. 2024)
    is_kernel: bool  # of a convolutional stem, which is a matrix to Muon


def trained_parts(model: nn.Module, layer_decay: float = 1.0, *, decay_all: bool = False) -> list[Part]:
    """The parameters that are trained. Matrices and kernels decay; norms and biases, which are vectors, tokens and
    positions do so with `decay_all` only.

    With `layer_decay` below 1 a parameter's rates fall with each block that lies between it and the head (Clark et al.
    2020, ELECTRA; Bao et al. 2022, BEiT).
    """
    structure = structure_of(model)
    depths = structure.depths()
    top = max(depths.values())
    return [
        Part(
            parameter=p,
            scale=layer_decay ** (top - depths[name]),
            decayed=decay_all or (p.ndim > 1 and name not in structure.no_decay),
            is_matrix=name in structure.hidden_matrices,
            is_kernel=name in structure.stem_kernels,
        )
        for name, p in model.named_parameters()
        if p.requires_grad
    ]


def decay_groups(parts: list[Part], lr: float, weight_decay: float) -> Groups:
    """Parameter groups with and without decay, of one `lr_scale` each; the schedule starts from `peak_lr`."""
    split: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for part in sorted(parts, key=lambda part: not part.decayed):
        split.setdefault((part.scale, part.decayed), []).append(part.parameter)
    return [
        {
            "params": params,
            "lr": scale * lr,
            "peak_lr": lr,
            "lr_scale": scale,
            "weight_decay": weight_decay if decayed else 0.0,
        }
        for (scale, decayed), params in split.items()
    ]


def adamw(parts: list[Part], config: OptimConfig) -> list[Optimizer]:
    """Loshchilov & Hutter 2019, in torch's fused form."""
    groups = decay_groups(parts, config.lr, config.weight_decay)
    return [torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), fused=_fusable(parts))]


def sgd(parts: list[Part], config: OptimConfig) -> list[Optimizer]:
    """SGD with momentum; torch's weight decay here is the classic coupled one."""
    groups = decay_groups(parts, config.lr, config.weight_decay)
    nesterov = config.nesterov and config.momentum > 0
    return [torch.optim.SGD(groups, momentum=config.momentum, nesterov=nesterov, fused=_fusable(parts))]


def muon(parts: list[Part], config: OptimConfig) -> list[Optimizer]:
    """Muon on the blocks' matrices (`muon_lr`) and on a stem's kernels (`muon_conv_lr`), AdamW on the rest (`lr`)."""
    matrices = [part for part in parts if part.is_matrix]
    kernels = [part for part in parts if part.is_kernel and config.muon_conv_lr]
    if not matrices and not kernels:
        raise UsageError(
            "optim.name 'muon' is for the matrices of transformer blocks, and none is trained here; use adamw"
        )
    groups = decay_groups(matrices, config.muon_lr, config.weight_decay)
    # Batch norm follows each kernel, so its scale means nothing.
    groups += [{**group, "normalize": True} for group in decay_groups(kernels, config.muon_conv_lr, 0.0)]
    taken = {id(part) for part in (*matrices, *kernels)}
    rest = [part for part in parts if id(part) not in taken]
    return [Muon(groups, momentum=config.momentum, nesterov=config.nesterov), *(adamw(rest, config) if rest else [])]


OPTIMIZERS: dict[str, Callable[[list[Part], OptimConfig], list[Optimizer]]] = {
    "adamw": adamw,
    "sgd": sgd,
    "muon": muon,
}


def build_optimizers(model: nn.Module, config: OptimConfig) -> list[Optimizer]:
    """One or two optimizers that together hold every trainable parameter once; each group knows its rates'
    `peak_lr` and `lr_scale`.
    """
    return OPTIMIZERS[config.name](trained_parts(model, config.layer_decay, decay_all=config.decay_all), config)


def scaled_rates(config: OptimConfig, batch_size: int) -> OptimConfig:
    """The section with its peak rates for batches of `batch_size` images, where it says for which size they were.

    The rates grow linearly with the batch (Goyal et al. 2017, arXiv:1706.02677, section 2.1).
    """
    if config.lr_base_size is None:
        return config
    times = batch_size / config.lr_base_size
    rates = {name: times * getattr(config, name) for name in ("lr", "muon_lr", "muon_conv_lr")}
    return replace(config, lr_base_size=None, **rates)


def set_momentum(group: dict[str, Any], momentum: float) -> None:
    """Give a group of parameters this momentum: in adamw it is beta1."""
    if "betas" in group:
        group["betas"] = (momentum, group["betas"][1])
    else:
        group["momentum"] = momentum


def clip_gradients(model: nn.Module, most: float) -> Tensor:
    """Scale all gradients down to a norm of `most`, where it is not 0; where fp16 overflowed they stay, for its scaler
    to find. Their norm before, on their device.
    """
    norm: Tensor = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    if most:
        nn.utils.clip_grads_with_norm_(model.parameters(), most, norm.where(norm.isfinite(), 0.0))
    return norm


@torch.no_grad()
def update_average(average: AveragedModel, model: nn.Module, decay: float) -> None:
    """One step of an exponential moving average of the trained weights and of the buffers; of buffers of whole numbers
    the newest is kept. It begins with the first network that it sees. Unlike torch's own, it does not wait for a GPU.
    """
    pairs = [*zip(average.module.buffers(), model.buffers(), strict=True)]
    parameters = zip(average.module.parameters(), model.parameters(), strict=True)
    pairs += [(mine, theirs) for mine, theirs in parameters if theirs.requires_grad]
    counts = [pair for pair in pairs if not pair[0].is_floating_point()]
    smooth = [pair for pair in pairs if pair[0].is_floating_point()]
    weight = 1 - decay if average.n_averaged else 1.0  # the number is on the CPU
    if counts:
        copy_all([mine for mine, _ in counts], [theirs for _, theirs in counts])
    if smooth:
        lerp_all([mine for mine, _ in smooth], [theirs for _, theirs in smooth], weight)
    average.n_averaged += 1


def _fusable(parts: list[Part]) -> bool:
    """torch's fused optimizers run on these devices; on others the default is taken."""
    return all(part.parameter.device.type in ("cpu", "cuda") for part in parts)
