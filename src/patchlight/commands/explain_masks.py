"""Maps of image files against masks that people drew: `patchlight explain RUN photos --masks DIR`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from patchlight.analysis.subject import Subject
from patchlight.commands.explain_figures import ABREAST, captions_of, ends_of, map_row, part_of
from patchlight.commands.explain_target import Asked
from patchlight.data.files import ImageFiles
from patchlight.data.masks import MaskFiles, Masks, find_masks, read_masks
from patchlight.errors import UsageError
from patchlight.explanation.localization import Localization, check_tolerance, localize
from patchlight.explanation.methods import CONTROLS, Explanation, explain_inputs
from patchlight.progress import say
from patchlight.runs.codec import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class MaskScore(Record):
    """The mean over `n` images, and what chance gives there; None of no image."""

    mean: float | None
    chance: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class MaskRow(Record):
    """A method, with its options; `scores` by the rows of `localization.MEASURES`; `notes` on images left out."""

    method: str
    scores: dict[str, MaskScore]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MaskTable(Record):
    """How far maps lie where people say that the object is."""

    folder: str
    images: int  # that have a mask
    notes: tuple[str, ...]  # on masks and images that were left out, and on how masks were read
    rows: tuple[MaskRow, ...]  # the controls last


def mask_files_of(folder: str | Path | None, tolerance: float, files: ImageFiles) -> MaskFiles | None:
    """The files in `folder` that are masks of the image files; None where no folder is given.

    Raises UsageError where the images are no files, or there is a tolerance and no folder; PatchlightError for masks
    that cannot be found.
    """
    check_tolerance(tolerance)
    if folder is None:
        if tolerance:
            raise UsageError("--tolerance is for --masks; leave it out, or name the folder of masks")
        return None
    if not files.paths:
        raise UsageError("--masks are found by the names of image files; name the files, too")
    return find_masks(folder, files.paths)


def masks_of(found: MaskFiles, subject: Subject) -> Masks:
    """The masks as the images are shown to the model. Raises PatchlightError for one that cannot be read."""
    masks = read_masks(found, subject.card.fit_size, subject.card.img_size)
    masks = Masks(masks.inside, masks.given, (*found.notes, *masks.notes))
    for note in masks.notes:
        say(note)
    return masks


def against_masks(
    folder: str | Path,
    masks: Masks,
    tolerance: float,
    subject: Subject,
    explanations: Mapping[str, Explanation],
    asked: Asked,
) -> MaskTable:
    """Every method that was shown, and the controls, on the images that have a mask."""
    maps: dict[str, Tensor] = {call: found.pixel_maps for call, found in explanations.items()}
    for name in CONTROLS:
        if name not in maps:
            maps[name] = explain_inputs(subject.anatomy, subject.inputs, method=name, target=asked.target).pixel_maps
    ordered = [*(call for call in maps if call not in CONTROLS), *CONTROLS]
    inside = masks.inside[masks.given]
    rows = (row_of(name, localize(maps[name].cpu()[masks.given], inside, tolerance=tolerance)) for name in ordered)
    return MaskTable(folder=str(folder), images=int(masks.given.sum()), notes=masks.notes, rows=tuple(rows))


def draw_masks(
    subject: Subject, explanations: Mapping[str, Explanation], asked: Asked, masks: Masks, percentile: float
) -> Figure:
    """The first images that have a mask, with its edge over each map."""
    from patchlight.figures.masks import agreement_board

    places = masks.given.nonzero().flatten()[:ABREAST].tolist()
    captions = captions_of(subject, asked, next(iter(explanations.values())))
    rows = [map_row(call, found) for call, found in explanations.items()]
    return agreement_board(
        subject.pictures[places],
        [captions[place] for place in places],
        masks.inside[places].numpy(),
        [part_of(row, places) for row in rows],
        f"Maps and the masks of people{asked.title}",
        percentile=percentile,
        ends=ends_of(asked),
    )


def row_of(method: str, found: Localization) -> MaskRow:
    scores = {}
    for name, scored in found.scores.items():
        mean, chance, n = scored.means()
        scores[name] = MaskScore(mean=mean if n else None, chance=chance if n else None, n=n)
    return MaskRow(method=method, scores=scores, notes=found.sentences())
