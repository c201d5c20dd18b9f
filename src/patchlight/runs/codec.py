"""Frozen dataclasses as JSON and back: checked by their annotations, nothing lost that this version does not know.

A record's fields are int, float, bool, str, `X | None`, tuples and dictionaries of such, other records, and JSON, which
is any value that the file holds. Of
`New | Old`, two records, the new one is meant where the file has a field that the old one does not have.
A number's range stands in its annotation, as in Count and Rate below; what a file holds is held against it.
`field(metadata={"key": "train/loss"})` names the key in the file, `{"brief": True}` leaves a None out of it, and
`{"read": function}` turns an older form of a value into today's before it is checked.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar, get_args, get_origin

GREATEST = 2**63 - 1  # of whole numbers, as arrays hold them
LARGEST = 1e38  # of numbers with a point, as training's float32 holds them


@dataclass(frozen=True)
class Within:
    """The least and the greatest value of a number in a file."""

    least: float
    greatest: float
    words: str  # what it is: "a share from 0 to 1"


Count = Annotated[int, Within(0, 2**53, "0 or more")]
Place = Annotated[int, Within(1, 2**53, "1 or more")]
Amount = Annotated[float, Within(0, LARGEST, "0 or more")]
Rate = Annotated[float, Within(-1e-4, 1 + 1e-4, "a share from 0 to 1")]  # shares that were added up in float32

DEEPEST = 100  # lists and objects inside each other; ours have six
JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
T = TypeVar("T")


class RecordError(ValueError):
    """What is wrong with a record, beginning with the name of the field: "epoch must be a whole number, not '3'"."""


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises OSError where it cannot be opened, and as `parse_json` does."""
    try:
        return parse_json(path.read_bytes().decode("utf-8"))
    except UnicodeDecodeError:
        raise RecordError("it is not text in UTF-8") from None


def parse_json(text: str) -> Any:
    """What a text in JSON says. Raises RecordError where it is none, or has more than a computer's numbers hold."""
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecordError(f"it is not valid JSON (line {error.lineno})") from None
    except ValueError:  # Python reads no whole number of more than 4300 digits
        raise RecordError("it has a number of thousands of digits") from None
    except RecursionError:
        raise RecordError(f"lists and objects in it are nested more than {DEEPEST} deep") from None
    if _is_deeper(data, DEEPEST):
        raise RecordError(f"lists and objects in it are nested more than {DEEPEST} deep")
    return data


def _is_deeper(data: Any, most: int) -> bool:
    """Whether lists and objects are nested more than `most` deep."""
    level = [data] if isinstance(data, dict | list) else []
    for _ in range(most + 1):
        level = [item for part in level for item in (part.values() if isinstance(part, dict) else part)]
        level = [item for item in level if isinstance(item, dict | list)]
        if not level:
            return False
    return True


@dataclass(frozen=True, kw_only=True)
class Record:
    """Base of the records that are files or parts of them. `unknown` holds fields that this version has no name for."""

    unknown: dict[str, JSON] = field(default_factory=dict, repr=False, compare=False)

    def to_json(self) -> dict[str, JSON]:
        """Plain data for JSON, the unknown fields among them."""
        return to_json(self)

    @classmethod
    def from_json(cls, data: object, where: str = "") -> Self:
        """As the function `from_json`."""
        return from_json(cls, data, where)


def to_json(record: Any) -> dict[str, JSON]:
    """A dataclass as plain data for JSON."""
    plain: dict[str, JSON] = {}
    for f in dataclasses.fields(record):
        value = getattr(record, f.name)
        if f.name != "unknown" and not (value is None and f.metadata.get("brief")):
            plain[_key(f)] = _plain(value)
    return plain | getattr(record, "unknown", {})


def from_json(cls: type[T], data: object, where: str = "") -> T:
    """The dataclass that plain data describe. Raises RecordError, naming the field, where they do not fit.

    `where` is the name of the field that holds the record, as it begins the message.
    """
    if not isinstance(data, Mapping):
        raise RecordError(f"{where or 'the record'} must be an object of fields, not {_short(data)}")
    hints = typing.get_type_hints(cls, include_extras=True)
    known = {_key(f): f for f in dataclasses.fields(cls) if f.name != "unknown"}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, f in known.items():
        name = f"{where}.{key}" if where else key
        if key in data:
            read = f.metadata.get("read", lambda value: value)
            values[f.name] = checked(read(data[key]), hints[f.name], name)
        elif _is_needed(f):
            raise RecordError(f"{name} is missing")
    if "unknown" in hints:
        values["unknown"] = {key: value for key, value in data.items() if key not in known}
    return cls(**values)


