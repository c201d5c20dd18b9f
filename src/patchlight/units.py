"""Numbers and names as people read them. A no-break space stands between a number and its unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

SPACE = "\N{NO-BREAK SPACE}"

# What a terminal or a browser obeys, or shows as nothing: control characters, ends of lines, signs that turn the
# direction of text, and characters without a width. The two joiners belong to some scripts and to emoji, so they are
# hidden signs only beside letters that join nothing.
UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f]"
    "|(?:(?<=[\x00-\x7f])|^)[\u200c\u200d]|[\u200c\u200d](?=[\x00-\x7f]|$)"
)
LONGEST = 160  # characters of a name that a sentence shows whole


def printable(name: str | Path) -> str:
    """The name as text in UTF-8 on one line: bytes that are none, and characters that a terminal would obey or show as
    nothing, are escaped, as in caf\\udce9.png.
    """
    text = str(name).encode("utf-8", "backslashreplace").decode("utf-8")
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def on_lines(text: str) -> str:
    """The same of a text whose lines are its own."""
    return "\n".join(map(printable, text.split("\n")))


def shortened(name: str | Path, longest: int = LONGEST) -> str:
    """A printable name, of a very long one the beginning and the end."""
    text = printable(name)
    return text if len(text) <= longest else f"{text[: longest // 2]}...{text[-longest // 2 :]}"


def counted(number: float, word: str, plural: str = "") -> str:
    """A number with its word: "1 image", "1,797 images", "2.5 epochs". `plural` where an s is not enough."""
    text = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{text} {word if number == 1 else plural or f'{word}s'}"


def short(value: float, digits: int = 3) -> str:
    """A number in few digits: 912, 2.69 M, 1.2 G; `digits` counts all that are shown."""
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # Not before 9,995 so that 1,797 images stay readable; and 999,960 is 1 M, not 1000 k.
        if abs(value) >= 0.9995 * size and abs(value) >= 9995:
            return f"{value / size:.{digits}g}{SPACE}{letter}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """61.2 as "1 min 1 s"; the two largest units at most."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def clock(seconds: float) -> str:
    """Seconds as a clock shows them: 0:05, 12:30, 3:02:09; "?" for infinity."""
    if seconds == float("inf"):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def percent(rate: float, digits: int = 0) -> str:
    """A rate in 0..1 as per cent: 0.914 is "91 %"; what would be rounded to 0 or 100 % is "<1 %" or ">99 %"."""
    least = 10.0**-digits
    text = f"{100 * rate:.{digits}f}"
    if rate > 1e-9 and float(text) == 0:
        return f"<{least:.{digits}f}{SPACE}%"
    if rate < 1 - 1e-9 and float(text) == 100:
        return f">{100 - least:.{digits}f}{SPACE}%"
    return f"{text}{SPACE}%"


def mean_deviation(mean: float, deviation: float | None = None) -> str:
    """The mean of rates in 0..1 with its deviation: "61.2 % ± 0.4", with a second decimal where one would show a
    deviation as 0.
    """
    if deviation is None:
        return percent(mean, 1)
    digits = 2 if 0 < deviation < 0.0005 else 1
    return f"{percent(mean, digits)} \N{PLUS-MINUS SIGN} {100 * deviation:.{digits}f}"


def in_points(rates: Sequence[float], sign: bool = True) -> list[str]:
    """Differences of rates in percentage points, with equally many decimals: 1, or up to 3 so that none but 0 is
    shown as 0. 0.008 is "+0.8", without `sign` its size alone, "0.8".
    """
    points = [100 * rate for rate in rates]
    seen = [abs(value) for value in points if abs(value) > 1e-7]
    digits = next((d for d in (1, 2, 3) if all(float(f"{value:.{d}f}") for value in seen)), 3)
    texts = [f"{value:+.{digits}f}" if sign else f"{abs(value):.{digits}f}" for value in points]
    return [text if float(text) else f"{0:.{digits}f}" for text in texts]
