"""The one look of all figures: colours, type, and how a figure becomes SVG or PNG. Nothing of it stays set globally."""

from __future__ import annotations

import dataclasses
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from patchlight.units import printable

Theme = Literal["light", "dark"]


@dataclass(frozen=True)
class Style:
    """The colours of a theme, after Okabe and Ito's palette, which colour-blind readers can tell apart."""

    ink: str
    quiet: str
    line: str
    paper: str
    blue: str
    orange: str
    green: str
    heat: str


STYLES: dict[Theme, Style] = {
    "light": Style("#1c2024", "#5f6770", "#d5d9de", "#ffffff", "#0072b2", "#c8500a", "#007a5a", "magma_r"),
    "dark": Style("#e8eaed", "#a2aab4", "#3a4149", "#15181c", "#62b8ee", "#f0a13c", "#3fc79a", "magma"),
}

# Colours of series beside each other, the first three as above: as far apart as six can be, on either paper.
SERIES: dict[Theme, tuple[str, ...]] = {
    "light": (STYLES["light"].blue, STYLES["light"].orange, STYLES["light"].green, "#a8378a", "#8a6a00", "#5a4bc2"),
    "dark": (STYLES["dark"].blue, STYLES["dark"].orange, STYLES["dark"].green, "#ea8fce", "#d9c34d", "#a99ff7"),
}

LIKENESS = "PuOr_r"  # colours of a cosine, from purple (-1) over white (0) to orange (1)

# Measured with whichever comes first here; a browser shows the SVG's text in the same list's first font that it has.
FONTS = ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"]


@contextmanager
def styled(theme: Theme) -> Iterator[Style]:
    """The shared look, for the time of drawing."""
    s = STYLES[theme]
    look: dict[Any, Any] = {
        "font.family": ["sans-serif", "DejaVu Sans"],  # the second has the signs that the first may lack
        "font.sans-serif": FONTS,
        "font.size": 9,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.titlepad": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": s.line,
        "axes.labelcolor": s.quiet,
        "axes.titlecolor": s.ink,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "axes.unicode_minus": True,
        "figure.facecolor": "none",
        "figure.constrained_layout.use": True,
        "hatch.linewidth": 0.7,
        "grid.color": s.line,
        "grid.linewidth": 0.6,
        "legend.edgecolor": "none",
        "legend.facecolor": s.paper,
        "legend.frameon": False,
        "pdf.fonttype": 42,  # text stays text, which journals ask for
        "savefig.facecolor": "none",
        "svg.fonttype": "none",
        "svg.hashsalt": "patchlight",  # the same figure gives the same bytes
        "text.color": s.ink,
        "text.usetex": False,
        "xtick.color": s.line,
        "ytick.color": s.line,
        "xtick.labelcolor": s.quiet,
        "ytick.labelcolor": s.quiet,
    }
    with mpl.rc_context(look):
        yield s


def cut(text: object, length: int) -> str:
    """Foreign text, such as a class name, on one line of at most `length` signs, its end kept: names differ there.
    Control characters and hidden signs are written out, as \\x1b.
    """
    line = " ".join("".join(c if c.isprintable() else " " for c in printable(str(text))).split())
    if len(line) <= length:
        return line
    end = (length - 1) // 3
    return f"{line[: length - 1 - end].rstrip()}…{line[-end:].lstrip()}"


def plain(text: object, length: int = 20) -> str:
    """`cut` for a figure: no `$` in it starts a formula."""
    return cut(text, length).replace("$", r"\$")


def wrapped(text: object, inches: float, lines: int = 3, size: float = 8, weight: str = "normal") -> str:
    """Foreign text for a figure, its lines at most so wide in this size of type and about equally long, and cut in its
    middle where they would be more than `lines`. A number and its % stay together; each part of a text with line ends
    is wrapped by itself.
    """
    if "\n" in str(text):
        return "\n".join(wrapped(part, inches, lines, size, weight) for part in str(text).split("\n"))
    room, length = 72 * inches / size, len(str(text))
    while True:
        words = re.split(r"(?<=[^\d ]-)(?=\w)|(?<= )(?!%)", cut(text, length))
        parts = _filled(words, room, weight)
        if len(parts) <= lines or length <= 4:
            break
        length -= 1
    widest = max((_ems(word, weight) for word in words), default=0.0)
    while len(parts) > 1 and widest <= (room := room * 0.96):
        narrower = _filled(words, room, weight)
        if len(narrower) > len(parts):
            break
        parts = narrower
    return "\n".join(parts).replace("$", r"\$")


