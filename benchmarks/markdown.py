"""Numbers and tables as they stand in docs/results.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def times(ratio: Mapping[str, float]) -> str:
    """A ratio with its spread: 2.31 (2.25 to 2.40)."""
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def number(value: float) -> str:
    """Three digits that count, whole numbers with separators: 0.0123, 4.56, 12,345."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def percent(share: Mapping[str, float] | None) -> str:
    """A share with its spread where it has one: 83.1% (82.8% to 83.3%)."""
    if share is None:
        return "none yet"
    text = f"{share['median']:.1%}"
    return text if share["min"] == share["max"] else f"{text} ({share['min']:.1%} to {share['max']:.1%})"


def points(gain: Mapping[str, float]) -> str:
    """A difference of shares in points, with its spread where it has one: +1.2 (-0.1 to +1.9)."""
    median, least, greatest = (100 * gain[key] for key in ("median", "min", "max"))
    return f"{median:+.1f}" if least == greatest else f"{median:+.1f} ({least:+.1f} to {greatest:+.1f})"


def milliseconds(seconds: float) -> str:
    return number(1000 * seconds)
