"""`patchlight data`: what a data source holds, and what a recipe makes of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from patchlight.analysis.copies import find_copies
from patchlight.analysis.previews import preview
from patchlight.config import Config, recipe_names
from patchlight.data.audit import Audit, audit_source
from patchlight.data.similar import NearDuplicates
from patchlight.data.sources import SOURCES
from patchlight.data.splits import Splits, load_splits
from patchlight.errors import LibraryMissing, PatchlightError, UsageError
from patchlight.figures import charts, galleries, style
from patchlight.models import ModelCard, check_model, own_input, with_own_input
from patchlight.models.backbone import OwnInput
from patchlight.paths import is_folder, is_there, user_path
from patchlight.runs import BatchFacts, FirstBatch, recipe_of
from patchlight.training.first_batch import first_batch, input_card
from patchlight.training.inputs import fill_colour

DEFAULT_RECIPE = "cifar10-cpu"


@dataclass(frozen=True)
class DataReport(Audit):
    """All that `patchlight data` tells: the audit of a source, and the first batch that a recipe trains on."""

    near_duplicates: NearDuplicates | None = None  # across the sets that are trained on and measured
    first_batch: BatchFacts | None = None  # None where the source cannot be trained on as it is
    figures: tuple[str, ...] = ()  # paths of the pictures that were written


def audit(
    source: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    recipe: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> DataReport:
    """Audit a data source and write four pictures, or five, whose paths stand under `figures`.

    Splits, augmentation, mixing, normalisation and the size of the batch are the recipe's (by default cifar10-cpu's),
    with `settings` such as {"augment.policy": "randaugment"} laid over it; without a `source` it is the recipe's own.
    Raises UsageError where neither is given, where the model's name is wrong, and where the folder `out` (or
    previews/SOURCE) holds something and `overwrite` is not given.
    """
    if source == "":
        user_path(source)  # for its error: an empty word is not the current folder
    if source is None and recipe is None:
        raise UsageError("give a data source, or a recipe with --recipe, whose source is looked at")
    given = {} if source is None else {"data.source": source}
    if source is not None and (settings or {}).get("data.source", source) != source:
        raise UsageError(
            f"two sources are given: {source} and --data.source {(settings or {})['data.source']}; leave one out"
        )
    config = recipe_of(recipe or DEFAULT_RECIPE, {**(settings or {}), **given})
    source = config.data.source
    if given and source in recipe_names() and source not in SOURCES and not is_there(user_path(source)):
        raise UsageError(f"{source} is a recipe, not a data source; write `patchlight data --recipe {source}`")
    name = re.sub(r"[^A-Za-z0-9]+", "-", source)[-100:].strip("-") or "source"
    folder = user_path(out) if out is not None else Path("previews") / name
    if not overwrite and is_folder(folder) and any(folder.iterdir()):
        raise UsageError(f"{folder} exists; replace its pictures with --overwrite, or choose another place with --out")
    config, own, unknown = with_own(config)
    found = audit_source(source, config.data, config.model.img_size)
    if found.trained_on is None:
        return DataReport(**{**vars(found), "notes": (*found.notes, *unknown)})
    data = load_splits(config.data, config.model.img_size)
    card = input_card(config, data.train, own)
    facts, shown = first_batch(data.train, config.of_stages()[0], card)
    near, copies = find_copies(data)
    figures = draw_pictures(data, config, card, shown)
    if len(copies.pairs):
        figures["near_copies"] = galleries.pairs(copies.pairs, galleries.pair_captions(copies, data.train.class_names))
    paths, elsewhere = write_somewhere(folder, figures)
    changes = {
        "notes": (*found.notes, *unknown, *copies.sentences(), *elsewhere),
        "problems": (*found.problems, *facts.errors, *facts.warnings),
        "near_duplicates": near,
        "first_batch": facts,
        "figures": tuple(str(path) for path in paths),
    }
    return DataReport(**{**vars(found), **changes})


def with_own(config: Config) -> tuple[Config, OwnInput, tuple[str, ...]]:
    """The recipe as training completes it by what its weights say of their images, that, and a note where they cannot
    be asked now.

    Raises UsageError for a model that training would refuse.
    """
    try:
        check_model(config.model)
        own = own_input(config.model)
        return with_own_input(config, own), own, ()
    except PatchlightError as error:
        if isinstance(error, UsageError) and not isinstance(error, LibraryMissing):
            raise
        note = (
            f"the images that {config.model.name} was made for are not known here ({error}); training asks again. Here "
            "images keep the data's size, are resized by bicubic interpolation and normalised by their own mean and "
            "deviation, where the recipe says nothing else"
        )
        return config, OwnInput(), (note,)


def draw_pictures(data: Splits, config: Config, card: ModelCard, batch: FirstBatch) -> dict[str, Figure]:
    """The pictures by the names of their files."""
    counts = {name.replace("_", " "): images.class_counts().tolist() for name, images in data.sets.items()}
    names = data.train.class_names
    shown = preview(data.train, config.of_stages()[0].augment, config.train.seed, fill_colour(card))
    return {
        "class_balance": charts.class_balance(counts, names),
        "samples": galleries.sample_grid(shown.images, shown.labels, names),
        "augmentation": galleries.augmentation_preview(shown.originals, shown.views),
        "first_batch": galleries.batch(batch, names),
    }


def write_somewhere(folder: Path, figures: Mapping[str, Figure]) -> tuple[list[Path], tuple[str, ...]]:
    """The pictures' paths: in `folder` or, where nothing can be written there, in a new temporary one, and a note."""
    try:
        return write_pictures(folder, figures), ()
    except OSError as error:
        instead = Path(tempfile.mkdtemp(prefix="patchlight-previews-"))
        note = f"nothing can be written to {folder} ({error.strerror}), so the pictures are in {instead}"
        return write_pictures(instead, figures), (note,)


def write_pictures(folder: Path, figures: Mapping[str, Figure]) -> list[Path]:
    """`folder/NAME.png` of every figure."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        (folder / f"{name}.png").write_bytes(style.png(figure, "light"))
    return [folder / f"{name}.png" for name in figures]
