"""The first batch as it was trained on: its numbers, and images of it with their labels."""

from __future__ import annotations

import functools

from patchlight.figures import galleries
from patchlight.figures.style import cut
from patchlight.reporting.embed import picture
from patchlight.reporting.facts import NAME, Facts
from patchlight.reporting.section import Content, Section

TEMPLATE = """
<div class="two">
<div>
<p>The first batch{{ stage }} as the model was given it: augmented, normalised{% if mixes %}, and mixed{% endif %}.
Below are {{ "all" if tiles | length == images else "the first " ~ tiles | length }} of its {{ images }} images,
normalisation undone, each with its label.</p>
{% for sentence in problems %}
<p><b>Not as it should be:</b> {{ sentence }}.</p>
{% endfor %}
</div>
<table class="batch">
<tbody>
{% for word, text in rows %}
<tr><th scope="row">{{ word }}</th><td>{{ text }}</td></tr>
{% endfor %}
</tbody>
</table>
</div>
<ul class="tiles small">
{% for image, label in tiles %}
<li><figure>
{{ picture(image, "Training image of " ~ label | join(" ")) }}
<figcaption>{% for line in label %}{{ line }}{% if not loop.last %}<br>{% endif %}{% endfor %}</figcaption>
</figure></li>
{% endfor %}
</ul>
"""
STYLE = """.small { grid-template-columns: repeat(auto-fill, minmax(116px, 1fr)); gap: 16px 14px; }
.batch th { white-space: nowrap; }
"""


def content(facts: Facts) -> Content | None:
    numbers, shown = facts.first_batch, facts.batch_images
    if numbers is None or shown is None:
        return None
    names = list(numbers.per_class)
    labels = [[cut(line, NAME) for line in words.split("\n")] for words in galleries.batch_labels(shown, names)]
    values = {
        "rows": numbers.rows(),
        "problems": [sentence[0].upper() + sentence[1:] for sentence in (*numbers.errors, *numbers.warnings)],
        "images": numbers.shape[0],
        "mixes": bool(numbers.mixed),
        "stage": " of the first stage" if len(facts.config.of_stages()) > 1 else "",
        "tiles": [(picture(image), label) for image, label in zip(shown.images, labels, strict=True)],
    }
    return Content(values, {"first_batch": functools.partial(galleries.batch, shown, names)})


SECTION = Section(
    title="A batch as it was trained on",
    content=content,
    template=TEMPLATE,
    slides={"first_batch": "images of the first batch as they were trained on"},
    style=STYLE,
)
