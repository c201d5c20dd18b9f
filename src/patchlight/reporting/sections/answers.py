"""Single test images with the model's answers: the most confident mistakes, then right answers, then the subset's."""

from __future__ import annotations

import functools

import numpy as np

from patchlight.figures import galleries
from patchlight.reporting.embed import Draw
from patchlight.reporting.facts import Facts, Tile
from patchlight.reporting.section import Content, Section
from patchlight.runs import Samples
from patchlight.units import percent

LIST = """
<ul class="tiles">
{% for t in TILES %}
<li><figure class="{{ t.kind }}">
<div class="frame">{{ picture(t.image, "Test image of class " ~ t.true ~ ", predicted " ~ t.pred) }}</div>
<figcaption>{{ answer(t) }}</figcaption>
</figure></li>
{% endfor %}
</ul>
"""
TILES = LIST.replace("TILES", "tiles")
MISTAKES_TEMPLATE = f"""
<p>What it said and how sure it was; below, what is true and how likely it thought that. Look here for wrong labels,
too.</p>
{TILES}
"""
SUBSET_TEMPLATE = f"""
<p>From the subset's own test images, {{{{ accuracy }}}} of which it knows: {{{{ told }}}}.</p>
{{% if wrong %}}{LIST.replace("TILES", "wrong")}{{% endif %}}
{{% if right %}}{LIST.replace("TILES", "right")}{{% endif %}}
"""
SUBSET_KINDS = {"wrong": "its most confident mistakes", "right": "right answers, class by class in turn"}


def of_kind(kind: str, facts: Facts) -> Content | None:
    """The samples that are "wrong" or "right"."""
    tiles = [tile for tile in facts.tiles if tile.kind == kind]
    if facts.samples is None or not tiles:
        return None
    return Content({"tiles": tiles}, {f"gallery_{kind}": draw(facts.samples, tiles, facts.class_names)})


def of_subset(facts: Facts) -> Content | None:
    """The samples of the subset's own test images, mistakes and right answers together."""
    samples, subset = facts.subset_samples, facts.subset
    if samples is None or subset is None or not facts.subset_tiles:
        return None
    kinds = {kind: [tile for tile in facts.subset_tiles if tile.kind == kind] for kind in SUBSET_KINDS}
    told = [SUBSET_KINDS[kind] for kind, tiles in kinds.items() if tiles]
    words = f"first {told[0]}, then {told[1]}" if len(told) == 2 else told[0]
    values = {**kinds, "accuracy": percent(subset.top1, 1), "told": words}
    slides = {
        f"gallery_subset_{kind}": draw(samples, tiles, facts.class_names) for kind, tiles in kinds.items() if tiles
    }
    return Content(values, slides)


def draw(samples: Samples, tiles: list[Tile], class_names: list[str]) -> Draw:
    """What draws some of the samples as a gallery."""
    chosen = np.array([tile.index for tile in tiles])
    images, labels, probs = (values[chosen] for values in (samples.images, samples.labels, samples.probs))
    return functools.partial(galleries.gallery, images, labels.tolist(), probs, class_names)


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
SUBSET_ANSWERS = Section(
    title="Answers on the subset's own test images",
    content=of_subset,
    template=SUBSET_TEMPLATE,
    slides={
        "gallery_subset_wrong": "the most confident mistakes on the subset's own test images",
        "gallery_subset_right": "right answers on the subset's own test images",
    },
)
