"""Archives, unpacked once into the cache folder: `unpacked/NAME-KEY/`, in which `content/` holds the files.

KEY is a hash of the archive's path and of its content, all of it. An archive is unpacked under another name; the folder
is moved into place when it is complete, with a description (`unpacked.json`) of every file's size and content, which is
compared before the folder is used again. So a crash, or a file that was changed or removed since, leaves nothing that
is believed, and of two processes that unpack the same archive the second takes the first one's folder.

An archive may come from anyone: its members are data, and only plain files are written, all of them inside the folder.
A member whose path leads out of it, or is no file at all (a device), refuses the archive; links are left out.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from patchlight.data.listing import LeftOut, hash_of, hash_of_file
from patchlight.data.members import ArchiveMember, archive_members, wrong_name
from patchlight.errors import PatchlightError
from patchlight.machine.process import cache_folder
from patchlight.progress import Progress

log = logging.getLogger(__name__)

FORMAT = 2
DESCRIPTION = "unpacked.json"
STALE_S = 24 * 3600  # after which a temporary folder was left by a process that was killed

# Limits that no set of images meets and that an archive made to fill a disk does. Images are compressed already, and
# even raw pixels seldom shrink to a hundredth; deflate ends at about a thousandth.
MAX_MEMBERS = 5_000_000
MAX_RATIO = 200  # bytes unpacked for each byte of the archive,
RATIO_FROM = 2**28  # counted from 256 MiB unpacked on
DEEPEST = 100  # folders in each other
SPARE_DISK = 2**28  # bytes that stay free on the cache folder's disk
CHECK_EVERY = 2**26  # bytes written between two looks at the free disk

# What operating systems put into archives: nobody's images.
CLUTTER = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Unpacked:
    """An archive's files: their folder, how many they are, how large, and what the archive has beside them."""

    folder: Path
    files: int
    size: int  # bytes
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


@dataclass
class Unpacking:
    """What was written, and what was not, while an archive is unpacked."""

    files: dict[str, tuple[int, str]] = field(default_factory=dict)  # by relative path: size, hash of the content
    size: int = 0
    skipped: Counter[str] = field(default_factory=Counter)  # reasons
    examples: dict[str, str] = field(default_factory=dict)
    notes: set[str] = field(default_factory=set)

    def skip(self, reason: str, name: str) -> None:
        self.skipped[reason] += 1
        self.examples.setdefault(reason, name)


LINKS = "links in the archive, which are not followed"
SYSTEM = "files that an operating system put into the archive"
TWICE = "members of the archive that a later one of the same name replaces"
EXPECTED = {SYSTEM}


def unpacked(archive: Path) -> Unpacked:
    """The files of a zip or tar archive, from the cache folder or unpacked there first.

    Raises PatchlightError for an archive that is damaged, encrypted, made to do harm, or too large for the disk.
    """
    content = _hash_of_archive(archive)
    key = hash_of([FORMAT, str(archive.resolve()), content])[:16]
    folder = cache_folder() / "unpacked" / f"{_short_name(archive)}-{key}"
    if folder.is_dir():
        found = _read_back(folder)
        if found is not None:
            return found
        log.warning("the unpacked files in %s are not as they were and are unpacked again", folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder.parent)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-", suffix=".tmp"))
    except OSError as error:
        raise _cannot_write(folder.parent, error) from error
    try:
        _unpack(archive, temporary)
        if _hash_of_archive(archive) != content:
            raise PatchlightError(
                f"{archive} changed while it was unpacked, and nothing of it is kept; wait until it is complete and "
                "repeat the command"
            )
        _move_into_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    found = _read_back(folder)
    if found is None:
        raise PatchlightError(f"{folder} changes while it is written; remove it and try again")
    return found


