"""Optimizers: which parameters decay, which rate each group peaks at, one row per name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from patchlight.config import OptimConfig
from patchlight.errors import UsageError
from patchlight.training.muon import Muon

Groups = list[dict[str, Any]]

NO_DECAY = ("pos_embed", "cls_token", "reg_token")


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Weight decay is for the matrices and kernels: not for norms and biases (vectors), tokens and positions."""
    return parameter.ndim > 1 and name.split(".")[-1] not in NO_DECAY


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """What Muon is made for: the matrices inside the blocks, neither embedding nor head (Jordan et al. 2024)."""
    return parameter.ndim == 2 and name.startswith("blocks.")


def is_kernel(name: str, parameter: nn.Parameter) -> bool:
    """A kernel of a convolutional stem, which is a matrix to Muon."""
    return parameter.ndim == 4 and name.startswith("patch_embed.stem.")


def decay_groups(named: list[tuple[str, nn.Parameter]], lr: float, weight_decay: float) -> Groups:
    """Parameter groups with and without decay, each with the `peak_lr` that the schedule scales."""
    split: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in named:
        split[decays(name, parameter)].append(parameter)
    return [
        {"params": params, "lr": lr, "peak_lr": lr, "weight_decay": weight_decay if decayed else 0.0}
        for decayed, params in split.items()
        if params
    ]


def adamw(named: list[tuple[str, nn.Parameter]], config: OptimConfig) -> list[Optimizer]:
    """Loshchilov & Hutter 2019, in torch's fused form."""
    groups = decay_groups(named, config.lr, config.weight_decay)
    return [torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), fused=_fusable(named))]


def sgd(named: list[tuple[str, nn.Parameter]], config: OptimConfig) -> list[Optimizer]:
    """SGD with momentum; torch's weight decay here is the classic coupled one."""
    groups = decay_groups(named, config.lr, config.weight_decay)
    nesterov = config.nesterov and config.momentum > 0
    return [torch.optim.SGD(groups, momentum=config.momentum, nesterov=nesterov, fused=_fusable(named))]


def muon(named: list[tuple[str, nn.Parameter]], config: OptimConfig) -> list[Optimizer]:
    """Muon on the blocks' matrices (`muon_lr`) and on a stem's kernels (`muon_conv_lr`), AdamW on the rest (`lr`)."""
    matrices = [(name, p) for name, p in named if is_hidden_matrix(name, p)]
    kernels = [(name, p) for name, p in named if is_kernel(name, p)] if config.muon_conv_lr else []
    if not matrices and not kernels:
        raise UsageError(
            "optim.name 'muon' is for the matrices of transformer blocks, and this model has none; use adamw"
        )
    groups = decay_groups(matrices, config.muon_lr, config.weight_decay)
    # Batch norm follows each kernel, so its scale means nothing.
    groups += [{**group, "normalize": True} for group in decay_groups(kernels, config.muon_conv_lr, 0.0)]
    taken = {name for name, _ in matrices + kernels}
    rest = [(name, p) for name, p in named if name not in taken]
    return [Muon(groups, momentum=config.momentum, nesterov=config.nesterov), *adamw(rest, config)]


OPTIMIZERS: dict[str, Callable[[list[tuple[str, nn.Parameter]], OptimConfig], list[Optimizer]]] = {
    "adamw": adamw,
    "sgd": sgd,
    "muon": muon,
}


def build_optimizers(model: nn.Module, config: OptimConfig) -> list[Optimizer]:
    """One or two optimizers that together hold every trainable parameter once; each group knows its `peak_lr`."""
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return OPTIMIZERS[config.name](named, config)


def _fusable(named: list[tuple[str, nn.Parameter]]) -> bool:
    """torch's fused optimizers run on these devices; on others the default is taken."""
    return all(p.device.type in ("cpu", "cuda") for _, p in named)
