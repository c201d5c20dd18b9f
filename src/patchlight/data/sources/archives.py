"""Archives (.zip, .tar, .tar.gz and so on) of whatever a path may be: unpacked into the cache folder, listed there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from patchlight.config import DataConfig
from patchlight.data.listing import Listing
from patchlight.data.members import ARCHIVE, MAYBE, UNKNOWN
from patchlight.data.sources.choice import SUFFIXES
from patchlight.data.unpack import unpacked
from patchlight.errors import PatchlightError


def is_archive(path: Path) -> bool:
    """Whether a file's name is that of an archive, or of a compressed file that may hold one."""
    return path.is_file() and any(kind.search(path.name) for kind in (ARCHIVE, MAYBE, UNKNOWN))


def list_archive(path: Path, config: DataConfig, list_path: Callable[[Path, DataConfig], Listing]) -> Listing:
    """The listing of what is in an archive, as `list_path` reads it where it was unpacked.

    Raises PatchlightError as `unpacked` does, and where the archive holds nothing, or further archives.
    """
    found = unpacked(path)
    inside = _inside(path, found.folder)
    try:
        listing = list_path(inside, config)
    except PatchlightError as error:
        error.args = (f"{error} (that is {path}, unpacked)",)
        raise
    size = f"{found.size / 1e6:,.1f} MB" if found.size >= 1e6 else f"{found.size / 1e3:,.1f} kB"
    files = "file" if found.files == 1 else "files"
    where = f"{path} is unpacked in {found.folder} ({found.files:,} {files}, {size})"
    notes = (where, *found.notes, *listing.notes)
    folders = (*listing.folders, found.folder)  # its files are its own, though they lie elsewhere
    return replace(listing, notes=notes, left_out=(*found.left_out, *listing.left_out), folders=folders)


def _inside(archive: Path, folder: Path) -> Path:
    """The file or folder that an archive is about: what is inside the folders that only wrap it."""
    while True:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
        if not entries:
            raise PatchlightError(f"{archive} holds no files")
        packed = sorted(entry.name for entry in entries if entry.is_file() and ARCHIVE.search(entry.name))
        if packed and len(packed) == len(entries) and not all(name.lower().endswith(".tar") for name in packed):
            raise PatchlightError(
                f"{archive} holds archives ({', '.join(packed[:5])}); unpack it, and name one of them"
            )
        if len(entries) > 1 or _is_class(entries[0]):
            return folder
        folder = entries[0]
        if folder.is_file():
            return folder


def _is_class(folder: Path) -> bool:
    """Whether a folder holds images and nothing else, and so is a class, not a wrapper."""
    if folder.is_file():
        return False
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return bool(entries) and all(entry.is_file() and entry.suffix.lower() in SUFFIXES for entry in entries)
