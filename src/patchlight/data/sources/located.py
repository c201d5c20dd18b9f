"""Where the image files are that a list or a table names by their paths."""

from __future__ import annotations

import re
from pathlib import Path

from patchlight.config import DataConfig
from patchlight.data.sources.choice import SUFFIXES
from patchlight.errors import PatchlightError, UsageError
from patchlight.paths import is_folder, is_there, user_path

DRIVE = re.compile(r"[A-Za-z]:[\\/]")


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
    """The files of a folder by what a list may call them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stems: dict[str, list[str]] | None = None

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

    @property
    def stems(self) -> dict[str, list[str]]:
        """The images right in the folder by their names without suffix: lists such as Kaggle's leave it out."""
        if self._stems is None:
            self._stems = {}
            for path in sorted(self.folder.iterdir()):
                if path.suffix.lower() in SUFFIXES:
                    self._stems.setdefault(path.stem, []).append(path.name)
        return self._stems


def none_there(where: str, count: int, first: str, folder: Path) -> str:
    """The sentence for paths of which none leads to a file."""
    if first.startswith(("http://", "https://", "s3://", "gs://")):
        return f"{where}: its images are addresses ({first}); download them first"
    found = f"{where}: none of its {count:,} images is there; the first is {first}"
    if first.startswith(("/", "~")) or DRIVE.match(first):
        return f"{found}, which is in full; make the paths relative to a folder, which data.image_folder names"
    return f"{found}, looked for in {folder}; data.image_folder says what the paths are relative to"
