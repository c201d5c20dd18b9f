"""Foreign text in Markdown, as names of classes, files and models: it is read as text, whatever stands in it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from patchlight.units import printable

# Signs that mean something wherever they stand; a colon does only in an address or in the short name of an emoji, and
# the dot in www. makes an address, too. Each is shown as itself behind a backslash (CommonMark 2.4).
SIGNS = re.compile(r"[\\`*_{}\[\]<>#|~$]|&(?=[#\w])|:(?=\S)|(?<=www)\.|@(?=\w)", re.IGNORECASE)


def as_text(foreign: object) -> str:
    """The text on one line; no sign of it means anything."""
    return SIGNS.sub(r"\\\g<0>", " ".join(printable(str(foreign)).split()))


def as_code(foreign: object) -> str:
    """The text as code in a line: no row of backticks in it ends the code. Not for a table, where a bar divides it."""
    line = " ".join(printable(str(foreign)).split())
    ends = "`" * (_longest_row(line) + 1)
    pad = " " if line[:1] in ("", "`") or line.endswith("`") else ""  # one space on each side is not shown
    return f"{ends}{pad}{line}{pad}{ends}"


def as_block(lines: Sequence[str], language: str = "") -> list[str]:
    """Lines of code as a block, which nothing in them ends."""
    printed = [printable(line) for line in lines]
    ends = "`" * max(3, 1 + max(map(_longest_row, printed), default=0))
    return [f"{ends}{language}", *printed, ends]


def _longest_row(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
