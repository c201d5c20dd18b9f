"""The fields of a recipe: what an annotation says of a value, and how a value is read and checked by it.

A field is written `Annotated[type, "its meaning", Range]`; help texts, checks and the command line's parsing follow.
"""

from __future__ import annotations

import re
import tomllib
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from patchlight.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Range:
    """The values a number may take: low <= value <= high, or low < value with `above`."""

    low: float = float("-inf")
    high: float = float("inf")
    above: bool = False

    def __contains__(self, value: float) -> bool:
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return low if self.high == float("inf") else f"{low} and at most {self.high:g}"


class Duration(str):
    """A length of time as people write it, in hours, minutes and seconds: 90s, 10m, 1h30m. `seconds` is its value."""

    FORM = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")

    @property
    def seconds(self) -> float:
        match = self.FORM.fullmatch(self)
        hours, minutes, seconds = (float(part or 0) for part in match.groups()) if match else (0.0, 0.0, 0.0)
        return 3600 * hours + 60 * minutes + seconds


POSITIVE = Range(0, above=True)
COUNT = Range(1)
NOT_NEGATIVE = Range(0)
RATE = Range(0, 1)
PROPER_RATE = Range(0, 0.999)
NEARLY_ONE = Range(0, 0.999999)


@dataclass(frozen=True)
class Section:
    """One table of a recipe. Building one checks every field against its annotation."""

    def __post_init__(self) -> None:
        for name, hint in typing.get_type_hints(type(self), include_extras=True).items():
            object.__setattr__(self, name, checked(getattr(self, name), hint, name))


def parts(hint: Any) -> tuple[Any, str, Range | None]:
    """The bare type, the meaning and the range of an annotation."""
    if get_origin(hint) is not Annotated:
        return hint, "", None
    bare, *notes = get_args(hint)
    meaning = next((n for n in notes if isinstance(n, str)), "")
    return bare, meaning, next((n for n in notes if isinstance(n, Range)), None)


def is_optional(hint: Any) -> bool:
    return get_origin(hint) in (typing.Union, types.UnionType) and type(None) in get_args(hint)


def required(hint: Any) -> Any:
    """`int` of `int | None`."""
    return next(arg for arg in get_args(hint) if arg is not type(None)) if is_optional(hint) else hint


def kind(hint: Any) -> str:
    bare = required(hint)
    if get_origin(bare) is Literal:
        return "|".join(get_args(bare))
    return "numbers" if get_origin(bare) is tuple else bare.__name__.lower()


def parse(text: str, hint: Any) -> Any:
    """A command-line word as the value a TOML file would have held; what does not parse is left for the check."""
    bare = required(hint)
    if bare in (str, Duration) or get_origin(bare) is Literal:
        return text
    if get_origin(bare) is tuple:
        text = text if text.startswith("[") else f"[{text}]"
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def checked(value: Any, hint: Any, name: str) -> Any:
    """The value in its field's type, or a UsageError that begins with the field's name."""
    bare, _, allowed = parts(hint)
    if value is None and is_optional(bare):
        return None
    bare = required(bare)
    if get_origin(bare) is Literal:
        if value not in get_args(bare):
            raise UsageError(f"{name} cannot be {value!r}; {did_you_mean(str(value), get_args(bare))}")
        return value
    if bare is Duration:
        if not isinstance(value, str) or not Duration(value).seconds:
            raise UsageError(f'{name} must be a time such as "90s", "10m" or "1h30m", not {value!r}')
        return Duration(value)
    if get_origin(bare) is tuple:
        item = get_args(bare)[0]
        if not isinstance(value, (list, tuple)) or not all(_is_number(v) and item(v) == v for v in value):
            raise UsageError(f"{name} must be a list of {'whole ' if item is int else ''}numbers, not {value!r}")
        return tuple(item(v) for v in value)
    if bare is float and _is_number(value):
        value = float(value)
    if not isinstance(value, bare) or (bare is int and isinstance(value, bool)):
        kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise UsageError(f"{name} must be {kinds[bare]}, not {value!r}")
    if allowed is not None and value not in allowed:
        raise UsageError(f"{name} must be {allowed}, not {value!r}")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
