"""Putting a new run in the place of an old one, so that a crash leaves the old one whole or the new one begun.

The folder itself stays, with its lock and with what somebody else put into it. What the old run is made of goes into
`.replaced/`, but for its config.toml, which that of the new run, made aside in `.replacing/`, takes the place of in one
step. Before that step the old run is brought back, after it the old run is deleted. What may refuse to begin, as a
tracker does whose server is away, begins just before that step, and what it left is deleted where the old run comes
back.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from patchlight.runs.manifest import MANIFEST, Seal, add_to_manifest
from patchlight.runs.writing import flush, move, remove, tidy, whole_file

REPLACED, REPLACING = ".replaced", ".replacing"
RECIPE = "config.toml"
ASIDE = "aside"  # in .replacing/: all of the old run is set aside, and what lies in its place is of the new one
BEGINS = "tracking"  # the folder that the new run may have before it takes the old one's place


def replace_contents(
    folder: Path, contents: Iterable[str], recipe: bytes, begin: Callable[[], None] | None = None
) -> None:
    """Begin a new run with the text of its `recipe` in `folder`, without the `contents` of the one that is there, and
    without what of them was set aside as damaged. A link to a folder stays; what it leads to is emptied.

    `begin` is called when all is ready, and may make the folder BEGINS; where it raises, the old run is back as it was.
    """
    roll_back(folder)
    contents = set(contents)
    old, new = folder / REPLACED, folder / REPLACING
    new.mkdir()
    with whole_file(new / RECIPE) as part:
        part.write_bytes(recipe)
    old.mkdir()
    for path in sorted(folder.iterdir()):
        if path.name != RECIPE and path.name.partition(".damaged")[0] in contents:
            move(path, old / path.name)
    flush(old)
    flush(folder)
    if begin is not None:
        (new / ASIDE).touch()
        try:
            begin()
        except BaseException:
            roll_back(folder)
            raise
    add_to_manifest(folder, [(RECIPE, Seal.of_bytes(recipe))])
    (new / RECIPE).replace(folder / RECIPE)  # from here on it is the new run
    flush(folder)
    with whole_file(folder / MANIFEST) as part:
        part.write_text(Seal.of_bytes(recipe).line(RECIPE), encoding="utf-8")
    _finish(folder)


def is_cut_off(folder: Path) -> bool:
    """Whether a process was killed while it put a new run in the place of an old one."""
    return (folder / REPLACED).is_dir() or (folder / REPLACING).is_dir()


def roll_back(folder: Path) -> bool:
    """Finish what was cut off; whether an old run was brought back."""
    old, new = folder / REPLACED, folder / REPLACING
    if (new / RECIPE).is_file() and (new / ASIDE).is_file() and os.path.lexists(folder / BEGINS):
        remove(folder / BEGINS)
    moved = sorted(old.glob("[!.]*")) if (new / RECIPE).is_file() and old.is_dir() else []
    for path in moved:
        if os.path.lexists(folder / path.name):
            remove(folder / path.name)
        move(path, folder / path.name)
    _finish(folder)
    return bool(moved)


def _finish(folder: Path) -> None:
    """Delete what is not needed any more. Links to folders come back, empty."""
    old = folder / REPLACED
    for link in old.iterdir() if old.is_dir() and not (folder / REPLACING / RECIPE).is_file() else []:
        if link.is_symlink() and link.is_dir():
            for inside in link.iterdir():
                tidy(inside)
            if not os.path.lexists(folder / link.name):
                link.replace(folder / link.name)
    for left in (folder / REPLACING, old):  # in this order: what decides is there to the end
        if left.is_dir():
            tidy(left)
