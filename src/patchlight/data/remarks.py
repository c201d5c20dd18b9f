"""What there is to say of the images of a set beside their pixels, counted, so that it is said once.

`Remarks` are kept with pixels in the cache, so that a set says the same whether it was decoded now or earlier.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from patchlight.data.levels import DARK, FULL, PLAIN, ImageFacts, looks_like, trained_with
from patchlight.paths import printable
from patchlight.units import counted

KINDS_TOLD = 3  # of Pillow's warnings; the rest is a number
LONGEST = 160  # letters of a warning
ONE = {"have": "has", "are": "is"}  # verbs that do not just take an s


@dataclass
class Count:
    """How many images, and the first of them."""

    images: int = 0
    example: str = ""

    def add(self, name: str) -> None:
        self.example = self.example or name
        self.images += 1

    def verb(self, plural: str) -> str:
        """The verb that goes with the number."""
        return plural if self.images != 1 else ONE.get(plural, f"{plural}s")

    def __str__(self) -> str:
        return counted(self.images, "image")


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

    def add(self, name: str, facts: ImageFacts, warnings: tuple[str, ...] = ()) -> None:
        """Count an image."""
        if facts is PLAIN and not warnings:  # of most there is nothing to say
            return
        name = printable(name)
        for kind in ("above", "signed", "spread", "colour", "dark_colour"):
            if getattr(facts, kind):
                self._count(kind, name)
        if facts.more:
            self._count(facts.more, name)
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

    def sentences(self, pixel_max: int, trained: bool = False) -> tuple[str, ...]:
        """What there is to say, where 16-bit grey was read with `pixel_max` as white.

        `trained` says that this was so because a model was trained with it: no setting is advised then.
        """
        said = (*self._of_values(pixel_max, trained), *self._of_more(), self._of_pillow())
        return tuple(sentence for sentence in said if sentence)

    def _of_values(self, pixel_max: int, trained: bool) -> Iterator[str]:
        counts = self.counts
        if "grey" in counts and pixel_max == FULL:
            yield self._of_depth(counts["grey"], counts.get("dark", Count()), trained)
        if above := counts.get("above"):
            yield (
                f"{above} of 16 bits, such as {above.example}, {above.verb('hold')} values below 0 or above the white "
                f"of data.pixel_max = {pixel_max}{', with which the model was trained' * trained}: they are black or "
                "white there"
            )
        if signed := counts.get("signed"):
            them = "it" if signed.images == 1 else "them"
            setting = trained_with(FULL) if trained else "data.pixel_max is the value that is white where 0 is black"
            yield (
                f"{signed} of signed 16 bits, such as {signed.example}: -32768 is black in {them} and 32767 white; "
                f"{setting}"
            )
        if spread := counts.get("spread"):
            each = "its own least value is black and its own greatest white"
            range_of = f"no fixed range: {each}" if spread.images == 1 else f"no fixed range: in each of them {each}"
            yield (
                f"{spread} of 32-bit integers or floats, such as {spread.example}, {spread.verb('have')} {range_of}, "
                "so brightness cannot be compared between images; save them in 8 or 16 bits where it matters"
            )
        if dark := counts.get("dark_colour"):
            nearly = "it is" if dark.images == 1 else "they are"
            yield (
                f"{dark} of 16 bits in colour {dark.verb('hold')} no value above {DARK}, such as {dark.example}: "
                f"{nearly} nearly black, as Pillow reads the upper 8 bits of colour; save such images in 8 bits"
            )
        if (colour := counts.get("colour")) and pixel_max != FULL:
            yield (
                f"{colour} of 16 bits in colour, such as {colour.example}, {colour.verb('are')} read by the upper 8 "
                "bits; data.pixel_max is for grey ones"
            )

    def _of_depth(self, grey: Count, dark: Count, trained: bool) -> str:
        """Where the values of 16-bit grey images leave the upper bits empty."""
        if few := looks_like(self.greatest, trained):
            every, such = ("", "such values") if grey.images == 1 else ("all ", "they")
            return (
                f"{every}{grey} of 16 bits {grey.verb('hold')} no value above {self.greatest}, such as {grey.example}: "
                f"{such} {few}"
            )
        if dark.images and self.greatest:
            nearly = "it is" if dark.images == 1 else "they are"
            advice = (
                trained_with(FULL)
                if trained
                else (
                    "if such values have 12 bits, keep these images apart from the others and set "
                    f"data.pixel_max = {DARK}"
                )
            )
            return (
                f"{dark.images:,} of {grey} of 16 bits {dark.verb('hold')} no value above {DARK}, such as "
                f"{dark.example}: {nearly} nearly black, as all are read as 0 to {FULL}; {advice}"
            )
        return ""

    def _of_more(self) -> Iterator[str]:
        """Where files hold more than the picture that is read."""
        if frames := self.counts.get("frames"):
            are, its = (
                ("is an animation", "its first picture")
                if frames.images == 1
                else ("are animations", "the first picture of each")
            )
            yield f"{frames} {are}, such as {frames.example}: {its} is used and no other"
        if pages := self.counts.get("pages"):
            its = "the first" if pages.images == 1 else "the first of each"
            yield (
                f"{pages} (TIFF) {pages.verb('have')} several pages or copies in other sizes, such as {pages.example}: "
                f"{its} is used and no other"
            )
        if beside := self.counts.get("beside"):
            yield (
                f"{beside} (MPO or HEIC) {beside.verb('hold')} further pictures, as previews or a second view, such as "
                f"{beside.example}: the main picture is used and no other"
            )

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
