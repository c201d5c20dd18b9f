"""What a column of images may hold that is not read: addresses, images or pixels as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from patchlight.errors import PatchlightError

ADDRESSES = ("http://", "https://", "s3://", "gs://", "ftp://", "file:")
LONGEST = 60  # characters of a cell that a message shows
NUMBERS = re.compile(r"\[*\s*\d+(\.\d*)?([\s,;]+\d+(\.\d*)?){63,}[\s\S]*")
BASE64 = re.compile(r"[A-Za-z0-9+/_=\s-]{100,}")


def shown(cell: Any) -> str:
    """A cell as a message has it: its beginning, where it is long."""
    text = str(cell)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def unread(cell: str) -> str | None:
    """What a cell is that should name an image file and does not, and what to do; None where nothing is known of it."""
    if cell.startswith("file:"):
        return f"addresses ({shown(cell)}); write the paths alone, without 'file:'"
    if cell.startswith(ADDRESSES):
        return f"addresses ({cell}); download them first, and list the paths of the files"
    if NUMBERS.fullmatch(cell):
        return (
            f"the pixels themselves as text ({shown(cell)}), which are not read; make an array (N, H, W) of them and "
            "store it with np.savez('images.npz', images=..., labels=...)"
        )
    if cell.startswith("data:image/") or BASE64.fullmatch(cell):
        return (
            f"images as text, base64 as it looks ({shown(cell)}), which is not read; decode them with base64.b64decode "
            "into files, and list their paths"
        )
    return None


def refuse_unread(names: Iterable[str], values: Callable[[str], list[Any]], where: str) -> None:
    """Raises PatchlightError for a table in which a column holds images in a way that is not read."""
    for name in names:
        first = next((cell for cell in values(name) if cell is not None), None)
        if isinstance(first, str) and (what := unread(first)):
            raise PatchlightError(f"{where}: the column '{name}' holds {what}")
