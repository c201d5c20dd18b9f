"""What a sweep may try of a setting: `optim.lr=1e-4..1e-2:log` as typed data, checked by the setting's own range.

FIELD=LOW..HIGH        any number between the two, both included; whole numbers where the field has whole ones
FIELD=LOW..HIGH:log    the same, evenly by order of magnitude
FIELD=LOW..HIGH:STEP   LOW, LOW + STEP, and so on
FIELD=A,B,C            one of these values
"""

from __future__ import annotations

import itertools
import math
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from patchlight.config import SECTIONS, Config, apply_overrides, describe_fields
from patchlight.config.fields import Kind, kind_of
from patchlight.errors import UsageError, did_you_mean
from patchlight.studies.identity import counts

Value = None | bool | int | float | str
GRAMMAR = "write LOW..HIGH, LOW..HIGH:log, LOW..HIGH:STEP or A,B,C"
MOST_POINTS = 10_000  # of a grid

# What a sweep may not choose, and why, by the beginning of the field's name.
NOT_SWEPT = {
    "train.seed": "is luck and no setting, and the best of many seeds would be the luckiest one",
    "train.task": "decides what is measured, so its trials could not be compared",
    "train.select": "decides what is measured, so its trials could not be compared",
    "train.debug": "is for trying out a recipe",
}
# The others of the section decide which images are validated with.
SWEPT_OF_DATA = ("data.image_size", "data.interpolation", "data.sampler")


@dataclass(frozen=True)
class Axis:
    """A setting and what may be tried of it: `choices`, or numbers from `low` to `high`, both included."""

    field: str  # "optim.lr", or "stages.2.optim.lr"
    text: str  # as it was written, without the field
    is_whole: bool = False  # whole numbers
    low: float = 0.0
    high: float = 0.0
    step: float | None = None  # from low on
    log: bool = False
    choices: tuple[Value, ...] = ()

    @property
    def count(self) -> int | None:
        """How many values there are; None where they have no end."""
        if self.choices:
            return len(self.choices)
        if self.step is None and not self.is_whole:
            return None
        return round((self.high - self.low) / (self.step or 1)) + 1

    def points(self) -> tuple[Value, ...]:
        """All of its values, for a grid. Raises UsageError where there are too many to count."""
        if self.choices:
            return self.choices
        if self.log or (self.step is None and not self.is_whole):
            raise UsageError(
                f"{self.field}={self.text} has no end of values, and a grid tries all; list them, as in "
                f"{self.field}={self.low:g},{self.high:g}, or take --sampler tpe"
            )
        step = self.step or 1
        count = round((self.high - self.low) / step) + 1
        if count > MOST_POINTS:
            raise UsageError(f"{self.field}={self.text} has {count:,} values, which is no grid; give a greater step")
        if self.is_whole:
            return tuple(int(self.low) + i * int(step) for i in range(count))
        # In decimal numbers, as 0.1 + 0.2 is not 0.3 in binary ones.
        low, each = Decimal(repr(self.low)), Decimal(repr(step))
        return tuple(float(low + i * each) for i in range(count))


def read_ranges(base: Config, ranges: Mapping[str, str | Sequence[Value]] | Sequence[str]) -> tuple[Axis, ...]:
    """The axes of a sweep over `base`: words of a command line, or a dictionary of fields, whose values may be lists.

    Raises UsageError, which names the field and the fix, for a field that does not exist or may not be swept, for a
    value or an end that the field does not take, and for what is no range.
    """
    pairs: list[tuple[str, str | Sequence[Value]]] = []
    if isinstance(ranges, Mapping):
        pairs = list(ranges.items())
    else:
        for word in ranges:
            field, equals, text = word.partition("=")
            if not equals:
                raise UsageError(f"'{word}' says no range; write FIELD=RANGE, as in optim.lr=1e-4..1e-2:log")
            pairs.append((field.removeprefix("--"), text))
    if not pairs:
        raise UsageError("a sweep needs a range, as in optim.lr=1e-4..1e-2:log")
    fields = [field for field, _ in pairs]
    if twice := next((field for field in fields if fields.count(field) > 1), None):
        raise UsageError(f"{twice} has two ranges; leave one of them out")
    return tuple(_axis(base, field, given) for field, given in pairs)


def grid_of(axes: Sequence[Axis]) -> list[dict[str, Value]]:
    """Every combination of the axes' values. Raises UsageError for more than MOST_POINTS."""
    points = [axis.points() for axis in axes]
    count = math.prod(len(values) for values in points)
    if count > MOST_POINTS:
        raise UsageError(
            f"the grid has {count:,} points, and {MOST_POINTS:,} are the most; name fewer values, or take --sampler tpe"
        )
    fields = [axis.field for axis in axes]
    return [dict(zip(fields, values, strict=True)) for values in itertools.product(*points)]


