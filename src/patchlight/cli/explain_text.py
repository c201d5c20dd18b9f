"""What `patchlight explain` prints."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from patchlight.cli.text import rate, table
from patchlight.runs.faithfulness import MIN_IMAGES
from patchlight.units import counted, printable

if TYPE_CHECKING:
    from patchlight.commands.explain import RunExplanation
    from patchlight.commands.explain_masks import MaskScore, MaskTable
    from patchlight.runs import Faithfulness, Interval, MethodScores

# The measures that fit a terminal's width, in two tables: heading, and the side that is better. --json has all.
REMOVAL = {
    "deletion mean": ("deletion", "low"),
    "insertion mean": ("insertion", "high"),
    "deletion road": ("road del.", "low"),
    "insertion road": ("road ins.", "high"),
    "deletion tokens": ("tokens del.", "low"),
    "insertion tokens": ("tokens ins.", "high"),
}
FURTHER = {
    "infidelity": ("infidelity", "low"),
    "sensitivity": ("sensitivity", "low"),
    "randomized": ("randomized", "near 0"),
    "other class": ("other class", ""),
    "pointing": ("pointing", "high"),
}
LEGENDS = {
    "deletion mean": "deletion: mean {strength} while the most important patches are painted over first; insertion: "
    "while the least important go first",
    "deletion road": "road: with what their neighbours suggest in the place of patches (Rong et al. 2022)",
    "deletion tokens": "tokens: with the tokens of patches taken away",
    "infidelity": "infidelity: share of the score's falls that the map does not predict (what random reaches, the "
    "number of removed patches predicts alone)",
    "sensitivity": "sensitivity: change of the map under slight noise",
    "randomized": "randomized: rank correlation with the map of the same network with random weights, near 0 is good",
    "other class": "other class: rank correlation with the map for the least likely other class, 1 is blind to the "
    "class",
    "pointing": "pointing: whether the greatest value is on the evidence, where that is known",
}
# What curves of removal follow, by the kind of target: the title of their table, and the word in the legend.
ANSWER = ("What is left of the answer as patches go, from 0 to 1", "probability")
STRENGTHS = {
    "difference": (
        "What is left of the answer as patches go, from 0 to 1",
        "probability, were there only the two classes,",
    ),
    "likeness": ("What is left of the likeness as patches go, from -1 to 1", "cosine"),
}
WIDTH = 120
DIGITS = 4  # behind the point, at most


def faithfulness_table(result: Faithfulness, *, chosen: bool = False, kind: str | None = None) -> str:
    """A method in each row, the controls set apart below; `chosen`: the images were, and are no random sample; `kind`
    of target, as `RunExplanation.target_kind`.
    """
    title, strength = STRENGTHS.get(kind or "", ANSWER)
    whose = f" of '{result.split}'" if result.split else ""
    about = f"{counted(result.n, 'image')}{whose}, for {result.target or 'the predicted class'}"
    if chosen:
        about += ", chosen to be looked at, with the quick measures: explain --faithfulness has all of them, on images "
        about += "drawn at random"
    shown = [key for key in (*REMOVAL, *FURTHER) if key in result.measures]
    legend = "; ".join(LEGENDS[key].format(strength=strength) for key in LEGENDS if key in shown)
    if "pointing" in shown and (known := result.rows[0].scores["pointing"].images):
        legend += f" (of {counted(known, 'image')})"
    return "\n\n".join(
        [
            _wrapped(about),
            _measures_table(result, REMOVAL, title),
            _measures_table(result, FURTHER, "What else maps are asked", times=True),
            _wrapped(
                f"{legend}; ms: what the map of an image takes, and in forward passes. low, high, near 0: which is "
                "better."
            ),
            _wrapped(verdict_text(result)),
        ]
    )


def verdict_text(result: Faithfulness) -> str:
    """What the intervals and the marks say, or why there are none."""
    if not result.has_intervals:
        return (
            f"Means alone: of {MIN_IMAGES} images or more they have intervals, and each method is tested against the "
            "controls."
        )
    spread = "Means with their 95 % intervals"
    if result.is_older:
        return (
            f"{spread}. No method is marked, as an older version measured this, which tested nothing: `patchlight "
            "explain RUN --faithfulness` measures again."
        )
    if result.tested is None:
        return f"{spread}."
    return (
        f"{spread}. x: not shown to be better than both controls, so not to be believed in this respect. Tested was "
        f"{result.tested}; sensitivity and randomized, in which a map that explains nothing may be best, were not."
    )


def _measures_table(
    result: Faithfulness, measures: Mapping[str, tuple[str, str]], title: str, times: bool = False
) -> str:
    keys = [key for key in measures if key in result.measures]
    names = ("method", *(measures[key][0] for key in keys), *(("ms", "forwards") if times else ()))
    better = ("better is", *(measures[key][1] for key in keys), *(("", "") if times else ()))

    def row(method: MethodScores) -> tuple[str, ...]:
        name = method.method + ("" if method.by_class or method in result.controls else " (blind)")
        cells = [_cell(method.scores[key], result.has_intervals) for key in keys]
        ratio = "-" if method.ratio is None else f"{method.ratio:.1f}"
        return (name, *cells, *((f"{method.ms:.{1 if method.ms >= 100 else 2}f}", ratio) if times else ()))

    lines = table([better, *map(row, (*result.methods, *result.controls))], names).split("\n")
    lines.insert(2 + len(result.methods), "controls, which do not look at the model:")
    return "\n".join([title, *lines])


def _cell(score: Interval, with_interval: bool) -> str:
    """x.35 .31-.38: a mean, marked where it fails, and its interval. Between ends of which one is below 0 is "to"; ends
    that are the same in two digits have more, and "±0" is of those that are the mean.
    """
    mean = ("x" if score.fails else "") + _number(score.mean)
    if not with_interval or score.low is None or score.high is None:
        return mean
    if max(abs(score.low - score.mean), abs(score.high - score.mean)) < 1e-9:
        return f"{mean} ±0"
    for digits in range(2, DIGITS + 1):
        low, high = _number(score.low, digits), _number(score.high, digits)
        if low != high:
            return f"{mean} {low}{' to ' if '-' in low + high else '-'}{high}"
    return f"{mean} ±<{_number(10**-DIGITS, DIGITS)}"


def _number(value: float, digits: int = 2) -> str:
    """So many digits, without a zero before the point or a sign before nothing: .35, -.05, 1.20, .00."""
    text = f"{round(value, digits) + 0.0:.{digits}f}"
    return text.replace("0.", ".", 1) if text.removeprefix("-").startswith("0.") else text


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(printable(text), WIDTH))


def explanation_text(result: RunExplanation | Faithfulness) -> str:
    """What was explained and the figures, or with --faithfulness the table of the methods alone."""
    from patchlight.runs import Faithfulness

    if isinstance(result, Faithfulness):
        return faithfulness_table(result)
    like = result.target_kind == "likeness"  # whose strength is a cosine
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
    chosen = _wrapped(f"{counted(len(rows), 'image')}{counts}: {result.chosen}")
    files = [
        *result.figures.items(),
        ("arrays", result.arrays),
        ("record", str(Path(result.arrays).with_name("explanation.json"))),
    ]
    blocks = [chosen, images, *([classes_text(result)] if result.classes else [])]
    reads = {call: f" (features of {layer})" for call, layer in result.features.items()}
    blocks += [_wrapped(f"maps: {', '.join(call + reads.get(call, '') for call in result.methods)}")]
    blocks += [] if result.positions is None else [f"tokens before the first layer: {result.positions}"]
    blocks += [] if result.masks is None else [masks_text(result.masks)]
    blocks += [
        faithfulness_table(result.faithfulness, chosen=result.split is not None, kind=result.target_kind),
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
    head = f"{counted(table_of.images, 'image')} with a mask in {printable(table_of.folder)}"
    said = "\n".join(dict.fromkeys(printable(note) for row in table_of.rows for note in row.notes))
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
