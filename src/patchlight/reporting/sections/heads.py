"""How far and how widely the heads look, the first filters, and how alike positions are."""

from __future__ import annotations

import functools

from patchlight.figures import inside
from patchlight.reporting.embed import Draw, chart, picture
from patchlight.reporting.facts import Facts
from patchlight.reporting.section import Content, Section

STYLE = """
.filters { grid-template-columns: repeat(auto-fill, minmax(48px, 1fr)); gap: 8px; max-width: 560px; }
"""
TEMPLATE = """
<div class="two">
<figure>
{{ chart(distance) }}
<figcaption>How far the heads of each layer look on average; a head at the bottom looks at its neighbours, one at the
top at the whole image.</figcaption>
</figure>
<figure>
{{ chart(entropy) }}
<figcaption>How widely they look: a head at the bottom reads from one token, one at the dotted line from all
equally.</figcaption>
</figure>
{% if positions %}
<figure>
{{ chart(positions) }}
<figcaption>One small map per patch, at its place: how alike its position embedding is to all others. Rows and columns
show that the model knows where a patch lies.</figcaption>
</figure>
{% endif %}
</div>
<h3 class="apart">Filters of the {{ "stem's first convolution" if stem else "patch embedding" }}</h3>
<ul class="tiles filters">
{% for f in filters %}
<li>{{ picture(f, "A principal component of the filters") }}</li>
{% endfor %}
</ul>
<p class="quiet">Their principal components, the first on the left: the colours and edges that a patch is first
described by.</p>
"""


def content(facts: Facts) -> Content | None:
    insight = facts.insight
    if insight is None:
        return None
    tokens = (facts.environment.model.tokens if facts.environment else None) or insight.attention.shape[-1]
    slides: dict[str, Draw] = {
        "attention_distance": functools.partial(inside.attention_distance, insight.distance),
        "attention_entropy": functools.partial(inside.attention_entropy, insight.entropy, tokens),
    }
    positions = None
    if insight.positions is not None:
        slides["positions"] = functools.partial(inside.position_similarity, insight.positions)
        positions = chart(slides["positions"], "Cosine similarity between position embeddings.")
    values = {
        "distance": chart(slides["attention_distance"], "Mean attention distance of each head over the layers."),
        "entropy": chart(slides["attention_entropy"], "Attention entropy of each head over the layers."),
        "positions": positions,
        "filters": [picture(filter_.repeat(4, 0).repeat(4, 1)) for filter_ in insight.filters],
        "stem": facts.has_conv_stem,
    }
    return Content(values, slides)


SECTION = Section(
    title="What its heads, positions and filters are like",
    content=content,
    template=TEMPLATE,
    style=STYLE,
    slides={
        "attention_distance": "how far each head looks",
        "attention_entropy": "how widely each head looks",
        "positions": "how alike position embeddings are",
    },
)
