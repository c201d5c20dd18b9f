"""Paths as users give them, and names of files as text that every file and terminal can hold."""

from __future__ import annotations

import os
import re
from pathlib import Path

from patchlight.errors import UsageError, on_one_line

# An address, as https://..., also where pathlib has made one slash of two. A scheme has two letters or more: C:\ is a
# drive. What begins with hf: names a data set.
ADDRESS = re.compile(r"(?!hf:)[a-z][a-z0-9+.-]+://|(https?|ftp|s3|gs|file):/", re.IGNORECASE)


def user_path(given: str | Path) -> Path:
    """The path that a user means, `~` and `~name` being home folders where there are such.

    A file that is really called `~draft.png` is meant by that name, also where nobody is called `draft.png`. Raises
    UsageError for an empty path, which pathlib takes for the current folder, and for one that holds a zero byte,
    and for an address (`https://...`).
    """
    text = str(given)
    if not text:
        raise UsageError("a path is empty; name a file or a folder (a dot is the current folder)")
    if "\0" in text:
        raise UsageError(f"no path holds a zero byte, as {text!r} does; remove it")
    path = Path(text)
    if ADDRESS.match(text) and not is_there(path):
        if text.lower().startswith("file:"):
            raise UsageError(f"{printable(text)} is an address; write the path alone, without 'file:'")
        raise UsageError(f"{printable(text)} is an address, which is not read; download it first and name the file")
    if not text.startswith("~") or (path.parts[0] != "~" and is_there(Path(path.parts[0]))):
        return path
    try:
        return path.expanduser()
    except RuntimeError:  # nobody has this name
        return path


def is_there(path: Path) -> bool:
    """Whether something is there; nothing is where the system takes the name for none, as one that is too long."""
    return os.path.exists(path)  # noqa: PTH110 (pathlib raises OSError for such a name)


def is_folder(path: Path) -> bool:
    """Whether it is a folder, likewise."""
    return os.path.isdir(path)  # noqa: PTH112


def printable(name: str | Path) -> str:
    """The name as text in UTF-8 on one line: bytes that are none, and characters that a terminal would obey, such as a
    new line, are escaped, as in caf\\udce9.png.
    """
    return on_one_line(str(name))
