"""Checkpoints: `checkpoints/step-NNNNNNNN/`, complete or absent, without pickle.

model.safetensors      the weights in training
ema.safetensors        their moving average, where one is kept
optimizer.safetensors  every tensor of every optimizer's state, as "optimizer.parameter.name"
state.json             where training stands: epoch, step, best result, clocks, loss scale
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from patchlight.errors import PatchlightError

NAME = re.compile(r"step-\d{8,}")  # of a whole checkpoint; a copy beside it is none


def save_checkpoint(
    folder: Path, step: int, model: nn.Module, ema: nn.Module | None, optimizers: list[Optimizer], state: dict[str, Any]
) -> Path:
    """Write `folder/step-NNNNNNNN` beside a temporary name and rename it when it is whole."""
    final = folder / f"step-{step:08d}"
    part = folder / f".{final.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save_file(_plain(model.state_dict()), part / "model.safetensors")
    if ema is not None:
        save_file(_plain(ema.state_dict()), part / "ema.safetensors")
    save_file(_optimizer_tensors(optimizers), part / "optimizer.safetensors")
    (part / "state.json").write_text(json.dumps(state), encoding="utf-8")
    for path in part.iterdir():
        _flush(path)
    if final.exists():
        _hide(final)
    part.replace(final)
    _sweep(folder)
    return final


def list_checkpoints(folder: Path) -> list[Path]:
    """The whole ones, oldest first."""
    return sorted(path for path in folder.glob("step-*") if NAME.fullmatch(path.name))


def read_state(path: Path) -> dict[str, Any]:
    """Where training stood at a checkpoint. Raises PatchlightError where that cannot be read."""
    try:
        return json.loads((path / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PatchlightError(_unreadable(path, error)) from None


def load_checkpoint(path: Path, model: nn.Module, ema: nn.Module | None, optimizers: list[Optimizer]) -> dict[str, Any]:
    """Put everything back as `save_checkpoint` found it and return its `state`.

    Raises PatchlightError, naming the folder, where a file is missing, damaged or of another model.
    """
    try:
        model.load_state_dict(load_file(path / "model.safetensors"))
        if ema is not None:
            ema.load_state_dict(load_file(path / "ema.safetensors"))
        _restore_optimizers(optimizers, load_file(path / "optimizer.safetensors"))
        return read_state(path)
    except (OSError, SafetensorError, RuntimeError, LookupError, ValueError) as error:
        raise PatchlightError(_unreadable(path, error)) from None


def _unreadable(path: Path, error: Exception) -> str:
    reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
    return f"{path} cannot be resumed from ({reason}); delete it and resume from what is left"


def prune_checkpoints(folder: Path, keep: Path, steps_to_keep: set[int]) -> None:
    """Delete all but `keep` and those whose step is in `steps_to_keep`."""
    for path in list_checkpoints(folder):
        if path != keep and int(path.name.removeprefix("step-")) not in steps_to_keep:
            _hide(path)
    _sweep(folder)


def _hide(path: Path) -> None:
    """Take a whole folder out of sight in one step, so that none is ever seen half deleted."""
    hidden = path.with_name(f".{path.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    path.replace(hidden)


def _sweep(folder: Path) -> None:
    for hidden in folder.glob(".step-*.old"):
        shutil.rmtree(hidden)


def _plain(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share memory with nothing, on the CPU, as safetensors wants them."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


def _optimizer_tensors(optimizers: list[Optimizer]) -> dict[str, Tensor]:
    tensors = {}
    for number, optimizer in enumerate(optimizers):
        for index, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                if value is not None:
                    tensors[f"{number}.{index}.{name}"] = torch.as_tensor(value)
    return _plain(tensors)


def _restore_optimizers(optimizers: list[Optimizer], tensors: dict[str, Tensor]) -> None:
    """Rates and decay come from the recipe and the schedule; only what the optimizer has gathered is read back."""
    params = [[p for group in optimizer.param_groups for p in group["params"]] for optimizer in optimizers]
    states: list[dict[int, dict[str, Tensor]]] = [{} for _ in optimizers]
    for key, tensor in tensors.items():
        number, index, name = key.split(".", 2)
        param = params[int(number)][int(index)]
        if tensor.shape == param.shape:  # a fused optimizer takes it for granted that the strides are equal, too
            tensor = torch.empty_like(param).copy_(tensor)
        states[int(number)].setdefault(int(index), {})[name] = tensor
    for optimizer, state in zip(optimizers, states, strict=True):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _flush(path: Path) -> None:
    with path.open("r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())
