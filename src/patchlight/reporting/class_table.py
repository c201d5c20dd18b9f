"""Precision, recall and F1 of each class as a table of the page, worked out of the confusion matrix, which every run
has recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from patchlight.evaluation.metrics import balanced_accuracy, macro_average, per_class_accuracy, precision_recall_f1
from patchlight.figures.style import cut
from patchlight.reporting.facts import NAME
from patchlight.runs import EvalResult, Metrics
from patchlight.units import percent

MOST = 30  # rows; of more classes those with the lowest F1 are shown

TEMPLATE = """
<div class="{{ "two apart" if tables|length > 1 else "apart" }}">
{% for t in tables %}
<div>
<h3>{{ t.title }}</h3>
<div class="wide">
<table class="of-classes">
<thead><tr><th scope="col">class</th>
{% for head in t.heads %}
<th scope="col" class="n">{{ head }}</th>
{% endfor %}
</tr></thead>
<tbody>
{% for name, cells in t.rows %}
<tr><th scope="row">{{ name }}</th>{% for cell in cells %}<td class="n">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
<tfoot>
<tr><th scope="row">mean of {{ t.of }} classes (macro)</th>
{% for cell in t.macro %}
<td class="n">{{ cell }}</td>
{% endfor %}
</tr>
</tfoot>
</table>
</div>
{% if t.left_out %}
<p class="quiet">{{ t.left_out }}</p>
{% endif %}
<p class="quiet">{{ t.balanced }}</p>
</div>
{% endfor %}
</div>
<p class="quiet">Precision: of the images that were taken for a class, how many are of it; 0 where none were. Recall: of
the images of a class, how many were recognised, which is its accuracy. F1 is the harmonic mean of both.</p>
"""
STYLE = """.of-classes th:first-child { color: var(--ink); }
.of-classes tfoot td, .of-classes tfoot th { border-bottom: none; font-weight: 600; }
.of-classes th, .of-classes td { padding-top: 3px; padding-bottom: 3px; }
"""


@dataclass(frozen=True)
class ClassTable:
    """What the template shows of one set of images."""

    title: str
    heads: tuple[str, ...]
    rows: Sequence[tuple[str, tuple[str, ...]]]  # a class, and its cells
    of: str  # which classes the mean is of: "the", or "all 100" where not all are shown
    macro: tuple[str, ...]
    left_out: str  # how many classes are not shown, and where they are; empty where all are
    balanced: str


def class_table(metrics: Metrics, title: str, trained: Mapping[str, int] | None, everything: str) -> ClassTable:
    """The table of one set of images. `trained` are the training images of each class, where they are known;
    `everything` says where all classes are to be found.
    """
    confusion, names = np.array(metrics.confusion), metrics.class_names
    precision, recall, f1 = precision_recall_f1(confusion)
    macro = [macro_average(column) for column in (precision, recall, f1)]
    own = (
        precision,
        per_class_accuracy(confusion),
        f1,
    )  # without images there is no recall, which the mean counts as 0
    chosen = np.arange(len(names))
    left_out = ""
    if len(names) > MOST:
        in_order = np.argsort(f1, kind="stable")  # nan, of a class that does not occur, goes last
        chosen, more = in_order[:MOST], len(names) - MOST
        left_out = f"These are the {MOST} classes with the lowest F1. The other {more:,} are in {everything}."
    rows = [
        (
            cut(names[i], NAME),
            (
                *(() if trained is None else (f"{trained.get(names[i], 0):,}",)),
                f"{confusion[i].sum():,}",
                *(_rate(column[i]) for column in own),
            ),
        )
        for i in chosen.tolist()
    ]
    return ClassTable(
        title=title,
        heads=(*(() if trained is None else ("trained on",)), "tested on", "precision", "recall", "F1"),
        rows=rows,
        of=f"all {len(names):,}" if left_out else "the",
        macro=(*([""] if trained is None else ["", ""]), *(_rate(value) for value in macro)),
        left_out=left_out,
        balanced=_balanced(confusion, metrics.top1),
    )


def where_all_are(result: EvalResult, folder: str) -> str:
    """Where the scores of all classes are to be found: results of earlier versions do not hold them."""
    return "eval.json, under scores" if result.scores is not None else f"what `patchlight eval {folder} --json` prints"


def _balanced(confusion: np.ndarray, top1: float) -> str:
    sizes = confusion.sum(axis=1)
    if len(set(sizes[sizes > 0].tolist())) == 1:
        return "All classes have equally many images here, so accuracy and balanced accuracy are the same."
    return (
        f"Balanced accuracy, the mean recall of classes that have images, is {_rate(balanced_accuracy(confusion))}; "
        f"accuracy, in which every image counts alike and large classes count most, is {_rate(top1)}."
    )


def _rate(value: float) -> str:
    return "\N{EN DASH}" if np.isnan(value) else percent(float(value), 1)
