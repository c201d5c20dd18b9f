"""Which checkpoints a run has, and what a path such as `runs/mine/checkpoints/epoch-050` means.

epoch-050                   the end of epoch 50, of all stages together; from epoch 1000 on with four digits
epoch-050-step-00039083     between two epochs: 50 epochs and, in all, 39,083 steps are done
step-00039050               so many steps are done: the name that earlier versions gave

They are ordered by these numbers, not by the letters of their names. `last` is no folder, but the word for the newest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from patchlight.errors import UsageError
from patchlight.paths import user_path
from patchlight.runs.folder import Run
from patchlight.units import counted

FOLDER = "checkpoints"
LAST = "last"
NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+))?|step-(\d+)", re.ASCII)
LOOSE = re.compile(r"epoch-(\d+)", re.ASCII)  # as people write it
SHOWN = 12  # names in a message


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint of a run."""

    path: Path
    epochs: int | None  # finished, of all stages; None where an older version named it by its steps alone
    steps: int | None  # of all stages; None at the end of an epoch, which the name of the epoch says

    @property
    def order(self) -> tuple[int, int]:
        """By this they are sorted. Those of older versions came before."""
        return (-1 if self.epochs is None else self.epochs, self.steps or 0)

    @property
    def run(self) -> Run:
        """Whose it is."""
        return Run(self.path.parent.parent)

    @property
    def is_averaged(self) -> bool:
        """Whether a moving average of the weights is in it, which is then what it means as a model."""
        return (self.path / "ema.safetensors").is_file()

    @property
    def weights(self) -> str:
        """Which weights they are, in words: "epoch 50", "epoch 50 and 39,083 steps in all", "39,050 steps"."""
        if self.epochs is None:
            return counted(self.steps or 0, "step")
        return f"epoch {self.epochs}" + (f" and {counted(self.steps, 'step')} in all" if self.steps else "")

    @property
    def line(self) -> str:
        """The same as a sentence."""
        average = ", their moving average" if self.is_averaged else ""
        return f"{self.path}: weights of {self.weights}{average}"


def checkpoint_name(epochs: int, steps: int, *, at_end: bool) -> str:
    """The folder's name after so many epochs and steps of all stages; `at_end` of an epoch the steps are left out."""
    return f"epoch-{epochs:03d}" if at_end else f"epoch-{epochs:03d}-step-{steps:08d}"


def is_checkpoint(name: str) -> bool:
    """Whether a folder of this name is one."""
    return NAME.fullmatch(name) is not None


def checkpoints_in(folder: Path) -> list[Checkpoint]:
    """The whole ones of a run's `checkpoints/`, oldest first. Copies that somebody made have other names."""
    found = [_read_name(path) for path in folder.iterdir()] if folder.is_dir() else []
    return sorted((checkpoint for checkpoint in found if checkpoint is not None), key=lambda found: found.order)


def find_checkpoint(path: str | Path) -> Checkpoint | None:
    """The checkpoint that a path names; None where it is no path into the `checkpoints/` of a run.

    Raises UsageError, naming those that there are, where the run has no such checkpoint.
    """
    path = Path(path)
    if path.name == FOLDER and _is_run(path.parent):
        raise UsageError(f"{path} holds several; name one: {_names(checkpoints_in(path))}")
    if path.parent.name != FOLDER or not _is_run(path.parent.parent):
        return None
    there = checkpoints_in(path.parent)
    for checkpoint in reversed(there):
        if path.name in (LAST, checkpoint.path.name) or _is_epoch(path.name, checkpoint):
            return checkpoint
    if (path / "config.json").is_file():  # a copy that somebody made, by a name of their own
        return None
    raise UsageError(f"{path.parent} has no '{path.name}'; it has {_names(there)}")


def open_weights(run: str | Path | Run) -> tuple[Run, Checkpoint | None]:
    """A run and, where one of its checkpoints is named, that; without one, the weights that the run keeps are meant.

    Raises PatchlightError where there is no such run, UsageError where it has no such checkpoint.
    """
    checkpoint = None if isinstance(run, Run) else find_checkpoint(user_path(run))
    return (Run.open(run), None) if checkpoint is None else (Run.open(checkpoint.run), checkpoint)


def _is_run(folder: Path) -> bool:
    return (folder / "config.toml").is_file()


def _read_name(path: Path) -> Checkpoint | None:
    match = NAME.fullmatch(path.name)
    if match is None:
        return None
    epochs, steps, steps_alone = (None if number is None else int(number) for number in match.groups())
    return Checkpoint(path, epochs, steps if steps_alone is None else steps_alone)


def _is_epoch(name: str, checkpoint: Checkpoint) -> bool:
    """Whether `name` is that of its epoch, with fewer zeros or more."""
    match = LOOSE.fullmatch(name)
    return match is not None and checkpoint.steps is None and int(match[1]) == checkpoint.epochs


def _names(there: list[Checkpoint]) -> str:
    """The newest ones by name, and the word for the newest."""
    if not there:
        return "none"
    names = [checkpoint.path.name for checkpoint in there]
    more = f"{len(names) - SHOWN} older ones, " if len(names) > SHOWN else ""
    return f"{more}{', '.join(names[-SHOWN:])}, and {LAST} for the newest"
