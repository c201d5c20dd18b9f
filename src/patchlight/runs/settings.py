"""The settings of a run beside those of a recipe: what differs, and what earlier versions meant."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from patchlight.config import Config, load_recipe
from patchlight.errors import UsageError
from patchlight.paths import printable

# Settings that may be others when a run goes on: they change no more than the last digits.
RESOURCES = ("train.micro_batch_size", "model.grad_checkpointing", "eval.batch_size")

# Settings of what is told to whom: they change nothing of what is trained, and two runs do not differ by them.
TELLING = ("train.track", "train.track_project", "train.track_name")


def check_texts(settings: Mapping[str, object]) -> None:
    """Raises UsageError for a text that is no UTF-8, or not one line of signs that can be shown."""
    for field, text in settings.items():
        if not isinstance(text, str) or (shown := printable(text)) == text:
            continue
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UsageError(
                f"{field} is {shown}, of bytes that are no UTF-8, which no recipe and no file of weights can name; "
                "rename that file or folder"
            ) from None
        raise UsageError(
            f"{field} is {shown}, with a line break or another sign that cannot be shown on a line, for which \\n and "
            "the like stand here; write it without"
        )


def resources_changed(started: Config, config: Config) -> list[str]:
    """The settings of RESOURCES that a run goes on with in another way, in words."""
    changed = config_differences(started, config)
    return [f"{key} {word(new)}, not {word(old)}" for key, (old, new) in changed.items() if only_saves(key)]


def only_saves(key: str) -> bool:
    """Whether a setting, of the whole or of a stage, is one of RESOURCES."""
    return re.sub(r"^stages\.\d+\.", "", key) in RESOURCES


def config_differences(a: Config, b: Config) -> dict[str, tuple[Any, Any]]:
    """Settings that differ, `{"train.epochs": (10, 20)}`; the `about` section and TELLING do not count."""
    left, right = a.flat(), b.flat()
    return {
        key: (left.get(key), right.get(key))
        for key in sorted({*left, *right})
        if not key.startswith("about.") and key not in TELLING and left.get(key) != right.get(key)
    }


def word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def of_version_0_2(config: Config) -> Config:
    """What the recipe of a run of version 0.2.0 or before meant: with restarts a warm-up in the first cycle alone,
    with train.debug two epochs, whatever their number, and by grad-rollout the method that is scaled-rollout now.
    """
    if config.explain.method == "grad-rollout":
        config = load_recipe(config, {"explain.method": "scaled-rollout"})
    if any(stage.schedule.name == "cosine_restarts" for stage in config.of_stages()):
        config = load_recipe(config, {"schedule.restart_warmup": False})
    if config.train.debug:
        config = load_recipe(load_recipe(config, {"train.debug": False}), {"train.debug": True})
    return config
