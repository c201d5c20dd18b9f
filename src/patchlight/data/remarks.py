"""What there is to say of the images of a set beside their pixels, counted, so that it is said once.

`Remarks` are kept with pixels in the cache, so that a set says the same whether it was decoded now or earlier.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from patchlight.data.levels import DARK, FULL, PLAIN, ValueFacts, looks_like
from patchlight.paths import printable

KINDS_TOLD = 3  # of Pillow's warnings; the rest is a number
LONGEST = 160  # letters of a warning


@dataclass
class Count:
    """How many images, and the first of them."""

    images: int = 0
    example: str = ""

    def add(self, name: str) -> None:
        self.example = self.example or name
        self.images += 1

    def __str__(self) -> str:
        return f"{self.images:,} image{'' if self.images == 1 else 's'}"


@dataclass
class Warned(Count):
    """How many images had a warning that is the same but for its numbers, which are those of the first."""

    text: str = ""


@dataclass
class Remarks:
    """Counts over the images of a set, in their order."""

    counts: dict[str, Count] = field(default_factory=dict)  # by the name of a fact
    greatest: int = 0  # of all 16-bit grey images that do not say what is white
    warned: Count = field(default_factory=Count)
    warnings: dict[str, Warned] = field(default_factory=dict)

    def add(self, name: str, facts: ValueFacts, warnings: tuple[str, ...] = ()) -> None:
        """Count an image."""
        if facts is PLAIN and not warnings:  # of most there is nothing to say
            return
        name = printable(name)
        for kind in ("above", "signed", "spread", "colour", "dark_colour"):
            if getattr(facts, kind):
                self._count(kind, name)
        if facts.greatest is not None:
            self._count("grey", name)
            self.greatest = max(self.greatest, facts.greatest)
            if facts.greatest <= DARK:
                self._count("dark", name)
        if warnings:
            self.warned.add(name)
        for text in warnings:
            text = printable(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")
            self.warnings.setdefault(re.sub(r"\d+", "0", text), Warned(text=text)).add(name)

    def _count(self, kind: str, name: str) -> None:
        self.counts.setdefault(kind, Count()).add(name)

    def sentences(self, pixel_max: int) -> tuple[str, ...]:
        """What there is to say, where 16-bit grey was read with `pixel_max` as white."""
        return tuple(sentence for sentence in (*self._of_values(pixel_max), self._of_pillow()) if sentence)

    def _of_values(self, pixel_max: int) -> Iterator[str]:
        counts = self.counts
        if "grey" in counts and pixel_max == FULL:
            yield self._of_depth(counts["grey"], counts.get("dark", Count()))
        if "above" in counts:
            yield (
                f"{counts['above']} of 16 bits, such as {counts['above'].example}, hold values below 0 or above the "
                f"white of data.pixel_max = {pixel_max}: they are black or white there"
            )
        if "signed" in counts:
            yield (
                f"{counts['signed']} of signed 16 bits, such as {counts['signed'].example}: -32768 is black in them "
                "and 32767 white; data.pixel_max is the value that is white where 0 is black"
            )
        if "spread" in counts:
            yield (
                f"{counts['spread']} of 32-bit integers or floats, such as {counts['spread'].example}, have no fixed "
                "range: in each of them its own least value is black and its own greatest white, so brightness cannot "
                "be compared between images; save them in 8 or 16 bits where it matters"
            )
        if "dark_colour" in counts:
            yield (
                f"{counts['dark_colour']} of 16 bits in colour hold no value above {DARK}, such as "
                f"{counts['dark_colour'].example}: they are nearly black, as Pillow reads the upper 8 bits of colour; "
                "save them in 8 bits"
            )
        if "colour" in counts and pixel_max != FULL:
            yield (
                f"{counts['colour']} of 16 bits in colour, such as {counts['colour'].example}, are read by their upper "
                "8 bits; data.pixel_max is for grey ones"
            )

    def _of_depth(self, grey: Count, dark: Count) -> str:
        """Where the values of 16-bit grey images leave the upper bits empty."""
        if few := looks_like(self.greatest):
            every, hold = ("", "holds") if grey.images == 1 else ("all ", "hold")
            return f"{every}{grey} of 16 bits {hold} no value above {self.greatest}, such as {grey.example}: they {few}"
        if dark.images and self.greatest:
            return (
                f"{dark.images:,} of {grey} of 16 bits hold no value above {DARK}, such as {dark.example}: they are "
                f"nearly black, as all are read as 0 to {FULL}; if their values have 12 bits, keep them apart from the "
                f"others and set data.pixel_max = {DARK}"
            )
        return ""

    def _of_pillow(self) -> str:
        kinds = sorted(self.warnings.values(), key=lambda each: -each.images)
        if not kinds:
            return ""
        told = ", ".join(f"'{each.text}' ({each.images:,})" for each in kinds[:KINDS_TOLD])
        more = f" and {len(kinds) - KINDS_TOLD} more kinds" if len(kinds) > KINDS_TOLD else ""
        return f"Pillow warned of {self.warned}: {told}{more}, such as {self.warned.example}"

    def to_json(self) -> dict[str, Any]:
        """Plain data, as it is kept with pixels."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Remarks:
        """The way back. Raises TypeError, KeyError or AttributeError where the data are others."""
        return cls(
            {kind: Count(**count) for kind, count in data["counts"].items()},
            int(data["greatest"]),
            Count(**data["warned"]),
            {kind: Warned(**count) for kind, count in data["warnings"].items()},
        )
