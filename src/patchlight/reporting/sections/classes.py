"""Accuracy by class, the confusion matrix, and the most frequent mistakes."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from patchlight.evaluation.metrics import wilson_interval
from patchlight.figures import charts
from patchlight.figures.style import cut
from patchlight.reporting.embed import chart
from patchlight.reporting.facts import NAME, Facts
from patchlight.reporting.section import Content, Section
from patchlight.units import percent

MOST = 5  # frequent mistakes that are listed

TEMPLATE = """
{% if worst or empty %}
<p>
{% if worst %}
It knows <b>{{ best[0] }}</b> best ({{ best[1] }}) and <b>{{ worst[0] }}</b> least ({{ worst[1] }}).
{% endif %}
{% if empty %}
{{ empty }} {{ "class has" if empty == 1 else "classes have" }} no test images
and {{ "is" if empty == 1 else "are" }} left out.
{% endif %}
</p>
{% endif %}
<div class="two">
<figure>
{{ chart(bars) }}
<figcaption>Accuracy by class. The thin lines are 95 % Wilson intervals: where they overlap widely, the order may be
luck.</figcaption>
</figure>
<figure>
{{ chart(matrix) }}
<figcaption>Which class was taken for which. Right answers lie on the diagonal; the colour scale is stretched so that
rare mistakes show.</figcaption>
</figure>
</div>
{% if confused %}
<h3 class="apart">Most frequent mistakes</h3>
<ol class="pairs-of-names">
{% for label, pred, times, images in confused %}
<li><b>{{ label }}</b> taken for <b>{{ pred }}</b><br><span class="quiet">{{ times }} of {{ images }} images</span></li>
{% endfor %}
</ol>
{% endif %}
"""


def content(facts: Facts) -> Content | None:
    result = facts.result
    if result is None:
        return None
    names, matrix = facts.class_names, np.array(result.confusion)
    intervals = [wilson_interval(int(matrix[i, i]), int(matrix[i].sum())) for i in range(len(names))]
    slides = {
        "per_class": functools.partial(charts.per_class, result.per_class, intervals, overall=result.top1),
        "confusion": functools.partial(charts.confusion, matrix, names),
    }
    known = {name: rate for name, rate in result.per_class.items() if rate is not None}
    low, high = min(known.values()), max(known.values())  # a test set has at least one image
    worst, best = _with_rate(known, low), _with_rate(known, high)
    words = f"Accuracy of each class, from {best} ({percent(high)}) to {worst} ({percent(low)})."
    values = {
        "bars": chart(slides["per_class"], words),
        "matrix": chart(slides["confusion"], "Confusion matrix: true classes in rows, predicted ones in columns."),
        "worst": (worst, percent(low)) if low < high else None,
        "best": (best, percent(high)) if low < high else None,
        "confused": _most_confused(matrix, names),
        "empty": len(names) - len(known),
    }
    return Content(values, slides)


def _with_rate(rates: Mapping[str, float], rate: float) -> str:
    """The classes with just this rate, by name or, of many, by their number."""
    names = [name for name, own in rates.items() if own == rate]
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} classes"


def _most_confused(matrix: np.ndarray, names: list[str]) -> list[tuple[str, str, str, str]]:
    """True and predicted class, how often that was, and of how many images."""
    off = matrix * (1 - np.eye(len(matrix), dtype=int))
    order = np.argsort(-off, axis=None, kind="stable")[:MOST]
    pairs = [divmod(int(i), len(matrix)) for i in order]
    return [
        (cut(names[true], NAME), cut(names[pred], NAME), f"{off[true, pred]:,}", f"{matrix[true].sum():,}")
        for true, pred in pairs
        if off[true, pred]
    ]


SECTION = Section(
    title="Which classes it knows",
    content=content,
    template=TEMPLATE,
    slides={"per_class": "accuracy of each class", "confusion": "which class was taken for which"},
)
