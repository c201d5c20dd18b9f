"""Where the image files are that a list or a table names by their paths."""

from __future__ import annotations

import os
import re
from pathlib import Path

from patchlight.config import DataConfig
from patchlight.data.sources.choice import SUFFIXES
from patchlight.data.sources.tree import JUNK
from patchlight.data.sources.unread import ADDRESSES, shown, unread
from patchlight.errors import PatchlightError, UsageError
from patchlight.paths import is_folder, is_there, user_path

DRIVE = re.compile(r"[A-Za-z]:[\\/]")
DEEPEST = 3  # folders below that of the images in which a name is looked for
LONGEST = 1000  # characters of a path


def picture_folder(beside: Path, config: DataConfig) -> Path:
    """What paths are relative to: data.image_folder, from the current folder or from that `beside`, else `beside`.

    Raises UsageError where it is no folder.
    """
    if config.image_folder is None:
        return beside
    given = user_path(config.image_folder)
    for folder in (given, beside / given):
        if is_folder(folder):
            return folder
    raise UsageError(f"data.image_folder: there is no folder '{config.image_folder}', nor is it one in {beside}")


class Located:
    """The files of a folder by what a list may call them. What lies in it is looked at once, where that is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stems: dict[str, list[str]] | None = None
        self._below: dict[str, list[str]] | None = None

    def find(self, name: str) -> Path | None:
        """The file of a name, which may have the backslashes of Windows or lack the suffix; None where there is none.

        Raises PatchlightError where a name without suffix can be two files.
        """
        for written in dict.fromkeys((name, name.replace("\\", "/"))):
            path = self.folder / written
            if "\0" not in written and is_there(path) and not is_folder(path):
                return path
        if Path(name).suffix.lower() in SUFFIXES:
            return None
        found = self.stems.get(name, [])
        if len(found) > 1:
            raise PatchlightError(f"'{name}' can be {' or '.join(found[:4])} of {self.folder}; write the suffix")
        return self.folder / found[0] if found else None

    def find_below(self, name: str) -> Path | None:
        """The one file in the folders below whose path ends with the name, or None.

        Raises PatchlightError where two do.
        """
        found = self.below(name)
        if len(found) > 1:
            raise PatchlightError(
                f"'{name}' can be {' or '.join(found[:2])} of {self.folder}; write its folder in the list, or name the "
                "folder of all images with data.image_folder"
            )
        return self.folder / found[0] if found else None

    def below(self, name: str) -> list[str]:
        """The files in the folders below whose paths end with the name, whole or without the suffix."""
        end, whole = _end(name), _bare(name) != name
        near = self._near(name)
        return [path for path in near if f"/{path}".endswith(end) or (not whole and f"/{_bare(path)}".endswith(end))]

    def alike(self, name: str) -> str | None:
        """A file whose path ends with the name in another case or with another suffix, or None."""
        end = _bare(_end(name)).casefold()
        return next((path for path in self._near(name) if f"/{_bare(path)}".casefold().endswith(end)), None)

    @property
    def stems(self) -> dict[str, list[str]]:
        """The images right in the folder by their names without suffix: lists such as Kaggle's leave it out."""
        if self._stems is None:
            self._stems = {}
            for path in sorted(self.folder.iterdir()):
                if path.suffix.lower() in SUFFIXES:
                    self._stems.setdefault(path.stem, []).append(path.name)
        return self._stems

    def _near(self, name: str) -> list[str]:
        """The files whose own names are that of the path, but for case and suffix: relative paths, sorted."""
        if len(name) > LONGEST or _is_absolute(name) or name.startswith(ADDRESSES):
            return []
        if self._below is None:
            self._below = {}
            for path in sorted(_files_below(self.folder)):
                self._below.setdefault(_key(path), []).append(path)
        return self._below.get(_key(name.replace("\\", "/")), [])


def _files_below(folder: Path) -> list[str]:
    """The files of a folder and of those below it, DEEPEST of them, as relative paths; hidden ones left out."""
    found = []
    for place, folders, files in os.walk(folder):
        inside = Path(place).relative_to(folder)
        shown_ones = [name for name in folders if not name.startswith(".") and name not in JUNK]
        folders[:] = shown_ones if len(inside.parts) < DEEPEST else []
        found += [(inside / name).as_posix() for name in files if not name.startswith(".")]
    return found


def _bare(path: str) -> str:
    """A path without the suffix of an image."""
    root, _, suffix = path.rpartition(".")  # quicker than pathlib, since it is asked of every file
    return root if f".{suffix.lower()}" in SUFFIXES else path


def _key(path: str) -> str:
    return _bare(path.rpartition("/")[2]).casefold()


def _end(name: str) -> str:
    return "/" + name.replace("\\", "/").removeprefix("./")


def _is_absolute(name: str) -> bool:
    return name.startswith(("/", "~")) or DRIVE.match(name) is not None


def none_there(where: str, count: int, first: str, folder: Path) -> str:
    """The sentence for paths of which none leads to a file."""
    if what := unread(first):
        return f"{where}: its images are {what}"
    found = f"{where}: none of its {count:,} images is there; the first is {shown(first)}"
    if _is_absolute(first):
        return f"{found}, an absolute path; make the paths relative to a folder, which data.image_folder names"
    if other := Located(folder).alike(first):
        return (
            f"{found}, but in {folder} there is {other}; write the paths as the files are called, or name their folder "
            "with data.image_folder"
        )
    return f"{found}, looked for in {folder}; data.image_folder says what the paths are relative to"
