"""`patchlight report`: the pages of a run, made again."""

from __future__ import annotations

from pathlib import Path

from patchlight.runs import Run


def report(run: str | Path) -> Path:
    """Rebuild `report.html`, `figures/` and `README.md` from the run folder alone."""
    from patchlight.reporting.page import build_readme, build_report

    path = build_report(Run.open(run).path)
    build_readme(Path(run))
    return path
