"""`patchlight report`: the pages of a run, made again."""

from __future__ import annotations

from pathlib import Path

from patchlight.runs import Run


def report(run: str | Path | Run) -> Path:
    """Rebuild `report.html`, `figures/` and `README.md` from the run folder alone; returns the page's path."""
    from patchlight.reporting.page import build_report
    from patchlight.reporting.readme import build_readme

    folder = Run.open(run).path
    page = build_report(folder)
    build_readme(folder)
    return page
