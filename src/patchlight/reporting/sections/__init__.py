"""The sections of the page, one file each. SECTIONS is the page: its order is theirs."""

from __future__ import annotations

from patchlight.reporting.section import Section
from patchlight.reporting.sections import (
    answers,
    attention,
    calibration,
    classes,
    copies,
    curves,
    embeddings,
    environment,
    explorer,
    faithfulness,
    first_batch,
    heads,
    layers,
    patches,
    recipe,
    reconstructions,
    relevance,
    snapshots,
)

SECTIONS: list[Section] = [
    recipe.SECTION,
    first_batch.SECTION,
    reconstructions.SECTION,
    curves.SECTION,
    classes.SECTION,
    calibration.SECTION,
    answers.MISTAKES,
    answers.RIGHT_ANSWERS,
    answers.SUBSET_ANSWERS,
    copies.SECTION,
    patches.SECTION,
    embeddings.SECTION,
    attention.SECTION,
    relevance.SECTION,
    layers.SECTION,
    explorer.SECTION,
    snapshots.SECTION,
    heads.SECTION,
    faithfulness.SECTION,
    environment.SECTION,
]
