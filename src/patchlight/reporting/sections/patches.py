"""An image in patches, as a ViT takes it."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from patchlight.figures import galleries
from patchlight.figures.galleries import BY
from patchlight.reporting.embed import chart
from patchlight.reporting.facts import Facts
from patchlight.reporting.section import Content, Section

TEMPLATE = """
<p>A Vision Transformer reads an image as a row of patches. Here N = H \u00d7 W / P² = {{ count }} patches, each of
{{ numbers }} numbers{% if tokens %}, and {{ tokens }} tokens go through the blocks{% if more == 1 %}: one more
than patches, to gather the answer{% elif more > 1 %}: {{ more }} more than patches{% endif %}{% endif %}.
{%- if stem %} Its convolutional stem lets a token see a little beyond its own patch.{% endif %}</p>
<figure>
{{ chart(figure) }}
<figcaption>One test image, and the same image in patches, numbered in the order in which they are read.</figcaption>
</figure>
"""


def content(facts: Facts) -> Content | None:
    samples, model = facts.samples, facts.environment.model if facts.environment else None
    if samples is None or not len(samples.images):
        return None
    side = samples.patch_size or (model.patch_size if model else None)
    # A right one, if there is one: the least odd of the pictures.
    image = samples.images[next((tile.index for tile in facts.tiles if tile.kind == "right"), 0)]
    if model is not None and model.img_size and image.shape[:2] != (model.img_size, model.img_size):
        # The model takes it at another size.
        resampling = Image.Resampling[(model.interpolation or "bicubic").upper()]
        image = np.asarray(Image.fromarray(image).resize((model.img_size, model.img_size), resampling))
    height, width = image.shape[:2]
    if not side or height % side or width % side:
        return None
    draw = functools.partial(galleries.patches, image, side)
    count = (height // side) * (width // side)
    tokens = model.tokens if model is not None else None
    values = {
        "figure": chart(draw, f"An image of {height} {BY} {width} pixels and its {count} patches."),
        "count": f"{height} {BY} {width} / {side}² = {count:,}",
        "numbers": f"{side} {BY} {side} {BY} 3 = {3 * side * side:,}",
        "tokens": f"{tokens:,}" if tokens else None,
        "more": max(tokens - count, 0) if tokens else 0,
        "stem": facts.has_conv_stem,
    }
    return Content(values, {"patches": draw})


SECTION = Section(
    title="What the model sees",
    content=content,
    template=TEMPLATE,
    slides={"patches": "an image as the model sees it"},
)
