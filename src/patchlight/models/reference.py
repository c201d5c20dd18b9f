"""What a model's name means. It is understood here and nowhere else, and never guessed at:

a row of MODELS              a new model of Patchlight
timm/NAME or timm/NAME.TAG   timm's registry; the weights come from the hub
hf-hub:OWNER/NAME            a model on the hub in timm's format
local-dir:FOLDER             a folder in that format
OWNER/NAME                   a model on the hub in Hugging Face's format
FOLDER                       a run, or a saved model of Patchlight, timm or Hugging Face, told apart by its config.json
RUN/checkpoints/epoch-050    a checkpoint of a run; RUN/checkpoints/last is the newest
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from patchlight.errors import PatchlightError, UsageError, did_you_mean
from patchlight.machine.process import import_library
from patchlight.models.card import FORMAT
from patchlight.models.registry import MODELS
from patchlight.runs import codec
from patchlight.runs.checkpoints import FOLDER, LAST, find_checkpoint


@dataclass(frozen=True)
class NewModel:
    """A row of MODELS, with weights that are drawn."""

    name: str


@dataclass(frozen=True)
class SavedModel:
    """A run, or a model that Patchlight saved."""

    name: str  # as it was given
    folder: Path  # of the weights and the card


@dataclass(frozen=True)
class TimmModel:
    """A model of timm: in its registry, on the hub or in a folder."""

    name: str  # as it was given
    place: Literal["registry", "hub", "folder"]
    id: str  # NAME or NAME.TAG, OWNER/NAME or OWNER/NAME@REVISION, or the folder


@dataclass(frozen=True)
class HuggingFaceModel:
    """A model in Hugging Face's format, on the hub or in a folder."""

    name: str


Reference = NewModel | SavedModel | TimmModel | HuggingFaceModel


def understand(name: str) -> Reference:
    """What `name` refers to.

    Raises UsageError where it is no model's or no checkpoint's, PatchlightError for a damaged config.json.
    """
    if name in MODELS:
        return NewModel(name)
    if (checkpoint := find_checkpoint(name)) is not None:
        return SavedModel(name, checkpoint.path)
    if (saved := saved_model(name)) is not None:
        return saved
    for prefix, place in PREFIXES.items():
        if name.startswith(prefix):
            return TimmModel(name, place, name.removeprefix(prefix))
    if (Path(name) / "config.json").is_file():
        config = read_json(Path(name) / "config.json")
        if "architecture" in config:
            return TimmModel(name, "folder", name)
        if "model_type" in config:
            return HuggingFaceModel(name)
    if Path(name).is_dir():
        raise UsageError(f"{name} has no config.json of a model of Patchlight, timm or Hugging Face")
    _check_beside(name)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        return HuggingFaceModel(name)
    if _is_in_timm(name):
        raise UsageError(f"no model '{name}' of Patchlight, but timm has it: timm/{name}")
    raise UsageError(
        f"no model '{name}'; {did_you_mean(name, MODELS)} Pretrained ones are timm/NAME, OWNER/NAME "
        "on the Hugging Face hub, or a folder"
    )


PREFIXES: dict[str, Literal["registry", "hub", "folder"]] = {
    "timm/": "registry",
    "hf-hub:": "hub",
    "local-dir:": "folder",
}


def saved_model(name: str | Path) -> SavedModel | None:
    """The run or saved model in this folder; None where Patchlight saved none there."""
    folder = model_folder(Path(name))
    try:
        config: Any = codec.read_json(folder / "config.json")
        return SavedModel(str(name), folder) if config["format"] == FORMAT else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def model_folder(folder: Path) -> Path:
    """Of a run its `model/`, else the folder itself; of `last` the newest checkpoint.

    Raises UsageError where a run has no such checkpoint.
    """
    if (checkpoint := find_checkpoint(folder)) is not None:
        return checkpoint.path
    return folder / "model" if (folder / "model").is_dir() or (folder / "config.toml").is_file() else folder


def pinned(name: str) -> str:
    """A model's name with the newest checkpoint of now in place of the word `last`, so that it stays the same model.

    Raises UsageError where a run has no such checkpoint.
    """
    checkpoint = None if name in MODELS else find_checkpoint(name)
    return name if checkpoint is None else str(checkpoint.path)


def is_same_or_last(name: str, before: str) -> bool:
    """Whether `name` is the word `last` for a run of which `before` names a checkpoint, or simply the same."""
    return name == before or (Path(name).name == LAST and Path(name).parent == Path(before).parent)


def folder_of(name: str) -> Path | None:
    """The folder that a model's name refers to, if it is one."""
    place = Path(name.removeprefix("local-dir:"))
    return place if name not in MODELS and place.exists() else None


def public_name(name: str) -> str:
    """A model's name without the path of a folder, which says more of this machine than of the model."""
    folder = folder_of(name)
    if folder is not None and folder.parent.name == FOLDER:
        return f"{folder.parent.parent.name}/{folder.name}"
    return name if folder is None else folder.name


def read_json(path: Path) -> dict[str, Any]:
    """The object in a model's config.json. Raises PatchlightError, naming the file, where there is none."""
    try:
        config = codec.read_json(path)
    except FileNotFoundError:
        raise PatchlightError(f"no {path}; give a folder with a model's config.json") from None
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise PatchlightError(f"{path} cannot be read as JSON: {reason}") from None
    if not isinstance(config, dict):
        raise PatchlightError(f"{path} is no model's config: it holds no object")
    return config


def _check_beside(name: str) -> None:
    """Raises UsageError for a name in a folder of runs, where nothing has it: no repository of a hub is meant."""
    path = Path(name)
    if path.exists() or not path.parent.is_dir() or path.parent == Path():
        return
    beside = [
        str(path.parent / folder.name)
        for folder in path.parent.iterdir()
        if folder.name != FOLDER and saved_model(folder)
    ]
    if beside:
        raise UsageError(f"there is no run or model at {name}; {did_you_mean(name, beside)}")


def _is_in_timm(name: str) -> bool:
    """Whether a name that lacks its "timm/" is one of timm's, if timm is here to say so."""
    with contextlib.suppress(UsageError):
        return bool(import_library("timm").is_model(name.partition(".")[0]))
    return False
