"""Patch tokens before the first block: what the patch embedding makes of a patch, and what positions add."""

from __future__ import annotations

import functools

from patchlight.figures import boards, inside
from patchlight.reporting.embed import picture
from patchlight.reporting.facts import Facts
from patchlight.reporting.section import Content, Section

STYLE = """
.matrices { grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); max-width: 660px; }
"""
TEMPLATE = """
<p>A linear map makes each patch a token{% if stem %}, here after a convolutional stem{% endif %}.
{% if added %}A token alone does not say where its patch lies, so a position embedding is added to each; its norm is
{{ share }} of a patch's own, on average.{% else %}Of its positions: {{ about }}.{% endif +%}
Like tokens have like colours (the first three principal components of the tokens of all images shown). In the maps of
likeness orange is like the marked patch, white is unlike it, and purple is its opposite.</p>
{% for e in examples %}
<h3 class="apart">{{ "A mistake" if e.tile.kind == "wrong" else "A right answer" }}: predicted {{ e.tile.pred }},
{{ e.tile.confidence }}{% if e.tile.kind == "wrong" %}; true: {{ e.tile.true }}{% endif +%}</h3>
<ul class="tiles">
{% for name, shown in e.pictures %}
<li><figure>{{ picture(shown, name) }}<figcaption>{{ name }}</figcaption></figure></li>
{% endfor %}
</ul>
{% endfor %}
<h3 class="apart">How alike every two patches of {{ first }} are</h3>
<ul class="tiles matrices">
{% for name, shown in matrices %}
<li><figure>{{ picture(shown, "Cosine similarity of every two patches: " ~ name) }}<figcaption>{{ name }}</figcaption>
</figure></li>
{% endfor %}
</ul>
<p class="quiet apart">A row and a column for each patch, in reading order{{ some }}
{%- if added %}: what patches show, where they lie, and both together, which is what layer 1 reads{% endif %}.</p>
"""


def content(facts: Facts) -> Content | None:
    """Of the first image that is explored and of the last. Folders of older versions have nothing of it."""
    insight, samples = facts.insight, facts.samples
    if insight is None or samples is None or insight.embed_colours is None:
        return None
    alike, matrices, norms = insight.embed_likeness, insight.embed_matrices, insight.embed_norms
    assert alike is not None
    assert matrices is not None
    assert norms is not None
    added = insight.embed_positions is not None
    second = "with positions" if added else "as layer 1 reads it"
    views = ["patch embedding", second][: alike.shape[1]]
    explored, covered = insight.explored.tolist(), facts.covered(alike.shape[2:])
    examples = []
    for place in sorted({0, len(explored) - 1}):
        tile, image = facts.tiles[explored[place]], samples.images[explored[place]]
        shown = [("image", picture(boards.marked(image, alike.shape[2:], covered=covered)))]
        cells = [(name, insight.embed_colours[place, view]) for view, name in enumerate(views)]
        cells += [(f"likeness, {name}", boards.likeness_map(alike[place, view])) for view, name in enumerate(views)]
        shown += [(name, picture(boards.in_place(colours, image, covered))) for name, colours in cells]
        examples.append({"tile": tile, "pictures": shown})
    images = samples.images[explored]
    captions = [f"true: {facts.tiles[i].true}" for i in explored]
    board = functools.partial(
        boards.embeddings_board, images, captions, insight.embed_colours, alike, second, covered=covered
    )
    draw = functools.partial(inside.patch_likeness, matrices, insight.embed_positions, norms)
    panels = inside.likeness_panels(matrices, insight.embed_positions, norms)
    values = {
        "examples": examples,
        "stem": facts.has_conv_stem,
        "added": added,
        "about": insight.embed_about or "nothing is known",
        "share": inside.share_of_positions(norms),
        "first": "the mistake" if facts.tiles[explored[0]].kind == "wrong" else "the right answer",
        "matrices": [
            (f"{name}{', ' if below else ''}{below}", picture(boards.cosine_colours(matrix)))
            for name, matrix, below in panels
        ],
        "some": f"; {len(matrices[0])} of them, at equal distances" if len(matrices[0]) < alike[0, 0].size else "",
    }
    return Content(values, {"patch_embeddings": board, "patch_likeness": draw})


SECTION = Section(
    title="Its patches as tokens, before the first layer",
    content=content,
    template=TEMPLATE,
    style=STYLE,
    slides={
        "patch_embeddings": "patch tokens before the first layer",
        "patch_likeness": "how alike the patch tokens of an image are",
    },
)
