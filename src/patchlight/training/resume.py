"""What a run goes on from: the newest checkpoint that is sound, and the run's own files, brought back where need be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from patchlight.errors import PatchlightError
from patchlight.progress import say
from patchlight.runs import Environment, Run
from patchlight.runs.checkpoints import FOLDER
from patchlight.runs.folder import COPY, FILES, METRICS, RESULT_TYPES
from patchlight.runs.overwrite import RECIPE
from patchlight.runs.writing import set_aside
from patchlight.training.checkpoint import damage_of, list_checkpoints, read_state, restore_kept
from patchlight.training.record import time_of

READ: dict[str, Callable[[Run], object]] = {
    RECIPE: lambda run: run.config(),
    FILES[Environment]: lambda run: run.read(Environment),
    METRICS: lambda run: run.epochs(),
}


def bring_back(run: Run) -> Path | None:
    """Make a run fit to go on: the checkpoint that it goes on from, None where none was saved yet.

    Damaged checkpoints and files are set aside as NAME.damaged. The run's recipe, environment, metrics and, of one that
    is finished, its weights come back from the checkpoints; of a damaged result the test images are read again. All of
    it is said. Raises PatchlightError where all checkpoints are damaged or gone, or a file without which nothing can go
    on.
    """
    checkpoint = newest_sound(run)
    for name, read in READ.items():
        if (wrong := _wrong(run, name, read, checkpoint)) is not None:
            _bring_back(run, name, wrong, checkpoint)
    for kind in RESULT_TYPES:
        if run.has(kind):
            try:
                run.read(kind)
            except PatchlightError as error:
                aside = set_aside(run.path / FILES[kind]).name
                say(f"{str(error).partition(';')[0]}; it is kept as {aside}, and made again")
    if run.finished and checkpoint is not None:
        restore_kept(run, read_state(checkpoint))
        _add_time(run, checkpoint)
    return checkpoint


def newest_sound(run: Run) -> Path | None:
    """The newest checkpoint that is not damaged; damaged ones after it are set aside, and said."""
    folder = run.path / FOLDER
    for path in reversed(list_checkpoints(folder)):
        if (wrong := damage_of(path)) is None:
            return path
        say(f"{path} is damaged ({wrong}); it is kept as {set_aside(path).name}, and the one before it is used")
    damaged = ", ".join(path.name for path in sorted(folder.glob("*.damaged*")))
    if damaged:
        raise PatchlightError(
            f"no checkpoint of {run.path} is left that is sound ({damaged}); restore one from a copy, or train anew "
            "with --overwrite"
        )
    if not run.finished and _epochs_trained(run) > 1:  # the first is killed before its checkpoint now and then
        raise PatchlightError(
            f"{folder} holds no checkpoint, and {run.path} was trained for {_epochs_trained(run)} epochs; bring the "
            "folder back, or train anew with --overwrite"
        )
    return None


def _epochs_trained(run: Run) -> int:
    """By its lines of metrics, readable or not."""
    path = run.path / METRICS
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def _wrong(run: Run, name: str, read: Callable[[Run], object], checkpoint: Path | None) -> str | None:
    """Why a file of the run cannot be used, or None."""
    path = run.path / name
    if not path.is_file():
        if checkpoint is None and name == METRICS:
            run.write_bytes(name, b"")  # of a first epoch that was killed
        return f"{path} is missing" if checkpoint is not None else None
    try:
        found = read(run)
    except PatchlightError as error:
        return str(error).partition(";")[0]
    if checkpoint is not None and isinstance(found, list) and len(found) < read_state(checkpoint).epochs_done:
        return f"{path} has {len(found)} of {read_state(checkpoint).epochs_done} epochs"
    return None


def _bring_back(run: Run, name: str, wrong: str, checkpoint: Path | None) -> None:
    path = run.path / name
    copy = None if checkpoint is None else checkpoint / f"{COPY}{name}"
    has_copy = copy is not None and copy.is_file()
    if not has_copy and name == RECIPE:
        raise PatchlightError(f"{wrong}; restore it from a copy")
    aside = f"; it is kept as {set_aside(path).name}" if path.is_file() else ""
    if copy is not None and has_copy:
        run.write_bytes(name, copy.read_bytes())
        say(f"{wrong}{aside}; it is brought back from {copy}")
    elif name == METRICS:
        run.write_bytes(name, b"")
        say(f"{wrong}{aside}; what it told of the epochs so far is lost")
    else:
        say(
            f"{wrong}{aside}; whether the images are those that the run was started with cannot be told, and what it "
            "chose for its machine is chosen again"
        )


def _add_time(run: Run, checkpoint: Path) -> None:
    """What training took, which the copy in a checkpoint does not have yet."""
    environment = run.find(Environment)
    if environment is not None and environment.time is None:
        run.write(replace(environment, time=time_of(run.epochs(), read_state(checkpoint))))
