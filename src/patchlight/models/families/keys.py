"""Keys of a state dict, by the module or the word that they belong to."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor, nn


def keys_of(model: nn.Module, *parts: nn.Module | Tensor | None) -> frozenset[str]:
    """The keys of all parameters and saved buffers of these parts of the model; parts that are None have none."""
    wanted: set[int] = set()
    for part in parts:
        tensors = part.state_dict(keep_vars=True).values() if isinstance(part, nn.Module) else [part]
        wanted |= {id(tensor) for tensor in tensors if tensor is not None}
    return frozenset(key for key, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in wanted)


def keys_with(model: nn.Module, words: Collection[str]) -> frozenset[str]:
    """The keys that have one of these words between their dots."""
    return frozenset(key for key in model.state_dict() if not set(words).isdisjoint(key.split(".")))


def keys_ending(model: nn.Module, ending: str) -> frozenset[str]:
    return frozenset(key for key in model.state_dict() if key.endswith(ending))


def head_keys(model: nn.Module, heads: Collection[str], before: Collection[str]) -> frozenset[str]:
    """The keys inside a part of one of the names `heads`, but for what lies in a part of one of the names `before`."""
    inside = {key: set(key.split(".")[:-1]) for key in keys_with(model, heads)}
    return frozenset(
        key for key, parts in inside.items() if not parts.isdisjoint(heads) and set(key.split(".")).isdisjoint(before)
    )


def matrices_in(model: nn.Module, *parts: nn.Module) -> frozenset[str]:
    """The keys of the parameters with two dimensions inside these parts."""
    inside = {id(p) for part in parts for p in part.parameters()}
    return frozenset(name for name, p in model.named_parameters() if p.ndim == 2 and id(p) in inside)


def name_of(model: nn.Module, part: nn.Module) -> str:
    """The name of a module inside the model."""
    return next(name for name, module in model.named_modules() if module is part)
