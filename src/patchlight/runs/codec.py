"""Frozen dataclasses as JSON and back: checked by their annotations, nothing lost that this version does not know.

A record's fields are int, float, bool, str, `X | None`, tuples and dictionaries of such, and other records. Of
`New | Old`, two records, the new one is meant where the file has a field that the old one does not have.
`field(metadata={"key": "train/loss"})` names the key in the file, `{"brief": True}` leaves a None out of it, and
`{"read": function}` turns an older form of a value into today's before it is checked.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar, get_args, get_origin

JSON = None | bool | int | float | str | list["JSON"] | dict[str, "JSON"]
T = TypeVar("T")


class RecordError(ValueError):
    """What is wrong with a record, beginning with the name of the field: "epoch must be a whole number, not '3'"."""


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
    hints = typing.get_type_hints(cls)
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
    """`value` in the type of the annotation. Raises RecordError, beginning with `name`, where it is of another."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None  # a number that could not be computed is no number
        hint = _fitting([arg for arg in get_args(hint) if arg is not type(None)], value)
    if dataclasses.is_dataclass(hint):
        return from_json(hint, value, name)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        return _tuple(value, get_args(hint), name)
    if get_origin(hint) is dict:
        if not isinstance(value, Mapping):
            raise RecordError(f"{name} must be an object of fields, not {_short(value)}")
        inner = get_args(hint)[1]
        return {str(key): checked(item, inner, f"{name}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise RecordError(f"{name} must be {kinds.get(hint, hint)}, not {_short(value)}")
    return value


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
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