def combinations(axes: Sequence[Axis]) -> int | None:
    """How many different settings the axes have together; None where they have no end."""
    counts_of = [axis.count for axis in axes]
    known = [count for count in counts_of if count is not None]
    return math.prod(known) if len(known) == len(counts_of) else None


def _axis(base: Config, field: str, given: str | Sequence[Value]) -> Axis:
    kind = _kind_of(field)
    if not isinstance(given, str):
        text = ",".join("none" if value is None else str(value) for value in given)
        return _choices(base, field, text, list(given), kind)
    text = given.strip()
    if kind.is_list and ("[" in text or any(word[:1].isdigit() for word in text.split(","))):
        raise UsageError(f"{field} is a list of numbers, of which a sweep takes no range; sweep another field")
    if ".." in text and kind.type in (int, float) and not kind.choices:
        return _numbers(base, field, text, kind)
    if ".." in text and kind.type is not str:
        raise UsageError(f"{field}={text}: {field} takes no numbers between two; list its values, as in {field}=A,B")
    return _choices(base, field, text, [word.strip() for word in text.split(",")], kind)


def _kind_of(field: str) -> Kind:
    """What the field's annotation says. Raises UsageError for one that does not exist, or that a sweep may not set."""
    name = re.sub(r"^stages\.\d+\.", "", field)
    section, _, key = name.partition(".")
    hints = typing.get_type_hints(SECTIONS[section], include_extras=True) if section in SECTIONS else {}
    if key not in hints:
        known = [info.key for info in describe_fields()]
        raise UsageError(f"unknown setting '{field}'; {did_you_mean(name, known)}")
    reason = next((why for begin, why in NOT_SWEPT.items() if name.startswith(begin)), None)
    if not counts(name):
        reason = "changes nothing that validation measures"
    elif section == "data" and name not in SWEPT_OF_DATA:
        reason = "decides which images are used, so its trials could not be compared"
    if reason:
        raise UsageError(f"{field} cannot be swept: it {reason}; set it for all trials with --{field}")
    return kind_of(hints[key])


def _numbers(base: Config, field: str, text: str, kind: Kind) -> Axis:
    """`LOW..HIGH`, perhaps with `:log` or `:STEP`."""
    ends, _, how = text.partition(":")
    first, _, last = ends.partition("..")
    low, high = (_number(base, field, word, text) for word in (first, last))
    if low >= high:
        raise UsageError(f"{field}={text}: {low:g} is not below {high:g}; write the lower one first")
    whole = kind.type is int
    if how == "log":
        if low <= 0:
            raise UsageError(f"{field}={text}: a log range begins above 0; raise {low:g}, or leave out ':log'")
        return Axis(field, text, whole, low, high, log=True)
    if ":" not in text:
        return Axis(field, text, whole, low, high)
    try:
        step = int(how) if whole else float(how)
    except ValueError:
        what = "a whole number" if whole else "a number"
        raise UsageError(f"{field}={text}: ':{how}' is neither ':log' nor a step that is {what}") from None
    if not 0 < step <= high - low:
        raise UsageError(f"{field}={text}: the step must be above 0 and at most {high - low:g}")
    steps = Decimal(repr(high)) - Decimal(repr(low))
    if steps % Decimal(repr(step)):
        last_value = float(Decimal(repr(high)) - steps % Decimal(repr(step)))
        raise UsageError(
            f"{field}={text}: steps of {how} from {low:g} do not end at {high:g}; write {first}..{last_value:g}:{how}"
        )
    return Axis(field, text, whole, low, high, step=step)


def _number(base: Config, field: str, word: str, text: str) -> float:
    value = _value(base, field, word.strip(), text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{field}={text}: '{word}' is no number; {GRAMMAR}")
    return value


def _choices(base: Config, field: str, text: str, words: Sequence[Value], kind: Kind) -> Axis:
    """`A,B,C`."""
    values = tuple(_value(base, field, word, text) for word in words)
    if len(values) < 2:
        fix = f"set it for all trials with --{field} {text}" if text else GRAMMAR
        raise UsageError(f"{field}={text} is one value and no range; {GRAMMAR}, or {fix}")
    if len(set(map(repr, values))) < len(values):
        raise UsageError(f"{field}={text} has a value twice; leave one of them out")
    return Axis(field, text, kind.type is int, choices=values)


def _value(base: Config, field: str, word: Value, text: str) -> Value:
    """A word as the field's value, checked as the recipe's own would be."""
    if isinstance(word, str) and not word:
        raise UsageError(f"{field}={text} lacks a value; {GRAMMAR}")
    try:
        value = apply_overrides(base, {field: word}).flat().get(field)
    except UsageError as error:
        raise UsageError(f"{field}={text}: {str(error).removeprefix('command line: ')}") from None
    if isinstance(value, list | tuple | dict):
        raise UsageError(f"{field} is a list of numbers, of which a sweep takes no range; sweep another field")
    return str(value) if isinstance(value, str) else value
