"""One training in a run folder, and one writer of an answer, at a time: locks that the system gives back when their
process ends, however it ends.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from patchlight.errors import PatchlightError, UsageError
from patchlight.progress import say

LOCK, HOLDER = ".lock", ".lock.json"  # the second one says, for people, who has the first


class InUse(UsageError):
    """Another process trains in the folder."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Inside, no other process trains in `folder`, which is made where it is missing, and taken away again where
    nothing came into it.

    Raises InUse, which says who trains there, where one does; PatchlightError where the folder cannot be made or
    written in.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, timeout=0)
        with _taken(lock, folder) as is_sure:
            _look_at_holder(folder, is_sure)
            (folder / HOLDER).write_text(json.dumps(_myself()) + "\n", encoding="utf-8")
    except OSError as error:
        _take_away(made)
        raise PatchlightError(
            f"cannot write in {folder}: {error.strerror or error}; mend that, or choose another place with --out"
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            (folder / HOLDER).unlink(missing_ok=True)
            lock.release()
            _take_away(made)


@contextlib.contextmanager
def one_writer(file: Path, what: str, wait_s: float = -1) -> Iterator[None]:
    """Inside, no other process has the lock `file`, which is waited for: as long as it takes, or at most `wait_s`
    seconds. On a file system without locks the body runs without one, and it is said that nobody is to do `what` twice.

    Raises OSError where nothing can be written there.
    """
    lock = FileLock(file, timeout=wait_s)
    with contextlib.suppress(Timeout):
        _acquire(lock, file.parent, what)
    try:
        yield
    finally:
        lock.release()


def _acquire(lock: FileLock, folder: Path, what: str) -> bool:
    """Take the lock; False where the file system has none, which is said. Raises Timeout and OSError."""
    try:
        lock.acquire()
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        if isinstance(error, PermissionError) or not os.access(folder, os.W_OK):
            raise
        _say_once(f"the file system of {folder} has no locks ({error}): do not {what} twice at a time")
        return False
    return True


@functools.cache
def _say_once(line: str) -> None:
    say(line)


@contextlib.contextmanager
def _taken(lock: FileLock, folder: Path) -> Iterator[bool]:
    """The lock, given back after an error inside; whether there is one, which not all file systems have."""
    try:
        is_sure = _acquire(lock, folder, "train in it")
    except Timeout:
        raise InUse(f"{folder} is in use: {_holder(folder)}; wait for it or stop it, or use --out") from None
    try:
        yield is_sure
    except BaseException:
        lock.release()
        raise


def _myself() -> dict[str, object]:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    words = shlex.join(["patchlight", *sys.argv[1:]]) if sys.argv and "patchlight" in sys.argv[0] else ""
    return {"host": platform.node(), "process": os.getpid(), "since": now, "command": words}


def _read(folder: Path) -> dict[str, object]:
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return holder if isinstance(holder, dict) else {}
    except (OSError, ValueError):
        return {}


def _holder(folder: Path) -> str:
    who = _read(folder)
    if not who:
        return "another process trains there"
    command = f" (`{who['command']}`)" if who.get("command") else ""
    return f"process {who.get('process')} on {who.get('host')} trains there since {who.get('since')}{command}"


def _look_at_holder(folder: Path, is_sure: bool) -> None:
    """Say who had the lock and has ended without giving it back. Raises UsageError where, without a lock, that is not
    sure.
    """
    who = _read(folder)
    if not who:
        return
    if not is_sure and not _has_ended(who):
        raise InUse(
            f"{folder} may be in use: {_holder(folder)}; if it has ended, delete {folder / HOLDER}, or use --out"
        )
    say(
        f"{folder}: process {who.get('process')} on {who.get('host')}, which trained here since "
        f"{who.get('since')}, has ended; its lock is taken over"
    )


def _has_ended(who: dict[str, object]) -> bool:
    """Whether a process of this machine is no more; of another machine's that cannot be told."""
    number = who.get("process")
    if who.get("host") != platform.node() or not isinstance(number, int) or os.name == "nt":
        return False
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return number == os.getpid()


def _take_away(made: list[Path]) -> None:
    """Delete folders that were made for the lock, the deepest first, as far as nothing else is in them."""
    for folder in made:
        if not folder.is_dir() or any(path.name not in (LOCK, HOLDER) for path in folder.iterdir()):
            return
        for name in (LOCK, HOLDER):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()
