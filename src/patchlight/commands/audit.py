"""`patchlight data`: what a data source holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchlight.config import load_recipe
from patchlight.data.audit import Audit, audit_source
from patchlight.data.splits import load_splits
from patchlight.errors import UsageError


def audit(
    source: str,
    settings: Mapping[str, Any] | None = None,
    *,
    recipe: str = "cifar10-cpu",
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Audit:
    """Audit a data source and write three pictures, whose paths stand under `figures`.

    The data and augmentation settings are the recipe's, with `settings` such as {"augment.policy": "randaugment"} laid
    over it. Raises UsageError where the folder `out` (or previews/SOURCE) holds something and `overwrite` is not given.
    """
    from patchlight.reporting.data_figures import write_data_figures

    config = load_recipe(recipe, {**(settings or {}), "data.source": source})
    folder = Path(out) if out else Path("previews") / re.sub(r"[^A-Za-z0-9]+", "-", source).strip("-")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} exists; replace its pictures with --overwrite, or choose another place with --out")
    result = audit_source(source, config.data, config.model.img_size)
    paths = []
    if result.trained_on is not None:
        paths = write_data_figures(folder, load_splits(config.data, config.model.img_size), config.augment)
    return replace(result, figures=tuple(str(path) for path in paths))
