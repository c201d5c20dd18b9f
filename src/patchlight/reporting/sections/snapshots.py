"""Maps of a few validation images over the epochs, as a film. `snapshots.html` is its template and script."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from patchlight.figures.style import cut
from patchlight.reporting.embed import base64_bytes, palette, picture
from patchlight.reporting.facts import Facts
from patchlight.reporting.section import Content, Section
from patchlight.units import percent

STYLE = """
.movie { grid-template-columns: repeat(auto-fill, minmax(224px, 1fr)); }
.movie canvas { width: 100%; height: auto; }
#play {
  font: inherit; margin-left: 14px; padding: 2px 14px; cursor: pointer;
  color: var(--ink); background: var(--panel); border: 1px solid var(--line); border-radius: 4px;
}
"""


def content(facts: Facts) -> Content | None:
    """For the page's script: base64 of (E, r, c) bytes for each image, each map stretched. One epoch is no film."""
    snapshots = facts.snapshots
    if snapshots is None or len(snapshots.epochs) < 2:
        return None
    maps = snapshots.maps - snapshots.maps.min(axis=(2, 3), keepdims=True)
    maps = (255 * maps / np.maximum(maps.max(axis=(2, 3), keepdims=True), 1e-12)).round().astype(np.uint8)
    classes, names = snapshots.probs.shape[2], facts.class_names
    names = names if len(names) == classes else [str(i) for i in range(classes)]
    images = [
        {
            "image": picture(snapshots.images[i]),
            "name": cut(names[label], 18),
            "maps": base64_bytes(maps[:, i]),
            "probs": [percent(float(prob)) for prob in snapshots.probs[:, i, label]],
        }
        for i, label in enumerate(snapshots.labels.tolist())
    ]
    rows, columns = maps.shape[2:]
    return Content(
        {
            "images": images,
            "epochs": snapshots.epochs.tolist(),
            "rows": rows,
            "columns": columns,
            "covered": facts.covered((rows, columns)),
            "palette": palette(),
            "method": snapshots.method,
        }
    )


SECTION = Section(
    title="How its maps changed during training",
    content=content,
    template=Path(__file__).with_suffix(".html").read_text(encoding="utf-8"),
    style=STYLE,
    screen_only=True,
)
