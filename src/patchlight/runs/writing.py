"""Writing that a crash, a full disk or a lost power cannot leave half done: flushed, then put into place in one step.

What is being written is hidden and ends with `.part`, what is to be deleted with `.old`. A process that was killed
leaves such files; the next training in the folder sweeps them away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from patchlight.progress import say

PART, OLD = ".part", ".old"
STALE_S = 24 * 3600  # no process writes one file for so long


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write into: afterwards it is on the disk as `path`, or after an error nowhere."""
    part = path.with_name(f".{path.name}{PART}")
    try:
        yield part
        flush(part)
        part.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        _name(error, path)
        raise
    flush(path.parent)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty hidden folder beside `path` to fill, which then takes its place, as with `whole_file`."""
    part, old = path.with_name(f".{path.name}{PART}"), path.with_name(f".{path.name}{OLD}")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        for file in sorted(part.iterdir()):
            flush(file)
        flush(part)
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            move(path, old)
        part.replace(path)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not path.exists():
            move(old, path)
        _name(error, path)
        raise
    flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def move(source: Path, target: Path) -> None:
    """Rename a file or folder; where the file system cannot, as between two of them, copy it and then delete it."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        part = target.with_name(f".{target.name}{PART}")  # the target is whole once it is there
        remove(part)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, part)
        part.replace(target)
        remove(source)


def remove(path: Path) -> None:
    """Delete a file or a whole folder. A folder goes out of sight first, so that none is ever seen half deleted."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    hidden = path if path.name.startswith(".") else path.with_name(f".{path.name}{OLD}")
    if hidden != path:
        shutil.rmtree(hidden, ignore_errors=True)
        try:
            path.replace(hidden)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            hidden = path
    shutil.rmtree(hidden)


def set_aside(path: Path) -> Path:
    """Rename what is damaged, so that nothing reads it any more and nothing of it is lost. The new path."""
    names = (f"{path.name}.damaged{'' if n == 1 else f'-{n}'}" for n in range(1, 10**6))
    aside = next(there for name in names if not (there := path.with_name(name)).exists())
    move(path, aside)
    return aside


def tidy(path: Path) -> bool:
    """Delete what is needed no more; whether it could be done. Where it cannot, as a file that another process has open
    on a network's disk, that is said, and nothing ends because of it.
    """
    try:
        remove(path)
    except OSError as error:
        say(f"cannot delete {path} ({error.strerror or error}); the next training here tries it again")
        return False
    return True


def sweep(folder: Path, is_ours: Callable[[str], bool]) -> list[str]:
    """Delete what a killed process left half written or half deleted of the names that are ours; the names. A folder
    whose new version was not in place yet gets its old one back. Files of other processes, which have a number of
    their own in their names, are swept a day after they were written.
    """
    swept = []
    for left in sorted(folder.glob(".*")) if folder.is_dir() else []:
        name, numbered = left.name[1:].removesuffix(left.suffix), left.name[1:].rpartition(".")[0].rpartition(".")[0]
        if left.suffix not in (PART, OLD) or not (is_ours(name) or (is_ours(numbered) and _is_stale(left))):
            continue
        of = left.with_name(name)
        if left.suffix == OLD and left.is_dir() and left.with_name(f".{name}{PART}").is_dir() and not of.exists():
            move(left, of)
        elif tidy(left):
            swept.append(left.name)
    return swept


def _is_stale(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > STALE_S


def _name(error: BaseException, path: Path) -> None:
    """Say in an error of the system which file it is about, where the system did not."""
    if isinstance(error, OSError) and error.filename is None:
        error.filename = str(path)


def flush(path: Path) -> None:
    """Have the system put a file, or the names in a folder, on the disk. Windows does not flush folders."""
    if path.is_dir():
        if os.name == "nt":
            return
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return
    with path.open("r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())
