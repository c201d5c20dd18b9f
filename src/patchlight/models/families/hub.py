"""The Hugging Face hub: which commit was read, and what it or a library says of a model, in one sentence.

No code of a repository is run; weights are read as safetensors or, where there are none, without pickled objects.
"""

from __future__ import annotations

import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from patchlight.errors import PatchlightError
from patchlight.models.bounds import shown

# Of a repository on the hub; which of them are read depends on the library.
HUB_FILES = ("config.json", "model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")
# What timm, transformers and torch raise for a model that is missing, damaged, or not what its config.json says.
LIBRARY_ERRORS = (
    OSError,
    RuntimeError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    AssertionError,
    SafetensorError,
    pickle.UnpicklingError,
)


def commit_of(repository: str | None, revision: str | None) -> str | None:
    """The commit of a repository of the hub that was read, as its cache knows it; None of a folder."""
    if not repository or Path(repository).exists():
        return None
    from huggingface_hub import try_to_load_from_cache

    name = repository.partition("@")[0]
    paths = (try_to_load_from_cache(name, file, revision=revision or "main") for file in HUB_FILES)
    return next((Path(path).parent.name for path in paths if isinstance(path, str)), None)


@contextlib.contextmanager
def plain_errors(name: str) -> Iterator[None]:
    """Inside, what a library raises becomes a PatchlightError of one sentence that names the model.

    Only calls of a library belong inside: an error of our own code would be told as the model's.
    """
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except PatchlightError:
        raise
    except (*LIBRARY_ERRORS, HTTPError) as error:
        message = _of_the_hub(name, error)
        if message is None and isinstance(error, (SafetensorError, pickle.UnpicklingError)):
            message = f"the weights of {name} are damaged or no safetensors: {first_line(error)}"
        if message is None and "loading state_dict" in first_line(error):
            message = f"the weights of {name} do not fit its config.json: {first_line(error, 1)}"
        raise PatchlightError(message or f"cannot load {name}: {first_line(error)}") from None


@contextlib.contextmanager
def of_a_description(name: str) -> Iterator[None]:
    """Inside, whatever a library raises of a stranger's description becomes a PatchlightError that names the model."""
    try:
        yield
    except PatchlightError:
        raise
    except Exception as error:
        reason = " ".join(first_line(error, place) for place in range(min(2, len(str(error).splitlines()) or 1)))
        raise PatchlightError(f"{name} describes no model that can be built: {shown(reason, 300)}") from None


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
        for kind, message in answers:
            if isinstance(error, kind):
                return message
        error = error.__cause__ or error.__context__
    return None


def first_line(error: BaseException, place: int = 0) -> str:
    """Of what an error says; another line with `place`."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[place] if lines else type(error).__name__
