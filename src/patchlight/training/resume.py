"""What a run goes on from: the newest checkpoint that is sound, and the run's own files, brought back where need be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from patchlight.errors import PatchlightError
from patchlight.progress import say
from patchlight.runs import Environment, Run
from patchlight.runs.checkpoints import FOLDER
from patchlight.runs.folder import COPY, FILES, METRICS, RESULT_TYPES
from patchlight.runs.overwrite import RECIPE
from patchlight.runs.writing import set_aside
from patchlight.training.checkpoint import damage_of, list_checkpoints, read_state

READ: dict[str, Callable[[Run], object]] = {
    RECIPE: lambda run: run.config(),
    FILES[Environment]: lambda run: run.read(Environment),
    METRICS: lambda run: run.epochs(),
}


def bring_back(run: Run) -> Path | None:
    """Make a run fit to go on: the checkpoint that it goes on from, None where none was saved yet.

    Damaged checkpoints and files are set aside as NAME.damaged. The run's recipe, environment and metrics come back
    from the checkpoint; of a damaged result the test images are read again. All of it is said. Raises PatchlightError
    where all checkpoints are damaged, or a file without which nothing can go on.
    """
    checkpoint = newest_sound(run)
    for name, read in READ.items():
        if (wrong := _wrong(run, name, read, checkpoint)) is not None:
            _bring_back(run, name, wrong, checkpoint)
    for kind in RESULT_TYPES.values():
        if run.has(kind):
            try:
                run.read(kind)
            except PatchlightError as error:
                aside = set_aside(run.path / FILES[kind]).name
                say(f"{str(error).partition(';')[0]}; it is kept as {aside}, and made again")
    return checkpoint


def newest_sound(run: Run) -> Path | None:
    """The newest checkpoint that is not damaged; damaged ones after it are set aside, and said."""
    folder = run.path / FOLDER
    for path in reversed(list_checkpoints(folder)):
        if (wrong := damage_of(path)) is None:
            return path
        say(f"{path} is damaged ({wrong}); it is kept as {set_aside(path).name}, and the one before it is used")
    if damaged := sorted(folder.glob("*.damaged*")):
        names = ", ".join(path.name for path in damaged)
        raise PatchlightError(
            f"no checkpoint of {run.path} is left that is sound ({names}); restore one from a copy, or train anew with "
            "--overwrite"
        )
    return None


def _wrong(run: Run, name: str, read: Callable[[Run], object], checkpoint: Path | None) -> str | None:
    """Why a file of the run cannot be used, or None."""
    if not (run.path / name).is_file():
        return "it is missing" if checkpoint is not None and (checkpoint / f"{COPY}{name}").is_file() else None
    try:
        found = read(run)
    except PatchlightError as error:
        return str(error)
    if checkpoint is not None and isinstance(found, list) and len(found) < read_state(checkpoint).epochs_done:
        return f"it has {len(found)} of {read_state(checkpoint).epochs_done} epochs"
    return None


def _bring_back(run: Run, name: str, wrong: str, checkpoint: Path | None) -> None:
    path = run.path / name
    copy = None if checkpoint is None else checkpoint / f"{COPY}{name}"
    if copy is None or not copy.is_file():
        if name != FILES[Environment]:
            raise PatchlightError(wrong)
        say(
            f"{wrong.partition(';')[0]}; it is kept as {set_aside(path).name}: whether the images are those that the "
            "run was started with cannot be told, and what it chose for its machine is chosen again"
        )
        return
    aside = f" and is kept as {set_aside(path).name}" if path.is_file() else ""
    run.write_bytes(name, copy.read_bytes())
    say(f"{path} was damaged or missing{aside}; it is brought back from {copy}")
