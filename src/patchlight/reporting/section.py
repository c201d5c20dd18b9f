"""What a section of the page is. The table of all is `sections/__init__.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from patchlight.reporting.embed import Draw
from patchlight.reporting.facts import Facts


@dataclass(frozen=True)
class Content:
    """What a section has to show of a run: the template's values and the figures for `figures/`, both by name."""

    values: Mapping[str, object] = field(default_factory=dict)
    slides: Mapping[str, Draw] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page under a title.

    `template` is the HTML below the title, in Jinja's language; besides the content's values it knows the macros of
    `templates/macros.html`. `slides` are the names of all figures that the content may have, with what they show:
    `figures/NAME.png`.
    """

    title: str
    content: Callable[[Facts], Content | None]  # None: the run has nothing for this section, and it is left out
    template: str
    slides: Mapping[str, str] = field(default_factory=dict)
    style: str = ""  # CSS of the section's own
    screen_only: bool = False  # moves or answers to the reader, and is not printed
