"""MLflow: a run in the store of $MLFLOW_TRACKING_URI, else in `mlruns` beside the run folder, which all runs there
share: to compare them is what people open MLflow for.

MLflow has no way to take back a number. A run that goes on finds by the history of the numbers themselves what is
there. Only what `train.track` promises is sent: MlflowClient adds neither the user's name nor the commit nor the
command, as `mlflow.start_run` does.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from patchlight.errors import PatchlightError
from patchlight.training.trackers.tracker import MARK, PROJECT, End, Scalars, Subject, Tracker

MOST_PARAMS = 100  # of one request, by MLflow's own limit
STATES: dict[End, str] = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}


class MLflow(Tracker):
    """A run of an MLflow experiment."""

    # Not MlflowException alone: its file store raises a bare Exception where its folder is away.
    errors = (Exception,)

    def __init__(self, subject: Subject) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI") or _own_store(subject)
        self._client = MlflowClient(tracking_uri=uri)
        experiment = subject.project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        if subject.id:
            self.id = subject.id
        else:
            with _alone(uri):
                self.id = self._new_run(experiment, _run_name(subject))
        there = self._client.get_run(self.id)
        if there.info.lifecycle_stage != "active":
            raise PatchlightError(f"its run {self.id} was deleted; restore it there (`mlflow runs restore`)")
        if there.info.status != "RUNNING":
            self._client.update_run(self.id, status="RUNNING")
        new = [Param(key, str(value)) for key, value in subject.settings.items() if key not in there.data.params]
        for first in range(0, len(new), MOST_PARAMS):
            self._client.log_batch(self.id, params=new[first : first + MOST_PARAMS])
        self.place = uri
        self.words = f"run {self.id} of experiment {experiment} in {uri}"
        if _is_folder(uri):
            self.words += f"; `MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {shlex.quote(uri)}` shows it"

    def _new_run(self, experiment: str, name: str) -> str:
        found = self._client.get_experiment_by_name(experiment)
        if found is not None and found.lifecycle_stage != "active":
            raise PatchlightError(f"its experiment {experiment} was deleted; restore it, or set train.track_project")
        number = self._new_experiment(experiment) if found is None else found.experiment_id
        return str(self._client.create_run(number, run_name=name).info.run_id)

    def _new_experiment(self, name: str) -> str:
        """Make an experiment, or take the one that another process has made in the meantime."""
        try:
            return str(self._client.create_experiment(name))
        except MlflowException:
            if (found := self._client.get_experiment_by_name(name)) is None:
                raise
            return str(found.experiment_id)

    def last_step(self) -> int:
        return max((point.step for point in self._client.get_metric_history(self.id, MARK)), default=0)

    def log(self, step: int, scalars: Scalars) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(self.id, metrics=[Metric(key, value, now, step) for key, value in scalars.items()])

    def conclude(self, step: int, result: Scalars, figures: list[Path], report: Path) -> None:
        there = self._client.get_run(self.id).data.metrics
        self.log(step, {key: value for key, value in result.items() if key not in there})
        for path in figures:
            self._client.log_artifact(self.id, str(path), "figures")
        self._client.log_artifact(self.id, str(report))

    def close(self, end: End) -> None:
        self._client.set_terminated(self.id, STATES[end])


def _is_folder(uri: str) -> bool:
    """Whether a store is a folder, by its path."""
    return "://" not in uri and not uri.startswith("databricks")


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Inside, no other run of Patchlight makes something in the store, if it is a folder: MLflow's store of files has
    no lock, and of two processes that begin in it at a time each would make an experiment of one and the same name.
    """
    with contextlib.ExitStack() as held:
        if _is_folder(uri):
            store = Path(uri).resolve()
            with contextlib.suppress(OSError, NotImplementedError):  # a file system without locks, or no folder there
                held.enter_context(FileLock(store.with_name(f".{store.name}.lock")))
        yield


def _run_name(subject: Subject) -> str:
    return subject.named or os.environ.get("MLFLOW_RUN_NAME") or subject.folder_name


def _own_store(subject: Subject) -> str:
    """The folder beside the run folder. MLflow keeps files on only where it is told to."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    return str(subject.run.path.resolve().parent / "mlruns")
