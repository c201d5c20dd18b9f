"""A model on disk: its weights, and the card that says how to build it and what to feed it."""

from __future__ import annotations

import contextlib
import errno
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
from patchlight.progress import say
from patchlight.runs.checkpoints import Checkpoint, find_checkpoint
from patchlight.runs.codec import read_json
from patchlight.runs.manifest import MANIFEST, Manifest, Seal, add_to_manifest
from patchlight.runs.writing import whole_folder

CARD, MODEL = "config.json", "model.safetensors"


def save_model(folder: Path, model: nn.Module, card: ModelCard) -> None:
    """Put a folder of what `write_model` writes in the place of `folder`, in one step."""
    with whole_folder(folder) as part:
        write_model(part, model, card)


def write_model(folder: Path, model: nn.Module, card: ModelCard) -> None:
    """Write `config.json`, `model.safetensors`, adapters merged, and their manifest into `folder`."""
    model = merged(model)
    (folder / CARD).write_text(json.dumps(card.to_json(), indent=1), encoding="utf-8")
    save_tensors({k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}, folder / MODEL)
    add_to_manifest(folder, [(name, Seal.of(folder / name)) for name in (CARD, MODEL)])


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """A safetensors file. Raises OSError where it cannot be written, on a full disk for example."""
    with system_errors(path):
        save_file(tensors, path)
    path.chmod(0o644)  # the library's are for their owner alone


@contextlib.contextmanager
def system_errors(path: Path) -> Iterator[None]:
    """What a call of safetensors raises in place of an OSError, as that, of `path`."""
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        code = int(number[1]) if number else errno.EIO
        raise OSError(code, os.strerror(code) if number else str(error), str(path)) from None


def copy_model(source: Path, folder: Path) -> None:
    """Put a copy of what `write_model` wrote into `source` in the place of `folder`, in one step."""
    with whole_folder(folder) as part:
        for name in (CARD, MODEL):
            shutil.copyfile(source / name, part / name)
        add_to_manifest(part, [(name, Seal.of(part / name)) for name in (CARD, MODEL)])


def check_unchanged(folder: Path, name: str) -> None:
    """Raises PatchlightError where a file of a saved model is not what was written, by the manifest beside it.

    Models of earlier versions have none; that nothing is known of their files is said.
    """
    manifest = Manifest.read(folder)
    if not manifest.exists and name == MODEL and (folder / name).is_file():
        say(f"{folder} has no {MANIFEST}, as of an earlier version or a copy without it: damage would not be noticed")
    try:
        wrong = manifest.damage(name)
    except FileNotFoundError:
        return  # whoever reads it will say so
    if wrong is not None:
        raise PatchlightError(
            f"{folder / name} is damaged: {wrong}; restore it from a copy, or take another checkpoint of the run"
        )


def load_model(folder: Path | str, device: str | torch.device = "cpu") -> tuple[nn.Module, ModelCard]:
    """The model of a run folder, of its `model/` folder or of one of its checkpoints, in evaluation mode, and its card.

    Raises PatchlightError, naming the file, where one is missing, damaged or does not fit the architecture.
    """
    checkpoint = find_checkpoint(folder)
    folder = model_folder(Path(folder))
    if checkpoint is not None and not (folder / "config.json").is_file():
        return _load_old_checkpoint(checkpoint, device)
    card, weights = read_card(folder / CARD), folder / MODEL
    check_unchanged(folder, MODEL)
    model = build_described(card, folder / CARD, weights)
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
    check_unchanged(path.parent, path.name)
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
