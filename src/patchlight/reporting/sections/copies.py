"""Images of the test or validation set that look almost like an image that was trained on."""

from __future__ import annotations

import functools

from patchlight.figures import galleries
from patchlight.reporting.embed import picture
from patchlight.reporting.facts import Facts
from patchlight.reporting.section import Content, Section
from patchlight.units import percent

TEMPLATE = """
<ul class="plain">
{% for sentence in sentences %}
<li>{{ sentence }}</li>
{% endfor %}
</ul>
{% if without %}<p>{{ without }}</p>{% endif %}
<p class="quiet">Found by a perceptual hash, then by comparing the details; mirrored or strongly cropped copies are not
found. {% if more %}The {{ tiles | length }} most alike pairs of {{ total }} are shown: {% else %}Each pair: {% endif %}
at the left the image that was learned or selected by, at the right the one that is measured.</p>
<ul class="tiles pairs">
{% for left, right, text in tiles %}
<li><figure>
<div class="two-images">
{{ picture(left, "Image of the set that was learned from") }}{{ picture(right, "Image that is measured") }}
</div>
<figcaption>{% for line in text %}{{ line }}{% if not loop.last %}<br>{% endif %}{% endfor %}</figcaption>
</figure></li>
{% endfor %}
</ul>
"""
STYLE = """.pairs { grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 18px 20px; }
.two-images { display: grid; grid-template-columns: 1fr 1fr; gap: 4px; }
"""


def content(facts: Facts) -> Content | None:
    copies = facts.copies
    if copies is None or not copies.found.sum():
        return None
    captions = galleries.pair_captions(copies, facts.class_names)
    result = facts.result
    without = None
    if result is not None and (score := result.without_copies) is not None:
        low, high = score.top1_ci95
        without = (
            f"On the {score.n:,} test images without a near copy the accuracy is {percent(score.top1, 2)} (95 % "
            f"interval {100 * low:.1f} to {percent(high, 1)}); on all {result.n:,} it is {percent(result.top1, 2)}."
        )
    values = {
        "sentences": [f"{sentence[0].upper()}{sentence[1:]}." for sentence in copies.sentences()],
        "without": without,
        "more": len(copies.pairs) < copies.found.sum(),
        "total": f"{int(copies.found.sum()):,}",
        "tiles": [(picture(two[0]), picture(two[1]), text) for two, text in zip(copies.pairs, captions, strict=True)],
    }
    return Content(values, {"near_copies": functools.partial(galleries.pairs, copies.pairs, captions)})


SECTION = Section(
    title="Images that stand in two sets",
    content=content,
    template=TEMPLATE,
    slides={"near_copies": "images of two sets that look almost the same"},
    style=STYLE,
)
