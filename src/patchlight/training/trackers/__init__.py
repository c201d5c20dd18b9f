"""Trackers: programs of others that keep and draw the numbers of many runs (`train.track`).

A tracker is a file with a class, which is a `Tracker`, and its row here; nothing of it is loaded before it is asked
for. `metrics.jsonl` is the truth: what a tracker lacks of it is sent, what it has is not sent again.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence

from patchlight.errors import LibraryMissing, UsageError
from patchlight.training.trackers.tracker import Tracker

# `train.track`: "module:class" of each. The extra of the package that installs its client has the same name.
TRACKERS = {
    "tensorboard": "patchlight.training.trackers.tensorboard:TensorBoard",
    "wandb": "patchlight.training.trackers.wandb:WeightsAndBiases",
    "mlflow": "patchlight.training.trackers.mlflow:MLflow",
}

# The clients report to their makers how they are used, from the moment that they are imported. Nobody asked for that
# with `train.track`, so it is off where the user's environment does not say otherwise.
NO_REPORTS = {"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def tracker_class(name: str) -> type[Tracker]:
    """The class of a row of TRACKERS. Raises LibraryMissing, which says what to install, where its client is not."""
    module, _, kind = TRACKERS[name].partition(":")
    for variable, value in NO_REPORTS.items():
        os.environ.setdefault(variable, value)
    try:
        found: type[Tracker] = getattr(importlib.import_module(module), kind)
    except ModuleNotFoundError as error:
        library = (error.name or name).partition(".")[0]
        raise LibraryMissing(
            f"train.track: {library} is not installed; pip install 'patchlight[{name}]', or leave {name} out"
        ) from None
    return found


def check_trackers(names: Sequence[str], project: str | None = None) -> None:
    """Raises LibraryMissing for a tracker of `names` whose client is not installed, and UsageError for a project, given
    or of the client's environment variable, that cannot be the name of one there.
    """
    if project is not None and not project.strip():
        raise UsageError("train.track_project is empty; name a project, or leave it out")
    for name in names:
        tracker_class(name).check_project(project)
