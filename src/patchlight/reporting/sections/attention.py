"""Each sample beside its map of attention."""

from __future__ import annotations

import functools

from patchlight.figures import galleries
from patchlight.figures.overlays import says_nothing
from patchlight.reporting.embed import colour_scale, overlay
from patchlight.reporting.facts import Facts
from patchlight.reporting.section import Content, Section

TEMPLATE = """
{% if pairs %}
<p>{{ map_title }}. This says where {{ "the last layer" if layer else "the model" }} read from, not why it decided as it
did.</p>
{{ scale(colours, "most, within each image") }}
<ul class="tiles pairs">
{% for t, map, silent in pairs %}
<li><figure class="{{ t.kind }}">
<div class="pair">
{{ picture(t.image, "Test image of class " ~ t.true) }}
{{ picture(map, "The same image under its attention map") }}
</div>
<figcaption>{{ answer(t) }}{% if silent %}<br>{{ silent }}{% endif %}</figcaption>
</figure></li>
{% endfor %}
</ul>
{% else %}
<p class="quiet">Attention is shown of plain ViTs, in which every patch is a token in every layer; this model is not
one.</p>
{% endif %}
"""


def content(facts: Facts) -> Content | None:
    samples, tiles = facts.samples, facts.tiles
    if samples is None or not tiles:
        return None
    if samples.maps is None:
        return Content({"pairs": []})
    title = (samples.map_title or "").strip() or "attention"
    title = title[0].upper() + title[1:]
    captions = [f"{'✓' if tile.kind == 'right' else '✗'} {tile.said}" for tile in tiles]
    covered = facts.covered(samples.maps.shape[1:])
    maps = zip(tiles, samples.images, samples.maps, strict=True)
    values = {
        "map_title": title,
        "layer": "layer" in title.lower(),
        "colours": colour_scale(),
        "pairs": [(tile, overlay(image, weights, covered), says_nothing(weights)) for tile, image, weights in maps],
    }
    draw = functools.partial(
        galleries.attention, samples.images, samples.maps, title, captions=captions, covered=covered
    )
    return Content(values, {"attention": draw})


SECTION = Section(
    title="Where it looked", content=content, template=TEMPLATE, slides={"attention": "where the model looked"}
)
