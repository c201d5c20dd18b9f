"""`patchlight data`: what a data source holds."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from patchlight.config import Config
from patchlight.data.audit import Audit, audit_source
from patchlight.data.splits import load_splits
from patchlight.errors import UsageError


def data(config: Config, *, out: str | Path | None = None, overwrite: bool = False) -> Audit:
    """Audit the recipe's data source and write three pictures, whose paths stand under `figures`."""
    from patchlight.reporting.data_figures import write_data_figures

    source = config.data.source
    folder = Path(out) if out else Path("previews") / re.sub(r"[^A-Za-z0-9]+", "-", source).strip("-")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} exists; replace its pictures with --overwrite, or choose another place with --out")
    result = audit_source(source, config.data, config.model.img_size)
    paths = []
    if result.trained_on is not None:
        paths = write_data_figures(folder, load_splits(config.data, config.model.img_size), config.augment)
    return replace(result, figures=tuple(str(path) for path in paths))
