"""`patchlight data`: what a data source holds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from patchlight.analysis.previews import preview
from patchlight.config import AugmentConfig, load_recipe
from patchlight.data.audit import Audit, audit_source
from patchlight.data.splits import Splits, load_splits
from patchlight.errors import UsageError
from patchlight.figures import charts, galleries, style


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
    config = load_recipe(recipe, {**(settings or {}), "data.source": source})
    folder = Path(out) if out else Path("previews") / re.sub(r"[^A-Za-z0-9]+", "-", source).strip("-")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} exists; replace its pictures with --overwrite, or choose another place with --out")
    result = audit_source(source, config.data, config.model.img_size)
    if result.trained_on is None:
        return result
    paths = write_pictures(folder, load_splits(config.data, config.model.img_size), config.augment)
    return replace(result, figures=tuple(str(path) for path in paths))


def write_pictures(folder: Path, data: Splits, config: AugmentConfig) -> list[Path]:
    """Write `class_balance.png`, `samples.png` and `augmentation.png` into `folder`."""
    sets = {"train": data.train, "val": data.val, "test": data.test}
    counts = {name: images.class_counts().tolist() for name, images in sets.items() if images is not None}
    names, shown = data.train.class_names, preview(data.train, config)
    figures = {
        "class_balance": charts.class_balance(counts, names),
        "samples": galleries.sample_grid(shown.images, shown.labels, names),
        "augmentation": galleries.augmentation_preview(shown.originals, shown.views),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(style.png(figure, "light"))
    return [folder / f"{name}.png" for name in figures]
