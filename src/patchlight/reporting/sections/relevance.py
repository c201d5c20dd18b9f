"""Of each mistake the evidence for the predicted class and for the true one."""

from __future__ import annotations

from patchlight.figures.overlays import says_nothing
from patchlight.reporting.embed import colour_scale, overlay
from patchlight.reporting.facts import Facts
from patchlight.reporting.section import Content, Section

TEMPLATE = """
<p>Its mistakes once more, with the evidence for what it said and for what is true (Chefer et al. 2021: attention times
its gradient, passed through all layers). Each map is stretched to its own greatest value.</p>
{{ scale(colours, "most, within each map") }}
<ul class="tiles triples">
{% for t, for_pred, for_true, pred_none, true_none in mistakes %}
<li><figure class="{{ t.kind }}">
<div class="triple">
{{ picture(t.image, "Test image of class " ~ t.true) }}
{{ picture(for_pred, "Evidence for " ~ t.pred) }}
{{ picture(for_true, "Evidence for " ~ t.true) }}
</div>
<figcaption>
the image; why <b>{{ t.pred }}</b>, predicted with {{ t.confidence }}
{%- if pred_none %} ({{ pred_none }}){% endif %}; why <b>{{ t.true }}</b>, the true class with
{{ t.true_confidence }}{% if true_none %} ({{ true_none }}){% endif +%}
</figcaption>
</figure></li>
{% endfor %}
</ul>
"""


def content(facts: Facts) -> Content | None:
    mistakes = [tile for tile in facts.tiles if tile.kind == "wrong"]
    if facts.insight is None or facts.samples is None or not mistakes:
        return None
    images, maps = facts.samples.images, facts.insight.relevance
    covered = facts.covered(maps.shape[2:])
    rows = [
        (
            tile,
            *(overlay(images[tile.index], one, covered) for one in maps[tile.index]),
            *(says_nothing(one) for one in maps[tile.index]),
        )
        for tile in mistakes
    ]
    return Content({"mistakes": rows, "colours": colour_scale()})


SECTION = Section(title="Evidence for the predicted class and for the true one", content=content, template=TEMPLATE)
