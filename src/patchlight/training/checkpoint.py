"""Checkpoints: `checkpoints/epoch-NNN/`, complete or absent, without pickle. A checkpoint is itself a saved model.

config.json            the card of the stage's model
model.safetensors      what the checkpoint means as a model, and what validation measured: the moving average where one
                       is kept, adapters merged, of a masked autoencoder the encoder
training.safetensors   the weights in training, where they are others than those
ema.safetensors        the moving average as training goes on with it, where one is kept
optimizer.safetensors  every tensor of every optimizer's state, as "optimizer.parameter.name"
state.json             a TrainState: epoch, step, progress, best result, clocks, loss scale
run-*                  copies of the run's config.toml, environment.json and metrics.jsonl, should those be damaged
manifest.jsonl         size and SHA-256 of all these files

Those of version 0.2.0 and before (`step-NNNNNNNN`) have no card; their model.safetensors is the weights in training.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer

from patchlight.errors import PatchlightError, diverged
from patchlight.models import ModelCard
from patchlight.models.lora import has_lora
from patchlight.models.mae import MaskedAutoencoder
from patchlight.models.saved import CARD, MODEL, copy_model, read_card, save_tensors, write_model
from patchlight.progress import say
from patchlight.runs import Environment, Run
from patchlight.runs.checkpoints import FOLDER, checkpoint_name, checkpoints_in, is_checkpoint
from patchlight.runs.codec import RecordError, from_json, read_json, to_json
from patchlight.runs.folder import COPY, FILES, METRICS
from patchlight.runs.manifest import MANIFEST, Manifest, Seal, seal_folder
from patchlight.runs.overwrite import RECIPE
from patchlight.runs.writing import sweep, tidy, whole_folder
from patchlight.training.stage import Stage
from patchlight.training.state import LossScale, TrainState

TRAINING = "training.safetensors"
AVERAGE, OPTIMIZER, STATE = "ema.safetensors", "optimizer.safetensors", "state.json"
WEIGHTS = (MODEL, TRAINING, AVERAGE)
RECORDS = (RECIPE, FILES[Environment], METRICS)  # of the run, of which a checkpoint has copies


def save(run: Run, stage: Stage, state: TrainState) -> None:
    """Write the checkpoint from which training can go on. Of the older ones stay the one before it, the best and every
    n-th.

    Raises PatchlightError, and writes nothing, where weights are not finite.
    """
    if stage.scaler.is_enabled():
        state.scaler = from_json(LossScale, stage.scaler.state_dict())
    state.kept = _sha256_of_kept(run)
    path = save_checkpoint(
        run.path / FOLDER, state, stage.model, stage.average, stage.optimizers, stage.kept_model, stage.card
    )
    prune_checkpoints(path, state)


def restore(path: Path, stage: Stage, run: Run) -> TrainState:
    """Put the stage, and the weights that the run keeps, back as they were when the checkpoint was saved.

    Raises as `load_checkpoint` does.
    """
    state = load_checkpoint(path, stage.model, stage.average, stage.optimizers)
    if state.scaler is not None:
        stage.scaler.load_state_dict(to_json(state.scaler))
    restore_kept(run, state)
    return state


def restore_kept(run: Run, state: TrainState) -> None:
    """The weights that the run keeps, as they were when the checkpoint of this `state` was saved: a training that was
    killed between keeping weights and saving its checkpoint left those of an epoch that is done again, and they may be
    damaged or gone.

    Where they are nowhere any more, what `state` knows of the best epoch is forgotten, and that is said.
    """
    folder = run.path / "model"
    kept = state.kept
    if kept is None and (path := _of_best(run, state)) is not None:  # of an earlier version, which did not note it
        kept = Seal.of(path / MODEL).sha256
    if kept is None or (_is_sound(folder) and _sha256_of_kept(run) == kept):
        return
    for path in reversed(list_checkpoints(run.path / FOLDER)):
        if (path / CARD).is_file() and damage_of(path) is None and Seal.of(path / MODEL).sha256 == kept:
            copy_model(path, folder)
            return
    say(
        f"{folder}: the weights of the best epoch so far are lost, with it and with their checkpoint; from here on the "
        "best of the epochs to come are kept"
    )
    state.forget_best()


def _is_sound(folder: Path) -> bool:
    manifest = Manifest.read(folder)
    return manifest.exists and manifest.damage_of_all(lambda name: name in (CARD, MODEL)) is None


def _sha256_of_kept(run: Run) -> str | None:
    """Of the weights in the run's `model/`, by their manifest."""
    seals = Manifest.read(run.path / "model").seals.get(MODEL)
    return seals[-1].sha256 if seals else None


def _of_best(run: Run, state: TrainState) -> Path | None:
    """The checkpoint of the best epoch. Those of version 0.2.0 are not models, and the run's weights stay."""
    for path in list_checkpoints(run.path / FOLDER):
        with contextlib.suppress(PatchlightError):  # of one that cannot be read
            found = read_state(path)
            if state.best_step and found.at_end and found.steps_done == state.best_step and (path / CARD).is_file():
                return path
    return None


