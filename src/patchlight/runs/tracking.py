"""Where trackers hold a run, as a type: `tracking.json`."""

from __future__ import annotations

from dataclasses import dataclass

from patchlight.runs.codec import Record
from patchlight.runs.records import RunFile


@dataclass(frozen=True, kw_only=True)
class TrackedIn(Record):
    """A run in one tracker."""

    id: str  # of the run there; empty where its folder is all that there is
    place: str  # where it is: a folder or an address
    complete: bool = False  # it has all: every epoch, the result, the figures and the report
    result: str = ""  # whose: "eval.json", or another file with a run's result; empty until it is complete


@dataclass(frozen=True, kw_only=True)
class Tracked(RunFile):
    """`tracking.json`, with train.track: the run in each tracker, by the tracker's name. A run that goes on finds in it
    what it is called there.
    """

    trackers: dict[str, TrackedIn]
