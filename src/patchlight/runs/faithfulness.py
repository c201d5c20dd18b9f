"""`faithfulness.json`: how true the maps of each method are, and what of it is more than chance.

Files of older versions have a `low` and `high` however few images there were, no `target` and nothing that was tested.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from patchlight.runs.codec import Amount, Count, Rate, Record, RecordError
from patchlight.runs.records import RunFile

MIN_IMAGES = 20  # below which a mean has no interval, and no method is said to be better than a control
CONTROLS = ("random", "centre")  # rows that do not look at the model


@dataclass(frozen=True, kw_only=True)
class Against(Record):
    """A method against a control, on the same images: `difference` is the mean of the method's score less the
    control's, `p` that of the test, after the correction for many methods.
    """

    difference: float
    p: Rate
    better: bool  # p is small enough, and the difference on the good side


@dataclass(frozen=True, kw_only=True)
class Interval(Record):
    """A mean over images, its 95 % interval, and how it compares with the controls."""

    mean: float
    low: float | None = None  # None, and `high` too: of fewer than MIN_IMAGES images
    high: float | None = None
    images: Count | None = field(default=None, metadata={"brief": True})  # where it is not of all images of the table
    # By control; None: nothing was tested, as of a control itself.
    against: dict[str, Against] | None = field(default=None, metadata={"brief": True})

    def __post_init__(self) -> None:
        if (self.low is None) != (self.high is None):
            raise RecordError("low and high must both be numbers, or both be null")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise RecordError(f"low must be no greater than high, and they are {self.low:g} and {self.high:g}")

    @property
    def fails(self) -> bool:
        """Whether it was tested and is not better than every control."""
        return self.against is not None and not all(each.better for each in self.against.values())


@dataclass(frozen=True, kw_only=True)
class MethodScores(Record):
    """A method of explanation: what its maps cost, and how true they are by each measure."""

    method: str  # with its options, as `--method` takes it
    by_class: bool = True  # False: the same map for every class
    ms: Amount  # per image
    ratio: Amount | None = None  # of that to a forward pass
    scores: dict[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Faithfulness(RunFile):
    """`faithfulness.json`: the methods, and the controls beside them, on the same images."""

    n: Count
    # Whose images of the run; None: its test images, or those that were chosen.
    split: str | None = field(default=None, metadata={"brief": True})
    target: str | None = field(default=None, metadata={"brief": True})  # what the maps are for: "the predicted class"
    tested: str | None = field(default=None, metadata={"brief": True})  # against the controls, in a sentence
    forward_ms: Amount | None = None  # per image
    rows: tuple[MethodScores, ...]
    run: str | None = field(default=None, metadata={"brief": True})
    data: str | None = field(default=None, metadata={"brief": True})

    def __post_init__(self) -> None:
        if any(row.scores.keys() != self.rows[0].scores.keys() for row in self.rows):
            raise RecordError("rows must all have scores by the same measures")

    @property
    def measures(self) -> list[str]:
        return list(self.rows[0].scores) if self.rows else []

    @property
    def methods(self) -> list[MethodScores]:
        return [row for row in self.rows if row.method not in CONTROLS]

    @property
    def controls(self) -> list[MethodScores]:
        return [row for row in self.rows if row.method in CONTROLS]

    @property
    def has_intervals(self) -> bool:
        """False of too few images, of which an older version wrote intervals all the same."""
        return self.n >= MIN_IMAGES

    @property
    def is_older(self) -> bool:
        """Measured by a version that made no test, and did not say what for."""
        return self.has_intervals and self.tested is None and self.target is None