def save_checkpoint(
    folder: Path,
    state: TrainState,
    model: nn.Module,
    average: nn.Module | None,
    optimizers: list[Optimizer],
    kept: nn.Module,
    card: ModelCard,
) -> Path:
    """Write a checkpoint into `folder`, which is the run's: under a hidden name, until it is whole and on the disk.

    `kept` is what it means as a model, with its `card`: `model` itself or what validation measures in its place.
    """
    check_finite(model, average)
    final = folder / checkpoint_name(state.epochs_done, state.steps_done, at_end=state.at_end)
    folder.mkdir(exist_ok=True)
    sweep(folder, is_checkpoint)  # before, for a disk that was full
    with whole_folder(final) as part:
        write_model(part, kept, card)
        if kept is not model or has_lora(model):
            save_tensors(_plain(model.state_dict()), part / TRAINING)
        if average is not None:
            save_tensors(_plain(average.state_dict()), part / AVERAGE)
        save_tensors(_optimizer_tensors(optimizers), part / OPTIMIZER)
        (part / STATE).write_text(json.dumps(state.to_json()), encoding="utf-8")
        for name in RECORDS:
            if (folder.parent / name).is_file():
                shutil.copyfile(folder.parent / name, part / f"{COPY}{name}")
        seal_folder(part)
    return final


def check_finite(*modules: nn.Module | None) -> None:
    """Raises PatchlightError, naming the first, where a weight is not finite: nothing could go on from it."""
    for module in modules:
        for name, tensor in module.state_dict().items() if module is not None else ():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise PatchlightError(diverged(f"the weights '{name}' are no longer finite, and are not saved"))


def damage_of(path: Path) -> str | None:
    """What is wrong with a checkpoint: a file that is missing or is not what was written, a state that cannot be read,
    weights that are not finite; None where it is sound, as far as is known of one of an earlier version.
    """
    try:
        manifest = Manifest.read(path)
        if manifest.exists and (wrong := manifest.damage_of_all(is_of_checkpoint)) is not None:
            return wrong
        state = _read_state(path)
        if state.sealed and not manifest.exists:
            return f"{MANIFEST} is missing"
        for name in WEIGHTS:
            for key, tensor in load_file(path / name).items() if (path / name).is_file() else ():
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    return f"{name}: the weights '{key}' are not finite"
    except FileNotFoundError as error:
        return f"{Path(error.filename or path).name} is missing"
    except OSError as error:
        raise PatchlightError(
            f"cannot read {error.filename or path} ({error.strerror or error}); nothing was changed: repeat the "
            "command when it can be read"
        ) from None
    except RecordError as error:
        return f"state.json: {error}"
    except (SafetensorError, ValueError) as error:
        return _reason(error)
    return None


def is_of_checkpoint(name: str) -> bool:
    """Whether a file of this name in a checkpoint is read back. Others, as a note of somebody's, do not matter."""
    return name in (*WEIGHTS, CARD, OPTIMIZER, STATE) or name.startswith(COPY)


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
        return _read_state(path)
    except RecordError as error:
        raise PatchlightError(_unreadable(path, f"state.json: {error}")) from None
    except (OSError, ValueError) as error:
        raise PatchlightError(_unreadable(path, _reason(error))) from None


def _read_state(path: Path) -> TrainState:
    """Raises OSError where it cannot be read, RecordError where it is none."""
    return TrainState.from_json(read_json(path / STATE), steps=_steps_in_name(path))


def load_checkpoint(path: Path, model: nn.Module, average: nn.Module | None, optimizers: list[Optimizer]) -> TrainState:
    """Put the tensors back as `save_checkpoint` found them and return the state.

    Raises PatchlightError, naming the folder, where a file is missing, damaged or of another model.
    """
    state = read_state(path)
    try:
        model.load_state_dict(load_file(path / _training_file(path, model, average)))
        if average is not None:
            average.load_state_dict(load_file(path / AVERAGE))
        _restore_optimizers(optimizers, load_file(path / OPTIMIZER))
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


def prune_checkpoints(newest: Path, state: TrainState) -> None:
    """Delete all but the `newest`, of this `state`, the one before it, from which training goes on where the newest is
    damaged, and those that either says are to stay; one that cannot be read stays.
    """
    states: dict[Path, TrainState] = {}
    for path in list_checkpoints(newest.parent):
        with contextlib.suppress(PatchlightError):
            states[path] = read_state(path)
    older = [path for path in states if path != newest]
    before = states[older[-1]] if older else state
    to_keep = {*state.kept_steps, state.best_step, *before.kept_steps, before.best_step}
    for path in older[:-1]:
        if not states[path].at_end or states[path].steps_done not in to_keep:
            tidy(path)


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
