"""How long work shows that it goes on: a bar on a terminal, plain lines elsewhere; always on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from patchlight.units import clock, on_lines, printable

LINE_EVERY_S = 30.0
BAR_EVERY_S = 0.5
DELAY_S = 0.3  # a bar that is gone sooner is not shown


def say(text: str) -> None:
    """Print one line on standard error, above the progress bar where there is one. What a terminal would obey, as in
    the name of a file, is escaped.

    No work ends because nobody can read of it: where there is no standard error, or it cannot be written any more (a
    closed pipe or terminal, a full disk), the line is lost.
    """
    stream = _standard_error()
    if stream is not None:
        with contextlib.suppress(OSError):
            tqdm.write(printable(text), file=stream)


def _standard_error() -> TextIO | None:
    """None in a process that has none, as without a console on Windows, or has closed it."""
    return None if sys.stderr is None or getattr(sys.stderr, "closed", False) else sys.stderr


def tell(text: str) -> None:
    """Print a piece of a result on standard output, likewise."""
    tqdm.write(on_lines(text), file=sys.stdout)


class Progress:
    """Counts steps from `done` to `total`. Ask `due()` before computing something that is only shown."""

    def __init__(self, total: int, label: str, done: int = 0) -> None:
        self.total, self.label, self.done = total, printable(label), done
        stream = _standard_error()
        self.terminal = stream is not None and stream.isatty()
        self.bar = tqdm(
            total=total,
            initial=done,
            desc=self.label,
            leave=False,
            dynamic_ncols=True,
            file=stream,
            disable=not self.terminal,
            mininterval=0.2,
            delay=DELAY_S,
        )
        self.started = self.shown = time.monotonic()
        self.first = done

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            self.bar.close()

    def advance(self, steps: int = 1) -> None:
        """Count steps that are done."""
        self.done += steps
        with contextlib.suppress(OSError):  # as `say` does
            self.bar.update(steps)

    def extend(self, total: int) -> None:
        """Set the number of steps anew."""
        self.total = self.bar.total = total

    def due(self) -> bool:
        """True when it is time to `show`."""
        return time.monotonic() - self.shown >= (BAR_EVERY_S if self.terminal else LINE_EVERY_S)

    def show(self, text: str, left_s: float | None = None) -> None:
        """Show `text` behind the bar, or in a line with the steps done and the seconds left, where these are known."""
        self.shown = time.monotonic()
        if self.terminal:
            self.bar.set_postfix_str(printable(text), refresh=False)
        else:
            left_s = self.left_s() if left_s is None else left_s
            say(f"{self.label} {self.done}/{self.total}  {text}  {clock(left_s)} left")

    def left_s(self) -> float:
        """Seconds until `total` at the pace so far; infinite before the first step."""
        steps = self.done - self.first
        pace = steps / (time.monotonic() - self.started) if steps else 0.0
        return (self.total - self.done) / pace if pace else float("inf")
