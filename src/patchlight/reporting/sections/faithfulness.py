"""How true the maps of each method are, measured, with controls beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from patchlight.reporting.facts import Facts
from patchlight.reporting.section import Content, Section
from patchlight.runs import MIN_IMAGES, Faithfulness, Interval, MethodScores

# The measures that the page shows, by table and group: name, heading, and whether low or high is better.
WAYS = ("mean", "black", "blur", "road", "tokens")
REMOVAL = {
    "deletion": tuple((f"deletion {way}", way, "low") for way in WAYS),
    "insertion": tuple((f"insertion {way}", way, "high") for way in WAYS),
}
FURTHER = {
    "": (
        ("positive", "positive", "low"),
        ("negative", "negative", "high"),
        ("infidelity", "infidelity", "low"),
        ("sensitivity", "sensitivity", "low"),
        ("randomized", "random model", "near 0"),
        ("other class", "other class", ""),
        ("pointing", "pointing", "high"),
    )
}
MEASURES = tuple(measure for groups in (REMOVAL, FURTHER) for group in groups.values() for measure in group)

STYLE = """
.scores { font-size: 0.875rem; }
.scores thead th { vertical-align: bottom; font-weight: 600; color: var(--ink); }
.scores .control { background: var(--panel); }
.scores .apart th { padding-top: 1.25rem; font-weight: 400; color: var(--quiet); text-align: left; }
.scores thead th.n { white-space: normal; }
.scores thead th.group { text-align: center; border-bottom: 1px solid var(--line); }
.scores td.n, .scores th.n { padding-left: 10px; }
.scores .quiet { font-size: 0.75rem; font-weight: 400; }
.scores tbody th { white-space: nowrap; }
.fails { color: var(--wrong); font-weight: 700; }
"""
TEMPLATE = """
{% if tables %}
<p>On {{ n }} {{ split }} images, for {{ target }}: means{% if intervals %} and 95 % intervals{% endif %}. Deletion:
probability that is left on average while the best patches of a map go first; insertion: while the worst go first. An
arrow says which way is better.
{% if older %}No cell has a cross, because an older version measured these, which made no test:
<code>patchlight explain {{ folder }} --faithfulness</code> measures again.
{% elif not intervals %}Of fewer than {{ least }} images there are no intervals, and no cell has a cross: too few to say
that a map is better than another.
{% elif tested %}A cell with a cross is not shown to be better than both controls, which do not look at the model.
{% endif %}</p>
{% for table in tables %}
<h3>{{ table.title }}</h3>
<div class="wide">
<table class="scores">
<thead>
{% if table.groups %}
<tr><td></td>
{% for word, count in table.groups %}
<th scope="colgroup" colspan="{{ count }}" class="group">{{ word }}</th>
{% endfor %}</tr>
{% endif %}
<tr>
<th scope="col">method</th>
{% for head in table.heads %}
<th scope="col" class="n">{{ head.word }}{% if head.better %}<br>
<span class="quiet" title="{{ head.better }} is better">{{ arrows.get(head.better, head.better) }}</span>
{% endif %}</th>
{% endfor %}
{% if table.times %}<th scope="col" class="n">ms<br><span class="quiet">an image</span></th>{% endif %}
</tr></thead>
{% for rows, is_controls in ((table.methods, false), (table.controls, true)) %}
<tbody>
{% if is_controls %}
<tr class="control apart"><th scope="rowgroup" colspan="{{ table.heads | length + 1 + table.times }}">Controls, which do
not look at the model</th></tr>
{% endif %}
{% for r in rows %}
<tr{% if is_controls %} class="control"{% endif %}>
<th scope="row">{{ r.method }}{% if r.note %}<br><span class="quiet">{{ r.note }}</span>{% endif %}</th>
{% for c in r.cells %}
<td class="n">{% if c.fails %}<span class="fails" title="{{ c.fails }}">✗</span> {% endif %}
{{ c.mean }}{% if c.interval %}<br><span class="quiet">{{ c.interval }}</span>{% endif %}</td>
{% endfor %}
{% if table.times %}<td class="n">{{ r.ms }}</td>{% endif %}
</tr>
{% endfor %}
</tbody>
{% endfor %}
</table>
</div>
{% endfor %}
{% if tested %}
<p class="quiet">Tested was {{ tested }}. Sensitivity and random model, in which a map that explains nothing may be
best, were not.</p>
{% endif %}
<p class="quiet">What stands where patches were: the mean colour of the training images; black; the image so blurred
that hardly more than its own mean colour is left; by road, what the neighbours suggest (Rong et al. 2022); and of
tokens nothing, as they are taken away. Positive and negative: accuracy while the best, or the worst, patches go first,
in the mean colour (Chefer et al.
2021). Infidelity: the share of the score's falls that a map does not predict. Sensitivity: its greatest change under
slight noise. Random model: its rank correlation with the map of the same model with random weights. Other class: with
the map for the least likely other class; 1 is blind to the class.{% if pointing %} Pointing: whether its greatest value
is on the evidence, of {{ pointing }} images where that is known.{% endif %}</p>
{% else %}
<p class="quiet">Not measured yet: <code>patchlight explain {{ folder }} --faithfulness</code> does it and adds the
table here.</p>
{% endif %}
"""


def content(facts: Facts) -> Content | None:
    """The tables of `patchlight explain --faithfulness`; how to make them, of a classifier that has none yet."""
    measured = facts.faithfulness
    if measured is None or not measured.rows:
        return Content({"tables": [], "folder": facts.folder}) if can_be_measured(facts) else None
    tables = [
        table_of(measured, REMOVAL, "What is left of the answer as patches go, from 0 to 1"),
        table_of(measured, FURTHER, "What else maps are asked", times=True),
    ]
    return Content(
        {
            "n": f"{measured.n:,}",
            "split": {None: "test", "val": "validation", "train": "training"}.get(measured.split, "the subset's test"),
            "least": MIN_IMAGES,
            "target": measured.target or "the predicted class",
            "intervals": measured.has_intervals,
            "tested": measured.tested,
            "older": measured.is_older,
            "folder": facts.folder,
            "tables": tables,
            "arrows": {"low": "↓ low", "high": "↑ high"},
            "pointing": pointed(measured),
        }
    )


def can_be_measured(facts: Facts) -> bool:
    """Whether it is a classifier whose images have parts to compare: more than one patch, or no patches."""
    if facts.result is None or facts.environment is None:
        return False
    model = facts.environment.model
    return model.patch_size is None or 2 * model.patch_size <= model.img_size


def table_of(
    measured: Faithfulness, groups: Mapping[str, Sequence[tuple[str, str, str]]], title: str, times: bool = False
) -> dict[str, object]:
    """A column for each measure of the groups that was measured, with the groups' names above them."""
    shown = {word: [each for each in group if each[0] in measured.measures] for word, group in groups.items()}
    columns = [each for group in shown.values() for each in group]
    keys = [key for key, _, _ in columns]
    return {
        "title": title,
        "groups": [(word, len(group)) for word, group in shown.items() if word and group],
        "heads": [{"word": word, "better": better} for _, word, better in columns],
        "methods": [row_of(measured, row, keys) for row in measured.methods],
        "controls": [row_of(measured, row, keys) for row in measured.controls],
        "times": times,
    }


