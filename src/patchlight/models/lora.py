"""LoRA (Hu et al. 2022, arXiv:2106.09685), by PEFT: narrow matrices are trained beside wide ones that stay as is."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from patchlight.config.sections import LoraConfig
from patchlight.errors import UsageError
from patchlight.machine.process import import_library
from patchlight.models.families import structure_of


def add_lora(model: nn.Module, config: LoraConfig, img_size: int) -> int:
    """Let the linear layers but the head's compute W x + alpha / rank B A x, in place, and count them; B begins at 0.

    A layer whose weight is read without calling the layer cannot be changed so and is left as it is. A is drawn from
    torch's generator. Which parameters are trainable is left as it was, and A and B are.
    Raises UsageError where PEFT is not installed or the model has no linear layer but its head.
    """
    peft = import_library("peft", "lora")
    layers = _called(model, img_size)
    if not layers:
        raise UsageError("LoRA changes linear layers, and this model has none; set train.trainable = 'all'")
    trainable = {id(p): p.requires_grad for p in model.parameters()}
    options = {"r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout, "target_modules": layers}
    peft.inject_adapter_in_model(peft.LoraConfig(**options), model)
    for p in model.parameters():
        p.requires_grad_(trainable.get(id(p), True))
    return len(layers)


@torch.no_grad()
def _called(model: nn.Module, img_size: int) -> list[str]:
    """The linear layers, but the head's, that an image passes through."""
    called: list[str] = []
    heads = structure_of(model).linear_heads()
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and n not in heads}
    hooks = [m.register_forward_hook(lambda *_, name=n: called.append(name)) for n, m in linear.items()]
    was_training = model.training
    model.eval()(torch.zeros(2, 3, img_size, img_size))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return sorted(set(called))


def is_lora(parameter: str) -> bool:
    """Whether a parameter of this name is one of A and B."""
    return "lora_A" in parameter or "lora_B" in parameter


def has_lora(model: nn.Module) -> bool:
    return any(is_lora(name) for name, _ in model.named_parameters())


def merged(model: nn.Module) -> nn.Module:
    """The same function without adapters, their products added to the matrices: a copy, or the model if it has none."""
    if not has_lora(model):
        return model
    model = copy.deepcopy(model)
    wrapped = {name: module for name, module in model.named_modules() if hasattr(module, "get_base_layer")}
    for name, module in wrapped.items():
        layer: Any = module
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    return model
