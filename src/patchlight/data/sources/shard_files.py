"""The files of a set of shards: which they are, their splits, their order, and whether one is missing."""

from __future__ import annotations

import os
import re
from collections import Counter
from itertools import islice
from pathlib import Path

from patchlight.data.sources.choice import split_in_name
from patchlight.errors import PatchlightError

SUFFIX = re.compile(r"\.(tar|tgz|tar\.gz|tar\.bz2|tar\.xz)$", re.IGNORECASE)
NUMBER = re.compile(r"^(?P<before>.*?)(?P<number>\d+)(?:-of-(?P<total>\d+))?$")
MAX_SHARDS = 1_000_000
NAMES_FILES = ("classnames.txt", "labels.txt", "classes.txt")


def shard_files(path: Path) -> list[Path]:
    """The tar archives at a path: the file itself, or those in a folder and in the folders right below it, in order."""
    if path.is_file():
        return [path] if SUFFIX.search(path.name) else []
    if not path.is_dir():
        return []
    found = _tars(path)
    for folder in _visible(path):
        if folder.is_dir():
            found += _tars(Path(folder.path))
    return sorted(found, key=lambda file: (str(file.parent), *_order(file)))


def _tars(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _visible(folder) if SUFFIX.search(entry.name) and entry.is_file()]


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if not entry.name.startswith(".")]


def shard_splits(files: list[Path], root: Path) -> dict[str, list[Path]]:
    """The shards of each split, by the source's own name of it."""
    by_name: dict[str, list[Path]] = {}
    for file in files:
        folders = () if file.parent == root or file == root else (file.parent.name,)
        name = split_in_name(_order(file)[0].strip("-_. ") or SUFFIX.sub("", file.name), *folders)
        by_name.setdefault(name, []).append(file)
    return by_name


def refuse_gaps(files: list[Path]) -> tuple[str, ...]:
    """Raises PatchlightError, which names the first, where numbered shards leave one out. A note says with which they
    begin, where that is not 0.

    Years, as in `photos-2017.tar`, are no numbers of shards: these begin with 0 or 1, or with zeros, or say `-of-N`.
    """
    series: dict[tuple[Path, str], dict[int, Path]] = {}
    totals: dict[tuple[Path, str], int] = {}
    padded: set[tuple[Path, str]] = set()
    for file in files:
        found = NUMBER.match(SUFFIX.sub("", file.name))
        if found is None:
            continue
        key = (file.parent, found["before"])
        series.setdefault(key, {})[int(found["number"])] = file
        totals[key] = max(totals.get(key, 0), int(found["total"] or 0))
        if found["number"].startswith("0"):
            padded.add(key)
    notes = []
    for key, numbers in series.items():
        first, last = min(numbers), max(numbers)
        if total := totals[key]:
            begin = 1 if last == total or (first == 1 and key not in padded) else 0
            expected = range(begin, begin + total)
        elif first <= 1 or key in padded:
            expected = range(first, last + 1)
            if first > 0:
                notes.append(f"{key[0]}: the shards begin with {numbers[first].name}; none has a lower number")
        else:
            continue
        if missing := [number for number in islice(expected, MAX_SHARDS) if number not in numbers]:
            are = "is" if len(missing) == 1 else "are"
            raise PatchlightError(
                f"{key[0]}: the shard with number {missing[0]} is missing beside {numbers[first].name} ({len(missing)} "
                f"of {len(expected):,} {are} not there); get it again, or number the shards anew"
            )
    return tuple(notes)


def class_lines(folder: Path) -> tuple[Path, tuple[str, ...]] | None:
    """The file of class names beside the shards and its lines, where there is one."""
    there = [folder / name for name in NAMES_FILES if (folder / name).is_file()]
    if not there:
        return None
    if len(there) > 1:
        raise PatchlightError(f"{there[0]} and {there[1].name} may both name the classes; remove one")
    try:
        lines = [line.strip() for line in there[0].read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise PatchlightError(f"cannot read class names from {there[0]}: {error}") from error
    while lines and not lines[-1]:
        lines.pop()
    if not lines or not all(lines):
        raise PatchlightError(f"{there[0]} has an empty line; give each class a line with its name")
    if twice := next((name for name, count in Counter(lines).items() if count > 1), None):
        raise PatchlightError(f"{there[0]} names two classes '{twice}'; give each a name of its own")
    return there[0], tuple(lines)


def _order(file: Path) -> tuple[str, int]:
    found = NUMBER.match(SUFFIX.sub("", file.name))
    return (found["before"], int(found["number"])) if found else (SUFFIX.sub("", file.name), -1)
