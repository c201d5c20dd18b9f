"""Accuracy by class, the confusion matrix, the most frequent mistakes, and precision, recall and F1."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np

from patchlight.evaluation.metrics import wilson_interval
from patchlight.figures import charts
from patchlight.figures.style import cut
from patchlight.reporting import class_table
from patchlight.reporting.embed import chart
from patchlight.reporting.facts import NAME, Facts
from patchlight.reporting.section import Content, Section
from patchlight.runs import EvalResult, Metrics
from patchlight.units import counted, percent

MOST = 5  # frequent mistakes that are listed
TAKEN = (
    "Which class was taken for which. Right answers lie on the diagonal; the colour scale is stretched so that rare "
    "mistakes show."
)

MISTAKES = """
<ol class="pairs-of-names">
{% for label, pred, times, images in confused %}
<li><b>{{ label }}</b> taken for <b>{{ pred }}</b><br><span class="quiet">{{ times }} of {{ images }} images</span></li>
{% endfor %}
</ol>
"""
TEMPLATE = (
    """
{% if worst or empty %}
<p>
{% if worst %}
It knows <b>{{ best[0] }}</b> best ({{ best[1] }}) and <b>{{ worst[0] }}</b> least ({{ worst[1] }}).
{% endif %}
{% if empty %}
{{ empty }} {{ "class has" if empty == 1 else "classes have" }} no test images{% if subset %} (the subset may have
some){% else %} and {{ "is" if empty == 1 else "are" }} left out{% endif %}.
{% endif %}
</p>
{% endif %}
{% if subset %}
<p>Beside the {{ n }} test images stand the {{ subset }} test images that were cut off the training set
(<code>data.subset_test_per_class</code>): what an experiment on a part of the data calls its test.</p>
{% endif %}
<div class="two">
<figure>
{{ chart(bars) }}
<figcaption>Accuracy by class{% if subset %}, in the order of all test images{% endif %}. The thin lines are 95 % Wilson
intervals: where they overlap widely, the {{ "difference" if subset else "order" }} may be luck.</figcaption>
</figure>
{% if not subset %}
<figure>
{{ chart(matrices[0]) }}
<figcaption>{{ taken }}</figcaption>
</figure>
{% elif confused %}
<div>
<h3>Most frequent mistakes on all test images</h3>
{{ MISTAKES }}
</div>
{% endif %}
</div>
{% if subset %}
<div class="two apart">
{% for matrix in matrices %}
<figure>
{{ chart(matrix) }}
</figure>
{% endfor %}
</div>
<p class="quiet">{{ taken }}</p>
{% endif %}
{% if confused and not subset %}
<h3 class="apart">Most frequent mistakes</h3>
{{ MISTAKES }}
{% endif %}
""".replace("{{ MISTAKES }}", MISTAKES.strip())
    + class_table.TEMPLATE.lstrip()
)


def content(facts: Facts) -> Content | None:
    result = facts.result
    if result is None:
        return None
    names, subset = facts.class_names, facts.subset
    split = counted(result.n, f"{result.split} image")
    rates = [class_rates(result, split)]
    matrices: dict[str, tuple[Metrics, str]] = {"confusion": (result, split if subset else "")}
    if subset is not None:
        own = f"{subset.n:,} test images of the subset"
        rates.append(class_rates(subset, own))
        matrices["confusion_subset"] = subset, own
    slides = {
        "per_class": functools.partial(charts.per_class, rates),
        **{
            name: functools.partial(charts.confusion, np.array(metrics.confusion), names, title=title)
            for name, (metrics, title) in matrices.items()
        },
    }
    known = {name: rate for name, rate in result.per_class.items() if rate is not None}
    low, high = min(known.values()), max(known.values())  # a test set has at least one image
    worst, best = _with_rate(known, low), _with_rate(known, high)
    words = f"Accuracy of each class, from {best} ({percent(high)}) to {worst} ({percent(low)})."
    values = {
        "bars": chart(slides["per_class"], words),
        "matrices": [
            chart(slides[name], f"Confusion matrix{on}: true classes in rows, predicted ones in columns.")
            for name, on in ((name, f" of the {title}" if title else "") for name, (_, title) in matrices.items())
        ],
        "n": f"{result.n:,}",
        "subset": f"{subset.n:,}" if subset is not None else None,
        "taken": TAKEN,
        "worst": (worst, percent(low)) if low < high else None,
        "best": (best, percent(high)) if low < high else None,
        "confused": _most_confused(np.array(result.confusion), names),
        "empty": len(names) - len(known),
        "tables": _tables(facts, result, subset),
    }
    return Content(values, slides)


def _tables(facts: Facts, result: EvalResult, subset: Metrics | None) -> list[class_table.ClassTable]:
    """Of all test images and, where the run has them, of the subset's own."""
    trained = facts.environment.data.train_per_class if facts.environment is not None else None
    everything = class_table.where_all_are(result, facts.folder)
    title = "Precision, recall and F1"
    if subset is None:
        return [class_table.class_table(result, title, trained, everything)]
    return [
        class_table.class_table(result, f"{title}, all {result.n:,} test images", None, everything),
        class_table.class_table(subset, f"{title}, the subset's {subset.n:,}", None, everything),
    ]


def class_rates(metrics: Metrics, images: str) -> charts.ClassRates:
    """The bars of a set of `images`, with Wilson's intervals."""
    rows = np.array(metrics.confusion)
    intervals = [wilson_interval(int(row[i]), int(row.sum())) for i, row in enumerate(rows)]
    return charts.ClassRates(images, metrics.per_class, intervals, metrics.top1)


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
    style=class_table.STYLE,
    slides={
        "per_class": "accuracy of each class",
        "confusion": "which class was taken for which",
        "confusion_subset": "which class was taken for which, of the subset's own test images",
    },
)
