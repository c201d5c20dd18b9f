"""How true the maps of each method are, measured, with controls beside them."""

from __future__ import annotations

from collections.abc import Sequence

from patchlight.reporting.facts import Facts
from patchlight.reporting.section import Content, Section
from patchlight.runs import MethodScores

# The measures that the page shows: name, heading, and whether low or high is better.
MEASURES = (
    ("deletion mean", "deletion", "low"),
    ("insertion mean", "insertion", "high"),
    ("deletion tokens", "tokens deleted", "low"),
    ("insertion tokens", "tokens inserted", "high"),
    ("positive", "positive", "low"),
    ("negative", "negative", "high"),
    ("infidelity", "infidelity", "low"),
    ("sensitivity", "sensitivity", "low"),
    ("randomized", "random model", "low"),
    ("other class", "other class", ""),
    ("pointing", "pointing", "high"),
)
CONTROLS = ("random", "centre")
NOT_COMPARED = ("sensitivity", "randomized")  # in which a map that is no explanation may well be best

STYLE = """
.scores { font-size: 0.875rem; }
.scores thead th { vertical-align: bottom; font-weight: 600; color: var(--ink); }
.scores .control { background: var(--panel); }
.scores thead th.n { white-space: normal; }
.scores td.n, .scores th.n { padding-left: 10px; }
.scores .quiet { font-size: 0.75rem; font-weight: 400; }
.scores tbody th { white-space: nowrap; }
.fails { color: var(--wrong); font-weight: 700; }
"""
TEMPLATE = """
{% if rows %}
<p>On {{ n }} test images, for the predicted class, means and 95 % intervals. Deletion: probability that is left on
average while the best patches of a map go first; insertion: while the worst go first. An arrow says which way is
better, and a cell with a cross is no better than a random map or one of the image's middle.</p>
<div class="wide">
<table class="scores">
<thead><tr>
<th scope="col">method</th>
{% for word, better in heads %}
<th scope="col" class="n">{{ word }}{% if better %}<br>
<span class="quiet" title="{{ better }} is better">{{ "↓ low" if better == "low" else "↑ high" }}</span>{% endif %}</th>
{% endfor %}
<th scope="col" class="n">ms<br><span class="quiet">an image</span></th>
</tr></thead>
<tbody>
{% for r in rows %}
<tr{% if r.control %} class="control"{% endif %}>
<th scope="row">{{ r.method }}{% if r.note %}<br><span class="quiet">{{ r.note }}</span>{% endif %}</th>
{% for c in r.cells %}
<td class="n">{% if c.fails %}<span class="fails" title="not better than both controls">✗</span> {% endif %}
{{ c.mean }}<br><span class="quiet">{{ c.interval }}</span></td>
{% endfor %}
<td class="n">{{ r.ms }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<p class="quiet">Positive and negative: accuracy while the best, or the worst, patches go first (Chefer et al. 2021).
Infidelity: the share of the logit's falls that a map does not predict. Sensitivity: its greatest change under slight
noise. Random model: its rank correlation with the map of the same model with random weights. Other class: with the map
for the least likely class; 1 is blind to the class.</p>
{% else %}
<p class="quiet">Not measured yet: <code>patchlight explain {{ folder }} --faithfulness</code> does it and adds the
table here.</p>
{% endif %}
"""


def content(facts: Facts) -> Content | None:
    """The table of `patchlight explain --faithfulness`; how to make it, where a model can be explained and has none."""
    table = facts.faithfulness
    if table is None or not table.rows:
        return None if facts.insight is None else Content({"rows": [], "folder": facts.folder})
    shown = [measure for measure in MEASURES if measure[0] in table.measures]
    controls = [row for row in table.rows if row.method in CONTROLS]
    rows = [
        {
            "method": row.method,
            "control": row.method in CONTROLS,
            "note": "control" if row.method in CONTROLS else "" if row.by_class else "blind to the class",
            "cells": [cell(row, controls, key, better) for key, _, better in shown],
            "ms": f"{row.ms:.2f}",
        }
        for row in table.rows
    ]
    return Content({"n": f"{table.n:,}", "heads": [(word, better) for _, word, better in shown], "rows": rows})


def cell(row: MethodScores, controls: Sequence[MethodScores], key: str, better: str) -> dict[str, object]:
    """A measure with its interval; it fails where an interval of the controls reaches its own."""
    score, others = row.scores[key], [control.scores[key] for control in controls]
    is_compared = bool(better) and key not in NOT_COMPARED and row.method not in CONTROLS
    beats = all(score.high < other.low if better == "low" else score.low > other.high for other in others)
    return {
        "mean": f"{round(score.mean, 2) + 0.0:.2f}",  # no minus sign before a zero
        "interval": f"{score.low:.2f} to {score.high:.2f}",
        "fails": is_compared and not beats,
    }


SECTION = Section(title="How far the maps can be believed", content=content, template=TEMPLATE, style=STYLE)
