"""The HTML templates, for the page of a run and for that of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from patchlight.units import on_lines

TEMPLATES = Path(__file__).parent / "templates"


def html_templates() -> jinja2.Environment:
    """Templates in which every value is escaped and a name without a value is an error; they know `macros.html`."""
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    macros = jinja.get_template("macros.html").module
    jinja.globals |= {name: getattr(macros, name) for name in ("chart", "picture", "answer", "scale")}
    return jinja


def _shown(value: Any) -> Any:
    """What a page shows of a value, before its markup is escaped: of text no hidden sign turns or hides anything."""
    return on_lines(value) if isinstance(value, str) and not isinstance(value, Markup) else value
