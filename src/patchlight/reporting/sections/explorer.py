"""Attention from patch to patch, to be explored in the page. `explorer.html` is its template and script."""

from __future__ import annotations

from pathlib import Path

from patchlight.reporting.embed import base64_bytes, palette
from patchlight.reporting.facts import Facts
from patchlight.reporting.section import Content, Section

STYLE = """
.explorer { margin-top: 18px; }
.choices { display: flex; flex-wrap: wrap; gap: 14px 28px; align-items: center; }
.thumbs { display: flex; gap: 8px; }
.thumbs button {
  padding: 3px; border: 2px solid var(--line); border-radius: 4px; background: none; cursor: pointer; line-height: 0;
}
.thumbs button[aria-pressed="true"] { border-color: var(--accent); }
.thumbs img { width: 48px; height: 48px; }
.stage { display: flex; flex-wrap: wrap; gap: 16px; margin-top: 16px; }
.stage canvas { width: min(320px, 100%); height: auto; border-radius: 3px; cursor: crosshair; touch-action: pan-y; }
.stage #target { cursor: default; }
"""


def content(facts: Facts) -> Content | None:
    """For the page's script: base64 of (L, H, N, N) bytes for each image, and of (L, H, N) of the pooled token."""
    insight = facts.insight
    if insight is None:
        return None
    pooled = [None] * len(insight.explored) if insight.pooled is None else list(insight.pooled)
    images = [
        {
            "tile": facts.tiles[i],
            "attention": base64_bytes(attention),
            "pooled": "" if read is None else base64_bytes(read),
        }
        for i, attention, read in zip(insight.explored.tolist(), insight.attention, pooled, strict=False)
    ]
    layers, heads = insight.attention.shape[1:3]
    rows, columns = insight.relevance.shape[2:]
    return Content(
        {
            "images": images,
            "layers": layers,
            "heads": heads,
            "rows": rows,
            "columns": columns,
            "covered": facts.covered((rows, columns)),
            "palette": palette(),
            "pooled_heads": 0 if insight.pooled is None else insight.pooled.shape[2],
        }
    )


SECTION = Section(
    title="What each patch reads",
    content=content,
    template=Path(__file__).with_suffix(".html").read_text(encoding="utf-8"),
    style=STYLE,
    screen_only=True,
)