def pointed(table: Faithfulness) -> str:
    """Of how many images the evidence is known, which maps may point at; empty where that was not measured."""
    score = table.rows[0].scores.get("pointing")
    if score is None:
        return ""
    return "the" if table.target is None else f"the {score.images or table.n:,}"  # an older version did not say


def row_of(table: Faithfulness, row: MethodScores, keys: list[str]) -> dict[str, object]:
    return {
        "method": row.method,
        "note": "" if row.by_class or row in table.controls else "blind to the class",
        "cells": [cell(row.scores[key], table.has_intervals) for key in keys],
        "ms": f"{row.ms:.2f}",
    }


def cell(score: Interval, with_interval: bool) -> dict[str, object]:
    """A measure with its interval, and the controls than which it is not shown to be better."""
    low, high = score.low, score.high
    shown = with_interval and low is not None and high is not None
    failed = [control for control, against in (score.against or {}).items() if not against.better]
    return {
        "mean": number(score.mean),
        "interval": f"{number(low)} to {number(high)}" if shown else "",  # type: ignore[arg-type]
        "fails": f"not shown to be better than {' and '.join(failed)}" if failed else "",
    }


def number(value: float) -> str:
    """Two digits, and no minus sign before a zero."""
    return f"{round(value, 2) + 0.0:.2f}"


SECTION = Section(title="How far the maps can be believed", content=content, template=TEMPLATE, style=STYLE)
