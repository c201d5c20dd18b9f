"""Writing files whole: those of a report, and of an explanation."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from patchlight.errors import PatchlightError


def write_file(path: Path, data: bytes) -> Path:
    """All of it or nothing: a reader never sees half a file. Raises PatchlightError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = write_part(path, data)
        try:
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(path, error) from None
    return path


def write_part(path: Path, data: bytes) -> Path:
    """The file beside `path`, hidden, that holds the data until it takes its place. Raises OSError, and leaves nothing
    then.
    """
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(part).chmod(0o644)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
    return Path(part)


def cannot_write(path: Path, error: OSError) -> PatchlightError:
    """The error of a file that cannot be written."""
    return PatchlightError(f"cannot write {path}: {error.strerror}; free some space or mend its permissions")
