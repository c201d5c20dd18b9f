"""Optimizers: which parameters decay, which rate each group peaks at, one row per name."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from patchlight.config import OptimConfig
from patchlight.errors import UsageError
from patchlight.machine.compat import copy_all, lerp_all
from patchlight.training.muon import Muon
from patchlight.training.trainable import depths

Groups = list[dict[str, Any]]

# Ours and timm's, then Hugging Face's and those of hierarchical transformers.
NO_DECAY = {
    "pos_embed",
    "cls_token",
    "reg_token",
    "dist_token",
    "position_embeddings",
    "distillation_token",
    "mask_token",
    "register_tokens",
    "relative_position_bias_table",
    "position_embedding",
}


@dataclass(frozen=True)
class Part:
    """A parameter with its name, and what its rates are scaled by."""

    name: str
    parameter: nn.Parameter
    scale: float = 1.0


def decays(name: str, parameter: nn.Parameter) -> bool:
    """Weight decay is for the matrices and kernels: not for norms and biases (vectors), tokens and positions."""
    return parameter.ndim > 1 and NO_DECAY.isdisjoint(name.split("."))


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """What Muon is made for: the matrices inside the blocks, neither embedding nor head (Jordan et al. 2024)."""
    return parameter.ndim == 2 and re.search(r"(^|\.)(blocks|layers?)\.\d+\.", name) is not None


def is_kernel(name: str, parameter: nn.Parameter) -> bool:
    """A kernel of a convolutional stem, which is a matrix to Muon."""
    return parameter.ndim == 4 and name.startswith("patch_embed.stem.")


def decay_groups(parts: list[Part], lr: float, weight_decay: float) -> Groups:
    """Parameter groups with and without decay, of one `lr_scale` each; the schedule starts from `peak_lr`."""
    split: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for part in sorted(parts, key=lambda part: not decays(part.name, part.parameter)):
        split.setdefault((part.scale, decays(part.name, part.parameter)), []).append(part.parameter)
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
    matrices = [part for part in parts if is_hidden_matrix(part.name, part.parameter)]
    kernels = [part for part in parts if is_kernel(part.name, part.parameter)] if config.muon_conv_lr else []
    if not matrices and not kernels:
        raise UsageError(
            "optim.name 'muon' is for the matrices of transformer blocks, and none is trained here; use adamw"
        )
    groups = decay_groups(matrices, config.muon_lr, config.weight_decay)
    # Batch norm follows each kernel, so its scale means nothing.
    groups += [{**group, "normalize": True} for group in decay_groups(kernels, config.muon_conv_lr, 0.0)]
    rest = [part for part in parts if part not in matrices and part not in kernels]
    return [Muon(groups, momentum=config.momentum, nesterov=config.nesterov), *(adamw(rest, config) if rest else [])]


OPTIMIZERS: dict[str, Callable[[list[Part], OptimConfig], list[Optimizer]]] = {
    "adamw": adamw,
    "sgd": sgd,
    "muon": muon,
}


def build_optimizers(model: nn.Module, config: OptimConfig) -> list[Optimizer]:
    """One or two optimizers that together hold every trainable parameter once; each group knows its rates'
    `peak_lr` and `lr_scale`.

    With `layer_decay` below 1 a parameter's rates fall with each block that lies between it and the head (Clark et al.
    2020, ELECTRA; Bao et al. 2022, BEiT).
    """
    depth = depths(model)
    top = max(depth.values())
    parts = [
        Part(name, p, config.layer_decay ** (top - depth[name]))
        for name, p in model.named_parameters()
        if p.requires_grad
    ]
    return OPTIMIZERS[config.name](parts, config)


def clip_gradients(model: nn.Module, most: float) -> None:
    """Scale all gradients down to a norm of `most`; where fp16 overflowed they stay, for its scaler to find."""
    norm = nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    nn.utils.clip_grads_with_norm_(model.parameters(), most, norm.where(norm.isfinite(), 0.0))


@torch.no_grad()
def update_average(average: AveragedModel, model: nn.Module, decay: float) -> None:
    """One step of an exponential moving average of the trained weights and of what a network counts, of whole numbers
    the newest; it begins with the first network that it sees. Unlike torch's own, it does not wait for a GPU.
    """
    pairs = [*zip(average.module.buffers(), model.buffers(), strict=True)]
    parameters = zip(average.module.parameters(), model.parameters(), strict=True)
    pairs += [(mine, theirs) for mine, theirs in parameters if theirs.requires_grad]
    counts = [pair for pair in pairs if not pair[0].is_floating_point()]
    smooth = [pair for pair in pairs if pair[0].is_floating_point()]
    share = 1 - decay if average.n_averaged else 1.0  # the number is on the CPU
    if counts:
        copy_all([mine for mine, _ in counts], [theirs for _, theirs in counts])
    if smooth:
        lerp_all([mine for mine, _ in smooth], [theirs for _, theirs in smooth], share)
    average.n_averaged += 1


def _fusable(parts: list[Part]) -> bool:
    """torch's fused optimizers run on these devices; on others the default is taken."""
    return all(part.parameter.device.type in ("cpu", "cuda") for part in parts)
