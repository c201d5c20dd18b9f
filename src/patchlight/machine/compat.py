"""Everything that is private in other people's libraries and that Patchlight still needs, with what happens without it.

A private name may be gone in any release. Each function here says what it does then; the rest of the code uses public
names only, which a test holds.
"""

from __future__ import annotations

import ctypes
import functools
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from torch import Tensor, nn

INSTRUCTIONS = {"bf16": ("avx512_bf16", "amx_tile"), "fp16": ("avx512_fp16", "amx_fp16")}


def processor_multiplies(precision: str) -> bool:
    """Whether the processor multiplies matrices of "bf16" or "fp16" itself. False where torch does not tell."""
    if hasattr(torch.cpu, "get_capabilities"):  # public from torch 2.13 on
        capabilities = torch.cpu.get_capabilities()
        return any(bool(capabilities.get(name, False)) for name in INSTRUCTIONS[precision])
    names = [f"_is_{name}_supported" for name in INSTRUCTIONS[precision]]
    return any(bool(getattr(torch.cpu, name)()) for name in names if hasattr(torch.cpu, name))


def standard_gamma(concentration: Tensor, generator: torch.Generator) -> Tensor:
    """Draws from Gamma(concentration, 1) of the same shape, by the generator.

    torch's public distributions take no generator. Without the private kernel NumPy draws, from a seed that the
    generator gives: the same distribution, other numbers.
    """
    if hasattr(torch, "_standard_gamma"):
        return torch._standard_gamma(concentration, generator=generator)
    seed = int(torch.randint(2**62, (), generator=generator))
    drawn = np.random.default_rng(seed).standard_gamma(concentration.numpy())
    return torch.from_numpy(np.asarray(drawn)).to(concentration)


def copy_all(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copy each source into its target: in one call where torch has it, else one by one."""
    if hasattr(torch, "_foreach_copy_"):
        torch._foreach_copy_(list(targets), list(sources))
        return
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def lerp_all(targets: Sequence[Tensor], ends: Sequence[Tensor], weight: float) -> None:
    """Move each target by `weight` (0..1) of the way to its end: in one call where torch has it, else one by one."""
    if hasattr(torch, "_foreach_lerp_"):
        torch._foreach_lerp_(list(targets), list(ends), weight)
        return
    for target, end in zip(targets, ends, strict=True):
        target.lerp_(end, weight)


def recorded_classes(model: nn.Module) -> dict[str, type[nn.Module]]:
    """By "attentions" and "hidden_states", the classes of a Hugging Face model's layers; empty where it does not tell.

    A model without it has no explanations, which `dissect` says.
    """
    recorded = getattr(model, "_can_record_outputs", None) or {}
    return {key: kind for key, kind in recorded.items() if isinstance(kind, type)}


def attention_kind(model: Any) -> str:
    """How a Hugging Face model computes attention, as `set_attn_implementation` takes it: "sdpa", "eager", ...

    "sdpa", its default, where it does not tell.
    """
    return getattr(model.config, "_attn_implementation", None) or "sdpa"


def attention_kinds(model: nn.Module) -> list[tuple[Any, Any]]:
    """The configurations of a Hugging Face model and of all models inside it, each with its kind of attention.

    Empty where they do not tell; `set_attn_implementation` of what `attention_kind` says is then all that can be done.
    """
    configs: dict[int, Any] = {}
    for module in model.modules():
        parts = [getattr(module, "config", None)]
        while parts:
            config = parts.pop()
            if hasattr(config, "_attn_implementation_internal") and id(config) not in configs:
                configs[id(config)] = config
                parts += [getattr(config, name, None) for name in getattr(config, "sub_configs", ())]
    return [(config, config._attn_implementation_internal) for config in configs.values()]


def put_back_attention(kinds: Sequence[tuple[Any, Any]]) -> None:
    """Gives each configuration the kind of attention that `attention_kinds` found."""
    for config, kind in kinds:
        config._attn_implementation_internal = kind


def uncompiled(model: nn.Module) -> nn.Module:
    """The network that `torch.compile` was given; the model itself where it is not compiled, or does not tell."""
    inner = getattr(model, "_orig_mod", model)
    return inner if isinstance(inner, nn.Module) else model


def use_one_gpu(arguments: Any) -> None:
    """Keep Hugging Face's `Trainer` from copying the model to all GPUs.

    Its arguments count the GPUs once, into a private field, and have no public switch. Without the field it copies.
    """
    if arguments.n_gpu > 1 and hasattr(arguments, "_n_gpu"):
        arguments._n_gpu = 1


def forget_members(archive: tarfile.TarFile) -> None:
    """Forget the headers that a tar archive was asked for so far, so that a walk over a large one stays small.

    Python keeps them all, about a kilobyte each, under a name that is not documented; without it they stay.
    """
    members = getattr(archive, "members", None)
    if isinstance(members, list):
        members.clear()


@functools.cache  # once in a process
def silence_libtiff() -> bool:
    """Keep the library under Pillow from writing to standard error on its own, past Python, where a TIFF file is
    damaged: that Pillow cannot read it, or what it has read, is known without. Whether the library was found; where it
    was not, its lines stay.
    """
    wheel = Path(PIL.__file__).parent
    found = [*wheel.parent.glob("pillow.libs/*tiff*"), *wheel.glob(".dylibs/*tiff*")]
    maps = Path("/proc/self/maps")
    if not found and maps.is_file():  # Pillow that was built with the system's library
        lines = maps.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        found = [Path(line.split(maxsplit=5)[5]) for line in lines if "/libtiff" in line]
    for path in found[:1]:
        try:
            library = ctypes.CDLL(str(path))
            library.TIFFSetErrorHandler(None)
            library.TIFFSetWarningHandler(None)
            return True
        except (OSError, AttributeError):
            continue
    return False