def checked(value: object, hint: Any, name: str) -> Any:
    """`value` in the type of the annotation.

    Raises RecordError, beginning with `name`, where it is of another, or out of its range.
    """
    if get_origin(hint) is Annotated:
        bare, within = get_args(hint)
        number = checked(value, bare, name)
        if not within.least <= number <= within.greatest:
            raise RecordError(f"{name} must be {within.words}, not {_short(value)}")
        return number
    if get_origin(hint) in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return None  # a number that could not be computed is no number
        if any(get_origin(kind) is list for kind in get_args(hint)):  # JSON: no other hint has a list
            return _anything(value, name)
        return checked(value, _fitting([arg for arg in get_args(hint) if arg is not type(None)], value), name)
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value, name)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        return _tuple(value, get_args(hint), name)
    if get_origin(hint) is dict:
        if not isinstance(value, Mapping):
            raise RecordError(f"{name} must be an object of fields, not {_short(value)}")
        inner = get_args(hint)[1]
        return {_text(key, name): checked(item, inner, f"{name}.{_shown_key(key)}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) <= GREATEST else value
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise RecordError(f"{name} must be {kinds.get(hint, hint)}, not {_short(value)}")
    if isinstance(value, str):
        return _text(value, name)
    if hint is int and abs(value) > GREATEST:
        raise RecordError(f"{name} must be a whole number of at most {GREATEST}, not {_short(value)}")
    if hint is float and not abs(value) <= LARGEST:
        raise RecordError(f"{name} must be a number of at most {LARGEST:g}, not {_short(value)}")
    return value


def _anything(value: Any, name: str) -> Any:
    """A value of JSON as it is, where a file can hold its texts and its whole numbers."""
    if isinstance(value, Mapping):
        return {_text(key, name): _anything(item, f"{name}.{_shown_key(key)}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_anything(item, f"{name}[{i}]") for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | float):
        return value
    return checked(value, int if isinstance(value, int) else str, name)


def _text(value: object, name: str) -> str:
    """A text as it is. Raises RecordError for one that no file can hold, as it has half of a sign of two halves."""
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RecordError(f"{name} must be text in UTF-8, not {_short(value)}") from None
    return text


def _shown_key(key: object) -> str:
    """A key as a message names it: quoted only where it is long or odd."""
    text = str(key)
    return text if text.isprintable() and len(text) <= 60 else _short(text)


def _fitting(kinds: list[Any], value: object) -> Any:
    """Of several records, newest first, the first of which `value` has a field that later ones do not have; else the
    last. So a newer one that lacks a field is an error, and not taken for an older one.
    """
    for place, kind in enumerate(kinds[:-1]):
        older = {_key(f) for other in kinds[place + 1 :] for f in dataclasses.fields(other)}
        own = {_key(f) for f in dataclasses.fields(kind)} - older
        if isinstance(value, Mapping) and own & value.keys():
            return kind
    return kinds[-1]


def _is_needed(f: dataclasses.Field[Any]) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _tuple(value: object, kinds: tuple[Any, ...], name: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise RecordError(f"{name} must be a list, not {_short(value)}")
    if kinds[-1] is Ellipsis:
        return tuple(checked(item, kinds[0], f"{name}[{i}]") for i, item in enumerate(value))
    if len(value) != len(kinds):
        raise RecordError(f"{name} must be a list of {len(kinds)}, not of {len(value)}")
    return tuple(checked(item, kind, f"{name}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds, strict=True)))


def _key(f: dataclasses.Field[Any]) -> str:
    return str(f.metadata.get("key", f.name))


def _plain(value: Any) -> JSON:
    if dataclasses.is_dataclass(value):
        return to_json(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value


def _short(value: object) -> str:
    """A value in a message: on one line, and cut where it is long."""
    text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
