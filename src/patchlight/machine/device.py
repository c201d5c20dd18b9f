"""Where tensors live and in which precision they are computed."""

from __future__ import annotations

import contextlib
import os
import shutil
from contextlib import AbstractContextManager
from typing import Any

import torch

from patchlight.errors import UsageError, did_you_mean
from patchlight.machine.compat import processor_multiplies

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(name: str = "auto") -> torch.device:
    """The device "cpu", "cuda" or "mps"; "auto" is cuda, else mps, else cpu.

    Raises UsageError for a device that this machine lacks.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name not in (*present, "auto"):
        raise UsageError(f"the device '{name}' is none; {did_you_mean(name, ['auto', *present])}")
    if name == "auto":
        name = next(device for device, here in present.items() if here)
    if not present[name]:
        raise UsageError(
            f"the device '{name}' (train.device, --device) is not one that torch finds here; use 'auto' or 'cpu'"
        )
    return torch.device(name)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """A context in which forward passes run in `precision`, a key of DTYPES: torch.autocast, or nothing for fp32."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, DTYPES[precision])


def multiplies(precision: str, device: torch.device) -> bool:
    """Whether the device multiplies matrices of `precision`, a key of DTYPES, itself, as far as torch tells.

    What it does not, it emulates, and may take hundreds of times as long as in fp32: a processor without such
    instructions, an older GPU. bf16 on Apple's GPUs is False, since torch does not tell.
    """
    if precision == "fp32":
        return True
    if device.type == "cpu":
        return processor_multiplies(precision)
    if precision == "bf16":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return True


def has_compiler() -> bool:
    """Whether there is a C++ compiler, which torch.compile needs on a CPU."""
    return any(shutil.which(compiler) for compiler in (os.environ.get("CXX", "g++"), "clang++"))


def check_compile(device: torch.device) -> None:
    """Raises UsageError where torch.compile cannot work: on a CPU it needs a C++ compiler."""
    if device.type == "cpu" and not has_compiler():
        raise UsageError("train.compile needs a C++ compiler on a CPU; install g++, or set train.compile = false")


def move(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device. Only a copy to a CUDA GPU does not wait: an Apple GPU might read freed memory."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
