"""Errors that a user can mend: one sentence each, which names what is wrong and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# A new line or anything else that a terminal obeys, and bytes that are no text.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
WORD, SENTENCE = 300, 1400  # the longest that are shown whole


class PatchlightError(ValueError):
    """Something that the user can mend. The command line prints its message alone and exits with 1.

    A message quotes names and values that users and files give. Whatever these are, it is one line of text that every
    terminal can show, of at most SENTENCE characters: the middle of what is longer is left out, which is said there.
    """

    def __init__(self, message: str = "") -> None:
        words = re.sub(rf"\S{{{WORD + 1},}}", lambda found: shortened(found[0], WORD), on_one_line(message))
        super().__init__(shortened(words, SENTENCE))


class UsageError(PatchlightError):
    """A wrong name, setting or argument. The command line exits with 2."""


class LibraryMissing(UsageError):
    """A library that comes with an extra of the package is not installed."""


class Interrupted(PatchlightError):
    """Training was stopped by a signal, after a checkpoint was saved. The command line exits with 130."""


def on_one_line(text: str) -> str:
    """The text in UTF-8 on one line: what a terminal would obey and bytes that are no text are escaped, as in \\n."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shortened(text: str, most: int) -> str:
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
    return f"{what}; lower optim.lr, set optim.grad_clip = 1 or use train.precision = 'fp32'"
