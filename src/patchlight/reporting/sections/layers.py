"""What the pooled token reads in each layer, of a mistake and of a right answer."""

from __future__ import annotations

import functools

import numpy as np
from matplotlib.figure import Figure

from patchlight.figures import overlays, sheets
from patchlight.figures.overlays import WHOLE, Shares
from patchlight.figures.style import Theme
from patchlight.reporting.embed import Draw, overlay
from patchlight.reporting.facts import Facts, Tile
from patchlight.reporting.section import Content, Section

LAYERS_SHOWN, HEADS_SHOWN = 6, 8

STYLE = f"""\
@media print, (min-width: 1000px) {{ .tiles.layers {{ grid-template-columns: repeat({LAYERS_SHOWN + 1}, 1fr); }} }}
"""

TEMPLATE = """
<p>Where the token that the head reads attends to, in each layer and by each head of attention. Attention shows what was
read, not what decided: it is the same for every class.</p>
{% for e in examples %}
{% set t = e.tile %}
<h3 class="apart">{{ "A mistake" if t.kind == "wrong" else "A right answer" }}: predicted {{ t.pred }},
{{ t.confidence }}
{%- if t.kind == "wrong" %}; true: {{ t.true }}{% endif %}</h3>
<ul class="tiles layers">
<li><figure>{{ picture(t.image, "Test image of class " ~ t.true) }}<figcaption>image</figcaption></figure></li>
{% for name, map in e.layers %}
<li><figure>{{ picture(map, "Attention in " ~ name ~ ", mean of the heads") }}
<figcaption>{{ name }}</figcaption></figure></li>
{% endfor %}
</ul>
{% if e.heads %}
<ul class="tiles layers">
{% for name, map in e.heads %}
<li><figure>{{ picture(map, "Attention of " ~ name ~ " in the last layer") }}
<figcaption>last layer, {{ name }}</figcaption></figure></li>
{% endfor %}
</ul>
{% endif %}
{% endfor %}
<p class="quiet apart">Layers: the mean of their heads. <code>figures/layers_*.png</code> have {{ drawn }}.</p>
"""


def content(facts: Facts) -> Content | None:
    """Of the first image that is explored and of the last: a mistake, and a right answer."""
    if facts.insight is None or facts.samples is None or facts.insight.pooled is None:
        return None
    pooled, explored = facts.insight.pooled, facts.insight.explored.tolist()
    examples: list[dict[str, object]] = []
    slides: dict[str, Draw] = {}
    covered = facts.covered(pooled.shape[3:])
    for place in sorted({0, len(explored) - 1}):
        tile, image, maps = facts.tiles[explored[place]], facts.samples.images[explored[place]], pooled[place] / 255
        name = f"layers_{tile.kind}"
        if name not in slides:
            slides[name] = functools.partial(board, image, maps, tile, covered=covered)
            examples.append(example(image, maps, tile, covered))
    return Content({"examples": examples, "drawn": drawn(*pooled.shape[1:3])}, slides)


def example(image: np.ndarray, maps: np.ndarray, tile: Tile, covered: Shares) -> dict[str, object]:
    """The image under the mean map of some layers, and under that of each head in the last; maps (L, H, r, c)."""
    layers = [(f"layer {i + 1}", overlay(image, maps[i].mean(axis=0), covered)) for i in some(len(maps))]
    heads = [(f"head {i + 1}", overlay(image, one, covered)) for i, one in enumerate(maps[-1][:HEADS_SHOWN])]
    return {"tile": tile, "layers": layers, "heads": heads if len(heads) > 1 else []}


def some(depth: int) -> list[int]:
    """Of so many layers a few, evenly, the first and the last among them."""
    return np.unique(np.linspace(0, depth - 1, min(depth, LAYERS_SHOWN)).round().astype(int)).tolist()


def drawn(depth: int, heads: int) -> str:
    """Of so many layers and heads those that a board has."""
    layers = f"{len(some(depth))} of {depth}" if depth > LAYERS_SHOWN else "all"
    return f"{layers} layers with {f'{HEADS_SHOWN} of {heads}' if heads > HEADS_SHOWN else 'all'} heads"


def board(image: np.ndarray, maps: np.ndarray, tile: Tile, theme: Theme, covered: Shares = WHOLE) -> Figure:
    """Maps (L, H, r, c) in columns of layers, of most LAYERS_SHOWN, and rows of heads after their mean."""
    chosen, heads = some(len(maps)), maps.shape[1]
    means = [overlays.overlay(image, maps[i].mean(axis=0), covered=covered) for i in chosen]
    rows = [sheets.Row("mean of the heads", [image, *means])]
    rows += [
        sheets.Row(f"head {h + 1}", [None, *(overlays.overlay(image, maps[i, h], covered=covered) for i in chosen)])
        for h in range(min(heads, HEADS_SHOWN) if heads > 1 else 0)
    ]
    captions = [tile.said, *(f"layer {i + 1}" for i in chosen)]
    return sheets.board(rows, "What the answer read, layer by layer", captions, theme)


SECTION = Section(
    title="What the answer reads, layer by layer",
    content=content,
    template=TEMPLATE,
    slides={
        "layers_wrong": "what a mistake read, layer by layer",
        "layers_right": "what a right answer read, layer by layer",
    },
    style=STYLE,
)
