"""What every way to a pretrained model has in common: its answer, the record of the weights, and plain errors."""

from __future__ import annotations

import contextlib
import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from patchlight.errors import PatchlightError, UsageError

# Of a repository on the hub; which of them are read depends on the library.
HUB_FILES = ("config.json", "model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")


@dataclass(frozen=True)
class Backbone:
    """A model for the task with the weights that it starts from."""

    model: nn.Module
    args: dict[str, Any]  # what builds it again, without weights
    mean: tuple[float, ...] | None = None  # of the pixels that the weights were made for, where they say it
    std: tuple[float, ...] | None = None
    note: str = ""  # what was changed of it, in a line
    source: dict[str, Any] | None = None  # where the weights come from, for the record
    name: str | None = None  # the model's own, where it is not the recipe's


def does_not_apply(field: str, name: str) -> UsageError:
    return UsageError(f"model.{field} does not apply to {name}; remove it or choose another model.name")


def no_revision(name: str) -> UsageError:
    return UsageError(f"model.revision is of weights on a hub, and {name} has none; leave it out")


def resampled(old: Any, new: Any, old_patch: Any, new_patch: Any) -> str:
    """What was resampled, in a line; empty where nothing was."""
    changes = []
    if old and new and tuple(old) != tuple(new):
        changes.append(f"positions resampled from {old[0]}x{old[1]} to {new[0]}x{new[1]} patches")
    if old_patch != new_patch:
        changes.append(f"patch kernels from {old_patch} to {new_patch} pixels a side")
    return ", ".join(changes)


def commit_of(repository: str | None, revision: str | None) -> dict[str, Any]:
    """The commit of a repository of the hub that was read, as its cache knows it."""
    if not repository or Path(repository).exists():
        return {}
    from huggingface_hub import try_to_load_from_cache

    name, asked = repository.partition("@")[0], revision or "main"
    found = (try_to_load_from_cache(name, file, revision=asked) for file in HUB_FILES)
    commits = [Path(path).parent.name for path in found if isinstance(path, str)]
    return {"revision": revision, "commit": commits[0] if commits else None}


def read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PatchlightError(f"no {path}; give a folder with a model's config.json") from None
    except (OSError, ValueError) as error:
        raise PatchlightError(f"{path} cannot be read as JSON: {first_line(error)}") from None
    if not isinstance(found, dict):
        raise PatchlightError(f"{path} is no model's config: it holds no object")
    return found


@contextlib.contextmanager
def told_plainly(name: str) -> Iterator[None]:
    """What the libraries raise, as one sentence that names the model."""
    try:
        yield
    except PatchlightError:
        raise
    except Exception as error:
        told = _of_the_hub(name, error)
        if told is None and isinstance(error, (SafetensorError, pickle.UnpicklingError)):
            told = f"the weights of {name} are damaged or no safetensors: {first_line(error)}"
        if told is None and "loading state_dict" in first_line(error):
            told = f"the weights of {name} do not fit its config.json: {first_line(error, 1)}"
        if told is None and isinstance(error, (OSError, RuntimeError, ValueError, KeyError, TypeError, AssertionError)):
            told = f"cannot load {name}: {first_line(error)}"
        if told is None:
            raise
        raise PatchlightError(told) from None


def _of_the_hub(name: str, error: BaseException | None) -> str | None:
    """What the hub said, if that is what an error comes from."""
    from huggingface_hub import errors

    answers: tuple[tuple[type[Exception], str], ...] = (
        (errors.LocalEntryNotFoundError, f"{name} is not in the hub's cache, and the hub cannot be reached"),
        (errors.EntryNotFoundError, f"{name} on the hub lacks a file of a model: {error and first_line(error, -1)}"),
        (errors.RevisionNotFoundError, f"{name} on the hub has no such model.revision; take a branch, tag or commit"),
        (errors.GatedRepoError, f"{name} is open to some alone; ask on its page on the hub, then `hf auth login`"),
        (
            errors.RepositoryNotFoundError,
            f"the hub has no {name}, or it is private; check the name, or `hf auth login`",
        ),
        (errors.HTTPError, f"cannot load {name}, for the hub cannot be reached: {error and first_line(error)}"),
    )
    while error is not None:
        for kind, told in answers:
            if isinstance(error, kind):
                return told
        error = error.__cause__ or error.__context__
    return None


def is_network_error(error: Exception) -> bool:
    """What the hub's library lets through of the library below it: a connection refused, cut off or too slow."""
    from huggingface_hub import errors

    return isinstance(error, errors.HTTPError)


def first_line(error: BaseException, place: int = 0) -> str:
    """Of what an error says; another with `place`."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[place] if lines else type(error).__name__
