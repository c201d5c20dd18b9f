"""What masked autoencoding makes of a few images."""

from __future__ import annotations

import functools

from patchlight.figures import sheets
from patchlight.reporting.embed import chart
from patchlight.reporting.facts import Facts
from patchlight.reporting.section import Content, Section

TEMPLATE = """
<figure>{{ chart(board) }}
<figcaption>Each reconstructed patch is shown with the true patch's brightness and contrast, which the model does not
predict.</figcaption></figure>
"""


def content(facts: Facts) -> Content | None:
    views = facts.reconstructions
    if views is None:
        return None
    rows = [("image", list(views.images)), ("shown", list(views.hidden)), ("reconstructed", list(views.painted))]

    draw = functools.partial(sheets.board, rows, "What the model reconstructed", scales=())
    words = "Validation images, the same with hidden patches grey, and with what the model reconstructed there."
    return Content({"board": chart(draw, words)}, {"painted": draw})


SECTION = Section(
    title="What it reconstructed",
    content=content,
    template=TEMPLATE,
    slides={"painted": "validation images, what was shown of them, and what the model reconstructed"},
)
