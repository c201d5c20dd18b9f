"""Checkpoints: `checkpoints/epoch-NNN/`, complete or absent, without pickle. A checkpoint is itself a saved model.

config.json            the card of the stage's model
model.safetensors      what the checkpoint means as a model, and what validation measured: the moving average where one
                       is kept, adapters merged, of a masked autoencoder the encoder
training.safetensors   the weights in training, where they are others than those
ema.safetensors        the moving average as training goes on with it, where one is kept
optimizer.safetensors  every tensor of every optimizer's state, as "optimizer.parameter.name"
state.json             a TrainState: epoch, step, progress, best result, clocks, loss scale

Those of version 0.2.0 and before (`step-NNNNNNNN`) have no card; their model.safetensors is the weights in training.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from patchlight.errors import PatchlightError
from patchlight.models import ModelCard, save_model
from patchlight.models.lora import has_lora
from patchlight.models.mae import MaskedAutoencoder
from patchlight.models.saved import copy_model, read_card, save_tensors
from patchlight.runs import Run
from patchlight.runs.checkpoints import FOLDER, checkpoint_name, checkpoints_in
from patchlight.runs.codec import RecordError, from_json, to_json
from patchlight.training.stage import Stage
from patchlight.training.state import LossScale, TrainState

CARD, MODEL, TRAINING = "config.json", "model.safetensors", "training.safetensors"


def save(run: Run, stage: Stage, state: TrainState) -> None:
    """Write the checkpoint from which training can go on; of the older ones the best and every n-th stay."""
    if stage.scaler.is_enabled():
        state.scaler = from_json(LossScale, stage.scaler.state_dict())
    folder = run.path / FOLDER
    path = save_checkpoint(folder, state, stage.model, stage.average, stage.optimizers, stage.kept_model, stage.card)
    prune_checkpoints(folder, path, {*state.kept_steps, state.best_step} - {0})


def restore(path: Path, stage: Stage, run: Run) -> TrainState:
    """Put the stage, and the weights that the run keeps, back as they were when the checkpoint was saved.

    Raises as `load_checkpoint` does.
    """
    state = load_checkpoint(path, stage.model, stage.average, stage.optimizers)
    if state.scaler is not None:
        stage.scaler.load_state_dict(to_json(state.scaler))
    if stage.config.train.select != "last":
        _restore_kept(run, state.best_step)
    return state


def _restore_kept(run: Run, best_step: int) -> None:
    """The best epoch's weights as those that the run keeps: a training that was killed between keeping weights and
    saving its checkpoint left those of an epoch that is done again.
    """
    for path in list_checkpoints(run.path / FOLDER):
        with contextlib.suppress(PatchlightError):  # of one that cannot be read
            state = read_state(path)
            if best_step and state.at_end and state.steps_done == best_step and (path / CARD).is_file():
                copy_model(path, run.path / "model")


def save_checkpoint(
    folder: Path,
    state: TrainState,
    model: nn.Module,
    average: nn.Module | None,
    optimizers: list[Optimizer],
    kept: nn.Module,
    card: ModelCard,
) -> Path:
    """Write a checkpoint into `folder`: under a temporary name, which is changed when it is whole.

    `kept` is what it means as a model, with its `card`: `model` itself or what validation measures in its place.
    """
    final = folder / checkpoint_name(state.epochs_done, state.steps_done, at_end=state.at_end)
    part = folder / f".{final.name}.part"
    _sweep(folder)  # before, for a disk that was full
    part.mkdir(parents=True)
    save_model(part, kept, card)
    if kept is not model or has_lora(model):
        save_tensors(_plain(model.state_dict()), part / TRAINING)
    if average is not None:
        save_tensors(_plain(average.state_dict()), part / "ema.safetensors")
    save_tensors(_optimizer_tensors(optimizers), part / "optimizer.safetensors")
    (part / "state.json").write_text(json.dumps(state.to_json()), encoding="utf-8")
    for path in part.iterdir():
        _flush(path)
    if final.exists():
        _hide(final)
    part.replace(final)
    _sweep(folder)
    return final


def card_so_far(run: Run) -> ModelCard | None:
    """Of the newest weights of a run that was started; None where there are none."""
    places = [*reversed(list_checkpoints(run.path / FOLDER)), run.path / "model"]
    return next((read_card(place / CARD) for place in places if (place / CARD).is_file()), None)


def list_checkpoints(folder: Path) -> list[Path]:
    """The whole ones, oldest first."""
    return [checkpoint.path for checkpoint in checkpoints_in(folder)]


def read_state(path: Path) -> TrainState:
    """Where training stood at a checkpoint. Raises PatchlightError where that cannot be read."""
    try:
        data = json.loads((path / "state.json").read_text(encoding="utf-8"))
        return TrainState.from_json(data, steps=_steps_in_name(path))
    except RecordError as error:
        raise PatchlightError(_unreadable(path, f"state.json: {error}")) from None
    except (OSError, ValueError) as error:
        raise PatchlightError(_unreadable(path, _reason(error))) from None


def load_checkpoint(path: Path, model: nn.Module, average: nn.Module | None, optimizers: list[Optimizer]) -> TrainState:
    """Put the tensors back as `save_checkpoint` found them and return the state.

    Raises PatchlightError, naming the folder, where a file is missing, damaged or of another model.
    """
    state = read_state(path)
    try:
        model.load_state_dict(load_file(path / _training_file(path, model, average)))
        if average is not None:
            average.load_state_dict(load_file(path / "ema.safetensors"))
        _restore_optimizers(optimizers, load_file(path / "optimizer.safetensors"))
    except (OSError, SafetensorError, RuntimeError, LookupError, ValueError) as error:
        raise PatchlightError(_unreadable(path, _reason(error))) from None
    return state


def _unreadable(path: Path, reason: str) -> str:
    return f"{path} cannot be resumed from ({reason}); delete it and resume from what is left"


def _reason(error: Exception) -> str:
    """What a library's error says, in one line."""
    return str(error).splitlines()[-1].strip() if str(error) else type(error).__name__


def _training_file(path: Path, model: nn.Module, average: nn.Module | None) -> str:
    """Which file has the weights in training. Raises LookupError where the checkpoint lacks it."""
    if not (path / CARD).is_file():  # of an earlier version
        return MODEL
    apart = average is not None or has_lora(model) or isinstance(model, MaskedAutoencoder)
    if apart and not (path / TRAINING).is_file():
        raise LookupError(f"{TRAINING} is missing")
    return TRAINING if apart else MODEL


def _steps_in_name(path: Path) -> int | None:
    """Of all stages, where the name says it."""
    _, _, steps = path.name.rpartition("step-")
    return int(steps) if steps.isdecimal() else None


def prune_checkpoints(folder: Path, keep: Path, steps_to_keep: set[int]) -> None:
    """Delete all but `keep` and those of an epoch's end after as many steps as one of `steps_to_keep`; one that cannot
    be read stays.
    """
    for path in list_checkpoints(folder):
        if path == keep:
            continue
        with contextlib.suppress(PatchlightError):
            state = read_state(path)
            if not state.at_end or state.steps_done not in steps_to_keep:
                _hide(path)
    _sweep(folder)


def _hide(path: Path) -> None:
    """Take a whole folder out of sight in one step, so that none is ever seen half deleted."""
    hidden = path.with_name(f".{path.name}.old")
    shutil.rmtree(hidden, ignore_errors=True)
    path.replace(hidden)


def _sweep(folder: Path) -> None:
    """Delete what is out of sight, and what a training that was killed left half written."""
    for pattern in (".*.old", ".*.part"):
        for hidden in folder.glob(pattern):
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
