"""What a tracker is, and the numbers of a run's records under the names that all trackers get.

The step of a number is the count of optimizer steps so far; the epoch is a number of its own beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from patchlight.runs import Epoch, EvalResult, Metrics, ReconstructionResult, Run, ValidationResult
from patchlight.runs.records import Score
from patchlight.runs.settings import TELLING

Setting = str | bool | int | float
Scalars = dict[str, float]
End = Literal["finished", "failed", "stopped"]  # how a process ends with a run
MARK = "epoch"  # every epoch has this number, and it is sent last: at its steps a tracker has all of an epoch
PROJECT = "patchlight"  # of Weights & Biases, and the experiment of MLflow, where nobody names one


@dataclass(frozen=True)
class Subject:
    """What a tracker is told of a run when a process begins with it, or goes on with it."""

    run: Run
    project: str | None  # train.track_project
    named: str | None  # train.track_name
    settings: Mapping[str, Setting]  # as `settings_of`
    recipe: str  # the same as the text of config.toml
    id: str | None  # what an earlier process wrote down as the run's id in the tracker; None: the run is new there

    @property
    def folder_name(self) -> str:
        return self.run.path.resolve().name

    @property
    def folder(self) -> Path:
        """Where files of trackers go, in the run folder; in full, as clients may change the current folder."""
        return self.run.path.resolve() / "tracking"


class Tracker(ABC):
    """A run in a tracker. To build one begins the run there or, with the `id` of a subject, goes on with it.

    Every call leaves what it was given with the tracker, so that a process that is killed loses nothing that was said
    before. Each may raise `errors`.
    """

    # What the client raises where its disk, network or server fails. A training does not end with its tracker, so of a
    # client that does not keep to its own kinds of errors it is any.
    errors: ClassVar[tuple[type[Exception], ...]]
    id: str  # of the run in the tracker; empty where a folder is all that there is
    place: str  # where to find it: a folder or an address; empty where nothing is kept, and nothing is written down
    words: str  # how to see it, for the console: a command or an address

    @classmethod
    def check_project(cls, project: str | None) -> None:
        """Raises UsageError for a name, train.track_project, that no project in the tracker can have. Asks nobody."""
        return  # a tracker that takes any name has nothing to say

    @abstractmethod
    def __init__(self, subject: Subject) -> None: ...

    @abstractmethod
    def last_step(self) -> int:
        """The step of the last epoch that the run had in the tracker when it was built, asked of the tracker itself;
        0 or less: it has none.
        """

    def take_back(self, step: int) -> bool:
        """Forget all that came after the step, if the tracker can; whether it did."""
        return False

    @abstractmethod
    def log(self, step: int, scalars: Scalars) -> None:
        """The numbers of an epoch that ended with the step."""

    @abstractmethod
    def conclude(self, step: int, result: Scalars, figures: list[Path], report: Path) -> None:
        """The result of a finished run at its last step, its figures (PNG) and its page. The same call once more, as
        after a failure in the middle of it, changes nothing.
        """

    @abstractmethod
    def close(self, end: End) -> None:
        """Let go of the run. What is still on its way is sent first, and waited for."""


def settings_of(flat: Mapping[str, object]) -> dict[str, Setting]:
    """A flat recipe as hyperparameters: numbers, switches and texts; a list is its text, "[0.5, 0.5]". What changes
    nothing of the training is left out: what the recipe says of itself, and who is told of it.
    """
    return {
        key: value if isinstance(value, str | bool | int | float) else str(value)
        for key, value in flat.items()
        if value is not None and not key.startswith("about.") and key not in TELLING
    }


def epoch_scalars(row: Epoch) -> Scalars:
    """The numbers of an epoch by their names in `metrics.jsonl`, MARK last. Switches and texts are left out."""
    return _numbers(
        {key: value for key, value in row.to_json().items() if key not in ("step", MARK)} | {MARK: row.epoch}
    )


def result_scalars(result: EvalResult | ValidationResult | ReconstructionResult) -> Scalars:
    """The numbers of a run's result: "test/top1" and so on, "subset_test/...", "test_mirrored/..." and
    "test_without_copies/..." where they were measured. Of masked autoencoding "kept/val_loss" and "kept/epoch", those
    of the weights that were kept; of a run that reads no test image "kept/val_top1", too.
    """
    if isinstance(result, ValidationResult):
        return _numbers({"kept/val_top1": result.top1, "kept/val_loss": result.loss, "kept/epoch": result.epoch})
    if isinstance(result, ReconstructionResult):
        return _numbers({"kept/val_loss": result.val_loss, "kept/epoch": result.epoch})
    scalars = _metrics(result.split, result)
    if result.subset_test is not None:
        scalars |= _metrics("subset_test", result.subset_test)
    if result.mirrored is not None:
        scalars |= _metrics(f"{result.split}_mirrored", result.mirrored)
    if result.without_copies is not None:
        scalars |= _metrics(f"{result.split}_without_copies", result.without_copies)
    return scalars


def _metrics(split: str, metrics: Metrics | Score) -> Scalars:
    low, high = metrics.top1_ci95
    values: dict[str, object] = {
        "n": metrics.n,
        "loss": metrics.loss,
        "top1": metrics.top1,
        "top1_ci95_low": low,
        "top1_ci95_high": high,
    }
    if isinstance(metrics, Metrics):
        values |= {"top5": metrics.top5, "balanced_accuracy": metrics.balanced_accuracy, "ece": metrics.ece}
        values["macro_f1"] = None if metrics.macro is None else metrics.macro.f1
    return _numbers({f"{split}/{name}": value for name, value in values.items()})


def _numbers(values: Mapping[str, object]) -> Scalars:
    return {
        key: float(value)
        for key, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def figure_tags(figures: Iterable[Path]) -> dict[str, Path]:
    """Each figure under "figures/NAME"."""
    return {f"figures/{path.stem}": path for path in figures}
