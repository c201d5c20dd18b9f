"""Figures that are made and not drawn, for tests of something else: drawing takes half of the time of a small run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Modules take the names of `figures.style` when they are imported, which must not be while these are others.
import patchlight.reporting.embed
import patchlight.reporting.page
import patchlight.reporting.study_page
import patchlight.studies.sweep_result  # noqa: F401


@contextmanager
def undrawn(charts: bool = True) -> Iterator[None]:
    """PNG files inside are empty, and with `charts` so are the charts of pages."""
    with pytest.MonkeyPatch.context() as patch:
        for where in ("patchlight.reporting.page.png", "patchlight.figures.style.png"):
            patch.setattr(where, lambda figure, theme, description=None: b"")
        if charts:
            empty = "<svg xmlns='http://www.w3.org/2000/svg'/>"
            for where in ("patchlight.reporting.embed.svg", "patchlight.reporting.study_page.svg"):
                patch.setattr(where, lambda figure, theme: empty)
            for where in ("patchlight.reporting.study_page.png", "patchlight.reporting.study_page.pdf"):
                patch.setattr(where, lambda figure, theme, description=None: b"")
        yield
