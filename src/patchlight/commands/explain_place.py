"""The folder that `patchlight explain` writes: tried before anything is computed, then written whole, the record last.

Of what is there only the pictures are deleted that the folder's own record lists.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from patchlight.errors import PatchlightError, UsageError
from patchlight.paths import is_folder, is_there, printable
from patchlight.reporting.files import cannot_write, write_part

RECORD, ARRAYS = "explanation.json", "maps.npz"
# The names of all pictures that `explain` draws, in one call or another.
PICTURES = re.compile(
    r"((maps|patches|masks|pair)(-\d+)?|(heads|head_masks)-layer\d+|lens|layers|layer_likeness|rollout|path|versus|"
    r"patch_embeddings|patch_likeness|class_gallery|class_means)\.png"
)


@dataclass(frozen=True)
class Place:
    """A folder that can be written."""

    folder: Path
    old: tuple[str, ...]  # the pictures in it that its record lists

    @classmethod
    def of(cls, folder: Path, given: Iterable[Path] = ()) -> Place:
        """Make the folder, where it is not there, and try it. `given` are files that the call reads.

        Raises UsageError where the folder is a file, or where one of the given files lies in it under the name of a
        picture; PatchlightError where it cannot be written, or holds an `explanation.json` that is none.
        """
        check_no_file(folder)
        place = cls(folder, _listed(folder / RECORD))
        for path in given:
            if place.would_replace(path):
                raise UsageError(
                    f"{printable(path)} is one of the files that were given, and --out {printable(folder)} is where a "
                    "picture of that name belongs; choose another --out, or rename the file"
                )
        try_folder(folder)
        return place

    def would_replace(self, path: Path) -> bool:
        """Whether a file, as it is named or as links lead to it, lies in the folder and is called as a picture."""
        return any(
            os.path.realpath(each.parent) == os.path.realpath(self.folder)
            and (each.name in self.old or PICTURES.fullmatch(each.name) is not None)
            for each in (path, Path(os.path.realpath(path)))
        )

    def write(self, pictures: Mapping[str, bytes], arrays: bytes, record: str) -> None:
        """Pictures by their names, `maps.npz` and `explanation.json`, instead of what the record that is there lists.

        All is written beside its place first, so that a full disk changes nothing. Then the old pictures and their
        record go, and the new ones come, the record last: none ever describes pictures that are not its own. Raises
        PatchlightError where it cannot be written.
        """
        files = {**pictures, ARRAYS: arrays, RECORD: record.encode("utf-8")}
        parts: dict[Path, Path] = {}
        path = self.folder
        try:
            for name, data in files.items():
                path = self.folder / name
                parts[path] = write_part(path, data)
            for name in (*self.old, RECORD):
                path = self.folder / name
                path.unlink(missing_ok=True)
            for path, part in parts.items():
                part.replace(path)
        except OSError as error:
            raise cannot_write(path, error) from None
        finally:
            for part in parts.values():
                part.unlink(missing_ok=True)


def check_no_file(folder: Path) -> None:
    """Raises UsageError where it is one."""
    if is_there(folder) and not is_folder(folder):
        raise UsageError(f"--out {printable(folder)} is a file; name a folder")


def try_folder(folder: Path) -> None:
    """Make the folder and write a file of no name into it. Raises UsageError where it is a file, PatchlightError where
    it cannot be written.
    """
    check_no_file(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise PatchlightError(
            f"cannot write into {printable(folder)}: {error.strerror}; mend its permissions, or choose another --out"
        ) from None


def _listed(record: Path) -> tuple[str, ...]:
    """The names of the pictures in a record's folder that it lists; none where there is no record. Raises
    PatchlightError where it is no record of `explain`, which would be replaced.
    """
    if not is_there(record):
        return ()
    try:
        data = json.loads(record.read_text(encoding="utf-8"))
    except OSError as error:
        raise PatchlightError(f"cannot read {printable(record)}: {error.strerror}; mend its permissions") from None
    except ValueError:  # no JSON, or no text
        data = None
    figures = data.get("figures") if isinstance(data, dict) else None
    if not isinstance(figures, dict):
        raise PatchlightError(
            f"{printable(record)} is no record of `patchlight explain`, which would replace it; remove it, rename it, "
            "or choose another --out"
        )
    # By its name: the folder may have been moved since. A picture is called as the figure is.
    return tuple(f"{name}.png" for name, path in figures.items() if Path(str(path)).name == f"{name}.png")
