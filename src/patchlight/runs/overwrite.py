"""Putting a new run in the place of an old one, so that a crash leaves the old one whole or the new one begun.

The folder itself stays, with its lock and with what somebody else put into it. What the old run is made of goes into
`.replaced/`, but for its config.toml, which that of the new run, made aside in `.replacing/`, takes the place of in one
step. Before that step the old run is brought back, after it the old run is deleted.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from patchlight.runs.manifest import MANIFEST, Seal, add_to_manifest
from patchlight.runs.writing import flush, move, remove, whole_file

REPLACED, REPLACING = ".replaced", ".replacing"
RECIPE = "config.toml"


def replace_contents(folder: Path, contents: Iterable[str], recipe: bytes) -> None:
    """Begin a new run with the text of its `recipe` in `folder`, without the `contents` of the one that is there."""
    roll_back(folder)
    old, new = folder / REPLACED, folder / REPLACING
    new.mkdir()
    with whole_file(new / RECIPE) as part:
        part.write_bytes(recipe)
    old.mkdir()
    for name in contents:
        if name != RECIPE and (folder / name).exists():
            move(folder / name, old / name)
    flush(old)
    flush(folder)
    add_to_manifest(folder, [(RECIPE, Seal.of_bytes(recipe))])
    (new / RECIPE).replace(folder / RECIPE)  # from here on it is the new run
    flush(folder)
    with whole_file(folder / MANIFEST) as part:
        part.write_text(Seal.of_bytes(recipe).line(RECIPE), encoding="utf-8")
    shutil.rmtree(new)
    shutil.rmtree(old)


def is_cut_off(folder: Path) -> bool:
    """Whether a process was killed while it put a new run in the place of an old one."""
    return (folder / REPLACED).is_dir() or (folder / REPLACING).is_dir()


def roll_back(folder: Path) -> bool:
    """Finish what was cut off; whether the old run was brought back."""
    old, new = folder / REPLACED, folder / REPLACING
    is_old = (new / RECIPE).is_file() and old.is_dir()
    for path in sorted(old.glob("[!.]*")) if is_old else []:
        if (folder / path.name).exists():
            remove(folder / path.name)
        move(path, folder / path.name)
    for left in (new, old):  # in this order: what decides is there to the end
        if left.is_dir():
            shutil.rmtree(left)
    return is_old
