"""The file of a sweep's journal: whether it is one, and what a full disk or a loss of power has left in it.

Optuna's journal is a line of JSON for each operation. A worker that could not write one to its end leaves half a line,
to which the next one adds its own. Optuna reads no such file; what was whole is all there, though.
"""

from __future__ import annotations

import json
from pathlib import Path

from patchlight.progress import say
from patchlight.units import counted

BEGIN = b'{"op_code"'  # of each line
MOST_BYTES = 1 << 20  # of a first line that is looked at
ASIDE = ".damaged"  # added to the journal's name: the file that gets what is taken out of it


def is_journal(path: Path) -> bool:
    """Whether a file begins as a journal does, or is empty as a new one; half a first line counts. Nothing is written.

    Raises OSError where it is there and cannot be read.
    """
    if not path.is_file():
        return False
    with path.open("rb") as file:
        line = file.readline(MOST_BYTES)
    if not line.endswith(b"\n"):
        return line.startswith(BEGIN) or BEGIN.startswith(line) or not line.strip(b"\0")
    return _is_whole(line) or _whole_part(line) > 0


def mend(path: Path) -> None:
    """Take half lines out of a journal, whose operations were never done, and keep them beside it. What is whole stays
    in its place, as other workers know the file by its bytes. To be called under the journal's lock.

    Raises OSError.
    """
    halves: list[bytes] = []
    with path.open("r+b") as file:
        begin = 0
        for line in iter(file.readline, b""):
            if not line.endswith(b"\n"):
                halves.append(line)
                file.truncate(begin)
                break
            if not _is_whole(line) and (cut := _whole_part(line)):
                halves.append(line[:cut])
                file.seek(begin)
                file.write(b" " * cut)  # JSON may begin with spaces
                file.seek(begin + len(line))
            begin += len(line)
    if halves:
        aside = path.with_name(path.name + ASIDE)
        with aside.open("ab") as file:
            file.writelines(half + b"\n" for half in halves)
        say(
            f"{path} had {counted(len(halves), 'line')} that a worker could not write to the end, as where a disk is "
            f"full; what there was of it is in {aside.name} now, and the sweep goes on without it"
        )


def _is_whole(line: bytes) -> bool:
    try:
        operation = json.loads(line)
    except ValueError:
        return False
    return isinstance(operation, dict) and "op_code" in operation


def _whole_part(line: bytes) -> int:
    """Where in a line a whole operation begins that another worker has added to half a line; 0 where there is none."""
    place = line.rfind(BEGIN)
    return place if place > 0 and _is_whole(line[place:]) else 0
