"""Errors that a user can mend: one sentence each, which names what is wrong and the fix."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable

from patchlight.units import printable


class PatchlightError(ValueError):
    """Something that the user can mend. The command line prints its message alone and exits with 1.

    Its text may name what strangers have named; nothing in it acts on a terminal.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(PatchlightError):
    """A wrong name, setting or argument. The command line exits with 2."""


class LibraryMissing(UsageError):
    """A library that comes with an extra of the package is not installed."""


class Interrupted(PatchlightError):
    """Training was stopped by a signal, whose `number` it is. The command line exits with 128 and that number."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = number


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does."""

    number = signal.SIGTERM


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A clause for the end of an error message: the nearest known name, or the list of them (the first twelve)."""
    names = sorted(known)
    nearest = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if nearest:
        return f"did you mean '{nearest[0]}'?"
    return f"known: {first_of(names, 12)}"


def first_of(words: Iterable[str], count: int) -> str:
    """The words with commas between them: the first `count` of more, and how many more there are."""
    listed = list(words)
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(listed[:count]) + more


def diverged(what: str) -> str:
    """The message of a training that diverged."""
    return f"{what}; lower optim.lr, set optim.grad_clip = 1 or use train.precision = 'fp32'"
