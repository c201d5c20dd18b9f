"""What makes two runs the same: their settings, their images and labels, and the version of Patchlight."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import patchlight
from patchlight.config import Config
from patchlight.models.reference import folder_of
from patchlight.runs.settings import TELLING, only_saves

# Sections and settings that change nothing of what is trained, or no more than its last digits. The images are known by
# their digests, wherever they come from.
APART = ("about.", "eval.", "explain.")
NOT_TRAINED = (
    *("data.source", "data.memory_limit_mb", "train.device", "train.threads", "train.checkpoint_every"),
    *TELLING,
)
NOW = ("eval.test", "data.source", "train.track_name")  # they count as they are now, not as a run was begun with
KEY_SIGNS = 16  # hexadecimal ones: 64 bits


def run_key(config: Config, digests: Mapping[str, str]) -> str:
    """The name of a run: equal for equal settings, data and version, whatever the machine.

    `digests` are those of the image sets by split, as in `environment.json`. Of weights that a recipe names by a
    folder their bytes count.
    """
    settings, weights = known_by(config)
    whole = {"settings": settings, "weights": weights, "data": dict(digests), "patchlight": patchlight.__version__}
    text = json.dumps(whole, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_SIGNS]


def known_by(config: Config) -> tuple[dict[str, Any], dict[str, str]]:
    """What a recipe is known by beside its images: the settings that count, and by field the digests of weights that
    are in folders, whose names are "" among the settings.
    """
    settings = {key: value for key, value in config.flat().items() if counts(key)}
    named = {"model.name": config.model.name, "train.teacher": config.train.teacher}
    weights = {field: _weights(folder) for field, name in named.items() if name and (folder := folder_of(name))}
    return settings | dict.fromkeys(weights, ""), weights  # a folder's name is none of the weights'


def as_begun(planned: Config, begun: Config) -> dict[str, Any]:
    """The settings that do not count and that a run was begun with in another way than planned, as train.threads: it
    goes on with its own, but for those of NOW.
    """
    before, now = begun.flat(), planned.flat()
    own = {key: before.get(key) for key in sorted({*before, *now}) if not (counts(key) or key.startswith("about."))}
    return {key: value for key, value in own.items() if value != now.get(key) and key not in NOW}


def counts(key: str) -> bool:
    """Whether a setting is part of what a run is known by."""
    return not key.startswith(APART) and key not in NOT_TRAINED and not only_saves(key)


def _weights(folder: Path) -> str:
    """A digest of the weights and descriptions in a folder, or in the `model` folder of a run."""
    place = folder / "model" if (folder / "model").is_dir() else folder
    files = [place] if place.is_file() else sorted(path for path in place.iterdir() if path.is_file())
    stamps = tuple((str(path.resolve()), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    return _digest(stamps)


@functools.cache
def _digest(stamps: tuple[tuple[str, int, int], ...]) -> str:
    state = hashlib.sha256()
    for name, _, _ in stamps:
        state.update(Path(name).name.encode())
        with Path(name).open("rb") as file:
            state.update(hashlib.file_digest(file, "sha256").digest())
    return state.hexdigest()
