"""A model on disk: its weights, and the card that says how to build it and what to feed it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from patchlight.errors import LibraryMissing, PatchlightError
from patchlight.models.bounds import check_size, weigh
from patchlight.models.card import ModelCard
from patchlight.models.described import build_described
from patchlight.models.families import FAMILIES, build_model
from patchlight.models.lora import merged
from patchlight.models.reference import model_folder
from patchlight.runs.checkpoints import Checkpoint, find_checkpoint
from patchlight.runs.codec import read_json


def save_model(folder: Path, model: nn.Module, card: ModelCard) -> None:
    """Write `model.safetensors` and `config.json` into `folder`, each in one step, weights last; adapters merged."""
    folder.mkdir(parents=True, exist_ok=True)
    model = merged(model)
    part = folder / ".config.json.part"
    part.write_text(json.dumps(card.to_json(), indent=1), encoding="utf-8")
    part.replace(folder / "config.json")
    part = folder / ".model.safetensors.part"
    save_tensors({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, part)
    part.replace(folder / "model.safetensors")


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """A safetensors file. Raises OSError where it cannot be written, on a full disk for example."""
    with system_errors(path):
        save_file(tensors, path)


@contextlib.contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """What a call of safetensors raises in place of an OSError, as that, of `path`."""
    try:
        yield
    except SafetensorError as error:
        if (number := re.search(r"os error (\d+)", str(error))) is None:
            raise
        code = int(number[1])
        raise OSError(code, os.strerror(code), str(path)) from None


def copy_model(source: Path, folder: Path) -> None:
    """What `save_model` wrote into `source`, in the same steps."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        part = folder / f".{name}.part"
        shutil.copyfile(source / name, part)
        part.replace(folder / name)


def load_model(folder: Path | str, device: str | torch.device = "cpu") -> tuple[nn.Module, ModelCard]:
    """The model of a run folder, of its `model/` folder or of one of its checkpoints, in evaluation mode, and its card.

    Raises PatchlightError, naming the file, where one is missing, damaged or does not fit the architecture.
    """
    checkpoint = find_checkpoint(folder)
    folder = model_folder(Path(folder))
    if checkpoint is not None and not (folder / "config.json").is_file():
        return _load_old_checkpoint(checkpoint, device)
    card = read_card(folder / "config.json")
    weights = folder / "model.safetensors"
    model = build_described(card, folder / "config.json", weights)
    try:
        model.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise PatchlightError(f"{weights} is damaged or not of {card.name}: {reason}") from None
    return model.to(device).eval(), card


def _load_old_checkpoint(checkpoint: Checkpoint, device: str | torch.device) -> tuple[nn.Module, ModelCard]:
    """The model of a checkpoint that an earlier version saved without a card, by the card of the run's kept weights.

    Raises PatchlightError where that is not surely its card: with stages of several image sizes, adapters, or masked
    autoencoding.
    """
    run, path = checkpoint.run, checkpoint.path
    sizes = {stage.model.img_size for stage in run.config().of_stages()}
    card = read_card(run.path / "model" / "config.json")
    place = str(run.path / "model" / "config.json")
    check_size(weigh(lambda: build_model(card.spec), card.img_size, place), path, place)
    model = build_model(card.spec)
    weights = path / ("ema.safetensors" if checkpoint.is_averaged else "model.safetensors")
    try:
        state = load_file(weights)
        state.pop("n_averaged", None)
        fits = len(sizes) == 1 and {key.removeprefix("module.") for key in state} == model.state_dict().keys()
        if fits:
            model.load_state_dict({key.removeprefix("module."): tensor for key, tensor in state.items()})
    except (OSError, SafetensorError, RuntimeError) as error:
        raise PatchlightError(f"{weights} is damaged or missing: {str(error).splitlines()[-1].strip()}") from None
    if not fits:
        raise PatchlightError(
            f"{path} is of an earlier version, which did not record what its weights are a model of, and the run's "
            f"model/config.json does not tell it; take {run.path} itself, or resume the run and take a new checkpoint"
        )
    return model.to(device).eval(), card


def load_classifier(folder: Path | str, device: str | torch.device = "cpu") -> tuple[nn.Module, ModelCard]:
    """As `load_model`; raises PatchlightError, too, for a model that learned without labels."""
    model, card = load_model(folder, device)
    if not card.class_names:
        raise PatchlightError(
            f"{folder} learned without labels and knows no classes; train on from it with "
            f"`patchlight train finetune --model.name {folder}`"
        )
    return model, card


def card_of(folder: Path | str) -> ModelCard:
    """The card alone of what `load_model` loads. Raises PatchlightError where it is missing, damaged or unknown."""
    checkpoint, place = find_checkpoint(folder), model_folder(Path(folder))
    if checkpoint is not None and not (place / "config.json").is_file():  # of an earlier version
        place = checkpoint.run.path / "model"
    return read_card(place / "config.json")


def read_card(path: Path) -> ModelCard:
    """The card of a saved model. Raises PatchlightError, naming the file, where it is missing, damaged or unknown."""
    try:
        card = ModelCard.from_json(read_json(path))
        FAMILIES[card.spec.family].check_spec(card.spec)
    except FileNotFoundError:
        raise PatchlightError(f"no {path}; give the folder of a finished run") from None
    except OSError as error:
        raise PatchlightError(f"cannot read {path}: {error.strerror}; check its permissions") from None
    except LibraryMissing:
        raise
    except KeyError as error:
        raise PatchlightError(f"{path} is not a model's config: {error} is missing") from None
    except (ValueError, TypeError, AttributeError) as error:
        raise PatchlightError(f"{path} is not a model's config: {error}") from None
    return card
