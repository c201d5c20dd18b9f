"""A run folder as one page: `report.html` with everything inside it, and `figures/*.png` for slides.

Only the folder's records are read, so a report needs no model, no data and no network. What the page shows is the
table SECTIONS.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from patchlight.figures.style import STYLES, png
from patchlight.progress import say
from patchlight.reporting.embed import Draw
from patchlight.reporting.facts import Facts, read_facts
from patchlight.reporting.files import write_file
from patchlight.reporting.headline import headline
from patchlight.reporting.section import Content, Section
from patchlight.reporting.sections import SECTIONS
from patchlight.reporting.templating import html_templates


def build_report(run: Path) -> Path:
    """Write `figures/*.png` and `report.html` of a run folder, and return the page's path.

    What the run does not have (no test result yet, no attention) is left out, and so are damaged pictures, which is
    said. Raises PatchlightError where `run` is no run folder, its result is damaged, or the page cannot be written.
    """
    facts = read_facts(run)
    for line in facts.left_out:
        say(line)
    shown = [(section, content) for section in SECTIONS if (content := section.content(facts)) is not None]
    for section, content in shown:
        unlisted = content.slides.keys() - section.slides.keys()
        assert not unlisted, f"the section '{section.title}' draws {unlisted} and does not list them among its slides"
    html = render(facts, shown)
    slides = {name: draw for _, content in shown for name, draw in content.slides.items()}
    write_slides(run / "figures", slides)
    return write_file(run / "report.html", html.encode("utf-8", "replace"))


def render(facts: Facts, shown: list[tuple[Section, Content]]) -> str:
    """The page as HTML."""
    jinja = html_templates()
    parts = [(section, jinja.from_string(section.template).render(content.values)) for section, content in shown]
    return jinja.get_template("page.html").render(
        facts=facts,
        headline=headline(facts),
        light=STYLES["light"],
        dark=STYLES["dark"],
        styles="".join(section.style for section, _ in shown),
        parts=parts,
    )


def write_slides(folder: Path, slides: Mapping[str, Draw]) -> None:
    """`folder/NAME.png` of every figure; those that an earlier report had and this one has not are deleted."""
    known = {name: about for section in SECTIONS for name, about in section.slides.items()}
    for name, draw in slides.items():
        write_file(folder / f"{name}.png", png(draw("light"), "light", description=known[name]))
    for name in known.keys() - slides.keys():
        (folder / f"{name}.png").unlink(missing_ok=True)
