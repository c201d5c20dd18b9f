"""Single test images with the model's answers: the most confident mistakes, then right answers."""

from __future__ import annotations

import functools

import numpy as np

from patchlight.figures import galleries
from patchlight.reporting.facts import Facts
from patchlight.reporting.section import Content, Section

TILES = """
<ul class="tiles">
{% for t in tiles %}
<li><figure class="{{ t.kind }}">
<div class="frame">{{ picture(t.image, "Test image of class " ~ t.true ~ ", predicted " ~ t.pred) }}</div>
<figcaption>{{ answer(t) }}</figcaption>
</figure></li>
{% endfor %}
</ul>
"""
MISTAKES_TEMPLATE = f"""
<p>What it said and how sure it was; below, what is true and how likely it thought that. Look here for wrong labels,
too.</p>
{TILES}
"""


def of_kind(kind: str, facts: Facts) -> Content | None:
    """The samples that are "wrong" or "right"."""
    tiles = [tile for tile in facts.tiles if tile.kind == kind]
    if facts.samples is None or not tiles:
        return None
    chosen = np.array([tile.index for tile in tiles])
    images, labels, probs = (
        values[chosen] for values in (facts.samples.images, facts.samples.labels, facts.samples.probs)
    )
    draw = functools.partial(galleries.gallery, images, labels.tolist(), probs, facts.class_names)
    return Content({"tiles": tiles}, {f"gallery_{kind}": draw})


MISTAKES = Section(
    title="Its most confident mistakes",
    content=functools.partial(of_kind, "wrong"),
    template=MISTAKES_TEMPLATE,
    slides={"gallery_wrong": "the most confident mistakes"},
)
RIGHT_ANSWERS = Section(
    title="And some it got right",
    content=functools.partial(of_kind, "right"),
    template=TILES,
    slides={"gallery_right": "right answers"},
)
