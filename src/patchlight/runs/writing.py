"""Writing that a crash, a full disk or a lost power cannot leave half done: flushed, then put into place in one step.

What is being written is hidden and ends with `.part`, what is to be deleted with `.old`. A process that was killed
leaves such files; the next training in the folder sweeps them away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

PART, OLD = ".part", ".old"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write into: afterwards it is on the disk as `path`, or after an error nowhere."""
    part = path.with_name(f".{path.name}{PART}")
    try:
        yield part
        flush(part)
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
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
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if old.exists() and not path.exists():
            move(old, path)
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
    if path.is_dir() and not path.is_symlink():
        hidden = path if path.name.startswith(".") else path.with_name(f".{path.name}{OLD}")
        if hidden != path:
            shutil.rmtree(hidden, ignore_errors=True)
            move(path, hidden)
        shutil.rmtree(hidden)
    else:
        path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename what is damaged, so that nothing reads it any more and nothing of it is lost. The new path."""
    names = (f"{path.name}.damaged{'' if n == 1 else f'-{n}'}" for n in range(1, 10**6))
    aside = next(there for name in names if not (there := path.with_name(name)).exists())
    move(path, aside)
    return aside


def sweep(folder: Path) -> list[str]:
    """Delete what a killed process left half written or half deleted in `folder`; the names. A folder whose new version
    was not in place yet gets its old one back.
    """
    swept = []
    for left in sorted(folder.glob(".*")) if folder.is_dir() else []:
        if left.suffix not in (PART, OLD) or left.name in (PART, OLD):
            continue
        of = left.with_name(left.name[1:].removesuffix(left.suffix))
        if left.suffix == OLD and left.is_dir() and left.with_name(f".{of.name}{PART}").is_dir() and not of.exists():
            move(left, of)
        else:
            remove(left)
            swept.append(left.name)
    return swept


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