def _unpack(archive: Path, folder: Path) -> None:
    """All files of the archive into `folder`/content, and their description beside it."""
    content, done, archive_size = folder / "content", Unpacking(), max(1, archive.stat().st_size)
    content.mkdir()
    if name := wrong_name(archive):
        done.notes.add(name)
    budget = _Budget(archive, archive_size, folder)
    with Progress(max(1, archive_size // 2**20), f"unpacking {archive.name} (MiB)") as progress:
        for count, member in enumerate(archive_members(archive, budget.announced), start=1):
            if count > MAX_MEMBERS:
                raise PatchlightError(f"{archive} has more than {MAX_MEMBERS:,} members; it is not unpacked")
            done.notes.update(member.notes)
            target = _target(archive, member, done)
            if target is not None:
                _write(archive, member, content, target, done, budget)
            progress.advance(min(progress.total, member.position // 2**20) - progress.done)
            if progress.due():
                progress.show(f"{len(done.files):,} files")
    about = {
        "format": FORMAT,
        "archive": str(archive.resolve()),
        "files": {name: list(facts) for name, facts in done.files.items()},
        "skipped": [[reason, count, done.examples[reason]] for reason, count in done.skipped.items()],
        "notes": sorted(done.notes),
    }
    try:
        (folder / DESCRIPTION).write_text(json.dumps(about), encoding="utf-8")
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _target(archive: Path, member: ArchiveMember, done: Unpacking) -> str | None:
    """Where a member goes below the folder; None where it is not written. Raises PatchlightError for a hostile one."""
    parts = [part for part in member.path.split("/") if part not in ("", ".")]
    drive = bool(parts) and len(parts[0]) >= 2 and parts[0][1] == ":" and parts[0][0].isalpha()
    if member.path.startswith("/") or drive:
        raise PatchlightError(f"{archive}: the member '{member.path}' has an absolute path; nothing of it is used")
    if ".." in parts:
        raise PatchlightError(f"{archive}: the path of the member '{member.path}' leads out of it; nothing is used")
    if "\0" in member.path:
        raise PatchlightError(f"{archive}: the name of the member {member.path!r} is damaged; nothing is used")
    if len(parts) > DEEPEST:
        raise PatchlightError(f"{archive}: its folders are nested more than {DEEPEST} deep; nothing of it is used")
    if member.kind == "folder" or not parts:
        return None
    if CLUTTER.intersection(parts) or parts[-1].startswith("._"):
        done.skip(SYSTEM, member.path)
        return None
    if member.kind == "link":
        done.skip(LINKS, member.path)
        return None
    if member.kind == "other":
        raise PatchlightError(f"{archive}: the member '{member.path}' is a device or a pipe; nothing of it is used")
    return "/".join(parts)


class _Budget:
    """How many bytes may still be written. Raises PatchlightError before the disk is full."""

    def __init__(self, archive: Path, archive_size: int, folder: Path) -> None:
        self.archive, self.archive_size, self.folder = archive, archive_size, folder
        self.written = self.checked = 0

    def announced(self, size: int) -> None:
        """What the archive says of itself before it is unpacked: `size` bytes."""
        self._ratio(size)
        self._disk(size)

    def count(self, size: int) -> None:
        self.written += size
        self._ratio(self.written)
        if self.written - self.checked >= CHECK_EVERY:
            self.checked = self.written
            self._disk(0)

    def _ratio(self, size: int) -> None:
        if size > RATIO_FROM and size > MAX_RATIO * self.archive_size:
            raise PatchlightError(
                f"{self.archive} grows to more than {MAX_RATIO} times its size ({size / 2**20:,.0f} MiB of "
                f"{self.archive_size / 2**20:,.1f}), as archives do that are made to fill a disk; unpack it yourself "
                "and give the folder, if that is meant"
            )

    def _disk(self, size: int) -> None:
        free = shutil.disk_usage(self.folder).free
        spare = SPARE_DISK if max(size, self.written) >= CHECK_EVERY else 0
        if size + spare > free:
            raise PatchlightError(
                f"{self.archive} takes {max(size, self.written) / 2**20:,.0f} MiB or more unpacked, and "
                f"{self.folder.parent} has {free / 2**20:,.0f} MiB free; PATCHLIGHT_CACHE chooses another folder"
            )


def _write(archive: Path, member: ArchiveMember, content: Path, target: str, done: Unpacking, budget: _Budget) -> None:
    path = content / target
    if target in done.files:
        done.skip(TWICE, member.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file: IO[bytes] = path.open("wb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PatchlightError(f"{archive}: the member '{member.path}' cannot be written: {reason}") from error
    size, digest = 0, hashlib.blake2b(digest_size=16)
    with file:
        for block in member.blocks():  # its own errors are of the archive
            budget.count(len(block))
            size += len(block)
            digest.update(block)
            try:
                file.write(block)
            except OSError as error:
                raise _cannot_write(path, error) from error
    done.files[target] = (size, digest.hexdigest())


def _move_into_place(temporary: Path, folder: Path) -> None:
    """The complete folder under its own name, unless another process was faster."""
    for _ in range(2):
        try:
            temporary.rename(folder)
            return
        except OSError:
            if _read_back(folder) is not None:
                return
            # A folder that is not as it was: away with it, under another name first, so that nobody reads half of it.
            old = temporary.with_name(f"{temporary.name}.old.tmp")
            with contextlib.suppress(OSError):
                folder.rename(old)
            shutil.rmtree(old, ignore_errors=True)
    raise PatchlightError(f"cannot write to {folder}: remove it and try again")


def _read_back(folder: Path) -> Unpacked | None:
    """An unpacked archive whose files are all there and as they were written; None where they are not."""
    try:
        about = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if about["format"] != FORMAT:
            return None
        expected = {name: (int(size), str(content)) for name, (size, content) in about["files"].items()}
        left_out = tuple(LeftOut(str(r), int(n), str(e), expected=r in EXPECTED) for r, n, e in about["skipped"])
        size = sum(size for size, _ in expected.values())
        if not _are_as_written(folder / "content", expected, size):
            return None
        return Unpacked(folder / "content", len(expected), size, tuple(map(str, about["notes"])), left_out)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _are_as_written(content: Path, expected: dict[str, tuple[int, str]], size: int) -> bool:
    """Whether a folder holds these files, all `size` bytes of them, and no others. Raises OSError."""
    if dict(_sizes(content)) != {name: size for name, (size, _) in expected.items()}:
        return False
    with Progress(max(1, size // 2**20), "checking unpacked files (MiB)") as progress:
        done = 0
        for name, (own, digest) in expected.items():
            if hash_of_file(content / name) != digest:
                return False
            done += own
            progress.advance(done // 2**20 - progress.done)
            if progress.due():
                progress.show("")
    return True


def _sizes(content: Path) -> Iterator[tuple[str, int]]:
    pending: list[tuple[str, str]] = [(str(content), "")]
    while pending:
        place, prefix = pending.pop()
        with os.scandir(place) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, name + "/"))
                elif entry.is_file(follow_symlinks=False):
                    yield name, entry.stat(follow_symlinks=False).st_size
                else:
                    yield name, -1  # a link or the like, which no archive has put there


def _hash_of_archive(archive: Path) -> str:
    try:
        return hash_of_file(archive)
    except OSError as error:
        raise PatchlightError(f"cannot read {archive}: {error.strerror or error}") from error


def _remove_stale(folder: Path) -> None:
    """Delete temporary folders that a killed process has left."""
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):  # another process was faster
            newest = max(part.stat().st_mtime for part in _shallow(path))
            if time.time() - newest > STALE_S:
                shutil.rmtree(path, ignore_errors=True)


def _shallow(path: Path) -> Iterable[Path]:
    """A temporary folder and the folders in it: one of them changes whenever a file is made."""
    return [path, *(part for part in path.rglob("*") if part.is_dir())]


def _short_name(archive: Path) -> str:
    name = archive.name.split(".")[0] or archive.name
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)[:60]


def _cannot_write(path: Path, error: OSError) -> PatchlightError:
    return PatchlightError(
        f"cannot unpack to {path}: {error.strerror or error}; PATCHLIGHT_CACHE chooses another folder"
    )
