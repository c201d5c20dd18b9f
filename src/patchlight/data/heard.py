"""What Pillow says of an image beside its pixels: its warnings and log lines, caught so that they can be counted.

Python keeps one list of warning filters and one hook for all threads, so they are set once around the decoding of many
images (`listening`), not once for each; the hook looks up which image its thread is at (`hearing`). Warnings of other
modules and of other threads are left alone.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any

from patchlight.machine.compat import silence_libtiff

_at = threading.local()  # .texts: what was said of the image that this thread decodes now
_lock = threading.Lock()


class hearing:
    """Collects what Pillow says in this thread inside of it, of one image; something is heard inside of `listening`.

    It is a class because it is entered for every image, and a generator would take longer.
    """

    def __enter__(self) -> list[str]:
        self.before, texts = getattr(_at, "texts", None), list[str]()
        _at.texts = texts
        return texts

    def __exit__(self, *_: object) -> None:
        _at.texts = self.before


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Inside of it Pillow's warnings and log lines reach `hearing`, in whatever thread, and no terminal."""
    with _lock:
        _HOOK.enter()
    try:
        yield
    finally:
        with _lock:
            _HOOK.leave()


class _Hook(logging.Handler):
    """Set where the first caller enters and taken away where the last one leaves, so that several may overlap."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.inside = 0

    def enter(self) -> None:
        self.inside += 1
        if self.inside > 1:
            return
        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        self.before = warnings.showwarning
        warnings.filterwarnings("always", module=r"PIL(\.|$)")
        warnings.showwarning = self.warned  # type: ignore[assignment]
        logging.getLogger("PIL").addHandler(self)
        silence_libtiff()

    def leave(self) -> None:
        self.inside -= 1
        if self.inside:
            return
        logging.getLogger("PIL").removeHandler(self)
        warnings.showwarning = self.before
        self.caught.__exit__(None, None, None)

    def warned(self, message: Any, category: Any, filename: str, lineno: int, *more: Any) -> None:
        if getattr(_at, "texts", None) is None:
            self.before(message, category, filename, lineno, *more)
        else:
            self.keep(str(message))

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(_at, "texts", None) is not None:
            self.keep(record.getMessage())

    def keep(self, text: str) -> None:
        text = " ".join(text.split())
        if text not in _at.texts:
            _at.texts.append(text)


_HOOK = _Hook()
