"""What the files of a folder were when they were written: `manifest.jsonl`, a line for each, by which damage is found.

    {"file": "model.safetensors", "bytes": 21442120, "sha256": "...", "line": "..."}

`line` is a hash of the line itself. A line is added, and flushed, before its file is put into place, and none is ever
changed, so that a crash leaves no file that its manifest does not know, and two processes may write at once. A file is
sound where it is one of those that were written under its name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Seal:
    """Size in bytes and SHA-256 of a file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> Seal:
        """Raises OSError where it cannot be read."""
        with path.open("rb") as file:
            return cls(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())

    @classmethod
    def of_bytes(cls, data: bytes) -> Seal:
        return cls(len(data), hashlib.sha256(data).hexdigest())

    def line(self, name: str) -> str:
        """Of the manifest, for a file of this name."""
        facts = {"file": name, "bytes": self.size, "sha256": self.sha256}
        return json.dumps({**facts, "line": _check(facts)}) + "\n"


@dataclass(frozen=True)
class Manifest:
    """The manifest of a folder as it was read; `exists` is false where there is none, as of earlier versions."""

    folder: Path
    seals: dict[str, list[Seal]] = field(default_factory=dict)
    exists: bool = True
    unreadable: tuple[int, ...] = ()  # lines, from 1, but for a last one that a crash cut off

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises OSError where it is there and cannot be read."""
        try:
            data = (folder / MANIFEST).read_bytes()
        except FileNotFoundError:
            return cls(folder, exists=False)
        seals: dict[str, list[Seal]] = {}
        unreadable = []
        lines = data.split(b"\n")
        for number, line in enumerate(lines, start=1):
            if (found := _read(line)) is not None:
                seals.setdefault(found[0], []).append(found[1])
            elif line and number < len(lines):
                unreadable.append(number)
        return cls(folder, seals, unreadable=tuple(unreadable))

    def damage(self, name: str, data: bytes | None = None, *, must_be: bool = True) -> str | None:
        """What is wrong with the file of this name, whose content may be given: it is not as it was written, or it is
        not in the manifest and `must_be` there; else, or where there is no manifest, None. Raises OSError where it
        cannot be read.
        """
        if not self.exists:
            return None
        if (known := self.seals.get(name)) is None:
            if self.unreadable:
                return f"line {self.unreadable[0]} of {MANIFEST} beside it is damaged"
            return f"it does not stand in the {MANIFEST} beside it" if must_be else None
        if data is None and (self.folder / name).stat().st_size not in {seal.size for seal in known}:
            return f"it has {(self.folder / name).stat().st_size:,} bytes, and {known[-1].size:,} were written"
        seal = Seal.of(self.folder / name) if data is None else Seal.of_bytes(data)
        return None if seal in known else f"its SHA-256 is {seal.sha256[:12]}, and {known[-1].sha256[:12]} was written"

    def damage_of_all(self, is_ours: Callable[[str], bool]) -> str | None:
        """What is wrong with the folder: the first of its files, by the manifest, that is missing or damaged, or that
        `is_ours` and the manifest does not know; None where all are as they were written. Other files do not matter.
        Raises OSError where one cannot be read.
        """
        there = {path.name for path in self.folder.iterdir() if path.is_file()}
        for name in sorted({*self.seals, *(name for name in there if is_ours(name))}):
            if name not in there:
                return f"{name} is missing"
            if name not in self.seals:
                return f"{name} does not stand in its {MANIFEST}"
            if (wrong := self.damage(name)) is not None:
                return f"{name}: {wrong}"
        return None


def add_to_manifest(folder: Path, seals: Iterable[tuple[str, Seal]]) -> None:
    """Add lines to the manifest of `folder` and flush them."""
    text = "".join(seal.line(name) for name, seal in seals)
    path = folder / MANIFEST
    torn = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    data = (("\n" if torn else "") + text).encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        before = os.fstat(descriptor).st_size
        written = os.write(descriptor, data)  # one call, so that lines of two processes do not mix
        if written < len(data):
            if os.fstat(descriptor).st_size == before + written:
                os.ftruncate(descriptor, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal_folder(folder: Path) -> None:
    """Write the manifest of all files that are in a new folder, last of all."""
    files = [path for path in sorted(folder.iterdir()) if path.name != MANIFEST]
    add_to_manifest(folder, [(path.name, Seal.of(path)) for path in files])


def _check(facts: dict[str, object]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def _read(line: bytes) -> tuple[str, Seal] | None:
    """A line's file and seal; None where it is not what was written."""
    try:
        facts = json.loads(line)
        check = facts.pop("line")
        seal = Seal(facts["bytes"], facts["sha256"])
        return (facts["file"], seal) if check == _check(facts) else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
