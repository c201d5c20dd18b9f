"""What `patchlight explain` prints."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from patchlight.cli.text import rate, table
from patchlight.units import counted

if TYPE_CHECKING:
    from patchlight.commands.explain import RunExplanation
    from patchlight.commands.explain_masks import MaskScore, MaskTable
    from patchlight.runs import Faithfulness, Interval

# The measures that fit a terminal's width; --json has all.
SHOWN_MEASURES = {
    "deletion mean": "deletion",
    "insertion mean": "insertion",
    "deletion tokens": "del. tokens",
    "insertion tokens": "ins. tokens",
    "infidelity": "infidelity",
    "sensitivity": "sensitivity",
    "randomized": "randomized",
    "other class": "other class",
    "pointing": "pointing",
}
LEGEND = (
    "deletion: mean probability while the most important patches are removed first, lower is better; insertion: the "
    "least important first, higher is better; infidelity: share of the logit's falls that the map does not predict, "
    "lower is better (what random reaches, the number of removed patches predicts alone); sensitivity: change of the "
    "map under slight noise, lower is better; randomized: rank correlation with the map of the same network with "
    "random weights, near 0 is good; other class: rank correlation with the map for the least likely class, 1 is blind "
    "to the class. Mean and half of the 95 % interval. A map that is no better than random or centre is not to be "
    "believed."
)


def faithfulness_table(result: Faithfulness, instead: str = "", *, chosen: bool = False) -> str:
    """A method in each row, the controls last; `instead` is the class whose maps stand beside the table, if another."""
    measures = [key for key in SHOWN_MEASURES if key in result.measures]
    rows = [
        (
            row.method + ("" if row.by_class else " (blind)"),
            *(_with_interval(row.scores[key], result.n) for key in measures),
            f"{row.ms:.2f}",
            "-" if row.ratio is None else f"{row.ratio:.1f}",
        )
        for row in result.rows
    ]
    header = ("method", *(SHOWN_MEASURES[key] for key in measures), "ms/image", "forwards")
    legend = "\n".join(textwrap.wrap(LEGEND, 120))
    images = counted(result.n, "image")
    predicted = f"{images}, for the predicted class{f' (not {instead})' if instead else ''}"
    if chosen:
        predicted += ", chosen to be looked at: explain --faithfulness measures the methods on images drawn at random"
    return f"{predicted}\n\n{table(rows, header)}\n\n{legend}"


def _with_interval(score: Interval, images: int) -> str:
    """A mean and half of its interval, which one image does not have."""
    if images == 1:
        return f"{score.mean:.2f}".replace("0.", ".")
    half = max(score.high - score.mean, score.mean - score.low)
    return f"{score.mean:.2f} ±{half:.2f}".replace("0.", ".")


def explanation_text(result: RunExplanation | Faithfulness) -> str:
    """What was explained and the figures, or with --faithfulness the table of the methods alone."""
    from patchlight.runs import Faithfulness

    if isinstance(result, Faithfulness):
        return faithfulness_table(result)
    like = result.target.startswith("like ")  # whose strength is a cosine
    rows = [
        (
            image.image,
            f"{image.predicted}, {rate(image.probability)}",
            image.true or "",
            image.target,
            f"{image.strength:+.2f}" if like else rate(image.strength),
        )
        for image in result.images
    ]
    header = ("image", "predicted", "true", "explained", "cosine" if like else "its probability")
    images = table(rows, header, left=4)
    counts = "" if result.right is None else f" ({result.right} right, {result.wrong} wrong)"
    chosen = "\n".join(textwrap.wrap(f"{counted(len(rows), 'image')}{counts}: {result.chosen}", 120))
    files = [
        *result.figures.items(),
        ("arrays", result.arrays),
        ("record", str(Path(result.arrays).with_name("explanation.json"))),
    ]
    instead = {"predicted": "", "true": "for the true one, which the maps are of"}.get(
        result.target, f"for '{result.target}', which the maps are of"
    )
    blocks = [chosen, images, *([classes_text(result)] if result.classes else [])]
    blocks += [f"maps: {', '.join(result.methods)}"]
    blocks += [] if result.positions is None else [f"tokens before the first layer: {result.positions}"]
    blocks += [] if result.masks is None else [masks_text(result.masks)]
    blocks += [
        faithfulness_table(result.faithfulness, instead, chosen=result.split is not None),
        table(files, left=2),
    ]
    return "\n\n".join(blocks)


MASK_MEASURES = {"pointing": "pointing", "energy": "energy", "iou": "IoU", "best_iou": "best IoU"}
MASK_LEGEND = (
    "pointing: share of images whose greatest value lies in the mask; energy: share of the map's positive part inside; "
    "IoU: of the mask and as many of the map's greatest pixels as the mask has; best IoU: at the threshold that is "
    "best for each image. In brackets what pixels drawn at random would give. This is agreement with people, not "
    "faithfulness to the model: a model that looks at the background has a right map outside of the mask. The middle "
    "of the image (centre) is the control to beat"
)


def masks_text(table_of: MaskTable) -> str:
    """Each method's agreement with people's masks, beside what chance gives."""
    rows = [(row.method, *(_with_chance(row.scores[key]) for key in MASK_MEASURES)) for row in table_of.rows]
    head = f"{counted(table_of.images, 'image')} with a mask in {table_of.folder}"
    said = "\n".join(dict.fromkeys(note for row in table_of.rows for note in row.notes))
    legend = "\n".join(textwrap.wrap(MASK_LEGEND, 120))
    parts = [head, table(rows, ("method", *MASK_MEASURES.values())), *([said] if said else []), legend]
    return "\n\n".join(parts)


def _with_chance(score: MaskScore) -> str:
    return "-" if score.mean is None or score.chance is None else f"{score.mean:.2f} ({score.chance:.2f})"


def classes_text(result: RunExplanation) -> str:
    """Of each class whose mean map was drawn, of how many images, and how like the map is to the controls."""
    rows = [(c.name, f"{c.n}", f"{c.right}", f"{c.centre:+.2f}", f"{c.random:+.2f}") for c in result.classes]
    about = (
        f"mean maps by {result.class_method}, each of the class's own images, right and wrong. like centre and random: "
        "rank correlation with these controls, which do not see the image (1: the same order of patches). Near 1 with "
        "centre, a mean map says that evidence lies in the middle and nothing about the class"
    )
    header = ("class", "images", "right", "like centre", "like random")
    return table(rows, header) + "\n\n" + "\n".join(textwrap.wrap(about, 120))
