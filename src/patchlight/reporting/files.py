"""Writing the files of a report."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from patchlight.errors import PatchlightError


def write_file(path: Path, data: bytes) -> Path:
    """All of it or nothing: a reader never sees half a file. Raises PatchlightError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(part).chmod(0o644)
            Path(part).replace(path)
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PatchlightError(
            f"cannot write {path}: {error.strerror}; free some space or mend its permissions"
        ) from None
    return path
