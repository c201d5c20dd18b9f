"""Errors that a user can mend: one sentence each, which names what is wrong and the fix."""

from __future__ import annotations

import difflib
import re
import signal
from collections.abc import Iterable

from patchlight.units import printable

WORD, SENTENCE = 300, 1400  # the longest that are shown whole


class PatchlightError(ValueError):
    """Something that the user can mend. The command line prints its message alone and exits with 1.

    A message quotes names and values that users and files give. Whatever these are, it is one line of text that every
    terminal can show, of at most SENTENCE characters: the middle of what is longer is left out, which is said there.
    """

    def __init__(self, message: str = "") -> None:
        words = re.sub(rf"\S{{{WORD + 1},}}", lambda found: _without_middle(found[0], WORD), printable(message))
        super().__init__(_without_middle(words, SENTENCE))

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


def _without_middle(text: str, most: int) -> str:
    """The text without its middle where it is longer than `most`."""
    if len(text) <= most:
        return text
    gap = f"[... {len(text)} characters ...]"
    end = (most - len(gap)) // 3
    return text[: most - len(gap) - end] + gap + text[-end:]


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
    return f"{what}; lower optim.lr, set optim.grad_clip = 1 or, unless it is that, use train.precision = 'fp32'"
