"""The fields of a recipe: what an annotation says of a value, and how a value is read and checked by it.

A field is written `Annotated[type, "its meaning", Range or Names]`; help texts, checks and the command line's parsing
are made of that. The types are int, float, bool, str, Duration, a Literal, a tuple of numbers, a Literal `|` a tuple of
numbers (a choice of names, or a list), a tuple of texts with Names (a list of some of the names), and `| None` of
these. A Range beside a tuple is that of each of its numbers.
"""

from __future__ import annotations

import math
import re
import tomllib
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from patchlight.config.names import Names
from patchlight.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Range:
    """The values a number may take: low <= value <= high, or low < value <= high with `above`."""

    low: float = float("-inf")
    high: float = float("inf")
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return low if self.high == float("inf") else f"{low} and at most {self.high:g}"


class Duration(str):
    """A length of time as people write it, in hours, minutes and seconds: 90s, 10m, 1h30m."""

    FORM = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")

    @property
    def seconds(self) -> float:
        """Its length in seconds; 0 for a text of another form."""
        match = self.FORM.fullmatch(self)
        hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
        return 3600 * hours + 60 * minutes + seconds


POSITIVE = Range(0, above=True)
COUNT = Range(1)
EPOCHS = Range(0, 100_000, above=True)
NOT_NEGATIVE = Range(0)
RATE = Range(0, 1)
PROPER_RATE = Range(0, 0.999)
NEARLY_ONE = Range(0, 0.999999)
MOST = 2**63 - 1  # of whole numbers: what TOML has, and what tensors hold


@dataclass(frozen=True)
class Section:
    """One table of a recipe. Building one checks every field against its annotation and raises UsageError."""

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self), include_extras=True).items():
            object.__setattr__(self, name, checked(getattr(self, name), hint, name))


@dataclass(frozen=True)
class Kind:
    """What an annotation says of a field."""

    type: Any  # without `| None`: int, float, bool, str, Duration, or tuple[int, float or str, ...]
    meaning: str = ""
    optional: bool = False  # None is a value: the field is unset
    range: Range | None = None
    choices: tuple[str, ...] = ()  # of a text, the only ones allowed

    @property
    def is_list(self) -> bool:
        """Whether a list of numbers is a value; with `choices`, each of them is one, too."""
        return get_origin(self.type) is tuple and not self.is_names

    @property
    def is_names(self) -> bool:
        """Whether the value is a list of some of the `choices`."""
        return get_origin(self.type) is tuple and get_args(self.type)[0] is str

    @property
    def word(self) -> str:
        """The type in a word for help texts: "int", "numbers", or the choices: "adamw|sgd|muon", "none|numbers",
        "list of tensorboard|wandb".
        """
        if self.is_names:
            return f"list of {'|'.join(self.choices)}"
        if not self.choices and not self.is_list:
            return str(self.type.__name__).lower()
        return "|".join([*self.choices, *(["numbers"] if self.is_list else [])])


def kind_of(hint: Any) -> Kind:
    """What the annotation `hint` says, a plain type included."""
    bare, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    parts = get_args(bare) if get_origin(bare) in (typing.Union, types.UnionType) else (bare,)
    optional = type(None) in parts
    choices = next((tuple(note) for note in notes if isinstance(note, Names)), ())
    choices = next((get_args(part) for part in parts if get_origin(part) is Literal), choices)
    others = [part for part in parts if part is not type(None) and get_origin(part) is not Literal]
    bare = others[0] if others else str
    meaning = next((note for note in notes if isinstance(note, str)), "")
    return Kind(bare, meaning, optional, next((note for note in notes if isinstance(note, Range)), None), choices)


def parse(text: str, kind: Kind) -> Any:
    """A command-line word as the value that a TOML file would hold; what cannot be read so stays text, and `checked`
    refuses it.
    """
    if kind.is_names and not text.startswith("["):
        return [] if text.strip() in ("", "none") else [name.strip() for name in text.split(",")]
    if kind.type in (str, Duration) or text in kind.choices:
        return text
    listed = kind.is_list and not text.startswith("[")
    try:
        return tomllib.loads(f"value = [{text}]" if listed else f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML, or a number of more digits than Python reads
        return text


def checked(value: Any, hint: Any, name: str) -> Any:
    """The value in its field's type, lists as tuples. Raises UsageError, which begins with the field's `name`."""
    kind = kind_of(hint)
    if value is None and kind.optional:
        return None
    if kind.is_names:
        return _names(value, kind, name)
    if kind.choices and isinstance(value, str) and value in kind.choices:
        return value
    if kind.choices and (isinstance(value, str) or not kind.is_list):
        allowed = f"is {', '.join(kind.choices)} or a list of numbers, and " if kind.is_list else ""
        raise UsageError(f"{name} {allowed}cannot be {_shown(value)}; {did_you_mean(_shown(value), kind.choices)}")
    if kind.type is Duration:
        if not isinstance(value, str) or not 0 < Duration(value).seconds < float("inf"):
            raise UsageError(f'{name} must be a time such as "90s", "10m" or "1h30m", not {_shown(value)}')
        return Duration(value)
    if kind.is_list:
        return _numbers(value, kind, name)
    if kind.range is not None and isinstance(value, float) and math.isnan(value):
        raise UsageError(f"{name} must be {kind.range}, not nan")
    if _is_number(value) and kind.type in (int, float):
        value = _bounded(value, name)
    if kind.type is float and _is_number(value):
        value = float(value)
    if not isinstance(value, kind.type) or (kind.type is int and isinstance(value, bool)):
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise UsageError(f"{name} must be {words[kind.type]}, not {_shown(value)}")
    if kind.range is not None and value not in kind.range:
        raise UsageError(f"{name} must be {kind.range}, not {_shown(value)}")
    return value


def _names(value: Any, kind: Kind, name: str) -> tuple[str, ...]:
    """A list of some of the kind's choices as a tuple, in the order given. One name twice is taken for a mistake."""
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise UsageError(f'{name} must be a list of names, such as ["{kind.choices[0]}"], not {_shown(value)}')
    for place, each in enumerate(value):
        if each not in kind.choices:
            raise UsageError(f"{name} cannot have {_shown(each)}; {did_you_mean(each, kind.choices)}")
        if each in value[:place]:
            raise UsageError(f"{name} has {each} twice; name it once")
    return tuple(value)


def _numbers(value: Any, kind: Kind, name: str) -> tuple[Any, ...]:
    """A list as a tuple of finite numbers of the kind's type, each within its range."""
    item = get_args(kind.type)[0]
    names = f"{' or '.join(kind.choices)}, or " if kind.choices else ""
    asked = f"{name} must be {names}a list of {'whole ' if item is int else ''}numbers, not {_shown(value)}"
    if not isinstance(value, (list, tuple)) or not all(_is_number(v) for v in value):
        raise UsageError(asked)
    numbers = tuple(_bounded(v, name) for v in value)
    if any(item(v) != v for v in numbers):
        raise UsageError(asked)
    outside = [v for v in numbers if kind.range is not None and v not in kind.range]
    if outside:
        raise UsageError(f"{name} must be a list of numbers that are {kind.range}, and one is {outside[0]!r}")
    return tuple(item(v) for v in numbers)


def _bounded(value: float, name: str) -> float:
    """A number as it is. Raises UsageError for one that is infinite, none at all, or greater than tensors hold."""
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name} must be a finite number, not {value!r}")
    if isinstance(value, int) and abs(value) > MOST:
        raise UsageError(f"{name} must be between {-MOST} and {MOST}, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value as an error message shows it, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"
    except RecursionError:
        return "something that is nested thousands deep"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