def _filled(words: list[str], room: float, weight: str) -> list[str]:
    """Lines of words, with their spaces, that are at most `room` ems wide; what is longer is broken anywhere."""
    lines, used = [""], 0.0
    for word in words:
        width = _ems(word, weight)
        pieces = [word] if width <= room else list(word)
        if used and used + width > room:
            lines, used = [*lines, ""], 0.0
        for piece in pieces:
            width = _ems(piece, weight)
            if used and used + width > room:
                lines, used = [*lines, ""], 0.0
            lines[-1] += piece
            used += width + (_em(" ", weight) if piece.endswith(" ") else 0)
    return [line.rstrip() for line in lines if line.strip()]


def _ems(word: str, weight: str) -> float:
    """How wide a word is, without a space at its end."""
    return sum(_em(sign, weight) for sign in word.rstrip())


@lru_cache(maxsize=4096)
def _em(sign: str, weight: str) -> float:
    """How wide a sign is, in parts of the type's size, in the font that figures are measured with."""
    if ord(sign) > 0x2E80:
        return 1.0  # Chinese, Japanese, Korean, pictures: the font has none of them
    with mpl.rc_context({"font.sans-serif": FONTS}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        font = FontProperties(family=["sans-serif", "DejaVu Sans"], size=100, weight=weight)
        wide, narrow = (
            text_to_path.get_text_width_height_descent(words, font, ismath=False)[0] for words in (f"|{sign}|", "||")
        )
    return float(wide - narrow) / 100


def svg(figure: Figure, theme: Theme) -> str:
    """The figure as an SVG document; its text stays text. Equal figures give equal documents."""
    out = io.BytesIO()
    _write(figure, theme, out, format="svg", metadata={"Date": None, "Creator": None})
    return out.getvalue().decode("utf-8")


def darkened(document: str) -> str:
    """A light chart's SVG in the colours of the dark theme."""
    light, dark = dataclasses.asdict(STYLES["light"]), dataclasses.asdict(STYLES["dark"])
    colours = {light[role]: dark[role] for role in light if light[role].startswith("#")}
    colours |= dict(zip(SERIES["light"], SERIES["dark"], strict=True))
    anywhere = re.compile("|".join(colours))
    # In tags alone, as a class may be called as a colour is.
    return re.sub("<[^<>]*>", lambda tag: anywhere.sub(lambda match: colours[match[0]], tag[0]), document)


def png(figure: Figure, theme: Theme, dpi: int = 150, opaque: bool = True, description: str | None = None) -> bytes:
    """The figure as PNG, on the theme's paper or (opaque=False) on nothing; `description` is written into the file."""
    out = io.BytesIO()
    paper = STYLES[theme].paper if opaque else "none"
    _write(
        figure,
        theme,
        out,
        format="png",
        dpi=dpi,
        facecolor=paper,
        metadata={"Software": None, "Description": description},
    )
    return out.getvalue()


def pdf(figure: Figure, theme: Theme, description: str | None = None) -> bytes:
    """The figure as PDF, for a paper. Equal figures give equal bytes; `description` is written into the file."""
    out = io.BytesIO()
    _write(figure, theme, out, format="pdf", metadata={"CreationDate": None, "Creator": None, "Subject": description})
    return out.getvalue()


def _write(figure: Figure, theme: Theme, out: io.BytesIO, **options: Any) -> None:
    with styled(theme), any_script():
        figure.savefig(out, **options)


@contextmanager
def any_script() -> Iterator[None]:
    """Drawing without a warning where a name is in a script that no installed font has: the browser will have one, and
    a PNG shows a box.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield
